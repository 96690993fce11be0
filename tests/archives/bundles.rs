//! Bundles for an air gap: an archive with what a later version of an image has and an earlier one lacks. Versions are packed
//! incrementally, so that each has the layers of the one before.

use super::{assert_unpacks, blobs, destination, location, source};
use crate::registry::{Registry, noise};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use volio::copy::{Base, Copied, Options, copy};
use volio::error::Kind;
use volio::oci::{Descriptor, Document, media_type};
use volio::pack::{self, IncrementalOptions, pack_incremental};
use volio::progress::Silent;
use volio::stream::Unverified;
use volio::transport::{Access, Source};
use volio::tree::SourceSpec;
use volio::{Error, Result};

/// The registry outside, with the versions v1 to v5 of a tree.
struct Outside {
    registry: Registry,
    place: tempfile::TempDir,
}

impl Outside {
    fn new() -> Self {
        let outside = Self { registry: Registry::start(), place: tempfile::tempdir().unwrap() };
        fs::create_dir_all(outside.place.path().join("tree/dir")).unwrap();
        for version in 1..=5_u8 {
            outside.change(version);
            outside.pack(version, &IncrementalOptions::default());
        }
        outside
    }

    fn tree(&self) -> std::path::PathBuf {
        self.place.path().join("tree")
    }

    /// Returns the location of a version, for people and for [`location`].
    fn version(&self, version: u8) -> String {
        format!("{}/team/data:v{version}", self.registry.host())
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.place.path().display())
    }

    /// Each version replaces a file, adds one, and removes the one that the version before has added.
    fn change(&self, version: u8) {
        let tree = self.tree();
        if version == 1 {
            fs::write(tree.join("large"), noise(200_000)).unwrap();
        }
        fs::write(tree.join("dir/changes"), noise(1000 * usize::from(version))).unwrap();
        fs::write(tree.join(format!("only-in-{version}")), [version]).unwrap();
        let _ = fs::remove_file(tree.join(format!("only-in-{}", version - 1)));
    }

    fn pack(&self, version: u8, incremental: &IncrementalOptions) {
        let to = destination(&self.version(version));
        let sources = [SourceSpec::new(self.tree())];
        let options = pack::Options::default();
        if version == 1 {
            pack::pack(to.as_ref(), &sources, &options, &Silent).unwrap();
        } else {
            let base = pack::Base::image(location(&self.version(version - 1)), Access::default());
            pack_incremental(to.as_ref(), &base, &sources, &options, incremental, &Silent).unwrap();
        }
    }

    /// Writes a bundle of a version for a side that has an earlier one.
    fn bundle(&self, version: u8, since: u8, to: &str) -> Copied {
        let base = Base::read(&self.version(since), source(&self.version(since)).as_ref()).unwrap();
        let options = Options { since: vec![base], ..Options::default() };
        copy(source(&self.version(version)).as_ref(), destination(to).as_ref(), &options, &Silent).unwrap()
    }
}

fn copied(from: &str, to: &str) -> Result<Copied> {
    copy(source(from).as_ref(), destination(to).as_ref(), &Options::default(), &Silent)
}

/// Reported of other programs: a blob is in a bundle twice. Each blob is in a bundle once, although two platforms
/// list it.
#[test]
fn a_bundle_of_the_fifth_version_completes_the_third_in_a_registry_and_in_a_layout() {
    let outside = Outside::new();
    let bundle = format!("oci-archive:{}:v5", outside.at("bundle.tar"));
    let done = outside.bundle(5, 3, &bundle);
    assert_eq!(
        (done.blobs_omitted, done.blobs_copied),
        (3, 2 + 2),
        "two layers, and a config for each platform"
    );
    let names = blobs(Path::new(&outside.at("bundle.tar")));
    let different: BTreeSet<&String> = names.iter().collect();
    assert_eq!(names.len(), different.len(), "{names:?}");
    assert!(fs::metadata(outside.at("bundle.tar")).unwrap().len() < 60_000, "without the large file");

    let inside = Registry::start();
    for to in [format!("{}/data", inside.host()), format!("oci:{}", outside.at("inside"))] {
        copied(&outside.version(3), &format!("{to}:v3")).unwrap();
        let done = copied(&bundle, &format!("{to}:v5")).unwrap();
        assert_eq!((done.blobs_copied, done.blobs_present), (4, 3));
        assert_unpacks(&format!("{to}:v5"), &outside.tree());
        // The completed image is an ordinary one, which needs no other.
        copied(&format!("{to}:v5"), &format!("oci:{}:v5", outside.at("elsewhere"))).unwrap();
    }
    let index = fs::read_to_string(outside.at("inside/index.json")).unwrap();
    assert!(!index.contains("io.volio.since"), "{index}");
}

