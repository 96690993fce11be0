//! gzip members that tell their own size, so that they can be found without decompressing them.
//!
//! The size stands in an extra field of the header (RFC 1952, section 2.3.1.1), which other readers pass over: `VO`, and
//! in four bytes how long the member is from its first byte to its last. Nothing proves it, so whoever takes a member
//! out by it must be ready to read it as a stream after all.

use flate2::{Crc, Decompress, FlushDecompress, GzBuilder, Status};
use std::cell::RefCell;
use std::io::{self, Write};

/// No member has more content: its window is 32 KiB, so that 1 MiB costs less than 0.1 % (measured).
pub(super) const CONTENT: usize = 1 << 20;
/// How long the header is, with nothing in it but the size.
pub(super) const HEADER: usize = 20;
/// Where in the header the size stands.
const SIZE: usize = 16;
/// Behind the content stand its checksum and its size, four bytes each.
const TRAILER: usize = 8;
/// No member is larger. What does not compress is stored, which takes five bytes for some kibibytes.
const LARGEST: usize = CONTENT + (64 << 10);

thread_local! {
    /// Its window takes longer to make than a small member takes to decompress.
    static INFLATER: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// A member with its size in its header, and with neither name nor time.
pub(super) fn member(content: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let field = [b'V', b'O', 4, 0, 0, 0, 0, 0];
    let mut member = GzBuilder::new().extra(field).write(Vec::new(), flate2::Compression::new(level));
    member.write_all(content)?;
    let mut member = member.finish()?;
    let size = u32::try_from(member.len()).map_err(io::Error::other)?;
    member[SIZE..HEADER].copy_from_slice(&size.to_le_bytes());
    Ok(member)
}

/// How large the member says it is that has this header; `None` when it is another header, or too large.
pub(super) fn told_size(header: &[u8]) -> Option<usize> {
    /// The flag of a header that has an extra field and nothing else.
    const EXTRA: u8 = 4;
    let [0x1f, 0x8b, 8, EXTRA, _, _, _, _, _, _, 8, 0, b'V', b'O', 4, 0, size @ ..] = header else {
        return None;
    };
    let size = usize::try_from(u32::from_le_bytes(*size.first_chunk()?)).ok()?;
    (HEADER + TRAILER..=LARGEST).contains(&size).then_some(size)
}

/// How much content the member says it has; `None` when it is too much.
pub(super) fn told_content(member: &[u8]) -> Option<usize> {
    let size = usize::try_from(u32::from_le_bytes(*member.last_chunk()?)).ok()?;
    (size <= CONTENT).then_some(size)
}

/// Writes the content of a member into an empty buffer, which grows to what the member tells and one byte at most.
///
/// # Errors
/// When the member is anything else than one whole member with as much content as it tells: a stream that begins with
/// it might then be sound all the same.
pub(super) fn unpack(member: &[u8], content: &mut Vec<u8>) -> io::Result<()> {
    let parts = member.get(HEADER..).and_then(<[u8]>::split_last_chunk::<TRAILER>);
    let (Some((deflated, trailer)), Some(size)) = (parts, told_content(member)) else {
        return Err(is_another());
    };
    // One more, so that too much is noticed.
    content.reserve_exact(size + 1);
    INFLATER.with_borrow_mut(|kept| {
        let inflater = kept.get_or_insert_with(|| Decompress::new(false));
        inflater.reset(false);
        let status = inflater.decompress_vec(deflated, content, FlushDecompress::Finish)?;
        let mut crc = Crc::new();
        crc.update(content);
        let ends_here = status == Status::StreamEnd && inflater.total_in() == deflated.len() as u64;
        match ends_here && *trailer == *[crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].as_flattened() {
            true => Ok(()),
            false => Err(is_another()),
        }
    })
}

fn is_another() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a gzip member is not what it says")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn unpacked(member: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        unpack(member, &mut content).map(|()| content)
    }

    /// Bytes that do not compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 7u64;
        let next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn a_member_tells_its_size_and_other_readers_pass_over_that() {
        for content in [&b""[..], b"x", &[7; CONTENT]] {
            let member = member(content, 6).unwrap();
            let header = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 8, 0, b'V', b'O', 4, 0];
            assert_eq!(member[..SIZE], header);
            assert_eq!(told_size(&member[..HEADER]), Some(member.len()));
            assert_eq!(told_content(&member), Some(content.len()));
            assert!(unpacked(&member).unwrap() == content);
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut read).unwrap();
            assert!(read == content);
        }
    }

    #[test]
    fn what_does_not_compress_makes_members_that_are_taken_out_too() {
        let content = noise(CONTENT);
        for level in 1..=9 {
            let member = member(&content, level).unwrap();
            assert!(told_size(&member).is_some(), "{level}: {}", member.len());
            assert!(unpacked(&member).unwrap() == content, "{level}");
        }
    }

    #[test]
    fn no_size_is_believed_above_that_of_the_largest_member_or_below_that_of_the_smallest() {
        let mut header = member(b"x", 6).unwrap()[..HEADER].to_vec();
        let mut told = |size: u32| {
            header[SIZE..].copy_from_slice(&size.to_le_bytes());
            told_size(&header)
        };
        assert_eq!(told(LARGEST as u32), Some(LARGEST));
        assert_eq!(told((HEADER + TRAILER) as u32), Some(HEADER + TRAILER));
        for size in [0, (HEADER + TRAILER) as u32 - 1, LARGEST as u32 + 1, u32::MAX] {
            assert_eq!(told(size), None, "{size}");
        }
    }

    #[test]
    fn a_member_of_others_tells_no_size() {
        let others = |builder: GzBuilder| {
            let mut member = builder.write(Vec::new(), flate2::Compression::fast());
            member.write_all(b"content of some length").unwrap();
            member.finish().unwrap()
        };
        assert_eq!(told_size(&others(GzBuilder::new())), None);
        assert_eq!(told_size(&others(GzBuilder::new().filename("file-with-a-long-name"))), None);
        assert_eq!(told_size(&others(GzBuilder::new().extra(*b"BC\x02\0\x30\0"))), None);
        assert_eq!(told_size(&others(GzBuilder::new().extra(*b"BC\x04\0\x30\0\0\0"))), None);
        assert_eq!(told_size(&others(GzBuilder::new().extra(*b"VO\x04\0\x30\0\0\0").comment("x"))), None);
        assert_eq!(told_size(b"\x1f\x8b"), None);
    }

    #[test]
    fn a_member_with_more_content_than_it_tells_takes_no_more_memory_for_that() {
        let mut bomb = member(&vec![0; 64 << 20], 9).unwrap();
        let end = bomb.len() - 4;
        assert!(unpacked(&bomb).is_err());
        bomb[end..].copy_from_slice(&1000u32.to_le_bytes());
        let mut content = Vec::new();
        assert!(unpack(&bomb, &mut content).is_err());
        assert!(content.capacity() <= 1001, "{}", content.capacity());
    }

    #[test]
    fn a_damaged_member_is_an_error_wherever_it_is_damaged() {
        let sound = member(b"some content, some content, and more", 6).unwrap();
        for at in HEADER..sound.len() {
            for bit in 0..8 {
                let mut damaged = sound.clone();
                damaged[at] ^= 1 << bit;
                // Of the last byte of deflate some bits mean nothing, to no reader.
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
