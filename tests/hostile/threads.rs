//! No more threads for volio.

use super::cases;
use super::runs::{Program, Sandbox, User};

#[test]
fn where_there_are_no_threads_that_is_an_error_and_no_panic() {
    // The limit counts processes of a user, and does not bind root.
    if !User::all().contains(&User::Nobody) {
        return;
    }
    let program = Program::new();
    let place = Sandbox::new(&program, User::Nobody);
    place.fill(&cases().into_iter().find(|case| case.name == "opaque-root").unwrap());
    for arguments in [
        &["ls", "oci:layout:v1"][..],
        &["unpack", "oci:layout:v1", "target"],
        &["verify", "oci:layout:v1"],
        &["diff", "oci:layout:v1", "oci:layout:v1"],
        &["cat", "oci:layout:v1", "a"],
        &["copy", "oci:layout:v1", "oci:copy:v1"],
        &["pack", "oci:copy:v2", "outside"],
        &["tags", "127.0.0.1:1/a"],
    ] {
        let outcome = place.volio_within("ulimit -u 1", arguments);
        assert_eq!(outcome.terrible(), None);
        assert!(outcome.code != 101, "{}", outcome.screen());
    }
}
