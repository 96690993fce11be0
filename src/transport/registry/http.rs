//! HTTP requests: connections, time limits, redirects, retries, and errors.

use super::super::ClientOptions;
use super::body::StreamingBody;
use super::connection_error::{self, is_lost_connection, is_tls};
use super::proxies::ProxyRules;
use super::response::Response;
use super::retry::Attempts;
use super::tls::{Peer, TlsConfig};
use super::url::{follow, host_of, same_server};
use super::warnings::Warnings;
use crate::error::{Error, Result};
use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Body, Client, Method, Proxy, StatusCode, Url, redirect};
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

/// The number of redirects that one request follows.
const REDIRECT_LIMIT: usize = 5;
/// The number of threads of the runtime. Their only work is decryption, and one thread per direction is enough for it.
const WORKERS: usize = 2;

/// The runtime of all registries. It is never shut down, because readers may outlive the registry that opened them.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    // This fails if the program has installed another provider; then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    check_threads(WORKERS)?;
    runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("volio-registry")
        .enable_all()
        .build()
});

/// Fails if `count` threads cannot be started at the same time. The runtime would panic.
fn check_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        let wait = || drop(gate.lock());
        let started = (0..count).try_for_each(|_| thread::Builder::new().spawn_scoped(scope, wait).map(drop));
        drop(closed);
        started
    })
}

/// Returns the runtime that all requests run on.
pub(super) fn runtime() -> Result<&'static Runtime> {
    RUNTIME
        .as_ref()
        .map_err(|error| Error::failed(format!("cannot start the threads for the network: {error}")))
}

/// Blocks until a future is done. It must not be called from a thread of the runtime.
pub(super) fn wait<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(future)
}

/// An HTTP request with its body in memory.
#[derive(Clone)]
pub(super) struct Request {
    /// The purpose of the request, for errors: "cannot {what}".
    pub(super) what: String,
    method: Method,
    pub(super) url: Url,
    headers: HeaderMap,
    body: Bytes,
    /// The `Authorization` header. It is not sent to another server after a redirect.
    pub(super) authorization: Option<HeaderValue>,
    /// Disables retries, for callers that retry themselves or must not retry. Such a request is also sent after a
    /// cancellation.
    pub(super) once: bool,
}

impl Request {
    /// Returns a request without a body.
    pub(super) fn new(method: Method, url: Url, what: impl Into<String>) -> Self {
        let mut headers = HeaderMap::new();
        // A blob that is compressed in transit would not have its digest.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self { what: what.into(), method, url, headers, body: Bytes::new(), authorization: None, once: false }
    }

    /// Adds a header. A value that no header can have is left out: values are our own or those of documents.
    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub(super) fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self
    }

    /// Disables retries.
    #[must_use]
    pub(super) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Changes the URL and removes the credentials.
    pub(super) fn to(mut self, url: Url) -> Self {
        (self.url, self.authorization) = (url, None);
        self
    }

    /// Returns whether the request changes nothing at the server, so that it may be redirected.
    pub(super) fn is_safe(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// Returns the error for a failure of this request.
    pub(super) fn error(&self, why: impl Into<String>) -> Error {
        Error::failed(format!("cannot {}", self.what)).with_source(why.into())
    }
}

/// An HTTP client for one registry and the servers that it refers to. Connections are opened when they are needed.
#[derive(Default)]
pub(super) struct Http {
    options: ClientOptions,
    /// Set after the first response. Only then are failed connections retried: a server that was never there probably
    /// has another name.
    has_answered: AtomicBool,
    /// One client for plain connections (`None`), and one for each way of encrypting them.
    clients: Mutex<HashMap<Option<Peer>, Client>>,
    tls: TlsConfig,
    proxies: ProxyRules,
    registry: Option<Url>,
    warnings: Warnings,
}

impl Http {
    /// Returns a client for the registry at this base URL.
    pub(super) fn new(tls: TlsConfig, registry: Url, proxies: ProxyRules, options: ClientOptions) -> Self {
        Self { options, tls, proxies, registry: Some(registry), ..Self::default() }
    }

    /// Returns the options of transfers.
    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Sends a request, with retries. It returns a response of any status; a transient status is retried first.
    pub(super) async fn send(&self, request: &Request) -> Result<Response> {
        if request.once {
            return self.attempt(request).await;
        }
        let mut attempts = Attempts::new(&self.options);
        loop {
            let error = match self.attempt(request).await {
                Ok(response) if response.is_transient() && attempts.are_left() => response.refusal().await,
                Err(error) => error,
                response => return response,
            };
            if !attempts.wait_for_retry(&error).await {
                return Err(error);
            }
        }
    }

