//! Bases of every kind: other tags and places, images of other programs, damaged and missing ones.

use super::*;
use crate::images::layers::layer;
use crate::images::memory;
use volio::error::Kind;
use volio::oci::{Index, Manifest, media_type};
use volio::pack::{Effect, FullReason};
use volio::transport::fetch;

impl Series {
    fn pack_to(&self, base: &Base, to: &Location) -> volio::Result<Packed> {
        pack_over(base, to, &[SourceSpec::new(self.at(""))], &Silent, |_, _| {})
    }

    fn archive(&self) -> Location {
        format!("oci-archive:{}:t", self.0.path().join("a.tar").display()).parse().unwrap()
    }
}

#[test]
fn a_base_in_another_place_is_brought_along_and_named_by_its_digest() {
    let series = Series::new();
    let first = series.pack();
    let base = Base::image(series.location("t"), Access::default());
    // Unchanged, to another tag, and to an archive.
    for to in [series.location("copy"), series.archive()] {
        let packed = series.pack_to(&base, &to).unwrap();
        assert_form(&packed, &ImageForm::Unchanged);
        assert_eq!(packed.digest, first.digest);
        assert_shows(&to, &series.at(""));
    }
    series.write("d/a", "changed", NEWEST + 9);
    for to in [series.location("other"), series.archive()] {
        assert_delta(&series.pack_to(&base, &to).unwrap());
        assert_shows(&to, &series.at(""));
        let source = to.source(&Access::default()).unwrap();
        let index = Index::parse(&source.resolve().unwrap()).unwrap();
        let manifest = fetch(source.as_ref(), &index.manifests[0]).unwrap();
        for annotations in [index.annotations, Manifest::parse(&manifest).unwrap().annotations] {
            let digest = annotations["org.opencontainers.image.base.digest"].as_str();
            assert_eq!(digest, first.digest.to_string());
            // A layout has no fully qualified name, and its path would make the digest depend on the machine.
            assert!(!annotations.contains_key("org.opencontainers.image.base.name"));
        }
    }
    assert_eq!(series.resolve("t").descriptor().digest, first.digest);
}

#[test]
fn a_dry_run_of_a_copy_reports_what_the_copy_sends() {
    let series = Series::new();
    series.pack();
    let base = Base::image(series.location("t"), Access::default());
    let sent = |effect| {
        let sources = [SourceSpec::new(series.at(""))];
        let packed = pack_over(&base, &series.archive(), &sources, &Silent, |_, incremental| {
            incremental.effect = effect;
        });
        let report = packed.unwrap().incremental.unwrap();
        assert_eq!(report.form, ImageForm::Unchanged);
        report.bytes_sent
    };
    let expected = sent(Effect::DryRun);
    assert!(expected > 100_000, "{expected}");
    assert!(series.archive().source(&Access::default()).is_err());
    assert_eq!(sent(Effect::Write), expected);
}

#[test]
fn a_full_pack_sends_at_least_what_a_delta_sent() {
    let series = Series::new();
    series.write("zeros", vec![0; 10_000_000], OLD);
    series.pack();
    series.write("noise", crate::registry::noise(500_000), NEWEST + 9);
    let report = series.pack().incremental.unwrap();
    assert!(report.bytes_sent > 500_000, "{report:?}");
    assert!(report.full_bytes >= report.bytes_sent, "{report:?}");
    assert!(report.full_bytes < report.bytes_sent + 200_000, "{report:?}");
}

#[test]
fn an_archive_is_packed_into_again() {
    let series = Series::new();
    let archive = series.archive();
    let base = Base::current(archive.clone(), Access::default());
    for n in 0..3 {
        series.write("d/a", format!("version {n}"), NEWEST + 9 + n);
        series.pack_to(&base, &archive).unwrap();
        assert_eq!(layers(&archive).1, n as usize + 1);
        assert_shows(&archive, &series.at(""));
    }
}

#[test]
fn images_of_other_programs_are_read_once_and_extended() {
    let series = Series::new();
    let foreign = memory();
    let lower =
        ["d/", "d/a=old", "d/e/", "d/e/c=d/e/c", "gone/", "gone/x=1", "link->d/a", "hidden/", "hidden/y=1"];
    let large = format!("large={}", "x".repeat(200_000));
    let lower = lower.into_iter().chain([large.as_str()]).collect::<Vec<_>>();
    series.write("large", "x".repeat(200_000), 0);
    // An opaque whiteout, and a directory that no entry describes.
    let upper = ["hidden/", "hidden/.wh..wh..opq", "root=root", "implied/z=1"];
    publish(&foreign, &[layer(&foreign, &lower), layer(&foreign, &upper)]);
    let destination = series.location("t").destination(&Access::default()).unwrap();
    volio::copy::copy(&foreign, destination.as_ref(), &volio::copy::Options::default(), &Silent).unwrap();
    drop(destination);
    // Its times are whole seconds.
    for (path, mode) in [("root", 0o755), ("d/e/c", 0o755), ("large", 0o755)] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(series.at(path), fs::Permissions::from_mode(mode)).unwrap();
        set_time(&series.at(path), 0, 123_456_789);
    }
    let packed = series.pack();
    assert_delta(&packed);
    let last = series.last_layer();
    // They are compared by their contents, because the base has whole seconds and nothing newer.
    assert_eq!(packed.incremental.unwrap().content_compared, 3);
    assert!(!last.contains(&"d/e/c".to_owned()), "{last:?}");
    for removed in ["-gone", "-hidden", "-implied"] {
        assert!(last.contains(&removed.to_owned()), "{last:?}");
    }
    assert!(last.contains(&"d/a".to_owned()), "{last:?}");
    // The times of unchanged files are those of the base, without their nanoseconds.
    for path in ["root", "d/e/c", "large"] {
        set_time(&series.at(path), 0, 0);
    }
    series.assert_shows_tree();
    assert_form(&series.pack(), &ImageForm::Unchanged);
}

