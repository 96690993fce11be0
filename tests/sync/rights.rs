//! Files of other users, names that are volio's own, and space, before anything is written.

use super::{Fixture, PathFilter, quick, run};
use crate::images::partial::Counting;
use crate::snapshot::assert_same;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use volio::Location;
use volio::progress::Silent;
use volio::transport::Access;
use volio::unpack::{Options, SyncOptions, WriteMode, unpack};

/// The user who owns the target.
const USER: u32 = 12345;

/// Runs volio as that user, and returns its output.
fn volio(place: &Path, arguments: &str) -> String {
    let output = Command::new("setpriv")
        .args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "./volio"])
        .args(arguments.split(' '))
        .current_dir(place)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {text}");
    text.into_owned()
}

#[test]
fn a_file_of_another_user_is_replaced_by_one_of_the_user_who_syncs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // By another process: a program that is open for writing, also in a child of another test, cannot be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_volio")).arg(at("volio")).status();
    assert!(copied.unwrap().success());
    fs::create_dir(at("tree")).unwrap();
    for name in ["same", "closed", "empty"] {
        fs::write(at("tree").join(name), if name == "empty" { "" } else { "content" }).unwrap();
        super::set_mtime(&at("tree").join(name), 1_500_000_000);
        chown(at("tree").join(name), Some(USER), Some(USER)).unwrap();
    }
    fs::create_dir(at("work")).unwrap();
    for directory in ["tree", "work"] {
        chown(at(directory), Some(USER), Some(USER)).unwrap();
    }
    volio(place.path(), "pack oci:work/image:v1 tree");
    volio(place.path(), "unpack oci:work/image:v1 work/out");
    for name in ["same", "closed", "empty"] {
        chown(at("work/out").join(name), Some(0), Some(0)).unwrap();
    }
    fs::set_permissions(at("work/out/closed"), fs::Permissions::from_mode(0o666)).unwrap();
    volio(place.path(), "unpack --sync oci:work/image:v1 work/out");
    for name in ["same", "closed", "empty"] {
        assert_eq!(fs::metadata(at("work/out").join(name)).unwrap().uid(), USER, "{name}");
    }
    assert_same(&at("tree"), &at("work/out"));
    let again = volio(place.path(), "unpack --sync oci:work/image:v1 work/out");
    assert!(again.contains("wrote 0 entries"), "{again}");
}

#[test]
fn names_of_the_record_are_left_out_as_by_an_unpack_and_then_nothing_is_left_to_do() {
    let fixture = Fixture::new(&[("a", b"one")]);
    for name in [".volio.made", ".volio.json.new", "below/.volio.made"] {
        fixture.write(name, b"of the image");
    }
    fixture.write(".volio.spool/below", b"of the image");
    fixture.write("a", b"another");
    fixture.pack();
    let done = fixture.sync();
    assert_eq!(done.written, 3, "a, below, and the file in it: {done:?}");
    let exists = |name: &str| fixture.target().join(name).exists();
    assert!(!exists(".volio.made") && !exists(".volio.json.new") && exists("below/.volio.made"));
    let done = fixture.sync();
    assert_eq!((done.written, done.attributes, done.removed), (0, 0, 0), "{done:?}");
}

#[test]
fn a_first_sync_fetches_what_an_unpack_with_the_same_options_fetches() {
    let fixture = Fixture::new(&[("dir/dead", &super::noise(1, 3 << 20)), ("dir/a", b"one"), ("top", b"x")]);
    let layout = format!("oci:{}:v", fixture.at("layout").display());
    let tree = fixture.tree().display().to_string();
    let pack = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_volio"))
            .arg("pack")
            .args(options)
            .args([&layout, &tree])
            .output();
        assert!(output.unwrap().status.success());
    };
    pack(&[]);
    fixture.write("dir/dead", b"replaced");
    pack(&["--incremental", "--allow-shrink", "--max-dead", "100"]);
    let location: Location = layout.parse().unwrap();
    let access = Access::default();
    let image = location.source(&access).unwrap();
    let filters = [PathFilter::All, PathFilter::Strip(1), PathFilter::Subpath(super::path("dir"))];
    for (number, filter) in filters.into_iter().enumerate() {
        let at = |name: &str| fixture.at(&format!("{name}{number}"));
        let plain = Counting::new(image.as_ref());
        let options = Options { filter: filter.clone(), ..quick(WriteMode::InPlace) };
        let unpacked = unpack(&plain, &at("plain"), &options, &Silent).unwrap();
        let counting = Counting::new(image.as_ref());
        let first = run(&counting, &at("sync"), SyncOptions::default(), filter.clone()).unwrap();
        assert_eq!(counting.taken(), plain.taken(), "{filter:?}");
        assert_eq!(first.sync.unwrap().fetched, unpacked.fetched.bytes, "{filter:?}");
        for root in ["plain", "sync"] {
            super::set_mtime(&at(root), 5);
        }
        assert_same(&at("plain"), &at("sync"));
    }
}
