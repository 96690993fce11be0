//! Malicious images, and targets that another program changes.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink as make_symlink};

/// A target with a directory beside it that must not change.
pub(super) struct Sandbox {
    pub dir: tempfile::TempDir,
    pub target: PathBuf,
    pub outside: PathBuf,
}

impl Sandbox {
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

    /// Extracts, and asserts that nothing outside of the target has changed.
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
fn an_entry_below_a_link_to_a_path_that_is_not_in_the_image_is_refused() {
    for target in ["../outside", "../../../../outside", "/proc/self/cwd", "missing", "missing/..", "link"] {
        Sandbox::new().refuses(&[symlink("link", target), file("link/owned", "")], "/link/owned");
        Sandbox::new().refuses(&[symlink("link", target), directory("link/owned")], "/link/owned");
        Sandbox::new().refuses(&[symlink("link", target), hardlink("owned", "link/precious")], "/owned");
        Sandbox::new().refuses(&[symlink("link", target), symlink("link/owned", "x")], "/link/owned");
        Sandbox::new().refuses(&[symlink("a/link", target), file("a/link/b/owned", "")], "/a/link/b/owned");
    }
    let sandbox = Sandbox::new();
    let chain = [symlink("a", "b"), symlink("b", sandbox.outside()), file("a/owned", "")];
    sandbox.refuses(&chain, "/a/owned");
    Sandbox::new().refuses(&[file("a", ""), symlink("l", "a"), file("l/owned", "")], "/l/owned");
}

#[test]
fn links_are_followed_beneath_the_root_only() {
    for target in ["d", "./d/", "d/../d", "/d", "../d", "../../../../d", "chain"] {
        let sandbox = Sandbox::new();
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
        sandbox.extract(&entries).unwrap();
        let made = walk(&sandbox.target);
        let expected =
            ["/chain", "/d", "/d/below", "/d/below/file", "/d/file", "/d/up", "/hard", "/link", "/top"];
        assert_eq!(names(&made), expected, "{target}");
        assert_eq!(fs::read(sandbox.target.join("hard")).unwrap(), b"f");
    }
    // `..` of the root is the root, and not the directory that contains the target.
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.target.join("outside")).unwrap();
    sandbox.extract(&[symlink("link", "../outside"), file("link/precious", "mine")]).unwrap();
    assert_eq!(fs::read_to_string(sandbox.target.join("outside/precious")).unwrap(), "mine");
}

#[test]
fn a_state_cannot_be_written_through_a_link() {
    let sandbox = Sandbox::new();
    let mut extractor = Extractor::new(&sandbox.target, quick()).unwrap();
    extractor.begin_state(serde_json::json!("image")).unwrap();
    for seen in [symlink("link", "/"), directory("d"), symlink("d/up", "..")] {
        put(&mut extractor, &seen).unwrap();
    }
    for forged in ["link/.volio.json", "d/up/.volio.json", "link/d/up/.volio.json.new"] {
        put(&mut extractor, &file(forged, "forged")).unwrap();
    }
    extractor.finish().unwrap();
    assert_eq!(names(&walk(&sandbox.target)), ["/d", "/d/up", "/link"]);
}

#[test]
fn a_link_that_is_replaced_by_one_to_the_outside_is_not_followed() {
    let sandbox = Sandbox::new();
    let mut extractor = Extractor::new(&sandbox.target, quick()).unwrap();
    for seen in [directory("d"), symlink("link", "d"), file("link/1", "")] {
        put(&mut extractor, &seen).unwrap();
    }
    // Another program works in the target: the link and its target are not those of the image.
    fs::rename(sandbox.target.join("d"), sandbox.target.join("moved")).unwrap();
    make_symlink(&sandbox.outside, sandbox.target.join("d")).unwrap();
    assert!(put(&mut extractor, &file("link/2", "")).is_err());
    fs::remove_file(sandbox.target.join("link")).unwrap();
    make_symlink("../outside", sandbox.target.join("link")).unwrap();
    assert!(put(&mut extractor, &file("link/3", "")).is_err());
    assert_eq!(names(&walk(&sandbox.outside)), ["/precious"]);
}

