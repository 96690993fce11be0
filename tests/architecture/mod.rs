//! The import rule and the invariants of `docs/architecture.md`, checked on the source files.

mod modules;
mod planted;

use modules::{ModulePath, Modules, Reference};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

const VERBS: &[&str] = &[
    "pack", "unpack", "copy", "list", "cat", "diff", "inspect", "tags", "verify", "prune", "sign", "doctor",
];
const BELOW_THE_VERBS: &[&str] =
    &["trust", "transport", "image", "layer", "tree", "stream", "oci", "disk", "progress", "error"];

/// Returns the top-level modules that a module may import, besides itself.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let allowed: &[&str] = match module {
        "error" | "progress" => &[],
        "disk" | "oci" => &["error"],
        "stream" => &["oci", "error", "progress"],
        "tree" => &["disk", "error", "progress"],
        "process" => &["stream"],
        "layer" => &["tree", "stream", "oci", "error"],
        "transport" => &["stream", "oci", "disk", "error", "progress"],
        "trust" => &["transport", "stream", "oci", "disk", "error", "progress"],
        "image" => &["trust", "layer", "transport", "tree", "stream", "oci", "error", "progress"],
        verb if VERBS.contains(&verb) => BELOW_THE_VERBS,
        "data_io" | "plugin" | "service" => return Some([VERBS, BELOW_THE_VERBS, &["process"]].concat()),
        _ => return None,
    };
    Some(allowed.to_vec())
}

