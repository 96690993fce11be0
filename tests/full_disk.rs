//! No space left on the device, in every phase: a clear error, no incomplete image, and no loss of what was there.

mod as_root {
    //! Tests with small file systems, which only root may mount.

    use crate::service::eventually;
    use rustix::process::{Pid, Signal, kill_process};
    use std::fs;
    use std::net::{TcpListener, TcpStream};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Output, Stdio};
    use tempfile::TempDir;

    /// A file system in memory with a limited size.
    struct SmallFileSystem(TempDir);

    impl SmallFileSystem {
        fn mount(size: &str) -> Self {
            Self::mount_with(&format!("size={size}"))
        }

        fn mount_with(options: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(directory.path())
                .status()
                .unwrap();
            assert!(mounted.success());
            Self(directory)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn used(&self) -> u64 {
            let status = rustix::fs::statvfs(self.0.path()).unwrap();
            (status.f_blocks - status.f_bfree) * status.f_frsize
        }
    }

    impl Drop for SmallFileSystem {
        fn drop(&mut self) {
            // Lazily: a failed test may have left something open in it.
            let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        }
    }

    fn volio(arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_volio")).args(arguments).output().unwrap()
    }

    /// Runs volio, which must fail because no space is left, and say so.
    #[track_caller]
    fn runs_out_of_space(arguments: &[&str]) {
        let output = volio(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("No space left on device"), "{stderr}");
        assert!(stderr.contains("hint: free some space there"), "{stderr}");
        assert!(output.stdout.is_empty());
    }

    #[track_caller]
    fn succeeds(arguments: &[&str]) {
        let output = volio(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Creates 4 MiB that compress to almost nothing, or that cannot be compressed.
    fn make_tree(root: &Path, compressible: bool) {
        let mut state = 7u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if compressible { b'x' } else { (state >> 24) as u8 }
        };
        fs::create_dir(root).unwrap();
        for n in 0..4 {
            fs::write(root.join(format!("{n}")), (0..1 << 20).map(|_| next()).collect::<Vec<u8>>()).unwrap();
        }
    }

    #[test]
    #[ignore = "needs root to mount small file systems: run tests/run"]
    fn while_a_layout_is_written_the_image_in_it_stays_as_it_was() {
        let (small, directory) = (SmallFileSystem::mount("3m"), tempfile::tempdir().unwrap());
        let (tree, layout) = (directory.path().join("tree"), small.path("layout"));
        make_tree(&tree, false);
        let (image, tree) = (format!("oci:{}:v1", layout.display()), tree.to_str().unwrap());
        runs_out_of_space(&["pack", &image, tree]);
        assert!(!layout.join("index.json").exists());
        assert!(small.used() < 1 << 20, "the unfinished blob must not stay: {} bytes", small.used());

        succeeds(&["pack", &image, &format!("{tree}/0")]);
        let index = fs::read(layout.join("index.json")).unwrap();
        runs_out_of_space(&["pack", &image, tree]);
        assert_eq!(fs::read(layout.join("index.json")).unwrap(), index);
        succeeds(&["unpack", &image, directory.path().join("target").to_str().unwrap()]);
    }

    #[test]
    #[ignore = "needs root to mount small file systems: run tests/run"]
    fn while_a_layer_is_spooled_the_target_stays_empty() {
        let (small, directory) = (SmallFileSystem::mount("3m"), tempfile::tempdir().unwrap());
        let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
        make_tree(&tree, false);
        let image = format!("oci:{}:v1", layout.display());
        // Without a table of contents, which would prove it while it comes.
        succeeds(&["pack", "--compression", "none", &image, tree.to_str().unwrap()]);
        runs_out_of_space(&["unpack", &image, small.path("target").to_str().unwrap()]);
        assert!(!small.path("target").exists());
        assert!(small.used() < 1 << 20, "the spool must not stay: {} bytes", small.used());
    }

    #[test]
    #[ignore = "needs root to mount small file systems: run tests/run"]
    fn while_files_are_extracted_the_error_names_the_file() {
        let (small, directory) = (SmallFileSystem::mount("3m"), tempfile::tempdir().unwrap());
        let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
        make_tree(&tree, true);
        let image = format!("oci:{}:v1", layout.display());
        succeeds(&["pack", &image, tree.to_str().unwrap()]);
        let target = small.path("target");
        runs_out_of_space(&["unpack", &image, target.to_str().unwrap()]);
        let stderr = volio(&["unpack", &image, small.path("other").to_str().unwrap()]).stderr;
        assert!(String::from_utf8_lossy(&stderr).contains("/other"), "{}", String::from_utf8_lossy(&stderr));
    }

    #[test]
    #[ignore = "needs root to mount small file systems: run tests/run"]
    fn before_a_first_sync_the_space_is_checked_and_with_more_of_it_the_sync_succeeds() {
        let (small, directory) = (SmallFileSystem::mount("3m"), tempfile::tempdir().unwrap());
        let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
        make_tree(&tree, true);
        let image = format!("oci:{}:v1", layout.display());
        let tree = tree.to_str().unwrap();
        succeeds(&["pack", &image, tree]);
        for _ in 0..2 {
            let target = small.0.path().to_str().unwrap();
            runs_out_of_space(&["unpack", "--sync", &image, target]);
            let names = fs::read_dir(target).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(names.into_iter().all(|name| name.to_string_lossy().starts_with(".volio.")));
            // Two layers, whose tables of contents are read first.
            fs::write(format!("{tree}/more"), "more").unwrap();
            succeeds(&["pack", "--incremental", &image, tree]);
        }
        let larger = ["-o", "remount,size=20m"];
        assert!(Command::new("mount").args(larger).arg(small.0.path()).status().unwrap().success());
        succeeds(&["unpack", "--sync", &image, small.0.path().to_str().unwrap()]);
        assert!(small.path("3").exists());
    }

    // The space in bytes is checked before, and the number of inodes is not.
    #[test]
    #[ignore = "needs root to mount small file systems: run tests/run"]
    fn in_the_middle_of_a_sync_each_file_is_old_or_new_and_with_more_room_the_sync_is_completed() {
        let small = SmallFileSystem::mount_with("size=20m,nr_inodes=60");
        let directory = tempfile::tempdir().unwrap();
        let (tree, target) = (directory.path().join("tree"), small.path("target"));
        let image = format!("oci:{}:v1", directory.path().join("layout").display());
        let version = |n: u8| -> Vec<u8> { format!("version {n} ").repeat(1000).into_bytes() };
        fs::create_dir(&tree).unwrap();
        for n in 0..20 {
            fs::write(tree.join(format!("{n:03}")), version(1)).unwrap();
        }
        let (tree, target) = (tree.to_str().unwrap(), target.to_str().unwrap());
        succeeds(&["pack", &image, tree]);
        succeeds(&["unpack", "--sync", &image, target]);
        for n in (0..20).step_by(2).chain(20..100) {
            fs::write(format!("{tree}/{n:03}"), version(2)).unwrap();
        }
        fs::remove_file(format!("{tree}/001")).unwrap();
        succeeds(&["pack", "--incremental", &image, tree]);

        let sync = ["unpack", "--sync", &image, target];
        for _ in 0..2 {
            let output = volio(&sync);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(
                stderr.contains("No space left on device") && stderr.contains("no inodes left"),
                "{stderr}"
            );
            let mut count = 0;
            for file in fs::read_dir(target).unwrap().map(|file| file.unwrap().path()) {
                if !file.to_string_lossy().contains("/.volio.") {
                    let content = fs::read(&file).unwrap();
                    assert!(content == version(1) || content == version(2), "{}", file.display());
                    count += 1;
                }
            }
            assert!(count > 20, "nothing was written: {count}");
            // Without a sync it is neither taken for complete nor emptied.
            let unpacked = volio(&["unpack", &image, target]);
            assert_eq!(unpacked.status.code(), Some(6), "{}", String::from_utf8_lossy(&unpacked.stderr));
        }
        let larger = ["-o", "remount,nr_inodes=1000"];
        assert!(Command::new("mount").args(larger).arg(small.0.path()).status().unwrap().success());
        succeeds(&sync);
        succeeds(&["diff", &image, target]);
        assert!(fs::read_dir(target).unwrap().all(|file| {
            let name = file.unwrap().file_name();
            name == ".volio.json" || !name.to_string_lossy().starts_with(".volio")
        }));
    }

    #[test]
    #[ignore = "needs root to mount small file systems: run tests/run"]
    fn while_several_threads_write_files_the_error_names_one_and_another_image_can_follow() {
        let (small, directory) = (SmallFileSystem::mount("2m"), tempfile::tempdir().unwrap());
        let image = |name: &str| format!("oci:{}:{name}", directory.path().join("layout").display());
        for (name, count) in [("many", 400), ("few", 3)] {
            let tree = directory.path().join(name);
            fs::create_dir(&tree).unwrap();
            for number in 0..count {
                fs::write(tree.join(format!("{name}-{number}")), [b'x'; 16 << 10]).unwrap();
            }
            succeeds(&["pack", &image(name), tree.to_str().unwrap()]);
        }
        let target = small.path("target");
        let unpack =
            |name: &str| ["unpack", "--file-threads", "4", name, target.to_str().unwrap()].map(String::from);
        let run = |name: &str| volio(&unpack(&image(name)).each_ref().map(String::as_str));
        let output = run("many");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("/many-") && stderr.contains("No space left on device"), "{stderr}");
        assert!(run("few").status.success());
        let mut names: Vec<_> =
            fs::read_dir(&target).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names.retain(|name| name != ".volio.json");
        assert_eq!(names, ["few-0", "few-1", "few-2"]);
    }

    #[test]
    #[ignore = "needs root to mount small file systems: run tests/run"]
    fn while_an_archive_for_data_io_is_made_the_image_stays_as_it_was() {
        let (small, directory) = (SmallFileSystem::mount("2m"), tempfile::tempdir().unwrap());
        let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
        make_tree(&tree, false);
        let image = format!("oci:{}:v1", layout.display());
        let mut pack = Command::new(env!("CARGO_BIN_EXE_volio"));
        pack.args(["pack", "--format", "data-io", &image]).arg(&tree).env("TMPDIR", small.path(""));
        let output = pack.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("cannot write the archive in") && stderr.contains("No space left"),
            "{stderr}"
        );
        assert!(!layout.join("index.json").exists());
        assert!(small.used() < 1 << 20, "the archive must not stay: {} bytes", small.used());
    }

    /// A watch of a layout with a target in a small file system.
    struct Watched {
        small: SmallFileSystem,
        place: TempDir,
        watch: Child,
    }

    impl Watched {
        /// Starts a watch when a version is there.
        fn start(how: &[&str]) -> Self {
            let small = SmallFileSystem::mount_with("size=12m,nr_inodes=60");
            let place = tempfile::tempdir().unwrap();
            Self::push(place.path(), 1, 4 << 20, 1);
            let log = fs::File::create(place.path().join("log")).unwrap();
            let mut watch = Command::new(env!("CARGO_BIN_EXE_volio"));
            watch.args(["unpack", "--no-sync", "--watch", "1s"]).args(how);
            watch.arg(Self::image(place.path())).arg(small.path("target"));
            watch.env("XDG_STATE_HOME", place.path().join("state")).stdout(Stdio::null());
            let watch = watch.stdin(Stdio::null()).stderr(log).spawn().unwrap();
            Self { small, place, watch }
        }

        fn image(place: &Path) -> String {
            format!("oci:{}:v1", place.join("layout").display())
        }

        /// Packs files that all have the number of the version as their content: a large one, and small ones.
        fn push(place: &Path, version: u8, large: usize, count: usize) {
            let tree = place.join("tree");
            let _ = fs::remove_dir_all(&tree);
            fs::create_dir(&tree).unwrap();
            fs::write(tree.join("large"), vec![version; large]).unwrap();
            for number in 0..count {
                fs::write(tree.join(format!("small{number}")), [version]).unwrap();
            }
            succeeds(&["pack", &Self::image(place), tree.to_str().unwrap()]);
        }

        fn next(&self, version: u8, large: usize, count: usize) {
            Self::push(self.place.path(), version, large, count);
        }

        fn log(&self) -> String {
            fs::read_to_string(self.place.path().join("log")).unwrap()
        }

        /// Waits until as many lines of the log say that no space is left below the target.
        fn runs_out_of_space(&self, times: usize) {
            let target = self.small.path("target").display().to_string();
            let is_it = |line: &&str| line.contains("No space left on device") && line.contains(&target);
            eventually("an error that names the place", || self.log().lines().filter(is_it).count() >= times);
        }

        /// Whether a directory has exactly this version.
        fn has(tree: &Path, version: u8, large: usize, count: usize) -> bool {
            let has =
                |name: &str, length| fs::read(tree.join(name)).is_ok_and(|c| c == vec![version; length]);
            has("large", large)
                && (0..count).all(|number| has(&format!("small{number}"), 1))
                && !tree.join(format!("small{count}")).exists()
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            let _ = kill_process(Pid::from_child(&self.watch), Signal::TERM);
            let _ = self.watch.wait();
            if std::thread::panicking() {
                eprintln!("{}", self.log());
            }
        }
    }

    #[test]
    #[ignore = "needs root to mount small file systems: run tests/run"]
    fn a_watch_keeps_the_last_version_that_fits_and_goes_on_when_there_is_room() {
        for how in [&["--link", "current"][..], &["--sync"]] {
            let watched = Watched::start(how);
            let tree = watched.small.path(if how.len() > 1 { "target/current" } else { "target" });
            let published = |version, large, count| {
                eventually("a version", || Watched::has(&tree, version, large, count));
            };
            published(1, 4 << 20, 1);
            // Too large: nothing of it is seen in either mode, and nothing stays that would take the room of the next.
            watched.next(2, 20 << 20, 1);
            watched.runs_out_of_space(1);
            assert!(Watched::has(&tree, 1, 4 << 20, 1));
            watched.next(3, 5 << 20, 1);
            published(3, 5 << 20, 1);
            eventually("a line about it", || watched.log().contains("can be followed again"));

            // Too many files, which only writing them shows. In place, each of them is old or new.
            watched.next(4, 1, 100);
            watched.runs_out_of_space(2);
            if how.len() > 1 {
                assert!(Watched::has(&tree, 3, 5 << 20, 1));
            } else {
                let large = fs::read(tree.join("large")).unwrap();
                assert!(large == [4] || large == vec![3; 5 << 20]);
            }
            let larger = ["-o", "remount,nr_inodes=1000"];
            assert!(
                Command::new("mount").args(larger).arg(watched.small.0.path()).status().unwrap().success()
            );
            published(4, 1, 100);
        }
    }

    /// Debian's registry, with its storage in a given directory.
    struct Registry {
        process: Child,
        host: String,
    }

    impl Registry {
        fn start(storage: &Path, directory: &Path) -> Self {
            // The port is free again when the listener is closed; another process hardly takes it meanwhile.
            let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let config = directory.join("registry.yml");
            let storage = storage.display();
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'}}\n\
                 storage: {{filesystem: {{rootdirectory: '{storage}'}}}}\n"
            );
            fs::write(&config, text).unwrap();
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while TcpStream::connect(&host).is_err() {
                assert!(process.try_wait().unwrap().is_none(), "the registry has ended");
                std::thread::yield_now();
            }
            Self { process, host }
        }
    }

    impl Drop for Registry {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    #[test]
    #[ignore = "needs root and docker-registry: run tests/run"]
    fn in_a_registry_the_tag_does_not_appear() {
        let (small, directory) = (SmallFileSystem::mount("3m"), tempfile::tempdir().unwrap());
        let tree = directory.path().join("tree");
        make_tree(&tree, false);
        let registry = Registry::start(&small.path("registry"), directory.path());
        let image = format!("{}/team/data:v1", registry.host);
        let output = volio(&["pack", "--retry-delay", "0", &image, tree.to_str().unwrap()]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&registry.host), "{stderr}");
        assert_eq!(volio(&["inspect", &image]).status.code(), Some(4), "the tag must not be there");
    }

    #[test]
    fn a_limit_on_the_size_of_files_is_an_error_and_does_not_kill_the_process() {
        let place = tempfile::tempdir().unwrap();
        let (source, target) = (place.path().join("source"), place.path().join("target"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("large"), vec![7; 1 << 20]).unwrap();
        let image = format!("oci:{}", place.path().join("layout").display());
        succeeds(&["pack", &image, source.to_str().unwrap()]);
        let limited = "ulimit -f 64 && exec \"$0\" unpack --quiet \"$1\" \"$2\"";
        let mut shell = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_volio");
        let output = shell.args(["-c", limited, program, &image]).arg(&target).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("/large") && stderr.contains("ulimit -f"), "{stderr}");
    }
}
