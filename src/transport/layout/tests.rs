//! Layouts that several processes use at once, and layouts that were made by others.

use super::directory::LayoutDirectory;
use super::*;
use crate::error::Kind;
use crate::transport::Removal;
use std::ffi::OsStr;
use std::os::unix::fs::symlink;

fn put(layout: &Layout, content: &'static [u8]) -> Document {
    let document = Document::new(media_type::MANIFEST, content.to_vec());
    layout.put_manifest(&document).unwrap();
    layout.commit(&document).unwrap();
    document
}

/// An image without layers. Its digest depends on the number.
fn image(layout: &Layout, number: u32) -> Document {
    let config = Digest::of(&number.to_le_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":4}},"layers":[]}}"#,
        media_type::MANIFEST,
        media_type::CONFIG,
    );
    put(layout, manifest.leak().as_bytes())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
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
fn temporary_files_of_a_killed_writer_are_removed_and_others_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".volio-dead"), "x").unwrap();
    let layout = Layout::create(directory.path(), None).unwrap();
    let alive = layout.existing_directory().unwrap().create_file().unwrap();
    put(&layout, b"{}");
    let named = OsStr::new("alive");
    alive.publish(layout.existing_directory().unwrap().root(), named).unwrap();
    assert!(directory.path().join(named).exists());
    assert!(!directory.path().join(".volio-dead").exists());
}

#[test]
fn an_index_or_a_document_that_is_a_named_pipe_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    put(&Layout::create(directory.path(), None).unwrap(), b"{}");
    let pipe = |path: &Path| {
        let _ = fs::remove_file(path);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
    };
    let digest = Digest::of(b"not listed");
    let layout = Layout::open(directory.path(), None, Some(digest.clone())).unwrap();
    pipe(&layout.blob_path(&digest));
    assert_eq!(layout.resolve().unwrap_err().kind(), Kind::NotFound);
    let layout = Layout::open(directory.path(), None, None).unwrap();
    pipe(&directory.path().join(INDEX_FILE));
    assert_eq!(layout.resolve().unwrap_err().kind(), Kind::Integrity);
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
    assert_eq!(error.hint(), Some("its tags are one, two"));
    let latest = put(&named(None), b"{}  ");
    assert_eq!(open().unwrap(), latest);
}

#[test]
fn a_directory_with_something_else_in_it_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("precious"), "x").unwrap();
    let error = Layout::create(directory.path(), None).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
}

#[test]
fn a_layout_may_be_created_beside_lost_and_found_and_parts_of_blobs() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    fs::write(directory.path().join(".volio.partial-sha256-00"), "x").unwrap();
    put(&Layout::create(directory.path(), None).unwrap(), b"{}");
}

#[test]
fn a_blob_that_is_a_named_pipe_is_an_error_and_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path(), None).unwrap();
    layout.prepare().unwrap();
    let descriptor = Descriptor::of("x", b"x");
    let path = layout.blob_path(&descriptor.digest);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert_eq!(layout.open(&descriptor).err().unwrap().kind(), Kind::Integrity);
}

#[test]
fn nothing_is_written_or_removed_through_a_link_in_a_layout() {
    for link in ["blobs", "blobs/sha256"] {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let layout = || Layout::create(directory.path(), None).unwrap();
        let document = put(&layout(), b"{}");
        // The content is outside now, and the link leads there.
        let path = directory.path().join(link);
        fs::rename(&path, outside.path().join("moved")).unwrap();
        symlink(outside.path().join("moved"), &path).unwrap();
        let blob = layout().blob_path(&document.descriptor().digest);
        assert!(blob.exists(), "what is read is proved, so links are followed");
        let before = files(blob.parent().unwrap());

        let error = layout().upload(Body::new(&b"data"[..])).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains(&format!("{link} is not a directory of the layout")), "{error}");
        assert_eq!(layout().contains(document.descriptor()).unwrap_err().kind(), Kind::Refused);
        let opened = Layout::open(directory.path(), None, None).unwrap();
        assert_eq!(opened.resolve().unwrap(), document);
        assert_eq!(opened.remove(false).unwrap_err().kind(), Kind::Refused);
        assert_eq!(files(blob.parent().unwrap()), before, "{link}");
    }
}

