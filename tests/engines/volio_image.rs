//! The image of volio that `examples/image/build` builds, for container engines.

use super::program::finish;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Its name in engines.
pub const NAME: &str = "localhost/volio-tests:1";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A static volio: the one that `VOLIO_TEST_STATIC` names, or one that is built in the target directory, which takes minutes
/// the first time.
fn program() -> PathBuf {
    if let Some(ready) = env::var_os("VOLIO_TEST_STATIC") {
        return ready.into();
    }
    let tested = Path::new(env!("CARGO_BIN_EXE_volio"));
    let beside = tested.ancestors().nth(2).expect("a target directory").join("static");
    let build = ["build", "--locked", "--bin", "volio", "--target", TARGET];
    finish(
        Command::new(env!("CARGO"))
            .args(build)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", &beside)
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    )
    .succeeded();
    beside.join(TARGET).join("debug/volio")
}

/// The image as a file for `docker load` and `podman load`. It is built once.
pub fn archive() -> &'static str {
    static MADE: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, archive) = MADE.get_or_init(|| {
        let work = tempfile::tempdir().expect("a temporary directory");
        let archive = work.path().join("volio.tar").display().to_string();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/image/build");
        let image = format!("docker-archive:{archive}:{NAME}");
        finish(Command::new(script).arg("--binary").arg(program()).arg(image)).succeeded();
        (work, archive)
    });
    archive
}
