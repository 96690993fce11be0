//! Exclude rules, in the syntax of `.gitignore`.

use super::{RuleFiles, WalkOptions};
use crate::error::{Error, Result};
use crate::tree::TreePath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fd::BorrowedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

/// The file with the rules, in the root of a source.
const RULE_FILE: &str = ".volioignore";

/// The most bytes of that file: more than anybody writes by hand. A matcher for more takes minutes to build.
const MAX_RULE_FILE: u64 = 1 << 20;

/// The rules for one source, in groups. The last group that matches a path decides.
pub(super) struct Filter(Vec<RuleGroup>);

/// Consecutive rules: either all of them are UTF-8, or it is a single rule that is not.
struct RuleGroup {
    rules: Gitignore,
    is_utf8: bool,
}

impl Filter {
    /// The rules of `.volioignore` in `root`, where the options apply them, followed by those of the options. The last rule
    /// that matches decides.
    ///
    /// `shown` is the source as messages show it.
    pub fn new(root: BorrowedFd<'_>, shown: &str, options: &WalkOptions) -> Result<Self> {
        let mut builder = FilterBuilder::default();
        let file = match options.rule_files {
            RuleFiles::Ignore => Vec::new(),
            RuleFiles::Apply => read_rules(root, shown)?,
        };
        for (number, line) in rule_lines(&file).enumerate() {
            builder.add(line, || format!("{shown}/{RULE_FILE}, line {}:", number + 1))?;
        }
        builder.finish(options)
    }

    /// The rules of the options alone.
    pub fn of_options(options: &WalkOptions) -> Result<Self> {
        FilterBuilder::default().finish(options)
    }

    /// Returns whether an entry is left out. The caller does not ask for what is in an excluded directory.
    pub fn excludes(&self, path: &TreePath, is_directory: bool) -> bool {
        let matches = self.0.iter().rev().map(|group| {
            if group.is_utf8 {
                group.rules.matched(path.as_path(), is_directory)
            } else {
                group.rules.matched(&*escape_bytes(path.as_bytes()), is_directory)
            }
        });
        matches
            .map(|found| found.map(|_| ()))
            .find(|found| !found.is_none())
            .is_some_and(|found| found.is_ignore())
    }
}

/// A filter to which rules are added.
#[derive(Default)]
struct FilterBuilder {
    groups: Vec<RuleGroup>,
    /// The group of UTF-8 rules that is still growing.
    utf8: Option<GitignoreBuilder>,
}

impl FilterBuilder {
    /// Adds the rules of the options.
    fn finish(mut self, options: &WalkOptions) -> Result<Filter> {
        for rule in &options.exclude {
            self.add(rule.as_bytes(), || "exclude".to_owned())?;
        }
        self.end_group()?;
        Ok(Filter(self.groups))
    }

    fn add(&mut self, rule: &[u8], origin: impl Fn() -> String) -> Result<()> {
        let add = |rules: &mut GitignoreBuilder, text: &str| match rules.add_line(None, text) {
            Ok(_) => Ok(()),
            Err(why) => {
                let rule = OsStr::from_bytes(rule);
                Err(Error::usage(format!("{} {rule:?} is not a rule of gitignore: {why}", origin())))
            }
        };
        if let Ok(text) = str::from_utf8(rule) {
            return add(self.utf8.get_or_insert_with(|| GitignoreBuilder::new("")), text);
        }
        self.end_group()?;
        let mut single = GitignoreBuilder::new("");
        add(&mut single, &escape_bytes(rule))?;
        self.push(&single, false)
    }

    fn end_group(&mut self) -> Result<()> {
        match self.utf8.take() {
            Some(rules) => self.push(&rules, true),
            None => Ok(()),
        }
    }

    fn push(&mut self, rules: &GitignoreBuilder, is_utf8: bool) -> Result<()> {
        let rules = rules.build().map_err(|why| Error::usage("the rules are too many").with_source(why))?;
        self.groups.push(RuleGroup { rules, is_utf8 });
        Ok(())
    }
}

/// Returns the lines of a file of rules, without line ends and without the byte order mark of Windows editors.
pub fn rule_lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let file = file.strip_suffix(b"\n").unwrap_or(file);
    file.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Returns bytes as text, because globs match text. Each byte that is not UTF-8 becomes a character of a private plane that
/// names do not use.
fn escape_bytes(bytes: &[u8]) -> String {
    const PLANE: u32 = 0x10_ff00;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(PLANE + u32::from(*byte))));
    }
    text
}

/// Reads the file with the rules; empty when there is none.
fn read_rules(root: BorrowedFd<'_>, shown: &str) -> Result<Vec<u8>> {
    let what = || format!("cannot read the rules in {shown}/{RULE_FILE}");
    // A link is not followed: the rules would come from somewhere else. The call does not block on a fifo.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(root, RULE_FILE, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(Error::io(what(), errno)),
    };
    let stat = fstat(&file).map_err(|errno| Error::io(what(), errno))?;
    let mut text = Vec::new();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::usage(format!("{}: it is not a file", what())));
    }
    let read = File::from(file).take(MAX_RULE_FILE + 1).read_to_end(&mut text);
    read.map_err(|error| Error::io(what(), error))?;
    if text.len() as u64 > MAX_RULE_FILE {
        return Err(Error::usage(format!("{}: it is larger than 1 MiB", what())));
    }
    Ok(text)
}
