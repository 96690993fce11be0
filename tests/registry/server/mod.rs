//! A registry in the test's own process: the real protocol, stored in memory, and misbehaving on request.
//!
//! It is written from the specification and not from the client, and shares no code with it but digests.

mod blobs;
mod guard;
mod listing;
mod protocol;
mod removal;
mod store;
mod uploads;

pub use guard::Login;
pub use listing::Pages;
pub use removal::Deletes;
pub use store::Damage;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use bytes::Bytes;
use guard::Guard;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use store::Store;
use tokio::sync::oneshot;
use volio::oci::Digest;

/// A running registry; it stops when it is dropped.
pub struct Registry {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What both servers know: the registry, and the second host that it sends some requests to.
struct Shared {
    /// `127.0.0.1:port` of the registry.
    host: String,
    /// `127.0.0.1:port` of the second host: a CDN, or a store that takes uploads. It wants no credentials, and
    /// refuses who shows any, as S3 does.
    elsewhere: String,
    state: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    behaviour: Behaviour,
    store: Store,
    guard: Guard,
    requests: Vec<Recorded>,
    /// How many addresses at the second host were given out.
    links: usize,
    /// How many bytes of bodies have come.
    uploaded: u64,
    /// How many bodies are on their way.
    arriving: usize,
}

/// How the registry behaves. The default is an open one without faults.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// Who is let in.
    pub login: Login,
    /// The token server takes this token for the user.
    pub identity: Option<&'static str>,
    /// A scope that every token must have besides, and the status for those that have it not.
    pub wants_also: Option<(&'static str, u16)>,
    /// What it says to those whom it does not let in, a line each, instead of what it would say by itself.
    pub challenges: Vec<String>,
    /// The address of the token server, where it is another one.
    pub token_server: Option<String>,
    /// What it says to the root of the protocol, as a server of plain files does.
    pub root_status: Option<u16>,
    /// What it says to every HEAD.
    pub head_status: Option<u16>,
    /// What it says that every manifest is.
    pub manifest_type: Option<&'static str>,
    /// How addresses are written in `Location`.
    pub locations: Locations,
    /// Sends those who fetch blobs to the second host.
    pub blobs_elsewhere: bool,
    /// What the second host is called; otherwise by its address.
    pub elsewhere_is: Option<String>,
    /// Opens an upload instead of taking a blob over from another repository.
    pub refuses_mounts: bool,
    /// Cuts the connection after so many bytes of a blob.
    pub cuts_blobs_after: Option<usize>,
    /// What it does with `Range`.
    pub ranges: Ranges,
    /// The addresses at the second host up to this one are over.
    pub expired_links: usize,
    /// What becomes of an upload when the connection of one of its requests breaks.
    pub broken_uploads: Broken,
    /// How it says how far an upload is.
    pub status_ranges: StatusRanges,
    /// How many times it says how far an upload was before the request whose connection broke.
    pub notices_late: usize,
    /// Takes no larger body of an upload, in bytes,
    pub limits_bodies: Option<usize>,
    /// and says so with this status.
    pub limit_status: Option<u16>,
    /// Answers so many requests, and 503 to all that follow.
    pub limits_requests: Option<usize>,
    /// Takes no PATCH that does not say its length, as ACR does.
    pub wants_lengths: bool,
    /// Takes no chunks, as Google does.
    pub whole_only: bool,
    /// What it says to a PATCH instead of 202: ECR says 201.
    pub patch_status: Option<u16>,
    /// Says of the next chunk that it is there, and loses it.
    pub loses_a_chunk: bool,
    /// Says the digest of something else about manifests.
    pub lies_about_digests: bool,
    /// Says nothing of where a stored manifest is, as ECR does.
    pub hides_manifests: bool,
    /// Takes every blob for what it is said to be.
    pub believes_digests: bool,
    /// Lists what refers to a manifest itself.
    pub lists_referrers: bool,
    /// What may be deleted.
    pub deletes: Deletes,
    /// How lists come.
    pub pages: Pages,
    /// Answers that come instead of the right ones; each is used up when it was given.
    pub refusals: Vec<Refusal>,
}

impl Behaviour {
    /// What the second host is called that is at this address.
    fn second(&self, address: &str) -> String {
        self.elsewhere_is.clone().unwrap_or_else(|| format!("http://{address}"))
    }
}

/// How addresses are written in `Location`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Locations {
    /// `/v2/…`
    #[default]
    Relative,
    /// `http://registry/v2/…`
    Absolute,
    /// `http://second-host/…`
    Elsewhere,
    /// Nothing at all.
    Missing,
}

