//! The images of a layout by their names: what `index.json` lists, be the layout a directory or an archive.

use crate::error::{Error, Result};
use crate::oci::{
    ARTIFACT_TYPE, DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, REF_NAME, SINCE, media_type,
};
use std::collections::BTreeSet;

/// The file that makes a layout, and all that stands in it.
pub const MARKER: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
/// The file that lists the images.
pub const INDEX_FILE: &str = "index.json";
/// The largest `index.json` that is read, in bytes: some 100 000 images.
pub const INDEX_LIMIT: u64 = 32 << 20;
/// The tag of an image that is written without one, as in a registry.
const DEFAULT_TAG: &str = "latest";

/// What an image is called: a tag, a digest, or nothing, which means the only image that there is.
#[derive(Clone, Debug, Default)]
pub struct Name {
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Name {
    /// A name from its parts.
    pub fn new(tag: Option<&str>, digest: Option<Digest>) -> Self {
        Self { tag: tag.map(str::to_owned), digest }
    }

    /// The image of this name; `unlisted` looks for a digest that the index does not list.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when there is none, with the names that there are.
    pub fn find(
        &self,
        index: &Index,
        place: &str,
        unlisted: impl FnOnce(&Digest) -> Result<Option<Descriptor>>,
    ) -> Result<Descriptor> {
        let images: Vec<_> = index.manifests.iter().filter(|entry| !is_referrer(entry)).collect();
        let found = match (&self.digest, &self.tag, images.as_slice()) {
            (Some(digest), ..) => match index.manifests.iter().find(|entry| entry.digest == *digest) {
                Some(entry) => Some(entry.clone()),
                None => unlisted(digest)?,
            },
            (None, None, [only]) => Some((*only).clone()),
            (None, tag, entries) => {
                let wanted = tag.as_deref().unwrap_or(DEFAULT_TAG);
                entries.iter().find(|entry| ref_name(entry) == Some(wanted)).copied().cloned()
            }
        };
        found.ok_or_else(|| self.absent(index, place))
    }

    /// The tag, where one is given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one is given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    fn absent(&self, index: &Index, place: &str) -> Error {
        let wanted = match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("no image {digest}"),
            (None, tag) => format!("no image with the tag {:?}", tag.as_deref().unwrap_or(DEFAULT_TAG)),
        };
        let tags: Vec<&str> = index.manifests.iter().filter_map(ref_name).collect();
        Error::not_found(format!("there is {wanted} in the {place}")).hint(match tags.is_empty() {
            true => "it holds no tagged image".to_owned(),
            false => format!("its tags are {}", tags.join(", ")),
        })
    }

    /// Lets the name mean this image from now on.
    pub fn enter(&self, index: &mut Index, root: &Document) {
        let tag = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let digest = &root.descriptor().digest;
        index.manifests.retain(|entry| match ref_name(entry) {
            Some(name) => name != tag,
            // One that is listed by its tag need not be listed as a referrer too.
            None => entry.digest != *digest,
        });
        let mut entry = root.descriptor().clone();
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        index.manifests.push(entry);
    }
}

/// The tags of all images, in the order of their bytes.
pub fn tags(index: &Index) -> Vec<String> {
    let tags: BTreeSet<&str> = index.manifests.iter().filter_map(ref_name).collect();
    tags.into_iter().map(str::to_owned).collect()
}

/// The error for a blob that is not where it should be, which may be meant so: `entry` lists the image.
pub fn missing(digest: &Digest, place: &str, entry: Option<&Descriptor>) -> Error {
    let error = Error::not_found(format!("the {place} has no blob {digest}"));
    match entry.and_then(|entry| entry.annotations.get(SINCE)) {
        Some(bases) => error.hint(format!(
            "it holds only what {bases} lacks: copy that image first to where this one shall be"
        )),
        None => error,
    }
}

/// What an entry of the index is called.
pub fn ref_name(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

/// Reads `index.json`.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when it is none.
pub fn parse_index(bytes: Vec<u8>, what: &str) -> Result<Index> {
    if bytes.len() as u64 > INDEX_LIMIT {
        return Err(Error::integrity(format!("{what} is larger than any index")));
    }
    Index::parse(&Document::new(media_type::INDEX, bytes))
        .map_err(|error| Error::integrity(format!("{what} is damaged")).because(error))
}

/// The descriptor of a document that an index of an index names: its bytes are there, but not in `index.json`.
pub fn describe(digest: &Digest, bytes: &[u8]) -> Option<Descriptor> {
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let kind = document.get("mediaType")?.as_str().filter(|kind| media_type::is_document(kind))?;
    let size = bytes.len() as u64;
    (size <= DOCUMENT_LIMIT).then(|| Descriptor::new(kind, digest.clone(), size))
}

/// Tells whether an entry of an index has no tag and is listed only because it refers to another manifest.
pub fn is_referrer(entry: &Descriptor) -> bool {
    ref_name(entry).is_none() && entry.extra.contains_key(ARTIFACT_TYPE)
}
