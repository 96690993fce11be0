//! File systems that take two names for one: case-insensitive ones such as vfat, exFAT, and the shares of virtual machines
//! on macOS and Windows.
//!
//! An image may have both `A` and `a`. There, the second would take the place of the first, or the contents of two
//! directories would be mixed. So an entry is created only where nothing has another spelling of its name.

use super::Extractor;
use crate::disk::directory::{FileId, names_in};
use crate::error::{Error, Result};
use crate::tree::TreePath;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, fstatfs, statat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::CString;

/// The type of file systems in user space, in statfs(2).
const FUSE: u32 = 0x6573_5546;

impl Extractor {
    /// Ensures that what has the name of an entry, in the current directory, has it in this spelling.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) if it has another one.
    pub(super) fn ensure_spelling(&mut self, path: &TreePath) -> Result<()> {
        let found = self.stack.here().and_then(|here| other_spelling(here, path.name()));
        match found.map_err(|errno| self.io_error("look at", path, errno))? {
            None => Ok(()),
            Some(name) => {
                let shown = &self.target.shown;
                let other = path.parent().unwrap_or_default().join(name.to_bytes());
                Err(Error::refused(format!(
                    "{shown}{path} cannot be created beside {shown}{other}: the file system takes the two names for one"
                ))
                .with_hint("use a directory on a file system that distinguishes upper and lower case"))
            }
        }
    }

    /// Notes whether the file system of the target, or of one of these mount points in it, is case-insensitive.
    pub(super) fn note_case_folding<'a>(&mut self, mounts: impl Iterator<Item = &'a TreePath>) -> Result<()> {
        self.folds_case |= folds_case(self.stack.root());
        for path in mounts {
            self.goto(path)?;
            self.folds_case |= self.stack.here().is_ok_and(folds_case);
        }
        Ok(())
    }

    /// Returns whether a sync found a case-insensitive file system in the target.
    pub(crate) fn folds_case(&self) -> bool {
        self.folds_case
    }
}

/// Returns the name, in another spelling, of the entry that `name` leads to; `None` if it has that name, or if there is no
/// such entry.
fn other_spelling(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<CString>, Errno> {
    let Some(id) = id_of(directory, name).filter(|id| is_found_swapped(directory, name, *id)) else {
        return Ok(None);
    };
    let names = names_in(directory)?;
    if names.iter().any(|found| found.to_bytes() == name) {
        return Ok(None);
    }
    let lower_case = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
    let is_other = |found: &CString| {
        id_of(directory, found.to_bytes()) == Some(id) || lower_case(found.to_bytes()) == lower_case(name)
    };
    Ok(names.into_iter().find(is_other))
}

/// Returns whether a directory takes the names of entries in it for equal to those with the other case.
fn folds_case(directory: BorrowedFd<'_>) -> bool {
    let Ok(names) = names_in(directory) else { return false };
    let names: HashSet<_> = names.iter().map(|name| name.to_bytes()).collect();
    let has_no_other = |name: &&[u8]| swap_case(name).is_some_and(|swapped| !names.contains(&swapped[..]));
    let name = names.iter().copied().find(has_no_other);
    name.is_some_and(|name| id_of(directory, name).is_some_and(|id| is_found_swapped(directory, name, id)))
}

/// Returns whether an entry is also found by its name with the other case.
fn is_found_swapped(directory: BorrowedFd<'_>, name: &[u8], id: FileId) -> bool {
    let found = swap_case(name).and_then(|swapped| id_of(directory, &swapped));
    // Most file systems in user space have an inode number for each spelling.
    let is_fuse = || fstatfs(directory).is_ok_and(|status| status.f_type as u32 == FUSE);
    found.is_some_and(|found| found == id || is_fuse())
}

fn id_of(directory: BorrowedFd<'_>, name: &[u8]) -> Option<FileId> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| FileId::from(&stat))
}

/// Returns a name with the other case of each letter; `None` if it has no letters with a case.
fn swap_case(name: &[u8]) -> Option<Vec<u8>> {
    let swapped = match str::from_utf8(name) {
        Ok(text) => text.chars().map(swap_case_of).collect::<String>().into_bytes(),
        Err(_) => name.iter().map(|byte| swap_ascii_case(*byte)).collect(),
    };
    (swapped != name).then_some(swapped)
}

/// Returns a letter with the other case, if that is one letter too.
fn swap_case_of(letter: char) -> char {
    let (mut lower, mut upper) = (letter.to_lowercase(), letter.to_uppercase());
    match (lower.next(), lower.next(), upper.next(), upper.next()) {
        (Some(lower), None, _, _) if lower != letter => lower,
        (_, _, Some(upper), None) => upper,
        _ => letter,
    }
}

fn swap_ascii_case(byte: u8) -> u8 {
    if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;

    #[test]
    fn every_letter_gets_its_other_case() {
        let swapped = |name: &str| swap_case(name.as_bytes()).map(|name| String::from_utf8(name).unwrap());
        assert_eq!(swapped("Read.me 1"), Some("rEAD.ME 1".to_owned()));
        assert_eq!(swapped("äÖ"), Some("Äö".to_owned()));
        // It has two letters as its upper case.
        assert_eq!(swapped("ß"), None);
        assert_eq!(swapped("12 日本"), None);
        assert_eq!(swap_case(b"a\xff"), Some(b"A\xff".to_vec()));
    }

    #[test]
    fn hard_links_that_differ_in_case_have_their_own_names() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "").unwrap();
        let open = std::fs::File::open(directory.path()).unwrap();
        assert_eq!(other_spelling(open.as_fd(), b"a"), Ok(None));
        std::fs::hard_link(directory.path().join("a"), directory.path().join("A")).unwrap();
        assert_eq!(other_spelling(open.as_fd(), b"a"), Ok(None));
    }
}
