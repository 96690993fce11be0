//! Requests and how they get there: connections, patience, redirects, and what went wrong on the way.

use super::super::ClientOptions;
use super::address::{follow, host_of, same_server};
use super::answer::Answer;
use super::outgoing::Outgoing;
use super::printable::printable;
use super::proxies::{ProxyRules, Route};
use super::retry::{Attempts, is_passing};
use super::tls::{self, Peer, Tls};
use crate::error::{Error, Result};
use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Body, Client, Method, Proxy, Response, StatusCode, Url, redirect};
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;
use std::{error, io, thread};
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

/// How many times a request is sent on to another address.
const REDIRECTS: usize = 5;
/// Threads that wait for the network: decryption is the only work they have, one per direction does it.
const WORKERS: usize = 2;

/// One runtime for all registries. It is never shut down: readers may outlive the registry they came from.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    // A second provider cannot be installed, and need not: whoever was first has decided for the program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    give_threads(WORKERS)?;
    runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("volio-registry")
        .enable_all()
        .build()
});

/// Makes sure that so many threads can be had: the runtime panics where it gets none.
fn give_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        let wait = || drop(gate.lock());
        let started = (0..count).try_for_each(|_| thread::Builder::new().spawn_scoped(scope, wait).map(drop));
        drop(closed);
        started
    })
}

/// The runtime that all requests run on.
pub(super) fn runtime() -> Result<&'static Runtime> {
    RUNTIME
        .as_ref()
        .map_err(|error| Error::failed(format!("cannot start the threads for the network: {error}")))
}

/// Waits for something that the network does. Blocks, and must not be called on a thread that runs tasks.
pub(super) fn wait<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(future)
}

/// What is asked of a server.
#[derive(Clone)]
pub(super) struct Request {
    /// What it is for; an error says that volio cannot do it.
    pub(super) what: String,
    method: Method,
    pub(super) url: Url,
    headers: HeaderMap,
    body: Bytes,
    /// Shown to this address only, and to no other that the request is sent on to.
    pub(super) authorization: Option<HeaderValue>,
    /// Whoever sends it tries again himself, or not at all.
    pub(super) once: bool,
}

impl Request {
    /// A request without a body.
    pub(super) fn new(method: Method, url: Url, what: impl Into<String>) -> Self {
        let mut headers = HeaderMap::new();
        // Compressed on the way, a blob would not have its digest.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self { what: what.into(), method, url, headers, body: Bytes::new(), authorization: None, once: false }
    }

