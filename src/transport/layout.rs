//! An OCI image layout: a directory with blobs and an index over them (image-spec, "Image Layout").
//!
//! Blobs come by a temporary file, `fsync` and `rename`, so that a blob that has its name is whole. `index.json` is
//! replaced in the same way, under a lock, so that two writers lose nothing of each other.

mod partial;
mod place;
mod removal;
#[cfg(test)]
mod tests;

use self::place::{Missing, Place, TEMPORARY};
use super::names::{self, Found, INDEX_FILE, INDEX_LIMIT, MARKER, Name, ref_name};
use super::{Destination, Removed, Source, referrers};
use crate::disk::atomic_file::{self, open_nonblocking};
use crate::disk::lock::{FileLock, LOCK_TIMEOUT};
use crate::error::{Error, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, media_type};
use crate::stream::{Body, Unverified, Written};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// One image in a layout.
pub struct Layout {
    directory: PathBuf,
    name: Name,
    /// The directory, open, once something was to be changed in it.
    place: OnceLock<Place>,
    /// `blobs`, locked against removals.
    held: OnceLock<FileLock>,
    /// How long others may hold a lock.
    patience: Duration,
}

impl Layout {
    /// A layout that exists.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when the directory is not there or no layout.
    pub fn open(directory: &Path, tag: Option<&str>, digest: Option<Digest>) -> Result<Self> {
        if !directory.join(MARKER.0).is_file() {
            let why =
                if directory.is_dir() { "it has no file oci-layout" } else { "there is no such directory" };
            return Err(Error::not_found(format!("{} is not an image layout: {why}", directory.display()))
                .with_hint(
                    "write oci:DIRECTORY[:TAG] with a directory that volio, skopeo or buildah wrote",
                ));
        }
        Ok(Self::at(directory, Name::new(tag, digest)))
    }

    /// A layout that exists or will: it is made when the first blob arrives.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when the directory holds something else.
    pub fn create(directory: &Path, tag: Option<&str>) -> Result<Self> {
        let layout = Self::at(directory, Name::new(tag, None));
        let free = match fs::read_dir(directory) {
            // The marker comes last: who saw files of another writer at work finds it by then.
            Ok(entries) => {
                entries.flatten().all(|entry| layout.is_ours(&entry)) || directory.join(MARKER.0).is_file()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(layout.cannot("read", directory, error)),
        };
        match free {
            true => Ok(layout),
            false => Err(Error::refused(format!(
                "{} holds something that is no image layout",
                directory.display()
            ))
            .with_hint("name an empty directory, one that does not exist yet, or a layout")),
        }
    }

    fn at(directory: &Path, name: Name) -> Self {
        let directory = directory.to_owned();
        Self { directory, name, place: OnceLock::new(), held: OnceLock::new(), patience: LOCK_TIMEOUT }
    }

    /// The directory, open to be changed.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) when it is not there.
    fn opened(&self) -> io::Result<&Place> {
        match self.place.get() {
            Some(place) => Ok(place),
            None => {
                let place = Place::open(&self.directory)?;
                Ok(self.place.get_or_init(|| place))
            }
        }
    }

    /// The same of a directory that must be there.
    fn changing(&self) -> Result<&Place> {
        self.opened().map_err(|error| self.cannot("open", &self.directory, error))
    }

    /// Keeps others from changing the layout until it is dropped.
    fn lock(&self) -> Result<FileLock> {
        self.changing()?.lock(self.patience)
    }

    /// Makes the directories and the marker where they are missing, and sweeps up after writers that were killed.
    fn prepare(&self) -> Result<()> {
        self.make_directory()?;
        let place = self.changing()?;
        place.blobs_of("sha256", Missing::Make)?;
        self.hold_blobs()?;
        atomic_file::sweep(place.root(), TEMPORARY);
        let _lock = self.lock()?;
        self.sweep_partials();
        match self.directory.join(MARKER.0).exists() {
            true => Ok(()),
            false => place.replace(MARKER.0, MARKER.1.as_bytes()),
        }
    }

    /// Makes the directory with those above it, for good: each is synced in the one that holds it.
    fn make_directory(&self) -> Result<()> {
        let path = &self.directory;
        let cannot = |error| self.cannot("create", path, error);
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let made: Vec<&Path> = path.ancestors().take_while(missing).collect();
        if made.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(path).map_err(cannot)?;
        let here = Path::new(".");
        made.into_iter()
            .map(|made| made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(here))
            .try_for_each(|parent| File::open(parent)?.sync_all())
            .map_err(cannot)
    }

    /// Whether this is what a writer leaves that has not written the marker yet, or was killed before.
    fn is_ours(&self, entry: &fs::DirEntry) -> bool {
        // A file system of its own, such as that of a stick, begins with a lost+found.
        entry.file_name() == "blobs"
            || entry.file_name() == "lost+found"
            || Self::is_partial(&entry.file_name())
            || entry.file_name() == removal::UNFINISHED
            || entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
    }

    /// Replaces the index. Needs the lock.
    fn replace_index(&self, index: &Index) -> Result<()> {
        self.changing()?.replace(INDEX_FILE, Document::write(media_type::INDEX, index).bytes())?;
        self.sweep_forgotten_partials(&self.directory.join(INDEX_FILE));
        Ok(())
    }

    /// Lets a name mean this document from now on.
    fn enter(&self, name: &Name, document: &Document) -> Result<()> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        name.enter(&mut index, document);
        self.replace_index(&index)
    }