#[test]
fn layers_of_a_base_in_docker_format_have_oci_types_in_an_oci_manifest() {
    let series = Series::new();
    let one_platform = |options: &mut Options, _: &mut IncrementalOptions| {
        options.image.platforms = vec!["linux/amd64".parse().unwrap()];
        options.compression = "gzip".parse().unwrap();
    };
    series.pack_with(one_platform).unwrap();
    let layer = Manifest::parse(&series.resolve("t")).unwrap().layers[0].clone();
    assert_eq!(layer.media_type, media_type::LAYER_GZIP);
    for manifest_type in [media_type::DOCKER_MANIFEST, media_type::MANIFEST] {
        // What other programs make of such a base, and an OCI manifest with Docker's types.
        let mut manifest = Manifest::parse(&series.resolve("t")).unwrap();
        for layer in &mut manifest.layers {
            media_type::DOCKER_LAYER_GZIP.clone_into(&mut layer.media_type);
        }
        manifest.media_type = Some(manifest_type.to_owned());
        let destination = series.location("t").destination(&Access::default()).unwrap();
        let document = Document::write(manifest_type, &manifest);
        destination.put_manifest(&document).unwrap();
        destination.commit(&document).unwrap();
        drop(destination);
        // Nothing changed in the tree, but the documents have to.
        let packed = series.pack_with(one_platform).unwrap();
        assert_delta(&packed);
        assert_eq!(packed.incremental.unwrap().layers_added, 0);
        assert_eq!(Manifest::parse(&series.resolve("t")).unwrap().layers, std::slice::from_ref(&layer));
        series.assert_shows_tree();
    }
}

#[test]
fn a_base_with_a_layer_of_another_media_type_is_refused_without_a_hint_to_other_commands() {
    let series = Series::new();
    series.pack_with(|options, _| options.image.platforms = vec!["linux/amd64".parse().unwrap()]).unwrap();
    let mut manifest = Manifest::parse(&series.resolve("t")).unwrap();
    "application/vnd.oci.image.layer.v1.tar+xz".clone_into(&mut manifest.layers[0].media_type);
    let destination = series.location("t").destination(&Access::default()).unwrap();
    let document = Document::write(media_type::MANIFEST, &manifest);
    destination.put_manifest(&document).unwrap();
    destination.commit(&document).unwrap();
    drop(destination);
    let base = Base::image(series.location("t"), Access::default());
    let error = series.pack_to(&base, &series.location("other")).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(error.hint().unwrap().contains("choose another base"), "{:?}", error.hint());
}

#[test]
fn a_damaged_base_is_replaced_by_a_whole_image_if_it_has_the_name_and_an_error_otherwise() {
    let series = Series::new();
    let packed = series.pack();
    let blob = |digest: &str| series.0.path().join("layout/blobs/sha256").join(&digest[7..]);
    let layer = blob(&packed.layers[0].digest.to_string());
    let mut bytes = fs::read(&layer).unwrap();
    let end = bytes.len();
    bytes[end - 60..].fill(0);
    bytes[end - 400..end - 60].reverse();
    fs::write(&layer, bytes).unwrap();
    let base = Base::image(series.location("t"), Access::default());
    let error = series.pack_to(&base, &series.location("other")).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    let packed = series.pack();
    let form = packed.incremental.unwrap().form;
    assert!(matches!(&form, ImageForm::Full(FullReason::Unusable { why }) if why.contains("cannot be used")));
    series.assert_shows_tree();
}

#[test]
fn a_base_that_does_not_exist_is_an_error_unless_it_has_the_name() {
    let series = Series::new();
    let base = Base::image(series.location("missing"), Access::default());
    let error = series.pack_to(&base, &series.location("t")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let name = series.location("t").to_string();
    assert_form(&series.pack(), &ImageForm::Full(FullReason::NoBase { name }));
}

#[test]
fn the_base_is_that_of_the_first_platform_and_not_of_the_host() {
    let series = Series::new();
    let for_platform = |platform: &'static str| {
        move |options: &mut Options, _: &mut IncrementalOptions| {
            options.image.platforms = vec![platform.parse().unwrap()];
        }
    };
    series.pack_with(for_platform("linux/s390x")).unwrap();
    series.write("d/a", "changed", NEWEST + 9);
    assert_delta(&series.pack_with(for_platform("linux/s390x")).unwrap());
    let packed = series.pack_with(for_platform("linux/riscv64")).unwrap();
    assert!(matches!(packed.incremental.unwrap().form, ImageForm::Full(FullReason::Unusable { .. })));
}
