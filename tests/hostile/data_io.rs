//! The same archives as the data of an image that data-io made: no layer but an archive in one, and no less hostile.

use super::case::{Case, Expected, cases};
use super::runs::{Program, Sandbox, User};

/// Returns the error in volio's unpacking of a case, if there is one.
fn violation(program: &Program, case: &Case, user: User) -> Option<String> {
    let place = Sandbox::new(program, user);
    place.fill_as_data_io(case);
    let before = place.surroundings();
    let unpacked = place.volio(&["unpack", "oci:layout:v1", "target"]);
    if let Some(terrible) = unpacked.terrible() {
        return Some(terrible);
    }
    if place.surroundings() != before {
        return Some("something outside of the target has changed".to_owned());
    }
    let target = place.target();
    if !user.is_root() && target.iter().any(|found| found.is_special) {
        return Some("a stranger's file gives the rights of whoever unpacked it".to_owned());
    }
    // The record is not part of the image, and an image cannot forge it.
    let without_record = |paths: &[String]| -> Vec<String> {
        paths.iter().filter(|path| *path != ".volio.json").cloned().collect()
    };
    let target: Vec<_> = target.into_iter().map(|found| found.path).collect();
    let target = without_record(&target);
    let fine = match &case.expected {
        Expected::Refused => matches!(unpacked.code, 3 | 6),
        Expected::Fails => unpacked.code != 0 && target.is_empty(),
        Expected::Bounded => true,
        Expected::Contained(paths) => unpacked.code == 0 && target == without_record(paths),
        Expected::Devices(paths) => {
            unpacked.code == 0 && (target.is_empty() || (user.is_root() && target == *paths))
        }
    };
    (!fine).then(|| format!("expected {:?}, found {target:?}\n    {}", case.expected, unpacked.screen()))
}

#[test]
fn hostile_archives_of_data_io_are_refused_or_contained() {
    let all = cases();
    // Names that mean something in layers only are names here.
    let is_archive = |case: &&Case| {
        case.kind == "layers"
            && case.is_single()
            && !["whiteout", "opaque", "aufs", "removed"].iter().any(|word| case.name.contains(word))
    };
    let cases: Vec<&Case> = all.iter().filter(is_archive).collect();
    assert!(cases.len() > 60, "the fixtures are missing");
    let program = Program::new();
    let mut wrong = Vec::new();
    for user in User::all() {
        for case in &cases {
            wrong.extend(
                violation(&program, case, user).map(|why| format!("{} as {user:?}: {why}", case.name)),
            );
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
