//! An entry as the headers of a tar archive, and back: ustar, with PAX records for what ustar cannot say.
//!
//! Written are only PAX records, sorted, and no GNU extensions; what stands in a header depends on the entry alone.

use crate::error::{Error, Result};
use crate::tree::{Entry, Kind, Metadata, Time, TreePath};
use std::collections::BTreeMap;
use tar_core::builder::{HeaderBuilder, PaxBuilder};
use tar_core::parse::ParsedEntry;
use tar_core::{EntryType, HeaderError, PaxExtensions};

/// Archives come in blocks of this many bytes.
pub const BLOCK: usize = 512;
/// `name` and `linkname` of a ustar header; longer ones go into PAX records. The `prefix` field stays unused: one
/// rule instead of two.
const NAME_FIELD: usize = 100;
/// Seven octal digits: the most that `uid`, `gid` and the device numbers can say.
const OCTAL_7: u32 = 0o7_777_777;
/// Eleven octal digits: the most that `size` and `mtime` can say, 8 GiB or the year 2242.
const OCTAL_11: u64 = 0o77_777_777_777;
/// The name of the entry that holds PAX records; constant, for it means nothing.
const PAX_NAME: &str = "././@PaxHeader";
/// The most that the PAX records of one entry may take, in bytes: Go's reader, and with it docker and containerd,
/// refuses more, and so does ours.
const PAX_LIMIT: usize = 1 << 20;
/// What extended attributes are called in PAX records, by GNU tar, Go, libarchive and Docker alike.
const XATTR: &str = "SCHILY.xattr.";

/// The header blocks of an entry; its content, padded to whole blocks, follows them.
///
/// # Errors
/// When the format cannot hold the entry: an extended attribute whose name has a `=` or is not UTF-8, or more of
/// them than anybody reads.
pub fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let records = records(entry)?;
    let mut blocks = Vec::with_capacity(3 * BLOCK);
    let unfit = |error: HeaderError| {
        Error::failed(format!("{} does not fit a tar header", entry.path)).because(error)
    };
    if !records.is_empty() {
        let mut pax = PaxBuilder::new();
        for (key, value) in &records {
            pax.add(key, value);
        }
        let pax = pax.finish();
        if pax.len() > PAX_LIMIT {
            return Err(Error::failed(format!(
                "{} has more than 1 MiB of extended attributes, which nobody could unpack",
                entry.path
            ))
            .hint("remove some of them, or leave the file out with --exclude"));
        }
        let mut header = HeaderBuilder::new_ustar();
        header.entry_type(EntryType::XHeader).path(PAX_NAME).map_err(unfit)?;
        header.mode(0o644).and_then(|header| header.size(pax.len() as u64)).map_err(unfit)?;
        header.uid(0).and_then(|header| header.gid(0)).and_then(|header| header.mtime(0)).map_err(unfit)?;
        blocks.extend_from_slice(header.finish().as_bytes());
        blocks.extend_from_slice(&pax);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    }
    blocks.extend_from_slice(ustar(entry).map_err(unfit)?.as_bytes());
    Ok(blocks)
}

/// The ustar header: every field that fits; for a number that does not, the nearest that does.
fn ustar(entry: &Entry) -> Result<tar_core::Header, HeaderError> {
    let Metadata { mode, uid, gid, mtime, .. } = &entry.metadata;
    let mut header = HeaderBuilder::new_ustar();
    let name = archive_name(entry);
    header.path(&name[..name.len().min(NAME_FIELD)])?;
    header.mode(mode & 0o7777)?;
    header.uid((*uid).min(OCTAL_7).into())?.gid((*gid).min(OCTAL_7).into())?;
    header.mtime(u64::try_from(mtime.seconds).unwrap_or(0).min(OCTAL_11))?;
    header.size(0)?;
    let entry_type = match &entry.kind {
        Kind::File { size } => {
            header.size((*size).min(OCTAL_11))?;
            EntryType::Regular
        }
        Kind::Directory => EntryType::Directory,
        Kind::Symlink { target } => {
            header.link_name(&target[..target.len().min(NAME_FIELD)])?;
            EntryType::Symlink
        }
        Kind::Hardlink { target } => {
            let target = target.as_bytes();
            header.link_name(&target[..target.len().min(NAME_FIELD)])?;
            EntryType::Link
        }
        Kind::Fifo => EntryType::Fifo,
        Kind::CharDevice { major, minor } => {
            header.device(*major, *minor)?;
            EntryType::Char
        }
        Kind::BlockDevice { major, minor } => {
            header.device(*major, *minor)?;
            EntryType::Block
        }
    };
    Ok(header.entry_type(entry_type).finish())
}

