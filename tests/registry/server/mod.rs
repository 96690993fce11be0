//! A registry in the process of the test. It speaks the real protocol, stores in memory, and fails on request.
//!
//! It is written from the specification. Digests are the only code that it shares with the client.

mod auth;
mod blobs;
mod pagination;
mod protocol;
mod removal;
mod store;
mod uploads;

pub use auth::{Login, Tokens};
pub use pagination::{NoReferrers, Pages};
pub use removal::Deletes;
pub use store::Damage;

use auth::TokenStore;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use store::Store;
use tokio::sync::oneshot;
use volio::oci::Digest;

/// A running registry. It stops when it is dropped.
pub struct Registry {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The state of both servers: the registry, and the second host that it redirects some requests to.
struct Shared {
    /// `127.0.0.1:port` of the registry.
    host: String,
    /// `127.0.0.1:port` of the second host: a CDN, or a store for uploads. Like S3, it rejects requests with credentials.
    elsewhere: String,
    state: Mutex<RegistryState>,
}

#[derive(Default)]
struct RegistryState {
    behaviour: Behaviour,
    store: Store,
    token_store: TokenStore,
    requests: Vec<Recorded>,
    /// The number of answers with each status.
    answers: BTreeMap<u16, usize>,
    /// The number of redirects to the second host.
    links: usize,
    /// The number of bytes that were received in bodies.
    uploaded: u64,
    /// The number of bodies that are being received.
    arriving: usize,
}

/// The behaviour of the registry. The default has no authentication and no faults.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// The authentication.
    pub login: Login,
    /// The identity token that the token server accepts.
    pub identity: Option<&'static str>,
    /// A scope that every token needs additionally, and the status without it.
    pub wants_also: Option<(&'static str, u16)>,
    /// The `WWW-Authenticate` headers of rejections, instead of the usual ones.
    pub challenges: Vec<String>,
    /// The form of tokens and of their scopes.
    pub tokens: Tokens,
    /// Rejects requests for a repository without a challenge, as gcr.io does.
    pub hides_challenges: bool,
    /// The URL of another token server.
    pub token_server: Option<String>,
    /// The status of `/v2/`, as on a static file server.
    pub root_status: Option<u16>,
    /// The status of every HEAD.
    pub head_status: Option<u16>,
    /// The `Content-Type` of every manifest.
    pub manifest_type: Option<&'static str>,
    /// The form of `Location` headers.
    pub locations: Locations,
    /// Redirects downloads of blobs to the second host.
    pub blobs_elsewhere: bool,
    /// The name of the second host, instead of its address.
    pub elsewhere_is: Option<String>,
    /// Begins an upload instead of mounting a blob from another repository.
    pub refuses_mounts: bool,
    /// Closes the connection after this many bytes of a blob.
    pub cuts_blobs_after: Option<usize>,
    /// The treatment of `Range` headers.
    pub ranges: Ranges,
    /// The redirects to the second host up to this number have expired.
    pub expired_links: usize,
    /// The state of an upload after the connection of a request breaks.
    pub broken_uploads: Broken,
    /// The form of the offset of an upload.
    pub status_ranges: StatusRanges,
    /// The number of times that it returns the offset from before a lost connection.
    pub notices_late: usize,
    /// The maximum size in bytes of a body of an upload.
    pub limits_bodies: Option<usize>,
    /// The maximum size in bytes of a blob, in whatever requests it comes.
    pub limits_blobs: Option<usize>,
    /// The status for a larger body.
    pub limit_status: Option<u16>,
    /// Answers 503 after this many requests.
    pub limits_requests: Option<usize>,
    /// The requests that need a length.
    pub lengths: Lengths,
    /// The minimum size in bytes of a chunk, except the last.
    pub min_chunk: Option<usize>,
    /// Rejects bodies with another type than the specification's, as zot does.
    pub checks_types: bool,
    /// Has only repositories that were created before, as Amazon ECR.
    pub creates_no_repositories: bool,
    /// Rejects chunks, as Google does.
    pub whole_only: bool,
    /// The status of a PATCH instead of 202. ECR answers 201.
    pub patch_status: Option<u16>,
    /// Loses the next chunk and reports success.
    pub loses_a_chunk: bool,
    /// Sends entity tags with manifests, and answers 304 to requests that name the present one.
    pub has_entity_tags: bool,
    /// Sends a wrong digest with manifests.
    pub lies_about_digests: bool,
    /// Sends no `Location` for a stored manifest, as ECR does.
    pub hides_manifests: bool,
    /// Stores blobs without checking their digests.
    pub believes_digests: bool,
    /// Answers HEAD as before for blobs that were deleted, as a cache does.
    pub remembers_forgotten_blobs: bool,
    /// Supports the referrers API.
    pub lists_referrers: bool,
    /// The form in which it does not support the referrers API.
    pub no_referrers: NoReferrers,
    /// The status, the code and the message if a tag that exists is written or deleted.
    pub immutable_tags: Option<(u16, &'static str, &'static str)>,
    /// A media type, and the status for manifests that have or list it.
    pub unsupported_type: Option<(&'static str, u16)>,
    /// The maximum size in bytes of a manifest.
    pub limits_manifests: Option<usize>,
    /// Sends no digests in headers.
    pub hides_digests: bool,
    /// Sends blobs without a length.
    pub hides_lengths: bool,
    /// The supported deletions.
    pub deletes: Deletes,
    /// Tags and digests that are not deleted, with the status of the answer.
    pub protects: Vec<(String, u16)>,
    /// The form of lists.
    pub pages: Pages,
    /// Headers of every response.
    pub headers: Vec<(&'static str, &'static str)>,
    /// Responses that are sent instead of the right ones, each once.
    pub refusals: Vec<Refusal>,
}

impl Behaviour {
    /// Returns the name of the second host at an address.
    fn second(&self, address: &str) -> String {
        self.elsewhere_is.clone().unwrap_or_else(|| format!("http://{address}"))
    }
}

/// The form of `Location` headers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Locations {
    /// `/v2/…`
    #[default]
    Relative,
    /// `http://registry/v2/…`
    Absolute,
    /// `http://second-host/…`
    Elsewhere,
    /// `/artifacts-uploads/…`, and very long, as in Google's registries.
    Outside,
    /// No header.
    Missing,
}

/// The requests that need a length.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Lengths {
    /// None.
    #[default]
    Optional,
    /// PATCH. The status is 400, as in ACR.
    Patches,
    /// All with a body. The status is 411, as in Nexus.
    All,
}

