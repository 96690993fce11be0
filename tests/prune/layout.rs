//! `prune` of a layout.

use super::{fates, keep_last};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use volio::oci::{Descriptor, Document, attachment_tags, media_type};
use volio::pack::{Base, IncrementalOptions, Packed, pack, pack_incremental};
use volio::progress::Silent;
use volio::prune::{Effect, Options, Pruned, ensure_stored, prune};
use volio::transport::layout::Layout;
use volio::{Access, Destination, Digest, Location, Result, Source, SourceSpec, verify};

/// A layout, and a tree whose content changes.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.tree()).unwrap();
        place
    }

    fn tree(&self) -> PathBuf {
        self.0.path().join("tree")
    }

    fn layout(&self) -> PathBuf {
        self.0.path().join("layout")
    }

    fn open(&self, tag: Option<&str>) -> Layout {
        Layout::open(&self.layout(), tag, None).unwrap()
    }

    /// Writes the file of the tree, unless it has this content already: its time is part of the image.
    fn write(&self, content: &str) {
        let file = self.tree().join("file");
        if fs::read_to_string(&file).ok().as_deref() != Some(content) {
            fs::write(file, content).unwrap();
        }
    }

    /// Packs the tree with this content under a tag.
    fn pack(&self, tag: &str, content: &str) -> Packed {
        self.write(content);
        let to = Layout::create(&self.layout(), Some(tag)).unwrap();
        pack(&to, &[SourceSpec::new(self.tree())], &volio::pack::Options::default(), &Silent).unwrap()
    }

    /// Packs what changed since the image with another tag.
    fn pack_over(&self, base: &str, tag: &str, content: &str) -> Packed {
        self.write(content);
        let to = Layout::create(&self.layout(), Some(tag)).unwrap();
        let base: Location = format!("oci:{}:{base}", self.layout().display()).parse().unwrap();
        let base = Base::image(base, Access::default());
        let (options, incremental) = (volio::pack::Options::default(), IncrementalOptions::default());
        pack_incremental(&to, &base, &[SourceSpec::new(self.tree())], &options, &incremental, &Silent)
            .unwrap()
    }

    fn prune(&self, options: &Options) -> Result<Pruned> {
        let layout = self.open(None);
        prune(&layout, &layout, options)
    }

    fn tags(&self) -> Vec<String> {
        self.open(None).tags().unwrap()
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.layout().join("blobs/sha256")).unwrap().count()
    }

    fn assert_intact(&self, tag: &str) {
        let verified = verify::verify(&self.open(Some(tag)), &verify::Options::default(), &Silent).unwrap();
        assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    }
}

