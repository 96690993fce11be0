//! The images of a layout by their names: what `index.json` lists, be the layout a directory or an archive.

use super::say_urls;
use crate::error::{Error, Result};
use crate::oci::{
    ARTIFACT_TYPE, CONTAINERD_NAME, DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, REF_NAME, Reference,
    SINCE, attachment_tags, is_attachment_tag, media_type,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The file that makes a layout, and all that stands in it.
pub const MARKER: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
/// The file that lists the images.
pub const INDEX_FILE: &str = "index.json";
/// The largest `index.json` that is read, in bytes: some 25 000 images.
pub const INDEX_LIMIT: u64 = 8 << 20;
/// The annotations that name an image, the shorter name first.
const NAMES: [&str; 2] = [REF_NAME, CONTAINERD_NAME];
/// The tag of an image that is written without one, as in a registry.
const DEFAULT_TAG: &str = "latest";

/// What an image is called: a tag, a digest, or nothing, which means the only image that there is.
#[derive(Clone, Debug, Default)]
pub struct Name {
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The entries of an index that a name stands for: one or more of the same digest, or one for each of several
/// platforms, which together act as one index.
#[derive(Clone, Debug)]
pub struct Found {
    /// Never empty.
    entries: Vec<Descriptor>,
}

impl Found {
    /// The entries if they are one image: the same manifest, or manifests for platforms of which no two are the same.
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

    /// The first of the entries.
    pub fn first(&self) -> &Descriptor {
        &self.entries[0]
    }

    /// The digest of the index or the manifest that the name stands for.
    pub fn digest(&self) -> Digest {
        self.index().map_or_else(|| self.first().digest.clone(), |index| index.descriptor().digest.clone())
    }

    /// Whether this is one of the entries.
    pub fn has(&self, entry: &Descriptor) -> bool {
        self.entries.contains(entry)
    }

    /// The index or the manifest that the name stands for.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub fn root(&self, fetch: impl FnOnce(&Descriptor) -> Result<Document>) -> Result<Document> {
        match self.index() {
            Some(index) => Ok(index),
            None => {
                let document = fetch(self.first())?;
                Ok(Document::identified(&self.first().media_type, document.bytes().to_vec()))
            }
        }
    }

    /// The index that the entries act as; `None` where they are the same manifest.
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

impl Name {
    /// A name from its parts.
    pub fn new(tag: Option<&str>, digest: Option<Digest>) -> Self {
        Self { tag: tag.map(str::to_owned), digest }
    }

    /// The image of this name; `unlisted` looks for a digest that the index does not list.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when there is none, [`Usage`](crate::error::Kind::Usage) when there are
    /// several, both with the names that there are.
    pub fn find(
        &self,
        index: &Index,
        place: &str,
        unlisted: impl FnOnce(&Digest) -> Result<Option<Descriptor>>,
    ) -> Result<Found> {
        if let Some(digest) = &self.digest {
            return match by_digest(index, digest) {
                Some(found) => Ok(found),
                None => unlisted(digest)?
                    .map(|entry| Found { entries: vec![entry] })
                    .ok_or_else(|| self.absent(index, place)),
            };
        }
        if self.tag.is_none()
            && let Some(only) = only_image(index)
        {
            return Ok(only);
        }
        let wanted = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let called: Vec<Descriptor> = called(index, wanted).into_iter().cloned().collect();
        match called.is_empty() {
            true => Err(self.absent(index, place)),
            false => Found::new(called.clone()).ok_or_else(|| ambiguous(&called, wanted, place)),
        }
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
        let tags = listed(tags(index));
        let untagged = listed(untagged(index).into_iter().map(|entry| entry.digest.to_string()));
        Error::not_found(format!("there is {wanted} in the {place}")).with_hint(
            match (tags.is_empty(), untagged.is_empty()) {
                (true, true) => "it holds no image".to_owned(),
                (false, true) => format!("its tags are {tags}"),
                (true, false) => format!("its images have no tags: name one by @ and its digest, {untagged}"),
                (false, false) => format!("its tags are {tags}; without a tag it has {untagged}"),
            },
        )
    }

    /// Lets the name mean this image from now on.
    pub fn enter(&self, index: &mut Index, root: &Document) {
        let tag = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let digest = &root.descriptor().digest;
        let before = index.manifests.iter().filter(|entry| names(entry).any(|name| name == tag));
        let was_one = Found::new(before.cloned().collect()).is_some();
        index.manifests.retain_mut(|entry| {
            if names(entry).next().is_none() {
                // One that is listed by its tag need not be listed as a referrer too.
                return entry.digest != *digest;
            }
            if names(entry).all(|name| name != tag) {
                return true;
            }
            // Several images had this name: each keeps the name that only it has.
            entry.annotations.retain(|key, name| !NAMES.contains(&key.as_str()) || name != tag);
            !was_one && names(entry).next().is_some()
        });
        let mut entry = root.descriptor().clone();
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        index.manifests.push(entry);
    }
}

/// The image with this digest: an entry, or the index that several entries of one name act as.
fn by_digest(index: &Index, digest: &Digest) -> Option<Found> {
    if let Some(entry) = index.manifests.iter().find(|entry| entry.digest == *digest) {
        return Some(Found { entries: vec![entry.clone()] });
    }
    let is_it = |found: &Found| found.index().is_some_and(|index| index.descriptor().digest == *digest);
    let named = tags(index)
        .into_iter()
        .filter_map(|tag| Found::new(called(index, &tag).into_iter().cloned().collect()));
    only_image(index).into_iter().chain(named).find(is_it)
}

/// The only image of an index, where there is only one.
fn only_image(index: &Index) -> Option<Found> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|entry| is_image(entry)).collect();
    let (first, others) = images.split_first()?;
    let is_same_name = |entry: &&Descriptor| names(entry).eq(names(first));
    match others.iter().all(|entry| is_same_name(entry) || entry.digest == first.digest) {
        true => Found::new(images.into_iter().cloned().collect()),
        false => None,
    }
}

