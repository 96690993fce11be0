//! Other processes that change the target after it was compared, and images that lie in the target.

use super::{FORCE, Fixture, path, quick, set_mtime, synced};
use crate::snapshot::{assert_same, snapshot};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use volio::Result;
use volio::error::Kind;
use volio::pack;
use volio::progress::{Phase, Progress, Silent, Task, TaskInfo};
use volio::transport::Source;
use volio::transport::layout::Layout;
use volio::transport::oci_archive::{OciArchive, OciArchiveWriter};
use volio::tree::SourceSpec;
use volio::unpack::{SyncOptions, Unpacked, WriteMode, unpack};

type Meddle = Arc<dyn Fn() + Send + Sync>;

/// A listener that does something when everything is compared, and nothing is changed so far.
struct AfterComparison(Meddle);

struct Ends(Option<Meddle>);

impl Progress for AfterComparison {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        Box::new(Ends((info.phase == Phase::ComparingContents).then(|| Arc::clone(&self.0))))
    }

    fn warn(&self, _: &str) {}
}

impl Task for Ends {
    fn advance(&self, _: u64) {}

    fn skip(&self) {}
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(meddle) = self.0.take() {
            meddle();
        }
    }
}

/// Syncs, and calls `meddle` with the target between the comparison and the first change.
fn raced(fixture: &Fixture, meddle: impl Fn(&Path) + Send + Sync + 'static) -> Result<Unpacked> {
    let target = fixture.target();
    let progress = AfterComparison(Arc::new(move || meddle(&target)));
    let options = quick(WriteMode::Sync(SyncOptions::default()));
    unpack(&fixture.image, &fixture.target(), &options, &progress)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Packs the tree with layers that have no table of contents.
fn pack_without_tables(fixture: &Fixture) {
    let options = pack::Options { compression: "gzip".parse().unwrap(), ..pack::Options::default() };
    pack::pack(&fixture.image, &[SourceSpec::new(fixture.tree())], &options, &Silent).unwrap();
}

#[test]
fn a_file_that_changes_after_it_was_compared_is_written_from_the_image() {
    for has_tables in [true, false] {
        let fixture = Fixture::new(&[("same-size", b"content"), ("longer", b"content"), ("other", b"x")]);
        for name in ["same-size", "longer"] {
            set_mode(&fixture.tree().join(name), 0o600);
        }
        if has_tables {
            fixture.pack();
        } else {
            pack_without_tables(&fixture);
        }
        raced(&fixture, |target| {
            for (name, content) in [("same-size", "meddled"), ("longer", "something longer")] {
                let mtime = fs::metadata(target.join(name)).unwrap().mtime();
                fs::write(target.join(name), content).unwrap();
                set_mtime(&target.join(name), mtime);
            }
        })
        .unwrap();
        assert_same(&fixture.tree(), &fixture.target());
    }
}

#[test]
fn all_names_of_a_file_that_cannot_be_changed_in_place_are_made_again() {
    let fixture = Fixture::new(&[("f", b"content"), ("z", b"x")]);
    fs::hard_link(fixture.tree().join("f"), fixture.tree().join("g")).unwrap();
    fixture.update();
    set_mode(&fixture.target().join("f"), 0o600);
    let outside = fixture.at("outside");
    let link = outside.clone();
    raced(&fixture, move |target| fs::hard_link(target.join("f"), &link).unwrap()).unwrap();
    assert_same(&fixture.tree(), &fixture.target());
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&fixture.target().join("f")), inode(&fixture.target().join("g")));
    assert_ne!(inode(&outside), inode(&fixture.target().join("g")));
}

#[test]
fn a_file_that_shares_its_inode_with_one_that_gets_its_own_is_changed_in_place() {
    let fixture = Fixture::new(&[("a", b"content"), ("z", b"x")]);
    fs::hard_link(fixture.tree().join("a"), fixture.tree().join("b")).unwrap();
    fixture.update();
    let before = fs::metadata(fixture.target().join("a")).unwrap().ino();
    fs::remove_file(fixture.tree().join("b")).unwrap();
    fixture.write("b", b"content of its own");
    set_mode(&fixture.tree().join("a"), 0o600);
    let done = fixture.update();
    assert_eq!((done.written, done.attributes), (1, 2), "{done:?}");
    assert_eq!(fs::metadata(fixture.target().join("a")).unwrap().ino(), before);
}

