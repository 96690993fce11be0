//! Tar files with random access to their members, without unpacking them.
//!
//! [`TarArchive::open`] reads the headers, one after the other, and skips the contents. After that a member is a section of
//! the file. No member is ever written to a path that the archive names, so that names cannot do harm.
//!
//! `layer::LayerReader` is another reader of tar, for streams. It is strict, because a layer that two programs read
//! differently is dangerous. Here, members with unknown types or odd attributes are only skipped: `docker save` and other
//! programs write many of them, and the digests prove what is read. So the crate tar-core parses the headers.

mod header;
#[cfg(test)]
mod tests;
mod writer;

pub use writer::{ArchiveWriter, Closing, Contents};

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

/// The limit on the memory for the list of members, in bytes: some 200 000 blobs.
const MEMORY_LIMIT: usize = 64 << 20;
/// The memory for a member in addition to its name, in bytes.
const MEMBER_OVERHEAD: usize = 240;
/// The longest chain of links. `docker save` writes links to files; a longer chain is probably a circle.
const LINKS_LIMIT: usize = 8;
/// The number of bytes that are read at once for headers: more than the headers of one member have.
const READ_SIZE: usize = 4 * BLOCK;

/// An open archive with the list of its members.
pub struct TarArchive {
    file: Arc<File>,
    path: PathBuf,
    /// In the order of the file.
    members: Vec<Member>,
    /// The indexes in `members` by name. Of several members with the same name it is the last, as after unpacking.
    by_name: HashMap<String, usize>,
}

struct Member {
    name: String,
    kind: MemberKind,
    /// The offset of its first header.
    start: u64,
    /// The offset of its content.
    offset: u64,
    /// The size of its content.
    size: u64,
}

#[derive(Clone, PartialEq, Eq)]
enum MemberKind {
    File,
    /// A link to the member with this name.
    Link(String),
    Directory,
    /// A sparse file, a device, or a link out of the archive, none of which is part of an image.
    Unsupported,
}

impl TarArchive {
    /// Opens an archive and lists its members.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if the file does not exist, [`Integrity`](crate::error::Kind::Integrity)
    /// if it is not an archive or ends within a member.
    pub fn open(path: &Path) -> Result<Self> {
        let io_error = |error| Error::io(format!("cannot open the archive {}", path.display()), error);
        let file = open_nonblocking(path).map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        if !metadata.is_file() {
            let hint = if metadata.is_dir() {
                "an image layout in a directory is named oci:DIR[:TAG]"
            } else {
                "an archive is read here and there: save it to a file first"
            };
            return Err(Error::usage(format!("{} is not a file", path.display())).with_hint(hint));
        }
        let mut archive = Self {
            file: Arc::new(file),
            path: path.to_owned(),
            members: Vec::new(),
            by_name: HashMap::new(),
        };
        archive.read_headers(metadata.len())?;
        Ok(archive)
    }

    /// Finds the content of a member. Links are followed within the archive.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the member is not a file, or a link to a missing member.
    pub fn find(&self, name: &str) -> Result<Option<Section>> {
        let Some(name) = normalize(name.as_bytes()) else { return Ok(None) };
        let mut name = name.as_str();
        for followed in 0..=LINKS_LIMIT {
            let Some(member) = self.by_name.get(name).and_then(|at| self.members.get(*at)) else {
                return match followed {
                    0 => Ok(None),
                    _ => Err(self.damaged(&format!("a link leads to {name:?}, which is not in it"))),
                };
            };
            match &member.kind {
                MemberKind::File => return Ok(Some(self.section(member.offset, member.size))),
                MemberKind::Link(target) => name = target,
                MemberKind::Unsupported | MemberKind::Directory => {
                    return Err(self.damaged(&format!("its member {name:?} is not a plain file")));
                }
            }
        }
        Err(self.damaged(&format!("its member {name:?} is a link that leads in a circle")))
    }

    /// Returns the names of a member and of the members that its links lead to.
    pub fn link_chain(&self, name: &str) -> Vec<String> {
        let mut chain = Vec::new();
        let mut next = normalize(name.as_bytes());
        while let Some(name) = next.take().filter(|_| chain.len() <= LINKS_LIMIT) {
            let member = self.by_name.get(&name).and_then(|at| self.members.get(*at));
            next = match member.map(|member| &member.kind) {
                Some(MemberKind::Link(target)) => Some(target.clone()),
                _ => None,
            };
            chain.push(name);
        }
        chain
    }

    /// Returns whether no later member has the same name.
    fn is_current(&self, at: usize, member: &Member) -> bool {
        self.by_name.get(&member.name).is_none_or(|last| *last == at)
    }

    /// Reads a small member. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// Those of [`find`](Self::find); [`Integrity`](crate::error::Kind::Integrity) if it is larger than `limit` bytes.
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

