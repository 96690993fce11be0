//! Reads a table of contents entry by entry. It may be hostile, so no more than one entry and one chunk are in memory.

use super::Toc;
use super::chunk::Chunk;
use super::json::{CHUNK, JsonEntry, parse_digest};
use crate::error::{Error, Result};
use crate::layer::limits::Budget;
use crate::layer::tar::Item;
use crate::layer::whiteout::{self, PathMeaning};
use crate::oci::Digest;
use crate::tree::{Entry, EntryKind};
use memchr::{memchr, memchr_iter, memchr2};
use serde::Deserialize;
use std::borrow::BorrowMut;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::ops::Range;

/// The largest entry, in bytes: 1 MiB of extended attributes as base64, and the longest names.
const ENTRY_LIMIT: usize = 2 << 20;
/// The largest window of the compressor, as a power of two. It is what every decompressor must support (RFC 8878, section
/// 3.1.1.1.2); volio's own is smaller.
const WINDOW_LOG: u32 = 23;
/// The limit on the JSON around the entries, in bytes.
const ENVELOPE_LIMIT: usize = 4 << 10;
/// The most chunks of one file: 16 TiB, which is the largest file of ext4.
const CHUNK_LIMIT: usize = 1 << 24;

/// The reason for refusing a chunk that does not follow the one before it, or is more than the file has.
const IMPOSSIBLE_CHUNK: &str = "a chunk of it cannot be there";

/// An entry of a table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocEntry {
    /// The entry or whiteout.
    pub item: Item,
    /// The digest of a file's content; `None` for anything without content, and for a file of several chunks if the table of
    /// contents has no digest of the whole.
    pub digest: Option<Digest>,
}

/// The position in the chunks of the current entry.
#[derive(Default)]
struct ChunkCursor {
    /// The name of the entry in the table of contents.
    name: String,
    /// The chunk in the object of the entry itself, until it is returned.
    first: Option<Chunk>,
    /// The number of chunks so far.
    count: usize,
    /// The offset of the next chunk in the file.
    offset: u64,
    /// The number of bytes that the file has from there on.
    left: u64,
}

/// A reader of a table of contents.
///
/// If the bytes come from a body that verifies itself, they are verified once `next_entry` has returned `None`, because that
/// reads the body to its end.
pub struct TocReader<R: Read, B = Budget> {
    objects: ObjectReader<BufReader<Take<zstd::stream::read::Decoder<'static, BufReader<R>>>>>,
    toc: Toc,
    budget: B,
    /// The frame of the last chunk, and the end of that chunk in it.
    last: (Range<u64>, u64),
    chunks: ChunkCursor,
    /// The object after the current entry, if it was read already.
    ahead: Option<Vec<u8>>,
    ended: bool,
}

impl<R: Read> TocReader<R> {
    /// Creates a reader of the bytes in the range of `toc`, with the default limits.
    ///
    /// # Errors
    /// Fails if the decompressor cannot allocate memory.
    pub fn new(toc: &Toc, bytes: R) -> Result<Self> {
        Self::within(toc, bytes, Budget::default())
    }
}

impl<R: Read, B: BorrowMut<Budget>> TocReader<R, B> {
    /// Creates a reader that counts its entries against this budget.
    ///
    /// # Errors
    /// Fails if the decompressor cannot allocate memory.
    pub fn within(toc: &Toc, bytes: R, budget: B) -> Result<Self> {
        let mut plain = zstd::stream::read::Decoder::new(bytes).map_err(cannot_read)?;
        plain.window_log_max(WINDOW_LOG).map_err(cannot_read)?;
        // One byte more than expected, to detect excess bytes.
        let plain = plain.take(toc.plain_size.saturating_add(1));
        let objects =
            ObjectReader { text: BufReader::with_capacity(64 << 10, plain), envelope: Vec::new(), depth: 0 };
        Ok(Self {
            objects,
            toc: toc.clone(),
            budget,
            last: (0..0, 0),
            chunks: ChunkCursor::default(),
            ahead: None,
            ended: false,
        })
    }

