//! Finds the frames of a layer without decompressing them: those of zstd (RFC 8878, section 3.1), and gzip members that
//! declare their size.

use super::gzip;
use crate::stream::{Buffer, Pool};
use std::cell::RefCell;
use std::io::{self, Cursor, Read};
use std::ops::Range;

/// The magic number of a zstd frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest content of a frame, in bytes. A larger frame, or one without a size, is decompressed as a stream: it may be
/// the whole layer.
const MAX_CONTENT: u64 = 16 << 20;
/// The allowance for a frame with incompressible content, in bytes: its header, and three bytes for each block. No
/// compressor makes blocks smaller than a kibibyte on purpose.
const OVERHEAD: u64 = 64 << 10;

/// The format of the frames of a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FrameFormat {
    /// zstd frames. The end of one is found by its blocks.
    Zstd,
    /// gzip members. The end of one is known only by the size that it declares.
    Gzip,
}

/// A frame that can be decompressed by itself.
pub struct Frame {
    format: FrameFormat,
    /// Its offset in the layer.
    start: u64,
    bytes: Buffer,
    plain_size: usize,
}

thread_local! {
    /// A reused decompressor. Making its tables takes longer than decompressing a small frame.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

impl Frame {
    /// Returns the memory that the frame takes while it is decompressed, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.plain_size
    }

    /// Returns its range in the layer.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.bytes.len() as u64
    }

    /// Returns the compressed bytes if the end of the frame is not certain.
    pub fn into_uncertain(self) -> Option<Buffer> {
        (self.format == FrameFormat::Gzip).then_some(self.bytes)
    }

    /// Decompresses the frame into a buffer of the pool.
    ///
    /// # Errors
    /// Fails if the frame is damaged, or if its content or its end differs from what it declares.
    pub fn decompress(&self, pool: &Pool) -> io::Result<Buffer> {
        pool.fill(|plain| match self.format {
            FrameFormat::Zstd => self.decompress_zstd(plain),
            FrameFormat::Gzip => gzip::decompress(&self.bytes, plain),
        })
    }

    fn decompress_zstd(&self, plain: &mut Vec<u8>) -> io::Result<()> {
        DECOMPRESSOR.with_borrow_mut(|slot| {
            let decompressor = match slot {
                Some(decompressor) => decompressor,
                None => slot.insert(zstd::bulk::Decompressor::new()?),
            };
            plain.reserve(self.plain_size);
            decompressor.decompress_to_buffer(&self.bytes[..], plain).map(drop)
        })
    }
}

/// A reader that returns one frame after another.
pub struct FrameReader<R> {
    format: FrameFormat,
    layer: R,
    /// The number of bytes of the layer that were read.
    offset: u64,
    /// The bytes that were read of a frame whose end cannot be found without decompressing it.
    begun: Vec<u8>,
    pool: Pool,
}

impl<'a> FrameReader<Box<dyn Read + Send + 'a>> {
    /// Returns a reader that decompresses the rest of the layer, from the frame whose end could not be found; `None` at
    /// the end of the layer.
    pub fn take_rest(&mut self) -> io::Result<Option<Box<dyn Read + Send + 'a>>> {
        if self.begun.is_empty() {
            return Ok(None);
        }
        let begun = Cursor::new(std::mem::take(&mut self.begun));
        let rest = begun.chain(std::mem::replace(&mut self.layer, Box::new(io::empty())));
        Ok(Some(match self.format {
            FrameFormat::Zstd => Box::new(zstd::stream::read::Decoder::new(rest)?),
            FrameFormat::Gzip => Box::new(flate2::read::MultiGzDecoder::new(rest)),
        }))
    }
}

impl<R: Read> FrameReader<R> {
    pub fn new(format: FrameFormat, layer: R, pool: Pool) -> Self {
        Self { format, layer, offset: 0, begun: Vec::new(), pool }
    }

