//! The index of a layout, `index.json`: finds and sets the images by their names. It is the same for a layout in a
//! directory and one in an archive.
//!
//! Several entries may have the same name. If they are for different platforms, as `docker save` of several platforms and
//! old versions of buildah write them, they act as one index. Otherwise the name is ambiguous, which is an error.

use super::with_foreign_urls;
use crate::error::{Error, Result};
use crate::oci::{
    ARTIFACT_TYPE, CONTAINERD_NAME, DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, REF_NAME, Reference,
    SINCE, is_attachment_tag, media_type,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The name and the content of the file that marks a layout.
pub const MARKER: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
/// The name of the file that lists the images.
pub const INDEX_FILE: &str = "index.json";
/// The largest `index.json` that is read, in bytes: some 25 000 images.
pub const INDEX_LIMIT: u64 = 8 << 20;
/// The annotations that name an image, the shorter name first.
const NAMES: [&str; 2] = [REF_NAME, CONTAINERD_NAME];
/// The tag of an image that is written without one, as in a registry.
const DEFAULT_TAG: &str = "latest";

/// The name of an image in a layout: a tag, a digest, or neither, which means the only image.
#[derive(Clone, Debug, Default)]
pub struct ImageName {
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The entries of an index that are one image: entries with the same digest, or entries for different platforms, which
/// act as an index.
#[derive(Clone, Debug)]
pub struct ImageEntries {
    /// At least one entry.
    entries: Vec<Descriptor>,
}

impl ImageEntries {
    /// Returns `None` if the entries are more than one image, or none.
    fn new(entries: Vec<Descriptor>) -> Option<Self> {
        let (first, others) = entries.split_first()?;
        let is_same = others.iter().all(|other| other.digest == first.digest);
        let mut platforms = HashSet::new();
        let is_index = entries.iter().all(|entry| {
            let platform = entry.platform.as_ref().filter(|platform| platform.is_complete());
            platform.is_some_and(|platform| platforms.insert(platform.to_string()))
        });
        (is_same || is_index).then_some(Self { entries })
    }

    /// Returns the first entry.
    pub fn first(&self) -> &Descriptor {
        &self.entries[0]
    }

    /// Returns the digest of the image's index or manifest.
    pub fn digest(&self) -> Digest {
        self.index().map_or_else(|| self.first().digest.clone(), |index| index.descriptor().digest.clone())
    }

    /// Returns whether this is one of the entries.
    pub fn contains(&self, entry: &Descriptor) -> bool {
        self.entries.contains(entry)
    }

    /// Returns the image's index or manifest.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub fn root(&self, fetch: impl FnOnce(&Descriptor) -> Result<Document>) -> Result<Document> {
        if let Some(index) = self.index() {
            return Ok(index);
        }
        let document = fetch(self.first())?;
        Ok(Document::identified(&self.first().media_type, document.bytes().to_vec()))
    }

    /// Returns the index that the entries act as; `None` if they have the same digest.
    fn index(&self) -> Option<Document> {
        if self.entries.iter().all(|entry| entry.digest == self.first().digest) {
            return None;
        }
        let unnamed = |entry: &Descriptor| {
            let mut entry = entry.clone();
            entry.annotations.retain(|key, _| !NAMES.contains(&key.as_str()) && key != SINCE);
            entry
        };
        let entries = self.entries.iter().map(unnamed).collect();
        Some(Document::write(media_type::INDEX, &Index::new(entries, Default::default())))
    }
}

impl ImageName {
    /// A name from its parts.
    pub fn new(tag: Option<&str>, digest: Option<Digest>) -> Self {
        Self { tag: tag.map(str::to_owned), digest }
    }

    /// Finds the image with this name. `storage` is the name of the layout for errors. `unlisted` looks for a document with
    /// a digest that the index does not list.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if there is no such image, [`Usage`](crate::error::Kind::Usage) if there
    /// are several. Both errors list the names of the images.
    pub fn find(
        &self,
        index: &Index,
        storage: &str,
        unlisted: impl FnOnce(&Digest) -> Result<Option<Descriptor>>,
    ) -> Result<ImageEntries> {
        if let Some(digest) = &self.digest {
            if let Some(image) = find_by_digest(index, digest) {
                return Ok(image);
            }
            let entry = unlisted(digest)?.ok_or_else(|| self.not_found(index, storage))?;
            return Ok(ImageEntries { entries: vec![entry] });
        }
        if self.tag.is_none()
            && let Some(only) = only_image(index)
        {
            return Ok(only);
        }
        let name = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let entries: Vec<Descriptor> = entries_named(index, name).into_iter().cloned().collect();
        if entries.is_empty() {
            return Err(self.not_found(index, storage));
        }
        ImageEntries::new(entries.clone()).ok_or_else(|| ambiguous(&entries, name, storage))
    }

    /// Returns the tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    fn not_found(&self, index: &Index, storage: &str) -> Error {
        let image = match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("no image {digest}"),
            (None, tag) => format!("no image with the tag {:?}", tag.as_deref().unwrap_or(DEFAULT_TAG)),
        };
        let tags = enumerate(tags(index));
        let untagged = enumerate(untagged(index).into_iter().map(|entry| entry.digest.to_string()));
        let error = Error::not_found(format!("there is {image} in the {storage}"));
        let error = match &self.digest {
            Some(_) => error,
            None => error.with_missing_tag(self.tag.as_deref().unwrap_or(DEFAULT_TAG)),
        };
        error.with_hint(match (tags.is_empty(), untagged.is_empty()) {
            (true, true) => "it holds no image".to_owned(),
            (false, true) => format!("its tags are {tags}"),
            (true, false) => format!("its images have no tags: name one by @ and its digest, {untagged}"),
            (false, false) => format!("its tags are {tags}; without a tag it has {untagged}"),
        })
    }

    /// Lets the name mean this image. Another image that had the name keeps its other names. It is removed from the index
    /// if it has none. If the name means this image already, its entry is kept, with its other names and annotations.
    pub fn set(&self, index: &mut Index, root: &Document) {
        let tag = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let digest = &root.descriptor().digest;
        if keep_entry(index, tag, root.descriptor()) {
            return;
        }
        let before = index.manifests.iter().filter(|entry| names(entry).any(|name| name == tag));
        let was_unambiguous = ImageEntries::new(before.cloned().collect()).is_some();
        index.manifests.retain_mut(|entry| {
            if names(entry).next().is_none() {
                // A manifest that gets a tag need not be listed as a referrer too.
                return entry.digest != *digest;
            }
            if names(entry).all(|name| name != tag) {
                return true;
            }
            // Each of several images with this name keeps the name that no other image has.
            entry.annotations.retain(|key, name| !NAMES.contains(&key.as_str()) || name != tag);
            !was_unambiguous && names(entry).next().is_some()
        });
        let mut entry = root.descriptor().clone();
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        index.manifests.push(entry);
    }
}

