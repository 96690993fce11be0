//! An entry of the table of contents as JSON: the fields of stargz, and additional ones for what those cannot express.

use super::chunk::Chunk;
use crate::layer::tar::{header, pax};
use crate::oci::Digest;
use crate::tree::{Entry, EntryKind, Metadata, Time, TreePath};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// An object in `entries`. Its fields are in the order of their names; empty ones are omitted.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JsonEntry<'a> {
    #[serde(borrow, skip_serializing_if = "is_empty")]
    pub chunk_digest: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_offset: u64,
    /// Zero if the chunk is the rest of the file.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_size: u64,
    /// `zeros`, as in Podman's tables of contents, or empty.
    #[serde(borrow, skip_serializing_if = "is_empty")]
    pub chunk_type: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    /// The digest of the whole file. volio omits it: that of a single chunk is the same, and several chunks prove the file
    /// without a second hash of the whole.
    #[serde(borrow, skip_serializing_if = "is_empty")]
    pub digest: Cow<'a, str>,
    /// The end of the frame. The readers of stargz do not need it.
    #[serde(skip_serializing_if = "is_zero")]
    pub end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub inner_offset: u64,
    #[serde(borrow, skip_serializing_if = "is_empty")]
    link_name: Cow<'a, str>,
    /// The bytes of the target as base64, if they are not UTF-8.
    #[serde(borrow, skip_serializing_if = "is_empty")]
    link_name_raw: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "is_empty")]
    modtime: Cow<'a, str>,
    /// Seconds since 1970, for a time outside the years 0 to 9999.
    #[serde(borrow, skip_serializing_if = "is_empty")]
    modtime_raw: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The bytes of the name as base64, if they are not UTF-8.
    #[serde(borrow, skip_serializing_if = "is_empty")]
    name_raw: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub size: u64,
    #[serde(borrow, rename = "type")]
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
/// The chunk type of a chunk of zeros.
const ZEROS: &str = "zeros";

impl<'a> JsonEntry<'a> {
    /// Creates the object of an entry, without its content. Names are those of the archive.
    pub fn of(entry: &Entry) -> Self {
        let Metadata { mode, uid, gid, mtime, xattrs } = &entry.metadata;
        let (name, name_raw) = text(&header::archive_name(entry));
        let mut json = Self { name, name_raw, mode: u64::from(*mode), ..Self::default() };
        (json.uid, json.gid) = (u64::from(*uid), u64::from(*gid));
        match rfc3339(*mtime) {
            _ if *mtime == Time::default() => {}
            Some(text) => json.modtime = text.into(),
            None => json.modtime_raw = pax::decimal(*mtime).into(),
        }
        let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| {
            (String::from_utf8_lossy(name).into_owned(), BASE64.encode(value))
        };
        json.xattrs = xattrs.iter().map(xattr).collect();
        let (kind, link, device) = match &entry.kind {
            EntryKind::File { size } => {
                json.size = *size;
                ("reg", None, (0, 0))
            }
            EntryKind::Directory => ("dir", None, (0, 0)),
            EntryKind::Symlink { target } => ("symlink", Some(target.as_slice()), (0, 0)),
            EntryKind::Hardlink { target } => ("hardlink", Some(target.as_bytes()), (0, 0)),
            EntryKind::Fifo => ("fifo", None, (0, 0)),
            EntryKind::CharDevice { major, minor } => ("char", None, (*major, *minor)),
            EntryKind::BlockDevice { major, minor } => ("block", None, (*major, *minor)),
        };
        json.kind = kind.into();
        (json.dev_major, json.dev_minor) = (device.0.into(), device.1.into());
        if let Some(target) = link {
            (json.link_name, json.link_name_raw) = text(target);
        }
        json
    }

    /// Keeps only the fields that a second or later chunk of the file has.
    #[must_use]
    pub fn into_further_chunk(self) -> Self {
        Self { name: self.name, kind: CHUNK.into(), ..Self::default() }
    }

    /// Adds a chunk of the content.
    #[must_use]
    pub fn with_chunk(mut self, chunk: &Chunk) -> Self {
        self.chunk_digest = chunk.digest.to_string().into();
        self.chunk_offset = chunk.offset;
        self.chunk_size = chunk.size;
        self.chunk_type = if chunk.zeros { ZEROS.into() } else { Cow::default() };
        (self.offset, self.end_offset) = (chunk.frame.start, chunk.frame.end);
        self.inner_offset = chunk.inner;
        self
    }

    /// Returns the entry, as it should be in the archive.
    ///
    /// # Errors
    /// The reason why it is invalid.
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

    /// Returns the chunk that the object describes. `rest` is the number of bytes that the file has from this chunk on.
    ///
    /// # Errors
    /// The reason why it is invalid.
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

/// Parses a digest. A table of contents has SHA-256 digests only: files of two layers can be compared by them.
pub fn parse_digest(text: &str) -> Option<Digest> {
    text.parse().ok().filter(|digest| matches!(digest, Digest::Sha256(_)))
}

/// Returns bytes as text, and also as base64 if they are not UTF-8.
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

/// Formats a time by RFC 3339; `None` outside of the years 0 to 9999.
fn rfc3339(time: Time) -> Option<String> {
    const YEAR_0: i64 = -62_167_219_200;
    let time = jiff::Timestamp::new(time.seconds, 0)
        .and_then(|whole| whole.checked_add(jiff::SignedDuration::from_nanos(time.nanoseconds.into())))
        .ok()
        .filter(|_| time.seconds >= YEAR_0)?;
    Some(time.to_string())
}
