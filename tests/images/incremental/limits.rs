//! The limits on an image, and on what a source may lose.

use super::*;
use volio::error::Kind;
use volio::pack::{Effect, FullReason};

// Reported of other programs: an image has more layers than engines mount.
#[test]
fn an_image_with_too_many_layers_is_packed_in_full() {
    let series = Series::new();
    series.pack();
    for n in 0..6 {
        series.write("d/a", format!("version {n}"), NEWEST + 100 + n);
        let packed = series.pack_with(|_, incremental| incremental.max_layers = 4).unwrap();
        let reason = FullReason::TooManyLayers { layers: 5, limit: 4 };
        assert_form(&packed, &if n == 3 { ImageForm::Full(reason) } else { ImageForm::Delta });
        series.assert_shows_tree();
    }
    assert_eq!(layers(&series.location("t")).1, 3, "after the full pack");
}

#[test]
fn an_image_with_too_many_dead_bytes_is_packed_in_full() {
    let series = Series::new();
    series.pack();
    for n in 1..4 {
        series.write("other/large", vec![n; 100_000], NEWEST + i64::from(n));
        let packed = series.pack_with(|_, incremental| incremental.max_dead = 60).unwrap();
        let reason = FullReason::TooMuchDead { limit: 60 };
        assert_form(&packed, &if n == 2 { ImageForm::Full(reason) } else { ImageForm::Delta });
    }
    series.assert_shows_tree();
}

#[test]
fn a_tree_with_nothing_of_the_base_is_packed_in_full() {
    let series = Series::new();
    series.pack();
    for path in ["d", "other", "empty"] {
        fs::remove_dir_all(series.at(path)).unwrap();
    }
    for path in ["root", "newest", "link"] {
        fs::remove_file(series.at(path)).unwrap();
    }
    series.write("something-else", "else", NEWEST);
    set_time(&series.at(""), NEWEST, 0);
    let packed = series.pack_with(|_, incremental| incremental.max_dead = 99).unwrap();
    assert_form(&packed, &ImageForm::Full(FullReason::EverythingDiffers));
    series.assert_shows_tree();
}

#[test]
fn a_source_that_lost_too_much_is_refused() {
    let series = Series::new();
    series.pack();
    let before = series.resolve("t");
    let pack =
        |percent| series.pack_with(|_, incremental| incremental.shrink_rule = ShrinkRule::AtMost(percent));
    fs::remove_file(series.at("other/large")).unwrap();
    let error = pack(90).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("bytes of files"), "{error}");
    pack(100).unwrap();
    for path in ["d", "other", "empty"] {
        fs::remove_dir_all(series.at(path)).unwrap();
    }
    fs::remove_file(series.at("root")).unwrap();
    fs::remove_file(series.at("newest")).unwrap();
    // A symbolic link is left, and no file.
    let error = pack(100).unwrap_err();
    assert_eq!(error.to_string(), "the source has no files");
    assert_ne!(series.resolve("t"), before);
    series.pack();
    series.assert_shows_tree();
}

#[test]
fn an_empty_source_is_refused_for_any_base_unless_everything_is_allowed() {
    let series = Series::new();
    series.pack();
    fs::remove_dir_all(series.at("")).unwrap();
    fs::create_dir_all(series.at("mount/point")).unwrap();
    let base = Base::image(series.location("t"), Access::default());
    let pack = |shrink_rule| {
        let sources = [SourceSpec::new(series.at(""))];
        pack_over(&base, &series.location("new"), &sources, &Silent, |_, incremental| {
            incremental.shrink_rule = shrink_rule;
        })
    };
    assert_eq!(pack(ShrinkRule::AtMost(100)).unwrap_err().to_string(), "the source has no files");
    pack(ShrinkRule::Any).unwrap();
}

#[test]
fn a_dry_run_computes_everything_and_writes_nothing() {
    let series = Series::new();
    let files = || crate::snapshot::snapshot(series.0.path());
    let dry = |effect| series.pack_with(|_, incremental| incremental.effect = effect).unwrap();
    let before = files();
    let first = dry(Effect::DryRun);
    assert!(files() == before);
    assert_eq!(first.digest, dry(Effect::Write).digest);
    series.write("d/a", "changed", NEWEST + 9);
    let before = files();
    let dry_run = dry(Effect::DryRun);
    assert!(files() == before);
    let packed = dry(Effect::Write);
    assert_eq!((dry_run.digest, dry_run.incremental), (packed.digest, packed.incremental));
    let before = files();
    assert_form(&dry(Effect::DryRun), &ImageForm::Unchanged);
    assert!(files() == before);
}

#[test]
fn an_archive_for_docker_load_cannot_have_layers_of_a_base() {
    let series = Series::new();
    series.pack();
    let base = Base::image(series.location("t"), Access::default());
    let to = format!("docker-archive:{}:a:b", series.0.path().join("a.tar").display()).parse().unwrap();
    let error = pack_over(&base, &to, &[SourceSpec::new(series.at(""))], &Silent, |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
}
