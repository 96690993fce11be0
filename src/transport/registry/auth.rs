//! Authentication: the registry is asked once for its challenges, and tokens are cached until they expire or are rejected.

use super::challenge::{Challenge, Realm};
use super::credentials::Credentials;
use super::http::{Http, Request};
use super::keychain::{FoundCredentials, Keychain};
use super::response::Response;
use super::retry::is_transient;
use super::token::{SCOPES_LIMIT, Scopes, Token, secret_header};
use super::url::{host_of, is_loopback};
use crate::error::{Error, Result};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// The authentication of one registry.
pub(super) struct Auth {
    base: Url,
    keychain: Arc<Keychain>,
    state: Mutex<AuthState>,
    /// The registry has answered 404 to `/v2/` and nothing else yet. A static file server may do that.
    is_doubtful: AtomicBool,
}

#[derive(Default)]
struct AuthState {
    /// The registry's challenges, the one that worked last first; `None` before the first request.
    challenges: Option<Vec<Challenge>>,
    /// The credentials; `None` before they were looked up.
    found: Option<FoundCredentials>,
    tokens: HashMap<Scopes, Token>,
    /// The scopes that the registry required beyond those that were requested.
    missing: HashMap<Scopes, Vec<String>>,
}

/// An authorization that the registry has rejected.
pub(super) struct Rejection<'a> {
    pub(super) sent: Option<&'a HeaderValue>,
    /// Set if it was already the replacement of a rejected authorization.
    pub(super) repeated: bool,
}

impl Auth {
    /// Returns the authentication of the registry at this base URL. No request is sent yet.
    pub(super) fn new(base: Url, keychain: Keychain) -> Self {
        Self {
            base,
            keychain: Arc::new(keychain),
            state: Mutex::default(),
            is_doubtful: AtomicBool::new(false),
        }
    }

    /// Returns the `Authorization` header for a request that needs these scopes. Concurrent requests wait for the first one
    /// and share its token.
    pub(super) async fn authorization(&self, http: &Http, scopes: &Scopes) -> Result<Option<HeaderValue>> {
        let mut state = self.state.lock().await;
        let challenges = match &state.challenges {
            Some(known) => known.clone(),
            None => self.ping(http, &mut state).await?,
        };
        self.answer(http, &mut state, scopes, challenges, None).await
    }

    /// Returns another `Authorization` header after a rejection; `None` if there is no other.
    pub(super) async fn renew(
        &self,
        http: &Http,
        scopes: &Scopes,
        response: &Response,
        rejection: Rejection<'_>,
    ) -> Result<Option<HeaderValue>> {
        let mut state = self.state.lock().await;
        if !rejection.repeated
            && let Some(token) = state.tokens.get(scopes)
            && Some(&token.authorization) != rejection.sent
        {
            return Ok(Some(token.authorization.clone()));
        }
        // The challenges of this response are more specific than those of `/v2/`, but may be missing.
        let mut challenges = Challenge::all(response.challenges());
        if challenges.is_empty() {
            challenges = state.challenges.clone().unwrap_or_default();
        }
        for challenge in &challenges {
            if let Challenge::Bearer(realm) = challenge {
                let missing = state.missing.entry(scopes.clone()).or_default();
                missing.retain(|scope| !realm.scopes.contains(scope));
                missing.splice(..0, realm.scopes.iter().cloned());
                missing.truncate(SCOPES_LIMIT);
            }
        }
        self.answer(http, &mut state, scopes, challenges, Some(&rejection)).await
    }

    /// Checks that the server is a registry, given the status of its latest response.
    ///
    /// # Errors
    /// When it knows neither `/v2/` nor anything that was requested since.
    pub(super) fn check_is_registry(&self, status: Option<StatusCode>) -> Result<()> {
        let is_unknown = |status| matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
        if status.is_some_and(|status| status.is_success()) {
            self.is_doubtful.store(false, Ordering::Relaxed);
        }
        if self.is_doubtful.load(Ordering::Relaxed) && status.is_none_or(is_unknown) {
            let host = host_of(&self.base);
            return Err(Error::failed(format!("{host} is not a registry: it does not know /v2/"))
                .with_hint("is the host name right? An image's name is HOST/REPOSITORY:TAG"));
        }
        Ok(())
    }

    /// Returns why requests are sent without credentials, if looking for them failed.
    pub(super) async fn anonymous_because(&self) -> Option<String> {
        let state = self.state.lock().await;
        let found = state.found.as_ref().filter(|found| found.credentials.is_none())?;
        Some(format!("{} was asked without credentials: {}", host_of(&self.base), found.problem.as_ref()?))
    }

    /// Requests `/v2/` for the challenges of the registry. A static file server may refuse to list this directory, so that
    /// error statuses do not matter here.
    async fn ping(&self, http: &Http, state: &mut AuthState) -> Result<Vec<Challenge>> {
        let what = format!("reach the registry {}", host_of(&self.base));
        let response = http.send(&Request::new(Method::GET, self.base.clone(), what)).await?;
        let status = response.status();
        let challenges = match status {
            _ if status.is_success() => Vec::new(),
            _ if status.is_client_error() && !is_transient(status) => Challenge::all(response.challenges()),
            _ => return Err(response.refusal().await),
        };
        self.is_doubtful.store(status == StatusCode::NOT_FOUND, Ordering::Relaxed);
        state.challenges = Some(challenges.clone());
        Ok(challenges)
    }

