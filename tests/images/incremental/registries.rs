//! Incremental packs to registries.

use super::*;
use crate::registry::{Refusal, Registry};
use axum::http::Method;
use volio::error::Kind;
use volio::pack::FullReason;

fn pack_to(series: &Series, base: &Base, to: &Location) -> volio::Result<Packed> {
    pack_over(base, to, &[SourceSpec::new(series.at(""))], &Silent, |_, _| {})
}

fn current(location: &Location) -> Base {
    Base::current(location.clone(), Access::default())
}

#[test]
fn the_layers_of_the_base_are_neither_fetched_nor_sent() {
    let (registry, series) = (Registry::start(), Series::new());
    let image = registry.location("team/data", "t");
    pack_to(&series, &current(&image), &image).unwrap();
    series.write("d/a", "changed", NEWEST + 9);
    let (uploaded, before) = (registry.uploaded(), registry.requests().len());
    let packed = pack_to(&series, &current(&image), &image).unwrap();
    let sent = registry.uploaded() - uploaded;
    let report = packed.incremental.unwrap();
    // The root is sent under its digest and under the tag.
    assert!(sent < report.bytes_sent + 1_000 && report.bytes_sent < 10_000, "{sent} {report:?}");
    let fetched = registry.requests();
    let whole = fetched[before..].iter().filter(|request| {
        request.method == Method::GET && request.path.contains("/blobs/") && request.header("range").is_none()
    });
    assert_eq!(whole.count(), 1, "the config");
    assert_shows(&image, &series.at(""));
    let before = registry.requests().len();
    assert_form(&pack_to(&series, &current(&image), &image).unwrap(), &ImageForm::Unchanged);
    let writes = |request: &&crate::registry::Recorded| {
        request.method != Method::GET && request.method != Method::HEAD
    };
    assert_eq!(registry.requests()[before..].iter().filter(writes).count(), 0);
}

#[test]
fn the_base_of_another_repository_is_mounted_and_that_of_another_registry_copied() {
    let (registry, elsewhere, series) = (Registry::start(), Registry::start(), Series::new());
    let first = registry.location("team/data", "t");
    pack_to(&series, &current(&first), &first).unwrap();
    series.write("d/a", "changed", NEWEST + 9);
    let base = Base::image(first.clone(), Access::default());
    let uploaded = registry.uploaded();
    let beside = registry.location("team/other", "t");
    assert_delta(&pack_to(&series, &base, &beside).unwrap());
    assert!(registry.uploaded() - uploaded < 10_000);
    let far = elsewhere.location("team/data", "t");
    let packed = pack_to(&series, &base, &far).unwrap();
    assert!(packed.incremental.unwrap().bytes_sent > 90_000);
    for image in [&beside, &far] {
        assert_shows(image, &series.at(""));
        let source = image.source(&Access::default()).unwrap();
        let index = volio::oci::Index::parse(&source.resolve().unwrap()).unwrap();
        assert_eq!(index.annotations["org.opencontainers.image.base.name"], first.to_string());
    }
}

// Reported of other programs: a registry says that a blob is there, and it is gone.
#[test]
fn layers_that_vanished_behind_a_cache_are_sent_again_once() {
    let (registry, other, series) = (Registry::start(), Registry::start(), Series::new());
    let (first, copy) = (registry.location("team/data", "t"), other.location("team/data", "t"));
    let packed = pack_to(&series, &current(&first), &first).unwrap();
    let layer = packed.layers[0].digest.clone();
    let base = Base::image(first.clone(), Access::default());
    pack_to(&series, &base, &copy).unwrap();
    other.forget_blob("team/data", &layer);
    other.behave(|behaviour| behaviour.remembers_forgotten_blobs = true);
    series.write("d/a", "changed", NEWEST + 9);
    assert_delta(&pack_to(&series, &base, &copy).unwrap());
    assert!(other.blob("team/data", &layer).is_some());
    assert_shows(&copy, &series.at(""));
}

