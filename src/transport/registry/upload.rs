//! Blobs going in (distribution-spec, "Pushing blobs").
//!
//! A blob whose digest is known goes in one PUT. One that is still being made goes in one PATCH without
//! `Content-Range`, as docker and podman do it, and a PUT says afterwards what it was. Either way its last bytes
//! are held back until the body has said that they are right: a registry never holds the whole of a lie.

use super::address::{follow, with_parameter};
use super::answer::Answer;
use super::http::{Request, cannot, runtime, wait};
use super::outgoing::{Feed, outgoing};
use super::server::Server;
use super::token::Scopes;
use crate::error::{Error, Kind, Result};
use crate::oci::Digest;
use crate::stream::{Body, Written};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode, Url};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The size of the chunks that a body is read in, in bytes.
const CHUNK: usize = 256 << 10;
/// How long the registry may take to forget an upload that failed; it would do so by itself after a week.
const FAREWELL: Duration = Duration::from_secs(10);

/// Sends a blob into a repository.
pub(super) fn upload(server: &Arc<Server>, repository: &str, body: Body, name: &str) -> Result<Written> {
    let what = match body.expected() {
        Some(expected) => format!("upload {} to {name}", expected.digest),
        None => format!("upload a blob to {name}"),
    };
    let mut session = wait(Session::begin(server, repository, what))?;
    session.fill(body).inspect_err(|_| session.cancel())
}

/// Asks the registry to take a blob over from another of its repositories.
pub(super) fn mount(server: &Server, repository: &str, digest: &Digest, from: &str) -> Result<bool> {
    wait(async {
        let url = with_parameter(start(server, repository), "mount", &digest.to_string());
        let request = Request::new(
            Method::POST,
            with_parameter(url, "from", from),
            format!("take {digest} over from {from}"),
        );
        let scopes = Scopes::push(repository).and(Scopes::pull(from));
        let answer = match server.send(request, &scopes).await {
            // No token is given for the other repository: the blob is sent then.
            Err(error) if error.kind() == Kind::Denied => return Ok(false),
            answer => answer?,
        };
        // Many registries open an upload instead of saying no. It is not continued: who sends the blob then
        // has yet to find out where it is.
        if answer.status() == StatusCode::ACCEPTED
            && let Ok(url) = next(&answer, answer.url())
        {
            forget(server, &scopes, url).await;
        }
        Ok(answer.status() == StatusCode::CREATED)
    })
}

/// An upload in progress.
struct Session<'a> {
    server: &'a Arc<Server>,
    scopes: Scopes,
    what: String,
    /// Where the registry wants the next request; it holds the state of the upload.
    url: Url,
}

impl<'a> Session<'a> {
    async fn begin(server: &'a Arc<Server>, repository: &str, what: String) -> Result<Self> {
        let scopes = Scopes::push(repository);
        let request = Request::new(Method::POST, start(server, repository), &what);
        let answer = server.send(request.clone(), &scopes).await?.success().await?;
        let url = next(&answer, answer.url())
            .map_err(|error| cannot(&request, error.to_string()).hint(error.advice().unwrap_or_default()))?;
        Ok(Self { server, scopes, what, url })
    }

    fn fill(&mut self, mut body: Body) -> Result<Written> {
        match body.expected().cloned() {
            Some(expected) => {
                let url = with_parameter(self.url.clone(), "digest", &expected.digest.to_string());
                self.stream(Method::PUT, url, Some(expected.size), &mut body)?;
                body.finish()
            }
            None => {
                let url = self.url.clone();
                self.stream(Method::PATCH, url, None, &mut body)?;
                let written = body.finish()?;
                self.close(&written)?;
                Ok(written)
            }
        }
    }

    /// Sends the body, while this thread reads it.
    fn stream(&mut self, method: Method, url: Url, size: Option<u64>, body: &mut Body) -> Result<()> {
        // Before the request begins: an empty body that should be something else must not be sent.
        let first = read(body)?;
        let (feed, outgoing) = outgoing(size);
        let request = Request::new(method, url, &self.what).header(CONTENT_TYPE, "application/octet-stream");
        let (server, scopes) = (Arc::clone(self.server), self.scopes.clone());
        let answer = runtime()?
            .spawn(async move { server.send_stream(request, &scopes, outgoing).await?.success().await });
        let pumped = pump(first, body, &feed);
        match (&pumped, size) {
            // The connection is cut: the registry knows how much it was promised.
            (Err(_), Some(_)) => drop(feed),
            // What has no size may end anywhere, because it is a blob only when somebody says its digest; and
            // distribution forgets an upload only if its last request ended well.
            (Ok(()), _) | (Err(_), None) => feed.finish(),
        }
        let patience = if pumped.is_ok() { Duration::MAX } else { FAREWELL };
        let answer = runtime()?.block_on(async { timeout(patience, answer).await });
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            _ => Err(Error::failed(format!("cannot {}: the upload was abandoned", self.what))),
        };
        // Most registries put state into the address, and want to see the newest.
        let followed = answer.and_then(|answer| match answer.header(&LOCATION) {
            Some(_) if size.is_none() => next(&answer, answer.url()).map(|url| self.url = url),
            _ => Ok(()),
        });
        // Whatever the registry says about a body that failed, the failure of the body came first.
        pumped.and(followed)
    }

    /// Says what was sent.
    fn close(&self, written: &Written) -> Result<()> {
        let url = with_parameter(self.url.clone(), "digest", &written.digest.to_string());
        let request = Request::new(Method::PUT, url, &self.what);
        wait(async { self.server.send(request, &self.scopes).await?.success().await })?;
        Ok(())
    }

    /// Lets the registry throw away what it has.
    fn cancel(&self) {
        let forget = async {
            forget(self.server, &self.scopes, self.url.clone()).await;
            Ok(())
        };
        // The error that led here is the one to report.
        let _ = wait(forget);
    }
}

/// Where uploads begin.
fn start(server: &Server, repository: &str) -> Url {
    server.url(&format!("{repository}/blobs/uploads/"))
}

/// Where the registry wants the next request of an upload.
fn next(answer: &Answer, asked: &Url) -> Result<Url> {
    let location = answer
        .header(&LOCATION)
        .ok_or_else(|| Error::failed("the registry does not say where the upload goes on"))?;
    follow(asked, location)
}

/// Ends an upload, as far as the registry lets us: not every one does.
async fn forget(server: &Server, scopes: &Scopes, url: Url) {
    let request = Request::new(Method::DELETE, url, "end an upload");
    let _ = timeout(FAREWELL, server.send(request, scopes)).await;
}

/// Feeds a request from a body until the body ends or nobody wants more of it. A chunk leaves when the one behind
/// it is here: the last one not before the body has proved itself.
fn pump(mut ahead: Option<Bytes>, body: &mut Body, feed: &Feed) -> Result<()> {
    while let Some(chunk) = ahead {
        ahead = read(body)?;
        if !feed.send(chunk) {
            break;
        }
    }
    Ok(())
}

/// The next chunk of a body, as full as can be; `None` at its end.
fn read(body: &mut Body) -> Result<Option<Bytes>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    body.by_ref()
        .take(CHUNK as u64)
        .read_to_end(&mut chunk)
        .map_err(|error| Error::io("cannot read the data to upload", error))?;
    Ok((!chunk.is_empty()).then(|| chunk.into()))
}
