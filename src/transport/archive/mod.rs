//! A tar file whose members are read at random, without unpacking it.
//!
//! The headers are read once, from member to member, and what stands between them is skipped; then a member is a
//! stretch of the file. Nothing of an archive is ever written to a path that the archive names, so that no name in
//! it can do harm: what is asked for is looked up, and all else is never looked at.

mod header;
#[cfg(test)]
mod tests;
mod writer;

pub use writer::{ArchiveWriter, Composed, View};

use crate::disk::atomic_file::open_nonblocking;
use crate::error::{Error, Result};
use crate::stream::Unverified;
use header::BLOCK;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tar_core::EntryType;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};

/// The most memory that the members of an archive may take, in bytes: room for some 200 000 blobs.
const MEMBERS_LIMIT: usize = 64 << 20;
/// What a member takes beside its name.
const MEMBER_OVERHEAD: usize = 240;
/// How many links may lead from one to the next: `docker save` writes one, and more than a few is a circle.
const LINKS_LIMIT: usize = 8;
/// How much is read at once where headers are: more than one member has.
const HEADERS_AT_ONCE: usize = 4 * BLOCK;

/// An archive, and where in it each member is.
pub struct Archive {
    file: Arc<File>,
    path: PathBuf,
    /// In the order of the file.
    members: Vec<Member>,
    /// By name; of several with the same name the last, which is what unpacking would leave.
    by_name: HashMap<String, usize>,
}

struct Member {
    name: String,
    kind: Kind,
    /// Where its first header begins.
    start: u64,
    /// Where its content begins.
    offset: u64,
    /// The size of its content.
    size: u64,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    File,
    /// A link to the member of this name.
    Link(String),
    /// A sparse file, a device, a link out of the archive: nothing that an image is made of.
    Unfit,
    Directory,
}