/// The treatment of `Range` headers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Ranges {
    /// Sends the range.
    #[default]
    Sent,
    /// Sends the whole blob.
    Ignored,
    /// Sends a range at the beginning, and the whole blob instead of a later range.
    SentAtFirst,
    /// Sends half of the range.
    Short,
    /// Declares another range.
    Wrong,
    /// Sends the range without `Content-Range`.
    Unsaid,
    /// Sends everything from the start of the range.
    Longer,
    /// Answers 416.
    Unsatisfiable,
    /// Answers 501.
    NotImplemented,
}

/// The state of an upload after the connection of a request breaks.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Broken {
    /// The request is ignored.
    #[default]
    Dropped,
    /// The received bytes are kept.
    Kept,
    /// The upload is deleted, as in distribution 2.8.
    Fatal,
}

/// The form of the offset of an upload.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum StatusRanges {
    /// `0-LAST`
    #[default]
    Inclusive,
    /// `bytes=0-COUNT`, as in Quay
    Counted,
    /// Always the end of the first chunk, as in ECR
    Stale,
}

/// A response that is sent instead of the right one.
#[derive(Clone, Default)]
pub struct Refusal {
    /// The method of the request.
    pub method: Method,
    /// A part of the path of the request.
    pub path: &'static str,
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// Handles the request nevertheless, so that only the response is lost.
    pub after: bool,
}

/// A request that was received.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Set if the second host received it.
    pub elsewhere: bool,
    pub method: Method,
    /// The path with the query.
    pub path: String,
    pub headers: HeaderMap,
}

impl Recorded {
    /// Returns a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Registry {
    /// Starts an empty registry on a free port of the loopback interface.
    pub fn start() -> Self {
        let [main, second] = [(); 2].map(|()| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let [host, elsewhere] = [&main, &second].map(|listener| listener.local_addr().unwrap().to_string());
        let shared = Arc::new(Shared { host, elsewhere, state: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || serve([main, second], &shared, stopped)
        });
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `127.0.0.1:port`
    pub fn host(&self) -> &str {
        &self.shared.host
    }

    /// `127.0.0.1:port` of the second host.
    pub fn elsewhere(&self) -> &str {
        &self.shared.elsewhere
    }

    /// Changes the behaviour.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.inside().behaviour);
    }

    /// Returns the requests so far, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.inside().requests.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.inside().requests = Vec::new();
    }

