//! Reads a table of contents entry by entry, however hostile it is: never more than one of them is in memory, and of its
//! chunks one.

use super::Toc;
use super::chunk::Chunk;
use super::wire::{self, CHUNK, Wire};
use crate::error::{Error, Result};
use crate::layer::limits::Budget;
use crate::layer::reader::Item;
use crate::layer::whiteout::{self, Meaning};
use crate::oci::Digest;
use crate::tree::{Entry, EntryKind};
use serde::Deserialize;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::ops::Range;

/// The most that one entry may take, in bytes: 1 MiB of extended attributes, base64, and the longest names.
const ENTRY_LIMIT: usize = 2 << 20;
/// The largest window that the compressor may have used, as a power of two: what every decompressor must support
/// (RFC 8878, section 3.1.1.1.2). volio's has less.
const WINDOW_LOG: u32 = 23;
/// The most that may stand around the entries.
const AROUND_LIMIT: usize = 4 << 10;
/// The most chunks of one file: 16 TiB of them, as ext4 knows no larger file.
const CHUNK_LIMIT: usize = 1 << 24;

/// What a table of contents says about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocEntry {
    /// What is there, or that nothing is.
    pub item: Item,
    /// The digest of a file's content; `None` for what has none, and for several chunks whose digest as a whole is not
    /// told.
    pub digest: Option<Digest>,
}

/// What is known of the chunks of the current entry.
#[derive(Default)]
struct Chunks {
    /// The name of the entry, as the table of contents has it.
    name: String,
    /// The one that stands in the object of the entry itself, as long as nobody took it.
    first: Option<Chunk>,
    /// How many there were.
    count: usize,
    /// Where the next one begins in the file.
    offset: u64,
    /// What the file has from there on.
    left: u64,
    /// Whether the object behind is known to be none of them.
    ended: bool,
}

/// A table of contents being read.
///
/// Where the bytes come from a body that knows what it should be, nothing is proved before `next_entry` has said
/// that there are no more: that reads the body to its end.
pub struct TocReader<R: Read> {
    objects: Objects<BufReader<Take<zstd::stream::read::Decoder<'static, BufReader<R>>>>>,
    toc: Toc,
    budget: Budget,
    /// The frame of the last chunk, and where in it that chunk ended.
    last: (Range<u64>, u64),
    chunks: Chunks,
    /// The object behind the current entry, read already.
    ahead: Option<Vec<u8>>,
    ended: bool,
}

impl<R: Read> TocReader<R> {
    /// A reader of the bytes in the range of `toc`, within the usual limits.
    ///
    /// # Errors
    /// Those of the decompressor when it has no memory.
    pub fn new(toc: &Toc, bytes: R) -> Result<Self> {
        Self::within(toc, bytes, Budget::default())
    }

