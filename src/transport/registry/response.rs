//! HTTP responses, and the errors that registries report in them.

use super::connection_error;
use super::printable::printable;
use super::rate::RateMonitor;
use super::retry::{is_transient, retry_after};
use super::url::host_of;
use crate::error::{Error, Kind, Result};
use crate::transport::ClientOptions;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The number of bytes that are read of the body of an error response.
const ERROR_BODY_LIMIT: usize = 64 << 10;
/// The time limit for the body of an error response.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The lowest rate of a document, in bytes a second. It bounds the time of a body that trickles.
const DOCUMENT_MIN_RATE: u64 = 1024;

/// An HTTP response, after its status and headers have arrived. The body is read on demand.
pub(super) struct Response {
    response: reqwest::Response,
    /// The purpose of the request, for errors: "cannot {what}".
    what: String,
    url: Url,
    /// The time limit for the next bytes.
    stall_timeout: Duration,
    /// The rate of the body.
    pub(super) rate: RateMonitor,
    /// The reason for a missing `Authorization` header; the hint of an error response.
    pub(super) anonymous_because: Option<String>,
}

impl Response {
    pub(super) fn new(response: reqwest::Response, what: String, url: Url, options: &ClientOptions) -> Self {
        let (stall_timeout, rate) = (options.stall_timeout, RateMonitor::new(options));
        Self { response, what, url, stall_timeout, rate, anonymous_because: None }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns the URL that sent the response, after redirects.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns a header that is text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        is_transient(self.status()) || self.is_rate_limit()
    }

