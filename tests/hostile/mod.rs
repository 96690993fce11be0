//! Images that were made to do harm, from `fixtures/hostile`, against the program: as root and as an ordinary user.
//!
//! For each of them: it is refused with exit 3 or 6, or does nothing but what its line in `cases.txt` says; nothing outside
//! of the target changes; no byte that a terminal could obey is printed; a minute and 1 GiB of address space suffice;
//! and a listing says the same as unpacking.

mod case;
mod chunks;
mod data_io;
mod documents;
mod limits;
mod memory;
mod registries;
mod runs;
mod threads;

use case::{Case, Expected, cases};
use runs::{Outcome, Program, Sandbox, User};

/// The users to test as: the one that runs the tests, and `nobody` if that is root.
fn as_everybody(kind: &str, unpack: &[&str]) {
    let all = cases();
    let cases: Vec<&Case> = all.iter().filter(|case| case.kind == kind).collect();
    assert!(cases.len() > 20, "{kind}: the fixtures are missing");
    let program = Program::new();
    let mut wrong = Vec::new();
    for user in User::all() {
        for case in &cases {
            wrong.extend(
                violations(&program, case, user, unpack)
                    .map(|why| format!("{} as {user:?}: {why}", case.name)),
            );
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Returns the error in volio's treatment of a case, if there is one.
fn violations(program: &Program, case: &Case, user: User, unpack: &[&str]) -> Option<String> {
    let place = Sandbox::new(program, user);
    place.fill(case);
    let before = place.surroundings();
    let unpacked = place.volio(&[unpack, &["oci:layout:v1", "target"]].concat());
    let listed = place.volio(&["ls", "-R", "--format", "json", "oci:layout:v1"]);
    // Commands that only read treat layers alike; documents concern all commands.
    let others: &[&[&str]] = match case.kind.as_str() {
        "layers" if !case.name.starts_with("terminal") => &[],
        _ => &[
            &["ls", "-lR", "oci:layout:v1"],
            &["verify", "oci:layout:v1"],
            &["inspect", "oci:layout:v1"],
            &["copy", "oci:layout:v1", "oci:copy:v1"],
        ],
    };
    let others: Vec<_> = others.iter().map(|arguments| place.volio(arguments)).collect();
    let terrible = [&unpacked, &listed].into_iter().chain(&others).find_map(Outcome::terrible);
    if terrible.is_some() {
        return terrible;
    }
    if place.surroundings() != before {
        return Some("something outside of the target has changed".to_owned());
    }
    let target = place.target();
    if !user.is_root() && target.iter().any(|found| found.is_special) {
        return Some("a stranger's file gives the rights of whoever unpacked it".to_owned());
    }
    let paths: Vec<_> = target.into_iter().map(|found| found.path).collect();
    judge(&case.expected, &unpacked, &listed, &paths, user)
}

fn judge(
    expected: &Expected,
    unpacked: &Outcome,
    listed: &Outcome,
    target: &[String],
    user: User,
) -> Option<String> {
    let refused = |outcome: &Outcome| matches!(outcome.code, 3 | 6);
    // The record of the target is not part of the image, and an image cannot forge it.
    let without_record = |paths: &[String]| -> Vec<String> {
        paths
            .iter()
            .filter(|path| ![".volio.json", ".volio.made"].contains(&path.as_str()))
            .cloned()
            .collect()
    };
    let holds = |paths: &[String]| without_record(target) == without_record(paths);
    let fine = match expected {
        Expected::Refused => refused(unpacked) && refused(listed),
        Expected::Fails => unpacked.code != 0 && listed.code != 0 && holds(&[]),
        Expected::Bounded => listed.code == 0,
        Expected::Contained(paths) => {
            unpacked.code == 0 && listed.code == 0 && holds(paths) && listed.paths() == *paths
        }
        // Only root makes devices, and not even root in every sandbox.
        Expected::Devices(paths) => {
            let made = holds(paths) && user.is_root();
            unpacked.code == 0 && listed.paths() == *paths && (made || holds(&[]))
        }
    };
    (!fine).then(|| {
        let screens =
            [unpacked, listed].map(|outcome| format!("exit {}: {}", outcome.code, outcome.screen()));
        format!("expected {expected:?}, found {target:?}\n    {}", screens.join("\n    "))
    })
}

#[test]
fn hostile_layers_are_refused_or_contained() {
    as_everybody("layers", &["unpack"]);
}

#[test]
fn hostile_layers_are_refused_or_contained_where_several_threads_write_files() {
    as_everybody("layers", &["unpack", "--file-threads", "4"]);
}

#[test]
fn hostile_compression_is_refused_or_contained() {
    as_everybody("blobs", &["unpack"]);
}

#[test]
fn hostile_layouts_are_refused_or_contained() {
    as_everybody("layouts", &["unpack"]);
}
