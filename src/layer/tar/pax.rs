//! PAX records, which hold what does not fit into a header (POSIX pax, "Extended Header").

use super::acl;
use super::block::decimal_number as number;
use super::sparse::{self, Region, SparseFormat};
use crate::tree::Time;
use std::collections::BTreeMap;

/// The prefix of extended attributes in PAX records, in GNU tar, Go, libarchive and Docker.
pub const XATTR: &str = "SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// The reason why records are refused, worded so that it can follow the name of the entry.
type Defect = &'static str;

/// The records of one entry, without unknown ones.
#[derive(Debug, Default)]
pub struct PaxRecords {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: Option<SparseFormat>,
}

impl PaxRecords {
    /// Parses records strictly: after a malformed record, the rest has no defined meaning.
    pub fn parse(pax: &[u8]) -> Result<Self, Defect> {
        let mut records = Self::default();
        let mut sparse = SparseRecords::default();
        let mut acls = Vec::new();
        for record in KeyValues(pax) {
            let (key, value) = record?;
            // An empty value deletes an earlier record, so that the header applies again (POSIX pax, "pax Extended Header").
            // Only extended attributes may be empty.
            let given = Some(value).filter(|value| !value.is_empty());
            match key {
                b"path" => records.path = given.map(name).transpose()?,
                b"linkpath" => records.link = given.map(name).transpose()?,
                b"size" => records.size = given.map(number).transpose()?,
                b"uid" => records.uid = given.map(number).transpose()?,
                b"gid" => records.gid = given.map(number).transpose()?,
                b"mtime" => records.mtime = given.map(time).transpose()?,
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR.as_bytes()) {
                        records.xattrs.insert(name.to_vec(), value.to_vec());
                    } else if let Some(key) = key.strip_prefix(SPARSE) {
                        sparse.add(key, value)?;
                    } else if key.starts_with(b"SCHILY.acl.") {
                        acls.push((key, value));
                    }
                }
            }
        }
        acls.into_iter().for_each(|(key, value)| records.add_acl(key, value));
        if let Some(name) = sparse.name.take() {
            records.path = Some(name);
        }
        records.sparse = sparse.format()?;
        Ok(records)
    }

    /// Adds an ACL in text form as the attribute of the same meaning, unless that is present too. An ACL that cannot be
    /// converted completely is also kept as an attribute with the name of the record. No file system accepts such an
    /// attribute, so it is counted as not restored.
    fn add_acl(&mut self, key: &[u8], text: &[u8]) {
        let attribute =
            acl::RECORDS.iter().find(|(record, _)| *record == key).map(|(_, attribute)| *attribute);
        let Some(attribute) = attribute else {
            self.xattrs.insert(key.to_vec(), text.to_vec());
            return;
        };
        if self.xattrs.contains_key(attribute) {
            return;
        }
        let parsed = acl::parse(text);
        if parsed.as_ref().is_none_or(|acl| acl.is_partial) {
            self.xattrs.insert(key.to_vec(), text.to_vec());
        }
        if let Some(acl) = parsed {
            self.xattrs.insert(attribute.to_vec(), acl.value);
        }
    }
}

/// Returns whether global records would rename or resize the entries that follow. Go's reader ignores such records, and
/// GNU tar applies them.
pub fn would_differ(pax: &[u8]) -> Result<bool, Defect> {
    for record in KeyValues(pax) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(SPARSE) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The records of GNU tar about a sparse file, in one of three versions.
#[derive(Default)]
struct SparseRecords {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    regions: Option<Vec<Region>>,
    /// The offset of a region. Its length follows in the next record.
    offset: Option<u64>,
    has_any: bool,
}

impl SparseRecords {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Defect> {
        self.has_any = true;
        match key {
            b"major" => self.major = Some(number(value)?),
            b"minor" => self.minor = Some(number(value)?),
            b"name" if value.is_empty() => self.name = None,
            b"name" => self.name = Some(name(value)?),
            b"size" | b"realsize" => self.real_size = Some(number(value)?),
            b"numblocks" => _ = number(value)?,
            b"offset" => {
                if self.offset.replace(number(value)?).is_some() {
                    return Err("has a sparse region without a length");
                }
            }
            b"numbytes" => {
                let offset = self.offset.take().ok_or("has a sparse region without an offset")?;
                self.regions.get_or_insert_default().push(Region { offset, length: number(value)? });
            }
            b"map" => self.regions = Some(sparse::parse_map(value)?),
            _ => return Err("is sparse in a way that is not known"),
        }
        Ok(())
    }

    fn format(self) -> Result<Option<SparseFormat>, Defect> {
        if !self.has_any {
            return Ok(None);
        }
        if self.offset.is_some() {
            return Err("has a sparse region without a length");
        }
        let real_size = self.real_size.ok_or("is sparse and says no size")?;
        match (self.major.unwrap_or(0), self.minor.unwrap_or(0), self.regions) {
            (1, 0, None) => Ok(Some(SparseFormat::MapInContent { real_size })),
            (0, 0 | 1, Some(regions)) => Ok(Some(SparseFormat::Known { regions, real_size })),
            (0, 0 | 1, None) => Err("is sparse and has no regions"),
            _ => Err("is sparse in a way that is not known"),
        }
    }
}

/// An iterator over the keys and values of records. A record is `LENGTH KEY=VALUE\n`, with the length of all of it.
struct KeyValues<'a>(&'a [u8]);

