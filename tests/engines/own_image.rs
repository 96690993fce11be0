//! The image of volio itself.

use super::program::volio;
use super::services::repository;
use std::process::Command;

/// Packs and pushes the volio that is tested, with the libraries that it needs.
pub fn push_volio(name: &str, options: &[&str]) -> String {
    let image = repository(name);
    let program = env!("CARGO_BIN_EXE_volio");
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let paths = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = paths.split_whitespace().filter(|word| word.starts_with('/'));
    let mut sources: Vec<String> = words.map(|library| format!("{library}:{library}")).collect();
    sources.push(format!("{program}:/volio"));
    let mut pack = vec!["pack", "--quiet", "--user", "0:0", "--entrypoint", "/volio"];
    pack.extend(options);
    pack.push(&image);
    pack.extend(sources.iter().map(String::as_str));
    volio(&pack).succeeded();
    image
}
