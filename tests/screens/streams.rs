//! Output streams: their order, colour, and pipes that are closed.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs::{self, OpenOptions};
use std::process::{Command, Stdio};

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

/// The screen of a command, with `<` for the beginning of each sequence for the terminal.
fn colored_screen(place: &Workspace, arguments: &str, variables: &[(&str, &str)]) -> String {
    let mut volio = place.volio(arguments);
    volio.envs(variables.iter().copied());
    place.screen_of(volio).replace("\x1b[", "<")
}

/// Runs a command on a terminal, and returns all that it prints there.
pub fn on_terminal(place: &Workspace, arguments: &str, variables: &[(&str, &str)]) -> String {
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_volio"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(place.path());
    script.env_clear().env("HOME", place.path()).env("PATH", "/usr/bin:/bin").env("TERM", "xterm-256color");
    let output = script.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn colour_is_for_terminals() {
    let place = Workspace::new();
    let mut volio = place.volio("unpack oci:nowhere:v1 restored");
    volio.env("TERM", "xterm-256color");
    let output = place.run(volio);
    assert!(!output.stderr.contains(&0x1b), "{output:?}");
    let command = "unpack oci:nowhere:v1 restored";
    for (arguments, variables, is_colored) in [
        ("", vec![], true),
        ("", vec![("NO_COLOR", "1")], false),
        ("", vec![("NO_COLOR", "")], true),
        ("", vec![("TERM", "dumb")], false),
        ("--color never", vec![], false),
        ("--color auto", vec![("VOLIO_COLOR", "never")], true),
        ("--color always", vec![("NO_COLOR", "1"), ("TERM", "dumb")], true),
    ] {
        let shown = on_terminal(&place, &format!("{command} {arguments}"), &variables);
        assert!(shown.contains("error:"), "{shown}");
        assert_eq!(shown.contains('\x1b'), is_colored, "{arguments} {variables:?}: {shown}");
        // Help and errors of the arguments follow it too.
        for other in ["--help", "--no-such-option"] {
            let shown = on_terminal(&place, &format!("{other} {arguments}"), &variables);
            assert!(shown.contains("Usage:"), "{shown}");
            assert_eq!(shown.contains('\x1b'), is_colored, "{other} {arguments} {variables:?}: {shown}");
        }
    }
}

#[test]
fn colours_that_are_wanted_always() {
    let place = Workspace::with_image();
    fs::remove_file(place.path().join("tree/hello")).unwrap();
    fs::write(place.path().join("tree/new"), "").unwrap();
    fs::write(place.path().join("tree/etc/hosts"), "").unwrap();
    assert_screen(
        colored_screen(&place, "diff --color always --ignore owner,mode,mtime oci:layout:v1 tree", &[]),
        str![[r#"
<1m<33m~ /etc/hosts size 20 0<0m
<1m<31m- /hello<0m
<1m<32m+ /new<0m
-- stderr
compared 5 paths: 3 differ
-- exit 7

"#]],
    );
    assert_screen(
        colored_screen(&place, "doctor oci:layout:v1", &[("VOLIO_COLOR", "always")]),
        str![[r#"
<1m<33mwarning<0m  signatures: image: it is not signed: engines with a policy that requires signatures refuse it
         do: volio sign writes both forms, for the index and every platform: docs/trust.md
oci:layout@sha256:[DIGEST]
-- stderr
0 errors, 1 warning; 17 checks passed
-- exit 0

"#]],
    );
    assert_screen(
        colored_screen(&place, "cat oci:nowhere:v1 /hello", &[("CLICOLOR_FORCE", "1")]),
        str![[r#"
-- stderr
<1m<31merror:<0m nowhere is not an image layout: there is no such directory
<1m<36mhint:<0m write oci:DIRECTORY[:TAG] with a directory that volio, skopeo or buildah wrote
-- exit 4

"#]],
    );
    assert_screen(
        colored_screen(&place, "--color always cat --no-such-option", &[("NO_COLOR", "1")]),
        str![[r#"
-- stderr
<1m<31merror:<0m unexpected argument '<33m--no-such-option<0m' found

  <32mtip:<0m to pass '<33m--no-such-option<0m' as a value, use '<32m-- --no-such-option<0m'

<1m<4mUsage:<0m <1mvolio cat<0m [OPTIONS] <IMAGE> <PATH>...

For more information, try '<1m--help<0m'.
-- exit 2

"#]],
    );
    let json = colored_screen(&place, "--color always diff --format json oci:layout:v1 tree", &[]);
    assert!(!json.contains('<'), "{json}");
}

#[test]
fn what_comes_from_outside_brings_no_sequences_of_its_own() {
    let place = Workspace::with_tree();
    fs::write(place.path().join("tree/a\x1b[45mb"), "").unwrap();
    let place = place.and("pack --normalize oci:layout:v1 tree");
    fs::remove_file(place.path().join("tree/a\x1b[45mb")).unwrap();
    for command in ["diff --color always oci:layout:v1 tree", "ls --color always oci:layout:v1"] {
        let screen = place.screen(command);
        assert!(screen.contains("a\\u{1b}[45mb") && !screen.contains("\x1b[45m"), "{screen}");
    }
    for argument in ["--no-such-\x1b[31m", "--format=\x1b[31m\u{202e}"] {
        let mut volio = place.volio("ls --color always oci:layout:v1");
        volio.arg(argument);
        let screen = place.screen_of(volio);
        assert!(!screen.contains(['\x1b', '\u{202e}']) && screen.ends_with("-- exit 2\n"), "{screen}");
    }
}
