//! Packs of what has changed.

use super::chain::{Chain, Plan};
use super::changes::{CHANGES, HIDDEN};
use super::judge::assert_identical_by_script;
use super::random::with_seeds;
use super::tree::{Kind, RandomTree};
use crate::engines::program::Finished;
use std::fs;

/// The digest that is printed last.
fn digest(finished: Finished) -> String {
    finished.digest()
}

#[test]
fn an_image_of_changes_unpacks_to_the_tree_that_was_packed() {
    with_seeds(4, |seed| {
        let chain = Chain::of(seed, 4, Plan::default());
        assert_eq!(chain.layers(chain.last()).len(), 4, "each image has a layer more than its base");
        chain.place.volio(&["unpack", chain.last(), "again"]).succeeded();
        assert_identical_by_script(&chain.fresh(3), &chain.place.path("again"));
    });
}

#[test]
fn a_chain_of_ten_images_of_changes_unpacks_to_the_tree() {
    with_seeds(1, |seed| {
        Chain::of(seed + 1000, 11, Plan { size: (25, 4), ..Plan::default() });
    });
}

#[test]
fn every_kind_of_change_is_packed_by_itself() {
    for (number, kind) in CHANGES.iter().enumerate() {
        let plan = Plan { kinds: vec![*kind], size: (15, 2), large_files: 0, ..Plan::default() };
        Chain::of(2000 + number as u64, 2, plan);
    }
}

#[test]
fn options_have_the_same_effect_as_in_a_full_pack() {
    let plans: [(&[&str], &[&str]); 8] = [
        (&["--compression", "gzip"], &["tree"]),
        (&["--compression", "none"], &["tree"]),
        (&["--layer-size", "1M"], &["tree"]),
        (&["--normalize"], &["tree"]),
        (&["--chown", "7:8"], &["tree"]),
        (&["--exclude", "*a*", "--exclude", "/file*"], &["tree"]),
        (&[], &["tree:/data"]),
        (&["--exclude", "a*"], &["tree:/data", "tree:/data/more/of it"]),
    ];
    for (number, (options, sources)) in plans.into_iter().enumerate() {
        let plan = Plan { options, sources, ..Plan::default() };
        Chain::of(3000 + number as u64, 3, plan);
    }
}

#[test]
fn a_base_with_too_many_layers_or_too_much_dead_content_is_packed_in_full() {
    for (number, limit) in [&["--max-layers", "2"], &["--max-dead", "10"], &[][..]].into_iter().enumerate() {
        let chain = Chain::of(3500 + number as u64, 4, Plan { with_base: limit, ..Plan::default() });
        for image in &chain.images {
            assert!(number != 0 || chain.layers(image).len() <= 2);
        }
    }
}

/// A file that changed with its old size and time is noticed only by its content.
#[test]
fn a_change_that_size_and_time_do_not_show_is_packed_with_checksum() {
    with_seeds(2, |seed| {
        let mut chain = Chain::start(4000 + seed, Plan::default());
        let before = chain.tree.entries();
        while !chain.tree.apply(HIDDEN) {
            chain.tree.add(Kind::File);
        }
        chain.tree.settle(&before);
        chain.pack(&["--base", "oci:layout:0", "--checksum"], "oci:layout:1").succeeded();
        chain.place.volio(&["diff", "oci:layout:1", "tree"]).succeeded();
    });
}

#[test]
fn nothing_changed_is_the_same_digest_and_no_layer() {
    with_seeds(2, |seed| {
        let chain = Chain::of(5000 + seed, 2, Plan::default());
        let last = chain.last().to_owned();
        let expected = chain.place.json(&["inspect", &last])["digest"].as_str().unwrap().to_owned();
        for more in [&["--base", &last][..], &["--base", &last, "--checksum"]] {
            assert_eq!(digest(chain.pack(more, "oci:layout:again")), expected);
            assert_eq!(digest(chain.pack(more, "oci:elsewhere:again")), expected);
        }
        assert_eq!(digest(chain.pack(&["--incremental"], "oci:elsewhere:again")), expected);
    });
}

