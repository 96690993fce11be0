//! gzip members that declare their size, so that they can be found without decompression.
//!
//! The size is in an extra field of the header (RFC 1952, section 2.3.1.1), which other readers ignore: `VO`, and in four
//! bytes the length of the whole member. Nothing proves the size, so a reader that separates members by it must be able to
//! go back and read them as a stream.

use flate2::{Crc, Decompress, FlushDecompress, GzBuilder, Status};
use std::cell::RefCell;
use std::io::{self, Write};

/// The largest content of a member, in bytes. The window of gzip is 32 KiB, so members of 1 MiB cost less than 0.1 %
/// (measured).
pub const CONTENT: usize = 1 << 20;
/// The length of a header that has no field but the size, in bytes.
pub const HEADER: usize = 20;
/// The position of the size in the header.
const SIZE: usize = 16;
/// The length of the trailer: a checksum and the size of the content, four bytes each.
const TRAILER: usize = 8;
/// The largest member, in bytes. Incompressible content is stored, with five bytes added to every few kibibytes.
const LARGEST: usize = CONTENT + (64 << 10);

thread_local! {
    /// A reused decompressor. Allocating its window takes longer than decompressing a small member.
    static INFLATER: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// Returns a member with its size in its header, and without name and time.
pub fn member(content: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let field = [b'V', b'O', 4, 0, 0, 0, 0, 0];
    let mut member = GzBuilder::new().extra(field).write(Vec::new(), flate2::Compression::new(level));
    member.write_all(content)?;
    let mut member = member.finish()?;
    let size = u32::try_from(member.len()).map_err(io::Error::other)?;
    member[SIZE..HEADER].copy_from_slice(&size.to_le_bytes());
    Ok(member)
}

/// Returns the size of a member by its header; `None` if the header has no size, or an impossible one.
pub fn declared_size(header: &[u8]) -> Option<usize> {
    /// The flag of a header that has an extra field and nothing else.
    const EXTRA: u8 = 4;
    let [0x1f, 0x8b, 8, EXTRA, _, _, _, _, _, _, 8, 0, b'V', b'O', 4, 0, size @ ..] = header else {
        return None;
    };
    let size = usize::try_from(u32::from_le_bytes(*size.first_chunk()?)).ok()?;
    (HEADER + TRAILER..=LARGEST).contains(&size).then_some(size)
}

/// Returns the size of the content by the trailer of a member; `None` if it is too large.
pub fn declared_content_size(member: &[u8]) -> Option<usize> {
    let size = usize::try_from(u32::from_le_bytes(*member.last_chunk()?)).ok()?;
    (size <= CONTENT).then_some(size)
}

/// Decompresses a member into an empty buffer, which grows to at most one byte more than the declared size.
///
/// # Errors
/// Fails unless the bytes are exactly one member with as much content as it declares. A stream that begins with these
/// bytes may still be valid.
pub fn decompress(member: &[u8], content: &mut Vec<u8>) -> io::Result<()> {
    let parts = member.get(HEADER..).and_then(<[u8]>::split_last_chunk::<TRAILER>);
    let (Some((deflated, trailer)), Some(size)) = (parts, declared_content_size(member)) else {
        return Err(mismatch());
    };
    // One byte more, to detect excess content.
    content.reserve_exact(size + 1);
    INFLATER.with_borrow_mut(|inflater| {
        let inflater = inflater.get_or_insert_with(|| Decompress::new(false));
        inflater.reset(false);
        let status = inflater.decompress_vec(deflated, content, FlushDecompress::Finish)?;
        let mut crc = Crc::new();
        crc.update(content);
        let ends_here = status == Status::StreamEnd && inflater.total_in() == deflated.len() as u64;
        let is_intact = *trailer == *[crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].as_flattened();
        if ends_here && is_intact { Ok(()) } else { Err(mismatch()) }
    })
}

fn mismatch() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a gzip member is not what it says")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;
    use std::io::Read;

    fn unpacked(member: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        decompress(member, &mut content).map(|()| content)
    }

    #[test]
    fn a_member_declares_its_size_and_other_readers_ignore_that() {
        for content in [&b""[..], b"x", &[7; CONTENT]] {
            let member = member(content, 6).unwrap();
            let header = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 8, 0, b'V', b'O', 4, 0];
            assert_eq!(member[..SIZE], header);
            assert_eq!(declared_size(&member[..HEADER]), Some(member.len()));
            assert_eq!(declared_content_size(&member), Some(content.len()));
            assert!(unpacked(&member).unwrap() == content);
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut read).unwrap();
            assert!(read == content);
        }
    }

    #[test]
    fn members_with_incompressible_content_declare_their_size_too() {
        let content = noise(7, CONTENT);
        for level in 1..=9 {
            let member = member(&content, level).unwrap();
            assert!(declared_size(&member).is_some(), "{level}: {}", member.len());
            assert!(unpacked(&member).unwrap() == content, "{level}");
        }
    }

    #[test]
    fn sizes_above_the_largest_or_below_the_smallest_member_are_rejected() {
        let mut header = member(b"x", 6).unwrap()[..HEADER].to_vec();
        let mut declared = |size: u32| {
            header[SIZE..].copy_from_slice(&size.to_le_bytes());
            declared_size(&header)
        };
        assert_eq!(declared(LARGEST as u32), Some(LARGEST));
        assert_eq!(declared((HEADER + TRAILER) as u32), Some(HEADER + TRAILER));
        for size in [0, (HEADER + TRAILER) as u32 - 1, LARGEST as u32 + 1, u32::MAX] {
            assert_eq!(declared(size), None, "{size}");
        }
    }

    #[test]
    fn a_member_of_another_program_declares_no_size() {
        let others = |builder: GzBuilder| {
            let mut member = builder.write(Vec::new(), flate2::Compression::fast());
            member.write_all(b"content of some length").unwrap();
            member.finish().unwrap()
        };
        assert_eq!(declared_size(&others(GzBuilder::new())), None);
        assert_eq!(declared_size(&others(GzBuilder::new().filename("file-with-a-long-name"))), None);
        assert_eq!(declared_size(&others(GzBuilder::new().extra(*b"BC\x02\0\x30\0"))), None);
        assert_eq!(declared_size(&others(GzBuilder::new().extra(*b"BC\x04\0\x30\0\0\0"))), None);
        assert_eq!(declared_size(&others(GzBuilder::new().extra(*b"VO\x04\0\x30\0\0\0").comment("x"))), None);
        assert_eq!(declared_size(b"\x1f\x8b"), None);
    }

    #[test]
    fn a_member_with_more_content_than_it_declares_takes_no_more_memory() {
        let mut bomb = member(&vec![0; 64 << 20], 9).unwrap();
        let end = bomb.len() - 4;
        assert!(unpacked(&bomb).is_err());
        bomb[end..].copy_from_slice(&1000u32.to_le_bytes());
        let mut content = Vec::new();
        assert!(decompress(&bomb, &mut content).is_err());
        assert!(content.capacity() <= 1001, "{}", content.capacity());
    }

    #[test]
    fn a_damaged_member_is_an_error_wherever_it_is_damaged() {
        let sound = member(b"some content, some content, and more", 6).unwrap();
        for at in HEADER..sound.len() {
            for bit in 0..8 {
                let mut damaged = sound.clone();
                damaged[at] ^= 1 << bit;
                // Some bits of the last byte of deflate have no meaning.
                if let Ok(content) = unpacked(&damaged) {
                    assert_eq!((content, at), (unpacked(&sound).unwrap(), sound.len() - TRAILER - 1));
                }
            }
        }
        for end in 0..sound.len() {
            assert!(unpacked(&sound[..end]).is_err(), "{end}");
        }
        let longer = [&sound[..], b"\0"].concat();
        assert!(unpacked(&longer).is_err());
        let two = [&sound[..], &sound].concat();
        assert!(unpacked(&two).is_err());
    }
}