    /// Returns the header for the first challenge that can be answered with something that was not rejected. The error of a
    /// challenge that cannot be answered, because its token server fails or is not allowed, counts only if there is no
    /// other challenge.
    async fn answer(
        &self,
        http: &Http,
        state: &mut AuthState,
        scopes: &Scopes,
        mut challenges: Vec<Challenge>,
        rejection: Option<&Rejection<'_>>,
    ) -> Result<Option<HeaderValue>> {
        let mut failure = None;
        for (position, challenge) in challenges.iter().enumerate() {
            // A replacement that was rejected is the best answer to its challenge.
            let is_answered = rejection.is_some_and(|rejection| {
                rejection.repeated && rejection.sent.is_some_and(|sent| challenge.is_answered_by(sent))
            });
            if is_answered {
                continue;
            }
            let known = state.tokens.get(scopes).filter(|token| token.is_fresh() && rejection.is_none());
            let header = match challenge {
                Challenge::Basic => self.password(http, state).await,
                Challenge::Bearer(_) if known.is_some() => Ok(known.map(|token| token.authorization.clone())),
                Challenge::Bearer(realm) => self.token(http, state, scopes, realm).await.map(Some),
            };
            match header {
                Ok(Some(header)) if rejection.is_none_or(|rejection| rejection.sent != Some(&header)) => {
                    // The next request tries this challenge first.
                    challenges[..=position].rotate_right(1);
                    state.challenges = Some(challenges);
                    return Ok(Some(header));
                }
                Ok(_) => {}
                Err(error) => _ = failure.get_or_insert(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Returns the credentials. They are looked up when they are first needed; an error of the lookup is a warning.
    async fn credentials(&self, http: &Http, state: &mut AuthState) -> Result<Option<Credentials>> {
        if let Some(found) = &state.found {
            return Ok(found.credentials.clone());
        }
        let keychain = Arc::clone(&self.keychain);
        let found = spawn_blocking(move || keychain.find()).await;
        let found = found.map_err(|_| Error::failed("the search for credentials was abandoned"))?;
        if let Some(problem) = &found.problem {
            let consequence = match found.credentials {
                Some(_) => String::new(),
                None => format!("; {} is asked without credentials", host_of(&self.base)),
            };
            http.options().progress.warn(&format!("{problem}{consequence}"));
        }
        Ok(state.found.insert(found).credentials.clone())
    }

    async fn password(&self, http: &Http, state: &mut AuthState) -> Result<Option<HeaderValue>> {
        let credentials = self.credentials(http, state).await?;
        credentials.map(|credentials| secret_header(&credentials.header())).transpose()
    }

    /// Returns the header with a token: the one in the credentials, or one that is fetched from the token server.
    async fn token(
        &self,
        http: &Http,
        state: &mut AuthState,
        scopes: &Scopes,
        realm: &Realm,
    ) -> Result<HeaderValue> {
        let url = self.token_server(&realm.url)?;
        let credentials = self.credentials(http, state).await?;
        if let Some(given @ Credentials::Registry(_)) = &credentials {
            return secret_header(&given.header());
        }
        let missing = state.missing.get(scopes).map(Vec::as_slice).unwrap_or_default();
        let all = scopes.with_missing(missing);
        let registry = host_of(&self.base);
        let fetch = async |scopes: &Scopes| {
            Token::fetch(http, url.clone(), realm, scopes, credentials.as_ref(), &registry).await
        };
        let token = match (fetch(&all).await, all.without_delete()) {
            // Quay's token server does not know this action. Deleting is part of pushing there.
            (Err(error), Some(fewer)) if error.status() == Some(400) => fetch(&fewer).await?,
            (token, _) => token?,
        };
        let authorization = token.authorization.clone();
        state.tokens.insert(scopes.clone(), token);
        Ok(authorization)
    }

    /// Parses the URL of a token server.
    ///
    /// # Errors
    /// When the password must not be sent there: without encryption it is sent only to the host of a registry that is
    /// itself reached without encryption.
    fn token_server(&self, url: &str) -> Result<Url> {
        let refuse = |why: &str| {
            Error::denied(format!("{} sends to a token server that {why}", host_of(&self.base)))
                .with_hint("nothing was sent there; the registry's operator must give an https address")
        };
        let mut url = Url::parse(url).map_err(|_| refuse("has no valid address"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(base: &str) -> Auth {
        Auth::new(Url::parse(base).unwrap(), Keychain::default())
    }

    #[test]
    fn without_encryption_the_password_is_sent_only_to_the_host_of_the_registry() {
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
            assert_eq!(auth(base).token_server(realm).is_ok(), allowed, "{base} {realm}");
        }
    }
}