#[test]
fn a_directory_that_takes_the_place_of_a_file_after_the_comparison_keeps_its_contents() {
    for case in ["attributes", "content", "extra", "link"] {
        let fixture = Fixture::new(&[("f", b"content"), ("z", b"x")]);
        match case {
            "attributes" => set_mode(&fixture.tree().join("f"), 0o600),
            "content" => fixture.write("f", b"other content"),
            "extra" => fs::remove_file(fixture.tree().join("f")).unwrap(),
            _ => {
                fs::remove_file(fixture.tree().join("f")).unwrap();
                fs::hard_link(fixture.tree().join("z"), fixture.tree().join("f")).unwrap();
            }
        }
        {
            fixture.pack();
        };
        let replaced = raced(&fixture, |target| {
            fs::remove_file(target.join("f")).unwrap();
            fs::create_dir(target.join("f")).unwrap();
            fs::write(target.join("f/mine"), "mine").unwrap();
        });
        let error = replaced.unwrap_err();
        assert!(error.to_string().contains("was replaced by a directory"), "{case}: {error}");
        assert_eq!(fs::read(fixture.target().join("f/mine")).unwrap(), b"mine", "{case}");
        // The next run sees it.
        fixture.sync();
        assert_same(&fixture.tree(), &fixture.target());
    }
}

#[test]
fn contents_that_the_target_has_are_used_for_layers_without_a_table_of_contents() {
    let fixture = Fixture::new(&[("p", &[7; 50_000]), ("q", &[7; 50_000]), ("z", b"x")]);
    pack_without_tables(&fixture);
    fixture.sync();
    // Two names of one file where the image has two files.
    fs::remove_file(fixture.target().join("q")).unwrap();
    fs::hard_link(fixture.target().join("p"), fixture.target().join("q")).unwrap();
    fixture.sync();
    assert_same(&fixture.tree(), &fixture.target());
    // A name outside of the target.
    fs::hard_link(fixture.target().join("p"), fixture.at("outside")).unwrap();
    set_mode(&fixture.target().join("p"), 0o600);
    fixture.sync();
    assert_same(&fixture.tree(), &fixture.target());
    assert_eq!(fs::metadata(fixture.at("outside")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_image_that_lies_in_the_target_is_not_removed() {
    let fixture = Fixture::new(&[("a", b"one"), ("b", b"two")]);
    let sources = [SourceSpec::new(fixture.tree())];
    let pack = |to: &dyn volio::transport::Destination| {
        pack::pack(to, &sources, &pack::Options::default(), &Silent).unwrap()
    };
    #[track_caller]
    fn refused(from: &dyn Source, target: &Path) {
        let before = snapshot(target);
        for how in [SyncOptions::default(), super::DRY, FORCE] {
            let error = synced(from, target, how).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{error}");
        }
        assert!(synced(from, target, FORCE).unwrap_err().to_string().contains("lies in"));
        assert_eq!(snapshot(target), before, "nothing was changed");
    }
    let layout = fixture.target().join("deep/layout");
    fs::create_dir(fixture.target().join("deep")).unwrap();
    pack(&Layout::create(&layout, Some("1")).unwrap());
    refused(&Layout::open(&layout, Some("1"), None).unwrap(), &fixture.target());
    // A part of it, and itself.
    refused(&Layout::open(&layout, Some("1"), None).unwrap(), &layout.join("blobs"));
    refused(&Layout::open(&layout, Some("1"), None).unwrap(), &layout);
    fs::remove_dir_all(fixture.target().join("deep")).unwrap();
    let archive = fixture.target().join("image.tar");
    pack(&OciArchiveWriter::create(&archive, Some("1")).unwrap());
    refused(&OciArchive::open(&archive, Some("1"), None).unwrap(), &fixture.target());
    // Beside the target it may lie.
    let beside = fixture.at("image.tar");
    fs::rename(&archive, &beside).unwrap();
    synced(&OciArchive::open(&beside, Some("1"), None).unwrap(), &fixture.target(), FORCE).unwrap();
    assert_same(&fixture.tree(), &fixture.target());
}

#[test]
fn a_lost_and_found_of_the_image_is_synced_and_an_empty_one_of_root_stays() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // A lost+found in the root of a source is left out, so that it is given as a source of its own.
    let fixture = Fixture::new(&[("r/file", b"x"), ("lost/a", b"one"), ("lost/b", b"two")]);
    let pack = |has_lost: bool| {
        let found = SourceSpec::new(fixture.tree().join("lost")).at(path("lost+found"));
        let sources = [SourceSpec::new(fixture.tree().join("r")), found];
        let sources = if has_lost { &sources[..] } else { &sources[..1] };
        pack::pack(&fixture.image, sources, &pack::Options::default(), &Silent).unwrap();
    };
    let lost = fixture.target().join("lost+found");
    pack(true);
    fixture.sync();
    assert_eq!(fs::read(lost.join("b")).unwrap(), b"two");
    fs::remove_file(fixture.tree().join("lost/b")).unwrap();
    fixture.write("lost/a", b"changed");
    pack(true);
    fixture.sync();
    assert!(!lost.join("b").exists());
    assert_eq!(fs::read(lost.join("a")).unwrap(), b"changed");
    assert_eq!(fixture.sync().written, 0);
    pack(false);
    fixture.sync();
    assert!(!lost.exists());
    fs::create_dir(&lost).unwrap();
    let done = fixture.sync();
    assert_eq!(done.removed, 0, "{done:?}");
    assert!(lost.exists());
}