    /// Returns the next entry, in the order of the archive; `None` at the end. Its chunks are returned by
    /// [`next_chunk`](Self::next_chunk). Remaining chunks of the previous entry are checked and skipped.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the table of contents is malformed or describes an impossible layer;
    /// those of reading.
    pub fn next_entry(&mut self) -> Result<Option<TocEntry>> {
        loop {
            while self.next_chunk()?.is_some() {}
            let Some(object) = self.next_object()? else { return Ok(None) };
            let json = parse(&object)?;
            if json.kind == CHUNK {
                return Err(invalid(&json.name, IMPOSSIBLE_CHUNK));
            }
            let entry = json.entry().map_err(|why| invalid(&json.name, why))?;
            let digest = self.begin(&json, &entry)?;
            let item = match whiteout::parse(&entry.path) {
                Ok(PathMeaning::Entry) => {
                    self.budget.borrow_mut().admit(&entry)?;
                    Item::Entry(entry)
                }
                Ok(PathMeaning::Whiteout(whiteout)) => {
                    self.budget.borrow_mut().count_path(&entry.path)?;
                    Item::Whiteout(whiteout)
                }
                Ok(PathMeaning::Ignored) => {
                    self.budget.borrow_mut().count_path(&entry.path)?;
                    continue;
                }
                Err(why) => return Err(invalid(&json.name, why)),
            };
            return Ok(Some(TocEntry { item, digest }));
        }
    }

    /// Returns the next chunk of the current entry's content, in order and without a gap; `None` after the last one.
    /// They are returned one by one because a hostile table of contents may list very many.
    ///
    /// # Errors
    /// As [`next_entry`](Self::next_entry).
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if let Some(first) = self.chunks.first.take() {
            return Ok(Some(first));
        }
        // The object after a complete file is not parsed here: it would be parsed twice.
        if self.chunks.left == 0 {
            return Ok(None);
        }
        if let Some(object) = self.next_object()? {
            let chunk = match parse(&object) {
                Ok(json) if json.kind == CHUNK => self.chunk(&json).map(Some),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
            if let Ok(Some(_)) = chunk {
                return chunk;
            }
            // The object belongs to the next entry; after an error, the next call returns the same error.
            self.ahead = Some(object);
            chunk?;
        }
        Err(invalid(&self.chunks.name, "its chunks are less than the file"))
    }

    fn next_object(&mut self) -> Result<Option<Vec<u8>>> {
        if let Some(object) = self.ahead.take() {
            return Ok(Some(object));
        }
        if self.ended {
            return Ok(None);
        }
        let object = self.objects.next()?;
        self.ended = object.is_none();
        Ok(object)
    }

    /// Begins the content of an entry. Returns the digest of the whole.
    fn begin(&mut self, json: &JsonEntry<'_>, entry: &Entry) -> Result<Option<Digest>> {
        let left = match entry.kind {
            EntryKind::File { size } => size,
            _ => 0,
        };
        self.chunks = ChunkCursor { name: json.name.to_string(), left, ..ChunkCursor::default() };
        if left == 0 {
            return Ok(None);
        }
        let first = self.chunk(json)?;
        let digest = match (&*json.digest, self.chunks.left) {
            ("", 0) => Some(first.digest.clone()),
            ("", _) => None,
            (digest, _) => {
                Some(parse_digest(digest).ok_or_else(|| invalid(&json.name, "its digest is none"))?)
            }
        };
        self.chunks.first = Some(first);
        Ok(digest)
    }

