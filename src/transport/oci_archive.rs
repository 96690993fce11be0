//! An OCI image layout in one tar file, as `skopeo`, `podman save --format oci-archive` and buildkit write it.
//!
//! It is read without unpacking it. It is written to a temporary file beside it, which replaces it when the image gets its
//! name. Until then, and after a writer was killed, the archive is unchanged.

use super::archive::{ArchiveWriter, Closing, Contents, Section, TarArchive};
use super::gc::collect_reachable;
use super::layout_index::{self, INDEX_FILE, INDEX_LIMIT, ImageEntries, ImageName, MARKER};
use super::{Destination, Source, moved_name, referrers};
use crate::error::{Error, Kind, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, media_type};
use crate::stream::{Body, Unverified, Written};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Other lists of images, which `docker save` writes too. They are removed when the images change: programs that read them
/// instead of the index would not see that.
const OTHER_LISTS: [&str; 2] = ["manifest.json", "repositories"];

/// A reader of an archive, bound to the name of an image in it.
pub struct OciArchive {
    archive: TarArchive,
    name: ImageName,
}

impl OciArchive {
    /// Opens an existing archive.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if the file does not exist or does not contain a layout.
    pub fn open(path: &Path, tag: Option<&str>, digest: Option<Digest>) -> Result<Self> {
        let archive = TarArchive::open(path)?;
        check_layout(&archive, Kind::NotFound)?;
        Ok(Self { archive, name: ImageName::new(tag, digest) })
    }

    /// Finds the image with the name that this is bound to.
    fn find_image(&self) -> Result<ImageEntries> {
        let index = read_index(&self.archive)?;
        self.name.find(&index, &self.description(), |digest| self.find_unlisted(digest))
    }

    fn find_blob(&self, blob: &Descriptor) -> Result<Section> {
        self.archive.find(&member_name(&blob.digest))?.ok_or_else(|| {
            layout_index::missing_blob(blob, &self.description(), self.find_image().ok().as_ref())
        })
    }

    /// Returns the name of the archive in errors.
    fn description(&self) -> String {
        format!("archive {}", self.archive.path().display())
    }

    /// Finds a document that `index.json` does not list, such as one of a nested index.
    fn find_unlisted(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let name = member_name(digest);
        match self.archive.find(&name)? {
            Some(section) if section.len() <= DOCUMENT_LIMIT => {
                let bytes = self.archive.read(&name, DOCUMENT_LIMIT)?;
                Ok(bytes.and_then(|bytes| layout_index::describe(digest, &bytes)))
            }
            _ => Ok(None),
        }
    }
}

impl Source for OciArchive {
    fn resolve(&self) -> Result<Document> {
        self.find_image()?.root(|entry| super::fetch(self, entry))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.find_blob(descriptor).map(Section::unverified)
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        Ok(Some(self.find_blob(blob)?.range(range).unverified()))
    }

    fn local_paths(&self) -> Vec<PathBuf> {
        vec![self.archive.path().to_owned()]
    }

    fn tags(&self) -> Result<Vec<String>> {
        Ok(layout_index::tags(&read_index(&self.archive)?))
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        let index = read_index(&self.archive)?;
        layout_index::tagged(&index, tag, &self.description(), |entry| super::fetch(self, entry))
    }

    fn untagged(&self) -> Result<Vec<Digest>> {
        Ok(layout_index::untagged(&read_index(&self.archive)?)
            .into_iter()
            .map(|entry| entry.digest)
            .collect())
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let fetch = |entry: &Descriptor| fetch_from(&self.archive, entry).ok();
        Ok(referrers::list(&read_index(&self.archive)?, fetch, subject))
    }
}

/// A writer of an archive, bound to the name of an image in it.
pub struct OciArchiveWriter {
    writer: ArchiveWriter,
    name: ImageName,
    /// The entries for referrers, which are added to the index with the image.
    referrers: Mutex<Vec<Descriptor>>,
    /// The attachments with their tags, which are added to the index with the image.
    attachments: Mutex<Vec<(ImageName, Document)>>,
    /// The digests that tags of attachments meant when they were read, if they still have to mean those.
    read_tags: Mutex<BTreeMap<String, Option<Digest>>>,
}

