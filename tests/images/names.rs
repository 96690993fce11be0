//! Names in layouts and archives as other programs write them: one name for several images, full names, and none.

use super::pack;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use volio::copy::{self, copy};
use volio::error::Kind;
use volio::oci::{Digest, Index, media_type};
use volio::progress::Silent;
use volio::transport::{Access, Destination, Location, Source};

const REF: &str = "org.opencontainers.image.ref.name";
const FULL: &str = "io.containerd.image.name";

fn location(text: &str) -> Location {
    text.parse().unwrap()
}

fn source(text: &str) -> volio::Result<Box<dyn Source>> {
    location(text).source(&Access::default())
}

fn destination(text: &str) -> Box<dyn Destination> {
    location(text).destination(&Access::default()).unwrap()
}

/// A layout with two images; the functions edit their entries in its index.
struct Layout {
    place: TempDir,
    digests: Vec<Digest>,
}

impl Layout {
    /// Each image is for both usual platforms, unless it is for one.
    fn new(platforms: &[Option<&str>], edit: impl Fn(usize, &mut Value)) -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut digests = Vec::new();
        for (number, platform) in platforms.iter().enumerate() {
            let tree = tempfile::tempdir().unwrap();
            fs::write(tree.path().join("file"), format!("{number}")).unwrap();
            let to = destination(&format!("oci:{}/layout:{number}", place.path().display()));
            let mut options = volio::pack::Options::default();
            options.image.platforms = platform.iter().map(|text| text.parse().unwrap()).collect();
            digests.push(super::pack_with(&*to, tree.path(), &options).unwrap().digest);
        }
        let path = place.path().join("layout/index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (number, entry) in index["manifests"].as_array_mut().unwrap().iter_mut().enumerate() {
            edit(number, entry);
        }
        fs::write(&path, index.to_string()).unwrap();
        Self { place, digests }
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("layout")
    }

    /// The layout and an archive of it, by name.
    fn both(&self) -> [String; 2] {
        let file = self.place.path().join("layout.tar");
        let mut tar = tar::Builder::new(fs::File::create(&file).unwrap());
        tar.append_dir_all(".", self.path()).unwrap();
        tar.finish().unwrap();
        [format!("oci:{}", self.path().display()), format!("oci-archive:{}", file.display())]
    }
}

/// The index of `docker save` for two images with the same tag in two repositories.
fn one_short_tag() -> Layout {
    Layout::new(&[None, None], |number, entry| {
        let name = ["docker.io/library/a:v1", "host.io:5000/b:v1"][number];
        entry["annotations"] = json!({REF: "v1", FULL: name});
    })
}

fn one_tag_for_each_platform(platforms: [&str; 2]) -> Layout {
    Layout::new(&[Some("linux/amd64"), Some("linux/arm64")], |number, entry| {
        let (os, architecture) = platforms[number].split_once('/').unwrap();
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entry["annotations"] = json!({REF: "v1"});
    })
}

fn error(text: &str) -> volio::Error {
    source(text).and_then(|source| source.resolve()).unwrap_err()
}

#[test]
fn a_tag_of_several_images_is_an_error_that_names_them_and_each_can_be_named() {
    let layout = one_short_tag();
    for place in layout.both() {
        let error = error(&format!("{place}:v1"));
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        let advice = error.hint().unwrap();
        for (name, digest) in ["docker.io/library/a:v1", "host.io:5000/b:v1"].iter().zip(&layout.digests) {
            assert!(advice.contains(&format!("{name} ({digest})")), "{advice}");
            let found = source(&format!("{place}:{name}")).unwrap().resolve().unwrap();
            assert_eq!(found.descriptor().digest, *digest);
            let found = source(&format!("{place}@{digest}")).unwrap().resolve().unwrap();
            assert_eq!(found.descriptor().digest, *digest);
        }
        let short = source(&format!("{place}:a:v1")).unwrap().resolve().unwrap();
        assert_eq!(short.descriptor().digest, layout.digests[0]);
        let tags = source(&place).unwrap().tags().unwrap();
        assert_eq!(tags, ["docker.io/library/a:v1", "host.io:5000/b:v1"], "none of them is lost");
        assert_eq!(source(&place).unwrap().resolve().unwrap_err().kind(), Kind::NotFound);
    }
}

#[test]
fn a_tag_of_several_images_can_be_taken_from_all_of_them() {
    let layout = one_short_tag();
    let name = format!("oci:{}:v1", layout.path().display());
    let tree = tempfile::tempdir().unwrap();
    let new = pack(&*destination(&name), tree.path());
    assert_eq!(source(&name).unwrap().resolve().unwrap().descriptor().digest, new.digest);
    let place = format!("oci:{}", layout.path().display());
    let tags = source(&place).unwrap().tags().unwrap();
    assert_eq!(tags, ["docker.io/library/a:v1", "host.io:5000/b:v1", "v1"], "the others keep their names");
    let removed =
        location(&format!("{place}:a:v1")).removal(&Access::default()).unwrap().remove(false).unwrap();
    assert_eq!(removed.digest, layout.digests[0]);
    assert_eq!(source(&place).unwrap().tags().unwrap(), ["host.io:5000/b:v1", "v1"]);
}

