//! One upload at a registry: the requests that it is made of, and where the next one goes.

use super::body::{BodySender, streaming_body};
use super::client::Client;
use super::http::{Request, runtime, wait};
use super::response::Response;
use super::token::Scopes;
use super::upload_policy::received;
use super::url::{follow, with_parameter};
use crate::error::{Error, Kind, Result};
use crate::oci::Digest;
use crate::stream::Written;
use bytes::Bytes;
use reqwest::header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The size of the chunks that a body is read in, in bytes.
const CHUNK: usize = 256 << 10;
/// How long the registry may take to forget an upload that failed; it would do so by itself after a week.
const FAREWELL: Duration = Duration::from_secs(10);

/// Asks the registry to take a blob over from another of its repositories.
pub(super) fn mount(client: &Client, repository: &str, digest: &Digest, from: &str) -> Result<bool> {
    wait(async {
        let url = with_parameter(start(client, repository), "mount", &digest.to_string());
        let request = Request::new(
            Method::POST,
            with_parameter(url, "from", from),
            format!("take {digest} over from {from}"),
        );
        let scopes = Scopes::push(repository).and(Scopes::pull(from));
        let response = match client.send(request, &scopes).await {
            // No token is given for the other repository: the blob is sent then.
            Err(error) if error.kind() == Kind::Denied => return Ok(false),
            response => response?,
        };
        // Many registries open an upload instead of saying no. It is not continued: who sends the blob then
        // has yet to find out where it is.
        if response.status() == StatusCode::ACCEPTED
            && let Ok(url) = next(&response, response.url())
        {
            forget(client, &scopes, url).await;
        }
        Ok(response.status() == StatusCode::CREATED)
    })
}

/// An upload in progress.
pub(super) struct Session<'a> {
    client: &'a Arc<Client>,
    scopes: Scopes,
    what: String,
    /// Where the registry wants the next request; it holds the state of the upload.
    url: Url,
}

/// A piece of a body on its way.
pub(super) enum Piece {
    /// All of it, by a PUT that says its digest.
    Whole(Written),
    /// As much as there will be.
    Endless,
    /// So many bytes from an offset on.
    Chunk(u64, u64),
}

impl<'a> Session<'a> {
    pub(super) fn begin(client: &'a Arc<Client>, repository: &str, what: &str) -> Result<Self> {
        let scopes = Scopes::push(repository);
        let request = Request::new(Method::POST, start(client, repository), what);
        let response = wait(async { client.send(request.clone(), &scopes).await?.success().await })?;
        let url = next(&response, response.url())
            .map_err(|error| request.error(error.to_string()).with_hint(error.hint().unwrap_or_default()))?;
        Ok(Self { client, scopes, what: what.to_owned(), url })
    }

    /// An upload that began before, perhaps in another process.
    pub(super) fn at(client: &'a Arc<Client>, repository: &str, what: &str, url: Url) -> Self {
        Self { client, scopes: Scopes::push(repository), what: what.to_owned(), url }
    }

    /// Where the next request goes, if that is at the registry itself.
    pub(super) fn address(&self) -> Option<&Url> {
        self.client.is_ours(&self.url).then_some(&self.url)
    }

    /// How many bytes the registry says that it has; `None` when it knows nothing of the upload any more.
    pub(super) fn received(&mut self) -> Option<u64> {
        let request = Request::new(Method::GET, self.url.clone(), &self.what);
        let response = wait(async { self.client.send(request, &self.scopes).await?.success().await }).ok()?;
        let received = received(response.header(&RANGE)?)?;
        if let Ok(url) = next(&response, response.url()) {
            self.url = url;
        }
        Some(received)
    }

