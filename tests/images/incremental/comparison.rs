//! Which entries count as changed.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use volio::pack::ContentCheck;
use volio::{Compression, Time};

#[test]
fn only_what_changed_is_in_the_delta_with_the_directories_that_lead_to_it() {
    let series = Series::new();
    series.pack();
    series.write("d/e/c", "changed", NEWEST + 100);
    series.write("d/new", "new", NEWEST + 100);
    fs::remove_file(series.at("other/f")).unwrap();
    set_time(&series.at("other"), OLD, 5);
    let packed = series.pack();
    assert_delta(&packed);
    assert_eq!(counts(&packed), (1, 1, 1, 11));
    assert_eq!(series.last_layer(), ["/", "d/", "d/e/", "d/e/c", "d/new", "other/", "-other/f"]);
    series.assert_shows_tree();
    let report = packed.incremental.unwrap();
    assert_eq!((report.layers_reused, report.layers_added), (1, 1));
    // The newest file is read, too.
    assert!(
        report.bytes_read == 10 + 6 && report.bytes_sent < 10_000 && report.full_bytes > 90_000,
        "{report:?}"
    );
}

// Reported of other programs: no change adds an empty layer.
#[test]
fn nothing_is_packed_and_nothing_written_if_nothing_changed() {
    let series = Series::new();
    let first = series.pack();
    let files = || crate::snapshot::snapshot(&series.0.path().join("layout"));
    let before = files();
    let second = series.pack();
    assert_form(&second, &ImageForm::Unchanged);
    assert_eq!((second.digest, second.address), (first.digest, first.address));
    assert!(files() == before);
}

// Reported of other programs: no change adds an empty layer.
#[test]
fn other_labels_make_new_documents_without_a_layer() {
    let series = Series::new();
    series.pack();
    let label = |options: &mut Options, _: &mut IncrementalOptions| {
        options.image.labels.insert("a".to_owned(), "b".to_owned());
    };
    let labelled = series.pack_with(label).unwrap();
    assert_delta(&labelled);
    assert_eq!(layers(&series.location("t")).1, 1);
    assert_form(&series.pack_with(label).unwrap(), &ImageForm::Unchanged);
    let platform = |options: &mut Options, _: &mut IncrementalOptions| {
        options.image.platforms = vec!["linux/arm64".parse().unwrap()];
    };
    assert_delta(&series.pack_with(platform).unwrap());
    assert_form(&series.pack_with(platform).unwrap(), &ImageForm::Unchanged);
    series.assert_shows_tree();
}