    /// Sends a request once, and follows redirects.
    async fn attempt(&self, request: &Request) -> Result<Response> {
        let mut request = request.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let mut builder = self.builder(&request)?.body(request.body.clone());
            // Some servers require the header also for an empty body.
            if !request.is_safe() && request.body.is_empty() {
                builder = builder.header(CONTENT_LENGTH, 0);
            }
            let response = timeout(self.options.stall_timeout, builder.send())
                .await
                .map_err(|_| self.timed_out(&request))?
                .map_err(|error| self.explain(&request, &error))?;
            let response = self.received(response, &request);
            match redirect_target(&request, &response)? {
                None => return Ok(response),
                Some(url) => {
                    if !same_server(&request.url, &url) {
                        request.authorization = None;
                    }
                    request.url = url;
                }
            }
        }
        Err(request.error(format!("{} sends it on in circles", host_of(&request.url))))
    }

    /// Sends a request with a streaming body, once.
    pub(super) async fn send_stream(&self, request: &Request, body: StreamingBody) -> Result<Response> {
        let mut builder = self.builder(request)?;
        if let Some(size) = body.size() {
            builder = builder.header(CONTENT_LENGTH, size);
        }
        let progress = body.progress();
        let response = builder.body(Body::wrap(body)).send();
        let response = progress
            .watch(self.options.stall_timeout, response)
            .await
            .ok_or_else(|| self.timed_out(request))?
            .map_err(|error| self.explain(request, &error))?;
        Ok(self.received(response, request))
    }

    fn received(&self, response: reqwest::Response, request: &Request) -> Response {
        self.has_answered.store(true, Ordering::Relaxed);
        if self.registry.as_ref().is_some_and(|registry| same_server(registry, &request.url)) {
            for text in self.warnings.take_new(response.headers()) {
                self.options.progress.warn(&format!("{} says: {text}", host_of(&request.url)));
            }
        }
        Response::new(response, request.what.clone(), request.url.clone(), &self.options)
    }

    fn builder(&self, request: &Request) -> Result<reqwest::RequestBuilder> {
        let client = self.client(&request.url)?;
        let mut builder =
            client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(authorization) = &request.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        Ok(builder)
    }

    /// Returns the client for a URL. A plain connection needs no certificates, which a small container may not have.
    fn client(&self, url: &Url) -> Result<Client> {
        // An unusable proxy is reported here: reqwest would connect without it.
        let route = self.proxies.route(url)?;
        let encrypted = url.scheme() == "https" || route.is_some_and(|route| route.url.scheme() == "https");
        let peer = encrypted.then(|| self.tls.peer(url, self.registry.as_ref())).transpose()?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&peer) {
            return Ok(client.clone());
        }
        let proxies = self.proxies.clone();
        let builder = Client::builder()
            .user_agent(concat!("volio/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.options.connect_timeout)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .proxy(Proxy::custom(move |url| proxies.route(url).ok().flatten().map(|route| route.url)));
        let builder = match &peer {
            Some(peer) => builder.tls_backend_preconfigured(self.tls.client_config(peer)?),
            None => builder.tls_certs_only([]),
        };
        let client = builder.build().map_err(|error| connection_error::setup_error(&error))?;
        Ok(clients.entry(peer).or_insert(client).clone())
    }

    fn timed_out(&self, request: &Request) -> Error {
        let (host, seconds) = (host_of(&request.url), self.options.stall_timeout.as_secs_f64());
        request
            .error(format!("{host} has been silent for {seconds} seconds"))
            .with_hint("the registry or the network is overloaded or gone; try again later")
            .with_retry_after(Duration::ZERO)
    }

    /// Returns the error for a request without a response: the host or the proxy, the cause, and advice.
    fn explain(&self, request: &Request, error: &reqwest::Error) -> Error {
        let host = host_of(&request.url);
        // A connection that cannot be established fails at the proxy, unless encryption has begun.
        let route = if error.is_connect() && !is_tls(error) {
            self.proxies.route(&request.url).ok().flatten()
        } else {
            None
        };
        let (side, cause, hint) = match &route {
            Some(route) => (
                route.name(),
                connection_error::proxy_cause(error, &host),
                Some(connection_error::proxy_hint(error, route, &host)),
            ),
            None => {
                (host.clone(), connection_error::cause(error, &host), connection_error::hint(error, &host))
            }
        };
        let mut report = request.error(format!("{side}: {cause}"));
        if let Some(hint) = hint {
            report = report.with_hint(hint);
        }
        if self.is_transient(error) { report.with_retry_after(Duration::ZERO) } else { report }
    }

    /// Returns whether a retry may succeed.
    fn is_transient(&self, error: &reqwest::Error) -> bool {
        if is_tls(error) {
            false
        } else if error.is_connect() {
            self.has_answered.load(Ordering::Relaxed)
        } else {
            is_lost_connection(error)
        }
    }
}

/// Returns the URL that a response redirects the request to.
fn redirect_target(request: &Request, response: &Response) -> Result<Option<Url>> {
    use StatusCode as S;
    let is_redirect = matches!(
        response.status(),
        S::MOVED_PERMANENTLY | S::FOUND | S::SEE_OTHER | S::TEMPORARY_REDIRECT | S::PERMANENT_REDIRECT
    );
    match response.header(&LOCATION) {
        Some(location) if is_redirect && request.is_safe() => follow(&request.url, location).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    /// A server that sends the same response to every request.
    fn server(response: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection.write_all(response);
            }
        });
        host
    }

    fn get(url: &str) -> Result<Response> {
        let request = Request::new(Method::GET, Url::parse(url).unwrap(), "try it");
        wait(async { Http::default().send(&request).await })
    }

    #[test]
    fn a_server_without_encryption_is_explained() {
        let host = server(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let error = get(&format!("https://{host}/v2/?signature=hunter2")).err().unwrap();
        assert_eq!(error.kind(), Kind::Failed);
        assert!(error.hint().unwrap().contains("--plain-http"), "{error} {:?}", error.hint());
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn redirects_in_a_circle_are_an_error() {
        let host = server(
            b"HTTP/1.1 302 Found\r\nLocation: ?again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        let error = get(&format!("http://{host}/v2/")).err().unwrap();
        assert!(error.to_string().contains("in circles"), "{error}");
    }

    #[test]
    fn a_request_that_changes_something_is_not_redirected() {
        let host =
            server(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let url = Url::parse(&format!("http://{host}/v2/")).unwrap();
        let request = Request::new(Method::PUT, url, "try it").body("data");
        let response = wait(async { Http::default().send(&request).await }).unwrap();
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    }
}
