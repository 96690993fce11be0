//! OCI image layouts: a directory with blobs and an index of them (image-spec, "Image Layout").
//!
//! A blob is written to a temporary file, synced and renamed, so that a blob with its name is complete. `index.json` is
//! replaced in the same way, after the names of the blobs were synced, and under a lock, so that two writers do not lose each
//! other's images.

mod attachments;
mod bulk_removal;
mod directory;
mod orphans;
mod removal;
mod resume;
#[cfg(test)]
mod tests;

use self::directory::{IfMissing, LayoutDirectory, TEMPORARY_PREFIX};
use super::layout_index::{self, INDEX_FILE, INDEX_LIMIT, ImageEntries, ImageName, MARKER};
use super::{Destination, Source, moved_name, referrers};
use crate::disk::atomic_file::{self, open_nonblocking};
use crate::disk::lock::{FileLock, LOCK_TIMEOUT};
use crate::error::{Error, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, media_type};
use crate::stream::{Body, Unverified, Written};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// A layout, bound to the name of an image in it.
pub struct Layout {
    path: PathBuf,
    name: ImageName,
    /// The open directory, after the first change.
    directory: OnceLock<LayoutDirectory>,
    /// The lock on `blobs` that keeps removals from deleting blobs that this writer relies on.
    blobs_lock: OnceLock<FileLock>,
    /// The longest wait for a lock.
    lock_timeout: Duration,
}

impl Layout {
    /// Opens an existing layout.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if the directory does not exist or is not a layout.
    pub fn open(path: &Path, tag: Option<&str>, digest: Option<Digest>) -> Result<Self> {
        if !path.join(MARKER.0).is_file() {
            let why = if path.is_dir() { "it has no file oci-layout" } else { "there is no such directory" };
            return Err(Error::not_found(format!("{} is not an image layout: {why}", path.display()))
                .with_hint(
                    "write oci:DIRECTORY[:TAG] with a directory that volio, skopeo or buildah wrote",
                ));
        }
        Ok(Self::new(path, ImageName::new(tag, digest)))
    }

