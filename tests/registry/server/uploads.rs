//! Uploads of blobs: whole, in a stream, in chunks, and interrupted.

use super::auth::Permission;
use super::protocol::{Query, Target, error, reply, with};
use super::{Broken, Lengths, Locations, Shared, StatusRanges};
use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::Body as _;
use std::future::poll_fn;
use std::pin::Pin;

pub fn begin(shared: &Shared, head: &Parts, repository: &str, query: &Query) -> Response {
    if let (Some(digest), Some(from)) = (query.first("mount"), query.first("from")) {
        let mut inside = shared.inside();
        let permission = Permission { repository: from, action: "pull" };
        let allowed = inside.token_store.allows(&inside.behaviour, &head.headers, Some(&permission));
        if allowed && !inside.behaviour.refuses_mounts && inside.store.mount(repository, digest, from) {
            let location = format!("/v2/{repository}/blobs/{digest}");
            return with(reply(StatusCode::CREATED), "location", &location);
        }
    }
    if shared.inside().behaviour.creates_no_repositories && !shared.inside().store.has_repository(repository)
    {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    }
    let (upload, step) = shared.inside().store.begin(repository);
    let min_chunk = shared.inside().behaviour.min_chunk;
    let response = accepted(shared, repository, &upload, step);
    match min_chunk {
        Some(size) => with(response, "oci-chunk-min-length", &size.to_string()),
        None => response,
    }
}

pub fn seal(shared: &Shared, upload: &str, query: &Query, body: &[u8]) -> Response {
    let mut inside = shared.inside();
    let (step, digest) = (step(query), query.first("digest").unwrap_or_default());
    // The last request may have the last bytes, or all of them.
    let step = if body.is_empty() { Some(step) } else { inside.store.append(upload, step, body) };
    let believe = inside.behaviour.believes_digests;
    let sealed =
        step.ok_or("BLOB_UPLOAD_UNKNOWN").and_then(|step| inside.store.seal(upload, step, digest, believe));
    match sealed {
        Ok(repository) => {
            with(reply(StatusCode::CREATED), "location", &format!("/v2/{repository}/blobs/{digest}"))
        }
        Err(code @ "BLOB_UPLOAD_UNKNOWN") => error(StatusCode::NOT_FOUND, code),
        Err(code) => error(StatusCode::BAD_REQUEST, code),
    }
}

/// Returns the body of a request, or the error response.
pub async fn receive(
    shared: &Shared,
    head: &Parts,
    target: &Target<'_>,
    query: &Query,
    body: Body,
) -> Result<Bytes, Response> {
    let length = head.headers.get("content-length").and_then(|length| length.to_str().unwrap().parse().ok());
    let behaviour = shared.inside().behaviour.clone();
    let is_upload = matches!(target, Target::Upload(..));
    let refused = match behaviour.lengths {
        _ if length.is_some() => None,
        Lengths::Patches if is_upload && head.method == Method::PATCH => {
            Some(error(StatusCode::BAD_REQUEST, "CONTENT_LENGTH_INVALID"))
        }
        Lengths::All if [Method::POST, Method::PATCH, Method::PUT].contains(&head.method) => {
            Some(reply(StatusCode::LENGTH_REQUIRED))
        }
        _ => None,
    };
    let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok());
    let is_foreign = is_upload && length != Some(0) && content_type != Some("application/octet-stream");
    let has_body = [Method::PATCH, Method::PUT].contains(&head.method);
    let refused = refused.or_else(|| {
        let is_refused = behaviour.checks_types && has_body && is_foreign;
        is_refused.then(|| reply(StatusCode::UNSUPPORTED_MEDIA_TYPE))
    });
    if let Some(refused) = refused {
        tokio::spawn(to_bytes(body, usize::MAX));
        return Err(refused);
    }
    if let Some(limit) = behaviour.limits_bodies.filter(|_| is_upload)
        && length.is_some_and(|length: usize| length > limit)
    {
        tokio::spawn(to_bytes(body, usize::MAX));
        return Err(error(
            StatusCode::from_u16(behaviour.limit_status.unwrap_or(413)).unwrap(),
            "SIZE_INVALID",
        ));
    }
    let _arriving = Arriving::new(shared);
    let (bytes, is_whole) = read(body).await;
    shared.inside().uploaded += bytes.len() as u64;
    if let (Target::Upload(_, upload), Some(limit)) = (target, behaviour.limits_blobs) {
        let before = shared.inside().store.length(upload, step(query)).unwrap_or_default();
        if before + bytes.len() > limit {
            return Err(error(StatusCode::PAYLOAD_TOO_LARGE, "LAYER_TOO_LARGE"));
        }
    }
    let too_long = behaviour.limits_bodies.is_some_and(|limit| is_upload && bytes.len() > limit);
    if too_long {
        return Err(error(
            StatusCode::from_u16(behaviour.limit_status.unwrap_or(413)).unwrap(),
            "SIZE_INVALID",
        ));
    }
    if is_whole {
        return Ok(bytes);
    }
    if let Target::Upload(_, upload) = target {
        let mut inside = shared.inside();
        match behaviour.broken_uploads {
            Broken::Dropped => {}
            Broken::Kept => {
                if inside.store.append(upload, step(query), &bytes).is_some() {
                    inside.store.step_back(upload)
                }
            }
            Broken::Fatal => _ = inside.store.forget(upload),
        }
    }
    Err(error(StatusCode::BAD_REQUEST, "broken off"))
}

