//! The frames of a layer, found without decompressing them: those of zstd (RFC 8878, section 3.1), and gzip members that
//! tell their size.

use super::gzip;
use crate::stream::{Buffer, Pool};
use std::cell::RefCell;
use std::io::{self, Cursor, Read};
use std::ops::Range;

/// What a zstd frame begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A larger frame, or one that does not tell its size, is decompressed as a stream: it might be all of the layer.
const LARGEST: u64 = 16 << 20;
/// What a frame may have beyond its content where that does not compress: its header, and three bytes for each block,
/// which nobody makes smaller than a kibibyte on purpose.
const OVERHEAD: u64 = 64 << 10;

/// What frames are like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// zstd frames, whose blocks lead to their end.
    Zstd,
    /// gzip members, whose end is only where they say.
    Gzip,
}

/// A frame that can be decompressed by itself.
pub(super) struct Frame {
    format: Format,
    /// Where it begins in the layer.
    start: u64,
    bytes: Buffer,
    plain_size: usize,
}

thread_local! {
    /// Its tables take longer to make than a small frame takes to decompress.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

impl Frame {
    /// How much memory it takes while it is decompressed, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.plain_size
    }

    /// Where it stands in the layer.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.bytes.len() as u64
    }

    /// What it is, compressed, where its end may be another one than it says.
    pub fn into_doubtful(self) -> Option<Buffer> {
        (self.format == Format::Gzip).then_some(self.bytes)
    }

    /// Its content, in a buffer of the pool.
    ///
    /// # Errors
    /// When it is damaged, or has more content than it says, or another end.
    pub fn decompress(&self, pool: &Pool) -> io::Result<Buffer> {
        pool.fill(|plain| match self.format {
            Format::Zstd => self.decompress_zstd(plain),
            Format::Gzip => gzip::unpack(&self.bytes, plain),
        })
    }

    fn decompress_zstd(&self, plain: &mut Vec<u8>) -> io::Result<()> {
        DECOMPRESSOR.with_borrow_mut(|kept| {
            let decompressor = match kept {
                Some(decompressor) => decompressor,
                None => kept.insert(zstd::bulk::Decompressor::new()?),
            };
            plain.reserve(self.plain_size);
            decompressor.decompress_to_buffer(&self.bytes[..], plain).map(drop)
        })
    }
}

/// Reads frame after frame.
pub(super) struct FrameReader<R> {
    format: Format,
    layer: R,
    /// How much of the layer was read.
    offset: u64,
    /// What was read of a frame that is none of those that can be decompressed by themselves.
    begun: Vec<u8>,
    pool: Pool,
}

impl<'a> FrameReader<Box<dyn Read + Send + 'a>> {
    /// What the last frame was that could not be taken out, and all behind it, decompressed; `None` at the end of the
    /// layer.
    pub fn take_rest(&mut self) -> io::Result<Option<Box<dyn Read + Send + 'a>>> {
        if self.begun.is_empty() {
            return Ok(None);
        }
        let begun = Cursor::new(std::mem::take(&mut self.begun));
        let rest = begun.chain(std::mem::replace(&mut self.layer, Box::new(io::empty())));
        Ok(Some(match self.format {
            Format::Zstd => Box::new(zstd::stream::read::Decoder::new(rest)?),
            Format::Gzip => Box::new(flate2::read::MultiGzDecoder::new(rest)),
        }))
    }
}

impl<R: Read> FrameReader<R> {
    pub fn new(format: Format, layer: R, pool: Pool) -> Self {
        Self { format, layer, offset: 0, begun: Vec::new(), pool }
    }

    /// Makes what was taken out last the beginning of the rest.
    pub fn put_back(&mut self, frames: Vec<u8>) {
        self.begun.splice(..0, frames);
    }

    /// Whether nothing stands behind the frames that were taken out, once there was no next one.
    pub fn is_at_end(&self) -> bool {
        self.begun.is_empty()
    }