impl OciArchiveWriter {
    /// Opens an archive for writing. One that does not exist is created when an image gets its name.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) if the file is something else.
    pub fn create(path: &Path, tag: Option<&str>) -> Result<Self> {
        let writer = ArchiveWriter::create(path, |archive| check_layout(archive, Kind::Refused))?;
        Ok(Self {
            writer,
            name: ImageName::new(tag, None),
            referrers: Mutex::default(),
            attachments: Mutex::default(),
            read_tags: Mutex::default(),
        })
    }

    /// Publishes the archive, in which the name means this document, if there is one. `check` sees the index of the archive
    /// that is replaced.
    fn publish(&self, root: Option<&Document>, check: impl FnOnce(&Index) -> Result<()>) -> Result<()> {
        let close = |contents: &Contents<'_>| {
            let mut index = match contents.old() {
                Some(old) => read_index(old)?,
                None => Index::new(Vec::new(), Default::default()),
            };
            check(&index)?;
            self.ensure_read_tags_unmoved(&index)?;
            let before = index.manifests.clone();
            for entry in self.referrers().drain(..) {
                referrers::insert(&mut index, entry);
            }
            for (name, document) in self.attachments().drain(..) {
                name.set(&mut index, &document);
            }
            if let Some(root) = root {
                self.name.set(&mut index, root);
            }
            let mut dropped = unneeded_members(contents, &before, &index.manifests);
            if !layout_index::has_same_images(&before, &index.manifests) {
                dropped.extend(OTHER_LISTS.map(str::to_owned));
            }
            let index = Document::write(media_type::INDEX, &index).bytes().to_vec();
            let marker = (MARKER.0.to_owned(), MARKER.1.as_bytes().to_vec());
            Ok(Closing { last: vec![marker, (INDEX_FILE.to_owned(), index)], dropped })
        };
        self.writer.publish(close)
    }

    /// Fails if another writer has changed the tag of an attachment, whose content would be lost.
    fn ensure_read_tags_unmoved(&self, index: &Index) -> Result<()> {
        for (tag, expected) in &*self.read_tags() {
            let found = layout_index::tagged_digest(index, tag);
            if found.as_ref() != expected.as_ref() {
                let path = self.writer.path().display();
                return Err(Error::refused(format!("another writer has changed the tag {tag} in {path}"))
                    .with_hint("nothing was changed; run the command again"));
            }
        }
        Ok(())
    }

    fn read_tags(&self) -> MutexGuard<'_, BTreeMap<String, Option<Digest>>> {
        // No code panics while it holds the lock.
        self.read_tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn referrers(&self) -> MutexGuard<'_, Vec<Descriptor>> {
        // No code panics while it holds the lock.
        self.referrers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attachments(&self) -> MutexGuard<'_, Vec<(ImageName, Document)>> {
        // No code panics while it holds the lock.
        self.attachments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destination for OciArchiveWriter {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.writer.contains(&member_name(&descriptor.digest), descriptor)
    }

    fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.writer.exists(&member_name(&descriptor.digest), descriptor)
    }

    fn upload(&self, body: Body) -> Result<Written> {
        self.writer.add(body, member_name)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        self.upload(Body::new(Cursor::new(document.bytes().to_vec())))?;
        self.referrers().extend(referrers::entry(document));
        Ok(())
    }

    fn commit(&self, root: &Document) -> Result<()> {
        self.publish(Some(root), |_| Ok(()))
    }

    fn commit_unless_moved(&self, root: &Document, expected: Option<&Digest>) -> Result<()> {
        let path = self.writer.path().display();
        let name = self
            .name
            .tag()
            .map_or_else(|| format!("the image in {path}"), |tag| format!("oci-archive:{path}:{tag}"));
        let new = &root.descriptor().digest;
        let address = self.address(new);
        self.publish(Some(root), |index| {
            let found = self.name.find(index, &format!("archive {path}"), |_| Ok(None));
            let found = moved_name::none_if_missing(found.map(|image| image.digest()))?;
            super::ensure_unmoved(&name, expected, found.as_ref(), new, &address)
        })
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        let is_named = |(name, _): &&(ImageName, Document)| name.tag() == Some(tag);
        if let Some((_, document)) = self.attachments().iter().rev().find(is_named) {
            return Ok(Some(document.clone()));
        }
        self.writer.read_existing(|existing| {
            let Some(archive) = existing else { return Ok(None) };
            let storage = format!("archive {}", archive.path().display());
            layout_index::tagged(&read_index(archive)?, tag, &storage, |entry| fetch_from(archive, entry))
        })
    }

    fn attach(&self, tag: &str, document: &Document) -> Result<()> {
        let attachment = (ImageName::new(Some(tag), None), document.clone());
        self.attachments().push(attachment);
        Ok(())
    }

    fn attach_unless_moved(&self, tag: &str, document: &Document, expected: Option<&Digest>) -> Result<bool> {
        // What this writer has attached itself is not in the archive yet.
        self.read_tags().entry(tag.to_owned()).or_insert_with(|| expected.cloned());
        self.attach(tag, document).map(|()| true)
    }

    fn publish_attachments(&self) -> Result<()> {
        self.publish(None, |_| Ok(()))
    }

    fn directory(&self) -> Option<PathBuf> {
        Some(self.writer.directory().to_owned())
    }

    fn address(&self, digest: &Digest) -> String {
        format!("oci-archive:{}@{digest}", self.writer.path().display())
    }
}

