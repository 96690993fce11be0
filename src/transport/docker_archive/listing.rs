//! `manifest.json`: the images in an archive of `docker save` (moby, image/spec/v1.2.md, "Combined Image JSON").

use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, Members, Reference, Unknown};
use crate::transport::archive::Archive;
use serde::{Deserialize, Deserializer, Serialize};

/// The file that lists the images.
pub const LIST_FILE: &str = "manifest.json";
/// The largest list that is read, in bytes: some thousand images.
const LIST_LIMIT: u64 = 4 << 20;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// The member that holds the configuration.
    pub config: String,
    /// The names that the image gets when it is loaded.
    pub repo_tags: Vec<String>,
    /// The members that hold the layers, lowest first.
    pub layers: Vec<String>,
    /// Whatever else stood there.
    #[serde(flatten)]
    pub extra: Unknown,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        Ok(Self {
            config: members.required("Config")?,
            repo_tags: members.or_default("RepoTags")?,
            layers: members.or_default("Layers")?,
            extra: members.rest()?,
        })
    }
}

impl Entry {
    /// Whether this is one of the image's names, however it is spelled: `data:1` is `docker.io/library/data:1`.
    pub fn is_called(&self, reference: &Reference) -> bool {
        self.repo_tags.iter().any(|tag| is_same(tag, reference))
    }

    /// Whether the other entry is the same image, whatever it is called.
    pub fn is_same(&self, other: &Self) -> bool {
        self.config == other.config && self.layers == other.layers
    }

    /// Takes a name away from the image.
    pub fn forget(&mut self, reference: &Reference) {
        self.repo_tags.retain(|tag| !is_same(tag, reference));
    }
}

fn is_same(tag: &str, reference: &Reference) -> bool {
    tag.parse::<Reference>().is_ok_and(|tag| tag == *reference || tag.to_string() == reference.to_string())
}

/// The images in an archive.
///
/// # Errors
/// One of the kind `otherwise` when the archive is of another sort.
pub fn read(archive: &Archive, otherwise: Kind) -> Result<Vec<Entry>> {
    let path = archive.path().display();
    let Some(bytes) = archive.read(LIST_FILE, LIST_LIMIT)? else {
        let what = format!("{path} is no archive of docker save: it has no file {LIST_FILE}");
        return Err(Error::new(otherwise, what).with_hint(match archive.has("oci-layout") {
            true => format!("it holds an image layout: name it oci-archive:{path}"),
            false => "name an archive that docker, podman, skopeo or volio wrote".to_owned(),
        }));
    };
    serde_json::from_slice(&bytes).map_err(|error| archive.damaged(&format!("{LIST_FILE}: {error}")))
}

/// What the images are called, as a hint: by their names, or by their digests where they have none, which `digest` finds
/// out.
pub fn images(entries: &[Entry], digest: impl Fn(&Entry) -> Option<Digest>) -> String {
    let called = |entry: &Entry| match entry.repo_tags.is_empty() {
        true => digest(entry).map(|digest| format!("@{digest}")).into_iter().collect(),
        false => entry.repo_tags.clone(),
    };
    let images: Vec<String> = entries.iter().flat_map(called).collect();
    match images.is_empty() {
        true => "it holds no image".to_owned(),
        false => format!("its images are {}", images.join(", ")),
    }
}
