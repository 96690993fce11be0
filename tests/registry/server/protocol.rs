//! The requests of the distribution protocol.

use super::auth::{self, Permission};
use super::store::digest_of;
use super::{NoReferrers, RegistryState, Shared, blobs, pagination, removal, uploads};
use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use volio::oci::media_type;

/// The maximum size of a manifest, as in distribution.
const MANIFEST_LIMIT: usize = 4 << 20;

/// A decoded query.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).unwrap()
}

/// The resource that a path names.
pub enum Target<'a> {
    Root,
    Blob(&'a str, &'a str),
    Manifest(&'a str, &'a str),
    Uploads(&'a str),
    Upload(&'a str, &'a str),
    Tags(&'a str),
    Referrers(&'a str, &'a str),
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v2/")?;
        if path.is_empty() {
            return Some(Self::Root);
        }
        // The names of repositories contain slashes, so the path is parsed from its end.
        if let Some((repository, upload)) = path.rsplit_once("/blobs/uploads/") {
            return Some(match upload {
                "" => Self::Uploads(repository),
                upload => Self::Upload(repository, upload),
            });
        }
        if let Some((repository, digest)) = path.rsplit_once("/blobs/") {
            return Some(Self::Blob(repository, digest));
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return Some(Self::Tags(repository));
        }
        if let Some((repository, digest)) = path.rsplit_once("/referrers/") {
            return Some(Self::Referrers(repository, digest));
        }
        let (repository, name) = path.rsplit_once("/manifests/")?;
        Some(Self::Manifest(repository, name))
    }

    fn repository(&self) -> Option<&'a str> {
        match self {
            Self::Root => None,
            Self::Blob(repository, _)
            | Self::Manifest(repository, _)
            | Self::Uploads(repository)
            | Self::Tags(repository)
            | Self::Referrers(repository, _)
            | Self::Upload(repository, _) => Some(repository),
        }
    }
}

pub async fn answer(shared: &Shared, elsewhere: bool, head: Parts, body: Body) -> Response {
    match scripted(shared, &head.method, head.uri.path()) {
        None => handle(shared, elsewhere, head, body).await,
        Some((refusal, true)) => {
            handle(shared, elsewhere, head, body).await;
            refusal
        }
        Some((refusal, false)) => {
            // As in real servers, the response does not wait for the body, and the connection does not wait for the response.
            tokio::spawn(to_bytes(body, usize::MAX));
            refusal
        }
    }
}

