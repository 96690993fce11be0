//! Tags, verification, removal, referrers and partial copies with Debian's docker-registry.

use std::fs;

use super::fixture::Directory;
use super::program::{tool, volio};
use super::services::{repository, stored_blob};
use super::survey::Survey;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A directory with one file of this content.
fn directory(content: &str) -> Directory {
    let directory = Directory::empty();
    fs::write(directory.path().join("file"), content).expect("write");
    directory
}

fn tags(repository: &str) -> Vec<String> {
    volio(&["tags", repository]).succeeded().lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn a_hundred_tags_are_copied_and_listed() {
    let image = repository("many-tags");
    let work = directory("tags");
    volio(&["pack", &format!("{image}:t0"), work.text()]).succeeded();
    let (layout, first) = (work.join("layout"), format!("{image}:t0"));
    volio(&["pull", &first, &format!("oci:{layout}:t0")]).succeeded();
    // This registry lists them in one page. Other tests have pages.
    let index = fs::read_to_string(format!("{layout}/index.json")).expect("index.json");
    let entry = json(&index)["manifests"][0].clone();
    let entries: Vec<Value> = (0..100)
        .map(|number| {
            let mut entry = entry.clone();
            entry["annotations"]["org.opencontainers.image.ref.name"] = format!("t{number}").into();
            entry
        })
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
    fs::write(format!("{layout}/index.json"), index.to_string()).expect("index.json");
    volio(&["copy", "--all-tags", "-q", &format!("oci:{layout}"), &image]).succeeded();
    let listed = tags(&image);
    assert_eq!(listed.len(), 100);
    let seen = json(&tool("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{image}")]));
    // Neither this registry nor skopeo sorts them.
    let mut seen: Vec<_> = seen["Tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
    seen.sort_unstable();
    assert!(seen == listed, "the same tags, in the order of their bytes");
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn an_image_in_a_registry_is_verified_and_damage_is_reported() {
    let image = repository("verified:1");
    let source = directory("verified, and unlike what other tests push\n");
    volio(&["pack", &image, source.text()]).succeeded();
    volio(&["verify", &image]).digest();
    let seen = json(&volio(&["inspect", "--format", "json", &image]).succeeded());
    let layer = seen["images"][0]["layers"][0]["digest"].as_str().expect("a layer").to_owned();
    let path = stored_blob(&layer);
    let mut content = fs::read(&path).expect("the layer as the registry keeps it");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, content).expect("the registry's storage");
    let shown = volio(&["verify", &image]).failed_with(3);
    assert!(shown.contains("layer 1 of linux/amd64") && shown.contains(&layer), "{shown}");
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_removal_that_would_remove_other_tags_is_refused() {
    let (image, source) = (repository("removed"), directory("removed"));
    for tag in ["a", "b"] {
        volio(&["pack", &format!("{image}:{tag}"), source.text()]).succeeded();
    }
    volio(&["pack", &format!("{image}:c"), directory("another").text()]).succeeded();
    let shown = volio(&["rm", &format!("{image}:a")]).failed_with(6);
    assert!(shown.contains("also b"), "{shown}");
    assert_eq!(tags(&image), ["a", "b", "c"]);
    volio(&["rm", &format!("{image}:c")]).digest();
    assert_eq!(tags(&image), ["a", "b"]);
    volio(&["rm", "--force", &format!("{image}:a")]).digest();
    volio(&["rm", &format!("{image}:a")]).failed_with(4);
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn a_prune_keeps_the_images_of_a_chain_whole() {
    let (image, source) = (repository("pruned"), directory("unlike what other tests push, 1"));
    fs::write(source.path().join("large"), vec![9; 300_000]).expect("write");
    let pack = |tag: &str, arguments: &[&str]| {
        volio(&[&["pack"], arguments, &[&format!("{image}:{tag}"), source.text()]].concat()).digest()
    };
    let first = pack("d-2026-01-01", &[]);
    pack("stable", &[]);
    for day in 2..=4 {
        fs::write(source.path().join("file"), format!("changed {day}")).expect("write");
        let base = format!("{image}:d-2026-01-0{}", day - 1);
        pack(&format!("d-2026-01-0{day}"), &["--base", &base]);
    }
    let prune = ["prune", "--tag-template", "d-{date}", "--keep-last", "2", &image];
    let shown = volio(&prune).succeeded();
    // This registry removes images only, and the first one has another tag.
    assert!(shown.contains("this one is also stable"), "{shown}");
    assert_eq!(tags(&image), ["d-2026-01-01", "d-2026-01-03", "d-2026-01-04", "stable"]);
    for tag in ["d-2026-01-01", "d-2026-01-03", "d-2026-01-04"] {
        volio(&["verify", &format!("{image}:{tag}")]).succeeded();
        tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{image}:{tag}")]);
    }
    volio(&["rm", &format!("{image}:stable")]).failed_with(6);
    volio(&["inspect", &format!("{image}@{first}")]).succeeded();
    let kept: Vec<&str> = shown.lines().filter(|line| !line.starts_with("remove")).collect();
    assert_eq!(volio(&prune).succeeded(), kept.join("\n"), "a second run has nothing to do");
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn referrers_are_copied_and_listed_under_the_tag_of_the_specification() {
    let (from, to) = (repository("signed:1"), repository("signed-copy:1"));
    let (source, work) = (directory("signed"), Directory::empty());
    let digest = volio(&["pack", &from, source.text()]).digest();
    // A layout as oras writes it: the artifact is in the index, without a tag.
    let layout = work.join("layout");
    volio(&["pull", &from, &format!("oci:{layout}:1")]).succeeded();
    let index = json(&fs::read_to_string(format!("{layout}/index.json")).expect("index.json"));
    let mut subject = index["manifests"][0].clone();
    subject.as_object_mut().expect("an object").remove("annotations");
    let put = |bytes: &[u8]| {
        let digest = volio::oci::Digest::of(bytes);
        fs::write(format!("{layout}/blobs/sha256/{}", digest.hex()), bytes).expect("a blob");
        (digest.to_string(), bytes.len())
    };
    let (empty, size) = put(b"{}");
    let config =
        serde_json::json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": size});
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let artifact = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type, "artifactType": "test/signature",
        "config": config, "layers": [config], "subject": subject,
    });
    let (artifact, size) = put(artifact.to_string().as_bytes());
    let mut index = index;
    let entries = index["manifests"].as_array_mut().expect("entries");
    entries.push(serde_json::json!({"mediaType": media_type, "digest": artifact, "size": size}));
    fs::write(format!("{layout}/index.json"), index.to_string()).expect("index.json");

    volio(&["copy", "--referrers", &format!("oci:{layout}:1"), &to]).succeeded();
    let tag = format!("{}:{}", repository("signed-copy"), digest.replace(':', "-"));
    let listed =
        json(&tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{tag}")]));
    assert_eq!(listed["manifests"][0]["digest"], artifact.as_str());
    assert_eq!(listed["manifests"][0]["artifactType"], "test/signature");

    let back = format!("oci:{}:1", work.join("back"));
    let shown = json(&volio(&["pull", "--referrers", "--format", "json", &to, &back]).succeeded());
    assert_eq!(shown["referrers"], 1);
    // The referrer is in the index too, and skopeo still finds the image.
    let index = tool("skopeo", &["inspect", "--raw", &back]);
    assert_eq!(volio::oci::Digest::of(index.as_bytes()).to_string(), digest);
    assert!(fs::exists(work.join("back/blobs") + "/" + &artifact.replace(':', "/")).expect("exists"));
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn skopeo_reads_a_copy_of_one_platform() {
    let (from, to) = (repository("both:1"), repository("arm:1"));
    volio(&["pack", &from, directory("platforms").text()]).succeeded();
    let digest = volio(&["copy", "--platform", "linux/arm64", &from, &to]).digest();
    let seen = json(&tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{to}")]));
    assert_eq!((&seen["Digest"], &seen["Architecture"]), (&digest.into(), &"arm64".into()));
    volio(&["copy", "--platform", "linux/s390x", &from, &to]).failed_with(4);
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_copy_for_an_air_gap_has_only_new_blobs() {
    let (outside, inside) = (repository("gap-outside"), repository("gap-inside"));
    let (source, work, target) = (Directory::filled(), Directory::empty(), Directory::empty());
    let (first, second) = (format!("{outside}:v1"), format!("{outside}:v2"));
    volio(&["pack", &first, source.text()]).succeeded();
    volio(&["copy", &first, &format!("{inside}:v1")]).succeeded();
    // Another image with the same layers: only its documents are new.
    volio(&["pack", "--label", "v=2", &second, source.text()]).succeeded();
    let stick = format!("oci:{}:v2", work.join("stick"));
    let carried = json(&volio(&["copy", "--format", "json", "--since", &first, &second, &stick]).succeeded());
    assert!(carried["blobsOmitted"].as_u64() > Some(0), "{carried}");
    volio(&["verify", &stick]).failed_with(3);
    let missing = volio(&["copy", &stick, &format!("{}:v2", repository("gap-elsewhere"))]).failed_with(4);
    assert!(missing.contains("gap-outside:v1@sha256:"), "{missing}");
    volio(&["copy", &stick, &format!("{inside}:v2")]).succeeded();
    volio(&["verify", &format!("{inside}:v2")]).succeeded();
    volio(&["unpack", &format!("{inside}:v2"), target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}