    /// Sends a piece of a body, while this thread reads it. Its last bytes leave when the body has said that it is
    /// right, if they are its last.
    pub(super) fn send(&mut self, piece: &Piece, body: &mut dyn Read) -> Result<()> {
        // Before the request begins: an empty body that should be something else must not be sent.
        let first = read(body)?;
        let (request, size) = self.request(piece);
        let (feed, outgoing) = streaming_body(size);
        let (client, scopes) = (Arc::clone(self.client), self.scopes.clone());
        let response = runtime()?
            .spawn(async move { client.send_stream(request, &scopes, outgoing).await?.success().await });
        let pumped = self.pump(first, body, &feed);
        match (&pumped, size) {
            // The connection is cut: the registry knows how much it was promised.
            (Err(_), Some(_)) => drop(feed),
            // What has no size may end anywhere, because it is a blob only when somebody says its digest; and
            // distribution forgets an upload only if its last request ended well.
            (Ok(()), _) | (Err(_), None) => feed.finish(),
        }
        let patience = if pumped.is_ok() { Duration::MAX } else { FAREWELL };
        let response = runtime()?.block_on(async { timeout(patience, response).await });
        let response = match response {
            Ok(Ok(response)) => response,
            _ => Err(Error::failed(format!("cannot {}: the upload was abandoned", self.what))),
        };
        // Most registries put state into the address, and want to see the newest.
        let followed = response.and_then(|response| match (piece, response.header(&LOCATION)) {
            (Piece::Whole(_), _) | (_, None) => Ok(()),
            _ => next(&response, response.url()).map(|url| self.url = url),
        });
        // Whatever the registry says about a body that failed, the failure of the body came first.
        pumped.and(followed)
    }

    fn request(&self, piece: &Piece) -> (Request, Option<u64>) {
        let new = |method, url| {
            Request::new(method, url, &self.what).header(CONTENT_TYPE, "application/octet-stream")
        };
        match piece {
            Piece::Whole(written) => {
                let url = with_parameter(self.url.clone(), "digest", &written.digest.to_string());
                (new(Method::PUT, url), Some(written.size))
            }
            Piece::Endless => (new(Method::PATCH, self.url.clone()), None),
            // Each chunk on a connection of its own: where connections last for so many bytes only, those of the
            // chunks before would count.
            Piece::Chunk(offset, size) => {
                let range = format!("{offset}-{}", (offset + size).saturating_sub(1));
                let request = new(Method::PATCH, self.url.clone()).header(CONTENT_RANGE, &range);
                (request.header(CONNECTION, "close"), Some(*size))
            }
        }
    }

    /// Whether the registry has the blob.
    pub(super) fn has(&self, repository: &str, blob: &Written) -> bool {
        let url = self.client.url(&format!("{repository}/blobs/{}", blob.digest));
        let request = Request::new(Method::HEAD, url, &self.what);
        let response = wait(self.client.send(request, &self.scopes));
        response.is_ok_and(|response| {
            response.status().is_success()
                && response.header(&CONTENT_LENGTH).is_none_or(|size| size.parse() == Ok(blob.size))
        })
    }

    /// Says what was sent.
    pub(super) fn close(&self, written: &Written) -> Result<()> {
        let url = with_parameter(self.url.clone(), "digest", &written.digest.to_string());
        let request = Request::new(Method::PUT, url, &self.what);
        // Once: should only the response be lost, a second request would find no upload.
        wait(async { self.client.send(request.once(), &self.scopes).await?.success().await })?;
        Ok(())
    }

    /// Lets the registry throw away what it has.
    pub(super) fn cancel(&self) {
        let forget = async {
            forget(self.client, &self.scopes, self.url.clone()).await;
            Ok(())
        };
        // The error that led here is the one to report.
        let _ = wait(forget);
    }

    /// Feeds a request from a body until the body ends or nobody wants more of it. A chunk leaves when the one
    /// behind it is here: the last one not before the body has proved itself.
    fn pump(&self, mut ahead: Option<Bytes>, body: &mut dyn Read, feed: &BodySender) -> Result<()> {
        while let Some(chunk) = ahead {
            self.client.options().cancel.check()?;
            ahead = read(body)?;
            if !feed.send(chunk) {
                break;
            }
        }
        Ok(())
    }
}

/// Where uploads begin.
fn start(client: &Client, repository: &str) -> Url {
    client.url(&format!("{repository}/blobs/uploads/"))
}

/// Where the registry wants the next request of an upload.
fn next(response: &Response, asked: &Url) -> Result<Url> {
    let location = response
        .header(&LOCATION)
        .ok_or_else(|| Error::failed("the registry does not say where the upload goes on"))?;
    follow(asked, location)
}

/// Ends an upload, as far as the registry lets us: not every one does.
async fn forget(client: &Client, scopes: &Scopes, url: Url) {
    let request = Request::new(Method::DELETE, url, "end an upload").once();
    let _ = timeout(FAREWELL, client.send(request, scopes)).await;
}

/// The next chunk of a body, as full as can be; `None` at its end.
fn read(body: &mut dyn Read) -> Result<Option<Bytes>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    body.take(CHUNK as u64)
        .read_to_end(&mut chunk)
        .map_err(|error| Error::io("cannot read the data to upload", error))?;
    Ok((!chunk.is_empty()).then(|| chunk.into()))
}
