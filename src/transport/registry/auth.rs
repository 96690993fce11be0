//! Being let in: the registry is asked once how it wants it, tokens are fetched when they are needed, kept while
//! they last, and fetched anew once when the registry no longer takes them.

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

/// What one registry wants to see, and what it has been shown.
pub(super) struct Auth {
    base: Url,
    keychain: Arc<Keychain>,
    state: Mutex<State>,
    /// The registry was asked for the root of its protocol and does not know it, and has not answered anything else yet.
    /// One of plain files need not know it.
    is_doubtful: AtomicBool,
}

#[derive(Default)]
struct State {
    /// How the registry wants it, what has worked before the rest; `None` until it was asked.
    challenges: Option<Vec<Challenge>>,
    /// Who we are; `None` until that was looked up.
    identity: Option<FoundCredentials>,
    tokens: HashMap<Scopes, Token>,
    /// What the registry has asked for beyond what we thought it would.
    missing: HashMap<Scopes, Vec<String>>,
}

/// What was shown and refused.
pub(super) struct Refused<'a> {
    pub(super) shown: Option<&'a HeaderValue>,
    /// Whether that was an response to an earlier refusal.
    pub(super) again: bool,
}

impl Auth {
    /// Asks nothing yet.
    pub(super) fn new(base: Url, keychain: Keychain) -> Self {
        Self {
            base,
            keychain: Arc::new(keychain),
            state: Mutex::default(),
            is_doubtful: AtomicBool::new(false),
        }
    }

    /// What to show for a request that needs these scopes. Whoever comes while another one is asking waits
    /// and finds the response.
    pub(super) async fn authorization(&self, http: &Http, scopes: &Scopes) -> Result<Option<HeaderValue>> {
        let mut state = self.state.lock().await;
        let challenges = match &state.challenges {
            Some(known) => known.clone(),
            None => self.ping(http, &mut state).await?,
        };
        self.response(http, &mut state, scopes, challenges, None).await
    }

    /// What to show after a refusal; `None` when there is nothing that was not shown already.
    pub(super) async fn renew(
        &self,
        http: &Http,
        scopes: &Scopes,
        refusal: &Response,
        refused: Refused<'_>,
    ) -> Result<Option<HeaderValue>> {
        let mut state = self.state.lock().await;
        if !refused.again
            && let Some(token) = state.tokens.get(scopes)
            && Some(&token.authorization) != refused.shown
        {
            return Ok(Some(token.authorization.clone()));
        }
        // A refusal knows better than the ping what it is about, but some come without a word.
        let mut challenges = Challenge::all(refusal.challenges());
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
        self.response(http, &mut state, scopes, challenges, Some(&refused)).await
    }

    /// Fails where the registry knows neither the root of its protocol nor what was asked of it since.
    pub(super) fn check(&self, status: Option<StatusCode>) -> Result<()> {
        let absent = |status| matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
        if status.is_some_and(|status| status.is_success()) {
            self.is_doubtful.store(false, Ordering::Relaxed);
        }
        match self.is_doubtful.load(Ordering::Relaxed) && status.is_none_or(absent) {
            true => {
                Err(Error::failed(format!("{} is no registry: it does not know /v2/", host_of(&self.base)))
                    .with_hint("is the host name right? An image's name is HOST/REPOSITORY:TAG"))
            }
            false => Ok(()),
        }
    }

    /// Why nobody was named to the registry, where something was in the way of that.
    pub(super) async fn anonymous_because(&self) -> Option<String> {
        let state = self.state.lock().await;
        let who = state.identity.as_ref().filter(|who| who.credentials.is_none())?;
        Some(format!("{} was asked without credentials: {}", host_of(&self.base), who.problem.as_ref()?))
    }

    /// Asks the registry how it wants it. What a server of plain files says to a directory means nothing: what is asked
    /// of it then gets an response of its own.
    async fn ping(&self, http: &Http, state: &mut State) -> Result<Vec<Challenge>> {
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

    /// The first challenge that can be answered with something that was not refused, and its response. One that cannot be
    /// used, because its token server is gone or must not be asked, is told only if there is no other.
    async fn response(
        &self,
        http: &Http,
        state: &mut State,
        scopes: &Scopes,
        mut challenges: Vec<Challenge>,
        refused: Option<&Refused<'_>>,
    ) -> Result<Option<HeaderValue>> {
        let mut failure = None;
        for (position, challenge) in challenges.iter().enumerate() {
            // What was shown is our response to it already, however new.
            let is_answered = refused.is_some_and(|refused| {
                refused.again && refused.shown.is_some_and(|shown| challenge.is_answered_by(shown))
            });
            if is_answered {
                continue;
            }
            let known = state.tokens.get(scopes).filter(|token| token.is_fresh() && refused.is_none());
            let header = match challenge {
                Challenge::Basic => self.password(http, state).await,
                Challenge::Bearer(_) if known.is_some() => Ok(known.map(|token| token.authorization.clone())),
                Challenge::Bearer(realm) => self.token(http, state, scopes, realm).await.map(Some),
            };
            match header {
                Ok(Some(header)) if refused.is_none_or(|refused| refused.shown != Some(&header)) => {
                    // The next request begins with what could be answered now.
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

    /// Who we are. Found out when it is asked for, and once; what is in the way of that is told.
    async fn credentials(&self, http: &Http, state: &mut State) -> Result<Option<Credentials>> {
        if let Some(known) = &state.identity {
            return Ok(known.credentials.clone());
        }
        let keychain = Arc::clone(&self.keychain);
        let found = spawn_blocking(move || keychain.find()).await;
        let found = found.map_err(|_| Error::failed("the search for credentials was abandoned"))?;
        if let Some(doubt) = &found.problem {
            let so = match found.credentials {
                Some(_) => String::new(),
                None => format!("; {} is asked without credentials", host_of(&self.base)),
            };
            http.options().progress.warn(&format!("{doubt}{so}"));
        }
        Ok(state.identity.insert(found).credentials.clone())
    }

    async fn password(&self, http: &Http, state: &mut State) -> Result<Option<HeaderValue>> {
        self.credentials(http, state)
            .await?
            .map(|credentials| secret_header(&credentials.header()))
            .transpose()
    }

    /// Fetches a token, unless we were given one.
    async fn token(
        &self,
        http: &Http,
        state: &mut State,
        scopes: &Scopes,
        realm: &Realm,
    ) -> Result<HeaderValue> {
        let url = self.realm(&realm.address)?;
        let credentials = self.credentials(http, state).await?;
        if let Some(given @ Credentials::Registry(_)) = &credentials {
            return secret_header(&given.header());
        }
        let wanted = scopes.behind(state.missing.get(scopes).map(Vec::as_slice).unwrap_or_default());
        let registry = host_of(&self.base);
        let token = Token::fetch(http, url, realm, &wanted, credentials.as_ref(), &registry).await?;
        let authorization = token.authorization.clone();
        state.tokens.insert(scopes.clone(), token);
        Ok(authorization)
    }

    /// The address of a token server, if the password may be sent there: encrypted, or to the very host that is
    /// spoken to without encryption anyway.
    fn realm(&self, realm: &str) -> Result<Url> {
        let refuse = |why: &str| {
            Error::denied(format!("{} sends to a token server that {why}", host_of(&self.base)))
                .with_hint("nothing was sent there; the registry's operator must give an https address")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(base: &str) -> Auth {
        Auth::new(Url::parse(base).unwrap(), Keychain::default())
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
}
