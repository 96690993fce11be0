//! `volio doctor`: prepared set-ups that do not work, each with the cause that is named.

mod image;
mod registry;

use super::{Workspace, assert_screen, without_digests};
use serde_json::Value;
use std::borrow::BorrowMut;
use std::process::Command;

/// Runs a command, and fails unless it prints exactly one finding of this check, with this severity and this text in it. The
/// advice and, with `--verbose`, the source must be there too.
#[track_caller]
fn assert_named(
    place: &Workspace,
    command: impl BorrowMut<Command>,
    severity: &str,
    check: &str,
    told: &str,
) -> String {
    let mut command = command;
    let output = place.run(command.borrow_mut().args(["--format", "json", "--retry", "0"]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    let findings = json["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| {
        finding["check"] == check
            && finding["severity"] == severity
            && finding["what"].as_str().unwrap().contains(told)
    });
    let found = found.unwrap_or_else(|| panic!("no {severity} {check} with {told:?}: {text}"));
    if severity != "ok" {
        assert!(found["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{found}");
    }
    for finding in findings.iter().filter(|finding| finding["severity"] != "ok") {
        assert!(finding["source"].is_string() || finding["check"] == "find", "{finding}");
    }
    let errors = findings.iter().filter(|finding| finding["severity"] == "error").count();
    assert_eq!(output.status.code(), Some(i32::from(errors > 0)), "{text}");
    assert!(
        !text.contains("hunter2") && !String::from_utf8_lossy(&output.stderr).contains("hunter2"),
        "{output:?}"
    );
    println!("{severity}  {check}: {}", found["what"].as_str().unwrap());
    text
}
