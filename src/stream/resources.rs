//! The resources of this process: the cores, and the memory that its control group and its limits allow.

use rustix::process::{Resource, getrlimit};
use std::path::{Path, PathBuf};
use std::{fs, thread};

/// The memory of volio without its workers, in bytes, measured in pack and unpack. A quarter of all memory stays free.
const BASE: u64 = 32 << 20;
/// The memory of a worker and the blocks that wait for it, in bytes.
const WORKER: u64 = 16 << 20;

/// Returns the number of threads that can be kept busy: the cores, or the quota of the control group, as far as they fit
/// into the memory; at least one and at most `max`.
pub fn worker_count(max: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    cores.min(max).min(memory_slots()).max(1)
}

/// The most threads that write small files: one thread creates the files, and more of them would wait for it.
const MAX_FILE_THREADS: usize = 4;

/// Returns the number of threads that write small files besides the one that creates them. There are none on one or two
/// cores, which verifying and creating keep busy, nor where the memory suffices for the other workers only.
pub fn file_thread_count() -> usize {
    match worker_count(MAX_FILE_THREADS + 1) {
        cores @ 3.. if memory_slots() > cores => cores - 1,
        _ => 0,
    }
}

/// Returns the number of workers that fit into the memory, at least one.
pub fn memory_slots() -> usize {
    memory_limit().map_or(usize::MAX, slots_in).max(1)
}

/// Returns the number of workers that fit into so much memory.
fn slots_in(memory: u64) -> usize {
    let left = (memory / 4 * 3).saturating_sub(BASE);
    usize::try_from(left / WORKER).unwrap_or(usize::MAX)
}

/// Returns the tightest memory limit on this process, in bytes, if there is one.
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = limits_of(&groups).into_iter().filter_map(|path| limit_in(&path));
    let limits = [getrlimit(Resource::As).current, getrlimit(Resource::Data).current];
    groups.chain(limits.into_iter().flatten()).min()
}

/// Returns the files that may hold a limit on this process: those of its control group and of all its ancestors, for both
/// versions of control groups.
///
/// Within a container, the path of the group may be invisible. The root of the hierarchy is then the group itself.
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

/// Returns the limit in a file; `None` if the file does not exist or says `max`.
fn limit_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_container_gets_one_worker_and_a_large_one_as_many_as_it_has_cores() {
        for (mebibytes, count) in [(0, 0), (16, 0), (64, 1), (128, 4), (1024, 46)] {
            assert_eq!(slots_in(mebibytes << 20), count, "{mebibytes} MiB");
        }
        assert!(slots_in(u64::MAX) > 1000);
        assert_eq!(worker_count(0), 1);
        assert_eq!(worker_count(1), 1);
    }

    #[test]
    fn limits_are_read_from_the_own_group_and_all_its_ancestors() {
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
    fn a_file_without_a_number_is_not_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        for (text, limit) in [("max\n", None), ("67108864\n", Some(64 << 20)), ("", None)] {
            let file = directory.path().join("memory.max");
            fs::write(&file, text).unwrap();
            assert_eq!(limit_in(&file), limit, "{text:?}");
        }
        assert_eq!(limit_in(Path::new("/nowhere/memory.max")), None);
    }
}
