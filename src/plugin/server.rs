//! The plugin at work: connections are accepted, each in a thread of its own, until it is told to stop.

use super::connection::{Connection, Refusal, Request};
use super::engine::Engine;
use super::keeper::Keeper;
use super::name::VolumeName;
use super::protocol::{Answer, Call, MountId};
use super::{Driver, Plugin, Socket, Trouble};
use crate::error::{Error, Result};
use crate::stream::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How many connections there may be; an engine keeps two.
const CONNECTIONS: usize = 128;
/// How long what was asked before the stop may take.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Serves engines on the sockets until it is told to stop. The sockets are gone afterwards.
///
/// # Errors
/// When the sockets fail.
pub fn serve(plugin: &Plugin, sockets: Vec<Socket>, cancel: &CancelToken) -> Result<()> {
    let keeper = &plugin.0;
    let (canceller, cancelled) =
        UnixStream::pair().map_err(|error| Error::io("cannot make a socket pair", error))?;
    // The callback lives as long as the token, so the other end may be gone.
    cancel.on_cancel(move || _ = (&canceller).write(b"."));
    let busy = Arc::new(Busy::default());
    let exports = look_after_exports(keeper, cancel)?;
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
            accept(keeper, socket, &busy);
        }
    }
    // From now on engines find nobody, and try again until there is somebody.
    drop(sockets);
    busy.wait(LAST_WORDS);
    // What it has begun is waited for too.
    let _ = exports.join();
    keeper.wait_for_exports();
    Ok(())
}

/// Accepts one connection.
fn accept(keeper: &Arc<Keeper>, socket: &Socket, busy: &Arc<Busy>) {
    let stream = match socket.listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) => {
            if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                keeper.log(&format!("cannot accept a connection: {error}"));
                // Where descriptors are used up, only time helps, and the connection still waits.
                let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                let _ = poll(&mut [], Some(&pause));
            }
            return;
        }
    };
    let Some(open) = busy.open() else {
        keeper.log("there are too many connections: one more is turned away");
        return;
    };
    let (driver, keeper, busy) = (socket.driver, Arc::clone(keeper), Arc::clone(busy));
    let talk = move || {
        let _open = open;
        if stream.set_nonblocking(false).is_ok() {
            let engine = Engine::of(&stream);
            converse(&keeper, driver, engine, Connection::new(stream), &busy);
        }
    };
    // Without a thread for it the connection is dropped, which engines take as a reason to try again.
    let _ = thread::Builder::new().name("connection".to_owned()).spawn(talk);
}

/// Answers one request after the other.
fn converse(
    keeper: &Arc<Keeper>,
    driver: Driver,
    engine: Option<Engine>,
    mut connection: Connection,
    busy: &Arc<Busy>,
) {
    loop {
        let request = match connection.next() {
            Ok(Some(request)) => request,
            Ok(None) | Err(Refusal::Gone) => return,
            Err(Refusal::Bad(status, why)) => {
                // Nothing that follows could be told from the rest of this.
                let _ = connection.answer(status, &body(&Answer::failed(&Error::usage(why))), false);
                return;
            }
        };
        let _working = busy.work();
        let stays = request.stays;
        match reply(keeper, driver, engine.as_ref(), &request) {
            Ok(Reply { status, answer, mounted }) => {
                let delivered = connection.answer(status, &body(&answer), stays);
                if let (Err(_), Some((name, id))) = (&delivered, mounted) {
                    keeper.undo_mount(driver, &name, &id);
                }
                if delivered.is_err() || !stays {
                    return;
                }
            }
            // Without a word: see Trouble.
            Err(error) => {
                keeper.log(&format!("{} is not answered: {error}", request.path));
                return;
            }
        }
    }
}

/// What goes back to an engine.
struct Reply {
    status: u16,
    answer: Answer,
    /// What must be taken back if this does not arrive.
    mounted: Option<(VolumeName, MountId)>,
}

impl Reply {
    fn done(answer: Answer) -> Self {
        Self { status: 200, answer, mounted: None }
    }

    /// An error with status 500: for podman, 200 would be success.
    fn failed(status: u16, error: &Error) -> Self {
        Self { status, answer: Answer::failed(error), mounted: None }
    }
}

fn reply(keeper: &Arc<Keeper>, driver: Driver, engine: Option<&Engine>, request: &Request) -> Result<Reply> {
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
                keeper.doubt_mounts();
            }
            return Err(error);
        }
        Err(error) => {
            return match keeper.is_readable() {
                Ok(()) => Ok(Reply::failed(500, &error)),
                Err(error) => Err(error),
            };
        }
    };
    let outcome = match call {
        Call::Mount { name, id } => keeper.mount(driver, &name, &id, engine).map(|mountpoint| Reply {
            mounted: Some((name, id)),
            ..Reply::done(Answer::mounted(mountpoint))
        }),
        Call::Unmount { name, id } => {
            keeper.unmount(driver, &name, &id, request.is_typed).map(|()| Reply::done(Answer::default()))
        }
        Call::Remove(name) => keeper.remove(driver, &name).map(Reply::done),
        call => keeper.answer(driver, call).map(Reply::done),
    };
    match outcome {
        Ok(reply) => Ok(reply),
        Err(Trouble::Say(error)) => Ok(Reply::failed(500, &error)),
        Err(Trouble::HangUp(error)) => Err(error),
    }
}

fn body(answer: &Answer) -> Vec<u8> {
    // Maps with text for keys can always be written.
    serde_json::to_vec(answer).unwrap_or_default()
}

/// Looks after exports that nobody asks for any more, in a thread of its own.
fn look_after_exports(keeper: &Arc<Keeper>, cancel: &CancelToken) -> Result<JoinHandle<()>> {
    let (keeper, cancel) = (Arc::clone(keeper), cancel.clone());
    let work = move || {
        while !cancel.is_cancelled() {
            keeper.export_what_is_due();
            empty_trash(&keeper);
            // The loop ends where this fails.
            let _ = cancel.sleep(keeper.settings.interval);
        }
    };
    let begun = thread::Builder::new().name("exports".to_owned()).spawn(work);
    begun.map_err(|error| Error::io("cannot look after exports", error))
}

/// Removes what no volume needs any more, in a thread of its own.
fn empty_trash(keeper: &Arc<Keeper>) {
    if keeper.directory.trash.is_due() {
        let keeper = Arc::clone(keeper);
        let work = move || keeper.directory.trash.empty(&|line| keeper.log(line));
        // Where there are no threads left, it is tried again soon.
        let _ = thread::Builder::new().name("trash".to_owned()).spawn(work);
    }
}

/// How many connections there are, and how many of them wait for an answer.
#[derive(Default)]
struct Busy {
    connections: Mutex<usize>,
    working: Mutex<usize>,
    done: Condvar,
}

/// One of them, until this is dropped.
struct Counted<'a> {
    busy: &'a Busy,
}

/// A connection, until this is dropped.
struct Open(Arc<Busy>);

impl Busy {
    fn open(self: &Arc<Self>) -> Option<Open> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        (*connections < CONNECTIONS).then(|| {
            *connections += 1;
            Open(Arc::clone(self))
        })
    }

    fn work(&self) -> Counted<'_> {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Counted { busy: self }
    }

    /// Waits until nobody waits for an answer.
    fn wait(&self, patience: Duration) {
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.done.wait_timeout_while(working, patience, |working| *working > 0));
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *self.busy.working.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.busy.done.notify_all();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.connections.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}
