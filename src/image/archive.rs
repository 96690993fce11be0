//! The plain archive of a layer, verified: see "How a layer is verified" in [`image`](super).

use crate::error::{Error, Kind, Result};
use crate::layer::{Budget, Item, LayerReader, Meter, PlainArchive, TocChecker, VerifiedToc, decompress};
use crate::oci::Digest;
use crate::stream::{Buffer, HashingThread, Written};
use crate::tree::Content;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// A block of the archive, which is read and hashed at the same time.
#[derive(Clone, Default)]
struct Block(Arc<Buffer>);

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The compressed layer, with two readers: the decompressor, and [`LayerArchive`], which reads what the decompressor
/// leaves.
#[derive(Clone)]
struct Blob(Arc<Mutex<Box<dyn Read + Send>>>);

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(buffer)
    }
}

/// A reader of the plain archive of a layer. It fails at its end, instead of ending, unless the blob has the size and the
/// digest of its descriptor and the archive has its diff_id. Nothing read from it counts before that end.
pub struct LayerArchive {
    blob: Blob,
    /// Created by the first read, because detecting the compression reads from the blob.
    plain: Option<PlainArchive<'static>>,
    block: Block,
    /// The number of bytes of the block that were read.
    position: usize,
    /// `None` after the end, and after an error.
    hash: Option<HashingThread<Block>>,
    /// The size of the archive in bytes, once its end was reached.
    size: Option<u64>,
    diff_id: Digest,
    meter: Meter,
}

impl LayerArchive {
    /// Creates a reader. `blob` is a [`Body`](crate::stream::Body) that verifies the blob, or reads from one.
    ///
    /// # Errors
    /// When the system has no thread for the hash.
    pub(super) fn new(blob: impl Read + Send + 'static, diff_id: &Digest, meter: Meter) -> Result<Self> {
        Ok(Self {
            blob: Blob(Arc::new(Mutex::new(Box::new(blob)))),
            plain: None,
            block: Block::default(),
            position: 0,
            hash: Some(HashingThread::start(diff_id.algorithm())?),
            size: None,
            diff_id: diff_id.clone(),
            meter,
        })
    }

    /// Reads the rest of the archive, and returns `outcome` if the layer is what the image says. `outcome` is the result
    /// of reading from the archive so far. If it is a complaint about the archive, the blob is read to its end first: a
    /// wrong digest explains a malformed archive, and not the other way round.
    ///
    /// # Errors
    /// Those of reading and of `outcome`; [`Integrity`](Kind::Integrity) if the layer is not what the image says.
    pub fn finish<T>(mut self, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => self.read_to_end()?,
            Err(error) if error.kind() == Kind::Integrity => drain(&mut self.blob).map_err(cannot_read)?,
            Err(_) => {}
        }
        outcome
    }

    /// Reads the rest of the archive.
    ///
    /// # Errors
    /// Those of reading; [`Integrity`](Kind::Integrity) if the layer is not what the image says.
    pub(super) fn read_to_end(&mut self) -> Result<()> {
        while self.next_block().map_err(cannot_read)? {}
        Ok(())
    }

    /// Returns the size of the archive in bytes, after its end was reached.
    pub(super) fn size(&self) -> u64 {
        self.size.unwrap_or_default()
    }

    /// Reads the next block; returns `false` at the verified end of the layer.
    fn next_block(&mut self) -> io::Result<bool> {
        if self.size.is_some() {
            return Ok(false);
        }
        let Some(hash) = self.hash.take() else {
            return Err(Error::failed("a layer is read after its verification has failed").into());
        };
        (self.block, self.position) = (Block::default(), 0);
        match decompressed(&mut self.plain, &self.blob) {
            Ok(Some(block)) => {
                self.meter.pass(block.len() as u64)?;
                self.block = Block(Arc::new(block));
                hash.update(self.block.clone())?;
                self.hash = Some(hash);
                Ok(true)
            }
            outcome => {
                self.size = Some(self.verify(outcome.map(drop), hash)?);
                Ok(false)
            }
        }
    }

    /// Verifies the layer after the decompressor has ended, or failed. Returns the size of the archive.
    fn verify(&mut self, decompressed: io::Result<()>, hash: HashingThread<Block>) -> io::Result<u64> {
        let decompressed = decompressed.map_err(cannot_decompress);
        // The verdict about the blob comes before that of the decompressor, for which a damaged blob can be anything.
        match &decompressed {
            Err(error) if error.kind() != Kind::Integrity => {}
            _ => drain(&mut self.blob)?,
        }
        decompressed?;
        let archive = hash.join()?;
        check_diff_id(&archive, &self.diff_id)?;
        Ok(archive.size)
    }
}

impl Read for LayerArchive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.0.len() && !buffer.is_empty() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let read = (&self.block.0[self.position..]).read(buffer)?;
        self.position += read;
        Ok(read)
    }
}

fn decompressed(plain: &mut Option<PlainArchive<'static>>, blob: &Blob) -> io::Result<Option<Buffer>> {
    match plain {
        Some(plain) => plain.block(),
        None => plain.insert(decompress(blob.clone())?).block(),
    }
}

/// Converts an error of the decompressor, or of what it reads from. Those of the decompressor itself say that the data is
/// malformed.
fn cannot_decompress(error: io::Error) -> Error {
    match Error::from_io(error) {
        Ok(ours) => ours,
        Err(error) if error.raw_os_error().is_some() => cannot_read(error),
        Err(error) => Error::integrity("the layer cannot be decompressed").with_source(error),
    }
}

fn drain(blob: &mut Blob) -> io::Result<()> {
    io::copy(blob, &mut io::sink()).map(drop)
}

fn cannot_read(error: io::Error) -> Error {
    Error::io("cannot read the layer", error)
}

/// Fails unless an archive has the diff_id that the config of the image has for it.
pub(super) fn check_diff_id(archive: &Written, diff_id: &Digest) -> Result<()> {
    if archive.digest == *diff_id {
        return Ok(());
    }
    Err(Error::integrity(format!(
        "the content of a layer has the digest {}, and the image says {diff_id}",
        archive.digest
    )))
}

/// Reads all items of an archive and shows each to `visit`. If there is a table of contents, the archive is compared
/// with it, including content that `visit` does not read. Returns the archive, of which bytes after the end of the tar
/// archive may be left.
///
/// # Errors
/// Those of `visit` and of reading; [`Integrity`](Kind::Integrity) if the archive is malformed, exceeds the budget, or is
/// not what the table of contents says.
pub(super) fn read_items<R: Read, T: Read>(
    archive: R,
    mut toc: Option<TocChecker<T>>,
    budget: &mut Budget,
    mut visit: impl FnMut(Item, &mut dyn Content) -> Result<()>,
) -> Result<R> {
    let mut reader = LayerReader::within(archive, budget);
    while let Some(item) = reader.next_item()? {
        match &mut toc {
            None => visit(item, &mut reader.content())?,
            Some(toc) => {
                toc.item(&item)?;
                let mut content = toc.content(reader.content());
                visit(item, &mut content)?;
                io::copy(&mut content, &mut io::sink()).map_err(cannot_read)?;
            }
        }
    }
    toc.map_or(Ok(()), TocChecker::finish)?;
    Ok(reader.into_archive())
}

/// Creates a comparison of an archive with a table of contents, if there is one.
pub(super) fn checker(
    toc: Option<&VerifiedToc>,
    budget: &Budget,
) -> Result<Option<TocChecker<impl Read + use<>>>> {
    toc.map(|toc| Ok(TocChecker::new(toc.entries(budget.clone())?))).transpose()
}
