//! The commands of the documents, executed as they are written. Only the names of registries and directories are replaced.
//!
//! `docs/migration.md` is executed by `engines/docker/migration.rs`, and manifests are checked by `kubernetes.rs`.

use crate::registry::Registry;
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
            ["docker ", "cargo ", "examples/", "volio login"].iter().any(|first| line.starts_with(first))
                || line.contains("saved.tar")
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
    fs::write(at("secrets/config.json"), "{}").unwrap();
    if !Path::new(&at("bin/volio")).exists() {
        symlink(env!("CARGO_BIN_EXE_volio"), at("bin/volio")).unwrap();
    }
    let commands = commands(page)
        .replace("registry.inside.example", registry.host())
        .replace("registry.example", registry.host())
        .replace("/usr/share/zoneinfo", &at("usr/share/zoneinfo"))
        .replace("/media/stick", &at("stick"))
        .replace(" /data", &format!(" {}", at("data")));
    assert!(commands.contains("volio "), "{page} has no commands");
    // `volio diff` exits with 7, which is the point of the example.
    let script = format!("set -e\ngit() {{ echo 1700000000; }}\n{commands}")
        .replace("volio diff", "expect_differences volio diff");
    let script = format!("expect_differences() {{ \"$@\" || [ $? = 7 ]; }}\n{script}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory)
        .env_clear()
        .env("PATH", format!("{}:{}", at("bin"), std::env::var("PATH").unwrap()))
        .env("HOME", directory)
        .env("CI_SECRETS", at("secrets"))
        .output()
        .unwrap();
    let shown = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "{page}: {}\n{shown}\n{script}", output.status);
    shown
}

#[test]
fn the_commands_of_the_readme_and_of_the_pages_about_ci_and_air_gaps_work() {
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let session = execute("README.md", &registry, directory.path());
    assert!(session.contains("# version 2025b") && session.contains("2 differ"), "{session}");
    let ci = execute("docs/ci.md", &registry, directory.path());
    assert!(ci.contains("packed 2 entries") && ci.contains("1 excluded"), "{ci}");
    // The page about air gaps also copies a second version.
    let at = |name: &str| directory.path().join(name);
    fs::write(at("usr/share/zoneinfo/new"), "new").unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_volio"))
        .args(["pack", &format!("{}/data:v2", registry.host())])
        .arg(at("usr/share/zoneinfo"))
        .output()
        .unwrap();
    assert!(second.status.success(), "{second:?}");
    fs::remove_dir_all(at("stick")).unwrap();
    execute("docs/air-gap.md", &registry, directory.path());
    assert!(at("data/Europe/Berlin").exists());
}
