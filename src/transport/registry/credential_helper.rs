//! Credential helpers: programs called `docker-credential-NAME` (docker-credential-helpers, "Development").
//!
//! The verb is the argument, the registry is written to stdin, and the result is read from stdout, also if it is an error.

use super::credential_keys::key_of;
use super::credentials::Credentials;
use super::printable::printable;
use crate::error::{Error, Result};
use crate::stream::start;
use crate::transport::{Environment, Secret};
use serde::Deserialize;
use serde_json::json;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The time limit of a helper. It may ask a cloud for a password, or a person to unlock a store.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum size of the output in bytes.
const OUTPUT_LIMIT: u64 = 64 << 10;
/// The output of all helpers for an unknown registry.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Returns the credentials that a helper has for a registry.
pub(super) fn get(name: &str, registry: &str, environment: &Environment) -> Result<Option<Credentials>> {
    let output = run(command(name, environment)?, "get", key_of(registry), TIMEOUT)?;
    output.map(|output| parse(name, &output)).transpose().map(Option::flatten)
}

/// Stores a user name and a password with a helper.
pub(super) fn store(
    name: &str,
    registry: &str,
    (username, password): (&str, &Secret),
    environment: &Environment,
) -> Result<()> {
    let credentials =
        json!({ "ServerURL": key_of(registry), "Username": username, "Secret": password.reveal() });
    run(command(name, environment)?, "store", &credentials.to_string(), TIMEOUT).map(drop)
}

/// Erases the credentials for a registry from a helper.
pub(super) fn erase(name: &str, registry: &str, environment: &Environment) -> Result<()> {
    run(command(name, environment)?, "erase", key_of(registry), TIMEOUT).map(drop)
}

/// Returns the command of a helper, which is looked up in the `PATH` of the environment.
fn command(name: &str, environment: &Environment) -> Result<Command> {
    // A name with a slash would be a path and not be looked up.
    if name.contains(['/', '\0']) {
        return Err(Error::failed(format!("{name:?} is not the name of a credential helper"))
            .with_hint("credsStore and credHelpers hold the last part of a name: docker-credential-NAME"));
    }
    let mut command = Command::new(format!("docker-credential-{name}"));
    command.env_clear().envs(environment.iter());
    Ok(command)
}

fn parse(name: &str, output: &[u8]) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Output {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    // The parser's message could quote the password.
    let output: Output = serde_json::from_slice(output).map_err(|_| {
        Error::failed(format!("cannot understand the credential helper docker-credential-{name}"))
            .with_source("its answer is not the JSON that it should be")
    })?;
    let is_complete = !output.username.is_empty() && !output.secret.is_empty();
    Ok(is_complete.then(|| Credentials::new(output.username, output.secret)))
}

/// Runs a helper and returns its output; `None` if it does not know the registry.
fn run(mut command: Command, verb: &str, input: &str, limit: Duration) -> Result<Option<Vec<u8>>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |why: String| {
        Error::failed(format!("cannot use the credential helper {name}")).with_source(why).with_hint(
            "docker's config.json names it in credsStore or credHelpers; --authfile takes credentials from another file",
        )
    };
    let begun = Instant::now();
    let child = command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed("it is not installed, or not on the PATH".to_owned()),
        _ => failed(error.to_string()),
    })?;
    let output = communicate(&mut child, input, limit);
    let status = output.is_some().then(|| wait(&mut child, limit.saturating_sub(begun.elapsed()))).flatten();
    let (Some(output), Some(status)) = (output, status) else {
        // It may wait for a person or a network that is not there.
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("it has not answered after {} seconds", limit.as_secs())));
    };
    if output.len() as u64 > OUTPUT_LIMIT {
        return Err(failed("its output exceeds 64 KiB".to_owned()));
    }
    if status.success() {
        return Ok(Some(output));
    }
    let message = String::from_utf8_lossy(&output);
    let message = message.trim();
    match message {
        NOT_FOUND => Ok(None),
        // Output that is not one line of text is not shown: a helper that fails halfway may have printed the password.
        "" => Err(failed(status.to_string())),
        _ if message.contains(['{', '\n']) => Err(failed(status.to_string())),
        _ => Err(failed(printable(message))),
    }
}

