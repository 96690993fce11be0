//! Identifies the content of a file by digests, so that contents are compared without being fetched or kept.
//!
//! A table of contents has a digest for each chunk of a file, and not one for the whole file unless it is a single chunk.
//! So there are two digests of a content: that of its bytes ([`ContentId::Whole`]), and that of the list of its chunks
//! ([`ContentId::Chunks`]). Contents that are read, of a directory or of a layer without a table of contents, are cut in
//! the same way as when they are packed, and get the digests that a table of contents could give: large ones the second,
//! small ones the first, those between both.
//!
//! If two contents have the same kind of digest, those are compared: volio cuts equal contents equally, and its tables of
//! contents always have a kind that read content has too. Otherwise the contents count as different. So a table of contents
//! that another program wrote in volio's form can cause a difference where there is none, never the opposite.

use super::merge::{EntryPosition, EntryVisitor};
use crate::error::{Error, Result};
use crate::layer::{Chunk, ContentChunker, ContentPart, Item, TocEntry};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::tree::{Content, Entry, EntryKind, TreePath};
use std::collections::HashMap;
use std::io::{self, Read};

/// Content is read in blocks of this size, in bytes, at multiples of it.
const BLOCK: usize = 64 << 10;
static ZEROS: [u8; BLOCK] = [0; BLOCK];
/// No file below this size, in bytes, is cut when it is packed: volio's writer puts it into one frame of
/// at most 4 MiB.
const SMALLEST_CUT: u64 = 2 << 20;
/// No file above this size, in bytes, is a single chunk: the reader of tables of contents refuses larger
/// frames, and volio's writer makes none above 4 MiB.
const LARGEST_WHOLE: u64 = 16 << 20;

/// The identity of a file's content. Of contents with the same size, equal digests of one kind say that they are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContentId {
    /// The digest of the content.
    Whole(Digest),
    /// The digest of the list of chunks.
    Chunks(Digest),
    /// Both.
    Both(Box<[Digest; 2]>),
}

/// A note about a path of an image, for a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathNote {
    /// No entry describes it; a path below it says that it is there.
    #[default]
    Implied,
    /// An entry describes it. A file has a content.
    Described(Option<ContentId>),
}

impl PathNote {
    /// Returns the content of a file.
    pub fn content(&self) -> Option<&ContentId> {
        match self {
            Self::Described(content) => content.as_ref(),
            Self::Implied => None,
        }
    }
}

impl ContentId {
    /// Returns the digest of the content, if it is known.
    pub fn whole(&self) -> Option<&Digest> {
        match self {
            Self::Whole(digest) => Some(digest),
            Self::Both(digests) => Some(&digests[0]),
            Self::Chunks(_) => None,
        }
    }

    /// Returns a digest of either kind.
    pub fn any(&self) -> &Digest {
        match self {
            Self::Whole(digest) | Self::Chunks(digest) => digest,
            Self::Both(digests) => &digests[0],
        }
    }

    /// Returns the digests of both kinds that are known.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.whole().into_iter().chain(self.chunks())
    }

    fn chunks(&self) -> Option<&Digest> {
        match self {
            Self::Chunks(digest) => Some(digest),
            Self::Both(digests) => Some(&digests[1]),
            Self::Whole(_) => None,
        }
    }

    /// Returns two digests that are equal if and only if the contents are; `None` if the two have no kind in common.
    pub fn comparable<'a>(&'a self, other: &'a Self) -> Option<[&'a Digest; 2]> {
        let pair = |a: Option<&'a Digest>, b: Option<&'a Digest>| Some([a?, b?]);
        pair(self.whole(), other.whole()).or_else(|| pair(self.chunks(), other.chunks()))
    }
}

/// Identifies the content of an entry that is read; `None` if it is not a file.
///
/// # Errors
/// Those of reading.
pub fn identify(entry: &Entry, content: &mut dyn Content) -> Result<Option<ContentId>> {
    let EntryKind::File { size } = entry.kind else { return Ok(None) };
    let cannot_read = |error| Error::io(format!("cannot read {}", entry.path), error);
    ContentHasher::new(size).hash(content).map(Some).map_err(cannot_read)
}