fn top(file: &Path) -> String {
    let first = file.iter().next().unwrap_or_default().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the references between top-level modules that the rule forbids.
fn forbidden_imports(modules: &Modules) -> Vec<String> {
    let mut wrong = Vec::new();
    for Reference { from, to, path, .. } in modules.references().union(&modules.reexports()) {
        let (module, imported) = (top(from), top(to));
        if module == "lib" || module == imported {
            continue;
        }
        match allowed(&module) {
            None => wrong.push(format!("{}: the import rule does not know {module}", from.display())),
            Some(allowed) if !allowed.contains(&imported.as_str()) => {
                wrong.push(format!("{}: {module} may not import {imported}: {path}", from.display()));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// Returns the groups of files that refer to each other in a circle. References between a module and the modules below it
/// do not count.
fn circles(modules: &Modules) -> Vec<String> {
    let mut edges: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
    for Reference { from, to, .. } in modules.references() {
        if !is_above(&from, &to) && !is_above(&to, &from) {
            edges.entry(from).or_default().insert(to);
        }
    }
    let reachable = |start: &PathBuf| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = edges.get(start).into_iter().flatten().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file.clone()) {
                next.extend(edges.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reach: BTreeMap<_, _> = edges.keys().map(|file| (file, reachable(file))).collect();
    let mut groups = BTreeSet::new();
    for (file, reached) in &reach {
        let group: Vec<_> = reached
            .iter()
            .filter(|other| reach.get(other).is_some_and(|back| back.contains(*file)))
            .map(|other| other.display().to_string())
            .collect();
        if !group.is_empty() {
            groups.insert(group.join(", "));
        }
    }
    groups.into_iter().collect()
}

/// Returns `true` if a file is the `mod.rs`, or `NAME.rs`, of a module that the other file is in.
fn is_above(file: &Path, other: &Path) -> bool {
    let is_mod = file.file_name().is_some_and(|name| name == "mod.rs");
    let directory = if is_mod { file.parent().unwrap_or(file).to_owned() } else { file.with_extension("") };
    file == Path::new("lib.rs") || other.starts_with(directory)
}

/// Returns the uses of an asynchronous runtime, the environment, the clock or standard output where they are forbidden.
fn forbidden_uses(file: &Path, text: &str) -> Vec<String> {
    const OUTSIDE: &[(&str, &str)] = &[
        ("std::env", "reads the environment"),
        ("env", "reads the environment"),
        ("load_native_certs", "reads the environment"), // SSL_CERT_FILE and SSL_CERT_DIR
        ("rustls_native_certs::load_native_certs", "reads the environment"),
        ("openssl_probe", "reads the environment"),
        ("tempfile::tempfile", "reads the environment"), // TMPDIR
        ("tempfile::tempdir", "reads the environment"),
        ("tempfile::env", "reads the environment"),
        ("std::process::exit", "exits"),
        ("process::exit", "exits"),
        ("SystemTime::now", "reads the clock"),
        ("Timestamp::now", "reads the clock"),
        ("Zoned::now", "reads the clock"),
    ];
    let mut paths = Paths::default();
    paths.visit_file(&syn::parse_file(text).unwrap());
    let mut wrong = Vec::new();
    for path in &paths.found {
        let begins = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let is_async = path == "async" || begins("tokio") || begins("reqwest");
        if is_async && !file.starts_with("transport/registry") {
            wrong.push(format!("{}: {path} belongs into transport/registry", file.display()));
        }
        if begins("std::env::consts") {
            continue; // properties of the target, known at compile time
        }
        if path == "SystemTime::now" && file == Path::new("tree/activity.rs") {
            continue; // the clock decides how carefully a file is read, and is not recorded
        }
        if let Some((_, does)) = OUTSIDE.iter().find(|(prefix, _)| begins(prefix)) {
            wrong.push(format!("{}: the library {does}: {path}", file.display()));
        }
        if ["println", "eprintln", "print", "eprint", "dbg"].contains(&path.as_str()) {
            wrong.push(format!("{}: the library prints: {path}", file.display()));
        }
    }
    wrong
}

/// All paths of a file outside of tests, as text; `async` stands for an asynchronous function or block.
#[derive(Default)]
struct Paths {
    found: BTreeSet<String>,
}

impl Visit<'_> for Paths {
    fn visit_item(&mut self, item: &syn::Item) {
        if !modules::is_for_tests(modules::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.found.insert(names.join("::"));
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.found.extend(modules::names(item).into_iter().map(|path| path.join("::")));
    }

    fn visit_signature(&mut self, signature: &syn::Signature) {
        if signature.asyncness.is_some() {
            self.found.insert("async".to_owned());
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &syn::ExprAsync) {
        self.found.insert("async".to_owned());
        visit::visit_expr_async(self, block);
    }

    fn visit_attribute(&mut self, _: &syn::Attribute) {}
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_module_imports_only_what_the_rule_allows() {
    let wrong = forbidden_imports(&Modules::read(&src()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_refer_to_each_other_in_a_circle() {
    let circles = circles(&Modules::read(&src()));
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_library_leaves_the_environment_the_clock_and_the_terminal_to_the_program() {
    let wrong: Vec<_> = Modules::read(&src())
        .files()
        .flat_map(|file| forbidden_uses(file, &fs::read_to_string(src().join(file)).unwrap()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reqwest_reads_no_proxies_from_the_environment() {
    let manifest = include_str!("../../Cargo.toml");
    let reqwest = manifest.lines().find(|line| line.starts_with("reqwest = ")).unwrap();
    assert!(reqwest.contains("default-features = false") && !reqwest.contains("system-proxy"), "{reqwest}");
}

#[test]
fn the_program_uses_only_what_the_documentation_of_the_library_shows() {
    let library = fs::read_to_string(src().join("lib.rs")).unwrap();
    let hidden: Vec<_> = library
        .split("#[doc(hidden)]\npub mod ")
        .skip(1)
        .filter_map(|rest| Some(format!("volio::{}", rest.split_once(';')?.0)))
        .collect();
    assert!(hidden.contains(&"volio::transport".to_owned()), "{hidden:?}");
    for file in files(&src().join("bin")) {
        let mut paths = Paths::default();
        paths.visit_file(&syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap());
        let is_hidden = |path: &&String| {
            hidden.iter().any(|module| path == &module || path.starts_with(&format!("{module}::")))
        };
        let wrong: Vec<_> = paths.found.iter().filter(is_hidden).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", file.display());
    }
}

#[test]
fn no_file_is_longer_than_520_lines() {
    for directory in ["src", "tests"] {
        for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 520, "{} has {lines} lines", file.display());
        }
    }
}
