//! Walks over one directory: order, rules, skipped and unreadable entries.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink as make_symlink};
use std::os::unix::net::UnixListener;

fn with(options: WalkOptions, directory: &Path) -> (Vec<String>, Summary) {
    let (seen, summary) = walk_with(&[SourceSpec::new(directory)], &options).unwrap();
    (names(&seen), summary)
}

fn excluding(rules: &[&str]) -> WalkOptions {
    let exclude = rules.iter().map(Into::into).collect();
    WalkOptions { exclude, rule_files: RuleFiles::Apply, ..WalkOptions::default() }
}

/// Creates a directory with these files; a name that ends in `/` is a directory.
fn tree(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::write(path, name).unwrap();
        }
    }
    dir
}

#[test]
fn a_directory_is_followed_by_its_contents() {
    let dir = tree(&["a-b", "a.b", "a/z", "a/b/c", "A", "b"]);
    let (names, summary) = with(WalkOptions::default(), dir.path());
    assert_eq!(names, ["/A", "/a", "/a/b", "/a/b/c", "/a/z", "/a-b", "/a.b", "/b"]);
    assert!(summary.newest.unwrap() > Time { seconds: 1_700_000_000, nanoseconds: 0 });
}

#[test]
fn further_names_of_a_file_or_a_link_are_hard_links_to_the_first() {
    let dir = tree(&["b/file"]);
    make_symlink("nowhere", dir.path().join("b/link")).unwrap();
    fs::hard_link(dir.path().join("b/file"), dir.path().join("a")).unwrap();
    fs::hard_link(dir.path().join("b/file"), dir.path().join("c")).unwrap();
    fs::hard_link(dir.path().join("b/link"), dir.path().join("d")).unwrap();
    let kinds: Vec<_> = walk(dir.path()).into_iter().map(|(entry, _)| entry.kind).collect();
    let link = |target: &str| EntryKind::Hardlink { target: path(target) };
    let symlink = EntryKind::Symlink { target: b"nowhere".to_vec() };
    let file = EntryKind::File { size: 6 };
    assert_eq!(
        kinds,
        [EntryKind::Directory, file, EntryKind::Directory, link("a"), symlink, link("a"), link("b/link")]
    );
}

#[test]
fn a_walk_for_metadata_yields_the_same_entries_without_content() {
    let dir = tree(&["a/file", "b/", "c"]);
    make_symlink("nowhere", dir.path().join("b/link")).unwrap();
    fs::hard_link(dir.path().join("a/file"), dir.path().join("b/name")).unwrap();
    fs::set_permissions(dir.path().join("c"), fs::Permissions::from_mode(0o000)).unwrap();
    for one_file_system in [false, is_root()] {
        let options = WalkOptions { one_file_system, skip_unreadable: true, ..WalkOptions::default() };
        let sources = [SourceSpec::new(dir.path())];
        let mut metadata = Vec::new();
        for found in Walk::new(&sources, &options).unwrap().metadata_only() {
            let found = found.unwrap();
            assert!(found.file.is_none());
            metadata.push(found.entry);
        }
        let (mut seen, _) = walk_with(&sources, &options).unwrap();
        if !is_root() {
            // A file without permissions has metadata nevertheless.
            let unreadable = metadata.iter().find(|entry| entry.path == path("c")).unwrap().clone();
            seen.push((unreadable, Vec::new()));
        }
        assert_eq!(metadata, seen.into_iter().map(|(entry, _)| entry).collect::<Vec<_>>());
    }
}

#[test]
fn a_walk_within_a_set_of_paths_yields_them_and_the_directories_that_lead_to_them() {
    let dir = tree(&["a/b/wanted", "a/b/other", "a/unwanted/x", "a.wanted", "d/", "z"]);
    let paths: PathSet = ["a/b/wanted", "a.wanted", "d", "gone/far"].map(path).into_iter().collect();
    let range = PathRange { paths: Some(paths.into()), ..PathRange::default() };
    let walk = Walk::new(&[SourceSpec::new(dir.path())], &WalkOptions::default()).unwrap().within(&range);
    let seen: Vec<_> = walk.map(|found| found.unwrap().entry.path.to_string()).collect();
    assert_eq!(seen, ["/", "/a", "/a/b", "/a/b/wanted", "/a.wanted", "/d"]);

    let source: SourceSpec = format!("{}:/srv/here", dir.path().display()).parse().unwrap();
    let walk = Walk::new(&[source], &WalkOptions::default()).unwrap();
    let paths: PathSet = [path("srv/here/z")].into_iter().collect();
    let range = PathRange { paths: Some(paths.into()), ..PathRange::default() };
    let seen: Vec<_> = walk.within(&range).map(|found| found.unwrap().entry.path.to_string()).collect();
    assert_eq!(seen, ["/", "/srv", "/srv/here", "/srv/here/z"]);
}

