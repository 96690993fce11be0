//! The requests of an upload session at a registry.

use super::body::{BodySender, streaming_body};
use super::client::Client;
use super::http::{Request, runtime, wait};
use super::response::Response;
use super::token::Scopes;
use super::upload_policy::parse_offset;
use super::url::{follow, with_parameter};
use crate::error::{Error, Kind, Result};
use crate::oci::Digest;
use crate::stream::{ReadBytes, Written};
use bytes::Bytes;
use reqwest::header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The most bytes that are read from a body at once.
const READ_SIZE: usize = 256 << 10;
/// The time limit for aborting an upload. A registry would otherwise delete it after about a week.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The minimum size of a chunk, in the response that begins an upload.
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// Asks the registry to mount a blob from another of its repositories (distribution-spec, "Mounting a blob from another
/// repository"). Returns `false` if it does not.
pub(super) fn mount(client: &Client, repository: &str, digest: &Digest, from: &str) -> Result<bool> {
    wait(async {
        let url = with_parameter(uploads_url(client, repository), "mount", &digest.to_string());
        let request = Request::new(
            Method::POST,
            with_parameter(url, "from", from),
            format!("take {digest} over from {from}"),
        );
        let scopes = Scopes::push(repository).and(Scopes::pull(from));
        let response = match client.send(request, &scopes).await {
            // There is no token for the other repository. The caller uploads the blob then.
            Err(error) if error.kind() == Kind::Denied => return Ok(false),
            response => response?,
        };
        // Many registries begin an upload instead. It is not used, because the caller has yet to find the blob's bytes.
        if response.status() == StatusCode::ACCEPTED
            && let Ok(url) = next_url(&response, response.url())
        {
            abort(client, &scopes, url).await;
        }
        Ok(response.status() == StatusCode::CREATED)
    })
}

/// An upload session.
pub(super) struct Session<'a> {
    client: &'a Arc<Client>,
    scopes: Scopes,
    what: String,
    /// The URL of the next request. It contains the registry's state of the session.
    url: Url,
}

/// The part of a body that one request sends.
pub(super) enum Piece {
    /// The whole body, by a PUT with its digest.
    Whole(Written),
    /// The whole body, by a PATCH of unknown size.
    Stream,
    /// An offset and a size in bytes, by a PATCH.
    Chunk(u64, u64),
}

impl<'a> Session<'a> {
    /// Begins a session.
    pub(super) fn begin(client: &'a Arc<Client>, repository: &str, what: &str) -> Result<Self> {
        let scopes = Scopes::push(repository);
        let request = Request::new(Method::POST, uploads_url(client, repository), what);
        let begun = wait(async { client.send(request.clone(), &scopes).await?.success().await });
        let response = begun.map_err(|error| match error.kind() {
            Kind::NotFound => error.with_hint(format!(
                "does the repository {repository} exist? Amazon ECR and Google's registries do not create it with the first push"
            )),
            _ => error,
        })?;
        if let Some(size) = response.header(&CHUNK_MIN_LENGTH).and_then(|size| size.trim().parse().ok()) {
            client.upload_policy.set_min_chunk(size);
        }
        let url = next_url(&response, response.url())
            .map_err(|error| request.error(error.to_string()).with_hint(error.hint().unwrap_or_default()))?;
        Ok(Self { client, scopes, what: what.to_owned(), url })
    }

    /// Returns a session that has begun before, perhaps in another process.
    pub(super) fn resume(client: &'a Arc<Client>, repository: &str, what: &str, url: Url) -> Self {
        Self { client, scopes: Scopes::push(repository), what: what.to_owned(), url }
    }

    /// Returns the URL of the next request, if it is on the registry itself.
    pub(super) fn own_url(&self) -> Option<&Url> {
        self.client.is_own(&self.url).then_some(&self.url)
    }

    /// Asks how many bytes the registry has received; `None` if it no longer knows the session.
    pub(super) fn offset(&mut self) -> Option<u64> {
        let request = Request::new(Method::GET, self.url.clone(), &self.what);
        let response = wait(async { self.client.send(request, &self.scopes).await?.success().await }).ok()?;
        let offset = parse_offset(response.header(&RANGE)?)?;
        if let Ok(url) = next_url(&response, response.url()) {
            self.url = url;
        }
        Some(offset)
    }