    /// The same request with one more header.
    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        // Names and values are our own or those of documents; what is no header is left out like an unknown one.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// The same request with a body.
    #[must_use]
    pub(super) fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self
    }

    /// The same request, sent only once.
    #[must_use]
    pub(super) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// The same request to another address, which sees no credentials.
    pub(super) fn to(mut self, url: Url) -> Self {
        (self.url, self.authorization) = (url, None);
        self
    }

    /// Whether it may be sent on to another address: only what changes nothing.
    pub(super) fn is_safe(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// Connections to servers. They are opened when they are needed.
#[derive(Default)]
pub(super) struct Http {
    options: ClientOptions,
    /// A server that was there once may come back; one that never was has perhaps another name.
    was_there: AtomicBool,
    /// For connections without encryption, and for each kind of those with it.
    clients: Mutex<HashMap<Option<Peer>, Client>>,
    tls: Tls,
    proxies: ProxyRules,
    registry: Option<Url>,
}

impl Http {
    /// Connections for the business of one registry.
    pub(super) fn new(tls: Tls, registry: Url, proxies: ProxyRules, options: ClientOptions) -> Self {
        Self { options, tls, proxies, registry: Some(registry), ..Self::default() }
    }

    /// How bytes travel.
    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Sends a request until it arrives, and says the last answer. Any status is an answer.
    pub(super) async fn send(&self, request: &Request) -> Result<Answer> {
        if request.once {
            return self.attempt(request).await;
        }
        let mut attempts = Attempts::new(&self.options);
        loop {
            let error = match self.attempt(request).await {
                Ok(answer) if is_passing(answer.status()) && attempts.are_left() => answer.refusal().await,
                Err(error) => error,
                answer => return answer,
            };
            if !attempts.wait(&error).await {
                return Err(error);
            }
        }
    }

    /// Sends a request, and sends it on where the answer says so.
    async fn attempt(&self, request: &Request) -> Result<Answer> {
        let mut request = request.clone();
        for _ in 0..=REDIRECTS {
            let mut builder = self.builder(&request)?.body(request.body.clone());
            // Some servers want to be told that nothing comes.
            if !request.is_safe() && request.body.is_empty() {
                builder = builder.header(CONTENT_LENGTH, 0);
            }
            let answer = timeout(self.options.stall_timeout, builder.send())
                .await
                .map_err(|_| self.silence(&request))?
                .map_err(|error| self.explain(&request, &error))?;
            let answer = self.arrived(answer, &request);
            match redirection(&request, &answer)? {
                None => return Ok(answer),
                Some(url) => {
                    if !same_server(&request.url, &url) {
                        request.authorization = None;
                    }
                    request.url = url;
                }
            }
        }
        Err(cannot(&request, format!("{} sends it on in circles", host_of(&request.url))))
    }

    /// Sends a request with a body that comes as it goes. Nothing of it can be sent twice.
    pub(super) async fn send_stream(&self, request: &Request, outgoing: Outgoing) -> Result<Answer> {
        let mut builder = self.builder(request)?;
        if let Some(size) = outgoing.size() {
            builder = builder.header(CONTENT_LENGTH, size);
        }
        let flow = outgoing.flow();
        let answer = builder.body(Body::wrap_stream(outgoing)).send();
        let answer = flow
            .watch(self.options.stall_timeout, answer)
            .await
            .ok_or_else(|| self.silence(request))?
            .map_err(|error| self.explain(request, &error))?;
        Ok(self.arrived(answer, request))
    }

    fn arrived(&self, answer: Response, request: &Request) -> Answer {
        self.was_there.store(true, Ordering::Relaxed);
        Answer::new(answer, request, &self.options)
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

    /// The client for an address. One that is never asked for encryption needs no certificates, which a small
    /// container may not have.
    fn client(&self, url: &Url) -> Result<Client> {
        // What is wrong with a proxy is told here: a client would go around it.
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
            Some(peer) => builder.tls_backend_preconfigured(self.tls.config(peer)?),
            None => builder.tls_certs_only([]),
        };
        let client = builder.build().map_err(|error| {
            Error::failed("cannot prepare connections").with_source(root(&error).to_string())
        })?;
        Ok(clients.entry(peer).or_insert(client).clone())
    }

    fn silence(&self, request: &Request) -> Error {
        let host = host_of(&request.url);
        cannot(
            request,
            format!("{host} has been silent for {} seconds", self.options.stall_timeout.as_secs_f64()),
        )
        .with_hint("the registry or the network is overloaded or gone; try again later")
        .with_retry_after(Duration::ZERO)
    }

    /// What went wrong on the way, said by its innermost cause: the layers above it only say that something did,
    /// and the address that they name may hold a signature.
    fn explain(&self, request: &Request, error: &reqwest::Error) -> Error {
        let host = host_of(&request.url);
        // A connection that does not come about fails at the proxy, unless encryption has begun.
        let route = match error.is_connect() && find::<rustls::Error>(error).is_none() {
            true => self.proxies.route(&request.url).ok().flatten(),
            false => None,
        };
        let (who, (why, hint)) = match &route {
            Some(route) => {
                (route.name(), (proxy_failure(error, &host), Some(proxy_hint(error, route, &host))))
            }
            None => (host.clone(), (why(error, &host), hint(error, &host))),
        };
        let mut report = cannot(request, format!("{who}: {why}"));
        if let Some(hint) = hint {
            report = report.with_hint(hint);
        }
        match self.may_pass(error) {
            true => report.with_retry_after(Duration::ZERO),
            false => report,
        }
    }

    /// Whether another attempt may go well.
    fn may_pass(&self, error: &reqwest::Error) -> bool {
        use io::ErrorKind as K;
        if find::<rustls::Error>(error).is_some() {
            return false;
        }
        if error.is_connect() {
            return self.was_there.load(Ordering::Relaxed);
        }
        let broke = find::<io::Error>(error).is_some_and(|error| {
            matches!(
                error.kind(),
                K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof | K::TimedOut
            )
        });
        let ended = find::<hyper::Error>(error)
            .is_some_and(|error| error.is_incomplete_message() || error.is_closed() || error.is_canceled());
        broke || ended
    }
}

/// Where the answer sends the request, if it does.
fn redirection(request: &Request, answer: &Answer) -> Result<Option<Url>> {
    use StatusCode as S;
    let status = answer.status();
    let moved = matches!(
        status,
        S::MOVED_PERMANENTLY | S::FOUND | S::SEE_OTHER | S::TEMPORARY_REDIRECT | S::PERMANENT_REDIRECT
    );
    match answer.header(&LOCATION) {
        Some(location) if moved && request.is_safe() => follow(&request.url, location).map(Some),
        _ => Ok(None),
    }
}

/// The error for a request that did not work.
pub(super) fn cannot(request: &Request, why: impl Into<String>) -> Error {
    Error::failed(format!("cannot {}", request.what)).with_source(why.into())
}

/// What went wrong with a connection to a host.
fn why(error: &reqwest::Error, host: &str) -> String {
    match find::<rustls::Error>(error) {
        Some(tls) => tls::describe(tls, host).why,
        None => printable(&root(error).to_string()),
    }
}

/// What can be done about it.
fn hint(error: &reqwest::Error, host: &str) -> Option<String> {
    if let Some(tls) = find::<rustls::Error>(error) {
        return tls::describe(tls, host).hint;
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        _ if is_about_the_name(error) => Some("is the name right, and is there a network?".to_owned()),
        Some(io::ErrorKind::ConnectionRefused) => Some(format!("is the registry running at {host}?")),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Some("the server hung up; a proxy in front of it may limit the size of requests".to_owned())
        }
        _ if error.is_timeout() => Some(format!("{host} does not answer; is there a firewall between?")),
        _ => None,
    }
}

