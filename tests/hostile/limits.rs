//! The limits are options, and listing and unpacking mind them alike.

use super::runs::{Program, Sandbox, User};
use super::{Case, cases};

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

/// The exit codes of unpacking and of listing with these arguments.
fn codes(name: &str, arguments: &[&str]) -> [i32; 2] {
    let program = Program::new();
    let place = Sandbox::new(&program, User::Myself);
    place.fill(&case(name));
    let unpack = place.volio(&[&["unpack"], arguments, &["oci:layout:v1", "target"]].concat());
    let ls = place.volio(&[&["ls"], arguments, &["oci:layout:v1"]].concat());
    [unpack.code, ls.code]
}

#[test]
fn every_limit_can_be_lowered_and_raised() {
    assert_eq!(codes("duplicate-directory", &["--max-entries", "3"]), [0, 0]);
    assert_eq!(codes("duplicate-directory", &["--max-entries", "2"]), [3, 3]);
    assert_eq!(codes("chain-through-directories", &["--max-depth", "1"]), [3, 3]);
    assert_eq!(codes("path-beyond-path-max", &[]), [3, 3]);
    assert_eq!(codes("path-beyond-path-max", &["--max-path", "8K"]), [0, 0]);
    assert_eq!(codes("path-beyond-path-max", &["--max-path", "8K", "--max-names", "2K"]), [3, 3]);
    assert_eq!(codes("xattr-of-60-kib", &["--max-metadata", "32K"]), [3, 3]);
    assert_eq!(codes("nested-3000-deep", &["--max-depth", "3000", "--max-path", "8K"]), [0, 0]);
    assert_eq!(codes("path-of-70000-bytes", &["--max-path", "1M", "--max-depth", "400"]), [0, 0]);
    // Entries count in all layers together.
    assert_eq!(codes("opaque-root", &["--max-entries", "3"]), [0, 0]);
    assert_eq!(codes("opaque-root", &["--max-entries", "2"]), [3, 3]);
}
