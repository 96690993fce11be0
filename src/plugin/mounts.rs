//! Who really sees a volume. An engine that was killed never says that its containers are gone, and one that left them
//! running says nothing when they end; the kernel knows.

use rustix::process::geteuid;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whether a directory is mounted somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// By no process.
    ByNobody,
    /// By this process, at least.
    By(u32),
    /// It cannot be found out: others' mounts are root's to read.
    Unknown,
}

/// A line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)): which part of which file system is mounted where.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    root: PathBuf,
    at: PathBuf,
}

/// Looks into every mount namespace for a mount of the directory, or of something in it.
pub(super) fn seen(directory: &Path) -> Seen {
    let Some(Place { device, root, is_mount_point }) = place(directory) else { return Seen::Unknown };
    let mut namespaces = BTreeSet::new();
    let mut hidden = !geteuid().is_root();
    let Ok(processes) = fs::read_dir("/proc") else { return Seen::Unknown };
    for process in processes.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Many processes share one.
        if let Ok(namespace) = fs::read_link(process.path().join("ns/mnt"))
            && !namespaces.insert(namespace)
        {
            continue;
        }
        match mounts(&process.path()) {
            Ok(mounts) => {
                // Where a disk is mounted on the directory itself, everybody sees that mount.
                let is_itself = |mount: &Mount| is_mount_point && mount.at == directory;
                let is_it = |mount: &Mount| {
                    mount.device == device && mount.root.starts_with(&root) && !is_itself(mount)
                };
                if mounts.iter().any(is_it) {
                    return Seen::By(number);
                }
            }
            // It has ended meanwhile, or is about to.
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::ACCESS.raw_os_error()) => {}
            Err(_) => hidden = true,
        }
    }
    if hidden { Seen::Unknown } else { Seen::ByNobody }
}

/// The device of a directory and its path within that file system, as the kernel names them.
struct Place {
    device: String,
    root: PathBuf,
    /// Whether something is mounted on it.
    is_mount_point: bool,
}

fn place(directory: &Path) -> Option<Place> {
    let mounts = mounts(Path::new("/proc/self")).ok()?;
    // The last of those that lie over each other is the one that is seen.
    let covering = mounts.iter().filter(|mount| directory.starts_with(&mount.at));
    let mount = covering.max_by_key(|mount| mount.at.components().count())?;
    let rest = directory.strip_prefix(&mount.at).ok()?;
    let root = if rest.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(rest) };
    Some(Place { device: mount.device.clone(), root, is_mount_point: mount.at == directory })
}

fn mounts(process: &Path) -> io::Result<Vec<Mount>> {
    let text = fs::read(process.join("mountinfo"))?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse).collect())
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ').skip(2);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let (root, at) = (unescape(fields.next()?), unescape(fields.next()?));
    Some(Mount { device, root, at })
}

/// The kernel writes white space and backslashes in octal.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        match code {
            Some(code) => {
                path.push(code);
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_understood_with_its_escapes() {
        let line = br"36 35 98:0 /mnt\0401 /mnt2\134x rw,noatime master:1 - ext3 /dev/root rw";
        let expected = Mount { device: "98:0".to_owned(), root: "/mnt 1".into(), at: r"/mnt2\x".into() };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(br"\9\04"), PathBuf::from(r"\9\04"));
    }

    #[test]
    fn a_directory_that_is_mounted_nowhere_is_seen_by_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let directory = fs::canonicalize(directory.path()).unwrap();
        let expected = if geteuid().is_root() { Seen::ByNobody } else { Seen::Unknown };
        assert_eq!(seen(&directory), expected);
    }
}