/// Changes of one file must not move others between layers.
#[test]
fn a_change_of_one_file_leaves_the_layers_of_the_base_as_they_are() {
    let plan =
        || Plan { options: &["--layer-size", "1M"], with_base: &["--max-dead", "100"], ..Plan::default() };
    with_seeds(2, |seed| {
        let mut chain = Chain::start(6000 + seed, plan());
        let base = chain.layers("oci:layout:0");
        for (number, change) in CHANGES.iter().enumerate() {
            let before = chain.tree.entries();
            chain.tree.random = super::random::Random::new(number as u64);
            if !chain.tree.apply(*change) {
                continue;
            }
            chain.tree.settle(&before);
            let image = format!("oci:layout:one-{number}");
            chain.pack(&["--base", "oci:layout:0"], &image).succeeded();
            let layers = chain.layers(&image);
            assert_eq!(layers[..base.len()], base, "{}", change.0);
            if number == 0 {
                assert!(layers.len() <= base.len() + 2, "one file is one layer, or two");
            }
        }
    });
}

#[test]
fn lists_and_contents_of_an_image_of_changes_are_those_of_a_full_one() {
    with_seeds(2, |seed| {
        let chain = Chain::of(7000 + seed, 3, Plan::default());
        let last = chain.last().to_owned();
        chain.pack(&[], "oci:full:v").succeeded();
        let listed = |image: &str| chain.place.volio(&["ls", "-R", "--format", "json", image]).succeeded();
        assert_eq!(listed(&last), listed("oci:full:v"));
        chain.place.volio(&["diff", &last, "oci:full:v"]).succeeded();
        chain.place.volio(&["diff", &last, "tree"]).succeeded();
        chain.place.volio(&["verify", &last]).succeeded();
        assert_contents(&chain.tree, |path| {
            let path = format!("/{}", path.to_str().unwrap());
            let output = chain.place.command(&["cat", &last, &path]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        });
    });
}

/// Compares the contents of files whose names are text.
fn assert_contents(tree: &RandomTree, read: impl Fn(&std::path::Path) -> Vec<u8>) {
    let is_named = |path: &std::path::Path| path.to_str().is_some_and(|text| !text.contains('*'));
    let files = tree.entries().into_iter().filter(|entry| entry.kind == Kind::File && is_named(&entry.path));
    for file in files.take(8) {
        assert!(fs::read(tree.at(&file.path)).unwrap() == read(&file.path), "{:?}", file.path);
    }
}

/// A name that would be a whiteout in the layer.
#[test]
fn a_name_of_a_whiteout_is_refused_and_removes_nothing() {
    let mut chain = Chain::start(8000, Plan::default());
    fs::write(chain.place.path("tree/.wh.a"), "").unwrap();
    let said = chain.pack(&["--base", "oci:layout:0"], "oci:layout:1").failed_with(1);
    assert!(said.contains(".wh.a"), "{said}");
    chain.place.volio(&["inspect", "oci:layout:1"]).failed_with(4);
    fs::remove_file(chain.place.path("tree/.wh.a")).unwrap();
    chain.grow();
}

/// The image is the only state: nothing is read from, or written to, the home of the user.
#[test]
fn no_state_of_an_earlier_pack_is_needed() {
    let mut chain = Chain::start(9000, Plan::default());
    chain.tree.step(8);
    let mut digests = Vec::new();
    for number in 0..2 {
        let home = chain.place.path(&format!("home-{number}"));
        fs::create_dir(&home).unwrap();
        let image = format!("oci:out-{number}:v");
        let mut command =
            chain.place.command(&["pack", "--allow-shrink", "--base", "oci:layout:0", &image, "tree"]);
        for variable in ["HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(variable, &home);
        }
        digests.push(digest(crate::engines::program::finish(&mut command)));
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
    }
    assert_eq!(digests[0], digests[1]);
}