/// Writes the input and reads the output of a helper; `None` if that takes too long.
fn communicate(child: &mut Child, input: &str, limit: Duration) -> Option<Vec<u8>> {
    let (sender, output) = mpsc::channel();
    let (stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let input = input.to_owned();
    // Two threads: the helper may neither read nor write, and processes that it started may keep the pipes open.
    start(move || {
        let mut stdin = stdin;
        // A helper that ignores its input may end before it is written.
        let _ = stdin.write_all(input.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
    })
    .ok()?;
    start(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(OUTPUT_LIMIT + 1).read_to_end(&mut bytes);
        let _ = sender.send(read.map(|_| bytes).unwrap_or_default());
    })
    .ok()?;
    output.recv_timeout(limit).ok()
}

/// Waits for the end of a process; `None` if that takes too long.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell script for `r.io`. The verb is its `$0`.
    fn output(script: &str) -> Result<Option<Vec<u8>>> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        run(command, "get", "r.io", Duration::from_secs(5))
    }

    fn credentials(script: &str) -> Result<Option<Credentials>> {
        Ok(output(script)?.map(|bytes| parse("test", &bytes)).transpose()?.flatten())
    }

    #[test]
    fn a_helper_is_asked_for_a_registry() {
        let script =
            r#"read url; printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}' "$url" "$0" "$url""#;
        assert_eq!(credentials(script).unwrap(), Some(Credentials::new("get", "r.io")));
        let token = r#"echo '{"Username":"<token>","Secret":"i"}'"#;
        assert!(matches!(credentials(token).unwrap(), Some(Credentials::Identity { .. })));
    }

    #[test]
    fn a_helper_may_have_no_credentials() {
        for script in [
            r#"echo "credentials not found in native keychain"; exit 1"#,
            "echo '{}'",
            r#"echo '{"Username":""}'"#,
        ] {
            assert_eq!(credentials(script).unwrap(), None, "{script}");
        }
    }

    #[test]
    fn a_helper_that_fails_is_named_and_cannot_control_the_terminal() {
        for (script, message) in [
            (r"printf 'the store is \033[31mlocked'; exit 1", r"sh: the store is \u{1b}[31mlocked"),
            ("exit 3", "sh: exit status: 3"),
            (r#"echo '{"Secret":"hunter2"}'; exit 1"#, "sh: exit status: 1"),
            ("echo failed; echo hunter2; exit 1", "sh: exit status: 1"),
            ("yes", "sh: its output exceeds 64 KiB"),
            ("kill -9 $$", "sh: signal: 9 (SIGKILL)"),
        ] {
            let error = output(script).unwrap_err().to_string();
            assert!(error.ends_with(message), "{script}: {error}");
        }
        for script in [r#"echo '{"Username":"me","Secret":"hunter2"'"#, r#"echo '{"Secret":["hunter2"]}'"#] {
            let error = credentials(script).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_helper_that_hangs_is_killed() {
        for script in ["sleep 60", "exec 1>&-; sleep 60", "sleep 60 & echo started"] {
            let mut command = Command::new("sh");
            command.arg("-c").arg(script);
            let begun = Instant::now();
            let error = run(command, "get", "r.io", Duration::from_millis(300)).unwrap_err().to_string();
            assert!(error.contains("has not answered"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    }

    #[test]
    fn a_missing_helper_is_named() {
        let path = Environment::from_iter([("PATH", "/bin")]);
        let error = get("volio-test-is-not-there", "r.io", &path).unwrap_err().to_string();
        assert!(error.contains("docker-credential-volio-test-is-not-there"), "{error}");
        assert!(get("../evil", "r.io", &path).is_err());
    }

    #[test]
    fn a_helper_is_found_on_the_path_that_was_passed_in_and_sees_nothing_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let helper = directory.path().join("docker-credential-volio-test");
        let script = "#!/bin/sh\nprintf '{\"Username\":\"%s\",\"Secret\":\"%s\"}' \"$NAME\" \"${CARGO_MANIFEST_DIR-unset}\"";
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("/bin:{}", directory.path().display());
        let environment = Environment::from_iter([("PATH", path.as_str()), ("NAME", "me")]);
        let found = get("volio-test", "r.io", &environment).unwrap();
        assert_eq!(found, Some(Credentials::new("me", "unset")));
    }
}
