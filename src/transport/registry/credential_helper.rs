//! Programs that keep credentials, `docker-credential-NAME` (docker-credential-helpers, "Development"): a verb as the
//! argument, the registry on stdin, the response on stdout, also when it is an error.

use super::credential_keys::key_of;
use super::credentials::Credentials;
use super::printable::printable;
use crate::error::{Error, Result};
use crate::stream::start;
use crate::transport::Secret;
use serde::Deserialize;
use serde_json::json;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take: it may ask a cloud for a password, or a person to unlock a store.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest response that is read, in bytes.
const LIMIT: u64 = 64 << 10;
/// What all programs say when they know nothing about a registry.
const UNKNOWN: &str = "credentials not found in native keychain";

/// The credentials that a program keeps for a registry; `None` when it keeps none.
pub(super) fn get(name: &str, registry: &str) -> Result<Option<Credentials>> {
    let response = run(program(name)?, "get", key_of(registry), PATIENCE)?;
    response.map(|response| understand(name, &response)).transpose().map(Option::flatten)
}

/// Gives a program credentials to keep.
pub(super) fn store(name: &str, registry: &str, username: &str, password: &Secret) -> Result<()> {
    let credentials =
        json!({ "ServerURL": key_of(registry), "Username": username, "Secret": password.reveal() });
    run(program(name)?, "store", &credentials.to_string(), PATIENCE).map(drop)
}

/// Lets a program forget the credentials for a registry.
pub(super) fn erase(name: &str, registry: &str) -> Result<()> {
    run(program(name)?, "erase", key_of(registry), PATIENCE).map(drop)
}

fn program(name: &str) -> Result<Command> {
    // A name with a slash would not be looked for on the PATH, but beside whatever lies here.
    match name.contains(['/', '\0']) {
        true => Err(Error::failed(format!("{name:?} is not the name of a credential helper"))
            .with_hint("credsStore and credHelpers hold the last part of a name: docker-credential-NAME")),
        false => Ok(Command::new(format!("docker-credential-{name}"))),
    }
}

fn understand(name: &str, response: &[u8]) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Found {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    // Nothing of the response is told: it holds the password, or a part of it.
    let found: Found = serde_json::from_slice(response).map_err(|_| {
        Error::failed(format!("cannot understand the credential helper docker-credential-{name}"))
            .with_source("its response is not the JSON that it should be")
    })?;
    let known = !found.username.is_empty() && !found.secret.is_empty();
    Ok(known.then(|| Credentials::new(found.username, found.secret)))
}

/// Runs a program to its end; `None` when it says that it does not know the registry.
fn run(mut command: Command, verb: &str, input: &str, patience: Duration) -> Result<Option<Vec<u8>>> {
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
    let response = converse(&mut child, input, patience);
    let status =
        response.is_some().then(|| end(&mut child, patience.saturating_sub(begun.elapsed()))).flatten();
    let (Some(response), Some(status)) = (response, status) else {
        // Whoever asks a person that is not there, or a network that is gone, would wait for ever.
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("it has not answered after {} seconds", patience.as_secs())));
    };
    if response.len() as u64 > LIMIT {
        return Err(failed("it does not stop talking".to_owned()));
    }
    if status.success() {
        return Ok(Some(response));
    }
    let words = String::from_utf8_lossy(&response);
    let words = words.trim();
    match words {
        UNKNOWN => Ok(None),
        // Nobody knows what else a program prints that fails halfway.
        "" => Err(failed(status.to_string())),
        _ if words.contains(['{', '\n']) => Err(failed(status.to_string())),
        _ => Err(failed(printable(words))),
    }
}

/// Says what there is to say and listens; `None` when the response takes too long.
fn converse(child: &mut Child, input: &str, patience: Duration) -> Option<Vec<u8>> {
    let (heard, response) = mpsc::channel();
    let (stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let input = input.to_owned();
    // Threads of their own: the program may neither read nor write, and what it started may keep the pipes open.
    start(move || {
        let mut stdin = stdin;
        // A program that does not care what is asked may end before it is.
        let _ = stdin.write_all(input.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
    })
    .ok()?;
    start(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(LIMIT + 1).read_to_end(&mut bytes);
        let _ = heard.send(read.map(|_| bytes).unwrap_or_default());
    })
    .ok()?;
    response.recv_timeout(patience).ok()
}

/// Waits for the end of a program; `None` when that takes too long.
fn end(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
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

    /// What a shell script answers for `r.io`; the verb is its `$0`.
    fn response(script: &str) -> Result<Option<Vec<u8>>> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        run(command, "get", "r.io", Duration::from_secs(5))
    }

    fn credentials(script: &str) -> Result<Option<Credentials>> {
        Ok(response(script)?.map(|bytes| understand("test", &bytes)).transpose()?.flatten())
    }

    #[test]
    fn a_program_is_asked_for_a_registry() {
        let script =
            r#"read url; printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}' "$url" "$0" "$url""#;
        assert_eq!(credentials(script).unwrap(), Some(Credentials::new("get", "r.io")));
        let token = r#"echo '{"Username":"<token>","Secret":"i"}'"#;
        assert!(matches!(credentials(token).unwrap(), Some(Credentials::Identity { .. })));
    }

    #[test]
    fn a_program_may_know_nothing() {
        for script in [
            r#"echo "credentials not found in native keychain"; exit 1"#,
            "echo '{}'",
            r#"echo '{"Username":""}'"#,
        ] {
            assert_eq!(credentials(script).unwrap(), None, "{script}");
        }
    }

    #[test]
    fn a_program_that_fails_is_named_and_does_not_write_on_the_terminal() {
        for (script, told) in [
            (r"printf 'the store is \033[31mlocked'; exit 1", r"sh: the store is \u{1b}[31mlocked"),
            ("exit 3", "sh: exit status: 3"),
            (r#"echo '{"Secret":"hunter2"}'; exit 1"#, "sh: exit status: 1"),
            ("echo failed; echo hunter2; exit 1", "sh: exit status: 1"),
            ("yes", "sh: it does not stop talking"),
            ("kill -9 $$", "sh: signal: 9 (SIGKILL)"),
        ] {
            let error = response(script).unwrap_err().to_string();
            assert!(error.ends_with(told), "{script}: {error}");
        }
        for script in [r#"echo '{"Username":"me","Secret":"hunter2"'"#, r#"echo '{"Secret":["hunter2"]}'"#] {
            let error = credentials(script).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
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
    fn a_program_that_is_missing_is_named() {
        let error = get("volio-test-is-not-there", "r.io").unwrap_err().to_string();
        assert!(error.contains("docker-credential-volio-test-is-not-there"), "{error}");
        assert!(get("../evil", "r.io").is_err());
    }
}
