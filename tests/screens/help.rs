//! Help, completions and manual pages: all made from the same definitions.

use super::Place;
use snapbox::{assert_data_eq, str};
use std::fs;

const COMMANDS: [&str; 9] = ["pack", "unpack", "copy", "push", "pull", "ls", "inspect", "completions", "man"];

#[test]
fn nothing_typed() {
    assert_data_eq!(Place::new().screen(""), str![]);
}

#[test]
fn the_program() {
    assert_data_eq!(Place::new().screen("--help"), str![]);
}

#[test]
fn pack() {
    assert_data_eq!(Place::new().screen("pack --help"), str![]);
}

#[test]
fn unpack() {
    assert_data_eq!(Place::new().screen("unpack --help"), str![]);
}

#[test]
fn copy() {
    assert_data_eq!(Place::new().screen("copy --help"), str![]);
}

#[test]
fn ls() {
    assert_data_eq!(Place::new().screen("ls --help"), str![]);
}

#[test]
fn every_command_has_short_and_long_help_that_fits_the_screen() {
    let place = Place::new();
    for command in COMMANDS {
        let [short, long] = ["-h", "--help"].map(|flag| place.screen(&format!("{command} {flag}")));
        assert!(short.ends_with("-- exit 0\n") && long.ends_with("-- exit 0\n"), "{command}");
        assert!(long.contains("\nExamples:\n") && !short.contains("\nExamples:\n"), "{command}");
        for line in short.lines().chain(long.lines()) {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
    }
}

#[test]
fn a_command_that_does_not_exist() {
    assert_data_eq!(Place::new().screen("upnack"), str![]);
}

#[test]
fn a_flag_that_does_not_exist() {
    assert_data_eq!(Place::new().screen("pack --plattform linux/amd64 oci:layout tree"), str![]);
}

#[test]
fn completions_know_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.screen(&format!("completions {shell}"));
        assert!(script.ends_with("-- exit 0\n"), "{script}");
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn manual_pages_are_one_for_each_command() {
    let place = Place::new();
    let one = place.screen("man");
    assert!(one.contains(".TH volio 1") && one.contains("Exit codes"), "{one}");
    assert_data_eq!(place.screen("man --dir new/man1"), str![]);
    let mut pages: Vec<String> = fs::read_dir(place.path().join("new/man1"))
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let mut expected: Vec<String> = COMMANDS.iter().map(|command| format!("volio-{command}.1")).collect();
    expected.push("volio.1".to_owned());
    expected.sort();
    assert_eq!(pages, expected);
}
