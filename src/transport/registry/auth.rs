//! Being let in: the registry is asked once how it wants it, tokens are fetched when they are needed, kept while
//! they last, and fetched anew once when the registry no longer takes them.

use super::address::{host_of, is_loopback};
use super::answer::Answer;
use super::challenge::Challenge;
use super::credentials::Credentials;
use super::http::{Http, Request};
use crate::error::{Error, Kind, Result};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The largest answer of a token server that is read, in bytes.
const TOKEN_LIMIT: usize = 64 << 10;
/// How long a token lasts whose server does not say (distribution's "Token Authentication Specification").
const TOKEN_LIFE: u64 = 60;
/// The longest life that is believed: an hour before it, anything may have changed.
const TOKEN_LIFE_LIMIT: u64 = 24 * 60 * 60;

/// What a request needs to be allowed to do; the first part is the most important one, because a few
/// registries look at no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
}

/// What one registry wants to see, and what it has been shown.
pub(super) struct Auth {
    base: Url,
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How the registry wants it; the outer `None` until it was asked.
    challenge: Option<Option<Challenge>>,
    tokens: HashMap<Scopes, Token>,
}

struct Token {
    authorization: HeaderValue,
    /// When it is better to fetch another.
    renewal: Instant,
}

impl Auth {
    /// Asks nothing yet.
    pub(super) fn new(base: Url, credentials: Option<Credentials>) -> Self {
        Self { base, credentials, state: Mutex::default() }
    }

    /// What to show for a request that needs these scopes. Whoever comes while another one is asking waits
    /// and finds the answer.
    pub(super) async fn authorization(&self, http: &Http, scopes: &Scopes) -> Result<Option<HeaderValue>> {
        let mut state = self.state.lock().await;
        if state.challenge.is_none() {
            state.challenge = Some(self.ping(http).await?);
        }
        match state.challenge.clone().flatten() {
            None => Ok(None),
            Some(Challenge::Basic) => self.basic(),
            Some(challenge) => match state.tokens.get(scopes) {
                Some(token) if Instant::now() < token.renewal => Ok(Some(token.authorization.clone())),
                _ => self.fetch(http, &mut state, scopes, &challenge).await.map(Some),
            },
        }
    }

    /// What to show after a refusal; `None` when there is nothing that was not shown already.
    pub(super) async fn renew(
        &self,
        http: &Http,
        scopes: &Scopes,
        refusal: &Answer,
        shown: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>> {
        let mut state = self.state.lock().await;
        if let Some(token) = state.tokens.get(scopes)
            && Some(&token.authorization) != shown
        {
            return Ok(Some(token.authorization.clone()));
        }
        // A refusal knows better than the ping what it is about, but some come without a word.
        if let Some(challenge) = Challenge::choose(refusal.challenges()) {
            state.challenge = Some(Some(challenge));
        }
        match state.challenge.clone().flatten() {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.basic()?.filter(|basic| Some(basic) != shown)),
            Some(challenge) => self.fetch(http, &mut state, scopes, &challenge).await.map(Some),
        }
    }