/// Identifies the content of an entry that is read, and returns the chunks that it would be cut into when it is packed:
/// the offset of each in the content, by its digest.
///
/// # Errors
/// Those of reading.
pub fn identify_chunks(
    path: &TreePath,
    size: u64,
    content: &mut dyn Content,
) -> Result<(ContentId, HashMap<Digest, u64>)> {
    let cannot_read = |error| Error::io(format!("cannot read {path}"), error);
    let mut hasher = ContentHasher::new(size);
    let chunks = hasher.chunks.get_or_insert_with(ChunkHasher::default);
    chunks.hashed.places = Some(HashMap::new());
    hasher.read(content).map_err(cannot_read)?;
    let places = hasher.end_chunks().map_err(cannot_read)?;
    Ok((hasher.finish().map_err(cannot_read)?, places))
}

/// Identifies the contents of the files of an image.
pub struct ContentIds;

impl EntryVisitor for ContentIds {
    type Note = PathNote;

    fn indexed(
        &mut self,
        _: EntryPosition,
        entry: &TocEntry,
        chunks: &mut dyn FnMut() -> Result<Option<Chunk>>,
    ) -> Result<PathNote> {
        let Item::Entry(Entry { kind: EntryKind::File { .. }, .. }) = &entry.item else {
            return Ok(PathNote::Described(None));
        };
        let mut list = ChunkList::default();
        while let Some(chunk) = chunks()? {
            if chunk.zeros {
                list.add_zeros(chunk.size);
            } else {
                list.add_chunk(chunk.size, chunk.digest);
            }
        }
        Ok(PathNote::Described(Some(list.finish())))
    }

    fn streamed(&mut self, _: EntryPosition, entry: &Entry, content: &mut dyn Content) -> Result<PathNote> {
        identify(entry, content).map(PathNote::Described)
    }
}

/// Hashes the list of a content's chunks. Runs of zeros count by their length, however many chunks they are.
#[derive(Default)]
struct ChunkList {
    /// The size and the digest of the only chunk so far. Most contents are one chunk, and their lists are not hashed.
    only: Option<(u64, Digest)>,
    /// The hash of the list, unless it is empty or a single chunk.
    list: Option<Hasher>,
    zeros: u64,
}

impl ChunkList {
    fn add_zeros(&mut self, count: u64) {
        self.begin_list();
        self.zeros += count;
    }

    fn add_chunk(&mut self, size: u64, digest: Digest) {
        if self.list.is_none() && self.only.is_none() {
            self.only = Some((size, digest));
            return;
        }
        let zeros = std::mem::take(&mut self.zeros);
        let list = self.begin_list();
        hash_zeros(list, zeros);
        hash_chunk(list, size, &digest);
    }

    /// Returns the hash of the list so far.
    fn begin_list(&mut self) -> &mut Hasher {
        let only = self.only.take();
        let list = self.list.get_or_insert_with(|| Hasher::new(Algorithm::Sha256));
        if let Some((size, digest)) = only {
            hash_chunk(list, size, &digest);
        }
        list
    }

    fn finish(self) -> ContentId {
        match (self.list, self.only) {
            (Some(mut list), _) => {
                hash_zeros(&mut list, self.zeros);
                ContentId::Chunks(list.finish())
            }
            (None, Some((_, digest))) => ContentId::Whole(digest),
            (None, None) => ContentId::Whole(Digest::of(b"")),
        }
    }
}

fn hash_chunk(list: &mut Hasher, size: u64, digest: &Digest) {
    list.update(b"chunk");
    list.update(&size.to_le_bytes());
    list.update(digest.as_bytes());
}

fn hash_zeros(list: &mut Hasher, count: u64) {
    if count > 0 {
        list.update(b"zeros");
        list.update(&count.to_le_bytes());
    }
}

/// Hashes a content that is read.
struct ContentHasher {
    whole: Option<Hasher>,
    chunks: Option<ChunkHasher>,
}

/// Cuts a content, and hashes its chunks.
struct ChunkHasher {
    chunker: ContentChunker,
    hashed: HashedChunks,
}

/// The chunks of a content so far.
struct HashedChunks {
    list: ChunkList,
    chunk: Hasher,
    chunk_size: u64,
    /// The offset of the current chunk.
    offset: u64,
    /// The offsets of the chunks, if they are wanted.
    places: Option<HashMap<Digest, u64>>,
}

