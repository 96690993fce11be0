//! An OCI image layout: a directory with blobs and an index over them (image-spec, "Image Layout").
//!
//! Blobs come by a temporary file, `fsync` and `rename`, so that a blob that has its name is whole. `index.json` is
//! replaced in the same way, under a lock, so that two writers lose nothing of each other.

mod referrers;
mod removal;

use super::{Destination, Removed, Source};
use crate::error::{Error, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, REF_NAME, SINCE, media_type};
use crate::stream::{Body, Unverified, Written};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::NamedTempFile;

/// The tag of an image that is written without one, as in a registry.
const DEFAULT_TAG: &str = "latest";
/// The file that makes a directory a layout, and all that stands in it.
const MARKER: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
const INDEX_FILE: &str = "index.json";
/// What the names of unfinished files begin with.
const TEMPORARY: &str = ".volio-";
/// The largest `index.json` that is read, in bytes: some 100 000 images.
const INDEX_LIMIT: u64 = 32 << 20;

/// One image in a layout.
pub struct Layout {
    directory: PathBuf,
    tag: Option<String>,
    digest: Option<Digest>,
    /// `blobs`, locked against removals.
    held: OnceLock<File>,
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
                .hint("write oci:DIRECTORY[:TAG] with a directory that volio, skopeo or buildah wrote"));
        }
        Ok(Self {
            directory: directory.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
            held: OnceLock::new(),
        })
    }

    /// A layout that exists or will: it is made when the first blob arrives.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when the directory holds something else.
    pub fn create(directory: &Path, tag: Option<&str>) -> Result<Self> {
        let layout = Self {
            directory: directory.to_owned(),
            tag: tag.map(str::to_owned),
            digest: None,
            held: OnceLock::new(),
        };
        let free = match fs::read_dir(directory) {
            Ok(entries) => {
                directory.join(MARKER.0).is_file() || entries.flatten().all(|entry| is_ours(&entry))
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
            .hint("name an empty directory, one that does not exist yet, or a layout")),
        }
    }

    /// Makes the directories and the marker where they are missing, and sweeps up after writers that were killed.
    fn prepare(&self) -> Result<()> {
        let blobs = self.directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|error| self.cannot("create", &blobs, error))?;
        self.hold_blobs()?;
        let _lock = self.lock()?;
        self.sweep();
        match self.directory.join(MARKER.0).exists() {
            true => Ok(()),
            false => self.replace(MARKER.0, MARKER.1.as_bytes()),
        }
    }

    /// Keeps others from changing the layout's directory until it is dropped. The directory itself is locked: a lock
    /// file would be one more thing in a format that has none.
    fn lock(&self) -> Result<File> {
        let directory =
            File::open(&self.directory).map_err(|error| self.cannot("open", &self.directory, error))?;
        flock(&directory, FlockOperation::LockExclusive)
            .map_err(|error| self.cannot("lock", &self.directory, error.into()))?;
        Ok(directory)
    }

    /// Removes temporary files that nobody holds any more. Needs the lock: under it they are made and locked.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
                && let Ok(file) = File::open(entry.path())
                && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                // A file that cannot be removed is waste and no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// An unfinished file, locked for as long as it is open so that nobody sweeps it away.
    fn temporary(&self) -> Result<NamedTempFile> {
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            // As other files are made, with the umask: the default 0600 would keep others from reading a layout that
            // they are meant to carry on.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.directory)
            .map_err(|error| self.cannot("create a file in", &self.directory, error))?;
        flock(&file, FlockOperation::NonBlockingLockShared)
            .map_err(|error| self.cannot("lock a file in", &self.directory, error.into()))?;
        Ok(file)
    }

    /// Gives an unfinished file its name, for good: it survives a power cut from here on.
    fn publish(&self, file: NamedTempFile, name: &Path) -> Result<()> {
        let publish = || {
            file.as_file().sync_all()?;
            file.persist(name).map_err(|error| error.error)?;
            File::open(name.parent().unwrap_or(&self.directory))?.sync_all()
        };
        publish().map_err(|error| self.cannot("write", name, error))
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let mut file = self.temporary()?;
        file.write_all(content).map_err(|error| self.cannot("write", &path, error))?;
        self.publish(file, &path)
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
                if bytes.len() as u64 > INDEX_LIMIT {
                    return Err(Error::integrity(format!("{} is larger than any index", path.display())));
                }
                Index::parse(&Document::new(media_type::INDEX, bytes)).map_err(|error| {
                    Error::integrity(format!("{} is damaged", path.display())).because(error)
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Index::new(Vec::new(), Default::default()))
            }
            Err(error) => Err(self.cannot("read", &path, error)),
        }
    }

    /// What this image is called in the index, or the only image that there is.
    fn descriptor(&self) -> Result<Descriptor> {
        let index = self.index()?;
        let images: Vec<_> = index.manifests.iter().filter(|entry| !referrers::is_referrer(entry)).collect();
        let found = match (&self.digest, &self.tag, images.as_slice()) {
            (Some(digest), ..) => match index.manifests.iter().find(|entry| entry.digest == *digest) {
                Some(entry) => Some(entry.clone()),
                None => self.unlisted(digest)?,
            },
            (None, None, [only]) => Some((*only).clone()),
            (None, tag, entries) => {
                let wanted = tag.as_deref().unwrap_or(DEFAULT_TAG);
                entries
                    .iter()
                    .find(|entry| ref_name(entry).is_some_and(|name| name == wanted))
                    .copied()
                    .cloned()
            }
        };
        found.ok_or_else(|| {
            let wanted = match (&self.digest, &self.tag) {
                (Some(digest), _) => format!("no image {digest}"),
                (None, tag) => format!("no image with the tag {:?}", tag.as_deref().unwrap_or(DEFAULT_TAG)),
            };
            let tags: Vec<&str> =
                index.manifests.iter().filter_map(|entry| Some(ref_name(entry)?.as_str())).collect();
            Error::not_found(format!("there is {wanted} in the layout {}", self.directory.display())).hint(
                match tags.is_empty() {
                    true => "it holds no tagged image".to_owned(),
                    false => format!("its tags are {}", tags.join(", ")),
                },
            )
        })
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
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let kind = document
            .get("mediaType")
            .and_then(|kind| kind.as_str())
            .filter(|kind| media_type::is_document(kind));
        Ok(kind.map(|kind| Descriptor::new(kind, digest.clone(), bytes.len() as u64)))
    }

    /// The error for a blob that is not here, which may be meant so.
    fn missing(&self, digest: &Digest) -> Error {
        let error = Error::not_found(format!("the layout {} has no blob {digest}", self.directory.display()));
        match self.descriptor().ok().and_then(|entry| entry.annotations.get(SINCE).cloned()) {
            Some(bases) => error.hint(format!(
                "it holds only what {bases} lacks: copy that image first to where this one shall be"
            )),
            None => error,
        }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn cannot(&self, what: &str, path: &Path, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {}", path.display()), error)
    }
}