async fn handle(shared: &Shared, elsewhere: bool, head: Parts, body: Body) -> Response {
    let path = head.uri.path().replacen("/artifacts-uploads/", "/v2/", 1);
    let query = Query::parse(head.uri.query().unwrap_or_default());
    if path == "/token" && !elsewhere {
        let form = to_bytes(body, usize::MAX).await.unwrap_or_default();
        return auth::token(shared, &head, &query, &String::from_utf8_lossy(&form));
    }
    if path == "/login" {
        return with(reply_text(StatusCode::OK, "<html>Sign in</html>"), "content-type", "text/html");
    }
    let Some(target) = Target::parse(&path) else { return error(StatusCode::NOT_FOUND, "UNSUPPORTED") };
    if elsewhere {
        if head.headers.contains_key("authorization") {
            return error(StatusCode::BAD_REQUEST, "only one auth mechanism allowed");
        }
        if query.first("signature") != Some("s/ecret") {
            return error(StatusCode::FORBIDDEN, "signature is missing");
        }
        let link: usize = query.first("link").map_or(usize::MAX, |link| link.parse().unwrap());
        if link <= shared.inside().behaviour.expired_links {
            return error(StatusCode::FORBIDDEN, "signature is over");
        }
    } else {
        let action = match (&head.method, &target) {
            (&Method::GET | &Method::HEAD, _) => "pull",
            (&Method::DELETE, Target::Manifest(..)) => shared.inside().behaviour.tokens.deletion(),
            _ => "push",
        };
        let permission = target.repository().map(|repository| Permission { repository, action });
        let allowed = {
            let inside = shared.inside();
            inside.token_store.allows(&inside.behaviour, &head.headers, permission.as_ref())
        };
        if !allowed {
            let has_token = head.headers.contains_key("authorization");
            shared.inside().token_store.rejected_tokens += usize::from(has_token);
            return auth::refuse(shared, permission.as_ref());
        }
    }
    let body = match uploads::receive(shared, &head, &target, &query, body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match (head.method.as_str(), target) {
        ("GET", Target::Root) => reply_json(StatusCode::OK, "{}"),
        ("GET" | "HEAD", Target::Blob(repository, digest)) => {
            blobs::blob(shared, &head, elsewhere, repository, digest)
        }
        ("GET" | "HEAD", Target::Manifest(repository, name)) => manifest(shared, &head, repository, name),
        ("PUT", Target::Manifest(repository, name)) => put_manifest(shared, &head, repository, name, body),
        ("GET", Target::Tags(repository)) => pagination::tags(shared, repository, &query),
        ("GET", Target::Referrers(repository, digest)) => {
            pagination::referrers(shared, repository, digest, &query)
        }
        ("DELETE", Target::Manifest(repository, name)) => removal::manifest(shared, repository, name),
        ("POST", Target::Uploads(repository)) => uploads::begin(shared, &head, repository, &query),
        ("GET", Target::Upload(repository, upload)) => {
            uploads::settled(shared).await;
            uploads::status(shared, repository, upload, &query)
        }
        ("PATCH", Target::Upload(repository, upload)) => {
            uploads::append(shared, &head, repository, upload, &query, &body)
        }
        ("PUT", Target::Upload(_, upload)) => uploads::seal(shared, upload, &query, &body),
        ("DELETE", Target::Upload(_, upload)) => {
            if shared.inside().store.forget(upload) {
                reply(StatusCode::NO_CONTENT)
            } else {
                error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN")
            }
        }
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    }
}

/// Returns a scripted response, and whether the request is handled nevertheless.
fn scripted(shared: &Shared, method: &Method, path: &str) -> Option<(Response, bool)> {
    let behaviour = &mut shared.inside().behaviour;
    match &mut behaviour.limits_requests {
        Some(0) => return Some((error(StatusCode::SERVICE_UNAVAILABLE, "DOWN"), false)),
        Some(left) => *left -= 1,
        None => {}
    }
    let always = match (method, path) {
        (&Method::HEAD, _) => behaviour.head_status,
        (_, "/v2/") => behaviour.root_status,
        _ => None,
    };
    if let Some(status) = always {
        return Some((reply(StatusCode::from_u16(status).unwrap()), false));
    }
    let refusals = &mut behaviour.refusals;
    let found =
        refusals.iter().position(|refusal| refusal.method == method && path.contains(refusal.path))?;
    let refusal = refusals.remove(found);
    let mut response = reply_json(StatusCode::from_u16(refusal.status).unwrap(), refusal.body);
    if let Some(wait) = refusal.retry_after {
        response.headers_mut().insert("retry-after", wait.parse().unwrap());
    }
    Some((response, refusal.after))
}

fn manifest(shared: &Shared, head: &Parts, repository: &str, name: &str) -> Response {
    let inside = shared.inside();
    let Some(stored) = inside.store.manifest(repository, name) else {
        return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    };
    // Registries with two formats choose by this header, and without it send the oldest format.
    let mut accepted = head.headers.get_all("accept").iter().filter_map(|line| line.to_str().ok());
    if !accepted.any(|line| line.contains(&stored.media_type)) {
        return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    }
    let digest =
        if inside.behaviour.lies_about_digests { digest_of(b"something else") } else { stored.digest };
    let (entity_tag, named) = (format!("\"{digest}\""), head.headers.get("if-none-match"));
    if inside.behaviour.has_entity_tags && named.is_some_and(|named| *named == *entity_tag) {
        return reply(StatusCode::NOT_MODIFIED);
    }
    let media_type = inside.behaviour.manifest_type.map_or(stored.media_type, str::to_owned);
    let mut response =
        Response::builder().header("content-type", media_type).header("content-length", stored.bytes.len());
    if !inside.behaviour.hides_digests {
        response = response.header("docker-content-digest", digest);
    }
    let is_head = head.method == Method::HEAD;
    response.body(if is_head { Body::empty() } else { Body::from(stored.bytes) }).unwrap()
}

fn put_manifest(shared: &Shared, head: &Parts, repository: &str, name: &str, body: Bytes) -> Response {
    let media_type_name =
        head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut inside = shared.inside();
    if body.len() > inside.behaviour.limits_manifests.unwrap_or(MANIFEST_LIMIT) {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID");
    }
    if inside.behaviour.checks_types && ![media_type::MANIFEST, media_type::INDEX].contains(&media_type_name)
    {
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "MANIFEST_INVALID");
    }
    if let Some((unsupported, status)) = inside.behaviour.unsupported_type
        && (media_type_name == unsupported
            || String::from_utf8_lossy(&body).contains(&format!("\"{unsupported}\"")))
    {
        return error(StatusCode::from_u16(status).unwrap(), "MANIFEST_INVALID");
    }
    if let Some(refusal) = inside.protected_tag(repository, name) {
        return refusal;
    }
    let says_it_lists =
        inside.behaviour.lists_referrers || inside.behaviour.no_referrers == NoReferrers::Claimed;
    let subject = pagination::subject_of(&body).filter(|_| says_it_lists);
    match inside.store.put_manifest(repository, name, media_type_name, body) {
        Err(code) => error(StatusCode::BAD_REQUEST, code),
        Ok(_) if inside.behaviour.hides_manifests => reply(StatusCode::CREATED),
        Ok(digest) => {
            let location = format!("/v2/{repository}/manifests/{digest}");
            let response = with(reply(StatusCode::CREATED), "location", &location);
            let response = if inside.behaviour.hides_digests {
                response
            } else {
                with(response, "docker-content-digest", &digest)
            };
            match subject {
                Some(subject) => with(response, "oci-subject", &subject),
                None => response,
            }
        }
    }
}

impl RegistryState {
    /// Returns the response to a change of a tag that exists, if tags are immutable. Not even the same image may be stored
    /// again, as in Amazon ECR.
    pub fn protected_tag(&self, repository: &str, name: &str) -> Option<Response> {
        let (status, code, message) = self.behaviour.immutable_tags?;
        let exists = !name.contains(':') && self.store.manifest(repository, name).is_some();
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        exists.then(|| reply_json(StatusCode::from_u16(status).unwrap(), body))
    }
}

fn reply_text(status: StatusCode, text: &'static str) -> Response {
    Response::builder().status(status).body(Body::from(text)).unwrap()
}

pub fn reply(status: StatusCode) -> Response {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

pub fn reply_json(status: StatusCode, json: impl Into<String>) -> Response {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(json.into())).unwrap()
}

pub fn error(status: StatusCode, code: &str) -> Response {
    reply_json(status, format!(r#"{{"errors":[{{"code":"{code}","message":"so says the test"}}]}}"#))
}

pub fn with(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}