/// What a registry does with `Range`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Ranges {
    /// What was asked.
    #[default]
    Sent,
    /// Sends everything.
    Ignored,
    /// What was asked at the beginning, and everything to those who ask for what is behind it.
    SentAtFirst,
    /// Sends half of it.
    Short,
    /// Says that it sends another one.
    Wrong,
    /// Sends what was asked, and says nothing of it.
    Unsaid,
    /// Sends all from there on.
    Longer,
    /// Says that there is no such range.
    Unsatisfiable,
    /// Says that it cannot.
    NotImplemented,
}

/// What becomes of an upload when the connection of one of its requests breaks.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Broken {
    /// The request is as if it had never come.
    #[default]
    Dropped,
    /// What came is there.
    Kept,
    /// The upload has ended, as with distribution 2.8.
    Fatal,
}

/// How a registry says how far an upload is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum StatusRanges {
    /// `0-LAST`
    #[default]
    Inclusive,
    /// `bytes=0-COUNT`, as Quay
    Counted,
    /// Never more than the first chunk, as ECR
    Stale,
}

/// An answer that comes instead of the right one.
#[derive(Clone, Default)]
pub struct Refusal {
    /// The method it is for.
    pub method: Method,
    /// A part of the path it is for.
    pub path: &'static str,
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// What `Retry-After` says.
    pub retry_after: Option<String>,
    /// The request is carried out all the same: only its answer is lost.
    pub after: bool,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Whether it came to the second host.
    pub elsewhere: bool,
    pub method: Method,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
}

impl Recorded {
    /// The text of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Registry {
    /// A new, empty registry on a free port of the loopback interface.
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

    /// Changes how the registry behaves from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.inside().behaviour);
    }

    /// The requests so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.inside().requests.clone()
    }

    /// The requests to the protocol's own paths with this method, without their queries.
    pub fn paths(&self, method: Method) -> Vec<String> {
        let requests = self.requests().into_iter().filter(|request| request.method == method);
        requests.map(|request| request.path.split('?').next().unwrap_or_default().to_owned()).collect()
    }

    /// Spoils a blob or a manifest where it is stored.
    pub fn damage(&self, digest: &Digest, damage: Damage) {
        self.shared.inside().store.damage(&digest.to_string(), damage);
    }

    /// Stores a manifest under a tag without looking at it.
    pub fn plant(&self, repository: &str, tag: &str, media_type: &str, bytes: impl Into<Bytes>) {
        self.shared.inside().store.plant(repository, tag, media_type, bytes.into());
    }

    /// The bytes of a blob in a repository.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.shared.inside().store.blob(repository, &digest.to_string())
    }

    /// The number of uploads that have begun and not ended.
    pub fn open_uploads(&self) -> usize {
        self.shared.inside().store.open_uploads()
    }

    /// Whether a body is on its way that was let in.
    pub fn receives(&self) -> bool {
        self.shared.inside().arriving > 0
    }

    /// The forms in which tokens were asked for.
    pub fn exchanges(&self) -> Vec<String> {
        self.shared.inside().guard.exchanges.clone()
    }

    /// Forgets all uploads that have not ended.
    pub fn forget_uploads(&self) {
        self.shared.inside().store.forget_uploads();
    }

    /// The number of bytes that have come in bodies.
    pub fn uploaded(&self) -> u64 {
        self.shared.inside().uploaded
    }

    /// Takes no token any more that was given out so far.
    pub fn revoke_tokens(&self) {
        self.shared.inside().guard.revoke();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        // A test that failed while it changed the behaviour has said so already.
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
    protocol::answer(&shared, elsewhere, head, body).await
}