impl Source for Layout {
    fn resolve(&self) -> Result<Document> {
        super::fetch(self, &self.descriptor()?)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let path = self.blob(&descriptor.digest);
        open_file(&path).map(Unverified::new).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(&descriptor.digest),
            _ => self.cannot("open the blob", &path, error),
        })
    }

    fn tags(&self) -> Result<Vec<String>> {
        let entries = self.index()?.manifests;
        let tags: BTreeSet<String> = entries.iter().filter_map(|entry| ref_name(entry).cloned()).collect();
        Ok(tags.into_iter().collect())
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.list_referrers(subject)
    }
}

impl Destination for Layout {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.hold_blobs()?;
        match fs::metadata(self.blob(&descriptor.digest)) {
            // Another size: a file system lost the end of it. The right bytes will replace it.
            Ok(found) => Ok(found.is_file() && found.len() == descriptor.size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.cannot("look for", &self.blob(&descriptor.digest), error)),
        }
    }

    fn upload(&self, mut body: Body) -> Result<Written> {
        self.prepare()?;
        let mut file = {
            let _lock = self.lock()?;
            self.temporary()?
        };
        io::copy(&mut body, &mut file)
            .map_err(|error| self.cannot("write a blob to", &self.directory, error))?;
        let written = body.finish()?;
        let path = self.blob(&written.digest);
        self.publish(file, &path)?;
        Ok(written)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        self.upload(Body::new(io::Cursor::new(document.bytes().to_vec())))?;
        self.add_referrer(document)
    }

    fn commit(&self, root: &Document) -> Result<()> {
        let tag = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let digest = &root.descriptor().digest;
        index.manifests.retain(|entry| match ref_name(entry) {
            Some(name) => name != tag,
            // One that is listed by its tag need not be listed as a referrer too.
            None => entry.digest != *digest,
        });
        let mut entry = root.descriptor().clone();
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        index.manifests.push(entry);
        self.replace(INDEX_FILE, Document::write(media_type::INDEX, &index).bytes())
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

/// Opens a file of a layout for reading. Whoever made the layout may have put a named pipe there: opening it must
/// not wait for a writer.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::integrity(format!("{} is no regular file", path.display())).into()),
    }
}