#[test]
fn a_link_with_the_name_of_a_file_is_replaced_and_its_target_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let precious = tempfile::NamedTempFile::new().unwrap();
    fs::write(precious.path(), "precious").unwrap();
    let layout = || Layout::create(directory.path(), None).unwrap();
    put(&layout(), b"{}");
    let blob = Descriptor::of("x", b"data");
    for name in [layout().blob_path(&blob.digest), directory.path().join(INDEX_FILE)] {
        let _ = fs::remove_file(&name);
        symlink(precious.path(), &name).unwrap();
        layout().upload(Body::new(&b"data"[..])).unwrap();
        fs::write(precious.path(), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        put(&layout(), b"{}");
        assert!(fs::symlink_metadata(&name).unwrap().is_file());
    }
    assert_eq!(fs::read_to_string(precious.path()).unwrap(), r#"{"schemaVersion":2,"manifests":[]}"#);
}

#[test]
fn the_wait_for_the_lock_of_a_layout_ends() {
    let directory = tempfile::tempdir().unwrap();
    put(&Layout::create(directory.path(), None).unwrap(), b"{}");
    let layout = || {
        let mut layout = Layout::create(directory.path(), None).unwrap();
        layout.lock_timeout = Duration::from_millis(30);
        layout
    };
    // Any user with read access to the layout can do this.
    let held =
        FileLock::shared(File::open(directory.path()).unwrap(), directory.path(), LOCK_TIMEOUT).unwrap();
    let upload = |layout: Layout| layout.upload(Body::new(&b"data"[..]));
    let error = upload(layout()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("cannot lock") && error.hint().is_some(), "{error}");
    assert_eq!(layout().remove(false).unwrap_err().kind(), Kind::Refused);
    drop(held);
    let blobs = directory.path().join("blobs");
    let held = FileLock::exclusive(File::open(&blobs).unwrap(), &blobs, LOCK_TIMEOUT).unwrap();
    assert_eq!(upload(layout()).unwrap_err().kind(), Kind::Refused);
    drop(held);
    upload(layout()).unwrap();
}

#[test]
fn blobs_that_a_removal_left_are_deleted_with_the_next_change() {
    let directory = tempfile::tempdir().unwrap();
    let layout = |tag| Layout::create(directory.path(), Some(tag)).unwrap();
    let (gone, kept) = (image(&layout("gone"), 1), image(&layout("kept"), 2));
    let is_there = |document: &Document| layout("x").blob_path(&document.descriptor().digest).exists();
    let writer = layout("writer");
    writer.lock_blobs().unwrap();
    let removed = layout("gone").remove(false).unwrap();
    assert!(removed.blobs == 0 && removed.blobs_left.unwrap().contains("somebody is writing"));
    // Neither the writer nor another one deletes them meanwhile.
    writer.upload(Body::new(&b"more"[..])).unwrap();
    layout("other").upload(Body::new(&b"other"[..])).unwrap();
    assert!(is_there(&gone));
    drop(writer);
    layout("next").upload(Body::new(&b"next"[..])).unwrap();
    assert!(!is_there(&gone) && is_there(&kept));
    assert!(!directory.path().join(removal::PENDING_FILE).exists());

    // A removal deletes them too, unless the image was stored again.
    let (gone, back) = (image(&layout("gone"), 1), image(&layout("back"), 3));
    let writer = layout("writer");
    writer.lock_blobs().unwrap();
    layout("gone").remove(false).unwrap();
    layout("back").remove(false).unwrap();
    assert_eq!(image(&writer, 3), back);
    drop(writer);
    let removed = layout("kept").remove(false).unwrap();
    assert_eq!((removed.blobs, removed.blobs_left), (2, None));
    assert!(!is_there(&gone) && !is_there(&kept) && is_there(&back));
}

#[test]
fn a_layout_is_changed_in_the_directory_that_was_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (named, moved) = (directory.path().join("layout"), directory.path().join("moved"));
    fs::create_dir(&named).unwrap();
    let opened = LayoutDirectory::open(&named).unwrap();
    fs::rename(&named, &moved).unwrap();
    symlink("elsewhere", &named).unwrap();
    opened.replace("file", b"content").unwrap();
    assert_eq!(fs::read(moved.join("file")).unwrap(), b"content");
}