/// Reported of other programs: the history is written before the bundle is complete.
#[test]
fn bundles_in_the_wrong_order_name_the_version_that_is_missing() {
    let outside = Outside::new();
    let name = |version: u8| format!("oci-archive:{}:v{version}", outside.at(&format!("{version}.tar")));
    outside.bundle(4, 3, &name(4));
    outside.bundle(5, 4, &name(5));
    let inside = Registry::start();
    for to in [format!("{}/data", inside.host()), format!("oci:{}", outside.at("inside"))] {
        copied(&outside.version(3), &format!("{to}:v3")).unwrap();
        let error = copied(&name(5), &format!("{to}:v5")).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        let missing = format!("{}@sha256:", outside.version(4));
        assert!(error.hint().unwrap().contains(&missing), "{error:?}");
        let absent =
            location(&format!("{to}:v5")).source(&Access::default()).and_then(|place| place.resolve());
        assert_eq!(absent.unwrap_err().kind(), Kind::NotFound, "the name comes last");

        copied(&name(4), &format!("{to}:v4")).unwrap();
        copied(&name(5), &format!("{to}:v5")).unwrap();
        assert_unpacks(&format!("{to}:v5"), &outside.tree());
        // A bundle that is applied twice changes nothing.
        assert_eq!(copied(&name(4), &format!("{to}:v4")).unwrap().blobs_copied, 0);
        assert_unpacks(&format!("{to}:v5"), &outside.tree());
    }
}

#[test]
fn a_bundle_is_the_base_of_the_next_one_without_the_registry_that_it_came_from() {
    let outside = Outside::new();
    let (first, second) = (
        format!("oci-archive:{}:v3", outside.at("3.tar")),
        format!("oci-archive:{}:v5", outside.at("5.tar")),
    );
    outside.bundle(3, 1, &first);
    let base = Base::read(&first, source(&first).as_ref()).unwrap();
    let options = Options { since: vec![base], ..Options::default() };
    let from = source(&outside.version(5));
    let done = copy(from.as_ref(), destination(&second).as_ref(), &options, &Silent).unwrap();
    assert_eq!((done.blobs_omitted, done.blobs_copied), (3, 4));
}

#[test]
fn a_version_that_was_packed_in_full_is_bundled_with_the_layers_that_the_earlier_one_lacks() {
    let outside = Outside::new();
    outside.change(6);
    outside.pack(6, &IncrementalOptions { max_layers: 5, ..IncrementalOptions::default() });
    let bundle = format!("oci-archive:{}:v6", outside.at("6.tar"));
    let done = outside.bundle(6, 5, &bundle);
    assert_eq!((done.blobs_omitted, done.blobs_copied), (0, 1 + 2));
    let inside = format!("oci:{}:v6", outside.at("inside"));
    copied(&bundle, &inside).unwrap();
    assert_unpacks(&inside, &outside.tree());
}

/// A source that fails at a layer, after so many others.
struct Failing<'a>(&'a dyn Source, AtomicU64);

impl Source for Failing<'_> {
    fn resolve(&self) -> Result<Document> {
        self.0.resolve()
    }

    fn open(&self, blob: &Descriptor) -> Result<Unverified> {
        if media_type::is_layer(&blob.media_type) && self.1.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(Error::failed("the network is gone"));
        }
        self.0.open(blob)
    }
}

/// Reported of other programs: the history is written before the bundle is complete.
#[test]
fn a_run_that_failed_leaves_the_previous_bundle_as_it_was() {
    let outside = Outside::new();
    for bundle in
        [format!("oci-archive:{}", outside.at("bundle.tar")), format!("oci:{}", outside.at("stick"))]
    {
        let bundle = format!("{bundle}:bundle");
        let before = outside.bundle(4, 3, &bundle).digest;
        let base = Base::read(&outside.version(3), source(&outside.version(3)).as_ref()).unwrap();
        // One after the other, so that the second layer fails after the first one.
        let options = Options { since: vec![base], concurrency: 1, ..Options::default() };
        // The first layer of the fifth version that the third lacks is in the bundle already.
        let from = source(&outside.version(5));
        let from = Failing(from.as_ref(), AtomicU64::new(0));
        let error = copy(&from, destination(&bundle).as_ref(), &options, &Silent).unwrap_err();
        assert_eq!(error.to_string(), "source: the network is gone");
        assert_eq!(source(&bundle).resolve().unwrap().descriptor().digest, before);

        let inside = format!("oci:{}:v4", outside.at(&format!("inside-{}", bundle.len())));
        copied(&outside.version(3), &inside.replace(":v4", ":v3")).unwrap();
        copied(&bundle, &inside).unwrap();
        volio::unpack::unpack(
            source(&inside).as_ref(),
            &outside.place.path().join(format!("restored-{}", bundle.len())),
            &volio::unpack::Options::default(),
            &Silent,
        )
        .unwrap();
        // The next run that does not fail replaces it.
        assert_ne!(outside.bundle(5, 3, &bundle).digest, before);
    }
}