/// A body that is being received, until its end or its loss is known.
struct Arriving<'a>(&'a Shared);

impl<'a> Arriving<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.inside().arriving += 1;
        Self(shared)
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.inside().arriving -= 1;
    }
}

/// Waits until no body is being received. A request for the offset may be faster than the notice of a lost connection.
pub async fn settled(shared: &Shared) {
    while shared.inside().arriving > 0 {
        tokio::task::yield_now().await;
    }
}

/// Reads a body, and returns its bytes and whether it was complete.
async fn read(mut body: Body) -> (Bytes, bool) {
    let mut bytes = Vec::new();
    loop {
        match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => return (bytes.into(), false),
            None => return (bytes.into(), true),
        }
    }
}

/// Returns the offset of an upload.
pub fn status(shared: &Shared, repository: &str, upload: &str, query: &Query) -> Response {
    let Some(length) = shared.inside().store.length(upload, step(query)) else {
        return error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    };
    let style = shared.inside().behaviour.status_ranges;
    let has_noticed = {
        let late = &mut shared.inside().behaviour.notices_late;
        let now = *late == 0;
        *late = late.saturating_sub(1);
        now
    };
    let range = style.write(if has_noticed { length } else { 0 });
    let mut response = accepted(shared, repository, upload, step(query));
    *response.status_mut() = StatusCode::NO_CONTENT;
    if style == StatusRanges::Counted {
        response.headers_mut().remove("location"); // as Quay does it
    }
    with(response, "range", &range)
}

impl StatusRanges {
    fn write(self, length: usize) -> String {
        match self {
            Self::Inclusive => format!("0-{}", length.saturating_sub(1)),
            Self::Counted => format!("bytes=0-{length}"),
            Self::Stale => "0-0".to_owned(),
        }
    }
}

/// Receives a chunk, or the whole body in a stream.
pub fn append(
    shared: &Shared,
    head: &Parts,
    repository: &str,
    upload: &str,
    query: &Query,
    body: &Bytes,
) -> Response {
    let mut inside = shared.inside();
    if inside.behaviour.whole_only && head.headers.contains_key("content-range") {
        return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
    }
    let range = head.headers.get("content-range").map(|range| range.to_str().unwrap().to_owned());
    let length = inside.store.length(upload, step(query)).unwrap_or_default();
    if let Some(range) = range
        && range != format!("{length}-{}", (length + body.len()).saturating_sub(1))
    {
        return error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID");
    }
    // The chunks before this one were not the last.
    let earlier_chunk = length.checked_div(step(query).saturating_sub(1));
    let is_small = |min: usize| earlier_chunk.is_some_and(|size| size < min);
    if !body.is_empty() && inside.behaviour.min_chunk.is_some_and(is_small) {
        return error(StatusCode::BAD_REQUEST, "SIZE_INVALID");
    }
    // The chunk is lost although the response reports success.
    let lost = std::mem::take(&mut inside.behaviour.loses_a_chunk);
    let stored = if lost { &[][..] } else { body };
    let step = inside.store.append(upload, step(query), stored);
    let status = inside.behaviour.patch_status;
    drop(inside);
    match step {
        Some(step) => {
            let mut response = accepted(shared, repository, upload, step);
            *response.status_mut() = StatusCode::from_u16(status.unwrap_or(202)).unwrap();
            response
        }
        None => error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
    }
}

/// Returns the state in the URL of an upload.
fn step(query: &Query) -> usize {
    let state = query.first("_state").and_then(|state| state.strip_prefix("a/b+"));
    state.and_then(|state| state.parse().ok()).unwrap_or_default()
}

/// Returns the response to a request after which the upload continues.
fn accepted(shared: &Shared, repository: &str, upload: &str, step: usize) -> Response {
    // The state changes if it is encoded once too often or not at all.
    let path = format!("/v2/{repository}/blobs/uploads/{upload}?_state=a%2Fb%2B{step}");
    let behaviour = shared.inside().behaviour.clone();
    let location = match behaviour.locations {
        Locations::Relative => path,
        Locations::Absolute => format!("http://{}{path}", shared.host),
        Locations::Elsewhere => format!("{}{path}&signature=s%2Fecret", behaviour.second(&shared.elsewhere)),
        Locations::Outside => path.replace("/v2/", "/artifacts-uploads/") + "&state=" + &"x".repeat(2000),
        Locations::Missing => return reply(StatusCode::ACCEPTED),
    };
    with(reply(StatusCode::ACCEPTED), "location", &location)
}
