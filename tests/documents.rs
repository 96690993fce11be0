//! The commands of the documents, executed as they are written. Only the names of registries and directories are replaced.
//!
//! `docs/migration.md` is executed by `engines/docker/migration.rs`, the part of `docs/incremental.md` about PostgreSQL by
//! `engines/postgresql.rs`, and manifests are checked by `kubernetes.rs`.

use crate::registry::Registry;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Returns the shell commands in a page, in order. Blocks that need an engine, its archive, a toolchain or a terminal are left
/// out, and so are lines with a placeholder.
fn commands(page: &str) -> String {
    let text = fs::read_to_string(page).unwrap();
    let mut commands = String::new();
    for block in text.split("```").skip(1).step_by(2) {
        let Some((language, block)) = block.split_once('\n') else { continue };
        let lines: Vec<&str> = match language {
            "sh" => block.lines().collect(),
            "console" => block.lines().filter_map(|line| line.strip_prefix("$ ")).collect(),
            _ => continue,
        };
        let needs_more = |line: &&str| {
            ["docker ", "cargo install", "examples/image", "pg_ctl ", "volio login"]
                .iter()
                .any(|first| line.starts_with(first))
                || ["saved.tar", "| ssh ", "oci://"].iter().any(|part| line.contains(part))
        };
        if lines.iter().any(needs_more) {
            continue;
        }
        for line in lines.iter().filter(|line| !line.contains('…')) {
            commands += &format!("{line}\n");
        }
    }
    commands
}

/// Functions of the shell that the commands run in. `volio diff` exits with 7, which is the point of the examples.
const STAND_INS: &str = "set -e
expect_differences() { \"$@\" || [ $? = 7 ]; }
git() { echo 1700000000; }
cargo() { mkdir -p target && cat Cargo.lock > target/built; }";

/// Runs the commands of a page in a directory with a small tree, with `registry` in place of registry.example and
/// registry.inside.example. Returns the output.
fn execute(page: &str, registry: &Registry, directory: &Path) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    for path in ["bin", "public/.git", "usr/share/zoneinfo/Europe", "secrets"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    fs::write(at("public/index.html"), "<p>text</p>\n").unwrap();
    fs::write(at("usr/share/zoneinfo/Europe/Berlin"), "TZif2").unwrap();
    fs::write(at("usr/share/zoneinfo/tzdata.zi"), "# version 2025b\n").unwrap();
    // Most of the tree never changes: otherwise it would be packed in full.
    let table: String = (0..2_000_u32).map(|n| format!("{:x}\n", n.wrapping_mul(2_654_435_761))).collect();
    fs::write(at("usr/share/zoneinfo/zone.tab"), table).unwrap();
    fs::write(at("secrets/config.json"), "{}").unwrap();
    fs::write(at("Cargo.lock"), "version = 4\n").unwrap();
    if !Path::new(&at("bin/volio")).exists() {
        symlink(env!("CARGO_BIN_EXE_volio"), at("bin/volio")).unwrap();
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"), at("examples")).unwrap();
    }
    let commands = commands(page)
        .replace("registry.inside.example", registry.host())
        .replace("registry.example", registry.host())
        .replace("/usr/share/zoneinfo", &at("usr/share/zoneinfo"))
        .replace("/media/stick", &at("stick"))
        .replace("/srv/site", &at("site"))
        .replace(" /data", &format!(" {}", at("data")));
    assert!(commands.contains("volio "), "{page} has no commands");
    let script = format!("{STAND_INS}\n{}", commands.replace("volio diff", "expect_differences volio diff"));
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory)
        .env_clear()
        .env("PATH", format!("{}:{}", at("bin"), std::env::var("PATH").unwrap()))
        .env("HOME", directory)
        .env("CI_SECRETS", at("secrets"))
        .env("CI_BRANCH", "main")
        .output()
        .unwrap();
    let shown = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "{page}: {}\n{shown}\n{script}", output.status);
    shown
}

#[test]
fn the_commands_of_the_readme_and_of_the_pages_about_ci_air_gaps_and_unpacking_work() {
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let session = execute("README.md", &registry, directory.path());
    assert!(session.contains("# version 2025b") && session.contains("2 differ"), "{session}");
    let ci = execute("docs/ci.md", &registry, directory.path());
    assert!(ci.contains("packed 2 entries") && ci.contains("1 excluded"), "{ci}");
    // The page about air gaps also copies later versions.
    let at = |name: &str| directory.path().join(name);
    let image = |version: u32| format!("{}/data:v{version}", registry.host());
    for version in 2..=6 {
        fs::write(at("usr/share/zoneinfo/new"), version.to_string()).unwrap();
        let packed = Command::new(env!("CARGO_BIN_EXE_volio"))
            .args(["pack", "--base", &image(version - 1), &image(version)])
            .arg(at("usr/share/zoneinfo"))
            .output()
            .unwrap();
        assert!(packed.status.success(), "{packed:?}");
    }
    fs::remove_dir_all(at("stick")).unwrap();
    execute("docs/air-gap.md", &registry, directory.path());
    assert!(at("data/Europe/Berlin").exists());
    let site = format!("{}/site", registry.host());
    let packed = Command::new(env!("CARGO_BIN_EXE_volio"))
        .args(["pack", &format!("{site}:v2")])
        .arg(at("public"))
        .output()
        .unwrap();
    assert!(packed.status.success(), "{packed:?}");
    let sync = execute("docs/unpack.md", &registry, directory.path());
    assert!(sync.contains("dry run: "), "{sync}");
    assert!(at("site/index.html").exists());
}