#[test]
fn a_hard_link_is_a_file_if_its_first_name_is_left_out() {
    let dir = tree(&["a"]);
    fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let (seen, _) = walk_with(&[SourceSpec::new(dir.path())], &excluding(&["a"])).unwrap();
    assert_eq!(seen[1].0.kind, EntryKind::File { size: 1 });
    assert_eq!(seen[1].1, b"a");
}

#[test]
fn sockets_and_the_state_of_a_target_are_left_out_and_counted() {
    let dir = tree(&["below/.volio.json"]);
    let record =
        serde_json::to_string(&TargetState { complete: true, ..target_state::TargetState::abandoned() })
            .unwrap();
    fs::write(dir.path().join(".volio.json"), record).unwrap();
    let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
    let (names, summary) = with(WalkOptions::default(), dir.path());
    assert_eq!(names, ["/below", "/below/.volio.json"]);
    assert_eq!((summary.sockets, summary.excluded, summary.bookkeeping), (1, 0, 1));
}

#[test]
fn a_file_of_the_user_with_the_name_of_the_state_is_part_of_the_tree() {
    let dir = tree(&[".volio.json"]);
    let (names, summary) = with(WalkOptions::default(), dir.path());
    assert_eq!((names, summary.bookkeeping), (vec!["/.volio.json".to_owned()], 0));
}

#[test]
fn attributes_of_a_host_are_left_out_and_counted() {
    let dir = tree(&["a", "d/"]);
    let set = |name: &str, attribute: &str| {
        rustix::fs::setxattr(dir.path().join(name), attribute, b"x", rustix::fs::XattrFlags::empty())
    };
    set("a", "user.mine").unwrap();
    let of_users = ["user.containers.override_stat", "user.fuseoverlayfs.origin", "user.overlay.opaque"];
    let of_root = ["security.SMACK64", "security.apparmor", "trusted.overlay.opaque"];
    let mut expected = std::collections::BTreeMap::new();
    let of_root = of_root.into_iter().filter(|_| is_root());
    for attribute in of_users.into_iter().chain(of_root) {
        // A kernel with such a module may refuse what it does not understand.
        let on = ["a", "d"].into_iter().filter(|name| set(name, attribute).is_ok()).count();
        if on > 0 {
            expected.insert(attribute, on as u64);
        }
    }
    let (seen, summary) = walk_with(&[SourceSpec::new(dir.path())], &WalkOptions::default()).unwrap();
    assert_eq!(seen[1].0.metadata.xattrs, [(b"user.mine".to_vec(), b"x".to_vec())].into());
    assert!(seen[2].0.metadata.xattrs.is_empty());
    let counted = |attribute: &str| {
        let of = summary.attributes.iter().find(|(prefix, _)| attribute.starts_with(**prefix));
        of.map(|(_, count)| *count)
    };
    assert!(expected.len() >= 3, "{expected:?}");
    expected
        .into_iter()
        .for_each(|(attribute, count)| assert_eq!(counted(attribute), Some(count), "{attribute}"));
    let normalized = WalkOptions { normalize: Some(Time::default()), ..WalkOptions::default() };
    assert!(with(normalized, dir.path()).1.attributes.is_empty(), "all are left out then, by the option");
}

#[test]
fn rules_come_from_the_root_of_the_source_and_then_from_the_options() {
    let dir = tree(&["a.log", "keep.log", "target/x", "b/target/x", "b/c.tmp", "b/.volioignore"]);
    fs::write(dir.path().join(".volioignore"), "\u{feff}# rules\n*.log\r\n!keep.log\n/target/\n").unwrap();
    fs::write(dir.path().join("b/.volioignore"), "*\n").unwrap();
    let (names, summary) = with(excluding(&["*.tmp"]), dir.path());
    assert_eq!(
        names,
        ["/.volioignore", "/b", "/b/.volioignore", "/b/target", "/b/target/x", "/keep.log"],
        "the rules are part of the tree, those further below are nothing but files"
    );
    assert_eq!(summary.excluded, 3);
    let (names, _) = with(excluding(&["!a.log", ".volioignore", "b/"]), dir.path());
    assert_eq!(names, ["/a.log", "/keep.log"]);
}

