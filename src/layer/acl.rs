//! POSIX ACLs as text, as GNU tar and bsdtar write them into PAX records (`SCHILY.acl.access`, `SCHILY.acl.default`), and as the
//! extended attributes that Linux has for them.

use std::collections::BTreeSet;

/// What the records are called, and the attributes that say the same.
pub const RECORDS: [(&[u8], &[u8]); 2] = [
    (b"SCHILY.acl.access", b"system.posix_acl_access"),
    (b"SCHILY.acl.default", b"system.posix_acl_default"),
];

/// The tags of entries, in the order in which the kernel wants them (`linux/posix_acl.h`).
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The number of entries that are for nobody in particular.
const NOBODY: u32 = u32::MAX;

/// An ACL out of a record.
#[derive(Debug, PartialEq, Eq)]
pub struct Acl {
    /// The value of the attribute.
    pub value: Vec<u8>,
    /// Whether entries are missing in it: their users and groups have names and no numbers, and what a name means is known on the
    /// machine only that wrote it.
    pub is_partial: bool,
}

/// Reads an ACL as acl_to_text(3) writes it, entries divided by commas or lines: `user::rwx,user:NAME:r-x:NUMBER,group::r-x,…`. `None`
/// when it is none.
pub fn parse(text: &[u8]) -> Option<Acl> {
    let text = str::from_utf8(text).ok()?;
    let mut entries = BTreeSet::new();
    let mut is_partial = false;
    let lines = text.split(['\n', ',']).map(|line| line.split('#').next().unwrap_or_default().trim());
    for line in lines.filter(|line| !line.is_empty()) {
        let mut fields = line.split(':').map(str::trim);
        let kind = fields.next()?;
        // Some write `mask:rwx`, others `mask::rwx`.
        let who = fields.next()?;
        let (who, permissions) = match fields.next() {
            Some(permissions) => (who, permissions),
            None => ("", who),
        };
        let permissions = permissions_of(permissions)?;
        let number = match (fields.next(), who) {
            (_, "") => Some(NOBODY),
            (Some(number), _) => Some(number.parse().ok()?),
            (None, name) => name.parse().ok(),
        };
        let tag = match (kind, who.is_empty()) {
            ("user" | "u", true) => USER_OBJ,
            ("user" | "u", false) => USER,
            ("group" | "g", true) => GROUP_OBJ,
            ("group" | "g", false) => GROUP,
            ("mask" | "m", true) => MASK,
            ("other" | "o", true) => OTHER,
            _ => return None,
        };
        match number {
            Some(number) => _ = entries.insert((tag, number, permissions)),
            None => is_partial = true,
        }
    }
    let has = |wanted| entries.iter().filter(|(tag, ..)| *tag == wanted).count() == 1;
    if ![USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(has) {
        return None;
    }
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, number, permissions) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&number.to_le_bytes());
    }
    Some(Acl { value, is_partial })
}

/// `r-x` as a number.
fn permissions_of(text: &str) -> Option<u16> {
    text.chars().try_fold(0, |permissions, c| match c {
        'r' => Some(permissions | 4),
        'w' => Some(permissions | 2),
        'x' => Some(permissions | 1),
        '-' => Some(permissions),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(acl: &Acl) -> Vec<(u16, u16, u32)> {
        let number = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        assert_eq!(acl.value[..4], [2, 0, 0, 0]);
        let entry = |entry: &[u8]| {
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            (number(entry), number(&entry[2..]), id)
        };
        acl.value[4..].chunks(8).map(entry).collect()
    }

    #[test]
    fn what_gnu_tar_and_bsdtar_write_is_what_the_kernel_takes() {
        let bsdtar = parse(b"user::rwx,user:lisa:r-x:502,group::r-x,mask::r-x,other::---").unwrap();
        let gnu =
            parse(b"user::rwx\nuser:502:r-x\t#effective:r-x\ngroup::r-x\nmask::r-x\nother::---\n").unwrap();
        assert_eq!((&bsdtar, bsdtar.is_partial), (&gnu, false));
        let expected = [(1, 7, NOBODY), (2, 5, 502), (4, 5, NOBODY), (16, 5, NOBODY), (32, 0, NOBODY)];
        assert_eq!(entries(&gnu), expected);
    }

    #[test]
    fn a_name_without_a_number_is_left_out_and_what_makes_no_sense_is_none() {
        let partial = parse(b"user::rw-,user:lisa:rwx,group::r--,mask::rwx,other::---").unwrap();
        assert!(partial.is_partial);
        assert_eq!(entries(&partial).len(), 4);
        for bad in [
            &b""[..],
            b"user::rwx,group::r-x",
            b"user::rwx,user::r--,group::r-x,other::---",
            b"user::rwx,group::r-x,other::q--",
            b"user::rwx,group::r-x,other:x:---",
            b"user::rwx,user:a:r--:x,group::r-x,other::---",
            b"everyone@:rwx::allow",
            b"\xff",
        ] {
            assert_eq!(parse(bad), None, "{}", bad.escape_ascii());
        }
    }
}
