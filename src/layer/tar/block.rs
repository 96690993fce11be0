//! A block of a tar archive, and the numbers and texts in its fields.
//!
//! The reader accepts what GNU tar and the reader of Go, which docker, containerd and podman use, understand in the same
//! way. Anything that they would understand differently is refused: an archive that is one tree to a scanner and another
//! one to an engine is an attack.

use crate::layer::format::BLOCK;
use std::ops::Range;

/// Positions of the fields of a header (POSIX ustar; the GNU dialect differs after the device numbers).
pub mod field {
    use std::ops::Range;
    pub const NAME: Range<usize> = 0..100;
    pub const MODE: Range<usize> = 100..108;
    pub const UID: Range<usize> = 108..116;
    pub const GID: Range<usize> = 116..124;
    pub const SIZE: Range<usize> = 124..136;
    pub const MTIME: Range<usize> = 136..148;
    pub const CHECKSUM: Range<usize> = 148..156;
    pub const TYPE: usize = 156;
    pub const LINK: Range<usize> = 157..257;
    pub const MAGIC: Range<usize> = 257..265;
    pub const MAJOR: Range<usize> = 329..337;
    pub const MINOR: Range<usize> = 337..345;
    pub const PREFIX: Range<usize> = 345..500;
    /// The prefix of Joerg Schilling's star, which is shorter, and the mark at the end of such a block.
    pub const STAR_PREFIX: Range<usize> = 345..476;
    pub const STAR_MARK: Range<usize> = 508..512;
    /// Fields of a sparse file in the GNU dialect: four regions, a flag that more follow, and the size of the file.
    pub const GNU_REGIONS: Range<usize> = 386..482;
    pub const GNU_MORE: usize = 482;
    pub const GNU_REAL_SIZE: Range<usize> = 483..495;
    /// Fields of a block with more regions: twenty-one of them, and a flag that yet another block follows.
    pub const MORE_REGIONS: Range<usize> = 0..504;
    pub const MORE_FOLLOW: usize = 504;
}

/// The dialect of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The format before POSIX.
    V7,
    /// The format of POSIX.
    Ustar,
    /// The format of GNU tar.
    Gnu,
}

/// A block of an archive.
pub struct TarBlock(pub [u8; BLOCK]);

impl TarBlock {
    /// Returns whether it is one of the blocks that end an archive.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; BLOCK]
    }

    /// Returns whether the checksum is right. Some old programs added up signed bytes.
    pub fn is_intact(&self) -> bool {
        let bytes = || {
            let field = |(at, byte): (usize, &u8)| if field::CHECKSUM.contains(&at) { b' ' } else { *byte };
            self.0.iter().enumerate().map(field)
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        self.number(field::CHECKSUM).is_some_and(|sum| sum == unsigned || sum == signed)
    }

    /// Returns the dialect, by the magic of the header.
    pub fn dialect(&self) -> Dialect {
        match &self.0[field::MAGIC] {
            [b'u', b's', b't', b'a', b'r', 0, ..] => Dialect::Ustar,
            b"ustar  \0" => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    /// Returns a field that holds text, up to the first NUL.
    pub fn text(&self, field: Range<usize>) -> &[u8] {
        until_nul(&self.0[field])
    }

    /// Returns a field that holds a number; `None` if it is invalid or too large.
    pub fn number(&self, field: Range<usize>) -> Option<i64> {
        number(&self.0[field])
    }

    /// Returns the path, as far as it fits into a header.
    pub fn path(&self) -> Vec<u8> {
        let name = self.text(field::NAME);
        let prefix = match self.dialect() {
            Dialect::Ustar if self.0[field::STAR_MARK] == *b"tar\0" => self.text(field::STAR_PREFIX),
            Dialect::Ustar => self.text(field::PREFIX),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }
}

/// Returns the bytes before the first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Parses a number of a header: octal digits with blanks or NULs around them, or two's complement after a set first bit
/// (GNU dialect). An empty field is zero.
pub fn number(field: &[u8]) -> Option<i64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            let negative = first & 0x40 != 0;
            // The first bit only marks this notation; the sign is the second one.
            let top = if negative { i128::from(first | 0x80) - 256 } else { i128::from(first & 0x7f) };
            let value = rest
                .iter()
                .try_fold(top, |value, byte| value.checked_mul(256).map(|value| value + i128::from(*byte)))?;
            i64::try_from(value).ok()
        }
        _ => {
            let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
            let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
            let digits = until_nul(&field[start..]).trim_ascii_end();
            digits.iter().try_fold(0i64, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                _ => None,
            })
        }
    }
}

/// Parses a decimal number of a PAX record, without sign and blanks.
///
/// # Errors
/// The defect, worded so that it can follow the name of the entry.
pub fn decimal_number(text: &[u8]) -> Result<u64, &'static str> {
    let digits = Some(text).filter(|text| text.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    number.ok_or("has a PAX record that is not a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_parsed_as_other_tars_parse_them() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777 ", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000008\0", None),
            (b"-000001\0", None),
            (b"00 0001\0", None),
            (b"0x00001\0", None),
        ] {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }
}