#[test]
fn names_that_are_not_text_can_be_left_out() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tree(&["text"]);
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe.log")), "").unwrap();
    assert_eq!(with(WalkOptions::default(), dir.path()).0, ["/text", "/\\xff\\xfe.log"]);
    assert_eq!(with(excluding(&["*.log"]), dir.path()).0, ["/text"]);
    assert_eq!(with(excluding(&["??.log"]), dir.path()).0, ["/text"]);
}

#[test]
fn rules_that_are_not_text_leave_out_just_what_they_name() {
    use std::os::unix::ffi::OsStringExt;
    let os = |bytes: &[u8]| std::ffi::OsString::from_vec(bytes.to_vec());
    let dir = tree(&["text"]);
    for name in [b"\xff.log", b"\xfe.log"] {
        fs::write(dir.path().join(os(name)), "").unwrap();
    }
    let excluding = |rules: &[&[u8]]| WalkOptions {
        exclude: rules.iter().map(|rule| os(rule)).collect(),
        ..WalkOptions::default()
    };
    assert_eq!(with(excluding(&[b"\xff.log"]), dir.path()).0, ["/text", "/\\xfe.log"]);
    assert_eq!(with(excluding(&[b"/\xff*"]), dir.path()).0, ["/text", "/\\xfe.log"]);
    assert_eq!(with(excluding(&[b"*.log", b"!\xff.log", b"text"]), dir.path()).0, ["/\\xff.log"]);
    assert_eq!(with(excluding(&[b"!\xff.log", b"*.log"]), dir.path()).0, ["/text"], "the last one counts");
    fs::write(dir.path().join(".volioignore"), b"\xff.log\n.volioignore\n").unwrap();
    let with_file = WalkOptions { rule_files: RuleFiles::Apply, ..WalkOptions::default() };
    assert_eq!(with(with_file, dir.path()).0, ["/text", "/\\xfe.log"]);
}

#[test]
fn a_cache_is_reduced_to_its_tag_if_the_options_say_so() {
    let dir = tree(&["cache/below/file", "cache/file", "other/file"]);
    let tag = |name: &str, text: &str| fs::write(dir.path().join(name).join("CACHEDIR.TAG"), text).unwrap();
    tag("cache", "Signature: 8a477f597d28d172789f06886806bc55\n# made by a test\n");
    tag("other", "Signature: something else, and as long as the real one");
    tag("", "Signature: 8a477f597d28d172789f06886806bc55");
    let (names, summary) = with(WalkOptions { exclude_caches: true, ..WalkOptions::default() }, dir.path());
    assert_eq!(
        names,
        ["/CACHEDIR.TAG", "/cache", "/cache/CACHEDIR.TAG", "/other", "/other/CACHEDIR.TAG", "/other/file"],
        "a source itself does not count as a cache"
    );
    assert_eq!(summary.excluded, 1);
    assert_eq!(with(WalkOptions::default(), dir.path()).0.len(), 9);
}

/// Holds a write lease on a file, and runs a line of Python when another process opens it.
fn hold_lease(path: &Path, then: &str) -> Option<std::process::Child> {
    use std::io::{BufRead, BufReader};
    let script = format!(
        "import fcntl, os, signal, sys\n\
         path = sys.argv[1]\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])\n\
         fd = os.open(path, os.O_RDWR)\n\
         fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
         print('ready', flush=True)\n\
         signal.sigwait([signal.SIGIO])\n\
         {then}\n\
         signal.pause()\n"
    );
    let mut python = Command::new("python3");
    let python = python.args(["-c", &script]).arg(path).stdout(std::process::Stdio::piped()).spawn();
    let Ok(mut holder) = python else {
        skipped("leases, because there is no python3");
        return None;
    };
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    Some(holder)
}

#[test]
fn a_file_with_a_lease_is_read_after_its_release_and_a_fifo_in_its_place_does_not_block() {
    let give_back = "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)";
    let swap = "os.mkfifo(path + '.new'); os.rename(path + '.new', path)";
    for (then, kind) in [(give_back, EntryKind::File { size: 4 }), (swap, EntryKind::Fifo)] {
        let dir = tree(&["file"]);
        let Some(mut holder) = hold_lease(&dir.path().join("file"), then) else { return };
        let source = dir.path().to_owned();
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(walk(&source)[1].0.kind.clone()));
        let found = receive.recv_timeout(std::time::Duration::from_secs(30));
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(found, Ok(kind));
    }
}