    /// Returns the chunk in an object of the current entry, if it has a possible position.
    fn chunk(&mut self, json: &JsonEntry<'_>) -> Result<Chunk> {
        let chunks = &mut self.chunks;
        let chunk = json.chunk(chunks.left).map_err(|why| invalid(&json.name, why))?;
        let lasts = chunk.size <= chunks.left && chunk.offset == chunks.offset;
        let in_layer = chunk.is_possible() && chunk.frame.end <= self.toc.frames_end();
        if !(lasts && in_layer) || chunks.count == CHUNK_LIMIT {
            return Err(invalid(&json.name, IMPOSSIBLE_CHUNK));
        }
        // An archive has each byte once, in one order.
        let (frame, end) = &self.last;
        let follows = chunk.frame.start >= frame.end || (chunk.frame == *frame && chunk.inner >= *end);
        if !follows {
            return Err(invalid(&json.name, "a chunk of it is where another one is, or in front of it"));
        }
        self.last = (chunk.frame.clone(), chunk.inner + chunk.size);
        chunks.count += 1;
        chunks.offset += chunk.size;
        chunks.left -= chunk.size;
        Ok(chunk)
    }
}

/// A reader of the objects in the only list of a JSON object, as text.
struct ObjectReader<R> {
    text: R,
    /// The text around the list.
    envelope: Vec<u8>,
    depth: usize,
}

/// The nesting depth of the objects in the list.
const LIST_DEPTH: usize = 2;

impl<R: BufRead> ObjectReader<R> {
    /// Returns the next object; `None` at the end, if the text around the list is valid.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if let Some(object) = self.next_simple()? {
            return Ok(Some(object));
        }
        let mut object = Vec::new();
        let (mut in_text, mut escaped) = (false, false);
        loop {
            let bytes = match self.text.fill_buf() {
                Ok([]) => break,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(cannot_read(error)),
            };
            let mut complete = None;
            let mut at = 0;
            while let Some(byte) = bytes.get(at) {
                at += 1;
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if in_text => escaped = true,
                    b'"' => in_text = !in_text,
                    // Most bytes are text: names, times and digests.
                    _ if in_text => at += memchr2(b'"', b'\\', &bytes[at..]).unwrap_or(bytes.len() - at),
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth =
                            self.depth.checked_sub(1).ok_or_else(|| malformed("it closes too much"))?;
                        if self.depth == LIST_DEPTH {
                            complete = Some(at);
                            break;
                        }
                    }
                    _ => {}
                }
            }
            let taken = complete.unwrap_or(bytes.len());
            object.extend_from_slice(&bytes[..taken]);
            self.text.consume(taken);
            if object.len() > ENTRY_LIMIT {
                return Err(malformed("an entry is too large"));
            }
            if complete.is_some() {
                let begin = self.begin_of(&object)?;
                object.drain(..begin);
                return Ok(Some(object));
            }
        }
        self.envelope.extend_from_slice(&object);
        self.end().map(|()| None)
    }

    /// Returns the next object if it is in the buffer, follows another one, and has neither objects nor escaped characters in
    /// it. Nearly all are so, and they are found in a fraction of the time. The object itself is checked when it is parsed.
    fn next_simple(&mut self) -> Result<Option<Vec<u8>>> {
        if self.depth != LIST_DEPTH || self.envelope.is_empty() {
            return Ok(None);
        }
        let bytes = match self.text.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(cannot_read(error)),
        };
        let Some(object) = bytes.strip_prefix(b",").and_then(simple_object).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        self.text.consume(1 + object.len());
        Ok(Some(object))
    }

    /// Returns the offset at which the object begins, and checks what precedes it.
    fn begin_of(&mut self, object: &[u8]) -> Result<usize> {
        // The first object follows the beginning of the list, and any other one follows a comma.
        let list = object.iter().position(|byte| *byte == b'[').filter(|_| self.envelope.is_empty());
        let from = list.map_or(0, |at| at + 1);
        let begin = from + object[from..].iter().position(|byte| *byte == b'{').unwrap_or_default();
        if self.envelope.is_empty() {
            self.envelope.extend_from_slice(&object[..begin]);
        } else if object[..begin].trim_ascii() != b"," {
            return Err(malformed("its entries are not a list"));
        }
        if begin > ENVELOPE_LIMIT {
            return Err(malformed("there is too much around its entries"));
        }
        Ok(begin)
    }

    fn end(&mut self) -> Result<()> {
        #[derive(Deserialize)]
        struct Envelope {
            version: u64,
            #[serde(rename = "entries")]
            _entries: [(); 0],
        }
        if self.envelope.len() > ENVELOPE_LIMIT {
            return Err(malformed("there is too much around its entries"));
        }
        match serde_json::from_slice(&self.envelope) {
            Ok(Envelope { version: 1, .. }) => Ok(()),
            Ok(Envelope { version, .. }) => Err(malformed(&format!("it is of version {version}"))),
            Err(error) => Err(malformed(&error.to_string())),
        }
    }
}