impl Archive {
    /// Opens an archive and finds its members.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when the file is not there, [`Integrity`](crate::error::Kind::Integrity)
    /// when it is no archive or its end is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let cannot = |error| Error::io(format!("cannot open the archive {}", path.display()), error);
        let file = open_nonblocking(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            let hint = match metadata.is_dir() {
                true => "an image layout in a directory is named oci:DIR[:TAG]",
                false => "an archive is read here and there: save it to a file first",
            };
            return Err(Error::usage(format!("{} is no file", path.display())).with_hint(hint));
        }
        let mut archive = Self {
            file: Arc::new(file),
            path: path.to_owned(),
            members: Vec::new(),
            by_name: HashMap::new(),
        };
        archive.find_members(metadata.len())?;
        Ok(archive)
    }

    /// The content of the member, if there is one; a link stands for what it leads to.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the member is no plain file, or leads nowhere.
    pub fn find(&self, name: &str) -> Result<Option<Section>> {
        // Lists may spell a name like this, too: `./a`. What leaves the archive is not in it.
        let Some(name) = normal(name.as_bytes()) else { return Ok(None) };
        let mut name = name.as_str();
        for followed in 0..=LINKS_LIMIT {
            let Some(member) = self.by_name.get(name).and_then(|at| self.members.get(*at)) else {
                return match followed {
                    0 => Ok(None),
                    _ => Err(self.damaged(&format!("a link leads to {name:?}, which is not in it"))),
                };
            };
            match &member.kind {
                Kind::File => return Ok(Some(self.section(member.offset, member.size))),
                Kind::Link(target) => name = target,
                Kind::Unfit | Kind::Directory => {
                    return Err(self.damaged(&format!("its member {name:?} is no plain file")));
                }
            }
        }
        Err(self.damaged(&format!("its member {name:?} is a link that leads in a circle")))
    }

    /// The names by which a member is reached from this one: itself, and those that a link leads to.
    pub fn trail(&self, name: &str) -> Vec<String> {
        let mut trail = Vec::new();
        let mut next = normal(name.as_bytes());
        while let Some(name) = next.take().filter(|_| trail.len() <= LINKS_LIMIT) {
            let member = self.by_name.get(&name).and_then(|at| self.members.get(*at));
            next = match member.map(|member| &member.kind) {
                Some(Kind::Link(target)) => Some(target.clone()),
                _ => None,
            };
            trail.push(name);
        }
        trail
    }

    /// Whether this member is the one that its name stands for, or has no name that can be asked for.
    fn counts(&self, at: usize, member: &Member) -> bool {
        self.by_name.get(&member.name).is_none_or(|last| *last == at)
    }

    /// The whole content of a small member, if there is one.
    ///
    /// # Errors
    /// Those of [`find`](Self::find); [`Integrity`](crate::error::Kind::Integrity) when it is larger than `limit`.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(mut section) = self.find(name)? else { return Ok(None) };
        if section.len() > limit {
            return Err(self.damaged(&format!("its member {name:?} is larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        section
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io(format!("cannot read {}", self.path.display()), error))?;
        Ok(Some(bytes))
    }

    /// Whether there is a member of this name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The error for an archive that is not what it should be.
    pub fn damaged(&self, why: &str) -> Error {
        Error::integrity(format!("the archive {} is damaged: {why}", self.path.display()))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn section(&self, offset: u64, size: u64) -> Section {
        Section { file: Arc::clone(&self.file), position: offset, end: offset.saturating_add(size), size }
    }

    /// Goes from header to header.
    fn find_members(&mut self, length: u64) -> Result<()> {
        let mut parser = Parser::new(Limits::default());
        // Times before 1970 and the like: nobody here asks for them.
        parser.set_ignore_pax_errors(true);
        let mut headers = Headers { file: Arc::clone(&self.file), position: 0, bytes: Vec::new() };
        let mut start = 0;
        let mut memory = 0;
        loop {
            let (consumed, entry, is_sparse) = match parser.parse(&headers.bytes) {
                Ok(ParseEvent::NeedData { min_bytes }) => match headers.fill(min_bytes) {
                    Ok(true) => continue,
                    // Without its closing blocks it is still an archive; what is missing will not be found.
                    Ok(false) if headers.bytes.is_empty() => return Ok(()),
                    Ok(false) if self.members.is_empty() => {
                        return Err(self.no_archive(&headers.bytes, "it is shorter than a header"));
                    }
                    Ok(false) => return Err(self.damaged("it ends in the middle of a header")),
                    Err(error) => {
                        return Err(Error::io(format!("cannot read {}", self.path.display()), error));
                    }
                },
                Ok(ParseEvent::Entry { consumed, entry }) => (consumed, entry, false),
                Ok(ParseEvent::SparseEntry { consumed, entry, .. }) => (consumed, entry, true),
                Ok(ParseEvent::GlobalExtensions { consumed, .. }) => {
                    headers.skip(consumed as u64);
                    continue;
                }
                Ok(ParseEvent::End { .. }) => return Ok(()),
                Err(error) => return Err(self.no_archive(&headers.bytes, &error.to_string())),
            };
            let offset = headers.position + consumed as u64;
            let end = offset.checked_add(entry.size).filter(|end| *end <= length);
            let Some(end) = end else {
                return Err(self.damaged("it ends in the middle of a member"));
            };
            let kind = if is_sparse { Kind::Unfit } else { Kind::of(&entry) };
            let name = normal(&entry.path).unwrap_or_default();
            memory += MEMBER_OVERHEAD + 2 * name.len() + kind.memory();
            if memory > MEMBERS_LIMIT {
                return Err(self.damaged("it has more members than any image"));
            }
            let member = Member { name: name.clone(), kind, start, offset, size: entry.size };
            start = end.next_multiple_of(BLOCK as u64);
            let header_end = headers.position;
            headers.skip(start - header_end);
            self.enter(member, name);
        }
    }

    /// Files a member under its name. What has no name that can be asked for is kept for those who copy the archive.
    fn enter(&mut self, member: Member, name: String) {
        if !name.is_empty() {
            self.by_name.insert(name, self.members.len());
        }
        self.members.push(member);
    }

    /// The error for a file that does not begin as an archive does, or stops being one.
    fn no_archive(&self, bytes: &[u8], why: &str) -> Error {
        let path = self.path.display();
        let hint = match bytes {
            _ if !self.members.is_empty() => return self.damaged(why),
            [0x1f, 0x8b, ..] => format!("it is compressed: unpack it first with gunzip {path}"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => format!("it is compressed: unpack it first with unzstd {path}"),
            [0xfd, b'7', b'z', b'X', ..] => format!("it is compressed: unpack it first with unxz {path}"),
            [b'B', b'Z', b'h', ..] => format!("it is compressed: unpack it first with bunzip2 {path}"),
            _ => "an archive is what docker save, podman save, skopeo or volio wrote".to_owned(),
        };
        Error::integrity(format!("{path} is no tar archive")).with_hint(hint)
    }
}

impl Kind {
    fn of(entry: &ParsedEntry<'_>) -> Self {
        let target = entry.link_target.as_deref().unwrap_or_default();
        match entry.entry_type {
            EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => Self::Directory,
            EntryType::Regular | EntryType::Continuous => Self::File,
            EntryType::Directory => Self::Directory,
            EntryType::Link => normal(target).map_or(Self::Unfit, Self::Link),
            EntryType::Symlink => relative(&entry.path, target).map_or(Self::Unfit, Self::Link),
            _ => Self::Unfit,
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Link(target) => target.len(),
            _ => 0,
        }
    }
}

/// The one spelling of a name: `./a//b` is `a/b`. `None` for what leaves the archive or is not UTF-8.
fn normal(name: &[u8]) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in str::from_utf8(name).ok()?.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Where a symbolic link leads: from the directory that it is in.
fn relative(link: &[u8], target: &[u8]) -> Option<String> {
    if target.starts_with(b"/") {
        return None;
    }
    normal(&[link, b"/../", target].concat())
}

/// The bytes of headers, read ahead.
struct Headers {
    file: Arc<File>,
    /// Where `bytes` stand in the file.
    position: u64,
    bytes: Vec<u8>,
}

impl Headers {
    /// Makes sure of `needed` bytes; `false` when the file has no more of them.
    fn fill(&mut self, needed: usize) -> io::Result<bool> {
        let had = self.bytes.len();
        if needed <= had {
            return Ok(false);
        }
        self.bytes.resize(needed.max(HEADERS_AT_ONCE), 0);
        let mut filled = had;
        while filled < self.bytes.len() {
            match self.file.read_at(&mut self.bytes[filled..], self.position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(filled);
        Ok(filled >= needed)
    }

    /// Goes on behind that many bytes.
    fn skip(&mut self, bytes: u64) {
        let held = usize::try_from(bytes).map_or(self.bytes.len(), |bytes| bytes.min(self.bytes.len()));
        self.bytes.drain(..held);
        self.position += bytes;
    }
}

/// A stretch of the file; several can be read at once, for none of them moves the file's own position.
#[derive(Clone)]
pub struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
    size: u64,
}

impl Section {
    /// The same for somebody who has to prove it, and may want to go back.
    pub fn unverified(self) -> Unverified {
        let again = self.clone();
        Unverified::new(self).reopenable(move |offset| {
            let mut rest = again.clone();
            rest.position = rest.position.saturating_add(offset).min(rest.end);
            Ok(Box::new(rest))
        })
    }

    /// The same without what lies outside of this range of it.
    pub fn part(self, range: Range<u64>) -> Self {
        let at = |offset: u64| self.position.saturating_add(offset).min(self.end);
        let (position, end) = (at(range.start), at(range.end));
        Self { position, end, size: end.saturating_sub(position), ..self }
    }

    /// The size of the whole.
    pub fn len(&self) -> u64 {
        self.size
    }

    /// The first bytes, without reading on.
    ///
    /// # Errors
    /// Those of reading.
    pub fn begins_with(&self, magic: &[u8]) -> io::Result<bool> {
        let mut found = vec![0; magic.len()];
        match self.size < magic.len() as u64 {
            true => Ok(false),
            false => self.file.read_exact_at(&mut found, self.position).map(|()| found == magic),
        }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end - self.position;
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.file.read_at(&mut buffer[..most], self.position)?;
        if read == 0 && most > 0 {
            return Err(Error::integrity("the archive was cut while it was read").into());
        }
        self.position += read as u64;
        Ok(read)
    }
}
