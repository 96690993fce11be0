//! What is left out of a tree: the rules of `.gitignore`, which people know.

use crate::error::{Error, Kind, Result};
use crate::tree::{RuleFiles, TreePath, WalkOptions};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fd::BorrowedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

/// The file with the rules, in the root of a source.
const RULES: &str = ".volioignore";

/// More than anybody writes by hand; a matcher for more takes minutes to build.
const LARGEST: u64 = 1 << 20;

/// Rules for one source, in runs: the last run that has something to say about a path counts.
pub(in crate::tree) struct Filter(Vec<Run>);

/// Rules one after the other, either all of them text or one alone that is not.
struct Run {
    rules: Gitignore,
    is_text: bool,
}

impl Filter {
    /// The rules in the root of a source, where they count, followed by those of the options: the last one that matches
    /// counts.
    ///
    /// `shown` is the source as the user knows it.
    pub fn new(root: BorrowedFd<'_>, shown: &str, options: &WalkOptions) -> Result<Self> {
        let mut runs = Runs::default();
        let file = match options.rule_files {
            RuleFiles::Ignore => Vec::new(),
            RuleFiles::Apply => read_rules(root, shown)?,
        };
        for (number, line) in rule_lines(&file).enumerate() {
            runs.add(line, || format!("{shown}/{RULES}, line {}:", number + 1))?;
        }
        runs.finish(options)
    }

    /// The rules of the options alone.
    pub fn of_options(options: &WalkOptions) -> Result<Self> {
        Runs::default().finish(options)
    }

    /// Whether something is left out. Not asked for what is in a directory that was left out.
    pub fn excludes(&self, path: &TreePath, is_directory: bool) -> bool {
        let matches = self.0.iter().rev().map(|run| match run.is_text {
            true => run.rules.matched(path.as_path(), is_directory),
            false => run.rules.matched(&*as_text(path.as_bytes()), is_directory),
        });
        matches
            .map(|found| found.map(|_| ()))
            .find(|found| !found.is_none())
            .is_some_and(|found| found.is_ignore())
    }
}

/// Runs of rules while they are collected.
#[derive(Default)]
struct Runs {
    done: Vec<Run>,
    /// The run of text that is still growing.
    text: Option<GitignoreBuilder>,
}

impl Runs {
    /// Adds the rules of the options.
    fn finish(mut self, options: &WalkOptions) -> Result<Filter> {
        for rule in &options.exclude {
            self.add(rule.as_bytes(), || "exclude".to_owned())?;
        }
        self.end()?;
        Ok(Filter(self.done))
    }

    fn add(&mut self, rule: &[u8], place: impl Fn() -> String) -> Result<()> {
        let add = |rules: &mut GitignoreBuilder, text: &str| match rules.add_line(None, text) {
            Ok(_) => Ok(()),
            Err(why) => {
                let rule = OsStr::from_bytes(rule);
                Err(Error::usage(format!("{} {rule:?} is not a rule of gitignore: {why}", place())))
            }
        };
        if let Ok(text) = str::from_utf8(rule) {
            return add(self.text.get_or_insert_with(|| GitignoreBuilder::new("")), text);
        }
        self.end()?;
        let mut alone = GitignoreBuilder::new("");
        add(&mut alone, &as_text(rule))?;
        self.push(&alone, false)
    }

    fn end(&mut self) -> Result<()> {
        match self.text.take() {
            Some(text) => self.push(&text, true),
            None => Ok(()),
        }
    }

    fn push(&mut self, rules: &GitignoreBuilder, is_text: bool) -> Result<()> {
        let rules = rules.build().map_err(|why| Error::usage("the rules are too many").with_source(why))?;
        self.done.push(Run { rules, is_text });
        Ok(())
    }
}

/// The lines of a file of rules, without what ends them, and without the mark that editors on Windows begin it with.
pub fn rule_lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let file = file.strip_suffix(b"\n").unwrap_or(file);
    file.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Bytes as text in which each byte that is not UTF-8 is a character of a plane that no name uses: globs are text.
fn as_text(bytes: &[u8]) -> String {
    const PLANE: u32 = 0x10_ff00;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(PLANE + u32::from(*byte))));
    }
    text
}

/// The file with the rules; empty when there are none.
fn read_rules(root: BorrowedFd<'_>, shown: &str) -> Result<Vec<u8>> {
    let what = || format!("cannot read the rules in {shown}/{RULES}");
    // Not a link: the rules would come from somewhere else. Not blocking: it could be a fifo.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(root, RULES, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Vec::new()),
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
    Ok(text)
}
