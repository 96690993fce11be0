//! What is mounted below a directory.

use super::TreePath;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The places below a directory, and not itself, on which something is mounted, highest first. None where the kernel
/// does not say, as without `/proc`.
pub(super) fn below(directory: &Path) -> Vec<TreePath> {
    let known = fs::canonicalize(directory).ok().zip(fs::read("/proc/self/mountinfo").ok());
    let Some((directory, table)) = known else { return Vec::new() };
    let mut places = parse(&table, directory.as_os_str().as_bytes());
    places.sort();
    places.dedup();
    places
}

/// Reads `proc_pid_mountinfo(5)`: the fifth field is the place.
fn parse(table: &[u8], directory: &[u8]) -> Vec<TreePath> {
    let above = TreePath::parse(directory).unwrap_or_default();
    let lines = table.split(|byte| *byte == b'\n');
    let places = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    places
        .filter_map(|place| {
            let place = TreePath::parse(unescape(place))?;
            place.below(&above).filter(|below| !below.is_root())
        })
        .collect()
}

/// Spaces, tabs, newlines and backslashes stand there as three octal digits behind a backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
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
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_below_the_directory_and_may_have_spaces() {
        let table = b"22 1 0:20 / / rw - ext4 /dev/a rw\n23 22 0:21 / /data rw - x y z\n\
            24 22 0:22 / /data/a\\040b\\134 rw,nosuid shared:1 - x y z\n25 22 0:23 / /database rw - x y z\n";
        let shown = |directory: &[u8]| -> Vec<String> {
            parse(table, directory).iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(b"/data"), ["/a b\\"]);
        assert_eq!(shown(b"/"), ["/data", "/data/a b\\", "/database"]);
        assert!(shown(b"/nowhere").is_empty());
    }
}
