//! Names of volumes. Docker does not validate them: `../../etc` arrives unchanged, and would become a path.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The maximum length of a directory's name.
const LIMIT: usize = 255;

/// The file in the storage directory. Its name is not available to volumes.
pub(super) const DEFINITIONS: &str = "volumes.json";

/// The name of a volume and of its directory. It cannot leave the storage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VolumeName(String);

impl VolumeName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let begins_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let is_ours = text == DEFINITIONS || text.strip_prefix(DEFINITIONS) == Some(".new");
        if begins_well && text.len() <= LIMIT && text.bytes().all(is_word) && !is_ours {
            Ok(Self(text.to_owned()))
        } else {
            let shown: String = text.chars().take(64).collect();
            Err(Error::usage(format!("{shown:?} cannot be the name of a volume"))
                    .with_hint("a name is letters, digits, '_', '.' and '-', begins with a letter or a digit, and has at most 255 bytes"))
        }
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