// Reported of other programs: chmod and chown of a whole tree cause everything to be sent again; a change of
// extended attributes alone is missed.
#[test]
fn a_change_of_metadata_alone_takes_that_entry_and_reads_no_other() {
    let series = Series::new();
    series.pack();
    fs::set_permissions(series.at("other/f"), fs::Permissions::from_mode(0o600)).unwrap();
    let packed = series.pack();
    assert_eq!(series.last_layer(), ["/", "other/", "other/f"]);
    assert_eq!(packed.incremental.unwrap().bytes_read, 7 + 6, "it and the newest file");
    fs::set_permissions(series.at("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    series.pack();
    assert_eq!(series.last_layer(), ["/", "empty/"]);
    series.assert_shows_tree();
    let name = "user.test";
    if rustix::fs::setxattr(series.at("d/a"), name, b"1", rustix::fs::XattrFlags::empty()).is_ok() {
        assert_eq!(counts(&series.pack()).1, 1);
        series.assert_shows_tree();
    }
}

// Reported of other programs: a change is missed if size and mtime are restored.
#[test]
fn a_restored_mtime_hides_a_change_unless_all_contents_are_compared() {
    let series = Series::new();
    series.pack();
    series.write("d/a", "a/d", OLD);
    set_time(&series.at("d/a"), OLD, 5);
    assert_form(&series.pack(), &ImageForm::Unchanged);
    let checked =
        series.pack_with(|_, incremental| incremental.content_check = ContentCheck::Always).unwrap();
    assert_eq!((counts(&checked).1, checked.incremental.unwrap().content_compared), (1, 7));
    series.assert_shows_tree();
}

// Reported of other programs: a second change within the same tick of the clock is missed.
#[test]
fn a_second_change_within_the_granularity_of_the_clock_is_noticed() {
    let series = Series::new();
    for (path, seconds) in [("newest", NEWEST), ("d/a", NEWEST - 1), ("d/b", NEWEST - 2)] {
        set_time(&series.at(path), seconds, 5);
    }
    series.pack();
    for (path, seconds) in [("newest", NEWEST), ("d/a", NEWEST - 1), ("d/b", NEWEST - 2)] {
        let content: String = fs::read_to_string(series.at(path)).unwrap().chars().rev().collect();
        series.write(path, content, seconds);
        set_time(&series.at(path), seconds, 5);
    }
    let packed = series.pack();
    assert_eq!((counts(&packed).1, packed.incremental.unwrap().content_compared), (3, 3));
    series.assert_shows_tree();
}

// Reported of other programs: clock skew and mtimes in the future.
#[test]
fn a_time_in_the_future_proves_nothing_and_does_not_hide_young_files() {
    let series = Series::new();
    let future = 32_000_000_000;
    series.write("other/f", "later", future);
    series.pack();
    series.write("other/f", "retal", future);
    series.write("newest", "tsewen", NEWEST);
    set_time(&series.at("newest"), NEWEST, 5);
    assert_eq!(counts(&series.pack()).1, 2);
    series.assert_shows_tree();
    // Earlier times are as different as later ones.
    series.write("other/f", "earlier", 1_000);
    assert_eq!(counts(&series.pack()).1, 1);
    series.assert_shows_tree();
}

// Reported of other programs: inode numbers that change make every file new; device ids that change make every
// directory changed.
#[test]
fn the_same_tree_elsewhere_is_unchanged() {
    let series = Series::new();
    series.pack();
    let (tree, moved) = (series.at(""), series.0.path().join("moved"));
    assert!(std::process::Command::new("cp").arg("-a").args([&tree, &moved]).status().unwrap().success());
    assert_ne!(fs::metadata(tree.join("d/a")).unwrap().ino(), fs::metadata(moved.join("d/a")).unwrap().ino());
    let base = Base::current(series.location("t"), Access::default());
    let packed =
        pack_over(&base, &series.location("t"), &[SourceSpec::new(moved)], &Silent, |_, _| {}).unwrap();
    assert_form(&packed, &ImageForm::Unchanged);
}

// Reported of other programs: new mtimes without new contents cause everything to be sent again.
#[test]
fn times_that_are_replaced_prove_nothing_and_equal_contents_are_no_change() {
    let normalize = |options: &mut Options, _: &mut IncrementalOptions| {
        options.tree.normalize = Some(Time::default());
    };
    let series = Series::new();
    let first = series.pack_with(normalize).unwrap();
    for path in ["d/a", "d", "newest", "other/large"] {
        set_time(&series.at(path), NEWEST + 1000, 0);
    }
    assert_eq!(series.pack_with(normalize).unwrap().digest, first.digest);
    series.write("d/a", "a/d", OLD);
    assert_eq!(counts(&series.pack_with(normalize).unwrap()).1, 1);

    let clamp = |options: &mut Options, _: &mut IncrementalOptions| {
        options.tree.clamp_mtime = Some(Time { seconds: OLD + 10, nanoseconds: 0 });
    };
    let series = Series::new();
    series.write("root", "toor", OLD + 20);
    series.pack_with(clamp).unwrap();
    series.write("root", "root", OLD + 30);
    assert_eq!(counts(&series.pack_with(clamp).unwrap()).1, 1);
    set_time(&series.at("root"), OLD + 40, 0);
    assert_form(&series.pack_with(clamp).unwrap(), &ImageForm::Unchanged);
}

// Reported of other programs: whiteouts and changes of type are misread.
#[test]
fn an_entry_may_become_any_other_kind_and_only_the_topmost_removed_path_has_a_whiteout() {
    type Make = fn(&Path);
    let kinds: [(&str, Make); 5] = [
        ("nothing", |_| {}),
        ("file", |path| fs::write(path, "file").unwrap()),
        ("directory", |path| fs::create_dir_all(path.join("below/more")).unwrap()),
        ("symlink", |path| symlink("d", path).unwrap()),
        ("fifo", |path| {
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600));
            rustix::fs::mknodat(CWD, path, kind, mode, 0).unwrap();
        }),
    ];
    for (before, make_before) in &kinds {
        for (after, make_after) in &kinds {
            let series = Series::new();
            let path = series.at("x");
            make_before(&path);
            series.settle();
            series.pack();
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                fs::remove_dir_all(&path).unwrap();
            } else if path.symlink_metadata().is_ok() {
                fs::remove_file(&path).unwrap();
            }
            make_after(&path);
            for path in ["x/below/more", "x/below", "x", ""] {
                if series.at(path).symlink_metadata().is_ok() {
                    set_time(&series.at(path), NEWEST + 9, 9);
                }
            }
            series.pack();
            series.assert_shows_tree();
            let whiteouts: Vec<_> =
                series.last_layer().into_iter().filter(|item| item.starts_with('-')).collect();
            if *after == "nothing" && *before != "nothing" {
                assert_eq!(whiteouts, ["-x"], "from {before}");
            } else {
                assert!(whiteouts.is_empty(), "{whiteouts:?} from {before} to {after}");
            }
        }
    }
}