fn is_about_the_name(error: &reqwest::Error) -> bool {
    chain(error).any(|cause| cause.to_string().contains("dns error"))
}

/// What went wrong with a connection to a proxy, or with its connection to a host.
fn proxy_failure(error: &reqwest::Error, host: &str) -> String {
    match () {
        () if wants_a_password(error) => "it wants a name and a password".to_owned(),
        () if chain(error).any(|cause| cause.to_string().ends_with("unsuccessful")) => {
            format!("it does not connect to {host}")
        }
        () => printable(&root(error).to_string()),
    }
}

fn proxy_hint(error: &reqwest::Error, route: &Route, host: &str) -> String {
    let variable = route.variable();
    match () {
        () if wants_a_password(error) => format!("write {variable}=http://NAME:PASSWORD@HOST:PORT"),
        () => format!("is {variable} right, and does the proxy run? NO_PROXY={host} goes around it"),
    }
}

/// Whether a proxy said 407; the type that says so cannot be named.
fn wants_a_password(error: &reqwest::Error) -> bool {
    chain(error).any(|cause| cause.to_string().contains("proxy authorization required"))
}

/// An error and its causes, outermost first.
fn chain<'a>(
    error: &'a (dyn error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        // An I/O error shows what it wraps as itself, and what that wraps as its source.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn error::Error + 'static)),
            None => error.source(),
        }
    })
}

fn root<'a>(error: &'a (dyn error::Error + 'static)) -> &'a (dyn error::Error + 'static) {
    chain(error).last().unwrap_or(error)
}

fn find<'a, T: error::Error + 'static>(error: &'a (dyn error::Error + 'static)) -> Option<&'a T> {
    chain(error).filter_map(|cause| cause.downcast_ref::<T>()).last()
}

/// The error for an answer whose bytes stopped coming.
pub(super) fn broken(what: &str, host: &str, error: &reqwest::Error) -> Error {
    broken_off(what, host).with_source(why(error, host))
}

/// The same without a cause.
pub(super) fn broken_off(what: &str, host: &str) -> Error {
    Error::failed(format!("cannot {what}: {host} stopped in the middle")).with_retry_after(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    /// A server that says the same to everybody who says something.
    fn server(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection.write_all(answer);
            }
        });
        host
    }

    fn get(url: &str) -> Result<Answer> {
        let request = Request::new(Method::GET, Url::parse(url).unwrap(), "try it");
        wait(async { Http::default().send(&request).await })
    }

    #[test]
    fn encryption_where_there_is_none_is_explained() {
        let host = server(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let error = get(&format!("https://{host}/v2/?signature=hunter2")).err().unwrap();
        assert_eq!(error.kind(), Kind::Failed);
        assert!(error.hint().unwrap().contains("--plain-http"), "{error} {:?}", error.hint());
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn circles_are_left() {
        let host = server(
            b"HTTP/1.1 302 Found\r\nLocation: ?again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        let error = get(&format!("http://{host}/v2/")).err().unwrap();
        assert!(error.to_string().contains("in circles"), "{error}");
    }

    #[test]
    fn a_thing_that_would_change_something_is_not_sent_on() {
        let host =
            server(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let url = Url::parse(&format!("http://{host}/v2/")).unwrap();
        let request = Request::new(Method::PUT, url, "try it").body("data");
        let answer = wait(async { Http::default().send(&request).await }).unwrap();
        assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    }
}
