//! The cases as `fixtures/hostile/cases.txt` lists them.

use flate2::read::GzDecoder;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use volio::oci::Digest;

/// One image that was made to do harm.
pub struct Case {
    pub kind: String,
    pub name: String,
    digests: Vec<String>,
    pub expected: Expected,
}

/// The expected outcome.
#[derive(Debug)]
pub enum Expected {
    /// Exit 3 or 6.
    Refused,
    /// These paths and no others are in the target.
    Contained(Vec<String>),
    /// The same, but only root makes devices.
    Devices(Vec<String>),
    /// It is listed, and unpacked or not, but soon.
    Bounded,
    /// It cannot be read, which may be called by any code; nothing is in the target.
    Fails,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hostile")
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let lines = fs::read_to_string(fixtures().join("cases.txt")).unwrap();
    lines.lines().map(Case::parse).collect()
}

impl Case {
    fn parse(line: &str) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap().to_owned();
        let (kind, name, digests, expected) = (word(), word(), word(), word());
        let mut paths: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
        paths.sort();
        let expected = match expected.as_str() {
            "refused" => Expected::Refused,
            "contained" => Expected::Contained(paths),
            "devices" => Expected::Devices(paths),
            "bounded" => Expected::Bounded,
            "fails" => Expected::Fails,
            other => panic!("{other}"),
        };
        Self { kind, name, digests: digests.split(',').map(str::to_owned).collect(), expected }
    }

    /// True for a single file.
    pub fn is_single(&self) -> bool {
        self.digests.len() == 1
    }

    /// The bytes of its files: layers or a layout plain, blobs as they are.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        let number = |n: usize| if self.digests.len() == 1 { String::new() } else { format!(".{}", n + 1) };
        let read = |n| {
            let path = fixtures().join(&self.kind).join(format!("{}{}", self.name, number(n)));
            let mut bytes = Vec::new();
            match self.kind.as_str() {
                "blobs" => bytes = fs::read(path).unwrap(),
                _ => {
                    let packed = fs::File::open(format!("{}.gz", path.display())).unwrap();
                    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
                }
            }
            assert_eq!(
                Digest::of(&bytes).to_string(),
                self.digests[n],
                "{} is not what the script made",
                self.name
            );
            bytes
        };
        (0..self.digests.len()).map(read).collect()
    }
}

#[test]
fn the_script_makes_these_fixtures() {
    let directory = tempfile::tempdir().unwrap();
    let made = Command::new("python3").arg(fixtures().join("make")).arg(directory.path()).output();
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            use std::io::Write;
            let mut stderr = std::io::stderr();
            writeln!(stderr, "SKIPPED: the script behind fixtures/hostile: no python3").unwrap();
        }
        made => {
            let made = made.unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let cases = |root: &Path| fs::read_to_string(root.join("cases.txt")).unwrap();
            assert!(cases(directory.path()) == cases(&fixtures()), "run fixtures/hostile/make");
        }
    }
}