    /// Returns the number of answers with a status.
    pub fn answers(&self, status: u16) -> usize {
        self.shared.inside().answers.get(&status).copied().unwrap_or_default()
    }

    /// Returns the number of requests with a token that is not valid, or no longer.
    pub fn rejected_tokens(&self) -> usize {
        self.shared.inside().token_store.rejected_tokens
    }

    /// Returns the number of requests to the token server with a wrong password.
    pub fn rejected_passwords(&self) -> usize {
        self.shared.inside().token_store.rejected_passwords
    }

    /// Returns the number of requests with a method.
    pub fn count(&self, method: &Method) -> usize {
        self.shared.inside().requests.iter().filter(|request| request.method == method).count()
    }

    /// Returns the paths below `/v2/` of the requests with a method, without queries.
    pub fn paths(&self, method: Method) -> Vec<String> {
        let requests = self.requests().into_iter().filter(|request| request.method == method);
        requests.map(|request| request.path.split('?').next().unwrap_or_default().to_owned()).collect()
    }

    /// Damages a stored blob or manifest.
    pub fn damage(&self, digest: &Digest, damage: Damage) {
        self.shared.inside().store.damage(&digest.to_string(), damage);
    }

    /// Deletes a blob, as a garbage collection does.
    pub fn forget_blob(&self, repository: &str, digest: &Digest) {
        self.shared.inside().store.forget_blob(repository, &digest.to_string());
    }

    /// Deletes what no tag and none of these manifests needs, and all uploads, as a garbage collection does while nobody
    /// writes.
    pub fn collect_garbage(&self, roots: &[Digest]) {
        let roots: Vec<String> = roots.iter().map(ToString::to_string).collect();
        self.shared.inside().store.collect_garbage(&roots);
    }

    /// Stores a manifest under a tag without checking it.
    pub fn plant(&self, repository: &str, tag: &str, media_type: &str, bytes: impl Into<Bytes>) {
        self.shared.inside().store.plant(repository, tag, media_type, bytes.into());
    }

    /// Returns the bytes of a blob in a repository.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.shared.inside().store.blob(repository, &digest.to_string())
    }

    /// Returns the tags of a repository, also while the registry is down.
    pub fn stored_tags(&self, repository: &str) -> Vec<String> {
        self.shared.inside().store.tags(repository).unwrap_or_default()
    }

    /// Returns the number of uploads that have not ended.
    pub fn open_uploads(&self) -> usize {
        self.shared.inside().store.open_uploads()
    }

    /// Returns whether a body is being received.
    pub fn receives(&self) -> bool {
        self.shared.inside().arriving > 0
    }

    /// Returns the forms of the token requests.
    pub fn exchanges(&self) -> Vec<String> {
        self.shared.inside().token_store.exchanges.clone()
    }

    /// Deletes all uploads that have not ended.
    pub fn forget_uploads(&self) {
        self.shared.inside().store.forget_uploads();
    }

    /// Returns the number of bytes that were received in bodies.
    pub fn uploaded(&self) -> u64 {
        self.shared.inside().uploaded
    }

    /// Revokes all tokens.
    pub fn revoke_tokens(&self) {
        self.shared.inside().token_store.revoke();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn inside(&self) -> MutexGuard<'_, RegistryState> {
        // A test that panicked while it changed the behaviour has already failed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(listeners: [TcpListener; 2], shared: &Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (number, listener) in listeners.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let router = Router::new().fallback(answer).with_state((shared, number == 1));
            axum::serve(listener, router).await
        });
    }
    let _ = runtime.block_on(stopped);
    runtime.shutdown_background();
}

async fn answer(State((shared, elsewhere)): State<(Arc<Shared>, bool)>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    shared.inside().requests.push(Recorded {
        elsewhere,
        method: head.method.clone(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: head.headers.clone(),
    });
    let headers = shared.inside().behaviour.headers.clone();
    let response = protocol::answer(&shared, elsewhere, head, body).await;
    *shared.inside().answers.entry(response.status().as_u16()).or_default() += 1;
    headers.into_iter().fold(response, |response, (name, value)| protocol::with(response, name, value))
}
