//! Logins of volio that skopeo uses, and the reverse, with a real registry.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::fixture::Directory;
use super::program::{Finished, finish};
use super::services::{closed_repository, credentials};

/// Runs a program with this home directory and the registry's password on stdin.
fn at_home(home: &Path, program: &str, arguments: &[&str]) -> Finished {
    let password = home.join("password");
    fs::write(&password, credentials().1).expect("write");
    finish(
        Command::new(program)
            .args(arguments)
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home)
            .env_remove("DOCKER_CONFIG")
            .env_remove("REGISTRY_AUTH_FILE")
            .stdin(File::open(&password).expect("open")),
    )
}

const VOLIO: &str = env!("CARGO_BIN_EXE_volio");

fn host() -> String {
    closed_repository("").trim_end_matches('/').to_owned()
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn skopeo_uses_the_login_of_volio_until_the_logout() {
    let (home, source) = (Directory::empty(), Directory::filled());
    let (host, user, layout) = (host(), credentials().0, format!("oci:{}", home.join("layout:1")));
    at_home(home.path(), VOLIO, &["pack", &layout, source.text()]).succeeded();
    at_home(home.path(), VOLIO, &["login", "-u", &user, "--password-stdin", &host]).succeeded();

    let policy = home.path().join("policy.json");
    fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).expect("write");
    let to = format!("docker://{}", closed_repository("skopeo-after-login:1"));
    let policy = policy.to_str().expect("text");
    let copy = ["--policy", policy, "copy", "--all", "--dest-tls-verify=false", &layout, &to];
    at_home(home.path(), "skopeo", &copy).succeeded();
    at_home(home.path(), VOLIO, &["logout", &host]).succeeded();
    at_home(home.path(), "skopeo", &copy).failed_with(1);
    at_home(home.path(), VOLIO, &["logout", &host]).failed_with(4);
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn volio_uses_the_login_of_skopeo() {
    let (home, source) = (Directory::empty(), Directory::filled());
    let (host, user, authfile) = (host(), credentials().0, home.join("auth.json"));
    let image = closed_repository("volio-after-skopeo:1");
    let login = ["login", "--tls-verify=false", "-u", &user, "--password-stdin", &host];
    at_home(home.path(), "skopeo", &[&login[..], &["--authfile", &authfile]].concat()).succeeded();
    at_home(home.path(), VOLIO, &["pack", &image, source.text()]).failed_with(5);
    at_home(home.path(), VOLIO, &["pack", "--authfile", &authfile, &image, source.text()]).succeeded();

    // Without --authfile, skopeo writes the file that volio reads by default.
    at_home(home.path(), "skopeo", &login).succeeded();
    at_home(home.path(), VOLIO, &["pack", &image, source.text()]).succeeded();
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_wrong_password_is_rejected_and_not_stored() {
    let home = Directory::empty();
    at_home(home.path(), VOLIO, &["login", "-u", "nobody", "--password-stdin", &host()]).failed_with(5);
    assert!(!home.path().join(".docker").exists());
}