    /// Opens a layout for writing. One that does not exist is created when the first blob is uploaded.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) if the directory contains something else.
    pub fn create(path: &Path, tag: Option<&str>) -> Result<Self> {
        let layout = Self::new(path, ImageName::new(tag, None));
        let is_usable = match fs::read_dir(path) {
            // The marker is looked for last: another writer may have created it since the directory was listed.
            Ok(entries) => {
                entries.flatten().all(|entry| is_writers_file(&entry)) || path.join(MARKER.0).is_file()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(io_error("read", path, error)),
        };
        if is_usable {
            return Ok(layout);
        }
        Err(Error::refused(format!("{} holds something that is not an image layout", path.display()))
            .with_hint("name an empty directory, one that does not exist yet, or a layout"))
    }

    fn new(path: &Path, name: ImageName) -> Self {
        Self {
            path: path.to_owned(),
            name,
            directory: OnceLock::new(),
            blobs_lock: OnceLock::new(),
            lock_timeout: LOCK_TIMEOUT,
        }
    }

    /// Returns the open directory.
    fn open_directory(&self) -> io::Result<&LayoutDirectory> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory);
        }
        let directory = LayoutDirectory::open(&self.path)?;
        Ok(self.directory.get_or_init(|| directory))
    }

    /// Returns the open directory, which must exist.
    fn existing_directory(&self) -> Result<&LayoutDirectory> {
        self.open_directory().map_err(|error| io_error("open", &self.path, error))
    }

    /// Locks the layout against other changes.
    fn lock(&self) -> Result<FileLock> {
        self.existing_directory()?.lock(self.lock_timeout)
    }

    /// Creates the missing directories and the marker. Removes the temporary files of writers that were killed.
    fn prepare(&self) -> Result<()> {
        self.create_directory()?;
        let directory = self.existing_directory()?;
        directory.blobs_of("sha256", IfMissing::Create)?;
        self.lock_blobs()?;
        atomic_file::sweep(directory.root(), TEMPORARY_PREFIX);
        let _lock = self.lock()?;
        self.remove_completed_partials();
        if self.path.join(MARKER.0).exists() {
            return Ok(());
        }
        directory.replace(MARKER.0, MARKER.1.as_bytes())
    }

    /// Creates the directory and its parents, and syncs each parent.
    fn create_directory(&self) -> Result<()> {
        let io_error = |error| io_error("create", &self.path, error);
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<&Path> = self.path.ancestors().take_while(is_missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.path).map_err(io_error)?;
        let here = Path::new(".");
        missing
            .into_iter()
            .map(|path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(here))
            .try_for_each(|parent| File::open(parent)?.sync_all())
            .map_err(io_error)
    }

    /// Replaces the index. The layout must be locked.
    fn replace_index(&self, index: &Index) -> Result<()> {
        let directory = self.existing_directory()?;
        directory.sync_blobs()?;
        directory.replace(INDEX_FILE, Document::write(media_type::INDEX, index).bytes())?;
        self.remove_stale_partials(&self.path.join(INDEX_FILE));
        Ok(())
    }

    /// Lets a name mean this document.
    fn set_name(&self, name: &ImageName, document: &Document) -> Result<()> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        name.set(&mut index, document);
        self.replace_index(&index)
    }

    /// Adds a manifest that refers to another one to the index.
    fn note_referrer(&self, document: &Document) -> Result<()> {
        let Some(entry) = referrers::entry(document) else { return Ok(()) };
        let _lock = self.lock()?;
        let mut index = self.index()?;
        if referrers::insert(&mut index, entry) {
            self.replace_index(&index)?;
        }
        Ok(())
    }

    /// Reads the index. A layout without one has an empty index.
    fn index(&self) -> Result<Index> {
        let path = self.path.join(INDEX_FILE);
        match open_regular_file(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(INDEX_LIMIT + 1)
                    .read_to_end(&mut bytes)
                    .map_err(|error| io_error("read", &path, error))?;
                layout_index::parse_index(bytes, &path.display().to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Index::new(Vec::new(), Default::default()))
            }
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Finds the image with the name that this is bound to.
    fn find_image(&self) -> Result<ImageEntries> {
        let index = self.index()?;
        self.name.find(&index, &self.description(), |digest| self.find_unlisted(digest))
    }

    /// Finds a document that `index.json` does not list, such as one of a nested index.
    fn find_unlisted(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let path = self.blob_path(digest);
        let Ok(file) = open_regular_file(&path) else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(DOCUMENT_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| io_error("read", &path, error))?;
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Ok(None);
        }
        Ok(layout_index::describe(digest, &bytes))
    }

    /// Returns the name of the image in errors.
    fn shown_name(&self) -> String {
        self.name.tag().map_or_else(|| self.description(), |tag| format!("oci:{}:{tag}", self.path.display()))
    }

    /// Returns the name of the layout in errors.
    fn description(&self) -> String {
        format!("layout {}", self.path.display())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Returns whether there is a file with the name and the size of this blob.
    fn has_file_of(&self, blob: &Descriptor) -> Result<bool> {
        let path = self.blob_path(&blob.digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file() && metadata.len() == blob.size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("look for", &path, error)),
        }
    }

    /// Reads a document, if it is there and is what it should be. An error about a missing one would describe the image, for
    /// which the index is read.
    fn fetch_if_present(&self, entry: &Descriptor) -> Option<Document> {
        self.has_file_of(entry).ok().filter(|is_there| *is_there)?;
        super::fetch(self, entry).ok()
    }

    fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        let path = self.blob_path(&blob.digest);
        open_regular_file(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                layout_index::missing_blob(blob, &self.description(), self.find_image().ok().as_ref())
            }
            _ => io_error("open the blob", &path, error),
        })
    }
}