/// Returns whether the only entry with this name is one for `root`, and updates the annotation of incomplete copies then.
/// Other annotations of the entry may be another program's.
fn keep_entry(index: &mut Index, name: &str, root: &Descriptor) -> bool {
    let mut named = index.manifests.iter_mut().filter(|entry| names(entry).any(|other| other == name));
    let (Some(entry), None) = (named.next(), named.next()) else { return false };
    let is_same =
        entry.digest == root.digest && entry.size == root.size && entry.media_type == root.media_type;
    if is_same {
        entry.annotations.remove(SINCE);
        entry.annotations.extend(root.annotations.clone());
    }
    is_same
}

/// Finds the image with this digest: an entry, or entries that act as an index with this digest.
fn find_by_digest(index: &Index, digest: &Digest) -> Option<ImageEntries> {
    if let Some(entry) = index.manifests.iter().find(|entry| entry.digest == *digest) {
        return Some(ImageEntries { entries: vec![entry.clone()] });
    }
    let has_digest =
        |image: &ImageEntries| image.index().is_some_and(|index| index.descriptor().digest == *digest);
    let named = tags(index)
        .into_iter()
        .filter_map(|tag| ImageEntries::new(entries_named(index, &tag).into_iter().cloned().collect()));
    only_image(index).into_iter().chain(named).find(has_digest)
}

/// Returns the only image of an index; `None` if there are several or none.
fn only_image(index: &Index) -> Option<ImageEntries> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|entry| is_image(entry)).collect();
    let (first, others) = images.split_first()?;
    let is_same = |entry: &&Descriptor| names(entry).eq(names(first)) || entry.digest == first.digest;
    others.iter().all(is_same).then(|| ImageEntries::new(images.into_iter().cloned().collect())).flatten()
}

/// Returns the entries with this name, spelled in the same way. If there are none, returns the entries with a name that
/// means the same: `data:1` means `docker.io/library/data:1`.
pub fn entries_named<'a>(index: &'a Index, name: &str) -> Vec<&'a Descriptor> {
    let entries = || index.manifests.iter().filter(|entry| !is_referrer(entry));
    let exact: Vec<_> = entries().filter(|entry| names(entry).any(|other| other == name)).collect();
    let Some(full) = Some(name).filter(|_| exact.is_empty()).and_then(full_name) else {
        return exact;
    };
    let has_name = |entry: &&Descriptor| {
        let mut others = names(entry).filter(|other| other.contains('/'));
        others.any(|other| full_name(other).as_deref() == Some(&full))
    };
    entries().filter(has_name).collect()
}

fn full_name(name: &str) -> Option<String> {
    name.parse::<Reference>().ok().map(|reference| reference.to_string())
}

/// The error for a name of several images.
fn ambiguous(entries: &[Descriptor], name: &str, storage: &str) -> Error {
    let unique_name = |entry: &Descriptor| match names(entry).find(|other| *other != name) {
        Some(other) => format!("{other} ({})", entry.digest),
        None => format!("@{}", entry.digest),
    };
    Error::usage(format!("{name:?} is the name of {} images in the {storage}", entries.len())).with_hint(
        format!("name one of them by what only it has: {}", enumerate(entries.iter().map(unique_name))),
    )
}