#[test]
fn invalid_rules_are_an_error_with_their_origin() {
    let dir = tree(&["a"]);
    let failed = |options| walk_with(&[SourceSpec::new(dir.path())], &options).unwrap_err();
    let error = failed(excluding(&["a{b"]));
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("a{b"), "{error}");
    fs::write(dir.path().join(".volioignore"), "ok\na{b\n").unwrap();
    let error = failed(excluding(&[]));
    assert!(error.to_string().contains(".volioignore, line 2"), "{error}");
    fs::remove_file(dir.path().join(".volioignore")).unwrap();
    make_symlink("/dev/zero", dir.path().join(".volioignore")).unwrap();
    assert!(failed(excluding(&[])).to_string().contains(".volioignore"));
}

#[test]
fn a_rule_file_is_an_ordinary_file_unless_the_options_apply_it() {
    let dir = tree(&["a"]);
    fs::write(dir.path().join(".volioignore"), "*\na{b\n").unwrap();
    let (names, summary) = with(WalkOptions::default(), dir.path());
    assert_eq!(
        (names.as_slice(), summary.excluded),
        (["/.volioignore".to_owned(), "/a".to_owned()].as_slice(), 0)
    );
}

#[test]
fn a_normalized_tree_does_not_depend_on_the_machine() {
    let dir = tree(&["run", "read", "private/"]);
    fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(0o6710)).unwrap();
    fs::set_permissions(dir.path().join("read"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.path().join("private"), fs::Permissions::from_mode(0o700)).unwrap();
    let _ = rustix::fs::setxattr(dir.path().join("read"), "user.a", b"b", rustix::fs::XattrFlags::empty());
    let mtime = Time { seconds: 42, nanoseconds: 0 };
    let options = WalkOptions { normalize: Some(mtime), ..WalkOptions::default() };
    let (seen, summary) = walk_with(&[SourceSpec::new(dir.path())], &options).unwrap();
    let plain = |mode| Metadata { mode, mtime, ..Metadata::default() };
    let metadata: Vec<_> = seen.into_iter().map(|(entry, _)| entry.metadata).collect();
    assert_eq!(metadata, [plain(0o755), plain(0o755), plain(0o644), plain(0o755)]);
    assert_eq!(summary.newest, Some(mtime));
}

#[test]
fn only_an_mtime_after_the_given_one_is_clamped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut early, _) = file("early", "");
    early.metadata.mtime = Time { seconds: -5, nanoseconds: 1 };
    extract(&[file("late", ""), (early, vec![])], dir.path()).unwrap();
    let latest = Time { seconds: 7, nanoseconds: 0 };
    let options = WalkOptions { clamp_mtime: Some(latest), ..WalkOptions::default() };
    let (seen, summary) = walk_with(&[SourceSpec::new(dir.path())], &options).unwrap();
    let mtimes: Vec<_> = seen.iter().map(|(entry, _)| entry.metadata.mtime).collect();
    assert_eq!(mtimes, [latest, Time { seconds: -5, nanoseconds: 1 }, latest]);
    assert_eq!(summary.newest, Some(latest));
}

#[test]
fn a_source_that_is_missing_or_neither_directory_nor_file_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = walk_with(&[SourceSpec::new(&missing)], &WalkOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    let error = walk_with(&[SourceSpec::new("/dev/null")], &WalkOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn an_entry_that_vanishes_or_changes_is_an_error_with_its_name() {
    let dir = tree(&["a", "b", "c/d"]);
    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &WalkOptions::default()).unwrap();
    assert!(walk.next().unwrap().is_ok());
    fs::remove_file(dir.path().join("a")).unwrap();
    let error = walk.next().unwrap().unwrap_err();
    let vanished = dir.path().join("a").display().to_string();
    assert!(error.to_string().contains(&vanished) && error.to_string().contains("vanished"), "{error}");
    assert!(walk.next().is_none(), "an error is the end");

    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &WalkOptions::default()).unwrap();
    assert!(walk.next().unwrap().is_ok());
    fs::rename(dir.path().join("c"), dir.path().join("b")).unwrap_err();
    fs::remove_file(dir.path().join("b")).unwrap();
    make_symlink("/etc/passwd", dir.path().join("b")).unwrap();
    let found = walk.next().unwrap().unwrap();
    assert_eq!(
        found.entry.kind,
        EntryKind::Symlink { target: b"/etc/passwd".to_vec() },
        "it is what it is now"
    );
    let failing = WalkOptions { on_change: OnChange::Fail, ..WalkOptions::default() };
    fs::write(dir.path().join("d"), "").unwrap();
    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &failing).unwrap();
    assert!(walk.nth(3).unwrap().is_ok(), "the root, b, c and its contents");
    fs::remove_file(dir.path().join("d")).unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    let error = walk.next().unwrap().unwrap_err();
    assert!(error.to_string().ends_with("/d changed while it was read: it became something else"), "{error}");
}

