//! Archives that other programs wrote, including malformed and hostile ones.

use super::header::{self, BLOCK};
use super::{ArchiveWriter, Closing, TarArchive};
use crate::error::Kind;
use crate::oci::{Descriptor, Digest, Hasher};
use crate::stream::{Body, Unverified};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use tar::{EntryType, Header};

/// Writes an archive. The third value is the content of a file or the target of a link.
fn write(path: &Path, members: &[(&str, EntryType, &str)]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, kind, content) in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        // The setter of the crate rejects hostile names.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        let is_file = *kind == EntryType::Regular;
        if !is_file {
            header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        let content = if is_file { content.as_bytes() } else { b"" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    tar.finish().unwrap();
}

fn archive(members: &[(&str, EntryType, &str)]) -> TarArchive {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&path, members);
    TarArchive::open(&path).unwrap()
}

fn text(archive: &TarArchive, name: &str) -> crate::Result<Option<String>> {
    Ok(archive.read(name, 100)?.map(|bytes| String::from_utf8(bytes).unwrap()))
}

const FILE: EntryType = EntryType::Regular;

#[test]
fn members_are_found_by_their_normalized_names() {
    let archive = archive(&[("./a//b", FILE, "1"), ("c", FILE, ""), ("d/../e", FILE, "2")]);
    assert_eq!(text(&archive, "a/b").unwrap().as_deref(), Some("1"));
    assert_eq!(text(&archive, "c").unwrap().as_deref(), Some(""));
    assert_eq!(text(&archive, "e").unwrap().as_deref(), Some("2"));
    assert_eq!(text(&archive, "b").unwrap(), None);
}

#[test]
fn of_members_with_the_same_name_the_last_counts_as_after_unpacking() {
    let archive = archive(&[("a", FILE, "1"), ("./a", FILE, "2")]);
    assert_eq!(text(&archive, "a").unwrap().as_deref(), Some("2"));
}

#[test]
fn names_outside_of_the_archive_are_not_found() {
    let archive = archive(&[("../a", FILE, "1"), ("x/../../b", FILE, "2"), ("/c", FILE, "3")]);
    for name in ["../a", "a", "b", "x/../../b"] {
        assert_eq!(text(&archive, name).unwrap(), None, "{name}");
    }
    for name in ["c", "/c", "./c", "x/../c"] {
        assert_eq!(text(&archive, name).unwrap().as_deref(), Some("3"), "{name}");
    }
}

#[test]
fn links_lead_to_members_or_nowhere() {
    let (soft, hard) = (EntryType::Symlink, EntryType::Link);
    let archive = archive(&[
        ("a/layer.tar", FILE, "1"),
        ("b/layer.tar", soft, "../a/layer.tar"),
        ("c", hard, "a/layer.tar"),
        ("d", soft, "/etc/passwd"),
        ("e", soft, "../../etc/passwd"),
        ("f", hard, "../a"),
        ("g", soft, "h"),
        ("h", soft, "g"),
        ("i", soft, "absent"),
        ("j", EntryType::Fifo, ""),
        ("k/", EntryType::Directory, ""),
        ("l", EntryType::GNUSparse, ""),
    ]);
    for name in ["b/layer.tar", "c"] {
        assert_eq!(text(&archive, name).unwrap().as_deref(), Some("1"), "{name}");
    }
    for name in ["d", "e", "f", "g", "h", "i", "j", "k", "l"] {
        assert_eq!(text(&archive, name).unwrap_err().kind(), Kind::Integrity, "{name}");
    }
}

#[test]
fn an_archive_that_is_cut_anywhere_is_an_error_or_lacks_members() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&path, &[("a", FILE, &"1".repeat(90)), ("b", FILE, &"2".repeat(90))]);
    let whole = fs::read(&path).unwrap();
    for length in 1..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        match TarArchive::open(&path) {
            Ok(archive) => {
                assert!(length >= BLOCK + 90, "{length}");
                assert_eq!(text(&archive, "a").unwrap(), Some("1".repeat(90)));
                assert_eq!(archive.has("b"), length >= 3 * BLOCK + 90);
            }
            Err(error) => assert_eq!(error.kind(), Kind::Integrity, "{length}"),
        }
    }
}