/// Returns the object at the beginning of a text, if it has neither objects nor escaped characters in it.
fn simple_object(text: &[u8]) -> Option<&[u8]> {
    let object = &text[..=memchr(b'}', text)?];
    let count = |byte| memchr_iter(byte, object).count();
    // With an even number of quotes before it, the brace is not in a string.
    let is_simple = object.starts_with(b"{")
        && count(b'{') == 1
        && count(b'"').is_multiple_of(2)
        && memchr(b'\\', object).is_none();
    is_simple.then_some(object)
}

fn parse(object: &[u8]) -> Result<JsonEntry<'_>> {
    serde_json::from_slice(object).map_err(|error| malformed(&error.to_string()))
}

fn malformed(why: &str) -> Error {
    Error::integrity(format!("the layer's table of contents is malformed: {why}"))
}

fn invalid(name: &str, why: &str) -> Error {
    Error::integrity(format!(
        "the entry {} in the layer's table of contents is invalid: {why}",
        name.escape_debug()
    ))
}

fn cannot_read(error: io::Error) -> Error {
    match Error::from_io(error) {
        Ok(error) => error,
        Err(error) if error.raw_os_error().is_none() => malformed(&error.to_string()),
        Err(error) => Error::io("cannot read the layer's table of contents", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str, buffer: usize) -> std::result::Result<Vec<String>, String> {
        let text = BufReader::with_capacity(buffer, text.as_bytes());
        let mut reader = ObjectReader { text, envelope: Vec::new(), depth: 0 };
        let mut objects = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(object)) => objects.push(String::from_utf8(object).unwrap()),
                Ok(None) => return Ok(objects),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn an_object_is_found_wherever_the_buffer_ends() {
        let all = [
            r#"{"name":"a","size":1}"#,
            r#"{"name":"b"}"#,
            r#"{"name":"{}"}"#,
            r#"{"name":"}{"}"#,
            r#"{"name":"\"}"}"#,
            r#"{"name":"a\\"}"#,
            r#"{"name":"],[","xattrs":{"user.}":"x"}}"#,
            r#"{"list":[{"a":1},{"b":2}]}"#,
            "{ }",
            "{}",
        ];
        for number in 0..all.len() {
            // Each object is the first one, and each follows each.
            let all = [&all[number..], &all[..number]].concat();
            for separator in [",", ", ", " ,\n"] {
                let text = format!(r#"{{"entries":[{}],"version":1}}"#, all.join(separator));
                for buffer in [1, 2, 3, 5, 8, 13, 21, 34, 1000] {
                    assert_eq!(objects(&text, buffer).unwrap(), all, "{separator:?}, {buffer}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_list_of_objects_is_malformed_wherever_the_buffer_ends() {
        let begin = r#"{"entries":[{"name":"a"}"#;
        let end = r#"{"name":"b"}],"version":1}"#;
        for between in [
            "", " ", ",,", ",]", ",],[", "},{", ",1,", ",\"x\",", ",{", ",}", ",[", ",\"", ",{\"a\":", "]",
            ",{}}",
        ] {
            let text = format!("{begin}{between}{end}");
            for buffer in [1, 2, 3, 5, 8, 13, 21, 34, 1000] {
                let found = objects(&text, buffer);
                // An object that is none is noticed when it is parsed.
                let parsed =
                    found.map(|objects| objects.iter().all(|object| parse(object.as_bytes()).is_ok()));
                assert_ne!(parsed, Ok(true), "{text}, {buffer}");
            }
        }
    }
}
