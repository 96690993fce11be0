//! What a server says, and what its refusals mean to the user.

use super::address::host_of;
use super::http::{Request, broken, broken_off};
use super::pace::Pace;
use super::printable::printable;
use super::retry::{is_passing, retry_after};
use crate::error::{Error, Kind, Result};
use crate::transport::ClientOptions;
use bytes::Bytes;
use reqwest::header::{HeaderName, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How much of the body of a refusal is read, in bytes.
const REFUSAL_LIMIT: usize = 64 << 10;
/// The least that a document has to come with, in bytes a second: one that trickles would be waited for without end.
const LEAST_PACE: u64 = 1024;

/// An answer whose head is here; the body comes when it is asked for.
pub(super) struct Answer {
    response: Response,
    what: String,
    url: Url,
    /// How long the next bytes may take.
    patience: Duration,
    /// How fast the bytes come.
    pub(super) pace: Pace,
    /// Why it was asked without credentials, if that may be why it refuses.
    pub(super) excuse: Option<String>,
}

impl Answer {
    pub(super) fn new(response: Response, request: &Request, options: &ClientOptions) -> Self {
        Self {
            patience: options.stall_timeout,
            pace: Pace::new(options),
            response,
            what: request.what.clone(),
            url: request.url.clone(),
            excuse: None,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The address that gave the answer.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// A header that is text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// All lines that say how to be let in.
    pub(super) fn challenges(&self) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok())
    }

    /// The next bytes; `None` only at the true end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let begun = Instant::now();
        let broken = match timeout(self.patience, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) if self.pace.note(begun.elapsed(), chunk.len() as u64) => {
                return Ok(Some(chunk));
            }
            Ok(Ok(Some(_))) => self.broken_off().with_source(self.pace.complaint()),
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => broken(&self.what, &host_of(&self.url), &error),
            Err(_) => {
                let seconds = self.patience.as_secs_f64();
                self.broken_off().with_source(format!("it has been silent for {seconds} seconds"))
            }
        };
        Err(broken)
    }

    /// The error for a body that ends before it should.
    pub(super) fn broken_off(&self) -> Error {
        broken_off(&self.what, &host_of(&self.url))
    }

    /// The error for a document that comes too slowly.
    fn trickles(&self) -> Error {
        let host = host_of(&self.url);
        Error::failed(format!("cannot {}: {host} sends less than {LEAST_PACE} bytes a second", self.what))
            .with_hint("the registry or the network is overloaded; try again later")
    }

    /// The body, or its first `limit` bytes when it is longer.
    ///
    /// # Errors
    /// When it breaks off, or comes slower than [`LEAST_PACE`] after the first bytes may have taken their time.
    pub(super) async fn read(&mut self, limit: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let begun = Instant::now();
        while let Some(chunk) = self.chunk().await? {
            let room = limit - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            let seconds = begun.elapsed().saturating_sub(self.patience).as_secs();
            if (bytes.len() as u64) < seconds.saturating_mul(LEAST_PACE) {
                return Err(self.trickles());
            }
            if bytes.len() == limit {
                break;
            }
        }
        Ok(bytes)
    }

    /// The answer itself when it is a success, else the error that it is.
    pub(super) async fn success(self) -> Result<Self> {
        if self.status().is_success() { Ok(self) } else { Err(self.refusal().await) }
    }

    /// The error that the answer is.
    pub(super) async fn refusal(mut self) -> Error {
        let (status, host) = (self.status(), host_of(&self.url));
        let wait = is_passing(status).then(|| retry_after(self.response.headers()));
        // The status is what counts; whether its explanation arrives does not.
        let body = timeout(Duration::from_secs(10), self.read(REFUSAL_LIMIT)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let (codes, words) = words(&body);
        let kind = match status {
            _ if codes.iter().any(|code| code == "DIGEST_INVALID") => Kind::Integrity,
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
            _ => Kind::Failed,
        };
        // ACR says 400 to a request without a length, and means this.
        let meant = match codes.iter().any(|code| code == "CONTENT_LENGTH_INVALID") {
            true => StatusCode::LENGTH_REQUIRED,
            false => status,
        };
        let mut why = format!("{host} answers {status}");
        if !words.is_empty() {
            why = format!("{why}: {words}");
        }
        let mut error =
            Error::new(kind, format!("cannot {}", self.what)).with_source(why).with_status(meant.as_u16());
        if let Some(wait) = wait {
            error = error.with_retry_after(wait);
        }
        let hint = match words.contains("HTTP request to an HTTPS server") {
            // Registries in Go say so when plain HTTP was tried because they are on this machine.
            true => Some(format!("use --tls-verify: {host} wants encryption")),
            false => hint(status, &host),
        };
        match self.excuse.or(hint) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

fn hint(status: StatusCode, host: &str) -> Option<String> {
    match status {
        StatusCode::UNAUTHORIZED => Some(format!(
            "log in with volio login {host}, or put credentials that allow this into docker's config.json"
        )),
        StatusCode::FORBIDDEN => {
            Some(format!("the credentials for {host} in docker's config.json must allow this"))
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Some(
            "the proxy wants a name and a password: HTTP_PROXY=http://NAME:PASSWORD@HOST:PORT".to_owned(),
        ),
        StatusCode::PAYLOAD_TOO_LARGE => {
            Some(format!("{host} or a proxy in front of it limits the size of requests"))
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Some(format!("{host} limits how often it is asked; try again later"))
        }
        _ if status.is_redirection() => {
            Some(format!("{host} has moved what can only be sent to the right address at once"))
        }
        _ if status.is_server_error() => Some(format!("{host} is in trouble; try again later")),
        _ => None,
    }
}

/// The codes and the message in the body of a refusal (distribution-spec, "Error Codes"); token servers have
/// words of their own.
fn words(body: &[u8]) -> (Vec<String>, String) {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        // A page for a browser says nothing in its first line.
        let line = String::from_utf8_lossy(body).lines().next().unwrap_or_default().trim().to_owned();
        return (Vec::new(), if line.starts_with('<') { String::new() } else { printable(&line) });
    };
    let errors = json.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut codes: Vec<_> = errors.iter().map(|error| text(error, "code")).collect();
    let mut words: Vec<_> = errors
        .iter()
        .map(|error| match (text(error, "code"), text(error, "message")) {
            (code, message) if code.is_empty() || message.is_empty() => code + &message,
            (code, message) => format!("{code}: {message}"),
        })
        .filter(|words| !words.is_empty())
        .collect();
    codes.dedup();
    words.dedup();
    if words.is_empty() {
        let keys = ["message", "details", "error_description", "error"];
        words.extend(keys.map(|key| text(&json, key)).into_iter().find(|words| !words.is_empty()));
    }
    (codes, printable(&words.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::super::printable::WORDS_LIMIT;
    use super::*;

    fn said(body: &str) -> String {
        words(body.as_bytes()).1
    }

    #[test]
    fn registries_and_token_servers_are_understood() {
        for (body, words) in [
            (r#"{"errors":[{"code":"DENIED","message":"no"}]}"#, "DENIED: no"),
            (r#"{"errors":[{"code":"A","message":"a"},{"code":"B"}]}"#, "A: a; B"),
            (r#"{"errors":[{"message":"a","detail":{"x":1}}]}"#, "a"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"error":"invalid_grant"}"#, "invalid_grant"),
            (
                "Client sent an HTTP request to an HTTPS server.\n",
                "Client sent an HTTP request to an HTTPS server.",
            ),
            ("<html><body>Bad gateway", ""),
            (r#"{"errors":[1,null,{"code":2}]}"#, ""),
            (r#"{"errors":"no"}"#, ""),
            ("[]", ""),
            ("", ""),
        ] {
            assert_eq!(said(body), words, "{body}");
        }
    }

    #[test]
    fn a_server_does_not_write_on_the_terminal() {
        let evil = said(r#"{"errors":[{"message":"\u001b[2J\u0007\u009b1m\u202egnp\nhé"}]}"#);
        assert_eq!(evil, r"\u{1b}[2J\u{7}\u{9b}1m\u{202e}gnp\nhé");
        assert_eq!(said(&"x".repeat(60_000)).chars().count(), WORDS_LIMIT + 1);
    }
}