    /// The index, or an empty one where there is none yet.
    fn index(&self) -> Result<Index> {
        let path = self.directory.join(INDEX_FILE);
        match open_file(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(INDEX_LIMIT + 1)
                    .read_to_end(&mut bytes)
                    .map_err(|error| self.cannot("read", &path, error))?;
                names::parse_index(bytes, &path.display().to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Index::new(Vec::new(), Default::default()))
            }
            Err(error) => Err(self.cannot("read", &path, error)),
        }
    }

    /// What the index lists under this name, or the only image that there is.
    fn found(&self) -> Result<Found> {
        let index = self.index()?;
        self.name.find(&index, &self.place(), |digest| self.unlisted(digest))
    }

    /// A document that an index of an index names: there, but not in `index.json`.
    fn unlisted(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let path = self.blob(digest);
        let Ok(file) = open_file(&path) else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(DOCUMENT_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.cannot("read", &path, error))?;
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Ok(None);
        }
        Ok(names::describe(digest, &bytes))
    }

    fn place(&self) -> String {
        format!("layout {}", self.directory.display())
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        let path = self.blob(&blob.digest);
        open_file(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => names::missing(blob, &self.place(), self.found().ok().as_ref()),
            _ => self.cannot("open the blob", &path, error),
        })
    }

    fn cannot(&self, what: &str, path: &Path, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {}", path.display()), error)
    }
}

impl Source for Layout {
    fn resolve(&self) -> Result<Document> {
        self.found()?.root(|entry| super::fetch(self, entry))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let again = self.blob(&descriptor.digest);
        Ok(Unverified::new(self.open_blob(descriptor)?).reopenable(move |offset| {
            let file = open_file(&again)
                .and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file))
                .map_err(|error| Error::io(format!("cannot read {}", again.display()), error))?;
            Ok(Box::new(file))
        }))
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        let mut file = self.open_blob(blob)?;
        file.seek(SeekFrom::Start(range.start))
            .map_err(|error| self.cannot("read", &self.blob(&blob.digest), error))?;
        Ok(Some(Unverified::new(file.take(range.end - range.start))))
    }

    fn tags(&self) -> Result<Vec<String>> {
        Ok(names::tags(&self.index()?))
    }

    fn attachments(&self, subject: &Digest) -> Result<Vec<(String, Document)>> {
        names::attachments(&self.index()?, subject, |entry| super::fetch(self, entry))
    }

    fn untagged(&self) -> Result<Vec<Digest>> {
        Ok(names::untagged(&self.index()?).into_iter().map(|entry| entry.digest).collect())
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(referrers::list(&self.index()?, self, subject))
    }
}

impl Destination for Layout {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.hold_blobs()?;
        let cannot = |error| self.cannot("look for", &self.blob(&descriptor.digest), error);
        match fs::metadata(self.blob(&descriptor.digest)) {
            Ok(found) if found.is_file() && found.len() == descriptor.size => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(cannot(error)),
        }
        // A damaged blob is not there: the right bytes will replace it.
        super::is_sound(self.open(descriptor)?, descriptor)
    }

    fn upload(&self, mut body: Body) -> Result<Written> {
        self.prepare()?;
        if let Some(partial) = self.partial(&body)? {
            return self.complete(partial, body);
        }
        let place = self.changing()?;
        let draft = place.begin()?;
        io::copy(&mut body, &mut draft.file())
            .map_err(|error| self.cannot("write a blob to", &self.directory, error))?;
        let written = body.finish()?;
        place.publish(draft, &written.digest)?;
        Ok(written)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        self.upload(Body::new(io::Cursor::new(document.bytes().to_vec())))?;
        let Some(entry) = referrers::entry(document) else { return Ok(()) };
        let _lock = self.lock()?;
        let mut index = self.index()?;
        match referrers::enter(&mut index, entry) {
            true => self.replace_index(&index),
            false => Ok(()),
        }
    }

    fn commit(&self, root: &Document) -> Result<()> {
        self.enter(&self.name, root)
    }

    fn attach(&self, tag: &str, document: &Document) -> Result<()> {
        self.enter(&Name::new(Some(tag), None), document)
    }

    fn remove(&self, force: bool) -> Result<Removed> {
        self.take_away(force)
    }

    fn directory(&self) -> Option<PathBuf> {
        Some(self.directory.clone())
    }

    fn address(&self, digest: &Digest) -> String {
        format!("oci:{}@{digest}", self.directory.display())
    }
}

/// Opens a file of a layout for reading; whoever made the layout may have put anything there.
fn open_file(path: &Path) -> io::Result<File> {
    let file = open_nonblocking(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::integrity(format!("{} is no regular file", path.display())).into()),
    }
}
