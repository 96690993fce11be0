//! Tokens: what they are good for, how long they last, and how a token server is asked for one (distribution, "Token
//! Authentication Specification" and "OAuth2").

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

/// The largest response of a token server that is read, in bytes.
const LIMIT: usize = 64 << 10;
/// How long a token lasts whose server does not say (distribution's "Token Authentication Specification").
const LIFE: u64 = 60;
/// The longest life that is believed: an hour before it, anything may have changed.
const LIFE_LIMIT: u64 = 24 * 60 * 60;
/// The most scopes that a registry can add to ours: what it says would otherwise grow with every refusal.
pub(super) const SCOPES_LIMIT: usize = 16;

/// What a request needs to be allowed to do; the first part is the most important one, because a few
/// registries look at no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Scopes(Vec<String>);

impl Scopes {
    pub(super) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// Deleting is a right of its own to some registries, and a part of pushing to others.
    pub(super) fn delete(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push,delete")])
    }

    /// Both, what is there already first.
    #[must_use]
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The same and what a registry misses, which goes first.
    #[must_use]
    pub(super) fn behind(&self, missing: &[String]) -> Self {
        let missing = missing.iter().filter(|scope| !self.0.contains(scope)).take(SCOPES_LIMIT);
        Self(missing.chain(&self.0).cloned().collect())
    }
}

/// What lets requests in for a while.
pub(super) struct Token {
    pub(super) authorization: HeaderValue,
    /// When it is better to fetch another.
    renewal: Instant,
}

impl Token {
    /// Whether it will still be taken when a request arrives that begins now.
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.renewal
    }

    /// Fetches a token.
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
            // Old token servers know no POST, and some say so in words of their own: Artifactory with 401.
            let unknown = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::UNAUTHORIZED];
            if !unknown.contains(&response.status()) {
                let body = response.success().await?.read(LIMIT + 1).await?;
                return Self::understand(&body, &what);
            }
        }
        let mut request = ask(url, realm, scopes, &what);
        request.authorization =
            credentials.map(|credentials| secret_header(&credentials.header())).transpose()?;
        let body = http.send(&request).await?.success().await?.read(LIMIT + 1).await?;
        Self::understand(&body, &what)
    }

    fn understand(body: &[u8], what: &str) -> Result<Self> {
        Self::parse(body).ok_or_else(|| Error::failed(format!("cannot {what}: what it answers is no token")))
    }

    /// Reads the response of a token server; `None` when it holds no token that could be shown.
    fn parse(body: &[u8]) -> Option<Self> {
        let json: Value = (body.len() <= LIMIT).then(|| serde_json::from_slice(body).ok())??;
        let token = ["token", "access_token"]
            .iter()
            .filter_map(|key| json.get(key)?.as_str())
            .find(|token| !token.is_empty())?;
        let life = json.get("expires_in").and_then(Value::as_u64).filter(|life| *life > 0);
        let life = life.unwrap_or(LIFE).min(LIFE_LIMIT);
        // Early enough for the request to arrive before the end.
        let early = (life / 5).clamp(1, 10);
        let renewal = Instant::now() + Duration::from_secs(life.saturating_sub(early));
        Some(Self { authorization: secret_header(&format!("Bearer {token}")).ok()?, renewal })
    }
}

/// The question for a name and a password, or for nobody.
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

/// The question for a token that stands for a person.
fn exchange(url: Url, realm: &Realm, scopes: &Scopes, token: &Secret, what: &str) -> Request {
    // An address of nothing, for its query: a form is written alike.
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
    fn a_token_has_one_of_two_names_and_an_end() {
        let life = |body: &str| {
            Token::parse(body.as_bytes())
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
    fn what_a_registry_misses_goes_first_and_does_not_grow_without_end() {
        let scopes = Scopes::push("a");
        let missing = ["repository:b:pull".to_owned(), "repository:a:pull,push".to_owned()];
        assert_eq!(scopes.behind(&missing).0, ["repository:b:pull", "repository:a:pull,push"]);
        let many: Vec<_> = (0..100).map(|number| format!("repository:{number}:pull")).collect();
        assert_eq!(scopes.behind(&many).0.len(), SCOPES_LIMIT + 1);
    }
}