    /// The next frame; `None` at the end of the layer, and where something stands that must be read as a stream.
    ///
    /// # Errors
    /// Those of reading. What is no frame is not an error here but for whoever decompresses it.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut plain_size = None;
        let pool = self.pool.clone();
        let bytes = pool.fill(|frame| {
            plain_size = match self.format {
                Format::Zstd => self.read(frame)?,
                Format::Gzip => self.member(frame)?,
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

    /// Reads the next zstd frame and says how large its content is; `None` where it cannot be taken out.
    fn read(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<usize>> {
        loop {
            frame.clear();
            let whole = self.take(frame, 4)?;
            if whole && matches!(frame[..], [0x50..=0x5f, 0x2a, 0x4d, 0x18]) && self.skip(frame)? {
                continue;
            }
            return if *frame == MAGIC { self.rest_of(frame) } else { Ok(None) };
        }
    }

    /// Reads the next gzip member and says how large its content is; `None` where it cannot be taken out.
    fn member(&mut self, member: &mut Vec<u8>) -> io::Result<Option<usize>> {
        self.take(member, gzip::HEADER as u64)?;
        let Some(size) = gzip::told_size(member) else { return Ok(None) };
        match self.take(member, (size - gzip::HEADER) as u64)? {
            true => Ok(gzip::told_content(member)),
            false => Ok(None),
        }
    }

    /// Reads so many bytes more; `false` where there are fewer.
    fn take(&mut self, frame: &mut Vec<u8>, count: u64) -> io::Result<bool> {
        let read = self.layer.by_ref().take(count).read_to_end(frame)? as u64;
        self.offset += read;
        Ok(read == count)
    }

    /// Passes over a skippable frame; `false` when the layer ends in its size.
    fn skip(&mut self, frame: &mut Vec<u8>) -> io::Result<bool> {
        if !self.take(frame, 4)? {
            return Ok(false);
        }
        let size = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
        let skipped = io::copy(&mut self.layer.by_ref().take(size.into()), &mut io::sink())?;
        self.offset += skipped;
        match skipped == u64::from(size) {
            true => Ok(true),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads a frame to its end and says how large its content is; `None` when that is not told or too large, when it
    /// needs a dictionary, or when it is damaged.
    fn rest_of(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<usize>> {
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
        // With two bytes it says what is above 255.
        let size = u64::from_le_bytes(size).saturating_add(if size_of_size == 2 { 256 } else { 0 });
        if size > LARGEST || !self.blocks(frame, size + OVERHEAD)? {
            return Ok(None);
        }
        let has_checksum = descriptor & 0x04 != 0;
        match has_checksum && !self.take(frame, 4)? {
            true => Ok(None),
            false => Ok(usize::try_from(size).ok()),
        }
    }

    /// Reads the blocks of a frame; `false` when they end early or are more than `most` bytes.
    fn blocks(&mut self, frame: &mut Vec<u8>, most: u64) -> io::Result<bool> {
        loop {
            let start = frame.len();
            if !self.take(frame, 3)? {
                return Ok(false);
            }
            let header = u32::from_le_bytes([frame[start], frame[start + 1], frame[start + 2], 0]);
            let size = match header >> 1 & 0x03 {
                // One byte that is repeated so often.
                1 => 1,
                3 => return Ok(false),
                _ => u64::from(header >> 3),
            };
            if frame.len() as u64 + size > most || !self.take(frame, size)? {
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

    /// All content, and how many of the frames were taken out.
    fn read(layer: &[u8]) -> io::Result<(Vec<u8>, usize)> {
        let mut frames: FrameReader<Box<dyn Read + Send>> =
            FrameReader::new(Format::Zstd, Box::new(layer), Pool::default());
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
    fn frames_are_taken_out_and_skippable_ones_passed_over() {
        let layer =
            [SKIPPABLE, &frame(b"one"), SKIPPABLE, &frame(b""), &frame(&[7; 300_000]), SKIPPABLE].concat();
        let (plain, count) = read(&layer).unwrap();
        assert_eq!((plain.len(), count), (3 + 300_000, 3));
    }

    #[test]
    fn what_does_not_tell_its_size_or_is_too_large_is_read_as_a_stream_with_all_behind_it() {
        let large = vec![1; LARGEST as usize + 1];
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
    fn a_layer_that_ends_early_is_an_error_wherever_it_ends() {
        let layer = [&frame(b"some content")[..], SKIPPABLE].concat();
        let first = frame(b"some content").len();
        for end in (1..layer.len()).filter(|end| *end != first) {
            assert!(read(&layer[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn damage_is_never_a_panic_and_never_more_memory(
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