#[test]
fn an_archive_that_is_truncated_while_it_is_open_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&path, &[("a", FILE, "1234")]);
    let archive = TarArchive::open(&path).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(BLOCK as u64 + 2).unwrap();
    assert_eq!(text(&archive, "a").unwrap_err().kind(), Kind::Integrity);
}

#[test]
fn a_file_that_is_not_an_archive_is_reported_with_its_kind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    for (content, hint) in [
        (&b"\x1f\x8b\x08"[..], "gunzip"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
        (b"BZh9", "bunzip2"),
        (b"text", "docker save"),
    ] {
        fs::write(&path, [content, &[7; 600]].concat()).unwrap();
        let error = TarArchive::open(&path).err().unwrap();
        assert_eq!(error.kind(), Kind::Integrity);
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
    }
    let error = TarArchive::open(directory.path()).err().unwrap();
    assert!(error.hint().unwrap().contains("oci:DIR"), "{error:?}");
    assert_eq!(TarArchive::open(&directory.path().join("absent")).err().unwrap().kind(), Kind::NotFound);
}

#[test]
fn a_named_pipe_is_an_error_and_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(TarArchive::open(&path).err().unwrap().kind(), Kind::Usage);
    assert_eq!(ArchiveWriter::create(&path, |_| Ok(())).err().unwrap().kind(), Kind::Usage);
}

#[test]
fn the_list_of_members_has_a_memory_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
    for n in 0..40 {
        let name = format!("{n}{}", "/n".repeat(450_000));
        tar.append_pax_extensions([("path", name.as_bytes())]).unwrap();
        let mut header = Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_cksum();
        tar.append(&header, &b""[..]).unwrap();
    }
    tar.finish().unwrap();
    let error = TarArchive::open(&path).err().unwrap();
    assert!(error.to_string().contains("more members"), "{error}");
}

#[test]
fn headers_with_every_name_and_size_are_read_by_another_program() {
    for algorithm in [crate::oci::Algorithm::Sha256, crate::oci::Algorithm::Sha512] {
        let name = format!("blobs/{}/{}", algorithm.name(), Hasher::new(algorithm).finish().hex());
        let header_len = header::encode(&name, 0).unwrap().len();
        for size in [0, 1, (8 << 30) - 1, 8 << 30, 1 << 42] {
            let header = header::encode(&name, size).unwrap();
            assert_eq!(header.len(), header_len, "the length does not depend on the size");
            let mut independent = tar::Archive::new(header.as_slice());
            let entry = independent.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(entry.path().unwrap(), Path::new(&name));
            assert_eq!((entry.size(), entry.header().mtime().unwrap()), (size, 0));
        }
    }
}

fn add(writer: &ArchiveWriter, content: &'static [u8]) {
    writer.add(Body::new(content), |digest| digest.hex().to_owned()).unwrap();
}

fn publish(writer: &ArchiveWriter) {
    let last = vec![("list".to_owned(), b"list".to_vec())];
    writer.publish(|_| Ok(Closing { last, dropped: Default::default() })).unwrap();
}

#[test]
fn the_members_of_an_archive_are_kept_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(
        &path,
        &[("../odd", FILE, "1"), ("link", EntryType::Symlink, "b"), ("list", FILE, "old"), ("b", FILE, "2")],
    );
    let writer = ArchiveWriter::create(&path, |_| Ok(())).unwrap();
    add(&writer, b"new");
    publish(&writer);
    let mut independent = tar::Archive::new(fs::File::open(&path).unwrap());
    let names: Vec<String> = independent
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
        .collect();
    assert_eq!(names, [Digest::of(b"new").hex().as_str(), "../odd", "link", "b", "list"]);
    let archive = TarArchive::open(&path).unwrap();
    assert_eq!(text(&archive, "link").unwrap().as_deref(), Some("2"));
    assert_eq!(text(&archive, "list").unwrap().as_deref(), Some("list"));
}

#[test]
fn members_that_were_reported_are_kept_although_the_file_was_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&path, &[("a", FILE, "1"), ("b", FILE, "2")]);
    let writer = ArchiveWriter::create(&path, |_| Ok(())).unwrap();
    let has = |name: &str, bytes: &[u8]| writer.contains(name, &Descriptor::of("x", bytes)).unwrap();
    assert!(has("a", b"1") && !has("b", b"22"));
    assert!(!has("b", b"3"), "of the right size, and damaged");
    fs::remove_file(&path).unwrap();
    publish(&writer);
    let archive = TarArchive::open(&path).unwrap();
    assert!(archive.has("a") && !archive.has("b"));
}

