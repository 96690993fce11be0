//! The plugin's server: accepts connections, and handles each in a separate thread, until it is cancelled.

use super::connection::{Connection, Request, RequestError};
use super::engine::Engine;
use super::protocol::{Call, MountId, ResponseBody};
use super::volume_name::VolumeName;
use super::volumes::VolumeStore;
use super::{CallError, Driver, Plugin, Socket};
use crate::error::{Error, Result};
use crate::stream::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The maximum number of connections; an engine keeps two.
const MAX_CONNECTIONS: usize = 128;
/// The time for calls to complete after cancellation.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Serves engines on the sockets until it is cancelled, then removes the sockets.
///
/// # Errors
///
/// A socket fails.
pub fn serve(plugin: &Plugin, sockets: Vec<Socket>, cancel: &CancelToken) -> Result<()> {
    let store = &plugin.0;
    let (canceller, cancelled) =
        UnixStream::pair().map_err(|error| Error::io("cannot make a socket pair", error))?;
    // The callback lives as long as the token, so the other end may be gone.
    cancel.on_cancel(move || _ = (&canceller).write(b"."));
    let connections = Arc::new(Connections::default());
    let exports = start_export_thread(store, cancel)?;
    let io_error = |error: io::Error| Error::io("cannot wait for connections", error);
    for socket in &sockets {
        socket.listener.set_nonblocking(true).map_err(io_error)?;
    }
    while !cancel.is_cancelled() {
        let mut waiting: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(&socket.listener, PollFlags::IN)).collect();
        waiting.push(PollFd::new(&cancelled, PollFlags::IN));
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(io_error(errno.into())),
            Ok(_) => {}
        }
        let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            accept(store, socket, &connections);
        }
    }
    // From now on engines cannot connect, and try again until a plugin is there.
    drop(sockets);
    connections.wait(SHUTDOWN_GRACE);
    // Exports that it has started are waited for too.
    let _ = exports.join();
    store.wait_for_exports();
    Ok(())
}

/// Accepts one connection.
fn accept(store: &Arc<VolumeStore>, socket: &Socket, connections: &Arc<Connections>) {
    let stream = match socket.listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) => {
            if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                store.log(&format!("cannot accept a connection: {error}"));
                // Without free descriptors only waiting helps; the connection stays in the queue.
                let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                let _ = poll(&mut [], Some(&pause));
            }
            return;
        }
    };
    let Some(open) = connections.open() else {
        store.log("there are too many connections: one more is turned away");
        return;
    };
    let (driver, store, connections) = (socket.driver, Arc::clone(store), Arc::clone(connections));
    let talk = move || {
        let _open = open;
        if stream.set_nonblocking(false).is_ok() {
            let engine = Engine::of(&stream);
            serve_connection(&store, driver, engine, Connection::new(stream), &connections);
        }
    };
    // Without a thread the connection is dropped, and the engine tries again.
    let _ = thread::Builder::new().name("connection".to_owned()).spawn(talk);
}

/// Handles the requests of a connection in sequence.
fn serve_connection(
    store: &Arc<VolumeStore>,
    driver: Driver,
    engine: Option<Engine>,
    mut connection: Connection,
    connections: &Arc<Connections>,
) {
    loop {
        let request = match connection.next() {
            Ok(Some(request)) => request,
            Ok(None) | Err(RequestError::Gone) => return,
            Err(RequestError::Bad(status, why)) => {
                // After an invalid request its end is not known, so the connection is closed.
                let _ = connection.respond(status, &body(&ResponseBody::failed(&Error::usage(why))), false);
                return;
            }
        };
        let _working = connections.work();
        let keep_alive = request.keep_alive;
        match handle(store, driver, engine.as_ref(), &request) {
            Ok(Reply { status, answer, mounted }) => {
                let delivered = connection.respond(status, &body(&answer), keep_alive);
                if let (Err(_), Some((name, id))) = (&delivered, mounted) {
                    store.undo_mount(driver, &name, &id);
                }
                if delivered.is_err() || !keep_alive {
                    return;
                }
            }
            // No response: see `CallError`.
            Err(error) => {
                store.log(&format!("{} is not answered: {error}", request.path));
                return;
            }
        }
    }
}

/// A response.
struct Reply {
    status: u16,
    answer: ResponseBody,
    /// The mount to revert if the response is not delivered.
    mounted: Option<(VolumeName, MountId)>,
}

