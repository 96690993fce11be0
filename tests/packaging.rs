//! What is published: the files of the crate, and what packages get from the program. `tests/run packages` tries the packages.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Returns what the program prints.
fn volio(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_volio")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the names of all commands, from the help.
fn commands() -> BTreeSet<String> {
    let help = volio(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let names = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn each_command_has_a_manual_page_and_completions() {
    let commands = commands();
    assert!(commands.contains("pack") && commands.contains("man"), "{commands:?}");
    let directory = tempfile::tempdir().unwrap();
    volio(&["man", "--dir", directory.path().to_str().unwrap()]);
    let pages: BTreeSet<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<String> = commands
        .iter()
        .map(|command| format!("volio-{command}.1"))
        .chain(std::iter::once("volio.1".to_owned()))
        .collect();
    assert_eq!(pages, expected);
    for shell in ["bash", "zsh", "fish"] {
        let script = volio(&["completions", shell]);
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn the_crate_has_sources_documents_and_examples_and_nothing_else() {
    let output = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let files = String::from_utf8(output.stdout).unwrap();
    let stray: Vec<&str> = files
        .lines()
        .filter(|file| {
            let tops = ["src/", "docs/", "examples/", "fixtures/keys/", "fixtures/sha256/"];
            !tops.iter().any(|top| file.starts_with(top))
        })
        .collect();
    let documents = ["CHANGELOG.md", "Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE", "README.md"];
    assert!(documents.iter().all(|file| stray.contains(file)), "{stray:?}");
    assert!(
        stray.iter().all(|file| documents.contains(file) || *file == ".cargo_vcs_info.json"),
        "{stray:?}"
    );
    for file in ["src/lib.rs", "examples/systemd/volio.socket", "docs/first-steps.md"] {
        assert!(files.lines().any(|listed| listed == file), "{file}");
    }
}
