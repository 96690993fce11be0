//! `pack` with further tags and rules of retention, by the program.

use crate::registry::{Refusal, Registry};
use axum::http::Method;
use std::fs;
use std::process::{Command, Output};
use tempfile::TempDir;
use volio::{Access, Digest, Location, Source};

struct Exporter {
    place: TempDir,
    registry: Registry,
}

impl Exporter {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("tree")).unwrap();
        Self { place, registry: Registry::start() }
    }

    fn repository(&self) -> String {
        format!("{}/data", self.registry.host())
    }

    fn pack(&self, content: &str, arguments: &[&str]) -> Output {
        let file = self.place.path().join("tree/file");
        if fs::read_to_string(&file).ok().as_deref() != Some(content) {
            fs::write(file, content).unwrap();
        }
        let image = format!("{}:latest", self.repository());
        let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
        command
            .current_dir(self.place.path())
            .args(["pack", "--incremental"])
            .args(arguments)
            .args([&image, "tree"]);
        command.env("TZ", "UTC").env_remove("SOURCE_DATE_EPOCH").output().unwrap()
    }

    fn digest(&self, output: &Output) -> Digest {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim_end().rsplit_once('@').unwrap().1.parse().unwrap()
    }

    fn source(&self, tag: &str) -> Box<dyn Source> {
        let location: Location = format!("{}:{tag}", self.repository()).parse().unwrap();
        location.source(&Access::default()).unwrap()
    }

    fn tags(&self) -> Vec<String> {
        self.source("latest").tags().unwrap()
    }

    fn digest_of(&self, tag: &str) -> Digest {
        self.source(tag).resolve().unwrap().descriptor().digest.clone()
    }
}

#[test]
fn an_image_that_did_not_change_gets_the_dated_tag_and_counts_once() {
    let exporter = Exporter::new();
    let options = ["--tag", "stable", "--tag-template", "n-{date}-{digest:.8}", "--keep-last", "2"];
    let first = exporter.digest(&exporter.pack("one", &options));
    let year = jiff::Zoned::now().year().to_string();
    let dated = exporter.tags().into_iter().find(|tag| tag.starts_with("n-")).unwrap();
    assert!(dated.starts_with(&format!("n-{year}-")) && dated.ends_with(&first.hex()[..8]), "{dated}");
    assert_eq!(exporter.tags(), ["latest", &dated, "stable"]);
    // Another template: the same image gets another tag, and no new image is made.
    let weekly = ["--tag-template", "w-{date:%Y%m%d}-{digest:.8}", "--keep-last", "1"];
    assert_eq!(exporter.digest(&exporter.pack("one", &weekly)), first);
    assert_eq!(exporter.tags().len(), 4);
    let second = exporter.digest(&exporter.pack("two", &options));
    let third = exporter.digest(&exporter.pack("three", &options));
    assert_eq!(["latest", "stable"].map(|tag| exporter.digest_of(tag)), [third.clone(), third.clone()]);
    // All have the date of today, so that the greater tag counts as newer; the image that was just packed stays in any case.
    let dated: Vec<String> = exporter.tags().into_iter().filter(|tag| tag.starts_with("n-")).collect();
    assert!(dated.iter().any(|tag| tag.ends_with(&third.hex()[..8])), "{dated:?}");
    assert!((2..=3).contains(&dated.len()), "{dated:?} of {first}, {second}, {third}");
    assert!(exporter.tags().iter().any(|tag| tag.starts_with("w-")), "the tags of another template stay");
}

#[test]
fn nothing_is_removed_if_the_pack_fails() {
    let exporter = Exporter::new();
    let options = ["--tag-template", "n-{date:%Y%m%dT%H%M%S}-{digest:.8}", "--keep-last", "1"];
    exporter.digest(&exporter.pack("one", &options));
    let before = exporter.tags();
    fs::remove_file(exporter.place.path().join("tree/file")).unwrap();
    let image = format!("{}:latest", exporter.repository());
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command
        .current_dir(exporter.place.path())
        .args(["pack", "--incremental"])
        .args(options)
        .args([&image, "tree"]);
    assert_eq!(command.output().unwrap().status.code(), Some(6), "the source is empty");
    assert_eq!(exporter.tags(), before);
}

#[test]
fn nothing_is_removed_if_the_new_image_is_not_stored_completely() {
    let exporter = Exporter::new();
    let template = ["--tag-template", "n-{date:%Y%m%dT%H%M%S}-{digest:.8}"];
    let pack =
        |content: &str, keep: &str| exporter.pack(content, &[&template[..], &["--keep-last", keep]].concat());
    exporter.digest(&pack("one", "9"));
    exporter.digest(&pack("two", "9"));
    let before = exporter.tags();
    assert_eq!(before.len(), 3);
    // From now on the registry has none of the blobs that it accepts.
    let lost = Refusal { method: Method::HEAD, path: "/blobs/", status: 404, ..Refusal::default() };
    exporter.registry.behave(|behaviour| behaviour.refusals = vec![lost; 100]);
    let output = pack("three", "1");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no older image was removed") && said.contains("is missing"), "{said}");
    let left = exporter.tags();
    assert!(before.iter().all(|tag| left.contains(tag)), "{before:?} in {left:?}");
}

#[test]
fn a_tag_that_the_registry_refuses_to_remove_fails_a_single_pack_after_the_image_is_stored_and_not_a_schedule()
 {
    let exporter = Exporter::new();
    let options = ["--tag-template", "n-{date:%Y%m%dT%H%M%S}-{digest:.8}", "--keep-last", "1"];
    exporter.digest(&exporter.pack("one", &options));
    let first = exporter.tags().into_iter().find(|tag| tag.starts_with("n-")).unwrap();
    exporter.registry.behave(|behaviour| behaviour.protects = vec![(first.clone(), 409)]);
    let output = exporter.pack("two", &options);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is stored, but not all older images are removed"), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("@sha256:"));
    assert!(exporter.tags().contains(&first));
    // A schedule would repeat the run after a minute.
    let state = exporter.place.path().join("state");
    fs::write(exporter.place.path().join("tree/file"), "three").unwrap();
    let image = format!("{}:latest", exporter.repository());
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command.current_dir(exporter.place.path()).env("TZ", "UTC").args([
        "pack",
        "--incremental",
        "--every",
        "1h",
    ]);
    command.args(["--after", "echo result=$VOLIO_RESULT; kill $PPID", "--state", state.to_str().unwrap()]);
    let output = command.args(options).args([&image, "tree"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("result=success") && said.contains("warning: "), "{said}");
    assert!(said.contains("refused to remove the tag") && !said.contains("next try"), "{said}");
}
