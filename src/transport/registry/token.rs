//! Tokens, and the requests to token servers (distribution, "Token Authentication Specification" and "OAuth2").

use super::challenge::Realm;
use super::credentials::Credentials;
use super::http::{Http, Request};
use super::url::host_of;
use crate::error::{Error, Result};
use crate::transport::Secret;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The maximum size of a token server's response in bytes.
const LIMIT: usize = 64 << 10;
/// The lifetime of a token in seconds if its server does not name one (distribution, "Token Authentication Specification").
const DEFAULT_LIFETIME: u64 = 60;
/// The maximum lifetime of a token in seconds, whatever its server says.
const LIFETIME_LIMIT: u64 = 24 * 60 * 60;
/// The maximum number of scopes that a registry can add. Otherwise they could grow with every rejection.
pub(super) const SCOPES_LIMIT: usize = 16;

/// The permissions that a request needs. The most important one is first, because a few registries ignore the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Scopes(Vec<String>);

impl Scopes {
    pub(super) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// For some registries deleting is a separate permission, for others it is part of pushing.
    pub(super) fn delete(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push,delete")])
    }

    /// Returns the same permissions without the one for deleting; `None` if they do not include it.
    pub(super) fn without_delete(&self) -> Option<Self> {
        let fewer: Vec<_> = self.0.iter().map(|scope| scope.replace(",delete", "")).collect();
        (fewer != self.0).then_some(Self(fewer))
    }

    /// Adds scopes at the end.
    #[must_use]
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Adds the scopes that a registry has required, at the front.
    #[must_use]
    pub(super) fn with_missing(&self, missing: &[String]) -> Self {
        let missing = missing.iter().filter(|scope| !self.0.contains(scope)).take(SCOPES_LIMIT);
        Self(missing.chain(&self.0).cloned().collect())
    }
}

/// A token with its expiry.
pub(super) struct Token {
    pub(super) authorization: HeaderValue,
    /// The time from which another token is fetched.
    renewal: Instant,
}

impl Token {
    /// Returns whether the token is valid for a request that begins now.
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.renewal
    }

    /// Fetches a token from a token server.
    pub(super) async fn fetch(
        http: &Http,
        url: Url,
        realm: &Realm,
        scopes: &Scopes,
        credentials: Option<&Credentials>,
        registry: &str,
    ) -> Result<Self> {
        let what = format!("get a token for {registry} from {}", host_of(&url));
        if let Some(Credentials::Identity { token, .. }) = credentials {
            let request = exchange(url.clone(), realm, scopes, token, &what);
            let response = http.send(&request).await?;
            // Old token servers do not support POST. Artifactory then answers 401.
            let unsupported =
                [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::UNAUTHORIZED];
            if !unsupported.contains(&response.status()) {
                let body = response.success().await?.read(LIMIT + 1).await?;
                return Self::parse(&body, &what);
            }
        }
        let mut request = ask(url, realm, scopes, &what);
        request.authorization =
            credentials.map(|credentials| secret_header(&credentials.header())).transpose()?;
        let body = http.send(&request).await?.success().await?.read(LIMIT + 1).await?;
        Self::parse(&body, &what)
    }

    fn parse(body: &[u8], what: &str) -> Result<Self> {
        Self::from_json(body)
            .ok_or_else(|| Error::failed(format!("cannot {what}: what it answers is not a token")))
    }

    /// Parses a token server's response; `None` if it has no token that a header can have.
    fn from_json(body: &[u8]) -> Option<Self> {
        let json: Value = (body.len() <= LIMIT).then(|| serde_json::from_slice(body).ok())??;
        let token = ["token", "access_token"]
            .iter()
            .filter_map(|key| json.get(key)?.as_str())
            .find(|token| !token.is_empty())?;
        let lifetime = json.get("expires_in").and_then(Value::as_u64).filter(|lifetime| *lifetime > 0);
        let lifetime = lifetime.unwrap_or(DEFAULT_LIFETIME).min(LIFETIME_LIMIT);
        // The request has to arrive before the token expires.
        let early = (lifetime / 5).clamp(1, 10);
        let renewal = Instant::now() + Duration::from_secs(lifetime.saturating_sub(early));
        Some(Self { authorization: secret_header(&format!("Bearer {token}")).ok()?, renewal })
    }
}

/// Returns a request for a token by user name and password, or without credentials.
fn ask(mut url: Url, realm: &Realm, scopes: &Scopes, what: &str) -> Request {
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(realm.service.iter().map(|service| ("service", service)));
        query.extend_pairs(scopes.0.iter().map(|scope| ("scope", scope)));
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    Request::new(Method::GET, url, what)
}

/// Returns a request for a token by identity token.
fn exchange(url: Url, realm: &Realm, scopes: &Scopes, token: &Secret, what: &str) -> Request {
    // A form is encoded like a query.
    let mut form = url.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", realm.service.as_deref().unwrap_or_default())
        .append_pair("client_id", "volio")
        .append_pair("scope", &scopes.0.join(" "))
        .append_pair("refresh_token", token.reveal());
    Request::new(Method::POST, url, what)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.query().unwrap_or_default().to_owned())
}

/// Returns a header value that debug output does not show.
pub(super) fn secret_header(value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Error::failed("the credentials hold characters that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_of_two_names_and_a_lifetime() {
        let life = |body: &str| {
            Token::from_json(body.as_bytes())
                .map(|token| token.renewal.saturating_duration_since(Instant::now()).as_secs_f64().ceil())
        };
        assert_eq!(life(r#"{"token":"a"}"#), Some(50.0));
        assert_eq!(life(r#"{"access_token":"a","expires_in":300}"#), Some(290.0));
        assert_eq!(life(r#"{"token":"","access_token":"a","expires_in":5}"#), Some(4.0));
        assert_eq!(life(r#"{"token":"a","expires_in":18446744073709551615}"#), Some(86390.0));
        assert_eq!(life(r#"{"token":"a","expires_in":"soon"}"#), Some(50.0));
        for none in [r#"{"token":"a\nb"}"#, r#"{"token":1}"#, "{}", "[]", "x", ""] {
            assert_eq!(life(none), None, "{none}");
        }
    }

    #[test]
    fn missing_scopes_are_first_and_their_number_is_limited() {
        let scopes = Scopes::push("a");
        let missing = ["repository:b:pull".to_owned(), "repository:a:pull,push".to_owned()];
        assert_eq!(scopes.with_missing(&missing).0, ["repository:b:pull", "repository:a:pull,push"]);
        let many: Vec<_> = (0..100).map(|number| format!("repository:{number}:pull")).collect();
        assert_eq!(scopes.with_missing(&many).0.len(), SCOPES_LIMIT + 1);
    }
}
