//! An OCI image layout in one tar file, as `skopeo`, `podman save --format oci-archive` and buildkit write it.
//!
//! It is read where it stands, without unpacking it. It is written beside its place, and takes it when an image gets
//! its name: until then, and when a writer is killed, the file is what it was.

use super::archive::{Archive, ArchiveWriter, Composed, Section, View};
use super::names::{self, Found, INDEX_FILE, INDEX_LIMIT, MARKER, Name};
use super::reach::reach;
use super::{Destination, Source, referrers};
use crate::error::{Error, Kind, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, media_type};
use crate::stream::{Body, Unverified, Written};
use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What else an archive may say about its images: `docker save` writes both. It would say too little when there is one
/// more, and loaders that read it instead of the index would not see the new one.
const OTHER_LISTS: [&str; 2] = ["manifest.json", "repositories"];

/// One image in an archive, to be read.
pub struct OciArchive {
    archive: Archive,
    name: Name,
}

impl OciArchive {
    /// An archive that exists.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when the file is not there or holds no layout.
    pub fn open(path: &Path, tag: Option<&str>, digest: Option<Digest>) -> Result<Self> {
        let archive = Archive::open(path)?;
        holds_layout(&archive, Kind::NotFound)?;
        Ok(Self { archive, name: Name::new(tag, digest) })
    }

    /// What the index lists under this name, or the only image that there is.
    fn found(&self) -> Result<Found> {
        let index = read_index(&self.archive)?;
        self.name.find(&index, &self.place(), |digest| self.unlisted(digest))
    }

    fn find(&self, blob: &Descriptor) -> Result<Section> {
        self.archive
            .find(&member(&blob.digest))?
            .ok_or_else(|| names::missing(blob, &self.place(), self.found().ok().as_ref()))
    }

    fn place(&self) -> String {
        format!("archive {}", self.archive.path().display())
    }

    /// A document that an index of an index names: there, but not in `index.json`.
    fn unlisted(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        match self.archive.find(&member(digest))? {
            Some(found) if found.len() <= DOCUMENT_LIMIT => {
                let bytes = self.archive.read(&member(digest), DOCUMENT_LIMIT)?;
                Ok(bytes.and_then(|bytes| names::describe(digest, &bytes)))
            }
            _ => Ok(None),
        }
    }
}

impl Source for OciArchive {
    fn resolve(&self) -> Result<Document> {
        self.found()?.root(|entry| super::fetch(self, entry))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.find(descriptor).map(Section::unverified)
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        Ok(Some(self.find(blob)?.part(range).unverified()))
    }

    fn tags(&self) -> Result<Vec<String>> {
        Ok(names::tags(&read_index(&self.archive)?))
    }

    fn attachments(&self, subject: &Digest) -> Result<Vec<(String, Document)>> {
        names::attachments(&read_index(&self.archive)?, subject, |entry| super::fetch(self, entry))
    }

    fn untagged(&self) -> Result<Vec<Digest>> {
        Ok(names::untagged(&read_index(&self.archive)?).into_iter().map(|entry| entry.digest).collect())
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(referrers::list(&read_index(&self.archive)?, self, subject))
    }
}

/// One image in an archive, to be written.
pub struct OciArchiveWriter {
    writer: ArchiveWriter,
    name: Name,
    /// What is to be listed beside the image, because it refers to it or to others.
    referrers: Mutex<Vec<Descriptor>>,
    /// What is to be listed beside the image under tags of its own.
    attached: Mutex<Vec<(Name, Document)>>,
}

impl OciArchiveWriter {
    /// An archive that exists, or will when an image is in it.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when the file is something else.
    pub fn create(path: &Path, tag: Option<&str>) -> Result<Self> {
        let writer = ArchiveWriter::create(path, |archive| holds_layout(archive, Kind::Refused))?;
        Ok(Self {
            writer,
            name: Name::new(tag, None),
            referrers: Mutex::default(),
            attached: Mutex::default(),
        })
    }

    fn referrers(&self) -> MutexGuard<'_, Vec<Descriptor>> {
        // Nothing here panics while it holds the lock.
        self.referrers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destination for OciArchiveWriter {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.writer.contains(&member(&descriptor.digest), descriptor)
    }