fn size_of(path: &Path) -> u64 {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn the_layers_of_a_base_stay_while_an_image_that_is_kept_has_them() {
    let place = Place::new();
    fs::write(place.tree().join("large"), vec![7; 100_000]).unwrap();
    place.pack("d-2026-01-01", "one");
    place.pack_over("d-2026-01-01", "d-2026-01-02", "two");
    let pruned = place.prune(&keep_last(1)).unwrap();
    assert_eq!(fates(&pruned), ["remove d-2026-01-01: no rule keeps it", "keep d-2026-01-02: last"]);
    // The index, two manifests and two configs of the base; not its layer.
    assert_eq!(pruned.garbage.blobs, 5);
    assert_eq!(place.tags(), ["d-2026-01-02"]);
    place.assert_intact("d-2026-01-02");
}

#[test]
fn blobs_of_replaced_tags_are_deleted_when_they_are_old_and_counted_before() {
    let place = Place::new();
    place.pack("d-2026-01-01", "one");
    place.pack("d-2026-01-01", "two");
    place.pack("d-2026-01-02", "three");
    let young = Options { garbage_age: Duration::from_secs(100 * 366 * 24 * 60 * 60), ..keep_last(2) };
    assert_eq!(place.prune(&young).unwrap().garbage.blobs, 0, "somebody may be writing them");
    let all = Options { garbage_age: Duration::ZERO, ..keep_last(1) };
    let (blobs, bytes) = (place.blobs(), size_of(&place.layout().join("blobs/sha256")));
    let counted = place.prune(&Options { effect: Effect::DryRun, ..all.clone() }).unwrap().garbage;
    assert_eq!((place.blobs(), place.tags().len()), (blobs, 2), "nothing was changed");
    // The index and the configs, manifests and layers of two images.
    assert_eq!(counted.blobs, 12);
    assert_eq!(place.prune(&all).unwrap().garbage, counted);
    assert_eq!(place.blobs(), blobs - 12);
    assert_eq!(size_of(&place.layout().join("blobs/sha256")), bytes - counted.bytes);
    place.assert_intact("d-2026-01-02");
}

#[test]
fn blobs_stay_while_a_writer_is_at_work() {
    let place = Place::new();
    place.pack("d-2026-01-01", "one");
    place.pack("d-2026-01-01", "two");
    let blobs = place.blobs();
    let writer = Layout::create(&place.layout(), Some("d-2026-01-02")).unwrap();
    assert!(!writer.contains(&Descriptor::of("x", b"nothing")).unwrap());
    let all = Options { garbage_age: Duration::ZERO, ..keep_last(1) };
    let garbage = place.prune(&all).unwrap().garbage;
    assert_eq!((garbage.blobs, place.blobs()), (0, blobs));
    assert!(garbage.left.unwrap().contains("writing"));
    drop(writer);
    assert_eq!(place.prune(&all).unwrap().garbage.blobs, 6);
    place.assert_intact("d-2026-01-01");
}

#[test]
fn an_index_that_cannot_be_read_keeps_all_blobs() {
    let place = Place::new();
    let packed = place.pack("d-2026-01-01", "one");
    place.pack("d-2026-01-02", "two");
    place.pack("d-2026-01-02", "three");
    fs::write(place.layout().join("blobs/sha256").join(packed.digest.hex()), "damaged").unwrap();
    let blobs = place.blobs();
    let pruned = place.prune(&Options { garbage_age: Duration::ZERO, ..keep_last(1) }).unwrap();
    assert!(fates(&pruned)[0].starts_with("keep d-2026-01-01: cannot be read"), "{:?}", fates(&pruned));
    assert!(pruned.garbage.left.is_some());
    assert_eq!(place.blobs(), blobs);
}

#[test]
fn attachments_and_referrers_go_with_their_image() {
    let place = Place::new();
    let (first, second) =
        (place.pack("d-2026-01-01", "one").digest, place.pack("d-2026-01-02", "two").digest);
    let to = Layout::create(&place.layout(), Some("any")).unwrap();
    let attach = |subject: &Digest, tag: Option<&str>, text: &str| {
        let config =
            serde_json::to_string(&Descriptor::of("application/vnd.oci.empty.v1+json", b"{}")).unwrap();
        let about =
            format!(r#""subject":{{"mediaType":"{}","digest":"{subject}","size":1}},"#, media_type::INDEX);
        let subject = if tag.is_none() { about } else { String::new() };
        let json = format!(
            r#"{{"schemaVersion":2,{subject}"config":{config},"layers":[],"annotations":{{"a":"{text}"}}}}"#
        );
        let document = Document::new(media_type::MANIFEST, json.into_bytes());
        to.put_manifest(&document).unwrap();
        if let Some(tag) = tag {
            to.attach(tag, &document).unwrap();
        }
        document.descriptor().digest.clone()
    };
    let signatures = [&first, &second].map(|digest| attachment_tags(digest)[0].clone());
    let referrers = [attach(&first, None, "1"), attach(&second, None, "2")];
    attach(&first, Some(&signatures[0]), "3");
    attach(&second, Some(&signatures[1]), "4");
    drop(to);
    let dry_run = place.prune(&Options { effect: Effect::DryRun, ..keep_last(1) }).unwrap();
    let pruned = place.prune(&keep_last(1)).unwrap();
    assert_eq!(fates(&pruned), fates(&dry_run));
    let tags = place.tags();
    assert_eq!(signatures.each_ref().map(|tag| tags.contains(tag)), [false, true], "{tags:?}");
    assert_eq!(place.open(None).referrers(&first).unwrap().len(), 0);
    assert_eq!(place.open(None).referrers(&second).unwrap()[0].digest, referrers[1]);
}

#[test]
fn older_tags_of_an_image_that_is_kept_go_and_the_image_stays() {
    let place = Place::new();
    place.pack("d-2026-01-01", "old");
    for day in 2..=5 {
        place.pack(&format!("d-2026-01-0{day}"), "same");
    }
    let pruned = place.prune(&keep_last(2)).unwrap();
    let expected = [
        "keep d-2026-01-01: last",
        "remove d-2026-01-02: its image is kept as d-2026-01-05",
        "remove d-2026-01-03: its image is kept as d-2026-01-05",
        "remove d-2026-01-04: its image is kept as d-2026-01-05",
        "keep d-2026-01-05: last",
    ];
    assert_eq!(fates(&pruned), expected);
    place.assert_intact("d-2026-01-05");
    place.assert_intact("d-2026-01-01");
}

#[test]
fn an_image_that_is_not_complete_is_noticed_before_older_ones_are_removed() {
    let place = Place::new();
    let packed = place.pack("d-2026-01-01", "one");
    let (source, destination) = (place.open(Some("d-2026-01-01")), place.open(Some("d-2026-01-01")));
    ensure_stored(&source, &destination, &packed.digest).unwrap();
    assert!(ensure_stored(&source, &destination, &Digest::of(b"another")).is_err());
    fs::remove_file(place.layout().join("blobs/sha256").join(packed.layers[0].digest.hex())).unwrap();
    let error = ensure_stored(&source, &destination, &packed.digest).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn attachments_of_replaced_tags_go_when_their_image_is_deleted_and_not_before() {
    let place = Place::new();
    let first = place.pack("d-2026-01-01", "one").digest;
    let to = Layout::create(&place.layout(), Some("any")).unwrap();
    let key =
        volio::SigningKey::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys/signer.pem")));
    let signer = volio::Signer::new(key.unwrap(), vec!["registry.example/data:v1".to_owned()]).unwrap();
    let sign = |tag: &str| volio::sign::sign(&place.open(Some(tag)), &to, &signer, &Silent).unwrap();
    sign("d-2026-01-01");
    let signature = attachment_tags(&first)[0].clone();
    // The tag is given to another image, which is signed too.
    let second = place.pack("d-2026-01-01", "two").digest;
    sign("d-2026-01-01");
    drop(to);
    let before = place.tags();
    let young = Options { garbage_age: Duration::from_secs(100 * 366 * 24 * 60 * 60), ..keep_last(1) };
    place.prune(&young).unwrap();
    assert_eq!(place.tags(), before, "another program may still store the image");
    let all = Options { garbage_age: Duration::ZERO, ..keep_last(1) };
    let dry_run = place.prune(&Options { effect: Effect::DryRun, ..all.clone() }).unwrap();
    assert_eq!(place.tags(), before);
    let pruned = place.prune(&all).unwrap();
    assert_eq!((fates(&pruned), &pruned.garbage), (fates(&dry_run), &dry_run.garbage));
    let line = format!("remove {signature}: attached to {first}, which does not exist");
    assert!(fates(&pruned).contains(&line), "{:?}", fates(&pruned));
    // Of each manifest and the index, the tag and the bundle.
    assert_eq!(pruned.removed().count(), 6);
    assert!(!place.tags().contains(&signature));
    assert_eq!(place.open(None).referrers(&first).unwrap().len(), 0);
    assert!(place.tags().contains(&attachment_tags(&second)[0]));
    assert_eq!(place.open(None).referrers(&second).unwrap().len(), 1);
    let policy = volio::SignaturePolicy::from_keys(vec![signer.key().public().clone()]);
    let location: Location = format!("oci:{}:d-2026-01-01", place.layout().display()).parse().unwrap();
    let source = location.source(&Access::default()).unwrap();
    volio::SignedSource::new(source, &location, &policy, volio::SignedPart::Whole)
        .unwrap()
        .resolve()
        .unwrap();
    assert_eq!(place.prune(&all).unwrap().removed().count(), 0);
}

#[test]
fn what_is_attached_to_an_attachment_of_a_replaced_tag_goes_in_the_same_run() {
    let place = Place::new();
    let first = place.pack("d-2026-01-01", "one").digest;
    let to = Layout::create(&place.layout(), Some("any")).unwrap();
    let attach = |tag: &str, subject: Option<&Digest>, text: &str| {
        let config = Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
        let mut json = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [], "annotations": { "a": text } });
        if let Some(subject) = subject {
            json["subject"] =
                serde_json::json!({ "mediaType": media_type::MANIFEST, "digest": subject, "size": 1 });
        }
        let document = Document::new(media_type::MANIFEST, json.to_string().into_bytes());
        to.put_manifest(&document).unwrap();
        if !tag.is_empty() {
            to.attach(tag, &document).unwrap();
        }
        document.descriptor().digest.clone()
    };
    let sbom = attach(&attachment_tags(&first)[2], None, "SBOM");
    let signature = attach(&attachment_tags(&sbom)[0], None, "signature of the SBOM");
    attach("", Some(&signature), "time of the signature");
    let second = place.pack("d-2026-01-01", "two").digest;
    let kept = attachment_tags(&second)[2].clone();
    let kept_digest = attach(&kept, None, "SBOM of the second");
    let signature_of_kept = attachment_tags(&kept_digest)[0].clone();
    attach(&signature_of_kept, None, "signature of that");
    drop(to);
    let all = Options { garbage_age: Duration::ZERO, ..keep_last(1) };
    let dry_run = place.prune(&Options { effect: Effect::DryRun, ..all.clone() }).unwrap();
    let pruned = place.prune(&all).unwrap();
    assert_eq!((fates(&pruned), &pruned.garbage), (fates(&dry_run), &dry_run.garbage));
    assert_eq!(pruned.removed().count(), 3, "{:?}", fates(&pruned));
    let mut expected = vec!["d-2026-01-01".to_owned(), kept, signature_of_kept];
    expected.sort();
    assert_eq!(place.tags(), expected);
    assert_eq!(place.open(None).referrers(&signature).unwrap().len(), 0);
    assert_eq!(place.prune(&all).unwrap().garbage.blobs, 0);
}