#[test]
fn an_archive_that_is_truncated_while_it_is_copied_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&path, &[("a", FILE, &"1".repeat(2000))]);
    let writer = ArchiveWriter::create(&path, |_| Ok(())).unwrap();
    let outcome = writer.publish(|_| {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(BLOCK as u64 + 2).unwrap();
        Ok(Closing { last: Vec::new(), dropped: Default::default() })
    });
    assert_eq!(outcome.unwrap_err().kind(), Kind::Integrity);
    assert_eq!(fs::metadata(&path).unwrap().len(), BLOCK as u64 + 2, "it was not replaced");
}

#[test]
fn of_members_with_the_same_name_only_the_last_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&path, &[("a", FILE, "1"), ("b", FILE, "3"), ("./a", FILE, "2")]);
    publish(&ArchiveWriter::create(&path, |_| Ok(())).unwrap());
    let archive = TarArchive::open(&path).unwrap();
    assert_eq!(archive.members.len(), 3, "a, b and the list");
    assert_eq!(text(&archive, "a").unwrap().as_deref(), Some("2"));
}

#[test]
fn a_failed_upload_leaves_nothing_in_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let writer = ArchiveWriter::create(&path, |_| Ok(())).unwrap();
    add(&writer, b"first");
    let lie = Unverified::new(&[7u8; 5000][..]).verify(&crate::oci::Descriptor::of("x", &[8; 5000]));
    assert_eq!(writer.add(lie, |digest| digest.hex().to_owned()).unwrap_err().kind(), Kind::Integrity);
    add(&writer, b"second");
    add(&writer, b"first");
    publish(&writer);
    let other = directory.path().join("b.tar");
    let writer = ArchiveWriter::create(&other, |_| Ok(())).unwrap();
    add(&writer, b"first");
    add(&writer, b"second");
    publish(&writer);
    assert!(fs::read(&path).unwrap() == fs::read(&other).unwrap(), "failures leave no trace in the bytes");
}

#[test]
fn temporary_files_of_a_killed_writer_are_removed_and_a_link_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("a.tar"), directory.path().join("link.tar"));
    fs::write(directory.path().join(".volio-archive-dead"), "x").unwrap();
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("a.tar", &link).unwrap();
    let writer = ArchiveWriter::create(&link, |_| Ok(())).unwrap();
    add(&writer, b"1");
    publish(&writer);
    assert!(!directory.path().join(".volio-archive-dead").exists());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640, "the new file has the mode of the old one");
    let mut content = String::new();
    TarArchive::open(&path).unwrap().find("list").unwrap().unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "list");
}

#[test]
fn a_file_shorter_than_a_header_is_not_reported_as_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    for (content, hint) in [
        (&b"short"[..], "an archive is what docker save"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
        (&[b'x'; BLOCK - 1], "an archive is what docker save"),
    ] {
        fs::write(&path, content).unwrap();
        let error = TarArchive::open(&path).err().unwrap();
        assert_eq!(error.kind(), Kind::Integrity);
        assert!(error.to_string().ends_with("is not a tar archive"), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
    }
}

#[test]
fn an_archive_of_another_user_keeps_its_owner() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !rustix::process::geteuid().is_root() {
        return crate::disk::tests::skipped("an archive of another user, because that takes root");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&path, &[("a", FILE, "1")]);
    chown(&path, Some(1234), Some(2345)).unwrap();
    publish(&ArchiveWriter::create(&path, |_| Ok(())).unwrap());
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid()), (1234, 2345));
}

#[test]
fn a_lock_on_the_directory_does_not_block_a_writer() {
    let directory = tempfile::tempdir().unwrap();
    // Any user with read access to the directory can do this.
    let held = File::open(directory.path()).unwrap();
    held.try_lock().unwrap();
    let path = directory.path().join("a.tar");
    publish(&ArchiveWriter::create(&path, |_| Ok(())).unwrap());
    let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [path], "the lock file is removed");
}