    /// Returns whether there is a member with this name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The error for a malformed archive.
    pub fn damaged(&self, why: &str) -> Error {
        Error::integrity(format!("the archive {} is damaged: {why}", self.path.display()))
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn section(&self, offset: u64, size: u64) -> Section {
        Section { file: Arc::clone(&self.file), position: offset, end: offset.saturating_add(size), size }
    }

    /// Fills the list of members from the headers in a file of `length` bytes.
    fn read_headers(&mut self, length: u64) -> Result<()> {
        let mut parser = Parser::new(Limits::default());
        // Malformed attributes, such as some times before 1970, are not used here.
        parser.set_ignore_pax_errors(true);
        let mut headers = HeaderReader { file: Arc::clone(&self.file), position: 0, bytes: Vec::new() };
        let mut start = 0;
        let mut memory = 0;
        loop {
            let (consumed, entry, is_sparse) = match parser.parse(&headers.bytes) {
                Ok(ParseEvent::NeedData { min_bytes }) => match headers.fill(min_bytes) {
                    Ok(true) => continue,
                    // The closing blocks may be missing. Blobs that are missing too are reported when they are opened.
                    Ok(false) if headers.bytes.is_empty() => return Ok(()),
                    Ok(false) if self.members.is_empty() => {
                        return Err(self.not_an_archive(&headers.bytes, "it is shorter than a header"));
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
                Err(error) => return Err(self.not_an_archive(&headers.bytes, &error.to_string())),
            };
            let offset = headers.position + consumed as u64;
            let end = offset.checked_add(entry.size).filter(|end| *end <= length);
            let Some(end) = end else {
                return Err(self.damaged("it ends in the middle of a member"));
            };
            let kind = if is_sparse { MemberKind::Unsupported } else { MemberKind::of(&entry) };
            let name = normalize(&entry.path).unwrap_or_default();
            memory += MEMBER_OVERHEAD + 2 * name.len() + kind.memory();
            if memory > MEMORY_LIMIT {
                return Err(self.damaged("it has more members than any image"));
            }
            let member = Member { name: name.clone(), kind, start, offset, size: entry.size };
            start = end.next_multiple_of(BLOCK as u64);
            let header_end = headers.position;
            headers.skip(start - header_end);
            self.add(member, name);
        }
    }

    /// Adds a member to the list. One with a name outside of the archive cannot be found, but is kept when the archive is
    /// copied.
    fn add(&mut self, member: Member, name: String) {
        if !name.is_empty() {
            self.by_name.insert(name, self.members.len());
        }
        self.members.push(member);
    }

    /// The error for a file that is not a tar archive, or not from here on.
    fn not_an_archive(&self, bytes: &[u8], why: &str) -> Error {
        let path = self.path.display();
        let hint = match bytes {
            _ if !self.members.is_empty() => return self.damaged(why),
            [0x1f, 0x8b, ..] => format!("it is compressed: unpack it first with gunzip {path}"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => format!("it is compressed: unpack it first with unzstd {path}"),
            [0xfd, b'7', b'z', b'X', ..] => format!("it is compressed: unpack it first with unxz {path}"),
            [b'B', b'Z', b'h', ..] => format!("it is compressed: unpack it first with bunzip2 {path}"),
            _ => "an archive is what docker save, podman save, skopeo or volio wrote".to_owned(),
        };
        Error::integrity(format!("{path} is not a tar archive")).with_hint(hint)
    }
}

impl MemberKind {
    fn of(entry: &ParsedEntry<'_>) -> Self {
        let target = entry.link_target.as_deref().unwrap_or_default();
        match entry.entry_type {
            EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => Self::Directory,
            EntryType::Regular | EntryType::Continuous => Self::File,
            EntryType::Directory => Self::Directory,
            EntryType::Link => normalize(target).map_or(Self::Unsupported, Self::Link),
            EntryType::Symlink => resolve(&entry.path, target).map_or(Self::Unsupported, Self::Link),
            _ => Self::Unsupported,
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Link(target) => target.len(),
            _ => 0,
        }
    }
}

/// Normalizes a name: `./a//b` is `a/b`. Returns `None` if the name is outside of the archive or not UTF-8.
fn normalize(name: &[u8]) -> Option<String> {
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

/// Resolves the target of a symbolic link, relative to the link's directory. Returns `None` if it is outside of the
/// archive.
fn resolve(link: &[u8], target: &[u8]) -> Option<String> {
    if target.starts_with(b"/") {
        return None;
    }
    normalize(&[link, b"/../", target].concat())
}

/// A buffered reader of headers.
struct HeaderReader {
    file: Arc<File>,
    /// The offset of `bytes` in the file.
    position: u64,
    bytes: Vec<u8>,
}

impl HeaderReader {
    /// Reads until `bytes` has `needed` bytes. Returns `false` if the file ends before.
    fn fill(&mut self, needed: usize) -> io::Result<bool> {
        let had = self.bytes.len();
        if needed <= had {
            return Ok(false);
        }
        self.bytes.resize(needed.max(READ_SIZE), 0);
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

    /// Skips this many bytes.
    fn skip(&mut self, bytes: u64) {
        let held = usize::try_from(bytes).map_or(self.bytes.len(), |bytes| bytes.min(self.bytes.len()));
        self.bytes.drain(..held);
        self.position += bytes;
    }
}

/// A section of the file. Several sections can be read at the same time, because the file's own position is not used.
#[derive(Clone)]
pub struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
    size: u64,
}

impl Section {
    /// Returns the content as bytes that have to be verified.
    pub fn unverified(self) -> Unverified {
        let section = self.clone();
        Unverified::new(self).reopenable(move |offset| {
            let mut rest = section.clone();
            rest.position = rest.position.saturating_add(offset).min(rest.end);
            Ok(Box::new(rest))
        })
    }

    /// Returns the part of the section within this range.
    pub fn range(self, range: Range<u64>) -> Self {
        let at = |offset: u64| self.position.saturating_add(offset).min(self.end);
        let (position, end) = (at(range.start), at(range.end));
        Self { position, end, size: end.saturating_sub(position), ..self }
    }

    /// Returns the size in bytes.
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Returns whether the content starts with these bytes. The position does not change.
    ///
    /// # Errors
    /// Those of reading.
    pub fn starts_with(&self, magic: &[u8]) -> io::Result<bool> {
        if self.size < magic.len() as u64 {
            return Ok(false);
        }
        let mut start = vec![0; magic.len()];
        self.file.read_exact_at(&mut start, self.position)?;
        Ok(start == magic)
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