    fn upload(&self, body: Body) -> Result<Written> {
        self.writer.add(body, member)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        self.upload(Body::new(Cursor::new(document.bytes().to_vec())))?;
        self.referrers().extend(referrers::entry(document));
        Ok(())
    }

    fn commit(&self, root: &Document) -> Result<()> {
        let compose = |view: &View<'_>| {
            let mut index = match view.old() {
                Some(old) => read_index(old)?,
                None => Index::new(Vec::new(), Default::default()),
            };
            let before = index.manifests.clone();
            for entry in self.referrers().drain(..) {
                referrers::enter(&mut index, entry);
            }
            for (name, document) in self.attached.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                name.enter(&mut index, &document);
            }
            self.name.enter(&mut index, root);
            let mut left_out = unreached(view, &before, &index.manifests);
            left_out.extend(OTHER_LISTS.map(str::to_owned));
            let index = Document::write(media_type::INDEX, &index).bytes().to_vec();
            let marker = (MARKER.0.to_owned(), MARKER.1.as_bytes().to_vec());
            Ok(Composed { last: vec![marker, (INDEX_FILE.to_owned(), index)], left_out })
        };
        self.writer.publish(compose)
    }

    fn attach(&self, tag: &str, document: &Document) -> Result<()> {
        let name = Name::new(Some(tag), None);
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).push((name, document.clone()));
        Ok(())
    }

    fn directory(&self) -> Option<PathBuf> {
        Some(self.writer.directory().to_owned())
    }

    fn address(&self, digest: &Digest) -> String {
        format!("oci-archive:{}@{digest}", self.writer.path().display())
    }
}

/// The members that only entries need which were listed before and are not any more; none where that cannot be known.
fn unreached(view: &View<'_>, before: &[Descriptor], after: &[Descriptor]) -> HashSet<String> {
    let gone: Vec<Descriptor> = before.iter().filter(|entry| !after.contains(entry)).cloned().collect();
    let (Some(old), false) = (view.old(), gone.is_empty()) else { return HashSet::new() };
    let fetch = |entry: &Descriptor| {
        let absent = || Error::not_found(format!("there is no document {}", entry.digest));
        let bytes = view.read(&member(&entry.digest), DOCUMENT_LIMIT)?.ok_or_else(absent)?;
        Unverified::new(Cursor::new(bytes.clone())).verify(entry).drain()?;
        Ok(Document::new(entry.media_type.clone(), bytes))
    };
    let (mut needed, mut known) = (HashMap::new(), HashMap::new());
    if reach(after, fetch, &mut needed).is_err() {
        return HashSet::new();
    }
    // Where it is damaged, what is below the damage stays.
    let _ = reach(&gone, fetch, &mut known);
    let needed: HashSet<String> = needed.keys().flat_map(|digest| old.trail(&member(digest))).collect();
    known.keys().map(member).filter(|name| !needed.contains(name)).collect()
}

/// What a blob is called in a layout.
fn member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn read_index(archive: &Archive) -> Result<Index> {
    let what = format!("{INDEX_FILE} in {}", archive.path().display());
    match archive.read(INDEX_FILE, INDEX_LIMIT)? {
        Some(bytes) => names::parse_index(bytes, &what),
        None => Err(archive.damaged(&format!("it has no file {INDEX_FILE}"))),
    }
}

/// Fails with an error of this kind when the archive is of another sort.
fn holds_layout(archive: &Archive, otherwise: Kind) -> Result<()> {
    match (archive.has(MARKER.0), archive.has("manifest.json")) {
        (true, _) => Ok(()),
        (false, is_docker) => {
            let path = archive.path().display();
            let what = format!("{path} is no archive of an image layout: it has no file {}", MARKER.0);
            Err(Error::new(otherwise, what).with_hint(match is_docker {
                true => format!("it is what docker save wrote: name it docker-archive:{path}"),
                false => "name an archive that volio, skopeo, podman or buildkit wrote".to_owned(),
            }))
        }
    }
}