/// Joins words for a message, at most as many as fit on a screen.
fn enumerate(words: impl IntoIterator<Item = String>) -> String {
    const LIMIT: usize = 32;
    let words: Vec<String> = words.into_iter().collect();
    if words.len() > LIMIT {
        format!("{} and {} more", words[..LIMIT].join(", "), words.len() - LIMIT)
    } else {
        words.join(", ")
    }
}

/// Returns the tags of all images, sorted by their bytes. A tag of several images is replaced by their full names.
pub fn tags(index: &Index) -> Vec<String> {
    let mut by_tag: BTreeMap<&str, Vec<&Descriptor>> = BTreeMap::new();
    for entry in &index.manifests {
        if let Some(tag) = names(entry).next() {
            by_tag.entry(tag).or_default().push(entry);
        }
    }
    let mut tags = BTreeSet::new();
    for (tag, entries) in by_tag {
        match ImageEntries::new(entries.iter().copied().cloned().collect()) {
            Some(_) => _ = tags.insert(tag),
            None => tags.extend(entries.into_iter().filter_map(|entry| names(entry).last())),
        }
    }
    tags.into_iter().map(str::to_owned).collect()
}

/// Returns the document with this tag; `None` if the index has no such tag.
///
/// # Errors
/// [`Usage`](crate::error::Kind::Usage) if several images have the tag; those of `fetch`.
pub fn tagged(
    index: &Index,
    tag: &str,
    storage: &str,
    fetch: impl FnOnce(&Descriptor) -> Result<Document>,
) -> Result<Option<Document>> {
    let entries: Vec<Descriptor> = entries_named(index, tag).into_iter().cloned().collect();
    if entries.is_empty() {
        return Ok(None);
    }
    let image = ImageEntries::new(entries.clone()).ok_or_else(|| ambiguous(&entries, tag, storage))?;
    image.root(fetch).map(Some)
}

/// Returns the digest of the document with this tag; `None` if there is none, or there are several.
pub fn tagged_digest(index: &Index, tag: &str) -> Option<Digest> {
    match entries_named(index, tag).as_slice() {
        [one] => Some(one.digest.clone()),
        _ => None,
    }
}

/// Returns the entries of images that have no name.
pub fn untagged(index: &Index) -> Vec<Descriptor> {
    let is_unnamed = |entry: &&Descriptor| is_image(entry) && names(entry).next().is_none();
    index.manifests.iter().filter(is_unnamed).cloned().collect()
}

/// Returns whether two lists of entries have the same images with the same names, whatever else they have.
pub fn has_same_images(before: &[Descriptor], after: &[Descriptor]) -> bool {
    fn images(entries: &[Descriptor]) -> Vec<(&Digest, Vec<&str>)> {
        let images = entries.iter().filter(|entry| is_image(entry));
        images.map(|entry| (&entry.digest, names(entry).collect())).collect()
    }
    images(before) == images(after)
}

/// Returns whether an entry is an image, and neither a referrer nor an attachment.
pub fn is_image(entry: &Descriptor) -> bool {
    !is_referrer(entry) && !names(entry).any(is_attachment_tag)
}

/// Returns the names of an entry, the shortest first.
pub fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    NAMES.iter().filter_map(|key| entry.annotations.get(*key).map(String::as_str))
}

/// The error for a blob that does not exist. `image` is the one that is read, if it is known: a copy made with
/// `--since` lacks blobs on purpose.
pub fn missing_blob(blob: &Descriptor, storage: &str, image: Option<&ImageEntries>) -> Error {
    let error = Error::not_found(format!("the {storage} has no blob {}", blob.digest));
    match image.and_then(|image| image.first().annotations.get(SINCE)) {
        Some(bases) => error.with_hint(format!(
            "it holds only what {bases} lacks: copy that image first to where this one shall be"
        )),
        None => with_foreign_urls(blob, error),
    }
}

/// Returns the shortest name of an entry, which is usually its tag.
pub fn ref_name(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

/// Parses an `index.json`; `what` is its name for errors.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if it is not an index, or larger than [`INDEX_LIMIT`].
pub fn parse_index(bytes: Vec<u8>, what: &str) -> Result<Index> {
    if bytes.len() as u64 > INDEX_LIMIT {
        return Err(Error::integrity(format!("{what} is larger than any index")));
    }
    Index::parse(&Document::new(media_type::INDEX, bytes))
        .map_err(|error| Error::integrity(format!("{what} is damaged")).with_source(error))
}

/// Returns the descriptor of a document that `index.json` does not list, such as one of a nested index; `None` if the
/// bytes are not a document.
pub fn describe(digest: &Digest, bytes: &[u8]) -> Option<Descriptor> {
    let size = bytes.len() as u64;
    if size > DOCUMENT_LIMIT {
        return None;
    }
    let document = Document::identified("", bytes.to_vec());
    let media_type = document.descriptor().media_type.as_str();
    media_type::is_document(media_type).then(|| Descriptor::new(media_type, digest.clone(), size))
}

/// Returns whether an entry has no name and is listed only because it refers to another manifest.
pub fn is_referrer(entry: &Descriptor) -> bool {
    names(entry).next().is_none() && entry.extra.contains_key(ARTIFACT_TYPE)
}
