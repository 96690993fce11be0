//! PAX records: what a header has no room for (POSIX pax, "Extended Header").

use super::acl;
use super::block::decimal_number as number;
use super::sparse::{self, Form, Region};
use crate::tree::Time;
use std::collections::BTreeMap;

/// What extended attributes are called in PAX records, by GNU tar, Go, libarchive and Docker alike.
pub const XATTR: &str = "SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// Why records are refused.
type Why = &'static str;

/// The records of one entry that count.
#[derive(Debug, Default)]
pub struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: Option<Form>,
}

impl Records {
    /// Reads records strictly: with one that cannot be read, nothing behind it means anything.
    pub fn parse(pax: &[u8]) -> Result<Self, Why> {
        let mut records = Self::default();
        let mut sparse = Sparse::default();
        let mut acls = Vec::new();
        for record in Pairs(pax) {
            let (key, value) = record?;
            // An empty value takes the record away that may have come before, and the header counts (POSIX pax, "pax Extended
            // Header"). Extended attributes may be empty.
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
                        sparse.note(key, value)?;
                    } else if key.starts_with(b"SCHILY.acl.") {
                        acls.push((key, value));
                    }
                }
            }
        }
        acls.into_iter().for_each(|(key, value)| records.note_acl(key, value));
        if let Some(name) = sparse.name.take() {
            records.path = Some(name);
        }
        records.sparse = sparse.form()?;
        Ok(records)
    }

    /// Takes an ACL that is text as the attribute that says the same, unless that is there too. What of it has no meaning here stays
    /// as an attribute under the record's name, which no file system takes: so it is counted among what was not restored.
    fn note_acl(&mut self, key: &[u8], text: &[u8]) {
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

/// Whether records that stand for all entries to come would move or resize one of them. Go's reader passes over them, and GNU
/// tar obeys.
pub fn would_differ(pax: &[u8]) -> Result<bool, Why> {
    for record in Pairs(pax) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(SPARSE) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What GNU tar says about a sparse file, in one of its three ways.
#[derive(Default)]
struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    regions: Option<Vec<Region>>,
    /// The offset of a region whose length comes next.
    offset: Option<u64>,
    has_any: bool,
}

impl Sparse {
    fn note(&mut self, key: &[u8], value: &[u8]) -> Result<(), Why> {
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

    fn form(self) -> Result<Option<Form>, Why> {
        if !self.has_any {
            return Ok(None);
        }
        if self.offset.is_some() {
            return Err("has a sparse region without a length");
        }
        let real_size = self.real_size.ok_or("is sparse and says no size")?;
        match (self.major.unwrap_or(0), self.minor.unwrap_or(0), self.regions) {
            (1, 0, None) => Ok(Some(Form::MapInContent { real_size })),
            (0, 0 | 1, Some(regions)) => Ok(Some(Form::Known { regions, real_size })),
            (0, 0 | 1, None) => Err("is sparse and has no regions"),
            _ => Err("is sparse in a way that is not known"),
        }
    }
}

/// The keys and values of records, `LENGTH KEY=VALUE\n` each, where the length is that of the whole record.
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Why>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let pair = split_record(self.0);
        self.0 = pair.map_or(&[], |(_, _, rest)| rest);
        Some(pair.map(|(key, value, _)| (key, value)).ok_or("has a malformed PAX record"))
    }
}

/// The key and the value of the first record, and all behind it.
fn split_record(pax: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = pax.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&pax[..space]).ok()?).ok()?;
    let (record, rest) = pax.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&pair[..equals], &pair[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn name(value: &[u8]) -> Result<Vec<u8>, Why> {
    match value.contains(&0) {
        true => Err("has a name with a NUL in it"),
        false => Ok(value.to_vec()),
    }
}

fn time(value: &[u8]) -> Result<Time, Why> {
    str::from_utf8(value).ok().and_then(parse_decimal).ok_or("has a PAX time that is none")
}

/// Seconds as PAX writes them: `-1.5` is one and a half seconds before 1970.
pub fn decimal(time: Time) -> String {
    let Time { seconds, nanoseconds } = time;
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (true, 1..) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        (negative, _) => (if negative { "-" } else { "" }, seconds.unsigned_abs(), nanoseconds),
    };
    let fraction = format!(".{nanoseconds:09}");
    format!("{sign}{seconds}{}", fraction.trim_end_matches('0').trim_end_matches('.'))
}

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
    // More digits than nanoseconds are cut off, as every tool does.
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
    fn times_before_1970_and_with_nanoseconds_read_and_print_alike() {
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
    fn records_that_cannot_be_read_hide_nothing_behind_them() {
        assert_eq!(Records::parse(b"11 path=ab\n9 uid=12\n").unwrap().uid, Some(12));
        assert_eq!(Records::parse(b"14 path=a\nb=c\n").unwrap().path, Some(b"a\nb=c".to_vec()));
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
            assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
    #[test]
    fn a_record_without_a_value_takes_the_one_before_away() {
        let records = Records::parse(b"9 path=a\n8 path=\n9 uid=12\n7 uid=\n11 mtime=1\n9 mtime=\n").unwrap();
        assert_eq!((records.path, records.uid, records.mtime), (None, None, None));
        let records = Records::parse(b"8 path=\n9 path=a\n8 size=\n13 linkpath=\n").unwrap();
        assert_eq!((records.path, records.size, records.link), (Some(b"a".to_vec()), None, None));
        let records = Records::parse(b"24 SCHILY.xattr.user.x=\n").unwrap();
        assert_eq!(records.xattrs[&b"user.x"[..]], b"", "an attribute may be empty");
    }

    #[test]
    fn an_acl_in_a_record_is_an_attribute_and_what_it_cannot_be_is_kept_to_be_counted() {
        let record = |text: &str| {
            let body = format!(" SCHILY.acl.access={text}\n");
            let length =
                (1..).find(|length: &usize| length.to_string().len() + body.len() == *length).unwrap();
            Records::parse(format!("{length}{body}").as_bytes()).unwrap().xattrs
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
