//! `manifest.json`, which lists the images in an archive of `docker save` (moby, image/spec/v1.2.md, "Combined Image
//! JSON").

use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, Members, Reference, Unknown};
use crate::transport::archive::TarArchive;
use serde::{Deserialize, Deserializer, Serialize};

/// The name of the file.
pub const FILE: &str = "manifest.json";
/// The largest file that is read, in bytes: some thousand images.
const SIZE_LIMIT: u64 = 4 << 20;

/// An image in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManifestItem {
    /// The name of the member with the config.
    pub config: String,
    /// The names that the image gets when it is loaded.
    pub repo_tags: Vec<String>,
    /// The names of the members with the layers, the lowest first.
    pub layers: Vec<String>,
    /// The members of the JSON object that volio does not know.
    #[serde(flatten)]
    pub extra: Unknown,
}

impl<'de> Deserialize<'de> for ManifestItem {
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

impl ManifestItem {
    /// Returns whether this is one of the image's names, in any spelling: `data:1` is `docker.io/library/data:1`.
    pub fn has_name(&self, reference: &Reference) -> bool {
        self.repo_tags.iter().any(|tag| is_same_name(tag, reference))
    }

    /// Returns whether both items are the same image. Their names may differ.
    pub fn is_same_image(&self, other: &Self) -> bool {
        self.config == other.config && self.layers == other.layers
    }

    /// Removes a name of the image.
    pub fn remove_name(&mut self, reference: &Reference) {
        self.repo_tags.retain(|tag| !is_same_name(tag, reference));
    }
}

fn is_same_name(tag: &str, reference: &Reference) -> bool {
    tag.parse::<Reference>().is_ok_and(|tag| tag == *reference || tag.to_string() == reference.to_string())
}

/// Reads the images in an archive.
///
/// # Errors
/// An error of this kind if the archive has no such file, [`Integrity`](Kind::Integrity) if it is malformed.
pub fn read(archive: &TarArchive, missing: Kind) -> Result<Vec<ManifestItem>> {
    let path = archive.path().display();
    let Some(bytes) = archive.read(FILE, SIZE_LIMIT)? else {
        let hint = if archive.has("oci-layout") {
            format!("it holds an image layout: name it oci-archive:{path}")
        } else {
            "name an archive that docker, podman, skopeo or volio wrote".to_owned()
        };
        let what = format!("{path} is not an archive of docker save: it has no file {FILE}");
        return Err(Error::new(missing, what).with_hint(hint));
    };
    serde_json::from_slice(&bytes).map_err(|error| archive.damaged(&format!("{FILE}: {error}")))
}

/// Returns a hint with the names of the images, or with the digests of images without a name, which `digest` determines.
pub fn names_hint(items: &[ManifestItem], digest: impl Fn(&ManifestItem) -> Option<Digest>) -> String {
    let names = |item: &ManifestItem| {
        if item.repo_tags.is_empty() {
            digest(item).map(|digest| format!("@{digest}")).into_iter().collect()
        } else {
            item.repo_tags.clone()
        }
    };
    let images: Vec<String> = items.iter().flat_map(names).collect();
    if images.is_empty() {
        return "it holds no image".to_owned();
    }
    format!("its images are {}", images.join(", "))
}