impl ContentHasher {
    fn new(size: u64) -> Self {
        let new = || Hasher::new(Algorithm::Sha256);
        Self {
            whole: (size <= LARGEST_WHOLE).then(new),
            chunks: (size >= SMALLEST_CUT).then(ChunkHasher::default),
        }
    }

    fn hash(mut self, content: &mut dyn Content) -> io::Result<ContentId> {
        self.read(content)?;
        self.finish()
    }

    fn finish(self) -> io::Result<ContentId> {
        let whole = self.whole.map(Hasher::finish);
        let chunks = self.chunks.map(ChunkHasher::finish).transpose()?;
        Ok(match (whole, chunks) {
            (Some(whole), Some(ContentId::Chunks(chunks))) => ContentId::Both(Box::new([whole, chunks])),
            (Some(whole), _) => ContentId::Whole(whole),
            (None, Some(chunks)) => chunks,
            (None, None) => ContentId::Whole(Digest::of(b"")),
        })
    }

    /// Ends the last chunk, and returns the offsets of all chunks.
    fn end_chunks(&mut self) -> io::Result<HashMap<Digest, u64>> {
        let Some(chunks) = &mut self.chunks else { return Ok(HashMap::new()) };
        chunks.end()?;
        Ok(chunks.hashed.places.take().unwrap_or_default())
    }

    fn read(&mut self, mut content: &mut dyn Content) -> io::Result<()> {
        let mut block = Vec::with_capacity(BLOCK);
        loop {
            let room = BLOCK - block.len();
            let hole = content.skip_hole();
            if hole > 0 {
                // The hole fills the current block first, then whole blocks, and then a part of the next one.
                let first = if block.is_empty() { 0 } else { hole.min(room as u64) };
                block.extend_from_slice(&ZEROS[..first as usize]);
                self.end_block(&mut block)?;
                let rest = hole - first;
                self.add_zeros(rest - rest % BLOCK as u64)?;
                block.extend_from_slice(&ZEROS[..(rest % BLOCK as u64) as usize]);
            } else if (&mut content).take(room as u64).read_to_end(&mut block)? == 0 {
                return self.add(&block);
            }
            self.end_block(&mut block)?;
        }
    }

    /// Takes the current block if it is complete.
    fn end_block(&mut self, block: &mut Vec<u8>) -> io::Result<()> {
        if block.len() == BLOCK {
            self.add(block)?;
            block.clear();
        }
        Ok(())
    }

    fn add(&mut self, block: &[u8]) -> io::Result<()> {
        if let Some(whole) = &mut self.whole {
            whole.update(block);
        }
        self.chunks.as_mut().map_or(Ok(()), |chunks| chunks.add(block))
    }

    /// Adds so many zeros, a multiple of the size of a block.
    fn add_zeros(&mut self, count: u64) -> io::Result<()> {
        if let Some(whole) = &mut self.whole {
            (0..count / BLOCK as u64).for_each(|_| whole.update(&ZEROS));
        }
        self.chunks.as_mut().map_or(Ok(()), |chunks| chunks.add_zeros(count))
    }
}

impl Default for ChunkHasher {
    fn default() -> Self {
        let hashed = HashedChunks {
            list: ChunkList::default(),
            chunk: Hasher::new(Algorithm::Sha256),
            chunk_size: 0,
            offset: 0,
            places: None,
        };
        Self { chunker: ContentChunker::default(), hashed }
    }
}

impl ChunkHasher {
    fn add(&mut self, block: &[u8]) -> io::Result<()> {
        let Self { chunker, hashed } = self;
        chunker.push(block, &mut |part| hashed.add(part))
    }

    fn add_zeros(&mut self, count: u64) -> io::Result<()> {
        let Self { chunker, hashed } = self;
        chunker.push_zeros(count, &mut |part| hashed.add(part))
    }

    /// Ends the last chunk. Nothing is added after that.
    fn end(&mut self) -> io::Result<()> {
        let Self { chunker, hashed } = self;
        chunker.finish(&mut |part| hashed.add(part))
    }

    fn finish(mut self) -> io::Result<ContentId> {
        self.end()?;
        Ok(self.hashed.list.finish())
    }
}

