//! `volio login` and `volio logout`. Passwords never appear in their output.

use super::{Workspace, assert_screen};
use crate::registry::{Authority, Login, Refusal, Registry};
use snapbox::str;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// A registry that accepts only `me` with `hunter2`.
fn guarded(login: Login) -> Registry {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.login = login);
    registry
}

const BASIC: Login = Login::Basic { user: "me:hunter2" };
const TOKEN: Login = Login::Token { user: "me:hunter2", anonymous_pull: false, expires_in: 300 };

/// The screen after a command with this text on stdin.
fn screen(place: &Workspace, registry: &Registry, arguments: &str, stdin: &str) -> String {
    let file = place.path().join("stdin");
    fs::write(&file, stdin).unwrap();
    let mut command = place.volio(&arguments.replace("HOST", registry.host()));
    command.stdin(fs::File::open(file).unwrap());
    place.screen_of(command).replace(registry.host(), "HOST")
}

#[test]
fn a_password_is_tried_and_kept_and_used_and_forgotten() {
    for login in [BASIC, TOKEN] {
        let (place, registry) = (Workspace::with_image(), guarded(login));
        assert_screen(
            screen(&place, &registry, "login -u me --password-stdin HOST", "hunter2\n"),
            str![[r#"
-- stderr
warning: the password goes to HOST without encryption, whatever program answers there; --tls-verify encrypts
logged in to HOST; the password is in /place/.docker/config.json
-- exit 0

"#]],
        );
        let file = place.path().join(".docker/config.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let pushed = screen(&place, &registry, "push --quiet oci:layout:v1 HOST/a:v1", "");
        assert!(pushed.ends_with("-- exit 0\n"), "{pushed}");
        assert_screen(
            screen(&place, &registry, "logout HOST", ""),
            str![[r#"
-- stderr
logged out of HOST; /place/.docker/config.json has forgotten it
-- exit 0

"#]],
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\n\t\"auths\": {}\n}");
        assert_screen(
            screen(&place, &registry, "logout HOST", ""),
            str![[r#"
-- stderr
error: not logged in to HOST: /place/.docker/config.json knows no credentials for it
-- exit 4

"#]],
        );
    }
}

#[test]
fn a_wrong_password_is_not_kept() {
    for login in [BASIC, TOKEN] {
        let (place, registry) = (Workspace::new(), guarded(login));
        let screen = screen(&place, &registry, "login -u me --password-stdin HOST", "hunter3\n");
        assert!(screen.contains("are the name and the password right?"), "{screen}");
        assert!(screen.ends_with("-- exit 5\n"), "{screen}");
        assert!(!screen.contains("hunter3") && !screen.contains("aHVudGVy"), "{screen}");
        assert!(!place.path().join(".docker").exists());
    }
}

#[test]
fn a_login_without_a_terminal_needs_a_name_and_a_password() {
    let (place, registry) = (Workspace::new(), guarded(BASIC));
    assert_screen(
        screen(&place, &registry, "login HOST", ""),
        str![[r#"
-- stderr
error: there is no terminal to ask for a password
hint: give the name with --username, and the password with --password-stdin
-- exit 2

"#]],
    );
    for (stdin, arguments, told) in [
        ("\n", "-u me", "standard input holds no password"),
        ("x", "-u a:b", "the name has a colon"),
        ("x", "-u=", "the name is empty"),
        ("x", "", "--password-stdin needs --username"),
    ] {
        let screen = screen(&place, &registry, &format!("login --password-stdin HOST {arguments}"), stdin);
        assert!(screen.contains(told) && screen.ends_with("-- exit 2\n"), "{screen}");
    }
    assert_screen(
        screen(&place, &registry, "login --password-stdin HOST/team", ""),
        str![[r#"
-- stderr
error: <HOST[:PORT]>: "HOST/team" is not the host of a registry
hint: write HOST[:PORT] as in the names of images, without a repository
-- exit 2

"#]],
    );
}

#[test]
fn a_login_that_has_no_effect_is_warned_of() {
    let (place, registry) = (Workspace::new(), guarded(Login::Open));
    let podman = place.path().join(".config/containers");
    fs::create_dir_all(&podman).unwrap();
    let entry = format!(r#"{{"auths": {{"{}": {{"auth": "eDp5"}}}}}}"#, registry.host());
    fs::write(podman.join("auth.json"), entry).unwrap();
    assert_screen(
        screen(&place, &registry, "login -u me --password-stdin HOST", "hunter2"),
        str![[r#"
-- stderr
warning: HOST lets everybody in, so the password was not checked
warning: the password goes to HOST without encryption, whatever program answers there; --tls-verify encrypts
warning: /place/.config/containers/auth.json also knows HOST and is asked first
logged in to HOST; the password is in /place/.docker/config.json
-- exit 0

"#]],
    );
    let named = screen(&place, &registry, "login --authfile new/auth.json -u me --password-stdin HOST", "x");
    assert!(named.contains("the password is in new/auth.json"), "{named}");
    assert!(place.path().join("new/auth.json").exists());
}

/// Writes a credential helper that stores credentials in a file, and puts it on the PATH.
fn helper(place: &Workspace) -> String {
    let script = r#"#!/bin/sh
        case $1 in
        store) cat > "$HOME/kept" ;;
        get) cat "$HOME/kept" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
        erase) rm "$HOME/kept" ;;
        esac"#;
    // Written by another process: a file that a fork of this process has open for writing cannot be executed (ETXTBSY).
    let mut shell = Command::new("sh")
        .args(["-c", "mkdir bin; cat > bin/docker-credential-test; chmod +x bin/docker-credential-test"])
        .current_dir(place.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    format!("{}/bin:/usr/bin:/bin", place.path().display())
}

#[test]
fn a_credential_helper_keeps_the_password() {
    let (place, registry) = (Workspace::with_image(), guarded(TOKEN));
    let path = helper(&place);
    let file = place.path().join(".docker/config.json");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, r#"{"credsStore": "test", "detachKeys": "ctrl-x"}"#).unwrap();
    let run = |arguments: &str| {
        let stdin = place.path().join("stdin");
        fs::write(&stdin, "hunter2").unwrap();
        let mut command = place.volio(&arguments.replace("HOST", registry.host()));
        command.env("PATH", &path).stdin(fs::File::open(stdin).unwrap());
        place.screen_of(command).replace(registry.host(), "HOST")
    };
    assert_screen(
        run("login -u me --password-stdin HOST"),
        str![[r#"
-- stderr
warning: the password goes to HOST without encryption, whatever program answers there; --tls-verify encrypts
logged in to HOST; docker-credential-test keeps the password
-- exit 0

"#]],
    );
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("ctrl-x") && !text.contains("aHVudGVy") && !text.contains("hunter2"), "{text}");
    let pushed = run("push --quiet oci:layout:v1 HOST/a:v1");
    assert!(pushed.ends_with("-- exit 0\n"), "{pushed}");
    assert_screen(
        run("logout HOST"),
        str![[r#"
-- stderr
logged out of HOST; docker-credential-test has forgotten it
-- exit 0

"#]],
    );
    let again = run("logout HOST");
    assert!(again.ends_with("-- exit 4\n"), "{again}");
}

#[test]
fn no_command_shows_a_password() {
    let (place, registry) = (Workspace::with_image(), guarded(TOKEN));
    let text = |password: &str| {
        let auth = format!(r#""username": "me", "password": "{password}""#);
        format!(r#"{{"auths": {{"{}": {{{auth}}}}}}}"#, registry.host())
    };
    for (password, code) in [("hunter2", 0), ("wrong-hunter2", 5)] {
        for arguments in
            ["push oci:layout:v1 HOST/a:v1", "inspect HOST/a:v1", "ls HOST/a:v1", "pull HOST/a:v1 oci:x"]
        {
            let mut command = place.volio(&arguments.replace("HOST", registry.host()));
            // The most verbose logging of the libraries.
            command
                .env("DOCKER_AUTH_CONFIG", text(password))
                .env("RUST_LOG", "trace")
                .env("RUST_BACKTRACE", "full");
            let screen = place.screen_of(command);
            assert!(screen.ends_with(&format!("-- exit {code}\n")), "{arguments}: {screen}");
            assert!(
                !screen.contains("hunter2") && !screen.contains("aHVudGVy") && !screen.contains("token-"),
                "{screen}"
            );
        }
    }
}

#[test]
fn a_login_uses_registries_conf() {
    let (place, registry) = (Workspace::new(), guarded(BASIC));
    let (authority, other) = (Authority::new(), Authority::new());
    let front = authority.front_of(registry.host(), false);
    let run = |arguments: &str, entry: &str| {
        let (conf, stdin) = (place.path().join("registries.conf"), place.path().join("stdin"));
        fs::write(&conf, format!("[[registry]]\nlocation = \"{front}\"\n{entry}\n")).unwrap();
        fs::write(&stdin, "hunter2").unwrap();
        let mut command = place.volio(&format!("login -u me --password-stdin {front} {arguments}"));
        command.env("CONTAINERS_REGISTRIES_CONF", conf).stdin(fs::File::open(stdin).unwrap());
        place.screen_of(command)
    };
    let unknown = format!("--ca-file {}", other.path("ca.crt").display());
    assert!(run(&unknown, "").contains("is not trusted"));
    assert!(run(&unknown, "insecure = true").ends_with("-- exit 0\n"));
    // --tls-verify checks the certificate all the same.
    assert!(run("--tls-verify", "insecure = true").contains("is not trusted"));
    let blocked = run(&unknown, "blocked = true");
    assert!(
        blocked.contains("is blocked by registries.conf") && blocked.ends_with("-- exit 5\n"),
        "{blocked}"
    );
}

#[test]
fn a_broken_file_of_another_program_does_not_prevent_a_login() {
    let (place, registry) = (Workspace::new(), guarded(BASIC));
    let stdin = place.path().join("stdin");
    fs::write(&stdin, "hunter2").unwrap();
    let mut command = place.volio(&format!("login -u me --password-stdin {}", registry.host()));
    command.env("DOCKER_AUTH_CONFIG", "{").stdin(fs::File::open(stdin).unwrap());
    let screen = place.screen_of(command);
    assert!(screen.ends_with("-- exit 0\n"), "{screen}");
    assert!(place.path().join(".docker/config.json").exists());
}

#[test]
fn logins_side_by_side_are_all_kept() {
    let place = Workspace::new();
    let registries: Vec<_> = (0..4).map(|_| guarded(BASIC)).collect();
    let stdin = place.path().join("stdin");
    fs::write(&stdin, "hunter2").unwrap();
    let logins: Vec<_> = registries
        .iter()
        .map(|registry| {
            // All logins are waiting for their registries when the first one is answered.
            let refusal = Refusal { path: "/v2/", status: 503, ..Refusal::default() };
            registry.behave(|behaviour| behaviour.refusals = vec![refusal]);
            let arguments = format!("login --retry-delay 0.5 -u me --password-stdin {}", registry.host());
            let mut command = place.volio(&arguments);
            command.stdin(fs::File::open(&stdin).unwrap()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut login in logins {
        assert!(login.wait().unwrap().success());
    }
    let text = fs::read_to_string(place.path().join(".docker/config.json")).unwrap();
    let missing: Vec<_> = registries.iter().filter(|registry| !text.contains(registry.host())).collect();
    assert!(missing.is_empty(), "{} of 4 are not in {text}", missing.len());
}
