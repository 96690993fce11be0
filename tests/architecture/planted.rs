//! Tests of the test: each kind of violation is planted in a small crate and found, at any place in a file.

use super::*;

/// Parses a crate of these files, all below `lib.rs`.
fn library(files: &[(&str, &str)]) -> Modules {
    let parse = |(file, text): &(&str, &str)| {
        let mut path: ModulePath =
            Path::new(file).with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
        path.pop_if(|last| last == "mod");
        (path, PathBuf::from(file), (*text).to_owned())
    };
    let mut sources: Vec<_> = files.iter().map(parse).collect();
    sources.push((Vec::new(), "lib.rs".into(), String::new()));
    Modules::parse(sources)
}

const DIGEST: (&str, &str) = ("oci/digest.rs", "pub struct Digest;");
const OCI: (&str, &str) = ("oci/mod.rs", "mod digest; pub use digest::Digest as Hash;");
const TREE: (&str, &str) = ("tree/mod.rs", "pub mod walk;");

#[test]
fn an_import_that_the_rule_forbids_is_found_however_it_is_written() {
    for walk in [
        "use crate::oci::Hash;",
        "use crate::{oci::{self}, tree::walk};",
        "use crate::oci::digest::*;",
        "use crate::oci as documents; fn f(_: documents::Hash) {}",
        "use super::super::oci::Hash;",
        "fn f() -> crate::oci::Hash { loop {} }",
        "fn f() { use crate::oci::Hash; }",
        "fn f() { vec![crate::oci::Hash]; }",
        "pub use crate::oci::Hash;",
        "mod inner { use super::super::super::oci::Hash; }",
        "#[cfg(test)] mod tests { } use crate::oci::Hash;",
        "impl W { #[cfg(test)] fn g() {} fn f() { crate::oci::Hash; } }",
    ] {
        let wrong = forbidden_imports(&library(&[DIGEST, OCI, TREE, ("tree/walk.rs", walk)]));
        assert!(!wrong.is_empty(), "{walk}");
        assert!(wrong.iter().all(|line| line.contains("tree may not import oci")), "{walk}: {wrong:?}");
    }
}

#[test]
fn an_import_through_an_allowed_module_is_found() {
    // A re-export in a module that `tree` may import does not make the import allowed.
    let lends = ("progress.rs", "pub use crate::oci::Hash as Lent;");
    let borrows = ("tree/walk.rs", "use crate::progress::Lent;");
    let wrong = forbidden_imports(&library(&[DIGEST, OCI, TREE, lends, borrows]));
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}

#[test]
fn allowed_imports_tests_and_comments_are_not_found() {
    for walk in [
        "// crate::oci::Hash\n/// [`crate::oci::Hash`]\nfn f() {}",
        "#[cfg(test)] mod tests { use crate::oci::Hash; } fn f() {}",
        "#[cfg(test)] use crate::oci::Hash; fn f() {}",
        "#[test] fn f() { crate::oci::Hash; }",
        "fn f() { let text = \"crate::oci::Hash\"; }",
    ] {
        let wrong = forbidden_imports(&library(&[DIGEST, OCI, TREE, ("tree/walk.rs", walk)]));
        assert_eq!(wrong, Vec::<String>::new(), "{walk}");
    }
    let writer = ("layer/writer.rs", "use crate::oci::Hash; use crate::tree::walk::Walk;");
    let wrong =
        forbidden_imports(&library(&[DIGEST, OCI, TREE, ("tree/walk.rs", "pub struct Walk;"), writer]));
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_module_without_a_rule_is_found() {
    let wrong = forbidden_imports(&library(&[DIGEST, OCI, ("util/mod.rs", "use crate::oci::Hash;")]));
    assert_eq!(wrong, ["util/mod.rs: the import rule does not know util"]);
}

#[test]
fn a_verb_that_imports_another_is_found() {
    let unpack = ("unpack/mod.rs", "pub fn unpack() {}");
    let wrong =
        forbidden_imports(&library(&[unpack, ("pack/mod.rs", "fn f() { crate::unpack::unpack(); }")]));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
}

#[test]
fn a_circle_of_files_is_found_also_through_a_reexport() {
    let circle = |layer: &str| {
        let frames = ("layer/frames.rs", "use super::writer::FRAME; pub struct Frames;");
        let writer = ("layer/writer.rs", "use super::Frames; pub const FRAME: u64 = 1;");
        circles(&library(&[("layer/mod.rs", layer), frames, writer]))
    };
    let expected = ["layer/frames.rs, layer/writer.rs"];
    assert_eq!(circle("mod frames; mod writer; pub use frames::Frames;"), expected);
    assert_eq!(circle("mod frames; mod writer; use frames::*;"), expected);
}

#[test]
fn a_module_and_its_children_are_no_circle() {
    let module = ("cat/mod.rs", "mod chunks; pub struct Options; fn f() { chunks::read(); }");
    let child = ("cat/chunks.rs", "use super::Options; pub fn read() {}");
    assert_eq!(circles(&library(&[module, child])), Vec::<String>::new());
}

#[test]
fn uses_of_a_runtime_the_environment_the_clock_or_the_terminal_are_found() {
    for text in [
        "use tokio::io::AsyncRead;",
        "async fn f() {}",
        "fn f() { let g = async { 1 }; }",
        "fn f() { std::env::var(\"HOME\"); }",
        "use std::env; fn f() {}",
        "fn f() { rustls_native_certs::load_native_certs(); }",
        "use rustls_native_certs::load_native_certs;",
        "fn f() { tempfile::tempfile(); }",
        "fn f() { std::process::exit(1) }",
        "fn f() { SystemTime::now(); }",
        "fn f() { println!(\"done\"); }",
        "#[cfg(test)] mod tests {} fn f() { eprintln!(\"done\"); }",
    ] {
        assert_eq!(forbidden_uses(Path::new("copy.rs"), text).len(), 1, "{text}");
    }
    for text in
        ["#[cfg(test)] mod tests { use std::env; }", "use std::process::Command;", "fn environment() {}"]
    {
        assert_eq!(forbidden_uses(Path::new("copy.rs"), text), Vec::<String>::new(), "{text}");
    }
    let runtime = "use tokio::runtime::Runtime; async fn f() {}";
    assert_eq!(forbidden_uses(Path::new("transport/registry/http.rs"), runtime), Vec::<String>::new());
}
