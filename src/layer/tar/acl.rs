//! POSIX ACLs as text, as GNU tar and bsdtar write them into PAX records (`SCHILY.acl.access`, `SCHILY.acl.default`),
//! and as the extended attributes that Linux has for them.

use std::collections::BTreeSet;

/// The names of the records, each with the attribute of the same meaning.
pub const RECORDS: [(&[u8], &[u8]); 2] = [
    (b"SCHILY.acl.access", b"system.posix_acl_access"),
    (b"SCHILY.acl.default", b"system.posix_acl_default"),
];

/// The tags of entries, in the order that the kernel requires (`linux/posix_acl.h`).
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The id of entries without a particular user or group.
const NO_ID: u32 = u32::MAX;

/// An ACL that was parsed from a record.
#[derive(Debug, PartialEq, Eq)]
pub struct Acl {
    /// The value of the attribute.
    pub value: Vec<u8>,
    /// True if entries were left out because their users or groups have names and no ids. Only the machine that wrote the
    /// archive knows the ids.
    pub is_partial: bool,
}

/// Parses an ACL in the format of acl_to_text(3), with entries separated by commas or newlines:
/// `user::rwx,user:NAME:r-x:ID,group::r-x,…`. Returns `None` if it is invalid.
pub fn parse(text: &[u8]) -> Option<Acl> {
    let text = str::from_utf8(text).ok()?;
    let mut entries = BTreeSet::new();
    let mut is_partial = false;
    let lines = text.split(['\n', ',']).map(|line| line.split('#').next().unwrap_or_default().trim());
    for line in lines.filter(|line| !line.is_empty()) {
        let mut fields = line.split(':').map(str::trim);
        let kind = fields.next()?;
        // Some programs write `mask:rwx`, others `mask::rwx`.
        let name = fields.next()?;
        let (name, permissions) = match fields.next() {
            Some(permissions) => (name, permissions),
            None => ("", name),
        };
        let permissions = permissions_of(permissions)?;
        let id = match (fields.next(), name) {
            (_, "") => Some(NO_ID),
            (Some(id), _) => Some(id.parse().ok()?),
            (None, name) => name.parse().ok(),
        };
        let tag = match (kind, name.is_empty()) {
            ("user" | "u", true) => USER_OBJ,
            ("user" | "u", false) => USER,
            ("group" | "g", true) => GROUP_OBJ,
            ("group" | "g", false) => GROUP,
            ("mask" | "m", true) => MASK,
            ("other" | "o", true) => OTHER,
            _ => return None,
        };
        match id {
            Some(id) => _ = entries.insert((tag, id, permissions)),
            None => is_partial = true,
        }
    }
    let has = |wanted| entries.iter().filter(|(tag, ..)| *tag == wanted).count() == 1;
    if ![USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(has) {
        return None;
    }
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Some(Acl { value, is_partial })
}

/// Parses permissions such as `r-x`.
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
    fn acls_of_gnu_tar_and_bsdtar_become_what_the_kernel_takes() {
        let bsdtar = parse(b"user::rwx,user:lisa:r-x:502,group::r-x,mask::r-x,other::---").unwrap();
        let gnu =
            parse(b"user::rwx\nuser:502:r-x\t#effective:r-x\ngroup::r-x\nmask::r-x\nother::---\n").unwrap();
        assert_eq!((&bsdtar, bsdtar.is_partial), (&gnu, false));
        let expected = [(1, 7, NO_ID), (2, 5, 502), (4, 5, NO_ID), (16, 5, NO_ID), (32, 0, NO_ID)];
        assert_eq!(entries(&gnu), expected);
    }

    #[test]
    fn an_entry_with_a_name_and_no_id_is_left_out_and_an_invalid_acl_is_rejected() {
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