#[test]
fn one_tag_for_each_platform_acts_as_one_index() {
    let layout = one_tag_for_each_platform(["linux/amd64", "linux/arm64"]);
    let mut digests = Vec::new();
    for place in layout.both() {
        for name in [format!("{place}:v1"), place.clone()] {
            let root = source(&name).unwrap().resolve().unwrap();
            let index = Index::parse(&root).unwrap();
            let listed: Vec<_> = index.manifests.iter().map(|entry| entry.digest.clone()).collect();
            assert_eq!(listed, layout.digests);
            assert!(index.manifests.iter().all(|entry| entry.annotations.is_empty()));
            let by_digest = source(&format!("{place}@{}", root.descriptor().digest)).unwrap();
            assert_eq!(by_digest.resolve().unwrap(), root, "the digest that is printed is a name too");
            digests.push(root.descriptor().digest.clone());
        }
        assert_eq!(source(&place).unwrap().tags().unwrap(), ["v1"]);
        for (number, platform) in ["linux/amd64", "linux/arm64"].iter().enumerate() {
            let target = tempfile::tempdir().unwrap();
            let platform = Some(platform.parse().unwrap());
            let options = volio::unpack::Options { platform, ..Default::default() };
            let from = source(&format!("{place}:v1")).unwrap();
            volio::unpack::unpack(&*from, target.path(), &options, &Silent).unwrap();
            assert_eq!(fs::read_to_string(target.path().join("file")).unwrap(), number.to_string());
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);

    let to = tempfile::tempdir().unwrap();
    let to = format!("oci:{}:copy", to.path().join("to").display());
    let from = source(&format!("oci:{}:v1", layout.path().display())).unwrap();
    let copied = copy(&*from, &*destination(&to), &copy::Options::default(), &Silent).unwrap();
    assert_eq!(copied.digest, digests[0]);
    let root = source(&to).unwrap().resolve().unwrap();
    assert_eq!(Index::parse(&root).unwrap().manifests.len(), 2, "no platform is lost");
    assert_eq!(root.descriptor().media_type, media_type::INDEX);

    let name = location(&format!("oci:{}:v1", layout.path().display()));
    let removed = name.removal(&Access::default()).unwrap().remove(false).unwrap();
    assert_eq!((removed.digest, removed.tags), (digests.remove(0), vec!["v1".to_owned()]));
    assert!(error(&format!("oci:{}", layout.path().display())).hint().unwrap().contains("no image"));
}

#[test]
fn one_tag_twice_for_the_same_platform_is_an_error_that_lists_the_digests() {
    let layout = one_tag_for_each_platform(["linux/amd64", "linux/amd64"]);
    for place in layout.both() {
        let error = error(&format!("{place}:v1"));
        assert_eq!(error.kind(), Kind::Usage);
        assert!(layout.digests.iter().all(|digest| error.hint().unwrap().contains(&format!("@{digest}"))));
        assert_eq!(source(&place).unwrap().tags().unwrap(), ["v1"], "a copy of all tags says what is wrong");
    }
}

#[test]
fn images_without_tags_are_named_by_their_digests() {
    let layout =
        Layout::new(&[None, None], |_, entry| drop(entry.as_object_mut().unwrap().remove("annotations")));
    for place in layout.both() {
        let source = source(&place).unwrap();
        assert!(source.tags().unwrap().is_empty());
        assert_eq!(source.untagged().unwrap(), layout.digests);
        let error = source.resolve().unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(layout.digests.iter().all(|digest| error.hint().unwrap().contains(&digest.to_string())));
    }
}

#[test]
fn an_image_that_has_several_names_is_the_only_one() {
    let layout = Layout::new(&[None], |_, _| ());
    let name = |tag: &str| format!("oci:{}{tag}", layout.path().display());
    let from = source(&name("")).unwrap();
    copy(&*from, &*destination(&name(":other")), &copy::Options::default(), &Silent).unwrap();
    assert_eq!(from.resolve().unwrap().descriptor().digest, layout.digests[0]);
}

#[test]
fn documents_of_a_layout_that_do_not_say_what_they_are_are_known_by_their_members() {
    for generic in [None, Some("application/json"), Some("application/octet-stream")] {
        let layout = Layout::new(&[Some("linux/amd64")], |_, entry| match generic {
            Some(generic) => entry["mediaType"] = generic.into(),
            None => drop(entry.as_object_mut().unwrap().remove("mediaType")),
        });
        for place in layout.both() {
            let root = source(&place).unwrap().resolve().unwrap();
            assert_eq!(root.descriptor().media_type, media_type::MANIFEST, "{generic:?}");
            assert_eq!(root.descriptor().digest, layout.digests[0]);
        }
    }
    // A manifest that only an index names, and that does not say of itself what it is.
    let layout = Layout::new(&[None], |_, _| ());
    let root = source(&format!("oci:{}", layout.path().display())).unwrap().resolve().unwrap();
    let entry = Index::parse(&root).unwrap().manifests.remove(0);
    let mut manifest: Value = serde_json::from_slice(&read_blob(&layout.path(), &entry.digest)).unwrap();
    manifest.as_object_mut().unwrap().remove("mediaType");
    let manifest = manifest.to_string();
    let digest = Digest::of(manifest.as_bytes());
    fs::write(blob(&layout.path(), &digest), manifest).unwrap();
    let found = source(&format!("oci:{}@{digest}", layout.path().display())).unwrap().resolve().unwrap();
    assert_eq!(found.descriptor().media_type, media_type::MANIFEST);
}

fn blob(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

fn read_blob(layout: &Path, digest: &Digest) -> Vec<u8> {
    fs::read(blob(layout, digest)).unwrap()
}
