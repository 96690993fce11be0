//! Output streams: their order, colour, and pipes that are closed.

use super::Workspace;
use std::fs::OpenOptions;
use std::process::Stdio;

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let place = Workspace::with_image();
    // The reading end is closed before the program begins.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut volio = place.volio("ls oci:layout:v1");
    let output = volio.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let place = Workspace::with_image();
    let mut volio = place.volio("ls oci:layout:v1");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = volio.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: cannot write to standard output: "), "{stderr}");
}

#[test]
fn quiet_says_nothing_but_the_result_and_errors() {
    let place = Workspace::with_tree();
    let packed = place.run(place.volio("pack -q oci:layout:v1 tree"));
    assert!(packed.stderr.is_empty(), "{packed:?}");
    let stdout = String::from_utf8(packed.stdout).unwrap();
    assert!(stdout.starts_with("oci:layout@sha256:") && stdout.lines().count() == 1, "{stdout}");
    let refused = place.run(place.volio("unpack -q oci:layout:v1 tree"));
    assert!(refused.stdout.is_empty() && refused.stderr.starts_with(b"error: "), "{refused:?}");
}

#[test]
fn the_last_line_names_the_image_that_the_next_command_takes() {
    let place = Workspace::with_image();
    let unpacked = place.run(place.volio("unpack -q oci:layout:v1 first"));
    let address = String::from_utf8(unpacked.stdout).unwrap();
    let again = place.run(place.volio(&format!("unpack -q {address} second")));
    assert_eq!(String::from_utf8(again.stdout).unwrap(), address);
}

#[test]
fn colour_is_for_terminals() {
    let place = Workspace::new();
    let mut volio = place.volio("unpack oci:nowhere:v1 restored");
    volio.env("TERM", "xterm-256color");
    let output = place.run(volio);
    assert!(!output.stderr.contains(&0x1b), "{output:?}");
}
