//! A `prune` that is killed, and several at once, by the program.

use super::registry::{client, index_of, manifest, plant, plant_signature, registry, tags};
use crate::registry::{Deletes, Registry};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use tempfile::TempDir;
use volio::oci::{Digest, attachment_tags, media_type};
use volio::progress::Silent;
use volio::transport::BulkRemoval;
use volio::transport::layout::Layout;
use volio::{Source, verify};

fn volio(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command
        .args(arguments)
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn prune(place: &str, keep: &str) -> Command {
    let blob_age = if place.starts_with("oci:") { "0" } else { "24" };
    volio(&["prune", "--keep-last", keep, "--tag-template", "d-{date}", "--blob-age", blob_age, place])
}

fn successful(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Kills the process when the condition is true, unless it has ended before. Returns whether it was killed.
fn kill_when(mut child: Child, condition: impl Fn() -> bool) -> bool {
    while !condition() && child.try_wait().unwrap().is_none() {
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

fn image(day: u32) -> Vec<u8> {
    manifest(&format!(r#""day":"{day}""#))
}

/// A registry with six images and a signature of each, and an index of two of them that stays.
fn signed(deletes: Deletes) -> (Registry, Vec<String>) {
    let registry = registry(deletes, 6);
    let name = format!("{}/data:v1", registry.host());
    let signatures = (1..=6).map(|day| plant_signature(&registry, &image(day), &name)).collect();
    registry.plant("data", "both", media_type::INDEX, index_of(&[&image(1), &image(6)]));
    (registry, signatures)
}

#[test]
fn a_prune_of_a_registry_that_was_killed_between_removals_is_completed_by_the_next() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        for answers in 0.. {
            let (registry, signatures) = signed(deletes);
            let place = format!("{}/data", registry.host());
            let is_there = |day: u32| client(&registry).has_image(&Digest::of(&image(day))).unwrap();
            // After so many answers the registry is down, and the program tries again until it is killed.
            registry.behave(|behaviour| behaviour.limits_requests = Some(answers));
            let was_killed =
                kill_when(prune(&place, "2").spawn().unwrap(), || registry.requests().len() > answers);
            registry.behave(|behaviour| behaviour.limits_requests = None);
            let assert_kept = || {
                let left = tags(&registry);
                for tag in [
                    "both",
                    "d-2026-01-05",
                    "d-2026-01-06",
                    "release",
                    &signatures[0],
                    &signatures[4],
                    &signatures[5],
                ] {
                    assert!(left.iter().any(|other| other == tag), "{answers}: {tag} in {left:?}");
                }
                assert!(is_there(1) && is_there(5) && is_there(6));
                left
            };
            assert_kept();
            successful(&mut prune(&place, "2"));
            let left = assert_kept();
            for day in 2..=4 {
                assert!(!left.contains(&format!("d-2026-01-0{day}")), "{answers}: {left:?}");
                // Where only tags are removed, the images are there until the garbage collection, and keep their signatures.
                let is_signed = left.contains(&signatures[day - 1]);
                assert!(!is_signed || deletes == Deletes::All, "{answers}: {left:?}");
            }
            if !was_killed {
                assert!(answers > 30, "{answers} requests");
                break;
            }
        }
    }
}

#[test]
fn two_prunes_of_a_registry_at_once_remove_what_one_would() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        for _ in 0..4 {
            let (registry, signatures) = signed(deletes);
            let place = format!("{}/data", registry.host());
            let runs = [(); 2].map(|()| prune(&place, "2").spawn().unwrap());
            for run in runs {
                let output = run.wait_with_output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            let left = tags(&registry);
            let mut kept: Vec<&str> = vec!["both", "d-2026-01-05", "d-2026-01-06", "release"];
            if deletes != Deletes::All {
                kept.insert(1, "d-2026-01-01");
            }
            let images: Vec<&String> = left.iter().filter(|tag| !tag.starts_with("sha256-")).collect();
            assert_eq!(images, kept);
            for kept in [0, 4, 5] {
                assert!(left.contains(&signatures[kept]), "{left:?}");
            }
        }
    }
}

/// A layout with twelve images, of which some have the same content, and a signature of the first.
struct Images(TempDir);

impl Images {
    fn new() -> Self {
        let images = Self(tempfile::tempdir().unwrap());
        for day in 1..=12 {
            images.pack(&format!("d-2026-01-{day:02}"), &format!("content {}", day % 8));
        }
        images
    }

    fn layout(&self) -> PathBuf {
        self.0.path().join("layout")
    }

    fn place(&self) -> String {
        format!("oci:{}", self.layout().display())
    }

    /// Returns a pack of a tree with this content.
    fn command(&self, tag: &str, content: &str) -> Command {
        let tree = self.0.path().join(content.replace(' ', "-"));
        if !tree.exists() {
            fs::create_dir(&tree).unwrap();
            fs::write(tree.join("file"), content.repeat(2000)).unwrap();
        }
        volio(&["pack", &format!("{}:{tag}", self.place()), tree.to_str().unwrap()])
    }

    fn pack(&self, tag: &str, content: &str) {
        successful(&mut self.command(tag, content));
    }

    fn copy(&self) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        let mut command = Command::new("cp");
        assert!(
            command
                .args(["-a", "."])
                .arg(copy.0.path())
                .current_dir(self.0.path())
                .status()
                .unwrap()
                .success()
        );
        copy
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.layout().join("blobs/sha256")).map_or(0, Iterator::count)
    }

    fn tags(&self) -> Vec<String> {
        Layout::open(&self.layout(), None, None).unwrap().tags().unwrap()
    }

    fn assert_intact(&self, expected: &[&str]) {
        let left = self.tags();
        for tag in expected {
            assert!(left.iter().any(|other| other == tag), "{tag} in {left:?}");
        }
        for tag in left {
            let source = Layout::open(&self.layout(), Some(&tag), None).unwrap();
            let verified = verify::verify(&source, &verify::Options::default(), &Silent).unwrap();
            assert!(verified.damage.is_empty(), "{tag}: {:?}", verified.damage);
        }
    }
}

#[test]
fn a_prune_of_a_layout_that_was_killed_leaves_whole_images_and_is_completed_by_the_next() {
    let original = Images::new();
    let expected = original.copy();
    successful(&mut prune(&expected.place(), "3"));
    let (first, kept) = (original.blobs(), ["d-2026-01-10", "d-2026-01-11", "d-2026-01-12"]);
    assert!(first > expected.blobs());
    let index = |images: &Images| fs::read(images.layout().join("index.json")).unwrap();
    for removed in 0..8 {
        let images = original.copy();
        let before = index(&images);
        let condition = || match removed {
            0 => index(&images) != before,
            _ => images.blobs() + removed <= first,
        };
        kill_when(prune(&images.place(), "3").spawn().unwrap(), condition);
        images.assert_intact(&kept);
        successful(&mut prune(&images.place(), "3"));
        images.assert_intact(&kept);
        assert_eq!((images.tags(), images.blobs()), (expected.tags(), expected.blobs()), "{removed}");
        assert!(leftovers(&images.layout()).is_empty(), "{:?}", leftovers(&images.layout()));
    }
}

fn leftovers(layout: &Path) -> Vec<String> {
    let names = fs::read_dir(layout).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".volio-") || name == ".volio.removed").collect()
}