impl HashedChunks {
    fn add(&mut self, part: ContentPart<'_>) -> io::Result<()> {
        match part {
            ContentPart::Data(bytes) => {
                self.chunk.update(bytes);
                self.chunk_size += bytes.len() as u64;
            }
            ContentPart::EndOfChunk => {
                let chunk = std::mem::replace(&mut self.chunk, Hasher::new(Algorithm::Sha256)).finish();
                if let Some(places) = &mut self.places {
                    places.entry(chunk.clone()).or_insert(self.offset);
                }
                self.offset += self.chunk_size;
                self.list.add_chunk(std::mem::take(&mut self.chunk_size), chunk);
            }
            ContentPart::Zeros(count) => {
                self.offset += count;
                self.list.add_zeros(count);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;

    /// A content of stretches: so many bytes of a value, or so many zeros of a hole.
    struct Stretches(Vec<(u64, Option<u8>)>);

    impl Read for Stretches {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            while self.0.last().is_some_and(|stretch| stretch.0 == 0) {
                self.0.pop();
            }
            let Some((left, byte)) = self.0.last_mut() else { return Ok(0) };
            let now = buffer.len().min(*left as usize);
            buffer[..now].fill(byte.unwrap_or_default());
            *left -= now as u64;
            Ok(now)
        }
    }

    impl Content for Stretches {
        fn skip_hole(&mut self) -> u64 {
            match self.0.pop_if(|(_, byte)| byte.is_none()) {
                Some((size, _)) => size,
                None => 0,
            }
        }
    }

    fn identified(stretches: &[(u64, Option<u8>)]) -> ContentId {
        let size = stretches.iter().map(|stretch| stretch.0).sum();
        let path = TreePath::parse("file").unwrap();
        let entry = Entry { path, kind: EntryKind::File { size }, metadata: Metadata::default() };
        let mut content = Stretches(stretches.iter().rev().copied().collect());
        identify(&entry, &mut content).unwrap().unwrap()
    }

    #[test]
    fn a_small_content_has_its_own_digest_and_a_large_one_that_of_its_chunks() {
        let bytes = [vec![7; 100_000], vec![0; 60_000], vec![7; 5]].concat();
        let stretches = [(100_000, Some(7)), (60_000, Some(0)), (5, Some(7))];
        assert_eq!(identified(&stretches), ContentId::Whole(Digest::of(&bytes)));
        assert_eq!(identified(&[]), ContentId::Whole(Digest::of(b"")));
        assert_eq!(identified(&[(9, None)]), ContentId::Whole(Digest::of(&[0; 9])));
        let both = identified(&[(9 << 20, Some(7))]);
        assert!(matches!(both, ContentId::Both(_)) && both.whole() == Some(&Digest::of(&vec![7; 9 << 20])));
        assert!(matches!(identified(&[(17 << 20, Some(7))]), ContentId::Chunks(_)));
    }

    #[test]
    fn zeros_are_the_same_whether_they_are_a_hole_or_stored() {
        for (before, zeros, after) in [
            (0, 1 << 20, 0),
            (0, 20 << 20, 0),
            (1, 5_300_000, 1),
            (65_536, 20 << 20, 9),
            (5_000_000, 200_001, 17 << 20),
            (17 << 20, 65_536, 0),
        ] {
            let stored = identified(&[(before, Some(1)), (zeros, Some(0)), (after, Some(2))]);
            assert_eq!(stored, identified(&[(before, Some(1)), (zeros, None), (after, Some(2))]));
            let partly = [(before, Some(1)), (zeros - 7, None), (7, Some(0)), (after, Some(2))];
            assert_eq!(stored, identified(&partly));
            let other = identified(&[(before, Some(1)), (zeros, None), (after, Some(3))]);
            assert_eq!(stored == other, after == 0);
        }
        let moved = |first, second| identified(&[(first, None), (65_536, Some(1)), (second, None)]);
        assert_ne!(moved(1 << 20, 21 << 20), moved(21 << 20, 1 << 20));
    }

    #[test]
    fn a_hole_of_exbibytes_takes_no_time() {
        assert_ne!(identified(&[(1 << 62, None)]), identified(&[((1 << 62) + 1, None)]));
    }
}