impl Reply {
    fn done(answer: ResponseBody) -> Self {
        Self { status: 200, answer, mounted: None }
    }

    /// An error response. Podman takes status 200 for success, so errors have status 500.
    fn failed(status: u16, error: &Error) -> Self {
        Self { status, answer: ResponseBody::failed(error), mounted: None }
    }
}

fn handle(
    store: &Arc<VolumeStore>,
    driver: Driver,
    engine: Option<&Engine>,
    request: &Request,
) -> Result<Reply> {
    let path: String = request.path.chars().take(64).collect();
    let call = match Call::parse(&request.path, &request.body) {
        _ if request.method != "POST" => {
            return Ok(Reply::failed(405, &Error::usage("the protocol has POST only")));
        }
        Ok(Some(call)) => call,
        Ok(None) => return Ok(Reply::failed(404, &Error::usage(format!("there is no call {path:?}")))),
        // Docker repeats a call without its body after a lost connection, and forgets the volume if the response is an
        // error.
        Err(error) if request.body.is_empty() => {
            if request.path == Call::UNMOUNT {
                store.suspect_mounts();
            }
            return Err(error);
        }
        Err(error) => {
            return match store.ensure_readable() {
                Ok(()) => Ok(Reply::failed(500, &error)),
                Err(error) => Err(error),
            };
        }
    };
    let outcome = match call {
        Call::Mount { name, id } => store.mount(driver, &name, &id, engine).map(|mountpoint| Reply {
            mounted: Some((name, id)),
            ..Reply::done(ResponseBody::mounted(mountpoint))
        }),
        Call::Unmount { name, id } => store
            .unmount(driver, &name, &id, request.has_content_type)
            .map(|()| Reply::done(ResponseBody::default())),
        Call::Remove(name) => store.remove(driver, &name).map(Reply::done),
        call => store.handle(driver, call).map(Reply::done),
    };
    match outcome {
        Ok(reply) => Ok(reply),
        Err(CallError::Report(error)) => Ok(Reply::failed(500, &error)),
        Err(CallError::HangUp(error)) => Err(error),
    }
}

fn body(answer: &ResponseBody) -> Vec<u8> {
    // Maps with string keys can always be serialized.
    serde_json::to_vec(answer).unwrap_or_default()
}

/// Starts the thread that exports volumes which no engine asks for any more.
fn start_export_thread(store: &Arc<VolumeStore>, cancel: &CancelToken) -> Result<JoinHandle<()>> {
    let (store, cancel) = (Arc::clone(store), cancel.clone());
    let work = move || {
        while !cancel.is_cancelled() {
            store.export_due_volumes();
            empty_trash(&store);
            // An error means cancellation, which ends the loop.
            let _ = cancel.sleep(store.settings.check_interval);
        }
    };
    let begun = thread::Builder::new().name("exports".to_owned()).spawn(work);
    begun.map_err(|error| Error::io("cannot look after exports", error))
}

/// Empties the trash in a separate thread.
fn empty_trash(store: &Arc<VolumeStore>) {
    if store.storage.trash.is_due() {
        let store = Arc::clone(store);
        let work = move || store.storage.trash.empty(&|line| store.log(line));
        // If no thread can be started, it is tried again soon.
        let _ = thread::Builder::new().name("trash".to_owned()).spawn(work);
    }
}

/// The number of connections, and of requests in progress.
#[derive(Default)]
struct Connections {
    connections: Mutex<usize>,
    working: Mutex<usize>,
    done: Condvar,
}

/// A request in progress, until this is dropped.
struct RequestGuard<'a> {
    connections: &'a Connections,
}

/// A connection, until this is dropped.
struct ConnectionGuard(Arc<Connections>);

impl Connections {
    fn open(self: &Arc<Self>) -> Option<ConnectionGuard> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        (*connections < MAX_CONNECTIONS).then(|| {
            *connections += 1;
            ConnectionGuard(Arc::clone(self))
        })
    }

    fn work(&self) -> RequestGuard<'_> {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        RequestGuard { connections: self }
    }

    /// Waits until no request is in progress.
    fn wait(&self, timeout: Duration) {
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.done.wait_timeout_while(working, timeout, |working| *working > 0));
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        *self.connections.working.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.connections.done.notify_all();
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        *self.0.connections.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}
