//! Images that were made to do harm, and targets in which somebody else is at work.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink as make_symlink};

/// A target with something precious beside it.
pub(super) struct Place {
    pub dir: tempfile::TempDir,
    pub target: PathBuf,
    pub outside: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [target, outside] = ["target", "outside"].map(|name| dir.path().join(name));
        fs::create_dir(&target).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "data").unwrap();
        fs::set_permissions(outside.join("precious"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir, target, outside }
    }

    pub fn outside(&self) -> String {
        self.outside.display().to_string()
    }

    /// Extracts, and insists that nothing outside of the target has changed.
    pub fn extract(&self, seen: &[Seen]) -> crate::Result<Extracted> {
        let before = walk(&self.outside);
        let result = extract(seen, &self.target);
        assert_eq!(walk(&self.outside), before);
        assert_eq!(fs::metadata(self.outside.join("precious")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
        result
    }

    fn refuses(&self, seen: &[Seen], name: &str) {
        let error = self.extract(seen).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn nothing_is_put_through_a_link_that_leads_to_nothing_in_the_image() {
    for target in ["../outside", "../../../../outside", "/proc/self/cwd", "missing", "missing/..", "link"] {
        Place::new().refuses(&[symlink("link", target), file("link/owned", "")], "/link/owned");
        Place::new().refuses(&[symlink("link", target), directory("link/owned")], "/link/owned");
        Place::new().refuses(&[symlink("link", target), hardlink("owned", "link/precious")], "/owned");
        Place::new().refuses(&[symlink("link", target), symlink("link/owned", "x")], "/link/owned");
        Place::new().refuses(&[symlink("a/link", target), file("a/link/b/owned", "")], "/a/link/b/owned");
    }
    let place = Place::new();
    let chain = [symlink("a", "b"), symlink("b", place.outside()), file("a/owned", "")];
    place.refuses(&chain, "/a/owned");
    Place::new().refuses(&[file("a", ""), symlink("l", "a"), file("l/owned", "")], "/l/owned");
}

#[test]
fn links_are_followed_beneath_the_root_and_never_out_of_it() {
    for target in ["d", "./d/", "d/../d", "/d", "../d", "../../../../d", "chain"] {
        let place = Place::new();
        let entries = [
            directory("d"),
            symlink("chain", "/d"),
            symlink("link", target),
            file("link/file", "f"),
            directory("link/below"),
            file("link/below/file", "g"),
            hardlink("hard", "link/file"),
            symlink("link/up", ".."),
            file("link/up/top", "t"),
        ];
        place.extract(&entries).unwrap();
        let made = walk(&place.target);
        let expected =
            ["/chain", "/d", "/d/below", "/d/below/file", "/d/file", "/d/up", "/hard", "/link", "/top"];
        assert_eq!(names(&made), expected, "{target}");
        assert_eq!(fs::read(place.target.join("hard")).unwrap(), b"f");
    }
    // At the root, `..` is the root, whatever is beside the target.
    let place = Place::new();
    fs::create_dir(place.target.join("outside")).unwrap();
    place.extract(&[symlink("link", "../outside"), file("link/precious", "mine")]).unwrap();
    assert_eq!(fs::read_to_string(place.target.join("outside/precious")).unwrap(), "mine");
}

#[test]
fn a_record_cannot_be_written_through_a_link() {
    let place = Place::new();
    let mut extractor = Extractor::new(&place.target, quick()).unwrap();
    extractor.begin_state(serde_json::json!("image")).unwrap();
    for seen in [symlink("link", "/"), directory("d"), symlink("d/up", "..")] {
        put(&mut extractor, &seen).unwrap();
    }
    for forged in ["link/.volio.json", "d/up/.volio.json", "link/d/up/.volio.json.new"] {
        put(&mut extractor, &file(forged, "forged")).unwrap();
    }
    extractor.finish().unwrap();
    assert_eq!(names(&walk(&place.target)), ["/d", "/d/up", "/link"]);
}

#[test]
fn a_link_that_is_swapped_for_one_to_outside_leads_nowhere() {
    let place = Place::new();
    let mut extractor = Extractor::new(&place.target, quick()).unwrap();
    for seen in [directory("d"), symlink("link", "d"), file("link/1", "")] {
        put(&mut extractor, &seen).unwrap();
    }
    // Somebody else at work in the target: neither the link nor what it leads to is what the image said.
    fs::rename(place.target.join("d"), place.target.join("moved")).unwrap();
    make_symlink(&place.outside, place.target.join("d")).unwrap();
    assert!(put(&mut extractor, &file("link/2", "")).is_err());
    fs::remove_file(place.target.join("link")).unwrap();
    make_symlink("../outside", place.target.join("link")).unwrap();
    assert!(put(&mut extractor, &file("link/3", "")).is_err());
    assert_eq!(names(&walk(&place.outside)), ["/precious"]);
}

#[test]
fn a_link_is_replaced_itself_and_not_what_it_leads_to() {
    for replacement in
        [file("link", "evil"), directory("link"), symlink("link", "x"), entry("link", EntryKind::Fifo)]
    {
        let place = Place::new();
        let precious = place.outside() + "/precious";
        place.extract(&[symlink("link", &precious), replacement.clone()]).unwrap();
        assert_eq!(walk(&place.target)[1], replacement);
    }
    let place = Place::new();
    place.extract(&[symlink("link", place.outside()), directory("link"), file("link/mine", "")]).unwrap();
    assert!(place.target.join("link/mine").exists());
}

#[test]
fn a_hard_link_to_a_link_is_the_link_and_writing_there_replaces_it() {
    let place = Place::new();
    let precious = place.outside() + "/precious";
    let links = [symlink("link", precious), hardlink("hard", "link")];
    place.extract(&links).unwrap();
    let linked = fs::symlink_metadata(place.target.join("hard")).unwrap();
    assert!(linked.is_symlink() && linked.nlink() == 2);
    let (mut evil, content) = file("hard", "evil");
    evil.metadata.mode = 0o4777;
    let [link, hard] = links;
    place.extract(&[link, hard, (evil, content)]).unwrap();
    assert_eq!(fs::read_to_string(place.target.join("hard")).unwrap(), "evil");
}

#[test]
fn hard_links_to_nothing_to_directories_and_to_themselves_are_refused() {
    let place = Place::new();
    place.refuses(&[hardlink("a", "missing")], "/missing");
    place.refuses(&[hardlink("a", "missing/too")], "/missing/too");
    place.refuses(&[directory("d"), hardlink("a", "d")], "/d");
    place.refuses(&[file("a", "data"), hardlink("a", "a")], "/a");
    place.refuses(&[file("d/x", ""), hardlink("d", "d/x")], "/d");
    place.refuses(&[directory("d"), hardlink("a", "")], "/");
}

#[test]
fn a_link_that_was_in_the_target_is_refused_and_not_followed() {
    let place = Place::new();
    make_symlink(&place.outside, place.target.join("etc")).unwrap();
    let error = place.extract(&[file("etc/owned", "")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn a_directory_that_is_swapped_for_a_link_meanwhile_leads_nowhere() {
    let place = Place::new();
    let mut extractor = Extractor::new(&place.target, quick()).unwrap();
    put(&mut extractor, &file("a/1", "")).unwrap();
    fs::rename(place.target.join("a"), place.target.join("moved")).unwrap();
    make_symlink(&place.outside, place.target.join("a")).unwrap();
    // The directory that is open is still the one that was made.
    put(&mut extractor, &file("a/2", "")).unwrap();
    assert!(place.target.join("moved/2").exists());
    put(&mut extractor, &file("b/1", "")).unwrap();
    assert!(put(&mut extractor, &file("a/3", "")).is_err());
    assert!(extractor.finish().is_err(), "attributes are not set through the link either");
    assert_eq!(names(&walk(&place.outside)), ["/precious"]);
}

#[test]
fn what_cannot_be_is_an_integrity_error() {
    let place = Place::new();
    place.refuses(&[symlink("empty", "")], "/empty");
    place.refuses(&[symlink("nul", "a\0b")], "/nul");
    place.refuses(&[symlink("", "a")], "root");
    place.refuses(&[file("a", ""), file("a/b", "")], "/a/b");
    Place::new().refuses(&[file("d/x", ""), file("d", "")], "/d");
    let (mut nobody, _) = file("nobody", "");
    nobody.metadata.uid = u32::MAX;
    place.refuses(&[(nobody, vec![])], "/nobody");
}

#[test]
fn labels_of_hosts_and_marks_of_volio_are_not_extracted() {
    let place = Place::new();
    let (mut marked, _) = file("marked", "");
    for name in ["user.volio.image", "trusted.overlay.opaque", "user.overlay.opaque", "security.selinux"] {
        marked.metadata.xattrs.insert(name.into(), b"y".to_vec());
    }
    let done = place.extract(&[(marked, vec![])]).unwrap();
    assert_eq!(done.xattrs_not_restored, 0, "they are no part of the tree, so nothing was lost");
    let mut list = vec![0; 1000];
    let length = rustix::fs::listxattr(place.target.join("marked"), &mut list[..]).unwrap();
    assert!(!String::from_utf8_lossy(&list[..length]).contains("o"), "{list:?}");
}
