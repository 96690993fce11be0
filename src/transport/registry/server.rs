//! One registry as somebody to talk to: every request goes out with what lets it in.

use super::super::ClientOptions;
use super::address::same_server;
use super::answer::Answer;
use super::auth::{Auth, Refused};
use super::challenge::Challenge;
use super::credentials::Keychain;
use super::http::{Http, Request};
use super::outgoing::Outgoing;
use super::quirks::Manners;
use super::retry::unless_cancelled;
use super::token::Scopes;
use crate::error::{Error, Kind, Result};
use reqwest::{StatusCode, Url};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The connections to one registry and what it has let us in for.
pub(super) struct Server {
    base: Url,
    http: Http,
    auth: Auth,
    /// Where the registry has sent us for what.
    redirects: Mutex<HashMap<Url, Url>>,
    /// How it wants to be sent blobs.
    pub(super) manners: Manners,
    /// The connections that blobs come over side by side.
    places: Arc<Semaphore>,
    /// It was asked for a part of a blob, and began to send all of it.
    whole_only: AtomicBool,
}

impl Server {
    /// Connects to nothing yet.
    pub(super) fn new(base: Url, http: Http, keychain: Keychain) -> Self {
        let options = http.options();
        Self {
            auth: Auth::new(base.clone(), keychain),
            redirects: Mutex::default(),
            places: Arc::new(Semaphore::new(options.concurrency)),
            manners: Manners::new(base.host_str().unwrap_or_default(), options.chunk_size),
            http,
            whole_only: AtomicBool::new(false),
            base,
        }
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
    pub(super) async fn send(&self, request: Request, scopes: &Scopes) -> Result<Answer> {
        let cancel = &self.options().cancel;
        // What ends an upload, and the token that it may need, outlive a cancellation.
        if !request.once {
            cancel.check()?;
        }
        // Whether something was changed is found out.
        match request.is_safe() && !request.once {
            true => unless_cancelled(cancel, self.exchange(request, scopes)).await,
            false => self.exchange(request, scopes).await,
        }
    }

    async fn exchange(&self, mut request: Request, scopes: &Scopes) -> Result<Answer> {
        let ours = self.authorize(&mut request, scopes).await?;
        let mut answer = self.http.send(&request).await?;
        // Twice: what was shown may be too old, and then the registry may want something else.
        for again in [false, true] {
            let refused = is_about_us(&answer) && same_server(answer.url(), &self.base);
            if !ours || !refused {
                break;
            }
            let refused = Refused { shown: request.authorization.as_ref(), again };
            match self.auth.renew(&self.http, scopes, &answer, refused).await {
                Ok(None) => break,
                Ok(new) => request.authorization = new,
                Err(error) => return Err(self.excuse(error).await),
            }
            answer = self.http.send(&request).await?;
        }
        if ours {
            self.auth.check(Some(answer.status()))?;
            if is_denied(answer.status()) {
                answer.excuse = self.auth.excuse().await;
            }
        }
        Ok(answer)
    }

    /// The same error with what kept us from naming anybody to the registry.
    async fn excuse(&self, error: Error) -> Error {
        match self.auth.excuse().await {
            Some(excuse) if error.kind() == Kind::Denied => error.with_hint(excuse),
            _ => error,
        }
    }

    /// Whether an address is the registry's own.
    pub(super) fn is_ours(&self, url: &Url) -> bool {
        same_server(url, &self.base)
    }

    /// A place among the connections that blobs come over, if one is free.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// How bytes travel.
    pub(super) fn options(&self) -> &ClientOptions {
        self.http.options()
    }

    /// Fetches something from where the registry sent us the last time; when that no longer works, because the
    /// signature in such an address is over or the host is gone, from where it sends us now.
    pub(super) async fn fetch(&self, request: Request, scopes: &Scopes) -> Result<Answer> {
        let asked = request.url.clone();
        let known = self.redirects().get(&asked).cloned();
        if let Some(url) = known {
            let shortcut = request.clone().to(url).once();
            match self.http.send(&shortcut).await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                _ => _ = self.redirects().remove(&asked),
            }
        }
        let answer = self.send(request, scopes).await?;
        if answer.status().is_success() && !same_server(answer.url(), &asked) {
            self.redirects().insert(asked, answer.url().clone());
        }
        Ok(answer)
    }

    /// Whether it is known to send blobs only whole, whatever part is asked for.
    pub(super) fn sends_only_whole_blobs(&self) -> bool {
        self.whole_only.load(Ordering::Relaxed)
    }

    /// Remembers that.
    pub(super) fn has_sent_a_whole_blob(&self) {
        self.whole_only.store(true, Ordering::Relaxed);
    }

    fn redirects(&self) -> MutexGuard<'_, HashMap<Url, Url>> {
        self.redirects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request with a body that is gone afterwards. When it came too late for its token, the error says that
    /// it may be sent again, and there is a new one by then.
    pub(super) async fn send_stream(
        &self,
        mut request: Request,
        scopes: &Scopes,
        outgoing: Outgoing,
    ) -> Result<Answer> {
        let ours = self.authorize(&mut request, scopes).await?;
        let answer = self.http.send_stream(&request, outgoing).await?;
        if ours && answer.status() == StatusCode::UNAUTHORIZED {
            let refused = Refused { shown: request.authorization.as_ref(), again: false };
            let renewed = self.auth.renew(&self.http, scopes, &answer, refused).await?;
            let error = answer.refusal().await;
            return Err(if renewed.is_some() { error.with_retry_after(Duration::ZERO) } else { error });
        }
        Ok(answer)
    }

    /// Adds what lets the request in, and says whether it goes to the registry itself: nobody else sees it.
    async fn authorize(&self, request: &mut Request, scopes: &Scopes) -> Result<bool> {
        let ours = same_server(&request.url, &self.base);
        if ours {
            request.authorization = match self.auth.authorization(&self.http, scopes).await {
                Ok(authorization) => authorization,
                Err(error) => return Err(self.excuse(error).await),
            };
        }
        Ok(ours)
    }
}

fn is_denied(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Whether an answer says that showing something else could help.
fn is_about_us(answer: &Answer) -> bool {
    match answer.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => Challenge::all(answer.challenges()).iter().any(Challenge::wants_more),
        _ => false,
    }
}