#[test]
fn prunes_and_packs_of_a_layout_at_once_lose_no_tag_and_no_blob() {
    let images = Images::new();
    for round in 0..6 {
        // The content of an image that goes, and another one.
        let (old, new) = (format!("content {}", round + 1), format!("content {}", 100 + round));
        let tags = [format!("d-2026-02-{:02}", 2 * round + 1), format!("d-2026-02-{:02}", 2 * round + 2)];
        let runs = [
            prune(&images.place(), "2"),
            images.command(&tags[0], &old),
            prune(&images.place(), "2"),
            images.command(&tags[1], &new),
        ]
        .map(|mut command| command.spawn().unwrap());
        for run in runs {
            let output = run.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        images.assert_intact(&[tags[1].as_str()]);
    }
    successful(&mut prune(&images.place(), "2"));
    images.assert_intact(&["d-2026-02-11", "d-2026-02-12"]);
    assert_eq!(images.tags().len(), 2);
    // An index, and a manifest, a config and a layer for each image at most.
    assert!(images.blobs() <= 12, "{} blobs", images.blobs());
}

#[test]
fn a_prune_and_a_pack_of_a_registry_at_once_lose_no_tag() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        let registry = Registry::start();
        registry.behave(|behaviour| behaviour.deletes = deletes);
        let (place, directory) = (format!("{}/data", registry.host()), tempfile::tempdir().unwrap());
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for round in 1..=8 {
            fs::write(tree.join("file"), format!("content {round}")).unwrap();
            let tag = format!("d-2026-01-{round:02}");
            let pack = volio(&["pack", "--tag", &tag, &format!("{place}:latest"), tree.to_str().unwrap()]);
            let runs = [pack, prune(&place, "2")].map(|mut command| command.spawn().unwrap());
            for (number, run) in runs.into_iter().enumerate() {
                let output = run.wait_with_output().unwrap();
                let text = String::from_utf8_lossy(&output.stderr);
                // The first prune may find no repository yet.
                assert!(output.status.success() || number == 1 && round == 1, "{text}");
            }
            for tag in ["latest", &tag] {
                let source = registry_source(&place, tag);
                assert!(source.resolve().is_ok(), "{tag} in {:?}", tags(&registry));
                let verified = verify::verify(&*source, &verify::Options::default(), &Silent).unwrap();
                assert!(verified.damage.is_empty(), "{tag}: {:?}", verified.damage);
            }
        }
        successful(&mut prune(&place, "2"));
        assert_eq!(tags(&registry), ["d-2026-01-07", "d-2026-01-08", "latest"]);
    }
}

fn registry_source(place: &str, tag: &str) -> Box<dyn Source> {
    let location: volio::Location = format!("{place}:{tag}").parse().unwrap();
    location.source(&volio::Access::default()).unwrap()
}

#[test]
fn a_plain_tag_of_a_signature_keeps_it() {
    let registry = registry(Deletes::Images(405), 2);
    let signature = manifest(r#""name":"signature""#);
    plant(&registry, &attachment_tags(&Digest::of(&image(1)))[0], &signature);
    plant(&registry, "signature", &signature);
    successful(&mut prune(&format!("{}/data", registry.host()), "1"));
    assert!(tags(&registry).contains(&"signature".to_owned()), "{:?}", tags(&registry));
}