impl<'a> Iterator for KeyValues<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Defect>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let pair = split_record(self.0);
        self.0 = pair.map_or(&[], |(_, _, rest)| rest);
        Some(pair.map(|(key, value, _)| (key, value)).ok_or("has a malformed PAX record"))
    }
}

/// Splits off the first record. Returns its key, its value, and the rest.
fn split_record(pax: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = pax.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&pax[..space]).ok()?).ok()?;
    let (record, rest) = pax.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&pair[..equals], &pair[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn name(value: &[u8]) -> Result<Vec<u8>, Defect> {
    if value.contains(&0) { Err("has a name with a NUL in it") } else { Ok(value.to_vec()) }
}

fn time(value: &[u8]) -> Result<Time, Defect> {
    str::from_utf8(value).ok().and_then(parse_decimal).ok_or("has a PAX time that is none")
}

/// Formats a time as PAX does, in seconds: `-1.5` is one and a half seconds before 1970.
pub fn decimal(time: Time) -> String {
    let Time { seconds, nanoseconds } = time;
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (true, 1..) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        (negative, _) => (if negative { "-" } else { "" }, seconds.unsigned_abs(), nanoseconds),
    };
    let fraction = format!(".{nanoseconds:09}");
    format!("{sign}{seconds}{}", fraction.trim_end_matches('0').trim_end_matches('.'))
}

/// Parses a time in seconds; `None` if it is invalid or out of range.
pub fn parse_decimal(text: &str) -> Option<Time> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (seconds, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if !fraction.bytes().chain(seconds.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    // Digits beyond nanoseconds are cut off, as in every tool.
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_with_nanoseconds_are_printed_as_they_are_parsed() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (-2, 500_000_000, "-1.5"),
            (-1, 999_999_999, "-0.000000001"),
            (-1, 0, "-1"),
            (99_999_999_999, 1, "99999999999.000000001"),
        ] {
            let time = Time { seconds, nanoseconds };
            assert_eq!(decimal(time), text);
            assert_eq!(parse_decimal(text), Some(time), "{text}");
        }
        for bad in ["", "-", "x", "1.x", "1e9", "--1", "+1", "99999999999999999999"] {
            assert_eq!(parse_decimal(bad), None, "{bad:?}");
        }
        assert_eq!(parse_decimal("1.1234567899"), Some(Time { seconds: 1, nanoseconds: 123_456_789 }));
    }

    #[test]
    fn a_malformed_record_is_an_error_and_hides_no_later_one() {
        assert_eq!(PaxRecords::parse(b"11 path=ab\n9 uid=12\n").unwrap().uid, Some(12));
        assert_eq!(PaxRecords::parse(b"14 path=a\nb=c\n").unwrap().path, Some(b"a\nb=c".to_vec()));
        for bad in [
            &b"11 path=ab\n9 uid=1"[..],
            b"11 path=ab\nx uid=12\n",
            b"11 path=ab\n\0\0\0",
            b"+9 uid=12\n",
            b"0 uid=12\n",
            b"3 \n",
            b"99999999999999999999 uid=12\n",
            b"9 size=-\n",
            b"10 uid=-1\n\n",
            b"9 path=\0\n",
            b"5 =a\n",
        ] {
            assert!(PaxRecords::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_record_without_a_value_deletes_the_one_before() {
        let records =
            PaxRecords::parse(b"9 path=a\n8 path=\n9 uid=12\n7 uid=\n11 mtime=1\n9 mtime=\n").unwrap();
        assert_eq!((records.path, records.uid, records.mtime), (None, None, None));
        let records = PaxRecords::parse(b"8 path=\n9 path=a\n8 size=\n13 linkpath=\n").unwrap();
        assert_eq!((records.path, records.size, records.link), (Some(b"a".to_vec()), None, None));
        let records = PaxRecords::parse(b"24 SCHILY.xattr.user.x=\n").unwrap();
        assert_eq!(records.xattrs[&b"user.x"[..]], b"", "an attribute may be empty");
    }

    #[test]
    fn an_acl_becomes_an_attribute_and_is_also_kept_if_it_cannot_be_converted_completely() {
        let record = |text: &str| {
            let body = format!(" SCHILY.acl.access={text}\n");
            let length =
                (1..).find(|length: &usize| length.to_string().len() + body.len() == *length).unwrap();
            PaxRecords::parse(format!("{length}{body}").as_bytes()).unwrap().xattrs
        };
        let attribute = &b"system.posix_acl_access"[..];
        let kept = &b"SCHILY.acl.access"[..];
        let whole = record("user::rwx,user:5:r-x,group::r-x,mask::r-x,other::---");
        assert!(whole.contains_key(attribute) && !whole.contains_key(kept));
        let partial = record("user::rwx,user:lisa:r-x,group::r-x,mask::r-x,other::---");
        assert!(partial.contains_key(attribute) && partial.contains_key(kept));
        let none = record("rubbish");
        assert!(!none.contains_key(attribute) && none.contains_key(kept));
    }
}
