//! A client for one registry: it adds authorization to every request.

use super::super::ClientOptions;
use super::auth::{Auth, Rejection};
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
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A client for one registry, with its connections and tokens.
pub(super) struct Client {
    base: Url,
    http: Http,
    auth: Auth,
    /// The redirects of earlier downloads, by the URL that was requested.
    redirects: Mutex<HashMap<Url, Url>>,
    /// The way in which blobs are uploaded.
    pub(super) upload_policy: UploadPolicy,
    /// Permits for the parallel connections of downloads.
    connections: Arc<Semaphore>,
    /// The registry has sent a whole blob in response to a request for a range.
    ignores_ranges: AtomicBool,
    /// The registry has the referrers API, if it was asked.
    pub(super) has_referrers_api: OnceLock<bool>,
}

impl Client {
    /// Returns a client for the registry at this base URL. It connects when it is used.
    pub(super) fn new(base: Url, http: Http, keychain: Keychain) -> Self {
        let options = http.options();
        Self {
            auth: Auth::new(base.clone(), keychain),
            redirects: Mutex::default(),
            connections: Arc::new(Semaphore::new(options.concurrency)),
            upload_policy: UploadPolicy::new(base.host_str().unwrap_or_default(), options.chunk_size),
            http,
            ignores_ranges: AtomicBool::new(false),
            has_referrers_api: OnceLock::new(),
            base,
        }
    }

    /// Returns a URL below the base URL. The words of references and digests need no escaping.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }

    /// Sends a request with authorization, and returns a response of any status. If the registry rejects the authorization,
    /// the request is sent again with a new one.
    pub(super) async fn send(&self, request: Request, scopes: &Scopes) -> Result<Response> {
        let cancel = &self.options().cancel;
        // Requests that end an upload, and those for the tokens that they need, are sent after a cancellation too.
        if !request.once {
            cancel.check()?;
        }
        // A request that changes something is waited for: its result has to be known.
        if request.is_safe() && !request.once {
            unless_cancelled(cancel, self.send_authorized(request, scopes)).await
        } else {
            self.send_authorized(request, scopes).await
        }
    }

    async fn send_authorized(&self, mut request: Request, scopes: &Scopes) -> Result<Response> {
        let is_own = self.authorize(&mut request, scopes).await?;
        let mut response = self.http.send(&request).await?;
        // Twice: the token may have expired, and then the registry may require another scheme.
        for repeated in [false, true] {
            let rejected = is_rejected(&response) && same_server(response.url(), &self.base);
            if !is_own || !rejected {
                break;
            }
            let rejection = Rejection { sent: request.authorization.as_ref(), repeated };
            match self.auth.renew(&self.http, scopes, &response, rejection).await {
                Ok(None) => break,
                Ok(new) => request.authorization = new,
                Err(error) => return Err(self.explain_denial(error).await),
            }
            response = self.http.send(&request).await?;
        }
        if is_own {
            self.auth.check_is_registry(Some(response.status()))?;
            if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                response.anonymous_because = self.auth.anonymous_because().await;
            }
        }
        Ok(response)
    }

    /// Adds the reason for missing credentials to a denial.
    async fn explain_denial(&self, error: Error) -> Error {
        match self.auth.anonymous_because().await {
            Some(reason) if error.kind() == Kind::Denied => error.with_hint(reason),
            _ => error,
        }
    }

    /// Returns whether a URL is on the registry itself.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        same_server(url, &self.base)
    }

    /// Returns a permit for one more parallel connection, if one is free.
    pub(super) fn connection_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// Returns the options of transfers.
    pub(super) fn options(&self) -> &ClientOptions {
        self.http.options()
    }

    /// Sends a GET to the URL that the registry redirected it to the last time. If that fails, because the signature in the
    /// URL has expired or the host is gone, the registry is asked again.
    pub(super) async fn fetch(&self, request: Request, scopes: &Scopes) -> Result<Response> {
        let original = request.url.clone();
        let known = self.redirects().get(&original).cloned();
        if let Some(url) = known {
            let shortcut = request.clone().to(url).once();
            match self.http.send(&shortcut).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                _ => _ = self.redirects().remove(&original),
            }
        }
        let response = self.send(request, scopes).await?;
        if response.status().is_success() && !same_server(response.url(), &original) {
            self.redirects().insert(original, response.url().clone());
        }
        Ok(response)
    }

    /// Returns whether the registry is known to send whole blobs in response to requests for ranges.
    pub(super) fn ignores_ranges(&self) -> bool {
        self.ignores_ranges.load(Ordering::Relaxed)
    }

    /// Remembers that the registry has sent a whole blob in response to a request for a range.
    pub(super) fn set_ignores_ranges(&self) {
        self.ignores_ranges.store(true, Ordering::Relaxed);
    }

    fn redirects(&self) -> MutexGuard<'_, HashMap<Url, Url>> {
        self.redirects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request with a streaming body, which can be sent only once. If its token has expired, the error is retryable,
    /// and the next attempt has a new token.
    pub(super) async fn send_stream(
        &self,
        mut request: Request,
        scopes: &Scopes,
        body: StreamingBody,
    ) -> Result<Response> {
        let is_own = self.authorize(&mut request, scopes).await?;
        let response = self.http.send_stream(&request, body).await?;
        if is_own && response.status() == StatusCode::UNAUTHORIZED {
            let rejection = Rejection { sent: request.authorization.as_ref(), repeated: false };
            let renewed = self.auth.renew(&self.http, scopes, &response, rejection).await?;
            let error = response.refusal().await;
            return Err(if renewed.is_some() { error.with_retry_after(Duration::ZERO) } else { error });
        }
        Ok(response)
    }

    /// Adds authorization to a request to the registry itself, and returns whether it is one. No other server receives it.
    async fn authorize(&self, request: &mut Request, scopes: &Scopes) -> Result<bool> {
        let is_own = self.is_own(&request.url);
        if is_own {
            request.authorization = match self.auth.authorization(&self.http, scopes).await {
                Ok(authorization) => authorization,
                Err(error) => return Err(self.explain_denial(error).await),
            };
        }
        Ok(is_own)
    }
}

/// Returns whether another authorization could change the response.
fn is_rejected(response: &Response) -> bool {
    match response.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => {
            Challenge::all(response.challenges()).iter().any(Challenge::needs_more_scope)
        }
        _ => false,
    }
}
