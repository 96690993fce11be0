//! The plugin at work: connections are accepted, each in a thread of its own, until it is told to stop.

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

/// How many connections there may be; an engine keeps two.
const MAX_CONNECTIONS: usize = 128;
/// How long what was asked before the stop may take.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Serves engines on the sockets until it is told to stop. The sockets are gone afterwards.
///
/// # Errors
/// When the sockets fail.
pub fn serve(plugin: &Plugin, sockets: Vec<Socket>, cancel: &CancelToken) -> Result<()> {
    let store = &plugin.0;
    let (canceller, cancelled) =
        UnixStream::pair().map_err(|error| Error::io("cannot make a socket pair", error))?;
    // The callback lives as long as the token, so the other end may be gone.
    cancel.on_cancel(move || _ = (&canceller).write(b"."));
    let connections = Arc::new(Connections::default());
    let exports = start_export_thread(store, cancel)?;
    let trouble = |error: io::Error| Error::io("cannot wait for connections", error);
    for socket in &sockets {
        socket.listener.set_nonblocking(true).map_err(trouble)?;
    }
    while !cancel.is_cancelled() {
        let mut waiting: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(&socket.listener, PollFlags::IN)).collect();
        waiting.push(PollFd::new(&cancelled, PollFlags::IN));
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(trouble(errno.into())),
            Ok(_) => {}
        }
        let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            accept(store, socket, &connections);
        }
    }
    // From now on engines find nobody, and try again until there is somebody.
    drop(sockets);
    connections.wait(SHUTDOWN_GRACE);
    // What it has begun is waited for too.
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
                // Where descriptors are used up, only time helps, and the connection still waits.
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
    // Without a thread for it the connection is dropped, which engines take as a reason to try again.
    let _ = thread::Builder::new().name("connection".to_owned()).spawn(talk);
}

/// Answers one request after the other.
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
                // Nothing that follows could be told from the rest of this.
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
            // Without a word: see CallError.
            Err(error) => {
                store.log(&format!("{} is not answered: {error}", request.path));
                return;
            }
        }
    }
}

/// What goes back to an engine.
struct Reply {
    status: u16,
    answer: ResponseBody,
    /// What must be taken back if this does not arrive.
    mounted: Option<(VolumeName, MountId)>,
}

impl Reply {
    fn done(answer: ResponseBody) -> Self {
        Self { status: 200, answer, mounted: None }
    }

    /// An error with status 500: for podman, 200 would be success.
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
        // Docker asks again after a lost connection, without the body, and forgets the volume when it is told an error.
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
    // Maps with text for keys can always be written.
    serde_json::to_vec(answer).unwrap_or_default()
}

/// Looks after exports that nobody asks for any more, in a thread of its own.
fn start_export_thread(store: &Arc<VolumeStore>, cancel: &CancelToken) -> Result<JoinHandle<()>> {
    let (store, cancel) = (Arc::clone(store), cancel.clone());
    let work = move || {
        while !cancel.is_cancelled() {
            store.export_due_volumes();
            empty_trash(&store);
            // The loop ends where this fails.
            let _ = cancel.sleep(store.settings.check_interval);
        }
    };
    let begun = thread::Builder::new().name("exports".to_owned()).spawn(work);
    begun.map_err(|error| Error::io("cannot look after exports", error))
}

/// Removes what no volume needs any more, in a thread of its own.
fn empty_trash(store: &Arc<VolumeStore>) {
    if store.storage.trash.is_due() {
        let store = Arc::clone(store);
        let work = move || store.storage.trash.empty(&|line| store.log(line));
        // Where there are no threads left, it is tried again soon.
        let _ = thread::Builder::new().name("trash".to_owned()).spawn(work);
    }
}

/// How many connections there are, and how many of them wait for an answer.
#[derive(Default)]
struct Connections {
    connections: Mutex<usize>,
    working: Mutex<usize>,
    done: Condvar,
}

/// One of them, until this is dropped.
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

    /// Waits until nobody waits for an answer.
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
