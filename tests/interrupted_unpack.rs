//! Unpacks that are killed while several threads write files, and what the next run removes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Returns the number of kills of each test.
fn kills() -> u32 {
    let number = std::env::var("VOLIO_TEST_KILLS").ok();
    number.map_or(12, |number| number.parse().expect("VOLIO_TEST_KILLS is a number"))
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// A place with an image of many files and one of a few.
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for (name, directories) in [("many", 40), ("few", 1)] {
            for directory in 0..directories {
                let directory = place.path(name).join(format!("{name}-{directory}"));
                fs::create_dir_all(&directory).unwrap();
                for file in 0..100 {
                    let text = format!("{directory:?} {file}\n").repeat(file + 1);
                    fs::write(directory.join(format!("{file}")), text).unwrap();
                }
            }
            let output = volio(&["pack", &place.image(name), place.path(name).to_str().unwrap()]).output();
            assert!(output.unwrap().status.success());
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn image(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.path("layout").display())
    }

    fn unpack(&self, name: &str) -> Command {
        let (image, target) = (self.image(name), self.path("target"));
        volio(&["unpack", "--file-threads", "4", &image, target.to_str().unwrap()])
    }

    /// Returns the time that a whole run takes.
    fn time(&self) -> Duration {
        let begun = Instant::now();
        assert!(self.unpack("many").output().unwrap().status.success());
        let time = begun.elapsed();
        fs::remove_dir_all(self.path("target")).unwrap();
        time
    }

    /// Kills a run of the large image after a part of this time. Returns whether it was killed while it extracted files.
    fn kill_after(&self, time: Duration) -> bool {
        let mut child = self.unpack("many").spawn().unwrap();
        std::thread::sleep(time);
        child.kill().unwrap();
        !child.wait().unwrap().success() && self.path("target/.volio.made").exists()
    }

    /// Returns the files in the target by their paths, without those of volio.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        collect(&self.path("target"), "", &mut files);
        files
    }
}

fn volio(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn collect(directory: &Path, above: &str, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{above}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &path, files);
        } else if !path.starts_with("/.volio") {
            files.insert(path);
        }
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_next_run_of_another_image_removes_what_a_killed_one_made() {
    let place = Place::new();
    let time = place.time();
    let (mut killed, mut refused) = (0, 0);
    for number in 1..=kills() {
        killed += u32::from(place.kill_after(time * number / kills()));
        if !place.path("target").exists() {
            continue;
        }
        let output = place.unpack("few").output().unwrap();
        let files = place.files();
        match output.status.code() {
            Some(0) => assert!(files.len() == 100 && files.iter().all(|file| file.starts_with("/few-0/"))),
            // The run was complete, or was killed between the creation of a file and the note in its journal.
            Some(6) if !killed_while_extracting(&place) => {}
            Some(6) => {
                assert!(files.len() <= 1, "{files:?}: {}", stderr(&output));
                refused += 1;
            }
            _ => panic!("{}", stderr(&output)),
        }
        fs::remove_dir_all(place.path("target")).unwrap();
    }
    assert!(killed > kills() / 4, "{killed} runs were killed while they extracted files");
    assert!(refused < killed, "{refused} of {killed} runs left a file that no journal has");
}

/// Returns whether the target has something else than a complete image.
fn killed_while_extracting(place: &Place) -> bool {
    place.files().len() < 4_000
}

#[test]
fn files_of_others_survive_a_killed_run_and_the_next_one() {
    let place = Place::new();
    let time = place.time();
    let mut killed = 0;
    for number in 1..=kills() {
        let mut child = place.unpack("many").spawn().unwrap();
        let begun = Instant::now();
        let mut foreign = Vec::new();
        while begun.elapsed() < time * number / kills() {
            // Beside the files that are being written, in a directory of the image, while the run works.
            let path = place.path(&format!("target/many-{}/foreign-{}", foreign.len() % 40, foreign.len()));
            if fs::write(&path, "precious").is_ok() {
                foreign.push(path);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        if !place.path("target").exists() {
            continue;
        }
        // In place of files that the run has made, or would have made.
        let replaced: Vec<PathBuf> =
            place.files().iter().rev().step_by(7).map(|path| place.path("target").join(&path[1..])).collect();
        for path in &replaced {
            fs::remove_file(path).unwrap();
            fs::write(path, "precious").unwrap();
        }
        let output = place.unpack("few").output().unwrap();
        let has_foreign = !foreign.is_empty() || !replaced.is_empty();
        assert!(!has_foreign || output.status.code() == Some(6), "{}", stderr(&output));
        for path in foreign.iter().chain(&replaced) {
            assert_eq!(fs::read(path).unwrap(), b"precious", "{}", path.display());
        }
        fs::remove_dir_all(place.path("target")).unwrap();
    }
    assert!(killed > kills() / 4, "{killed} runs were killed");
}

#[test]
fn the_same_image_completes_what_a_killed_run_began() {
    let place = Place::new();
    let time = place.time();
    for number in 1..=kills().div_ceil(3) {
        place.kill_after(time * number * 3 / kills());
        let output = place.unpack("many").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        crate::snapshot::assert_same(&place.path("many"), &place.path("target"));
        fs::remove_dir_all(place.path("target")).unwrap();
    }
}