// Reported of other programs: names that begin with .wh. become deletions.
#[test]
fn a_new_file_with_the_name_of_a_whiteout_is_refused() {
    let series = Series::new();
    series.pack();
    let before = series.resolve("t");
    series.write("d/.wh.a", "", NEWEST);
    let error = series.pack_with(|_, _| {}).unwrap_err();
    assert!(error.to_string().contains("/d/.wh.a cannot be in an image"), "{error}");
    assert_eq!(series.resolve("t"), before);
}

// Reported of other programs: layers change with the version of a compressor; sparse files are expanded.
#[test]
fn the_layers_of_the_base_stay_as_they_are_and_holes_stay_holes() {
    let series = Series::new();
    series.pack();
    let descriptors = || {
        let source = series.location("t").source(&Access::default()).unwrap();
        Image::open(source.as_ref(), &ReadOptions::default(), &Silent).unwrap().manifest().layers.clone()
    };
    let first = descriptors();
    fs::File::create(series.at("sparse")).unwrap().set_len(5 << 20).unwrap();
    series.pack_with(|options, _| options.compression = Compression::Gzip { level: 6 }).unwrap();
    assert_eq!(descriptors()[..1], first);
    assert_eq!(descriptors()[1].media_type, volio::oci::media_type::LAYER_GZIP);
    series.assert_shows_tree();
    // The upper layer has no table of contents now.
    series.write("d/a", "again", NEWEST + 100);
    assert_delta(&series.pack());
    series.assert_shows_tree();
}

#[test]
fn the_digest_follows_from_base_tree_and_options() {
    let digests = [0, 1].map(|_| {
        let series = Series::new();
        series.pack();
        series.write("d/a", "changed", NEWEST + 100);
        series.pack().digest
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_delta_of_several_layers_has_its_whiteouts_and_directories_in_the_last() {
    let series = Series::new();
    series.pack();
    let large = crate::registry::noise(700 << 10);
    for n in 0..8 {
        series.write(&format!("other/{n}"), &large, NEWEST + 9);
    }
    fs::hard_link(series.at("other/0"), series.at("d/z-again")).unwrap();
    fs::set_permissions(series.at("other"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir_all(series.at("d/e")).unwrap();
    series.write("huge", vec![7; 5 << 20], NEWEST);
    let packed = series.pack_with(|options, _| options.layer_size = 1 << 20).unwrap();
    assert!(packed.layers.len() > 3, "{}", packed.layers.len());
    assert!(series.last_layer().iter().all(|item| item.ends_with('/') || item == "-d/e"));
    series.assert_shows_tree();
}

#[test]
fn rules_and_several_sources_apply_as_in_a_whole_pack() {
    let series = Series::new();
    let sources = ["d:/first".to_owned(), "other:/".to_owned(), "root:/first/file".to_owned()].map(|text| {
        let (path, at) = text.split_once(':').unwrap();
        format!("{}:{at}", series.at(path).display()).parse::<SourceSpec>().unwrap()
    });
    let base = Base::current(series.location("t"), Access::default());
    let pack = |exclude: &[&str]| {
        pack_over(&base, &series.location("t"), &sources, &Silent, |options, _| {
            options.tree.exclude = exclude.iter().map(Into::into).collect();
        })
        .unwrap()
    };
    pack(&[]);
    assert_form(&pack(&[]), &ImageForm::Unchanged);
    series.write("root", "changed", NEWEST + 9);
    assert_eq!(counts(&pack(&["c"])), (0, 1, 1, 7));
    assert_eq!(series.last_layer(), ["/", "first/", "first/e/", "-first/e/c", "first/file"]);
    assert_form(&pack(&["c"]), &ImageForm::Unchanged);
    assert_eq!(counts(&pack(&[])), (1, 0, 0, 8));
}

#[test]
fn a_tar_archive_as_a_source_is_compared_like_a_directory() {
    let series = Series::new();
    series.pack();
    series.write("d/a", "changed", NEWEST + 100);
    fs::remove_file(series.at("d/b")).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["--create", "--format=posix", "--directory"])
        .args([series.at("").as_os_str(), ".".as_ref()])
        .output()
        .unwrap();
    let stored = volio::pack::read_archive(tar.stdout.as_slice(), series.0.path(), &Silent).unwrap();
    let source = SourceSpec { stored: Some(stored.into()), ..SourceSpec::new("-") };
    let base = Base::current(series.location("t"), Access::default());
    let packed = pack_over(&base, &series.location("t"), &[source], &Silent, |_, _| {}).unwrap();
    assert_eq!(counts(&packed), (0, 2, 1, 10));
    series.assert_shows_tree();
}
