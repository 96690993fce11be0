//! The table of mounts of a process: `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The number of the file system, `MAJOR:MINOR`.
    pub device: String,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// The mount point.
    pub at: PathBuf,
}

/// Returns the mounts of a process, by its directory in `/proc`. A mount comes after those that it covers.
pub(crate) fn mounts(process: &Path) -> io::Result<Vec<Mount>> {
    let table = fs::read(process.join("mountinfo"))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Returns the mount points of this process below a directory, which is not included, relative to it.
///
/// # Errors
/// When the directory does not exist, or the kernel does not list mounts, as without `/proc`.
pub(crate) fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = fs::canonicalize(directory)?;
    Ok(points_below(&directory, mounts(Path::new("/proc/self"))?))
}

fn points_below(directory: &Path, mounts: Vec<Mount>) -> Vec<PathBuf> {
    let points =
        mounts.into_iter().filter_map(|mount| Some(mount.at.strip_prefix(directory).ok()?.to_owned()));
    let mut points: Vec<_> = points.filter(|point| !point.as_os_str().is_empty()).collect();
    points.sort();
    points.dedup();
    points
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let (root, at) = (unescape(fields.next()?), unescape(fields.next()?));
    Some(Mount { device, root, at })
}

/// Decodes a field: spaces, tabs, newlines and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => plain.push(*byte),
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_parsed_with_its_escapes() {
        let line = br"36 35 98:0 /mnt\0401 /mnt2\134x rw,noatime master:1 - ext3 /dev/root rw";
        let expected = Mount { device: "98:0".to_owned(), root: "/mnt 1".into(), at: r"/mnt2\x".into() };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(br"\9\04"), PathBuf::from(r"\9\04"));
    }

    #[test]
    fn mount_points_below_a_directory_are_found_and_may_have_spaces() {
        let table = b"22 1 0:20 / / rw - ext4 /dev/a rw\n23 22 0:21 / /data rw - x y z\n\
            24 22 0:22 / /data/a\\040b\\134 rw,nosuid shared:1 - x y z\n25 22 0:23 / /database rw - x y z\n";
        let mounts: Vec<_> = table.split(|byte| *byte == b'\n').filter_map(parse).collect();
        let below = |directory: &str| points_below(Path::new(directory), mounts.clone());
        assert_eq!(below("/data"), [Path::new("a b\\")]);
        assert_eq!(below("/"), [Path::new("data"), Path::new("data/a b\\"), Path::new("database")]);
        assert!(below("/nowhere").is_empty());
    }
}