/// What an entry of the index is called.
fn ref_name(entry: &Descriptor) -> Option<&String> {
    entry.annotations.get(REF_NAME)
}

/// Whether this is what a writer leaves that has not written the marker yet, or was killed before.
fn is_ours(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    name == "blobs" || name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(layout: &Layout, content: &'static [u8]) -> Document {
        let document = Document::new(media_type::MANIFEST, content.to_vec());
        layout.put_manifest(&document).unwrap();
        layout.commit(&document).unwrap();
        document
    }

    #[test]
    fn many_writers_at_once_lose_nothing_of_each_other() {
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = directory.path();
                scope.spawn(move || put(&Layout::create(path, Some(&format!("t{n}"))).unwrap(), b"{}"));
            }
        });
        assert_eq!(Layout::open(directory.path(), None, None).unwrap().index().unwrap().manifests.len(), 8);
    }

    #[test]
    fn files_of_a_writer_that_was_killed_are_swept_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".volio-dead"), "x").unwrap();
        let layout = Layout::create(directory.path(), None).unwrap();
        let alive = layout.temporary().unwrap();
        put(&layout, b"{}");
        assert!(alive.path().exists());
        assert!(!directory.path().join(".volio-dead").exists());
    }

    #[test]
    fn an_index_or_a_document_that_is_a_pipe_is_no_hang_either() {
        let directory = tempfile::tempdir().unwrap();
        put(&Layout::create(directory.path(), None).unwrap(), b"{}");
        let pipe = |path: &Path| {
            let _ = fs::remove_file(path);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        };
        let digest = Digest::of(b"not listed");
        let layout = Layout::open(directory.path(), None, Some(digest.clone())).unwrap();
        pipe(&layout.blob(&digest));
        assert_eq!(layout.resolve().unwrap_err().kind(), crate::error::Kind::NotFound);
        let layout = Layout::open(directory.path(), None, None).unwrap();
        pipe(&directory.path().join(INDEX_FILE));
        assert_eq!(layout.resolve().unwrap_err().kind(), crate::error::Kind::Integrity);
    }

    #[test]
    fn without_a_tag_the_only_image_is_meant_and_otherwise_the_latest() {
        let directory = tempfile::tempdir().unwrap();
        let named = |tag| Layout::create(directory.path(), tag).unwrap();
        let one = put(&named(Some("one")), b"{}");
        let open = || Layout::open(directory.path(), None, None).unwrap().resolve();
        assert_eq!(open().unwrap(), one);
        put(&named(Some("two")), b"{} ");
        let error = open().unwrap_err();
        assert_eq!(error.advice(), Some("its tags are one, two"));
        let latest = put(&named(None), b"{}  ");
        assert_eq!(open().unwrap(), latest);
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("precious"), "x").unwrap();
        let error = Layout::create(directory.path(), None).err().unwrap();
        assert_eq!(error.kind(), crate::error::Kind::Refused);
    }

    #[test]
    fn a_blob_that_is_a_pipe_is_an_error_and_no_hang() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path(), None).unwrap();
        layout.prepare().unwrap();
        let descriptor = Descriptor::of("x", b"x");
        let path = layout.blob(&descriptor.digest);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        assert_eq!(layout.open(&descriptor).err().unwrap().kind(), crate::error::Kind::Integrity);
    }
}