/// What the ustar header cannot say, by key.
fn records(entry: &Entry) -> Result<BTreeMap<String, Vec<u8>>> {
    let Metadata { uid, gid, mtime, xattrs, .. } = &entry.metadata;
    let mut records = BTreeMap::new();
    let mut record = |key: &str, value: Vec<u8>| records.insert(key.to_owned(), value);
    let name = archive_name(entry);
    if name.len() > NAME_FIELD {
        record("path", name);
    }
    match &entry.kind {
        Kind::Symlink { target } if target.len() > NAME_FIELD => _ = record("linkpath", target.clone()),
        Kind::Hardlink { target } if target.as_bytes().len() > NAME_FIELD => {
            record("linkpath", target.as_bytes().to_vec());
        }
        Kind::File { size } if *size > OCTAL_11 => _ = record("size", size.to_string().into()),
        _ => {}
    }
    if *uid > OCTAL_7 {
        record("uid", uid.to_string().into());
    }
    if *gid > OCTAL_7 {
        record("gid", gid.to_string().into());
    }
    if mtime.nanoseconds != 0 || !(0..=OCTAL_11.cast_signed()).contains(&mtime.seconds) {
        record("mtime", decimal(*mtime).into());
    }
    for (name, value) in xattrs {
        // The key of a record ends at its first '='; Go's reader takes UTF-8 only.
        let name = str::from_utf8(name).ok().filter(|name| !name.contains('=')).ok_or_else(|| {
            Error::failed(format!(
                "{} has an extended attribute whose name no tar archive can hold: {}",
                entry.path,
                name.escape_ascii()
            ))
            .hint("remove the attribute, or leave the file out with --exclude")
        })?;
        record(&format!("{XATTR}{name}"), value.clone());
    }
    Ok(records)
}

/// The path as archives have it: directories end in `/`, the root is `./`.
fn archive_name(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.as_bytes().to_vec();
    if entry.kind == Kind::Directory {
        name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
    }
    name
}

/// Reads an entry; its path may still be that of a whiteout.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when it cannot be restored as it is: a path that leaves the tree,
/// a type that is not known, a number that means nothing.
pub fn decode(parsed: &ParsedEntry<'_>) -> Result<Entry> {
    let invalid =
        |why: &str| Error::integrity(format!("the layer's entry {} {why}", parsed.path.escape_ascii()));
    let path = TreePath::parse(&parsed.path).ok_or_else(|| invalid("has a path that leaves the tree"))?;
    let link = || parsed.link_target.as_deref().ok_or_else(|| invalid("is a link to nothing"));
    let device =
        || parsed.dev_major.zip(parsed.dev_minor).ok_or_else(|| invalid("is a device without numbers"));
    let kind = match parsed.entry_type {
        // Archives older than POSIX mark a directory by its slash only.
        EntryType::Regular if parsed.path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => Kind::File { size: parsed.size },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink { target: link()?.to_vec() },
        EntryType::Link => Kind::Hardlink {
            target: TreePath::parse(link()?).ok_or_else(|| invalid("is a hard link that leaves the tree"))?,
        },
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
        EntryType::Block => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        other => return Err(invalid(&format!("is of a type that is not known: {other:?}"))),
    };
    if path.is_root() && kind != Kind::Directory {
        return Err(invalid("is the root of the tree and no directory"));
    }
    Ok(Entry { path, kind, metadata: metadata(parsed).map_err(invalid)? })
}

fn metadata(parsed: &ParsedEntry<'_>) -> Result<Metadata, &'static str> {
    let mut metadata = Metadata {
        mode: parsed.mode & 0o7777,
        uid: id(parsed.uid)?,
        gid: id(parsed.gid)?,
        mtime: Time {
            seconds: i64::try_from(parsed.mtime).map_err(|_| "has a time beyond all time")?,
            nanoseconds: 0,
        },
        xattrs: parsed.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    };
    // The parser reads records leniently, because it knows no time before 1970 and no fractions; so what it reads
    // is read again here, strictly.
    for record in PaxExtensions::new(parsed.pax.unwrap_or_default()) {
        let record = record.map_err(|_| "has a malformed PAX record")?;
        let text = str::from_utf8(record.value_bytes()).ok();
        let number = || text.and_then(|text| text.parse().ok()).ok_or("has a PAX record that is no number");
        match record.key_bytes() {
            b"mtime" => metadata.mtime = text.and_then(parse_decimal).ok_or("has a PAX time that is none")?,
            b"uid" => metadata.uid = id(number()?)?,
            b"gid" => metadata.gid = id(number()?)?,
            b"size" => _ = number()?,
            _ => {}
        }
    }
    Ok(metadata)
}

/// An owner that a file can have: 2³²−1 means "leave it as it is" to chown(2).
fn id(id: u64) -> Result<u32, &'static str> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or("has an owner or a group above 4294967294")
}

/// Seconds as PAX writes them: `-1.5` is one and a half seconds before 1970.
fn decimal(time: Time) -> String {
    let Time { seconds, nanoseconds } = time;
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (true, 1..) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        (negative, _) => (if negative { "-" } else { "" }, seconds.unsigned_abs(), nanoseconds),
    };
    let fraction = format!(".{nanoseconds:09}");
    format!("{sign}{seconds}{}", fraction.trim_end_matches('0').trim_end_matches('.'))
}

fn parse_decimal(text: &str) -> Option<Time> {
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
}
