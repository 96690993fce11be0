//! What this process may use of the machine: the cores, and the memory that its control group and its limits leave it.

use rustix::process::{Resource, getrlimit};
use std::path::{Path, PathBuf};
use std::{fs, thread};

/// What volio takes in memory beside its workers, measured with packing and unpacking; a quarter of what there is stays
/// free.
const BESIDE: u64 = 32 << 20;
/// What a worker takes, with the blocks that wait for it.
const WORKER: u64 = 16 << 20;

/// How many threads can be kept busy: as many as there are cores, or the quota of the control group has of them, and as
/// fit into the memory; at least one, and at most `most`.
pub fn workers(most: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    cores.min(most).min(room()).max(1)
}

/// How many workers there is memory for, at least one.
pub fn room() -> usize {
    memory().map_or(usize::MAX, fitting).max(1)
}

/// How many workers fit into so much memory.
fn fitting(memory: u64) -> usize {
    let left = (memory / 4 * 3).saturating_sub(BESIDE);
    usize::try_from(left / WORKER).unwrap_or(usize::MAX)
}

/// The least limit on the memory of this process, in bytes, where there is any.
fn memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = limits_of(&groups).into_iter().filter_map(|path| limit_in(&path));
    let limits = [getrlimit(Resource::As).current, getrlimit(Resource::Data).current];
    groups.chain(limits.into_iter().flatten()).min()
}

/// The files that may hold a limit on this process: those of its control group and of all above it, in both versions.
///
/// In a container the group may have another path than is seen from there, and then the root is its own.
fn limits_of(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

/// The limit that a file holds; `None` where there is no file, and where it says `max`.
fn limit_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_container_gets_one_worker_and_a_large_one_as_many_as_it_has_cores() {
        for (mebibytes, count) in [(0, 0), (16, 0), (64, 1), (128, 4), (1024, 46)] {
            assert_eq!(fitting(mebibytes << 20), count, "{mebibytes} MiB");
        }
        assert!(fitting(u64::MAX) > 1000);
        assert_eq!(workers(0), 1);
        assert_eq!(workers(1), 1);
    }

    #[test]
    fn limits_are_looked_for_in_the_own_group_and_all_above_it() {
        let files = |groups| -> Vec<String> {
            limits_of(groups).into_iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            files("0::/system.slice/volio.service\n"),
            [
                "/sys/fs/cgroup/system.slice/volio.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            files("4:cpu:/x\n3:memory,hugetlb:/docker/1\n1:name=systemd:/\n"),
            [
                "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert!(files("nonsense\n:\n").is_empty());
    }

    #[test]
    fn what_is_no_number_is_no_limit() {
        let directory = tempfile::tempdir().unwrap();
        for (text, limit) in [("max\n", None), ("67108864\n", Some(64 << 20)), ("", None)] {
            let file = directory.path().join("memory.max");
            fs::write(&file, text).unwrap();
            assert_eq!(limit_in(&file), limit, "{text:?}");
        }
        assert_eq!(limit_in(Path::new("/nowhere/memory.max")), None);
    }
}
