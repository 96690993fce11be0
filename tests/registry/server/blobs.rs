//! Downloads of blobs: whole, in ranges, and incomplete.

use super::protocol::{error, reply, with};
use super::{Ranges, Shared};
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use std::future::Future as _;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

pub fn blob(shared: &Shared, head: &Parts, elsewhere: bool, repository: &str, digest: &str) -> Response {
    let mut inside = shared.inside();
    let found = if elsewhere { inside.store.any_blob(digest) } else { inside.store.blob(repository, digest) };
    let remembers = head.method == Method::HEAD && inside.behaviour.remembers_forgotten_blobs;
    let found =
        found.or_else(|| remembers.then(|| inside.store.forgotten_blob(repository, digest)).flatten());
    let Some(bytes) = found else { return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN") };
    if inside.behaviour.blobs_elsewhere && !elsewhere {
        inside.links += 1;
        let location = format!(
            "{}/v2/{repository}/blobs/{digest}?signature=s%2Fecret&link={}",
            inside.behaviour.second(&shared.elsewhere),
            inside.links
        );
        return with(reply(StatusCode::TEMPORARY_REDIRECT), "location", &location);
    }
    let whole = bytes.len();
    let range = inside.behaviour.ranges.choose(head, whole);
    let (status, bytes) = match &range {
        Some(_) if inside.behaviour.ranges == Ranges::Unsatisfiable => {
            return error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE");
        }
        Some(_) if inside.behaviour.ranges == Ranges::NotImplemented => {
            return error(StatusCode::NOT_IMPLEMENTED, "RANGE");
        }
        Some(range) if range.start >= whole => return error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE"),
        Some(range) => (StatusCode::PARTIAL_CONTENT, bytes.slice(range.clone())),
        None => (StatusCode::OK, bytes),
    };
    let length = bytes.len().to_string();
    let hides_length = inside.behaviour.hides_lengths && head.method == Method::GET;
    let body = match inside.behaviour.cuts_blobs_after {
        _ if head.method == Method::HEAD => Body::empty(),
        None if hides_length => Body::new(StreamBody(Some(bytes))),
        None => Body::from(bytes),
        Some(count) => Body::new(Cut::after(bytes.slice(..count.min(bytes.len())))),
    };
    let mut response = Response::builder().status(status).header("content-type", "application/octet-stream");
    if !hides_length {
        response = response.header("content-length", length);
    }
    if !inside.behaviour.hides_digests {
        response = response.header("docker-content-digest", digest);
    }
    if let Some(range) = range.filter(|_| inside.behaviour.ranges != Ranges::Unsaid) {
        let start = range.start + usize::from(inside.behaviour.ranges == Ranges::Wrong);
        response = response.header("content-range", format!("bytes {start}-{}/{whole}", range.end - 1));
    }
    response.body(body).unwrap()
}

impl Ranges {
    /// Returns the range of the response; `None` for the whole blob.
    fn choose(self, head: &Parts, whole: usize) -> Option<Range<usize>> {
        let asked = head.headers.get("range")?.to_str().unwrap().strip_prefix("bytes=")?;
        // Real servers answer 501 to several ranges.
        let (start, end) = asked.split_once('-').unwrap();
        let start = start.parse().unwrap();
        let end = end.parse::<usize>().map_or(whole, |end| (end + 1).min(whole));
        match self {
            Self::Ignored => None,
            Self::SentAtFirst if start > 0 => None,
            Self::Longer => Some(start..whole),
            Self::Short if end > start + 1 => Some(start..start + (end - start) / 2),
            _ => Some(start..end),
        }
    }
}

/// A body without a known length.
struct StreamBody(Option<Bytes>);

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A body that sends some bytes and then closes the connection instead of ending. The pause between the two lets the
/// bytes leave the buffers first.
struct Cut {
    bytes: Option<Bytes>,
    pause: Pin<Box<Sleep>>,
}

impl Cut {
    fn after(bytes: Bytes) -> Self {
        Self { bytes: Some(bytes), pause: Box::pin(sleep(Duration::from_millis(50))) }
    }
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => self.pause.as_mut().poll(context).map(|()| Some(Err(io::Error::other("cut")))),
        }
    }
}
