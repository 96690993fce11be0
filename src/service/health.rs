//! The health endpoint: `/readyz`, `/healthz` and `/metrics` over HTTP/1.1.
//!
//! Anyone may connect to it. A request has a limited size and time, and gets one response, after which the connection is
//! closed; there is a limited number of connections, and the oldest one gives way to a new one.

use super::clock::Clock;
use super::metrics;
use super::status::Status;
use crate::error::{Error, Result};
use crate::stream::start;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The maximum size of the head of a request in bytes.
const MAX_HEAD: usize = 8 << 10;
/// The maximum number of header fields.
const MAX_FIELDS: usize = 64;
/// The time for a request to arrive, and for its response to be sent.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of connections.
const MAX_CONNECTIONS: usize = 16;
/// The pause after an error of `accept`, such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A health endpoint that listens until this is dropped.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    is_closed: Arc<AtomicBool>,
}

/// The state that all connections share.
struct Shared {
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    /// The open connections, oldest first, each with a number.
    connections: Mutex<VecDeque<(u64, TcpStream)>>,
}

impl HealthServer {
    /// Listens on an address such as `127.0.0.1:8080`, or `:8080` for all addresses of the machine.
    ///
    /// # Errors
    /// The address is not one, or is in use.
    pub fn start(listen: &str, status: Arc<Status>, clock: Arc<dyn Clock>) -> Result<Self> {
        let cannot = |error: io::Error| {
            let error = Error::io(format!("--listen: cannot listen on {listen}"), error);
            if error.hint().is_some() {
                error
            } else {
                error.with_hint("write ADDRESS:PORT, or :PORT for all addresses")
            }
        };
        let listener = bind(listen).map_err(cannot)?;
        // Before the first run, a lock may be waited for.
        status.alive(&*clock);
        let address = listener.local_addr().map_err(cannot)?;
        let is_closed = Arc::<AtomicBool>::default();
        let closed = Arc::clone(&is_closed);
        let shared = Arc::new(Shared { status, clock, connections: Mutex::default() });
        start(move || accept(&listener, &shared, &closed))?;
        Ok(Self { address, is_closed })
    }

    /// Returns the address, with the port that the system has chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // The listener waits for a connection. Where that fails, it ends with the process.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn bind(listen: &str) -> io::Result<TcpListener> {
    let Some(port) = listen.strip_prefix(':') else {
        let addresses: Vec<SocketAddr> = listen.to_socket_addrs()?.collect();
        return TcpListener::bind(&addresses[..]);
    };
    let port =
        port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the port is not a number"))?;
    // The IPv6 address takes IPv4 too, on Linux; there may be no IPv6.
    TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, closed: &AtomicBool) {
    for number in 0.. {
        let accepted = listener.accept();
        if closed.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok((stream, _)) => shared.serve(number, stream),
            // The connection stays in the queue.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

impl Shared {
    /// Serves a connection on a thread of its own. Without one the connection is closed.
    fn serve(self: &Arc<Self>, number: u64, stream: TcpStream) {
        let Ok(copy) = stream.try_clone() else { return };
        self.open(number, copy);
        let shared = Arc::clone(self);
        let served = start(move || {
            // An error means that the other end is gone or too slow.
            let _ = shared.respond(stream);
            shared.close(number);
        });
        if served.is_err() {
            self.close(number);
        }
    }

    fn open(&self, number: u64, stream: TcpStream) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        while connections.len() >= MAX_CONNECTIONS
            && let Some((_, oldest)) = connections.pop_front()
        {
            // Its thread ends with an error.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        connections.push_back((number, stream));
    }

    fn close(&self, number: u64) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|(other, _)| *other != number);
    }

    fn respond(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(TIMEOUT))?;
        let (status, media_type, text) = match read_request(&mut stream)? {
            Ok((method, _)) if method != "GET" && method != "HEAD" => {
                ("405 Method Not Allowed", TEXT, "GET only\n".to_owned())
            }
            Ok((_, path)) => self.answer(&path),
            Err(status) => (status, TEXT, format!("{status}\n")),
        };
        let length = text.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        // One write, so that a slow reader cannot have a time limit for each part.
        stream.write_all(format!("{head}{text}").as_bytes())?;
        stream.shutdown(Shutdown::Write)
    }

    fn answer(&self, path: &str) -> (&'static str, &'static str, String) {
        let complaint = self.status.complaint(&*self.clock);
        match path.split('?').next().unwrap_or_default() {
            "/healthz" => match complaint {
                None => ("200 OK", TEXT, "ok\n".to_owned()),
                Some(complaint) => (UNAVAILABLE, TEXT, format!("{complaint}\n")),
            },
            "/readyz" if self.status.is_ready() => ("200 OK", TEXT, "ok\n".to_owned()),
            "/readyz" => (UNAVAILABLE, TEXT, "nothing was successful yet\n".to_owned()),
            "/metrics" => {
                let text = metrics::format(&self.status.snapshot(), complaint.as_deref());
                ("200 OK", metrics::MEDIA_TYPE, text)
            }
            _ => ("404 Not Found", TEXT, "there are /healthz, /readyz and /metrics\n".to_owned()),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const UNAVAILABLE: &str = "503 Service Unavailable";

/// Reads the head of a request. Returns its method and path, or the status for a request that is not accepted.
fn read_request(stream: &mut TcpStream) -> io::Result<Result<(String, String), &'static str>> {
    let end = Instant::now() + TIMEOUT;
    let mut head = Vec::new();
    let mut buffer = [0; 1 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err("408 Request Timeout"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => head.extend_from_slice(&buffer[..length]),
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
                return Ok(Ok((text(request.method), text(request.path))));
            }
            Ok(httparse::Status::Partial) if head.len() <= MAX_HEAD => {}
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Ok(Err("431 Request Header Fields Too Large"));
            }
            Err(_) => return Ok(Err("400 Bad Request")),
        }
    }
}