#[test]
fn a_mount_is_crossed_unless_the_options_forbid_it_and_its_lost_and_found_is_left_out() {
    let name = "walking::a_mount_is_crossed_unless_the_options_forbid_it_and_its_lost_and_found_is_left_out";
    let Some(dir) = again_with_mounts(name) else { return };
    let mounted = dir.join("mounted");
    fs::create_dir_all(dir.join("lost+found")).unwrap();
    fs::create_dir_all(&mounted).unwrap();
    mount_small(&mounted);
    fs::create_dir_all(mounted.join("lost+found")).unwrap();
    fs::write(mounted.join("file"), "").unwrap();

    let one_file_system = WalkOptions { one_file_system: true, ..WalkOptions::default() };
    assert_eq!(with(one_file_system.clone(), &dir).0, ["/lost+found", "/mounted"]);
    let all = ["/lost+found", "/mounted", "/mounted/file", "/mounted/lost+found"];
    assert_eq!(
        with(WalkOptions::default(), &dir).0,
        all,
        "only the lost+found in the root of a source is left out"
    );
    assert_eq!(with(one_file_system.clone(), &mounted).0, ["/file"]);

    // Bind mounts of the same file system are mounts too.
    let (bound, elsewhere) = (mounted.join("bound"), mounted.join("elsewhere"));
    fs::create_dir(&bound).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("inside"), "").unwrap();
    fs::write(mounted.join("target"), "").unwrap();
    for (from, to) in [("elsewhere", "bound"), ("elsewhere/inside", "target")] {
        let mount = Command::new("mount").arg("--bind").args([mounted.join(from), mounted.join(to)]).status();
        assert!(mount.unwrap().success());
    }
    let (names, summary) = with(one_file_system, &mounted);
    assert_eq!(names, ["/bound", "/elsewhere", "/elsewhere/inside", "/file"]);
    assert_eq!(summary.mounts, 2);
    assert!(with(WalkOptions::default(), &mounted).0.contains(&"/bound/inside".to_owned()));
}

#[test]
fn a_dead_mount_and_a_failing_disk_are_left_out_if_the_options_say_so() {
    let name = "walking::a_dead_mount_and_a_failing_disk_are_left_out_if_the_options_say_so";
    let Some(dir) = again_with_mounts(name) else { return };
    // A file system in user space without a server, and a disk that ends in the middle of two files.
    let script = "mkdir tree tree/dead tree/disk; exec 3<>/dev/fuse; \
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none tree/dead; exec 3>&-; \
        truncate -s 16M image; mkfs.ext4 -qF image; mount -o loop image tree/disk; \
        head -c 3000000 /dev/urandom > tree/disk/large; head -c 50000 /dev/urandom > tree/disk/small; \
        umount tree/disk; mount -o loop,ro image tree/disk; truncate -s 3M image; stat tree/disk/large tree/disk/small";
    let made = Command::new("sh").args(["-ec", script]).current_dir(&dir).output().unwrap();
    if !made.status.success() {
        return skipped(&format!("dead mounts: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let source = SourceSpec::new(dir.join("tree"));
    let error = walk_with(std::slice::from_ref(&source), &WalkOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("tree/dead") && error.hint().unwrap().contains("--skip-unreadable"),
        "{error}"
    );

    let options = WalkOptions { skip_unreadable: true, ..WalkOptions::default() };
    let mut skip_list = SkipList::default();
    // A large file is read while it is archived, and fails after its header is in the archive.
    let content =
        Walk::new(std::slice::from_ref(&source), &options).unwrap().find_map(|found| found.unwrap().file);
    let error = content.unwrap().read_to_end(&mut Vec::new()).unwrap_err();
    assert!(skip_list.record_failure(&crate::Error::io("cannot read", error), &options, 0));
    let (seen, summary) = walk_skipping(&[source], &options, &skip_list).unwrap();
    assert!(
        !names(&seen)
            .iter()
            .any(|name| name.starts_with("/dead") || name.ends_with("large") || name.ends_with("small"))
    );
    let left: Vec<_> =
        summary.left_out.iter().map(|left| (left.path.to_string(), left.reason.to_string())).collect();
    let cannot = |path: &str, why: &str| (path.to_owned(), format!("it cannot be read: {why}"));
    assert_eq!(
        left,
        [
            cannot("/dead", "Transport endpoint is not connected (os error 107)"),
            cannot("/disk/large", "Input/output error (os error 5)"),
            cannot("/disk/small", "Input/output error (os error 5)"),
        ]
    );
    Command::new("umount").args(["tree/dead", "tree/disk"]).current_dir(&dir).status().unwrap();
}
