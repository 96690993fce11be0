//! The import rule and the invariants of `docs/architecture.md`, read from the sources themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const VERBS: &[&str] = &["pack", "unpack", "copy", "list", "cat", "diff", "inspect", "verify"];
const CONTENT_AND_PLACE: &[&str] =
    &["partial", "transport", "image", "layer", "tree", "stream", "oci", "progress", "error"];

/// What each room of the library may import, besides itself.
fn allowed(room: &str) -> Option<&'static [&'static str]> {
    Some(match room {
        "error" | "progress" => &[],
        "oci" => &["error"],
        "stream" => &["oci", "error"],
        "tree" => &["error"],
        "layer" => &["tree", "stream", "oci", "error"],
        "image" => &["layer", "oci", "error"],
        "transport" => &["stream", "oci", "error"],
        "partial" => &["transport", "image", "layer", "tree", "stream", "oci", "progress", "error"],
        verb if VERBS.contains(&verb) => CONTENT_AND_PLACE,
        "plugin" => &[
            "pack",
            "unpack",
            "copy",
            "list",
            "cat",
            "inspect",
            "transport",
            "tree",
            "oci",
            "progress",
            "error",
        ],
        _ => return None,
    })
}

/// The rooms that a source file refers to: every `crate::ROOM`, and the names in a `use crate::{…}`.
fn imports(source: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let mut found = BTreeSet::new();
    for (start, _) in source.match_indices("crate::") {
        if source[..start].ends_with(is_word) {
            continue;
        }
        match source[start + "crate::".len()..].strip_prefix('{') {
            None => _ = found.insert(word(&source[start + "crate::".len()..])),
            Some(list) => {
                let mut depth = 0;
                let mut begins = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' => begins = true,
                        c if depth == 0 && begins && is_word(c) => {
                            found.insert(word(&list[at..]));
                            begins = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// The lines of code: no comments, and nothing from the tests at the end of the file.
fn code(source: &str) -> String {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n")
}

/// What is wrong with one file of the library.
fn violations(path: &Path, source: &str) -> Vec<String> {
    let first = path.iter().next().unwrap().to_str().unwrap();
    let room = first.trim_end_matches(".rs");
    let code = code(source);
    let mut wrong = Vec::new();
    match allowed(room) {
        None => wrong.push(format!("{}: there is no room called {room}", path.display())),
        Some(allowed) => {
            for import in imports(&code) {
                // `crate::Result` and the like are no rooms.
                let is_room = import.starts_with(|c: char| c.is_lowercase());
                if is_room && import != room && !allowed.contains(&import.as_str()) {
                    wrong.push(format!("{}: {room} may not import {import}", path.display()));
                }
            }
        }
    }
    let is_async = path.starts_with("transport/registry") || path.starts_with("plugin");
    for (word, fine) in [("tokio::", is_async), ("reqwest::", is_async), ("async fn", is_async)] {
        if code.contains(word) && !fine {
            wrong.push(format!("{}: {word} belongs into transport/registry", path.display()));
        }
    }
    for word in ["println!", "eprintln!", "print!(", "process::exit", "env::var", "SystemTime::now"] {
        if code.contains(word) {
            wrong.push(format!(
                "{}: the library neither prints, exits, reads the environment nor the clock: {word}",
                path.display()
            ));
        }
    }
    wrong
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(sources(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn every_room_imports_only_what_the_rule_allows() {
    let mut wrong = Vec::new();
    for file in sources(&src()) {
        let path = file.strip_prefix(src()).unwrap();
        let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs");
        if path != Path::new("lib.rs") && !path.starts_with("bin") && !is_test {
            wrong.extend(violations(path, &fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_program_uses_the_public_api_only() {
    for file in sources(&src().join("bin")) {
        let source = fs::read_to_string(&file).unwrap();
        assert!(!source.contains("#[path"), "{} reaches into the library", file.display());
    }
}

#[test]
fn a_wrong_import_is_caught() {
    for (path, source) in [
        ("tree/walk.rs", "use crate::oci::Digest;"),
        ("transport/layout.rs", "use crate::{error::Error, tree::{Entry, Kind}};"),
        ("layer/writer.rs", "fn f() -> crate::transport::Location { todo() }"),
        ("pack.rs", "use crate::unpack;"),
        ("error.rs", "use crate::oci::Digest;"),
        ("oci/digest.rs", "use tokio::io::AsyncRead;"),
        ("copy.rs", "fn f() { println!(\"done\"); }"),
        ("util/mod.rs", ""),
    ] {
        assert_eq!(violations(Path::new(path), source).len(), 1, "{path}: {source}");
    }
    for (path, source) in [
        ("layer/writer.rs", "use crate::{error::{Error, Result}, tree::Entry};"),
        ("transport/registry/http.rs", "use tokio::runtime::Runtime;"),
        (
            "tree/walk.rs",
            "// unlike crate::oci, this knows no digests\n#[cfg(test)] mod tests { use crate::oci::Digest; }",
        ),
    ] {
        assert_eq!(violations(Path::new(path), source), Vec::<String>::new());
    }
}

#[test]
fn no_file_is_so_long_that_it_is_two_rooms() {
    for directory in ["src", "tests"] {
        for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 520, "{} has {lines} lines", file.display());
        }
    }
}