#[test]
fn a_link_is_replaced_itself_and_not_its_target() {
    for replacement in
        [file("link", "evil"), directory("link"), symlink("link", "x"), entry("link", EntryKind::Fifo)]
    {
        let sandbox = Sandbox::new();
        let precious = sandbox.outside() + "/precious";
        sandbox.extract(&[symlink("link", &precious), replacement.clone()]).unwrap();
        assert_eq!(walk(&sandbox.target)[1], replacement);
    }
    let sandbox = Sandbox::new();
    sandbox.extract(&[symlink("link", sandbox.outside()), directory("link"), file("link/mine", "")]).unwrap();
    assert!(sandbox.target.join("link/mine").exists());
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_replaced_by_a_later_file() {
    let sandbox = Sandbox::new();
    let precious = sandbox.outside() + "/precious";
    let links = [symlink("link", precious), hardlink("hard", "link")];
    sandbox.extract(&links).unwrap();
    let linked = fs::symlink_metadata(sandbox.target.join("hard")).unwrap();
    assert!(linked.is_symlink() && linked.nlink() == 2);
    let (mut evil, content) = file("hard", "evil");
    evil.metadata.mode = 0o4777;
    let [link, hard] = links;
    sandbox.extract(&[link, hard, (evil, content)]).unwrap();
    assert_eq!(fs::read_to_string(sandbox.target.join("hard")).unwrap(), "evil");
}

#[test]
fn hard_links_to_missing_files_to_directories_and_to_themselves_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.refuses(&[hardlink("a", "missing")], "/missing");
    sandbox.refuses(&[hardlink("a", "missing/too")], "/missing/too");
    sandbox.refuses(&[directory("d"), hardlink("a", "d")], "/d");
    sandbox.refuses(&[file("a", "data"), hardlink("a", "a")], "/a");
    sandbox.refuses(&[file("d/x", ""), hardlink("d", "d/x")], "/d");
    sandbox.refuses(&[directory("d"), hardlink("a", "")], "/");
}

#[test]
fn a_link_that_was_in_the_target_is_refused_and_not_followed() {
    let sandbox = Sandbox::new();
    make_symlink(&sandbox.outside, sandbox.target.join("etc")).unwrap();
    let error = sandbox.extract(&[file("etc/owned", "")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn a_directory_that_is_replaced_by_a_link_is_not_left_through_it() {
    let sandbox = Sandbox::new();
    let mut extractor = Extractor::new(&sandbox.target, quick()).unwrap();
    put(&mut extractor, &file("a/1", "")).unwrap();
    fs::rename(sandbox.target.join("a"), sandbox.target.join("moved")).unwrap();
    make_symlink(&sandbox.outside, sandbox.target.join("a")).unwrap();
    // The open directory is still the one that was created.
    put(&mut extractor, &file("a/2", "")).unwrap();
    assert!(sandbox.target.join("moved/2").exists());
    put(&mut extractor, &file("b/1", "")).unwrap();
    assert!(put(&mut extractor, &file("a/3", "")).is_err());
    assert!(extractor.finish().is_err(), "attributes are not set through the link either");
    assert_eq!(names(&walk(&sandbox.outside)), ["/precious"]);
}

#[test]
fn an_entry_that_cannot_exist_is_an_integrity_error() {
    let sandbox = Sandbox::new();
    sandbox.refuses(&[symlink("empty", "")], "/empty");
    sandbox.refuses(&[symlink("nul", "a\0b")], "/nul");
    sandbox.refuses(&[symlink("", "a")], "root");
    sandbox.refuses(&[file("a", ""), file("a/b", "")], "/a/b");
    Sandbox::new().refuses(&[file("d/x", ""), file("d", "")], "/d");
    let (mut unowned, _) = file("unowned", "");
    unowned.metadata.uid = u32::MAX;
    sandbox.refuses(&[(unowned, vec![])], "/unowned");
}

#[test]
fn attributes_of_hosts_and_of_volio_are_not_extracted() {
    let sandbox = Sandbox::new();
    let (mut marked, _) = file("marked", "");
    for name in ["user.volio.image", "trusted.overlay.opaque", "user.overlay.opaque", "security.selinux"] {
        marked.metadata.xattrs.insert(name.into(), b"y".to_vec());
    }
    let done = sandbox.extract(&[(marked, vec![])]).unwrap();
    assert_eq!(done.xattrs_not_restored, 0, "they are not part of the tree, so nothing was lost");
    let mut list = vec![0; 1000];
    let length = rustix::fs::listxattr(sandbox.target.join("marked"), &mut list[..]).unwrap();
    assert!(!String::from_utf8_lossy(&list[..length]).contains("o"), "{list:?}");
}
