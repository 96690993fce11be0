//! An OCI image layout: a directory with blobs and an index over them (image-spec, "Image Layout").
//!
//! Blobs come by a temporary file, `fsync` and `rename`, so that a blob that has its name is whole. `index.json` is
//! replaced in the same way, under a lock, so that two writers lose nothing of each other.

mod partial;
mod removal;

use super::draft::{Drafts, open_without_waiting};
use super::lock::Locked;
use super::names::{self, Found, INDEX_FILE, INDEX_LIMIT, MARKER, Name, ref_name};
use super::{Destination, Removed, Source, referrers};
use crate::error::{Error, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Index, media_type};
use crate::stream::{Body, Unverified, Written};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What the names of unfinished files begin with.
const TEMPORARY: &str = ".volio-";

/// One image in a layout.
pub struct Layout {
    directory: PathBuf,
    name: Name,
    /// `blobs`, locked against removals.
    held: OnceLock<Locked>,
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
        Ok(Self { directory: directory.to_owned(), name: Name::new(tag, digest), held: OnceLock::new() })
    }

    /// A layout that exists or will: it is made when the first blob arrives.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when the directory holds something else.
    pub fn create(directory: &Path, tag: Option<&str>) -> Result<Self> {
        let layout =
            Self { directory: directory.to_owned(), name: Name::new(tag, None), held: OnceLock::new() };
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
            .hint("name an empty directory, one that does not exist yet, or a layout")),
        }
    }

    /// Makes the directories and the marker where they are missing, and sweeps up after writers that were killed.
    fn prepare(&self) -> Result<()> {
        self.make_directory(&self.directory.join("blobs/sha256"))?;
        self.hold_blobs()?;
        let _lock = self.drafts().lock()?;
        self.drafts().sweep();
        self.sweep_partials();
        match self.directory.join(MARKER.0).exists() {
            true => Ok(()),
            false => self.replace(MARKER.0, MARKER.1.as_bytes()),
        }
    }

    /// Makes the directory for the blobs of another algorithm than the usual.
    fn make_room(&self, digest: &Digest) -> Result<()> {
        self.blob(digest).parent().map_or(Ok(()), |directory| self.make_directory(directory))
    }

    /// Makes a directory with those above it, for good: each is synced in the one that holds it.
    fn make_directory(&self, path: &Path) -> Result<()> {
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

    fn drafts(&self) -> Drafts<'_> {
        Drafts::new(&self.directory, TEMPORARY)
    }

    /// Whether this is what a writer leaves that has not written the marker yet, or was killed before.
    fn is_ours(&self, entry: &fs::DirEntry) -> bool {
        // A file system of its own, such as that of a stick, begins with a lost+found.
        entry.file_name() == "blobs"
            || entry.file_name() == "lost+found"
            || Self::is_partial(&entry.file_name())
            || self.drafts().is_draft(entry)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let mut file = self.drafts().begin()?;
        file.write_all(content).map_err(|error| self.cannot("write", &path, error))?;
        self.drafts().publish(file, &path)
    }

    /// Replaces the index. Needs the lock.
    fn replace_index(&self, index: &Index) -> Result<()> {
        self.replace(INDEX_FILE, Document::write(media_type::INDEX, index).bytes())?;
        self.sweep_forgotten_partials(&self.directory.join(INDEX_FILE));
        Ok(())
    }

    /// Lets a name mean this document from now on.
    fn enter(&self, name: &Name, document: &Document) -> Result<()> {
        let _lock = self.drafts().lock()?;
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
        Ok(Unverified::new(self.open_blob(descriptor)?).again(move |offset| {
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
        let mut file = {
            let _lock = self.drafts().lock()?;
            self.drafts().begin()?
        };
        io::copy(&mut body, &mut file)
            .map_err(|error| self.cannot("write a blob to", &self.directory, error))?;
        let written = body.finish()?;
        self.make_room(&written.digest)?;
        let path = self.blob(&written.digest);
        self.drafts().publish(file, &path)?;
        Ok(written)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        self.upload(Body::new(io::Cursor::new(document.bytes().to_vec())))?;
        let Some(entry) = referrers::entry(document) else { return Ok(()) };
        let _lock = self.drafts().lock()?;
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
    let file = open_without_waiting(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::integrity(format!("{} is no regular file", path.display())).into()),
    }
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
        let alive = layout.drafts().begin().unwrap();
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
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
                .unwrap();
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
    fn a_file_system_of_its_own_and_parts_of_blobs_are_room_for_a_layout() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("lost+found")).unwrap();
        fs::write(directory.path().join(".volio.partial-sha256-00"), "x").unwrap();
        put(&Layout::create(directory.path(), None).unwrap(), b"{}");
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