#[test]
fn the_commands_of_the_page_about_incremental_images_work() {
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let session = execute("docs/incremental.md", &registry, directory.path());
    assert!(session.contains("does not exist yet: packed in full"), "{session}");
    assert!(session.contains("3 added, 1 changed, 3 removed"), "{session}");
    assert!(session.contains(": no new image"), "{session}");
    // The agent is back at the first step.
    assert_eq!(fs::read_to_string(directory.path().join("workspace/note")).unwrap(), "one\n");
}

/// Returns the names of the tests in a directory.
fn tests_in(directory: &Path) -> HashSet<String> {
    let mut names = HashSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(tests_in(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let functions = text.split("#[test]").skip(1).filter_map(|test| test.split_once("fn "));
            names.extend(functions.map(|(_, rest)| rest.split('(').next().unwrap_or_default().to_owned()));
        }
    }
    names
}

#[test]
fn the_table_of_registries_names_tests_that_exist_and_all_that_simulate_registries() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/compatibility.md")).unwrap();
    let (_, section) = page.split_once("\n## Registries\n").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let named: Vec<HashSet<String>> = rows
        .map(|row| {
            let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        })
        .collect();
    assert!(named.len() > 40 && named.iter().all(|tests| !tests.is_empty()), "a row has no test");
    let named: HashSet<String> = named.into_iter().flatten().collect();
    let existing: HashSet<String> =
        ["tests", "src"].into_iter().flat_map(|part| tests_in(&root.join(part))).collect();
    let missing: Vec<_> = named.difference(&existing).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
    let simulated = tests_in(&root.join("tests/screens/registries"));
    let unnamed: Vec<_> = simulated.difference(&named).collect();
    assert!(unnamed.is_empty(), "the table does not name {unnamed:?}");
}

/// A runner of a CI service: a directory with a lock file and a build, and nothing of earlier jobs.
struct Runner<'a> {
    registry: &'a Registry,
    place: tempfile::TempDir,
}

impl<'a> Runner<'a> {
    fn fresh(registry: &'a Registry, lock_file: &str) -> Self {
        let runner = Self { registry, place: tempfile::tempdir().unwrap() };
        runner.write("Cargo.lock", lock_file);
        fs::create_dir(runner.place.path().join("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_volio"), runner.place.path().join("bin/volio")).unwrap();
        runner
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.place.path().join(name)).ok()
    }

    /// Runs `examples/ci/cache`. Returns its exit code and its output.
    fn cache(&self, action: &str, branch: &str) -> (Option<i32>, String) {
        let repository = format!("{}/cache", self.registry.host());
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ci/cache"))
            .args([action, &repository, "Cargo.lock", branch, "target"])
            .current_dir(self.place.path())
            .env_clear()
            .env("PATH", format!("{}/bin:{}", self.place.path().display(), std::env::var("PATH").unwrap()))
            .env("HOME", self.place.path())
            .output()
            .unwrap();
        let shown = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code(), shown)
    }

    fn succeeds(&self, action: &str, branch: &str) -> String {
        let (code, shown) = self.cache(action, branch);
        assert_eq!(code, Some(0), "{shown}");
        shown
    }
}

#[test]
fn the_ci_cache_falls_back_to_the_branch_and_sends_what_the_build_changed() {
    let registry = Registry::start();
    let large: String = (0..200_000_u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
    let first = Runner::fresh(&registry, "one");
    assert!(first.succeeds("restore", "main").contains("no cache yet"));
    first.write("target/large", &large);
    first.write("target/built", "one");
    first.succeeds("save", "main");
    assert!(first.succeeds("save", "main").contains("is there"), "a cache is saved once");

    // The same lock file, on another branch.
    let second = Runner::fresh(&registry, "one");
    second.succeeds("restore", "other/branch");
    assert_eq!(second.read("target/built").as_deref(), Some("one"));

    // Another lock file: the cache of the branch is completed, and only what is new is sent.
    let third = Runner::fresh(&registry, "two");
    third.succeeds("restore", "main");
    assert_eq!(third.read("target/built").as_deref(), Some("one"));
    third.write("target/built", "two");
    let sent = registry.uploaded();
    third.succeeds("save", "main");
    let sent = registry.uploaded() - sent;
    assert!(sent < 20_000, "{sent} bytes");

    // That runner is used again with the earlier lock file, and a fresh one gets the newest cache of the branch.
    third.write("Cargo.lock", "one");
    third.succeeds("restore", "main");
    assert_eq!(third.read("target/built").as_deref(), Some("one"));
    let fourth = Runner::fresh(&registry, "three");
    fourth.succeeds("restore", "main");
    assert_eq!(fourth.read("target/built").as_deref(), Some("two"));
    assert_eq!(fourth.read("target/large").as_deref(), Some(large.as_str()));
    // A failing registry is not taken for a missing cache.
    registry.behave(|behaviour| behaviour.login = crate::registry::Login::Basic { user: "me:secret" });
    let (code, shown) = fourth.cache("restore", "main");
    assert_eq!(code, Some(5), "{shown}");
}