impl Source for Layout {
    fn resolve(&self) -> Result<Document> {
        self.find_image()?.root(|entry| super::fetch(self, entry))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let path = self.blob_path(&descriptor.digest);
        Ok(Unverified::new(self.open_blob(descriptor)?).reopenable(move |offset| {
            let file = open_regular_file(&path)
                .and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file))
                .map_err(|error| io_error("read", &path, error))?;
            Ok(Box::new(file))
        }))
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        let mut file = self.open_blob(blob)?;
        file.seek(SeekFrom::Start(range.start))
            .map_err(|error| io_error("read", &self.blob_path(&blob.digest), error))?;
        Ok(Some(Unverified::new(file.take(range.end - range.start))))
    }

    fn local_paths(&self) -> Vec<PathBuf> {
        // Any of them may be a symbolic link.
        ["", "index.json", "blobs", "blobs/sha256"].map(|name| self.path.join(name)).into()
    }

    fn tags(&self) -> Result<Vec<String>> {
        Ok(layout_index::tags(&self.index()?))
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        layout_index::tagged(&self.index()?, tag, &self.description(), |entry| super::fetch(self, entry))
    }

    fn untagged(&self) -> Result<Vec<Digest>> {
        Ok(layout_index::untagged(&self.index()?).into_iter().map(|entry| entry.digest).collect())
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(referrers::list(&self.index()?, |entry| self.fetch_if_present(entry), subject))
    }
}

impl Destination for Layout {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.lock_blobs()?;
        // A damaged blob counts as missing, so that it is replaced.
        Ok(self.has_file_of(descriptor)? && super::is_intact(self.open(descriptor)?, descriptor)?)
    }

    fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.lock_blobs()?;
        self.has_file_of(descriptor)
    }

    fn upload(&self, mut body: Body) -> Result<Written> {
        self.prepare()?;
        if let Some(partial) = self.partial(&body)? {
            return self.complete(partial, body);
        }
        let directory = self.existing_directory()?;
        let file = directory.create_file()?;
        io::copy(&mut body, &mut file.file())
            .map_err(|error| io_error("write a blob to", &self.path, error))?;
        let written = body.finish()?;
        directory.publish(vec![(file, written.digest.clone())])?;
        Ok(written)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        self.put_documents(&[], &[document])
    }

    fn put_documents(&self, configs: &[Document], manifests: &[&Document]) -> Result<()> {
        self.prepare()?;
        let mut documents = Vec::new();
        for config in configs {
            if !self.contains(config.descriptor())? {
                documents.push(config);
            }
        }
        documents.extend(manifests);
        let directory = self.existing_directory()?;
        let write = |document: &&Document| {
            let file = directory.create_file()?;
            file.file()
                .write_all(document.bytes())
                .map_err(|error| io_error("write a document to", &self.path, error))?;
            Ok((file, document.descriptor().digest.clone()))
        };
        directory.publish(documents.iter().map(write).collect::<Result<_>>()?)?;
        manifests.iter().try_for_each(|manifest| self.note_referrer(manifest))
    }

    fn commit(&self, root: &Document) -> Result<()> {
        self.set_name(&self.name, root)
    }

    fn commit_unless_moved(&self, root: &Document, expected: Option<&Digest>) -> Result<()> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let found = self.name.find(&index, &self.description(), |_| Ok(None)).map(|image| image.digest());
        let found = moved_name::none_if_missing(found)?;
        let (name, new) = (self.shown_name(), &root.descriptor().digest);
        super::ensure_unmoved(&name, expected, found.as_ref(), new, &self.address(new))?;
        self.name.set(&mut index, root);
        self.replace_index(&index)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        Source::tagged(self, tag)
    }

    fn attach(&self, tag: &str, document: &Document) -> Result<()> {
        self.set_name(&ImageName::new(Some(tag), None), document)
    }

    fn attach_unless_moved(&self, tag: &str, document: &Document, expected: Option<&Digest>) -> Result<bool> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        if layout_index::tagged_digest(&index, tag).as_ref() != expected {
            return Ok(false);
        }
        ImageName::new(Some(tag), None).set(&mut index, document);
        self.replace_index(&index).map(|()| true)
    }

    fn directory(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    fn address(&self, digest: &Digest) -> String {
        format!("oci:{}@{digest}", self.path.display())
    }
}

/// Returns whether an entry is one that a writer creates before the marker, or a file system's `lost+found`.
fn is_writers_file(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    name == "blobs"
        || name == "lost+found"
        || name == removal::PENDING_FILE
        || resume::is_partial(&name)
        || name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes())
}

/// Opens a regular file for reading. Another program may have put a named pipe or a device into the layout.
fn open_regular_file(path: &Path) -> io::Result<File> {
    let file = open_nonblocking(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::integrity(format!("{} is not a regular file", path.display())).into());
    }
    Ok(file)
}

fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display()), error)
}
