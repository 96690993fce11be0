//! One registry as somebody to talk to: every request goes out with what lets it in.

use super::super::ClientOptions;
use super::auth::{Auth, Refused};
use super::body::StreamingBody;
use super::challenge::Challenge;
use super::http::{Http, Request};
use super::keychain::Keychain;
use super::response::Response;
use super::retry::unless_cancelled;
use super::token::Scopes;
use super::upload_policy::UploadPolicy;
use super::url::same_server;
use crate::error::{Error, Kind, Result};
use reqwest::{StatusCode, Url};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The connections to one registry and what it has let us in for.
pub(super) struct Client {
    base: Url,
    http: Http,
    auth: Auth,
    /// Where the registry has sent us for what.
    redirects: Mutex<HashMap<Url, Url>>,
    /// How it wants to be sent blobs.
    pub(super) upload_policy: UploadPolicy,
    /// The connections that blobs come over side by side.
    places: Arc<Semaphore>,
    /// It was asked for a part of a blob, and began to send all of it.
    whole_only: AtomicBool,
}

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(base: Url, http: Http, keychain: Keychain) -> Self {
        let options = http.options();
        Self {
            auth: Auth::new(base.clone(), keychain),
            redirects: Mutex::default(),
            places: Arc::new(Semaphore::new(options.concurrency)),
            upload_policy: UploadPolicy::new(base.host_str().unwrap_or_default(), options.chunk_size),
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
    /// status is an response.
    pub(super) async fn send(&self, request: Request, scopes: &Scopes) -> Result<Response> {
        let cancel = &self.options().cancel;
        // What ends an upload, and the token that it may need, outlive a stop.
        if !request.once {
            cancel.check()?;
        }
        // Whether something was changed is found out.
        match request.is_safe() && !request.once {
            true => unless_cancelled(cancel, self.exchange(request, scopes)).await,
            false => self.exchange(request, scopes).await,
        }
    }

    async fn exchange(&self, mut request: Request, scopes: &Scopes) -> Result<Response> {
        let ours = self.authorize(&mut request, scopes).await?;
        let mut response = self.http.send(&request).await?;
        // Twice: what was shown may be too old, and then the registry may want something else.
        for again in [false, true] {
            let refused = is_about_us(&response) && same_server(response.url(), &self.base);
            if !ours || !refused {
                break;
            }
            let refused = Refused { shown: request.authorization.as_ref(), again };
            match self.auth.renew(&self.http, scopes, &response, refused).await {
                Ok(None) => break,
                Ok(new) => request.authorization = new,
                Err(error) => return Err(self.anonymous_because(error).await),
            }
            response = self.http.send(&request).await?;
        }
        if ours {
            self.auth.check(Some(response.status()))?;
            if is_denied(response.status()) {
                response.anonymous_because = self.auth.anonymous_because().await;
            }
        }
        Ok(response)
    }

    /// The same error with what kept us from naming anybody to the registry.
    async fn anonymous_because(&self, error: Error) -> Error {
        match self.auth.anonymous_because().await {
            Some(anonymous_because) if error.kind() == Kind::Denied => error.with_hint(anonymous_because),
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
    pub(super) async fn fetch(&self, request: Request, scopes: &Scopes) -> Result<Response> {
        let asked = request.url.clone();
        let known = self.redirects().get(&asked).cloned();
        if let Some(url) = known {
            let shortcut = request.clone().to(url).once();
            match self.http.send(&shortcut).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                _ => _ = self.redirects().remove(&asked),
            }
        }
        let response = self.send(request, scopes).await?;
        if response.status().is_success() && !same_server(response.url(), &asked) {
            self.redirects().insert(asked, response.url().clone());
        }
        Ok(response)
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
        outgoing: StreamingBody,
    ) -> Result<Response> {
        let ours = self.authorize(&mut request, scopes).await?;
        let response = self.http.send_stream(&request, outgoing).await?;
        if ours && response.status() == StatusCode::UNAUTHORIZED {
            let refused = Refused { shown: request.authorization.as_ref(), again: false };
            let renewed = self.auth.renew(&self.http, scopes, &response, refused).await?;
            let error = response.refusal().await;
            return Err(if renewed.is_some() { error.with_retry_after(Duration::ZERO) } else { error });
        }
        Ok(response)
    }

    /// Adds what lets the request in, and says whether it goes to the registry itself: nobody else sees it.
    async fn authorize(&self, request: &mut Request, scopes: &Scopes) -> Result<bool> {
        let ours = same_server(&request.url, &self.base);
        if ours {
            request.authorization = match self.auth.authorization(&self.http, scopes).await {
                Ok(authorization) => authorization,
                Err(error) => return Err(self.anonymous_because(error).await),
            };
        }
        Ok(ours)
    }
}

fn is_denied(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Whether an response says that showing something else could help.
fn is_about_us(response: &Response) -> bool {
    match response.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => Challenge::all(response.challenges()).iter().any(Challenge::wants_more),
        _ => false,
    }
}