// Reported of other programs: a registry says that a blob is there, and it is gone.
#[test]
fn a_layer_that_is_gone_for_good_leads_to_a_whole_pack() {
    let (registry, series) = (Registry::start(), Series::new());
    let image = registry.location("team/data", "t");
    pack_to(&series, &current(&image), &image).unwrap();
    series.write("d/a", "changed", NEWEST + 9);
    let packed = pack_to(&series, &current(&image), &image).unwrap();
    registry.forget_blob("team/data", &packed.layers[0].digest);
    series.write("d/b", "changed", NEWEST + 10);
    let packed = pack_to(&series, &current(&image), &image).unwrap();
    let form = packed.incremental.unwrap().form;
    assert!(matches!(form, ImageForm::Full(FullReason::Unusable { .. })), "{form:?}");
    assert_shows(&image, &series.at(""));
}

// Reported of other programs: a registry without ranges sends the whole blob; a table of contents is too large.
// Registries without ranges.
#[test]
fn a_registry_without_ranges_is_read_as_a_whole() {
    let (registry, series) = (Registry::start(), Series::new());
    let image = registry.location("team/data", "t");
    pack_to(&series, &current(&image), &image).unwrap();
    registry.behave(|behaviour| behaviour.ranges = crate::registry::Ranges::Ignored);
    series.write("d/a", "changed", NEWEST + 9);
    let packed = pack_to(&series, &current(&image), &image).unwrap();
    assert_eq!(counts(&packed), (0, 1, 0, 12));
    assert_shows(&image, &series.at(""));
}

#[test]
fn a_registry_that_denies_the_base_gets_a_whole_image_but_no_empty_one() {
    let (registry, series) = (Registry::start(), Series::new());
    let image = registry.location("team/data", "t");
    let deny = || {
        let refusal =
            Refusal { method: Method::GET, path: "/manifests/t", status: 403, ..Refusal::default() };
        registry.behave(|behaviour| behaviour.refusals = vec![refusal]);
    };
    deny();
    let packed = pack_to(&series, &current(&image), &image).unwrap();
    assert!(matches!(packed.incremental.unwrap().form, ImageForm::Full(FullReason::Unusable { .. })));
    let before = image.source(&Access::default()).unwrap().resolve().unwrap();
    let guarded = || {
        let sources = [SourceSpec::new(series.at(""))];
        pack_over(&current(&image), &image, &sources, &Silent, |_, incremental| {
            incremental.shrink_rule = ShrinkRule::AtMost(90);
        })
    };
    fs::remove_dir_all(series.at("")).unwrap();
    for directory in ["", "empty", "empty/below"] {
        fs::create_dir(series.at(directory)).unwrap();
        deny();
        let error = guarded().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Refused, "the source has no files"));
    }
    assert_eq!(image.source(&Access::default()).unwrap().resolve().unwrap(), before);
}

#[test]
fn a_registry_that_always_misses_layers_is_a_failure_and_nothing_that_was_not_found() {
    let (registry, series) = (Registry::start(), Series::new());
    let image = registry.location("team/data", "t");
    pack_to(&series, &current(&image), &image).unwrap();
    series.write("d/a", "changed", NEWEST + 9);
    let body = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#;
    let refusal = || Refusal {
        method: Method::PUT,
        path: "/manifests/",
        status: 404,
        body: body.to_owned(),
        ..Refusal::default()
    };
    registry.behave(|behaviour| behaviour.refusals = (0..40).map(|_| refusal()).collect());
    let error = pack_to(&series, &current(&image), &image).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
}

#[test]
fn an_image_that_the_registry_denied_at_first_is_not_replaced() {
    let (registry, series) = (Registry::start(), Series::new());
    let image = registry.location("team/data", "t");
    pack_to(&series, &current(&image), &image).unwrap();
    let before = image.source(&Access::default()).unwrap().resolve().unwrap();
    series.write("d/a", "changed", NEWEST + 9);
    let deny = |times| {
        let refusal =
            || Refusal { method: Method::GET, path: "/manifests/t", status: 403, ..Refusal::default() };
        registry.behave(|behaviour| behaviour.refusals = (0..times).map(|_| refusal()).collect());
    };
    for (times, kind) in [(1, Kind::Refused), (20, Kind::Denied)] {
        deny(times);
        let error = pack_to(&series, &current(&image), &image).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        deny(0);
        assert_eq!(image.source(&Access::default()).unwrap().resolve().unwrap(), before);
    }
}
