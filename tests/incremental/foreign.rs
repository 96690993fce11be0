//! Images of other programs as bases: whole seconds, no entry for directories that lead to
//! others, opaque whiteouts, and hard links and files that upper layers replace.

use super::changes::{CHANGES, Change};
use super::judge::assert_identical;
use super::place::Place;
use super::random::{Random, with_seeds};
use super::tree::RandomTree;
use crate::images::layers::{layer, publish};
use volio::progress::Silent;
use volio::transport::layout::Layout;
use volio::transport::memory::Memory;

/// Returns lines for [`layer`] with entries, whiteouts and opaque whiteouts, in an order that has no meaning.
fn random_layer(random: &mut Random) -> Vec<String> {
    let count = 1 + random.below(12);
    let mut lines: Vec<String> = (0..count).map(|_| random_line(random)).collect();
    // Each path has one meaning in a layer.
    let path = |line: &String| line.split(['=']).next().unwrap_or_default().trim_end_matches('/').to_owned();
    lines.sort_by_key(|line| (path(line), line.len()));
    lines.dedup_by_key(|line| path(line));
    let mut shuffled = Vec::new();
    while !lines.is_empty() {
        let at = random.below(lines.len());
        shuffled.push(lines.swap_remove(at));
    }
    shuffled
}

fn random_line(random: &mut Random) -> String {
    let depth = 1 + random.below(3);
    let names: Vec<&str> = (0..depth).map(|_| *random.pick(&["a", "b", "c", "a.b"])).collect();
    let (last, above) = names.split_last().unwrap();
    let above: String = above.iter().map(|name| format!("{name}/")).collect();
    match random.below(8) {
        0 => format!("{above}.wh.{last}"),
        1 => format!("{above}{last}/.wh..wh..opq"),
        2 | 3 => format!("{above}{last}/"),
        _ => format!("{above}{last}={}", random.next()),
    }
}

/// Publishes an image of random layers as `oci:foreign:NAME`. Returns whether it is a valid one.
pub fn publish_random(place: &Place, random: &mut Random, name: &str) -> bool {
    let image = Memory::default();
    let layers: Vec<_> = (0..1 + random.below(4))
        .map(|_| {
            let lines = random_layer(random);
            layer(&image, &lines.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    publish(&image, &layers);
    let layout = Layout::create(&place.path("foreign"), Some(name)).unwrap();
    volio::copy::copy(&image, &layout, &volio::copy::Options::default(), &Silent).unwrap();
    let image = format!("oci:foreign:{name}");
    place.command(&["unpack", &image, &format!("fresh-{name}")]).output().unwrap().status.success()
}

/// The base has whole seconds, so that a change within a second is not seen.
fn visible() -> Vec<Change> {
    CHANGES.iter().copied().filter(|(name, _)| !name.contains("same")).collect()
}

#[test]
fn changes_are_packed_over_images_with_whiteouts_of_other_programs() {
    with_seeds(10, |seed| {
        let (place, mut random) = (Place::new(), Random::new(seed));
        let names = ["0", "1", "2"].map(|name| (name, publish_random(&place, &mut random, name)));
        for (name, _) in names.iter().filter(|(_, valid)| *valid) {
            let source = place.path(&format!("fresh-{name}"));
            let base = format!("oci:foreign:{name}");
            let mut tree = RandomTree::over(&source, seed, 0);
            for step in 0..2 {
                if step > 0 {
                    tree.step_of(&visible(), 4);
                }
                let (image, target) = (format!("oci:made:{name}-{step}"), format!("target-{name}-{step}"));
                let source = source.to_str().unwrap();
                place.volio(&["pack", "--allow-shrink", "--base", &base, &image, source]).succeeded();
                place.volio(&["unpack", &image, &target]).succeeded();
                assert_identical(tree.root(), &place.path(&target));
            }
        }
    });
}

/// An image in the format of data-io has an archive in its layer, and not the tree. An image over it has the tree all the same.
#[test]
fn an_image_in_the_format_of_data_io_is_a_base() {
    let place = Place::new();
    let mut tree = place.tree(1, 20, 1);
    place.volio(&["pack", "--format", "data-io", "oci:base:v", "tree"]).succeeded();
    tree.step(8);
    place.volio(&["pack", "--allow-shrink", "--base", "oci:base:v", "oci:made:v", "tree"]).succeeded();
    place.volio(&["unpack", "oci:made:v", "target"]).succeeded();
    assert_identical(tree.root(), &place.path("target"));
}
