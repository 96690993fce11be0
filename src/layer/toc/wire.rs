//! An entry of the table of contents as JSON: the fields of stargz, and volio's own for what those cannot say.

use super::chunk::Chunk;
use crate::layer::{header, pax};
use crate::oci::Digest;
use crate::tree::{Entry, EntryKind, Metadata, Time, TreePath};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// One object of `entries`, its fields in the order of their names. What is nothing is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wire<'a> {
    #[serde(borrow, skip_serializing_if = "is_empty")]
    pub chunk_digest: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_offset: u64,
    /// Nothing where the chunk is the rest of the file.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_size: u64,
    /// `zeros`, as Podman has it, or nothing.
    #[serde(skip_serializing_if = "is_empty")]
    pub chunk_type: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    /// Of the whole file. volio leaves it out: one chunk has the same, and several prove the file without being hashed
    /// once more as a whole.
    #[serde(skip_serializing_if = "is_empty")]
    pub digest: Cow<'a, str>,
    /// Where the frame ends; stargz' readers do without.
    #[serde(skip_serializing_if = "is_zero")]
    pub end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub inner_offset: u64,
    #[serde(skip_serializing_if = "is_empty")]
    link_name: Cow<'a, str>,
    /// The bytes of the target, base64, where they are no text.
    #[serde(skip_serializing_if = "is_empty")]
    link_name_raw: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    modtime: Cow<'a, str>,
    /// Seconds since 1970, for a time that no calendar has.
    #[serde(skip_serializing_if = "is_empty")]
    modtime_raw: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    pub name: Cow<'a, str>,
    /// The bytes of the name, base64, where they are no text.
    #[serde(skip_serializing_if = "is_empty")]
    name_raw: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub size: u64,
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

/// The type of the second and later chunks of a file.
pub const CHUNK: &str = "chunk";
/// The type of a chunk that is nothing but zeros.
const ZEROS: &str = "zeros";

impl<'a> Wire<'a> {
    /// An entry, still without its content. Names are as the archive has them.
    pub fn of(entry: &Entry) -> Self {
        let Metadata { mode, uid, gid, mtime, xattrs } = &entry.metadata;
        let (name, name_raw) = text(&header::archive_name(entry));
        let mut wire = Self { name, name_raw, mode: u64::from(*mode), ..Self::default() };
        (wire.uid, wire.gid) = (u64::from(*uid), u64::from(*gid));
        match rfc3339(*mtime) {
            _ if *mtime == Time::default() => {}
            Some(text) => wire.modtime = text.into(),
            None => wire.modtime_raw = pax::decimal(*mtime).into(),
        }
        let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| {
            (String::from_utf8_lossy(name).into_owned(), BASE64.encode(value))
        };
        wire.xattrs = xattrs.iter().map(xattr).collect();
        let (kind, link, device) = match &entry.kind {
            EntryKind::File { size } => {
                wire.size = *size;
                ("reg", None, (0, 0))
            }
            EntryKind::Directory => ("dir", None, (0, 0)),
            EntryKind::Symlink { target } => ("symlink", Some(target.as_slice()), (0, 0)),
            EntryKind::Hardlink { target } => ("hardlink", Some(target.as_bytes()), (0, 0)),
            EntryKind::Fifo => ("fifo", None, (0, 0)),
            EntryKind::CharDevice { major, minor } => ("char", None, (*major, *minor)),
            EntryKind::BlockDevice { major, minor } => ("block", None, (*major, *minor)),
        };
        wire.kind = kind.into();
        (wire.dev_major, wire.dev_minor) = (device.0.into(), device.1.into());
        if let Some(target) = link {
            (wire.link_name, wire.link_name_raw) = text(target);
        }
        wire
    }

    /// What says no more than whose second or later chunk it will have.
    #[must_use]
    pub fn further(self) -> Self {
        Self { name: self.name, kind: CHUNK.into(), ..Self::default() }
    }

    /// The same with a chunk of its content.
    #[must_use]
    pub fn with(mut self, chunk: &Chunk) -> Self {
        self.chunk_digest = chunk.digest.to_string().into();
        self.chunk_offset = chunk.offset;
        self.chunk_size = chunk.size;
        self.chunk_type = if chunk.zeros { ZEROS.into() } else { Cow::default() };
        (self.offset, self.end_offset) = (chunk.frame.start, chunk.frame.end);
        self.inner_offset = chunk.inner;
        self
    }