    /// Asks the registry how it wants it.
    async fn ping(&self, http: &Http) -> Result<Option<Challenge>> {
        let host = host_of(&self.base);
        let what = format!("reach the registry {host}");
        let answer = http.send(&Request::new(Method::GET, self.base.clone(), what)).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => Ok(Challenge::choose(answer.challenges())),
            StatusCode::NOT_FOUND => {
                Err(Error::failed(format!("{host} is no registry: it does not know /v2/"))
                    .hint("is the host name right? An image's name is HOST/REPOSITORY:TAG"))
            }
            status if status.is_success() => Ok(None),
            _ => Err(answer.refusal().await),
        }
    }

    fn basic(&self) -> Result<Option<HeaderValue>> {
        self.credentials.as_ref().map(|credentials| secret(&credentials.basic())).transpose()
    }

    /// Fetches a token (distribution, "Token Authentication Specification").
    async fn fetch(
        &self,
        http: &Http,
        state: &mut State,
        scopes: &Scopes,
        challenge: &Challenge,
    ) -> Result<HeaderValue> {
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return Err(Error::failed("no token is to be had for a password"));
        };
        let mut url = self.realm(realm)?;
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(service.iter().map(|service| ("service", service)));
            // What the registry misses goes first.
            let missing = scope.iter().filter(|scope| !scopes.0.contains(scope));
            query.extend_pairs(missing.chain(&scopes.0).map(|scope| ("scope", scope)));
        }
        let mut request = Request::new(
            Method::GET,
            url,
            format!("get a token for {} from {}", host_of(&self.base), realm_host(realm)),
        );
        request.authorization = self.basic()?;
        let mut answer = http.send(&request).await?.success().await?;
        let body = answer.read(TOKEN_LIMIT + 1).await?;
        let token = Token::parse(&body).ok_or_else(|| {
            Error::new(Kind::Failed, format!("cannot {}: what it answers is no token", request.what))
        })?;
        let authorization = token.authorization.clone();
        state.tokens.insert(scopes.clone(), token);
        Ok(authorization)
    }

    /// The address of a token server, if the password may be sent there: encrypted, or to the very host that is
    /// spoken to without encryption anyway.
    fn realm(&self, realm: &str) -> Result<Url> {
        let refuse = |why: &str| {
            Error::denied(format!("{} sends to a token server that {why}", host_of(&self.base)))
                .hint("nothing was sent there; the registry's operator must give an https address")
        };
        let mut url = Url::parse(realm).map_err(|_| refuse("has no valid address"))?;
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let same_host = url.host_str() == self.base.host_str();
        let both_local = is_loopback(&url) && is_loopback(&self.base);
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.base.scheme() == "http" && (same_host || both_local) => Ok(url),
            _ => Err(refuse("is reached without encryption")),
        }
    }
}

fn realm_host(realm: &str) -> String {
    Url::parse(realm).map(|url| host_of(&url)).unwrap_or_default()
}

/// A header that shows up in no log.
fn secret(value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Error::failed("the credentials hold characters that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Token {
    /// Reads the answer of a token server; `None` when it holds no token that could be shown.
    fn parse(body: &[u8]) -> Option<Self> {
        let json: Value = (body.len() <= TOKEN_LIMIT).then(|| serde_json::from_slice(body).ok())??;
        let token = ["token", "access_token"]
            .iter()
            .filter_map(|key| json.get(key)?.as_str())
            .find(|token| !token.is_empty())?;
        let life = json.get("expires_in").and_then(Value::as_u64).filter(|life| *life > 0);
        let life = life.unwrap_or(TOKEN_LIFE).min(TOKEN_LIFE_LIMIT);
        // Early enough for the request to arrive before the end.
        let early = (life / 5).clamp(1, 10);
        let renewal = Instant::now() + Duration::from_secs(life.saturating_sub(early));
        Some(Self { authorization: secret(&format!("Bearer {token}")).ok()?, renewal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(base: &str) -> Auth {
        Auth::new(Url::parse(base).unwrap(), None)
    }

    #[test]
    fn the_password_goes_nowhere_without_encryption_but_to_the_registrys_own_host() {
        for (base, realm, allowed) in [
            ("https://r.io/v2/", "https://auth.io/token", true),
            ("https://r.io/v2/", "http://r.io/token", false),
            ("https://r.io/v2/", "http://127.0.0.1/token", false),
            ("http://r.io/v2/", "http://r.io:5001/token", true),
            ("http://r.io/v2/", "http://auth.io/token", false),
            ("http://127.0.0.1:5000/v2/", "http://localhost:5001/token", true),
            ("http://127.0.0.1:5000/v2/", "http://auth.io/token", false),
            ("http://r.io/v2/", "file:///etc/passwd", false),
            ("http://r.io/v2/", "token", false),
        ] {
            assert_eq!(auth(base).realm(realm).is_ok(), allowed, "{base} {realm}");
        }
    }

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
}
