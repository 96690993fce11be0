//! The note of a target that is followed: what a later run must know, besides the records of the versions themselves.

use crate::oci::Digest;
use serde::{Deserialize, Serialize};

/// The most versions that are remembered.
const MAX_VERSIONS: usize = 256;

/// The note of a target that is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Note {
    /// The digests of the versions that the link has named, the newest first.
    pub versions: Vec<Digest>,
    /// The version that `--before-publish` has rejected last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Judged>,
    /// The version for which `--on-change` has succeeded last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announced: Option<Judged>,
}

/// A version, and the command that was run for it. Another command is run again for the same version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// The digest of the version.
    pub version: Digest,
    /// The digest of the command, which may hold secrets.
    pub command: Digest,
}

impl Note {
    /// Notes that the link names a version now.
    pub fn published(&mut self, version: &Digest) {
        self.versions.retain(|other| other != version);
        self.versions.insert(0, version.clone());
        self.versions.truncate(MAX_VERSIONS);
    }

    /// Returns how many versions were published after this one; `None` if it never was.
    pub fn age(&self, version: &Digest) -> Option<usize> {
        self.versions.iter().position(|other| other == version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_published_again_is_the_newest() {
        let [one, two] = [b"1", b"2"].map(|text| Digest::of(text));
        let mut note = Note::default();
        for version in [&one, &two, &one] {
            note.published(version);
        }
        assert_eq!(note.versions, [one.clone(), two.clone()]);
        assert_eq!((note.age(&two), note.age(&Digest::of(b"3"))), (Some(1), None));
        let text = serde_json::to_string(&note).unwrap();
        assert_eq!(serde_json::from_str::<Note>(&text).unwrap(), note);
        assert_eq!(serde_json::from_str::<Note>("{}").unwrap(), Note::default());
    }
}