    /// The entry, as the archive should have it.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn entry(&self) -> Result<Entry, &'static str> {
        let path = TreePath::parse(bytes(&self.name, &self.name_raw)?).ok_or("its path leaves the tree")?;
        let link = || bytes(&self.link_name, &self.link_name_raw);
        let number = |number: u64, why| u32::try_from(number).map_err(|_| why);
        let device = || -> Result<_, &'static str> {
            let beyond = "it is a device beyond all numbers";
            Ok((number(self.dev_major, beyond)?, number(self.dev_minor, beyond)?))
        };
        let kind = match &*self.kind {
            "reg" => EntryKind::File { size: self.size },
            "dir" => EntryKind::Directory,
            "symlink" => EntryKind::Symlink { target: link()? },
            "hardlink" => {
                let target = TreePath::parse(link()?).ok_or("it is a hard link that leaves the tree")?;
                EntryKind::Hardlink { target }
            }
            "fifo" => EntryKind::Fifo,
            "char" => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
            "block" => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
            _ => return Err("its type is not known"),
        };
        let id = |id| {
            number(id, "its owner or its group cannot be")
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or("its owner or its group cannot be")
        };
        let mut metadata = Metadata {
            mode: number(self.mode & 0o7777, "")?,
            uid: id(self.uid)?,
            gid: id(self.gid)?,
            mtime: self.time().ok_or("its time is none")?,
            xattrs: BTreeMap::new(),
        };
        for (name, value) in &self.xattrs {
            let value = BASE64.decode(value).map_err(|_| "an extended attribute is not base64")?;
            metadata.xattrs.insert(name.clone().into_bytes(), value);
        }
        Ok(Entry { path, kind, metadata })
    }

    fn time(&self) -> Option<Time> {
        if !self.modtime_raw.is_empty() {
            return pax::parse_decimal(&self.modtime_raw);
        }
        if self.modtime.is_empty() {
            return Some(Time::default());
        }
        let nanoseconds = self.modtime.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
        Some(Time {
            seconds: i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?,
            nanoseconds: u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?,
        })
    }

    /// The chunk that this names, where it names one; `rest` is what the file has from it on.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn chunk(&self, rest: u64) -> Result<Chunk, &'static str> {
        Ok(Chunk {
            frame: self.offset..self.end_offset,
            inner: self.inner_offset,
            offset: self.chunk_offset,
            size: if self.chunk_size == 0 { rest } else { self.chunk_size },
            digest: parse_digest(&self.chunk_digest).ok_or("a chunk of it has no digest")?,
            zeros: self.chunk_type == ZEROS,
        })
    }
}

/// Parses a digest. Tables of contents have SHA-256 only, as comparing the content of two layers needs one algorithm.
pub fn parse_digest(text: &str) -> Option<Digest> {
    text.parse().ok().filter(|digest| matches!(digest, Digest::Sha256(_)))
}

/// Bytes as text, and as base64 where they are none.
fn text<'a>(bytes: &[u8]) -> (Cow<'a, str>, Cow<'a, str>) {
    match str::from_utf8(bytes) {
        Ok(text) => (text.to_owned().into(), Cow::default()),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned().into(), BASE64.encode(bytes).into()),
    }
}

fn bytes(text: &str, raw: &str) -> Result<Vec<u8>, &'static str> {
    match raw {
        "" => Ok(text.as_bytes().to_vec()),
        raw => BASE64.decode(raw).map_err(|_| "its name is not base64"),
    }
}

/// A time as RFC 3339 has it, which knows the years 0 to 9999.
fn rfc3339(time: Time) -> Option<String> {
    const YEAR_0: i64 = -62_167_219_200;
    let time = jiff::Timestamp::new(time.seconds, 0)
        .and_then(|whole| whole.checked_add(jiff::SignedDuration::from_nanos(time.nanoseconds.into())))
        .ok()
        .filter(|_| time.seconds >= YEAR_0)?;
    Some(time.to_string())
}
