//! Trees that change between the comparison and the reading, and several writers of one name.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use volio::error::Kind;
use volio::progress::{Task, TaskInfo};

/// Calls a function when a task with this name begins, a few times.
struct Interference<'a> {
    task: &'static str,
    times: u32,
    begun: AtomicU32,
    work: &'a (dyn Fn(u32) + Sync),
}

impl Progress for Interference<'_> {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        if info.to_string() == self.task {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            if number < self.times {
                (self.work)(number);
            }
        }
        Silent.begin(info)
    }

    fn warn(&self, _: &str) {}
}

/// Packs while `work` changes the tree after each of the first comparisons.
fn pack_with_changes(series: &Series, times: u32, work: &(dyn Fn(u32) + Sync)) -> volio::Result<Packed> {
    let progress = Interference { task: "packing", times, begun: AtomicU32::new(0), work };
    series.pack_watched(&progress, |_, _| {})
}

#[test]
fn a_file_that_vanishes_after_the_comparison_is_not_in_the_image() {
    let series = Series::new();
    series.pack();
    series.write("d/a", "changed", NEWEST + 9);
    series.write("d/b", "changed", NEWEST + 9);
    pack_with_changes(&series, 1, &|_| fs::remove_file(series.at("d/a")).unwrap()).unwrap();
    series.assert_shows_tree();
    assert!(series.last_layer().contains(&"-d/a".to_owned()));
}

#[test]
fn a_file_that_becomes_a_directory_after_the_comparison_has_its_contents() {
    let series = Series::new();
    series.pack();
    series.write("d/a", "changed", NEWEST + 9);
    let replace = |_| {
        fs::remove_file(series.at("d/a")).unwrap();
        fs::create_dir(series.at("d/a")).unwrap();
        fs::write(series.at("d/a/below"), "below").unwrap();
    };
    pack_with_changes(&series, 1, &replace).unwrap();
    series.assert_shows_tree();
}

#[test]
fn a_file_that_is_moved_past_the_comparison_is_in_the_image() {
    let series = Series::new();
    series.pack();
    series.write("other/f", "changed", NEWEST + 9);
    let rename = |_| fs::rename(series.at("other/large"), series.at("d/large")).unwrap();
    pack_with_changes(&series, 1, &rename).unwrap();
    series.assert_shows_tree();
}

#[test]
fn a_tree_that_never_rests_is_packed_in_full() {
    let series = Series::new();
    series.pack();
    series.write("d/0", "changed", NEWEST + 9);
    let churn = |number: u32| {
        fs::rename(series.at(&format!("d/{number}")), series.at(&format!("d/{}", number + 1))).unwrap();
    };
    let packed = pack_with_changes(&series, 5, &churn).unwrap();
    assert!(matches!(packed.incremental.unwrap().form, ImageForm::Full(_)));
    series.assert_shows_tree();
}

// Reported of other programs: the last of two writers of a tag wins silently.
#[test]
fn another_writer_of_the_name_is_noticed_and_nothing_is_lost() {
    let series = Series::new();
    series.pack();
    series.write("d/a", "changed", NEWEST + 9);
    let publish_another = |_| {
        let other = Series::new();
        other.write("d/a", "theirs", NEWEST + 10);
        let (base, to) = (Base::current(series.location("t"), Access::default()), series.location("t"));
        pack_over(&base, &to, &[SourceSpec::new(other.at(""))], &Silent, |_, _| {}).unwrap();
    };
    let error = pack_with_changes(&series, 1, &publish_another).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    // The image that lost is there by its digest, and running again bases it on the one that won.
    let hint = error.hint().unwrap().to_owned();
    let digest = hint.split('@').nth(1).unwrap().split(',').next().unwrap();
    let lost: Location =
        format!("oci:{}@{digest}", series.0.path().join("layout").display()).parse().unwrap();
    assert_shows(&lost, &series.at(""));
    assert_delta(&series.pack());
    series.assert_shows_tree();
    // It is no failure that another run has made the same image.
    series.write("d/a", "changed again", NEWEST + 19);
    let publish_the_same = |_| _ = series.pack();
    pack_with_changes(&series, 1, &publish_the_same).unwrap();
    series.assert_shows_tree();
    // The same as above for a name that meant nothing.
    let fresh = Series::new();
    let create = |_| {
        fresh.pack();
        fresh.write("d/a", "later", NEWEST + 30);
    };
    assert_eq!(pack_with_changes(&fresh, 1, &create).map(|_| ()).unwrap_err().kind(), Kind::Refused);
}