    /// Returns whether the client has sent too many requests. Some services answer 403 then, and say how long to wait.
    fn is_rate_limit(&self) -> bool {
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::FORBIDDEN => self.headers().contains_key(RETRY_AFTER),
            _ => false,
        }
    }

    /// Returns all headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns all `WWW-Authenticate` headers.
    pub(super) fn challenges(&self) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok())
    }

    /// Returns the next bytes of the body; `None` only after a complete body.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let begun = Instant::now();
        let error = match timeout(self.stall_timeout, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) if self.rate.add(begun.elapsed(), chunk.len() as u64) => {
                return Ok(Some(chunk));
            }
            Ok(Ok(Some(_))) => self.truncated().with_source(self.rate.complaint()),
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => {
                let cause = connection_error::cause(&error, &host_of(&self.url));
                self.truncated().with_source(cause)
            }
            Err(_) => {
                let seconds = self.stall_timeout.as_secs_f64();
                self.truncated().with_source(format!("it has been silent for {seconds} seconds"))
            }
        };
        Err(error)
    }

    /// Returns the error for a body that ends too early. It may be retried.
    pub(super) fn truncated(&self) -> Error {
        let host = host_of(&self.url);
        Error::failed(format!("cannot {}: {host} stopped in the middle", self.what))
            .with_retry_after(Duration::ZERO)
    }

    /// Reads the body, or the first `limit` bytes of a longer one.
    ///
    /// # Errors
    /// When the body ends too early, or is slower than [`DOCUMENT_MIN_RATE`], not counting the first stall timeout.
    pub(super) async fn read(&mut self, limit: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let begun = Instant::now();
        while let Some(chunk) = self.chunk().await? {
            let room = limit - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            let seconds = begun.elapsed().saturating_sub(self.stall_timeout).as_secs();
            if (bytes.len() as u64) < seconds.saturating_mul(DOCUMENT_MIN_RATE) {
                return Err(Error::failed(format!(
                    "cannot {}: {} sends less than {DOCUMENT_MIN_RATE} bytes a second",
                    self.what,
                    host_of(&self.url)
                ))
                .with_hint("the registry or the network is overloaded; try again later"));
            }
            if bytes.len() == limit {
                break;
            }
        }
        Ok(bytes)
    }

    /// Returns the response if its status is a success, otherwise its error.
    pub(super) async fn success(self) -> Result<Self> {
        if self.status().is_success() { Ok(self) } else { Err(self.refusal().await) }
    }

    /// Reads the body and converts the response into an error.
    pub(super) async fn refusal(mut self) -> Error {
        let (status, host, is_rate_limit) = (self.status(), host_of(&self.url), self.is_rate_limit());
        let wait = self.is_transient().then(|| retry_after(self.response.headers()));
        // The status decides. The body only explains it, and may be missing.
        let body = timeout(ERROR_BODY_TIMEOUT, self.read(ERROR_BODY_LIMIT)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let (codes, message) = parse_error_body(&body);
        let has_code = |wanted| codes.iter().any(|code| code == wanted);
        let kind = match status {
            _ if has_code("DIGEST_INVALID") => Kind::Integrity,
            _ if status.is_client_error() && names_immutability(&message) => Kind::Refused,
            _ if is_rate_limit => Kind::Failed,
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
            _ => Kind::Failed,
        };
        // ACR answers 400 to a request without a length.
        let effective = if has_code("CONTENT_LENGTH_INVALID") { StatusCode::LENGTH_REQUIRED } else { status };
        let mut why = format!("{host} answers {status}");
        if !message.is_empty() {
            why = format!("{why}: {message}");
        }
        let mut error = Error::new(kind, format!("cannot {}", self.what))
            .with_source(why)
            .with_status(effective.as_u16());
        if let Some(wait) = wait {
            error = error.with_retry_after(wait);
        }
        // The message of Go's HTTPS servers; volio uses plain HTTP on loopback addresses.
        let hint = if message.contains("HTTP request to an HTTPS server") {
            Some(format!("use --tls-verify: {host} wants encryption"))
        } else if kind == Kind::Refused {
            Some(format!(
                "the tag exists already, and {host} does not let it be changed or removed: use another tag, or change the rule \
                 of the repository"
            ))
        } else {
            let is_quota = status == StatusCode::FORBIDDEN && names_quota(&message);
            match status {
                _ if is_rate_limit => hint(StatusCode::TOO_MANY_REQUESTS, &host),
                _ if is_quota => Some(format!(
                    "a quota in {host} is used up: remove images there, as volio prune does, or have it raised"
                )),
                _ => hint(status, &host),
            }
        };
        match self.anonymous_because.or(hint) {
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
        StatusCode::PAYLOAD_TOO_LARGE => Some(format!(
            "{host} or a proxy in front of it limits the size of requests, or of layers: pack --layer-size makes smaller ones"
        )),
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

/// Returns whether a registry rejects the change of a tag because it is immutable. There is no code for that: Amazon ECR
/// answers 400 with `TAG_INVALID`, Harbor 412 with `PRECONDITION`, and others 403 or 409. So the words decide.
fn names_immutability(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["immutable", "immutability", "cannot be overwritten"].iter().any(|words| message.contains(words))
}

/// Returns whether a registry rejects a request because no space is left for it. Harbor says `DENIED`, and that the request
/// "will exceed the configured upper limit".
fn names_quota(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("quota") || message.contains("storage") && message.contains("exceed")
}

/// Returns the codes and the message of an error response (distribution-spec, "Error Codes"). Token servers have formats
/// of their own.
fn parse_error_body(body: &[u8]) -> (Vec<String>, String) {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        // The first line of an HTML page says nothing.
        let line = String::from_utf8_lossy(body).lines().next().unwrap_or_default().trim().to_owned();
        return (Vec::new(), if line.starts_with('<') { String::new() } else { printable(&line) });
    };
    let errors = json.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut codes: Vec<_> = errors.iter().map(|error| text(error, "code")).collect();
    let mut messages: Vec<_> = errors
        .iter()
        .map(|error| match (text(error, "code"), text(error, "message")) {
            (code, message) if code.is_empty() || message.is_empty() => code + &message,
            (code, message) => format!("{code}: {message}"),
        })
        .filter(|message| !message.is_empty())
        .collect();
    codes.dedup();
    messages.dedup();
    if messages.is_empty() {
        let keys = ["message", "details", "error_description", "error"];
        messages.extend(keys.map(|key| text(&json, key)).into_iter().find(|message| !message.is_empty()));
    }
    (codes, printable(&messages.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::super::printable::PRINTABLE_LIMIT;
    use super::*;

    fn message(body: &str) -> String {
        parse_error_body(body.as_bytes()).1
    }

    #[test]
    fn the_error_formats_of_registries_and_token_servers_are_understood() {
        for (body, expected) in [
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
            assert_eq!(message(body), expected, "{body}");
        }
    }

    #[test]
    fn a_message_of_a_server_cannot_control_the_terminal() {
        let evil = message(r#"{"errors":[{"message":"\u001b[2J\u0007\u009b1m\u202egnp\nhé"}]}"#);
        assert_eq!(evil, r"\u{1b}[2J\u{7}\u{9b}1m\u{202e}gnp\nhé");
        assert_eq!(message(&"x".repeat(60_000)).chars().count(), PRINTABLE_LIMIT + 1);
    }
}
