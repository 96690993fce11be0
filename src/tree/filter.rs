//! What is left out of a tree: the rules of `.gitignore`, which people know.

use super::{RuleFiles, TreePath, WalkOptions};
use crate::error::{Error, Kind, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fd::BorrowedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;

/// The file with the rules, in the root of a source.
const RULES: &str = ".volioignore";

/// More than anybody writes by hand; a matcher for more takes minutes to build.
const LARGEST: u64 = 1 << 20;

/// Rules for one source.
pub(super) struct Filter(Gitignore);

impl Filter {
    /// The rules in the root of a source, where they count, followed by those of the options: the last one that matches
    /// counts.
    ///
    /// `shown` is the source as the user knows it.
    pub fn new(root: BorrowedFd<'_>, shown: &str, options: &WalkOptions) -> Result<Self> {
        let mut rules = GitignoreBuilder::new("");
        let invalid = |place: &str, rule: &str, why: &dyn std::fmt::Display| {
            Error::usage(format!("{place} {rule:?} is not a rule of gitignore: {why}"))
        };
        let text = match options.rule_files {
            RuleFiles::Ignore => String::new(),
            RuleFiles::Apply => read_rules(root, shown)?,
        };
        for (number, line) in text.lines().enumerate() {
            if let Err(why) = rules.add_line(None, line) {
                return Err(invalid(&format!("{shown}/{RULES}, line {}:", number + 1), line, &why));
            }
        }
        for rule in &options.exclude {
            rules.add_line(None, rule).map_err(|why| invalid("exclude", rule, &why))?;
        }
        let rules = rules.build().map_err(|why| Error::usage("the rules are too many").because(why))?;
        Ok(Self(rules))
    }

    /// Whether something is left out. Not asked for what is in a directory that was left out.
    pub fn excludes(&self, path: &TreePath, is_directory: bool) -> bool {
        self.0.matched(path.as_path(), is_directory).is_ignore()
    }
}

/// The text of the rules; empty when there are none.
fn read_rules(root: BorrowedFd<'_>, shown: &str) -> Result<String> {
    let what = || format!("cannot read the rules in {shown}/{RULES}");
    // Not a link: the rules would come from somewhere else. Not blocking: it could be a fifo.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(root, RULES, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(String::new()),
        Err(errno) => return Err(Error::io(what(), errno)),
    };
    let stat = fstat(&file).map_err(|errno| Error::io(what(), errno))?;
    let mut text = Vec::new();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::new(Kind::Usage, format!("{}: it is not a file", what())));
    }
    File::from(file).take(LARGEST + 1).read_to_end(&mut text).map_err(|error| Error::io(what(), error))?;
    if text.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{}: it is larger than 1 MiB", what())));
    }
    let text = String::from_utf8(text).map_err(|_| {
        Error::usage(format!("{}: it is not UTF-8", what()))
            .hint("a `?` matches one byte of a name that is not UTF-8")
    })?;
    // As git does: editors on Windows begin their files with it.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
