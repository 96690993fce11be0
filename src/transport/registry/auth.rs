//! Being let in: the registry is asked once how it wants it, tokens are fetched when they are needed, kept while
//! they last, and fetched anew once when the registry no longer takes them.

use super::address::{host_of, is_loopback};
use super::answer::Answer;
use super::challenge::{Challenge, Realm};
use super::credentials::{Credentials, Keychain};
use super::http::{Http, Request};
use super::token::{SCOPES_LIMIT, Scopes, Token};
use crate::error::{Error, Result};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// What one registry wants to see, and what it has been shown.
pub(super) struct Auth {
    base: Url,
    keychain: Arc<Keychain>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How the registry wants it; the outer `None` until it was asked.
    challenge: Option<Option<Challenge>>,
    /// It was asked, and is no registry: nobody needs to ask that again.
    is_none: bool,
    /// Who we are; the outer `None` until that was looked up.
    credentials: Option<Option<Credentials>>,
    tokens: HashMap<Scopes, Token>,
    /// What the registry has asked for beyond what we thought it would.
    missing: HashMap<Scopes, Vec<String>>,
}

impl Auth {
    /// Asks nothing yet.
    pub(super) fn new(base: Url, keychain: Keychain) -> Self {
        Self { base, keychain: Arc::new(keychain), state: Mutex::default() }
    }

    /// What to show for a request that needs these scopes. Whoever comes while another one is asking waits
    /// and finds the answer.
    pub(super) async fn authorization(&self, http: &Http, scopes: &Scopes) -> Result<Option<HeaderValue>> {
        let mut state = self.state.lock().await;
        if state.challenge.is_none() {
            state.challenge = Some(self.ping(http, &mut state.is_none).await?);
        }
        match state.challenge.clone().flatten() {
            None => Ok(None),
            Some(Challenge::Basic) => self.password(&mut state).await,
            Some(Challenge::Bearer(realm)) => match state.tokens.get(scopes) {
                Some(token) if token.is_fresh() => Ok(Some(token.authorization.clone())),
                _ => self.token(http, &mut state, scopes, &realm).await.map(Some),
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
            if let Challenge::Bearer(realm) = &challenge {
                let missing = state.missing.entry(scopes.clone()).or_default();
                missing.retain(|scope| !realm.scopes.contains(scope));
                missing.splice(..0, realm.scopes.iter().cloned());
                missing.truncate(SCOPES_LIMIT);
            }
            state.challenge = Some(Some(challenge));
        }
        let authorization = match state.challenge.clone().flatten() {
            None => None,
            Some(Challenge::Basic) => self.password(&mut state).await?,
            Some(Challenge::Bearer(realm)) => Some(self.token(http, &mut state, scopes, &realm).await?),
        };
        Ok(authorization.filter(|new| Some(new) != shown))
    }

    /// Asks the registry how it wants it.
    async fn ping(&self, http: &Http, is_none: &mut bool) -> Result<Option<Challenge>> {
        let host = host_of(&self.base);
        let what = format!("reach the registry {host}");
        let no_registry = || {
            Error::failed(format!("{host} is no registry: it does not know /v2/"))
                .hint("is the host name right? An image's name is HOST/REPOSITORY:TAG")
        };
        if *is_none {
            return Err(no_registry());
        }
        let answer = http.send(&Request::new(Method::GET, self.base.clone(), what)).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => Ok(Challenge::choose(answer.challenges())),
            StatusCode::NOT_FOUND => {
                *is_none = true;
                Err(no_registry())
            }
            status if status.is_success() => Ok(None),
            _ => Err(answer.refusal().await),
        }
    }

    /// Who we are. Found out when it is asked for, and once.
    async fn credentials(&self, state: &mut State) -> Result<Option<Credentials>> {
        if let Some(known) = &state.credentials {
            return Ok(known.clone());
        }
        let keychain = Arc::clone(&self.keychain);
        let found = spawn_blocking(move || keychain.find()).await;
        let found = found.map_err(|_| Error::failed("the search for credentials was abandoned"))??;
        state.credentials = Some(found.clone());
        Ok(found)
    }

    async fn password(&self, state: &mut State) -> Result<Option<HeaderValue>> {
        self.credentials(state).await?.map(|credentials| secret(&credentials.header())).transpose()
    }

    /// Fetches a token, unless we were given one.
    async fn token(
        &self,
        http: &Http,
        state: &mut State,
        scopes: &Scopes,
        realm: &Realm,
    ) -> Result<HeaderValue> {
        let credentials = self.credentials(state).await?;
        if let Some(given @ Credentials::Registry(_)) = &credentials {
            return secret(&given.header());
        }
        let url = self.realm(&realm.address)?;
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

/// A header that shows up in no log.
pub(super) fn secret(value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Error::failed("the credentials hold characters that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
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
