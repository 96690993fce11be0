//! One registry as somebody to talk to: every request goes out with what lets it in.

use super::address::same_server;
use super::answer::Answer;
use super::auth::Auth;
use super::challenge::Challenge;
use super::credentials::Keychain;
use super::http::{Http, Request};
use super::outgoing::Outgoing;
use super::tls::Tls;
use super::token::Scopes;
use crate::error::Result;
use reqwest::{StatusCode, Url};

/// The connections to one registry and what it has let us in for.
pub(super) struct Server {
    base: Url,
    http: Http,
    auth: Auth,
}

impl Server {
    /// Connects to nothing yet.
    pub(super) fn new(base: Url, tls: Tls, keychain: Keychain) -> Self {
        Self { auth: Auth::new(base.clone(), keychain), http: Http::new(tls, base.clone()), base }
    }

    /// An address under the root of the protocol. Its words are those of references and digests, which need no
    /// escaping.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }

    /// Sends a request; when the registry does not take what it is shown, once more with something new. Any
    /// status is an answer.
    pub(super) async fn send(&self, mut request: Request, scopes: &Scopes) -> Result<Answer> {
        let ours = self.authorize(&mut request, scopes).await?;
        let answer = self.http.send(&request).await?;
        let refused = is_about_us(&answer) && same_server(answer.url(), &self.base);
        if !ours || !refused {
            return Ok(answer);
        }
        let shown = request.authorization.as_ref();
        match self.auth.renew(&self.http, scopes, &answer, shown).await? {
            None => Ok(answer),
            new => {
                request.authorization = new;
                self.http.send(&request).await
            }
        }
    }

    /// Sends a request with a body that cannot be sent twice.
    pub(super) async fn send_stream(
        &self,
        mut request: Request,
        scopes: &Scopes,
        outgoing: Outgoing,
    ) -> Result<Answer> {
        self.authorize(&mut request, scopes).await?;
        self.http.send_stream(&request, outgoing).await
    }

    /// Adds what lets the request in, and says whether it goes to the registry itself: nobody else sees it.
    async fn authorize(&self, request: &mut Request, scopes: &Scopes) -> Result<bool> {
        let ours = same_server(&request.url, &self.base);
        if ours {
            request.authorization = self.auth.authorization(&self.http, scopes).await?;
        }
        Ok(ours)
    }
}

/// Whether an answer says that showing something else could help.
fn is_about_us(answer: &Answer) -> bool {
    match answer.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => {
            Challenge::choose(answer.challenges()).is_some_and(|challenge| challenge.wants_more())
        }
        _ => false,
    }
}
