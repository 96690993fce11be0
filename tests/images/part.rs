//! Copies of less than an image, or of more than one.

use super::{layers, make_tree, memory, pack, unpack};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use volio::copy::{self, Base, Copied, copy, copy_tags};
use volio::error::Kind;
use volio::oci::{Index, media_type};
use volio::progress::Silent;
use volio::transport::layout::Layout;
use volio::transport::memory::Memory;
use volio::transport::{Destination, Removal, Source};
use volio::verify::{self, verify};

fn only(platforms: &[&str]) -> copy::Options {
    let platforms = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
    copy::Options { platforms, ..copy::Options::default() }
}

/// An image for two platforms, in memory.
fn image() -> Memory {
    let image = memory();
    layers::publish(&image, &[layers::layer(&image, &["a=1"])]);
    image
}

fn platforms(document: &volio::oci::Document) -> Vec<String> {
    let index = Index::parse(document).unwrap();
    index.manifests.iter().map(|entry| entry.platform.clone().unwrap().to_string()).collect()
}

fn whole(place: &dyn Source) -> verify::Verified {
    let verified = verify(place, &verify::Options::default(), &Silent).unwrap();
    assert_eq!(verified.damage, []);
    verified
}

#[test]
fn one_platform_is_its_manifest_and_says_what_it_was_part_of() {
    let (from, to) = (image(), Memory::default());
    let done = copy(&from, &to, &only(&["linux/arm64"]), &Silent).unwrap();
    let (root, index) = (to.resolve().unwrap(), from.resolve().unwrap());
    assert!(media_type::is_manifest(&root.descriptor().media_type));
    assert_eq!(done.digest, root.descriptor().digest);
    assert_eq!(done.source_digest.as_ref(), Some(&index.descriptor().digest));
    assert_eq!(Index::parse(&index).unwrap().manifests[1].digest, done.digest);
    assert_eq!(whole(&to).images, 1);
    // Of an image that has one platform, that one is all of it.
    let again = copy(&to, &Memory::default(), &only(&["linux/arm64"]), &Silent).unwrap();
    assert_eq!((again.digest, again.source_digest), (done.digest, None));
    assert_eq!(copy(&to, &from, &only(&["linux/amd64"]), &Silent).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn several_platforms_are_a_new_index_that_keeps_what_the_index_said() {
    let (from, to) = (image(), Memory::default());
    let mut index = Index::parse(&from.resolve().unwrap()).unwrap();
    index.annotations.insert("kept".to_owned(), "yes".to_owned());
    index.extra.insert("artifactType", &"kept/too".into());
    let mut third = index.manifests[0].clone();
    third.platform = Some("linux/s390x".parse().unwrap());
    third.digest = volio::oci::Digest::of(b"not there, and not wanted");
    index.manifests.insert(0, third);
    let index = volio::oci::Document::write(media_type::INDEX, &index);
    from.commit(&index).unwrap();
    copy(&from, &to, &only(&["linux/arm64", "linux/amd64"]), &Silent).unwrap();
    let root = to.resolve().unwrap();
    assert_eq!(platforms(&root), ["linux/amd64", "linux/arm64"], "in the order in which they stood");
    let root = Index::parse(&root).unwrap();
    assert_eq!(
        (root.annotations["kept"].as_str(), root.extra.get("artifactType")),
        ("yes", Some("kept/too".into()))
    );
    assert_eq!(whole(&to).images, 2);
}

#[test]
fn a_platform_that_is_not_offered_is_not_found_and_nothing_gets_a_name() {
    let to = Memory::default();
    let error = copy(&image(), &to, &only(&["linux/amd64", "linux/s390x"]), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.hint(), Some("choose among linux/amd64, linux/arm64"));
    assert!(to.resolve().is_err());
}

/// Two images that share a layer, and the second has another one on top.
fn two_versions() -> (Memory, Memory) {
    let image = Memory::default();
    let (first, second) = (image.named("v1"), image.named("v2"));
    let (below, above) = (layers::layer(&image, &["a=1"]), layers::layer(&image, &["b=2"]));
    layers::publish(&first, std::slice::from_ref(&below));
    layers::publish(&second, &[below, above]);
    (first, second)
}

fn since(base: &Memory) -> copy::Options {
    copy::Options { since: vec![Base::read("site.example/data", base).unwrap()], ..copy::Options::default() }
}

fn stick() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let stick = directory.path().join("stick");
    (directory, stick)
}

fn to_stick(from: &Memory, stick: &Path, options: &copy::Options) -> Copied {
    copy(from, &Layout::create(stick, Some("v2")).unwrap(), options, &Silent).unwrap()
}

#[test]
fn only_what_the_other_side_lacks_crosses_the_gap() {
    let (first, second) = two_versions();
    let (_directory, stick) = stick();
    let done = to_stick(&second, &stick, &since(&first));
    // The layer on top and two configurations; the layer below stays.
    assert_eq!((done.blobs_copied, done.blobs_omitted), (3, 1));
    let inside = Memory::default();
    copy(&first, &inside.named("v1"), &copy::Options::default(), &Silent).unwrap();
    let stick = Layout::open(&stick, Some("v2"), None).unwrap();
    let done = copy(&stick, &inside.named("v2"), &copy::Options::default(), &Silent).unwrap();
    assert_eq!((done.blobs_copied, done.blobs_present), (3, 1));
    assert_eq!(inside.named("v2").resolve().unwrap(), second.resolve().unwrap());
    whole(&inside.named("v2"));
}

#[test]
fn where_the_base_is_missing_the_error_names_it() {
    let (first, second) = two_versions();
    let (_directory, stick) = stick();
    to_stick(&second, &stick, &since(&first));
    let layout = Layout::open(&stick, Some("v2"), None).unwrap();
    let inside = Memory::default();
    let error = copy(&layout, &inside, &copy::Options::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let base = format!("site.example/data@{}", first.resolve().unwrap().descriptor().digest);
    assert!(error.hint().unwrap().contains(&base), "{:?}", error.hint());
    assert!(inside.resolve().is_err());
    let target = tempfile::tempdir().unwrap();
    assert!(unpack(&layout, target.path()).unwrap_err().hint().unwrap().contains(&base));
    // Copied without a gap, it is whole, and nothing says otherwise.
    to_stick(&second, &stick, &copy::Options::default());
    whole(&layout);
    assert!(!fs::read_to_string(stick.join("index.json")).unwrap().contains("io.volio.since"));
}

/// Copies all tags of a layout; what was copied and what not.
fn all_tags(from: &Path, to: &Memory) -> volio::Result<(Vec<String>, Vec<String>)> {
    let tags = Layout::open(from, None, None)?.tags()?;
    let open = |tag: &str| -> volio::Result<(Box<dyn Source>, Box<dyn Destination>)> {
        Ok((Box::new(Layout::open(from, Some(tag), None)?), Box::new(to.named(tag))))
    };
    let done = copy_tags(&tags, open, &copy::Options::default(), &Silent)?;
    let (copied, failed): (Vec<_>, Vec<_>) = done.into_iter().partition(|tag| tag.outcome.is_ok());
    let names = |tags: Vec<copy::TagCopied>| tags.into_iter().map(|tag| tag.tag).collect();
    Ok((names(copied), names(failed)))
}

#[test]
fn all_tags_are_copied_and_a_damaged_one_keeps_none_of_the_others() {
    let (first, second) = two_versions();
    let (_directory, stick) = stick();
    for (image, tag) in [(&first, "v1"), (&second, "v2"), (&first, "v3")] {
        copy(image, &Layout::create(&stick, Some(tag)).unwrap(), &copy::Options::default(), &Silent).unwrap();
    }
    let inside = Memory::default();
    assert_eq!(all_tags(&stick, &inside).unwrap().0, ["v1", "v2", "v3"]);
    assert_eq!(inside.named("v2").resolve().unwrap(), second.resolve().unwrap());

    // The layer that only v2 has.
    let layers = |image: &Memory| -> BTreeSet<String> {
        let seen = volio::inspect::inspect(image).unwrap();
        seen.images[0].layers.iter().map(|layer| layer.digest.hex().to_owned()).collect()
    };
    let (only_second, shared) = (&layers(&second) - &layers(&first), layers(&first));
    fs::write(stick.join("blobs/sha256").join(only_second.first().unwrap()), "x").unwrap();
    let inside = Memory::default();
    let (copied, failed) = all_tags(&stick, &inside).unwrap();
    assert_eq!((copied, failed), (vec!["v1".to_owned(), "v3".to_owned()], vec!["v2".to_owned()]));
    whole(&inside.named("v3"));

    // A blob that failed once is sent again for the following tags.
    fs::write(stick.join("blobs/sha256").join(shared.first().unwrap()), "x").unwrap();
    assert_eq!(all_tags(&stick, &Memory::default()).unwrap().1, ["v1", "v2", "v3"]);
}

/// The names of the blobs of a layout.
fn blobs(layout: &Path) -> BTreeSet<String> {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    blobs.map(|blob| blob.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_removed_image_takes_only_the_blobs_with_it_that_no_other_needs() {
    let (first, second) = two_versions();
    let (_directory, stick) = stick();
    let put = |image: &Memory, tag| {
        copy(image, &Layout::create(&stick, Some(tag)).unwrap(), &copy::Options::default(), &Silent).unwrap();
    };
    put(&first, "v1");
    let before = blobs(&stick);
    put(&second, "v2");
    fs::write(stick.join("blobs/sha256").join("f".repeat(64)), "somebody else's").unwrap();
    let removed = Layout::open(&stick, Some("v2"), None).unwrap().remove(false).unwrap();
    assert_eq!(
        (removed.blobs, removed.blobs_left),
        (6, None),
        "a layer, two configurations, two manifests, an index"
    );
    let mut expected = before;
    expected.insert("f".repeat(64));
    assert_eq!(blobs(&stick), expected);
    whole(&Layout::open(&stick, Some("v1"), None).unwrap());
}

#[test]
fn while_somebody_writes_no_blob_is_removed() {
    let (_directory, stick) = stick();
    let (first, second) = two_versions();
    to_stick(&second, &stick, &copy::Options::default());
    let before = blobs(&stick);
    // A writer that has looked for a blob and not committed yet.
    let writer = Layout::create(&stick, Some("v3")).unwrap();
    let layer = volio::inspect::inspect(&first).unwrap().images[0].layers[0].clone();
    let layer = volio::oci::Descriptor::new(layer.media_type, layer.digest, layer.size);
    assert!(writer.contains(&layer).unwrap());
    let removed = Layout::open(&stick, Some("v2"), None).unwrap().remove(false).unwrap();
    assert!(removed.blobs_left.unwrap().contains("somebody is writing"));
    assert_eq!(blobs(&stick), before);
    copy(&first, &writer, &copy::Options::default(), &Silent).unwrap();
    whole(&Layout::open(&stick, Some("v3"), None).unwrap());
}

#[test]
fn where_another_image_is_damaged_its_blobs_cannot_be_known_and_all_stay() {
    let (first, second) = two_versions();
    let (_directory, stick) = stick();
    to_stick(&second, &stick, &copy::Options::default());
    copy(&first, &Layout::create(&stick, Some("v1")).unwrap(), &copy::Options::default(), &Silent).unwrap();
    let root = first.resolve().unwrap().descriptor().digest.clone();
    fs::write(stick.join("blobs/sha256").join(root.hex()), "x").unwrap();
    let before = blobs(&stick);
    let removed = Layout::open(&stick, Some("v2"), None).unwrap().remove(false).unwrap();
    assert!(removed.blobs_left.unwrap().contains("cannot be known"));
    assert_eq!(blobs(&stick), before);
}

#[test]
fn a_layout_removes_by_digest_what_has_one_tag_or_is_forced() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let digest =
        ["a", "b"].map(|tag| pack(&Layout::create(&layout, Some(tag)).unwrap(), &tree).digest)[0].clone();
    let remove = |force| Layout::open(&layout, None, Some(digest.clone())).unwrap().remove(force);
    assert_eq!(remove(false).unwrap_err().kind(), Kind::Refused);
    Layout::create(&layout, Some("c"))
        .unwrap()
        .commit(&volio::oci::Document::new(media_type::INDEX, b"{}".to_vec()))
        .unwrap();
    let both = |tag| Layout::open(&layout, Some(tag), Some(digest.clone())).unwrap().remove(true);
    assert_eq!(both("c").unwrap_err().kind(), Kind::Refused, "c means something else");
    Layout::open(&layout, Some("c"), None).unwrap().remove(false).unwrap();
    assert_eq!(remove(true).unwrap().tags, ["a", "b"]);
    assert!(blobs(&layout).is_empty());
    assert_eq!(remove(true).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn indexes_in_indexes_without_an_end_are_refused() {
    let image = image();
    let mut root = image.resolve().unwrap();
    for _ in 0..4 {
        let index = Index::new(vec![root.descriptor().clone()], Default::default());
        root = volio::oci::Document::write(media_type::INDEX, &index);
        image.put_manifest(&root).unwrap();
    }
    image.commit(&root).unwrap();
    let copied = copy(&image, &Memory::default(), &copy::Options::default(), &Silent);
    assert_eq!(copied.unwrap_err().kind(), Kind::Integrity);
    assert_eq!(
        copy(&image, &Memory::default(), &only(&["linux/amd64"]), &Silent).unwrap_err().kind(),
        Kind::Integrity
    );
    let verified = verify(&image, &verify::Options::default(), &Silent);
    assert_eq!(verified.unwrap_err().kind(), Kind::Integrity);
}