    /// Sends a piece of a body, which this thread reads meanwhile. The last bytes of a body are sent only after it has
    /// verified itself.
    pub(super) fn send(&mut self, piece: &Piece, body: &mut dyn ReadBytes) -> Result<()> {
        // This read comes before the request, because an empty body may fail its verification.
        let first = read(body)?;
        let (request, size) = self.request(piece);
        let (sender, streaming) = streaming_body(size);
        let (client, scopes) = (Arc::clone(self.client), self.scopes.clone());
        let response = runtime()?
            .spawn(async move { client.send_stream(request, &scopes, streaming).await?.success().await });
        let copied = self.copy(first, body, &sender);
        match (&copied, size) {
            // The connection is closed early. The registry knows the size, so that it notices.
            (Err(_), Some(_)) => drop(sender),
            // A body without a size is not a blob before a request with its digest, so it may end anywhere. distribution
            // deletes an upload only if its last request was complete.
            (Ok(()), _) | (Err(_), None) => sender.finish(),
        }
        let limit = if copied.is_ok() { Duration::MAX } else { ABORT_TIMEOUT };
        let response = runtime()?.block_on(async { timeout(limit, response).await });
        let response = match response {
            Ok(Ok(response)) => response,
            _ => Err(Error::failed(format!("cannot {}: the upload was abandoned", self.what))),
        };
        // Most registries keep state in the URL and require the latest one.
        let followed = response.and_then(|response| match (piece, response.header(&LOCATION)) {
            (Piece::Whole(_), _) | (_, None) => Ok(()),
            _ => next_url(&response, response.url()).map(|url| self.url = url),
        });
        // A failure of the body is the cause of any error of the registry.
        copied.and(followed)
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
            Piece::Stream => (new(Method::PATCH, self.url.clone()), None),
            // Each chunk has its own connection: if a proxy limits the bytes of a connection, earlier chunks would count.
            Piece::Chunk(offset, size) => {
                let range = format!("{offset}-{}", (offset + size).saturating_sub(1));
                let request = new(Method::PATCH, self.url.clone()).header(CONTENT_RANGE, &range);
                (request.header(CONNECTION, "close"), Some(*size))
            }
        }
    }

    /// Returns whether the registry has a blob.
    pub(super) fn blob_exists(&self, repository: &str, blob: &Written) -> bool {
        let url = self.client.url(&format!("{repository}/blobs/{}", blob.digest));
        let request = Request::new(Method::HEAD, url, &self.what);
        let response = wait(self.client.send(request, &self.scopes));
        response.is_ok_and(|response| {
            response.status().is_success()
                && response.header(&CONTENT_LENGTH).is_none_or(|size| size.parse() == Ok(blob.size))
        })
    }

    /// Ends the session with the digest of the blob.
    pub(super) fn commit(&self, written: &Written) -> Result<()> {
        let url = with_parameter(self.url.clone(), "digest", &written.digest.to_string());
        let request = Request::new(Method::PUT, url, &self.what);
        // It is not retried: if only the response was lost, the session no longer exists.
        wait(async { self.client.send(request.once(), &self.scopes).await?.success().await })?;
        Ok(())
    }

    /// Asks the registry to delete the session.
    pub(super) fn abort(&self) {
        let aborted = async {
            abort(self.client, &self.scopes, self.url.clone()).await;
            Ok(())
        };
        // The caller reports the error that led here.
        let _ = wait(aborted);
    }

    /// Copies a body to a request until the body or the request ends. A chunk is sent when the next one has been read, so
    /// that the last chunk is sent only after the body has verified itself.
    fn copy(&self, mut chunk: Option<Bytes>, body: &mut dyn ReadBytes, sender: &BodySender) -> Result<()> {
        while let Some(bytes) = chunk {
            self.client.options().cancel.check()?;
            chunk = read(body)?;
            if !sender.send(bytes) {
                break;
            }
        }
        Ok(())
    }
}

/// Returns the URL at which uploads begin.
fn uploads_url(client: &Client, repository: &str) -> Url {
    client.url(&format!("{repository}/blobs/uploads/"))
}

/// Returns the URL of the next request of an upload.
fn next_url(response: &Response, asked: &Url) -> Result<Url> {
    let location = response
        .header(&LOCATION)
        .ok_or_else(|| Error::failed("the registry does not say where the upload goes on"))?;
    follow(asked, location)
}

/// Deletes an upload, if the registry supports that.
async fn abort(client: &Client, scopes: &Scopes, url: Url) {
    let request = Request::new(Method::DELETE, url, "end an upload").once();
    let _ = timeout(ABORT_TIMEOUT, client.send(request, scopes)).await;
}

/// Reads the next chunk of a body; `None` at its end.
fn read(body: &mut dyn ReadBytes) -> Result<Option<Bytes>> {
    let chunk =
        body.read_bytes(READ_SIZE).map_err(|error| Error::io("cannot read the data to upload", error))?;
    Ok((!chunk.is_empty()).then_some(chunk))
}