/// Returns the members that only removed entries need: those in `before` but not in `after`. Returns none if a document
/// cannot be read, because it may need any of them.
fn unneeded_members(contents: &Contents<'_>, before: &[Descriptor], after: &[Descriptor]) -> HashSet<String> {
    let gone: Vec<Descriptor> = before.iter().filter(|entry| !after.contains(entry)).cloned().collect();
    let (Some(old), false) = (contents.old(), gone.is_empty()) else { return HashSet::new() };
    let fetch =
        |entry: &Descriptor| verified(entry, contents.read(&member_name(&entry.digest), DOCUMENT_LIMIT)?);
    let (mut needed, mut unneeded) = (HashMap::new(), HashMap::new());
    if collect_reachable(after, fetch, &mut needed).is_err() {
        return HashSet::new();
    }
    // Blobs below a damaged document stay.
    let _ = collect_reachable(&gone, fetch, &mut unneeded);
    let needed: HashSet<String> =
        needed.keys().flat_map(|digest| old.link_chain(&member_name(digest))).collect();
    unneeded.keys().map(member_name).filter(|name| !needed.contains(name)).collect()
}

/// Reads and verifies a document in an archive.
fn fetch_from(archive: &TarArchive, entry: &Descriptor) -> Result<Document> {
    let bytes = archive.read(&member_name(&entry.digest), DOCUMENT_LIMIT)?;
    verified(entry, bytes)
}

/// Verifies the bytes of a document.
///
/// # Errors
/// [`NotFound`](Kind::NotFound) if there are none, [`Integrity`](Kind::Integrity) if they do not match.
fn verified(entry: &Descriptor, bytes: Option<Vec<u8>>) -> Result<Document> {
    let absent = || Error::not_found(format!("there is no document {}", entry.digest));
    let bytes = bytes.ok_or_else(absent)?;
    Unverified::new(Cursor::new(bytes.clone())).verify(entry).drain()?;
    Ok(Document::new(entry.media_type.clone(), bytes))
}

/// Returns the name of the member that holds a blob.
fn member_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn read_index(archive: &TarArchive) -> Result<Index> {
    let what = format!("{INDEX_FILE} in {}", archive.path().display());
    match archive.read(INDEX_FILE, INDEX_LIMIT)? {
        Some(bytes) => layout_index::parse_index(bytes, &what),
        None => Err(archive.damaged(&format!("it has no file {INDEX_FILE}"))),
    }
}

/// Fails with an error of this kind unless the archive contains a layout.
fn check_layout(archive: &TarArchive, kind: Kind) -> Result<()> {
    if archive.has(MARKER.0) {
        return Ok(());
    }
    let path = archive.path().display();
    let hint = if archive.has("manifest.json") {
        format!("it is what docker save wrote: name it docker-archive:{path}")
    } else {
        "name an archive that volio, skopeo, podman or buildkit wrote".to_owned()
    };
    let what = format!("{path} is not an archive of an image layout: it has no file {}", MARKER.0);
    Err(Error::new(kind, what).with_hint(hint))
}
