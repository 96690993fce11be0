//! The table of mounts of a process: `/proc/PID/mountinfo`, as proc_pid_mountinfo(5) has it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount: which part of which file system is seen where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The number of the file system, `MAJOR:MINOR`.
    pub device: String,
    /// The directory of the file system that is seen.
    pub root: PathBuf,
    /// Where it is seen.
    pub at: PathBuf,
}

/// The mounts that a process sees, by its directory in `/proc`, in the order in which they lie over each other.
pub(crate) fn mounts(process: &Path) -> io::Result<Vec<Mount>> {
    let table = fs::read(process.join("mountinfo"))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The places below a directory, and not itself, on which this process sees something mounted, relative to it.
///
/// # Errors
/// When there is no such directory, or the kernel does not say, as without `/proc`.
pub(crate) fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = fs::canonicalize(directory)?;
    Ok(places_below(&directory, mounts(Path::new("/proc/self"))?))
}

fn places_below(directory: &Path, mounts: Vec<Mount>) -> Vec<PathBuf> {
    let places =
        mounts.into_iter().filter_map(|mount| Some(mount.at.strip_prefix(directory).ok()?.to_owned()));
    let mut places: Vec<_> = places.filter(|place| !place.as_os_str().is_empty()).collect();
    places.sort();
    places.dedup();
    places
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let (root, at) = (unescape(fields.next()?), unescape(fields.next()?));
    Some(Mount { device, root, at })
}

/// Reads a field: spaces, tabs, newlines and backslashes stand there as three octal digits after a backslash.
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
    fn a_line_of_the_kernel_is_understood_with_its_escapes() {
        let line = br"36 35 98:0 /mnt\0401 /mnt2\134x rw,noatime master:1 - ext3 /dev/root rw";
        let expected = Mount { device: "98:0".to_owned(), root: "/mnt 1".into(), at: r"/mnt2\x".into() };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(br"\9\04"), PathBuf::from(r"\9\04"));
    }

    #[test]
    fn places_are_below_the_directory_and_may_have_spaces() {
        let table = b"22 1 0:20 / / rw - ext4 /dev/a rw\n23 22 0:21 / /data rw - x y z\n\
            24 22 0:22 / /data/a\\040b\\134 rw,nosuid shared:1 - x y z\n25 22 0:23 / /database rw - x y z\n";
        let mounts: Vec<_> = table.split(|byte| *byte == b'\n').filter_map(parse).collect();
        let below = |directory: &str| places_below(Path::new(directory), mounts.clone());
        assert_eq!(below("/data"), [Path::new("a b\\")]);
        assert_eq!(below("/"), [Path::new("data"), Path::new("data/a b\\"), Path::new("database")]);
        assert!(below("/nowhere").is_empty());
    }
}