    /// Makes these frames, which were returned last, the beginning of the rest.
    pub fn put_back(&mut self, frames: Vec<u8>) {
        self.begun.splice(..0, frames);
    }

    /// Returns whether the layer has ended, after [`next`](Self::next) has returned `None`.
    pub fn is_at_end(&self) -> bool {
        self.begun.is_empty()
    }

    /// Returns the next frame; `None` at the end of the layer, and before anything that must be read as a stream.
    ///
    /// # Errors
    /// Those of reading. Invalid bytes are not an error here, but when they are decompressed as a stream.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut plain_size = None;
        let pool = self.pool.clone();
        let bytes = pool.fill(|frame| {
            plain_size = match self.format {
                FrameFormat::Zstd => self.read_zstd_frame(frame)?,
                FrameFormat::Gzip => self.read_gzip_member(frame)?,
            };
            Ok::<_, io::Error>(())
        })?;
        if plain_size.is_none() {
            self.begun = bytes.to_vec();
        }
        let start = self.offset - bytes.len() as u64;
        let format = self.format;
        Ok(plain_size.map(|plain_size| Frame { format, start, bytes, plain_size }))
    }

    /// Reads the next zstd frame. Returns the size of its content; `None` if its end cannot be found.
    fn read_zstd_frame(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<usize>> {
        loop {
            frame.clear();
            let whole = self.take(frame, 4)?;
            if whole && matches!(frame[..], [0x50..=0x5f, 0x2a, 0x4d, 0x18]) && self.skip(frame)? {
                continue;
            }
            return if *frame == MAGIC { self.read_frame_rest(frame) } else { Ok(None) };
        }
    }

    /// Reads the next gzip member. Returns the size of its content; `None` if its end cannot be found.
    fn read_gzip_member(&mut self, member: &mut Vec<u8>) -> io::Result<Option<usize>> {
        self.take(member, gzip::HEADER as u64)?;
        let Some(size) = gzip::declared_size(member) else { return Ok(None) };
        let is_complete = self.take(member, (size - gzip::HEADER) as u64)?;
        Ok(gzip::declared_content_size(member).filter(|_| is_complete))
    }

    /// Reads `count` more bytes. Returns `false` if there are fewer.
    fn take(&mut self, frame: &mut Vec<u8>, count: u64) -> io::Result<bool> {
        let read = self.layer.by_ref().take(count).read_to_end(frame)? as u64;
        self.offset += read;
        Ok(read == count)
    }

    /// Skips a skippable frame. Returns `false` if the layer ends within its size.
    fn skip(&mut self, frame: &mut Vec<u8>) -> io::Result<bool> {
        if !self.take(frame, 4)? {
            return Ok(false);
        }
        let size = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
        let skipped = io::copy(&mut self.layer.by_ref().take(size.into()), &mut io::sink())?;
        self.offset += skipped;
        if skipped == u64::from(size) { Ok(true) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads a frame to its end. Returns the size of its content; `None` if the frame does not declare it, if it is too
    /// large, or if the frame needs a dictionary or is damaged.
    fn read_frame_rest(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<usize>> {
        if !self.take(frame, 1)? {
            return Ok(None);
        }
        let descriptor = frame[4];
        let is_single = descriptor & 0x20 != 0;
        let size_of_size = match (descriptor >> 6, is_single) {
            (0, false) => return Ok(None),
            (0, true) => 1,
            (1, _) => 2,
            (2, _) => 4,
            _ => 8,
        };
        let window = if is_single { 0 } else { 1 };
        if descriptor & 0x03 != 0 || !self.take(frame, window + size_of_size)? {
            return Ok(None);
        }
        let mut size = [0; 8];
        let field = &frame[frame.len() - size_of_size as usize..];
        size[..field.len()].copy_from_slice(field);
        // A field of two bytes has 256 less than the size.
        let size = u64::from_le_bytes(size).saturating_add(if size_of_size == 2 { 256 } else { 0 });
        if size > MAX_CONTENT || !self.read_blocks(frame, size + OVERHEAD)? {
            return Ok(None);
        }
        let has_checksum = descriptor & 0x04 != 0;
        if has_checksum && !self.take(frame, 4)? {
            return Ok(None);
        }
        Ok(usize::try_from(size).ok())
    }

    /// Reads the blocks of a frame. Returns `false` if they end early or have more than `max` bytes.
    fn read_blocks(&mut self, frame: &mut Vec<u8>, max: u64) -> io::Result<bool> {
        loop {
            let start = frame.len();
            if !self.take(frame, 3)? {
                return Ok(false);
            }
            let header = u32::from_le_bytes([frame[start], frame[start + 1], frame[start + 2], 0]);
            let size = match header >> 1 & 0x03 {
                // A run of one byte.
                1 => 1,
                3 => return Ok(false),
                _ => u64::from(header >> 3),
            };
            if frame.len() as u64 + size > max || !self.take(frame, size)? {
                return Ok(false);
            }
            if header & 1 == 1 {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    /// Returns all content, and the number of frames that were separated.
    fn read(layer: &[u8]) -> io::Result<(Vec<u8>, usize)> {
        let mut frames: FrameReader<Box<dyn Read + Send>> =
            FrameReader::new(FrameFormat::Zstd, Box::new(layer), Pool::default());
        let (mut plain, mut count) = (Vec::new(), 0);
        while let Some(frame) = frames.next()? {
            plain.extend_from_slice(&frame.decompress(&Pool::default())?);
            count += 1;
        }
        if let Some(mut rest) = frames.take_rest()? {
            rest.read_to_end(&mut plain)?;
        }
        Ok((plain, count))
    }

    fn stream(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        for byte in bytes {
            encoder.write_all(&[*byte]).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    fn frame(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 1).unwrap()
    }

    const SKIPPABLE: &[u8] = &[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];

    #[test]
    fn frames_are_separated_and_skippable_ones_are_ignored() {
        let layer =
            [SKIPPABLE, &frame(b"one"), SKIPPABLE, &frame(b""), &frame(&[7; 300_000]), SKIPPABLE].concat();
        let (plain, count) = read(&layer).unwrap();
        assert_eq!((plain.len(), count), (3 + 300_000, 3));
    }

    #[test]
    fn a_frame_without_a_size_or_a_too_large_one_is_read_as_a_stream_with_all_after_it() {
        let large = vec![1; MAX_CONTENT as usize + 1];
        for odd in [stream(b"two"), frame(&large)] {
            let layer = [frame(b"one"), odd.clone(), frame(b"three")].concat();
            let (plain, count) = read(&layer).unwrap();
            assert_eq!(count, 1);
            assert!(plain.starts_with(b"one") && plain.ends_with(b"three"));
        }
    }

    #[test]
    fn a_checksum_belongs_to_its_frame() {
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        compressor.include_checksum(true).unwrap();
        let layer = [compressor.compress(b"one").unwrap(), frame(b"two")].concat();
        assert_eq!(read(&layer).unwrap(), (b"onetwo".to_vec(), 2));
    }

    #[test]
    fn a_truncated_layer_is_an_error_at_any_length() {
        let layer = [&frame(b"some content")[..], SKIPPABLE].concat();
        let first = frame(b"some content").len();
        for end in (1..layer.len()).filter(|end| *end != first) {
            assert!(read(&layer[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn damaged_layers_cause_no_panic(
            mut layer in prop::collection::vec(any::<u8>(), 0..200),
            at in 0..40usize,
            to in any::<u8>(),
        ) {
            let mut damaged = [frame(b"one"), frame(&[9; 5000])].concat();
            let at = at % damaged.len();
            damaged[at] = to;
            let _ = read(&damaged);
            layer.splice(..0, MAGIC);
            let _ = read(&layer);
        }
    }
}