/// The entries that are called so: by a name as it stands there, else by the name of an image that means the same, as
/// `data:1` means `docker.io/library/data:1`.
pub fn called<'a>(index: &'a Index, wanted: &str) -> Vec<&'a Descriptor> {
    let entries = || index.manifests.iter().filter(|entry| !is_referrer(entry));
    let exactly: Vec<_> = entries().filter(|entry| names(entry).any(|name| name == wanted)).collect();
    let Some(wanted) = Some(wanted).filter(|_| exactly.is_empty()).and_then(full_name) else {
        return exactly;
    };
    let is_called = |entry: &&Descriptor| {
        let mut full = names(entry).filter(|name| name.contains('/'));
        full.any(|name| full_name(name).as_deref() == Some(&wanted))
    };
    entries().filter(is_called).collect()
}

fn full_name(name: &str) -> Option<String> {
    name.parse::<Reference>().ok().map(|reference| reference.to_string())
}

/// The error for a name that several images have.
fn ambiguous(called: &[Descriptor], wanted: &str, place: &str) -> Error {
    let name = |entry: &Descriptor| match names(entry).find(|name| *name != wanted) {
        Some(name) => format!("{name} ({})", entry.digest),
        None => format!("@{}", entry.digest),
    };
    Error::usage(format!("{wanted:?} is the name of {} images in the {place}", called.len()))
        .with_hint(format!("name one of them by what only it has: {}", listed(called.iter().map(name))))
}

/// What is listed in a message: not more than a screen has room for.
fn listed(words: impl IntoIterator<Item = String>) -> String {
    const MOST: usize = 32;
    let words: Vec<String> = words.into_iter().collect();
    match words.len() > MOST {
        true => format!("{} and {} more", words[..MOST].join(", "), words.len() - MOST),
        false => words.join(", "),
    }
}

/// The tags of all images, in the order of their bytes. Where a tag is that of several images, their full names take its
/// place.
pub fn tags(index: &Index) -> Vec<String> {
    let mut by_tag: BTreeMap<&str, Vec<&Descriptor>> = BTreeMap::new();
    for entry in &index.manifests {
        if let Some(tag) = names(entry).next() {
            by_tag.entry(tag).or_default().push(entry);
        }
    }
    let mut tags = BTreeSet::new();
    for (tag, entries) in by_tag {
        match Found::new(entries.iter().copied().cloned().collect()) {
            Some(_) => _ = tags.insert(tag),
            None => tags.extend(entries.into_iter().filter_map(|entry| names(entry).last())),
        }
    }
    tags.into_iter().map(str::to_owned).collect()
}

/// The documents under the tags of attachments to the manifest or the index with this digest, with their tags.
pub fn attachments(
    index: &Index,
    subject: &Digest,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Vec<(String, Document)>> {
    let mut found = Vec::new();
    for tag in attachment_tags(subject) {
        if let Some(entry) = index.manifests.iter().find(|entry| ref_name(entry) == Some(&tag)) {
            found.push((tag, fetch(entry)?));
        }
    }
    Ok(found)
}

/// The images without a name.
pub fn untagged(index: &Index) -> Vec<Descriptor> {
    let is_unnamed = |entry: &&Descriptor| is_image(entry) && names(entry).next().is_none();
    index.manifests.iter().filter(is_unnamed).cloned().collect()
}

/// Whether an entry is an image of its own, and not what refers to another or is attached to it.
fn is_image(entry: &Descriptor) -> bool {
    !is_referrer(entry) && !names(entry).any(is_attachment_tag)
}

/// What an entry of the index is called, the shortest name first.
fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    NAMES.iter().filter_map(|key| entry.annotations.get(*key).map(String::as_str))
}

/// The error for a blob that is not where it should be, which may be meant so: `image` is what it belongs to.
pub fn missing(blob: &Descriptor, place: &str, image: Option<&Found>) -> Error {
    let error = Error::not_found(format!("the {place} has no blob {}", blob.digest));
    match image.and_then(|image| image.first().annotations.get(SINCE)) {
        Some(bases) => error.with_hint(format!(
            "it holds only what {bases} lacks: copy that image first to where this one shall be"
        )),
        None => say_urls(blob, error),
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
        .map_err(|error| Error::integrity(format!("{what} is damaged")).with_source(error))
}

/// The descriptor of a document that an index of an index names: its bytes are there, but not in `index.json`.
pub fn describe(digest: &Digest, bytes: &[u8]) -> Option<Descriptor> {
    let size = bytes.len() as u64;
    if size > DOCUMENT_LIMIT {
        return None;
    }
    let document = Document::identified("", bytes.to_vec());
    let kind = document.descriptor().media_type.as_str();
    media_type::is_document(kind).then(|| Descriptor::new(kind, digest.clone(), size))
}

/// Tells whether an entry of an index has no tag and is listed only because it refers to another manifest.
pub fn is_referrer(entry: &Descriptor) -> bool {
    names(entry).next().is_none() && entry.extra.contains_key(ARTIFACT_TYPE)
}