    /// The same within what other layers of the image have left.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn within(toc: &Toc, bytes: R, budget: Budget) -> Result<Self> {
        let mut plain = zstd::stream::read::Decoder::new(bytes).map_err(cannot_read)?;
        plain.window_log_max(WINDOW_LOG).map_err(cannot_read)?;
        // One byte more than it should have, so that too much is noticed.
        let plain = plain.take(toc.plain_size.saturating_add(1));
        let objects =
            Objects { text: BufReader::with_capacity(64 << 10, plain), around: Vec::new(), depth: 0 };
        Ok(Self {
            objects,
            toc: toc.clone(),
            budget,
            last: (0..0, 0),
            chunks: Chunks { ended: true, ..Chunks::default() },
            ahead: None,
            ended: false,
        })
    }

    /// What is left for the layers to come.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The next entry, in the order of the archive; `None` at the end. Its chunks come by [`next_chunk`](Self::next_chunk);
    /// those of the one before that nobody asked for are checked and passed over.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the table of contents is malformed or describes a layer that
    /// cannot be; those of reading.
    pub fn next_entry(&mut self) -> Result<Option<TocEntry>> {
        loop {
            while self.next_chunk()?.is_some() {}
            let Some(object) = self.next_object()? else { return Ok(None) };
            let wire = parse(&object)?;
            let entry = wire.entry().map_err(|why| invalid(&wire.name, why))?;
            let digest = self.begin(&wire, &entry)?;
            let item = match whiteout::parse(&entry.path) {
                Ok(Meaning::Entry) => {
                    self.budget.admit(&entry)?;
                    Item::Entry(entry)
                }
                Ok(Meaning::Whiteout(whiteout)) => {
                    self.budget.pass(&entry.path)?;
                    Item::Whiteout(whiteout)
                }
                Ok(Meaning::Nothing) => {
                    self.budget.pass(&entry.path)?;
                    continue;
                }
                Err(why) => return Err(invalid(&wire.name, why)),
            };
            return Ok(Some(TocEntry { item, digest }));
        }
    }

    /// The next piece of the current entry's content, in order and without a gap; `None` behind the last one, and where it
    /// has no content. They are handed out one by one because a file may be said to have very many.
    ///
    /// # Errors
    /// As [`next_entry`](Self::next_entry).
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if let Some(first) = self.chunks.first.take() {
            return Ok(Some(first));
        }
        if self.chunks.ended {
            return Ok(None);
        }
        if let Some(object) = self.next_object()? {
            let chunk = match parse(&object) {
                Ok(wire) if wire.kind == CHUNK => self.chunk(&wire).map(Some),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
            if let Ok(Some(_)) = chunk {
                return chunk;
            }
            // It belongs to the next entry, or is met again by who asks again.
            self.ahead = Some(object);
            chunk?;
        }
        self.chunks.ended = self.chunks.left == 0;
        match self.chunks.ended {
            true => Ok(None),
            false => Err(invalid(&self.chunks.name, "its chunks are less than the file")),
        }
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

    /// Goes on to the content of an entry, and says its digest as a whole.
    fn begin(&mut self, wire: &Wire<'_>, entry: &Entry) -> Result<Option<Digest>> {
        let left = match entry.kind {
            EntryKind::File { size } => size,
            _ => 0,
        };
        self.chunks = Chunks { name: wire.name.to_string(), left, ..Chunks::default() };
        if left == 0 {
            return Ok(None);
        }
        let first = self.chunk(wire)?;
        let digest = match (&*wire.digest, self.chunks.left) {
            ("", 0) => Some(first.digest.clone()),
            ("", _) => None,
            (digest, _) => {
                Some(wire::parse_digest(digest).ok_or_else(|| invalid(&wire.name, "its digest is none"))?)
            }
        };
        self.chunks.first = Some(first);
        Ok(digest)
    }

    /// The chunk of the current entry that an object tells of, if it is where one can be.
    fn chunk(&mut self, wire: &Wire<'_>) -> Result<Chunk> {
        let chunks = &mut self.chunks;
        let chunk = wire.chunk(chunks.left).map_err(|why| invalid(&wire.name, why))?;
        let lasts = chunk.size <= chunks.left && chunk.offset == chunks.offset;
        let in_layer = chunk.is_possible() && chunk.frame.end <= self.toc.frames_end();
        if !(lasts && in_layer) || chunks.count == CHUNK_LIMIT {
            return Err(invalid(&wire.name, "a chunk of it cannot be there"));
        }
        // An archive has its bytes in one order and each of them once.
        let (frame, end) = &self.last;
        let follows = chunk.frame.start >= frame.end || (chunk.frame == *frame && chunk.inner >= *end);
        if !follows {
            return Err(invalid(&wire.name, "a chunk of it is where another one is, or in front of it"));
        }
        self.last = (chunk.frame.clone(), chunk.inner + chunk.size);
        chunks.count += 1;
        chunks.offset += chunk.size;
        chunks.left -= chunk.size;
        Ok(chunk)
    }
}

/// The objects in the only list of a JSON object, one after the other, as text.
struct Objects<R> {
    text: R,
    /// What stands around them.
    around: Vec<u8>,
    depth: usize,
}

/// How deep the list is whose objects are looked for.
const LIST: usize = 2;

impl<R: BufRead> Objects<R> {
    /// The next object; `None` at the end, when all around them was what it should be.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
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
            for (at, byte) in bytes.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if in_text => escaped = true,
                    b'"' => in_text = !in_text,
                    b'{' | b'[' if !in_text => self.depth += 1,
                    b'}' | b']' if !in_text => {
                        self.depth =
                            self.depth.checked_sub(1).ok_or_else(|| malformed("it closes too much"))?;
                        if self.depth == LIST {
                            complete = Some(at + 1);
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
                let begin = self.between(&object)?;
                object.drain(..begin);
                return Ok(Some(object));
            }
        }
        self.around.extend_from_slice(&object);
        self.end().map(|()| None)
    }

    /// Where the object begins; what stands before it belongs around it.
    fn between(&mut self, object: &[u8]) -> Result<usize> {
        // The first object comes behind the beginning of the list, any other one behind a comma.
        let list = object.iter().position(|byte| *byte == b'[').filter(|_| self.around.is_empty());
        let from = list.map_or(0, |at| at + 1);
        let begin = from + object[from..].iter().position(|byte| *byte == b'{').unwrap_or_default();
        match self.around.is_empty() {
            true => self.around.extend_from_slice(&object[..begin]),
            false if object[..begin].trim_ascii() == b"," => {}
            false => return Err(malformed("its entries are not a list")),
        }
        match begin <= AROUND_LIMIT {
            true => Ok(begin),
            false => Err(malformed("there is too much around its entries")),
        }
    }

    fn end(&mut self) -> Result<()> {
        #[derive(Deserialize)]
        struct Around {
            version: u64,
            #[serde(rename = "entries")]
            _entries: [(); 0],
        }
        if self.around.len() > AROUND_LIMIT {
            return Err(malformed("there is too much around its entries"));
        }
        match serde_json::from_slice(&self.around) {
            Ok(Around { version: 1, .. }) => Ok(()),
            Ok(Around { version, .. }) => Err(malformed(&format!("it is of version {version}"))),
            Err(error) => Err(malformed(&error.to_string())),
        }
    }
}

fn parse(object: &[u8]) -> Result<Wire<'_>> {
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
    match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => Error::io("", error),
        false if error.raw_os_error().is_none() => malformed(&error.to_string()),
        false => Error::io("cannot read the layer's table of contents", error),
    }
}
