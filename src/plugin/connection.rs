//! HTTP/1.1 over a unix socket, as far as engines use it: sequential requests with a Content-Length.
//!
//! A server library would not do, because it does not report whether a response was delivered. If the engine has hung
//! up, a mount must not be counted.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The maximum size of a request's head in bytes; Docker's has about 200.
const MAX_HEAD: usize = 16 << 10;
/// The maximum number of header fields.
const MAX_FIELDS: usize = 64;
/// The maximum size of a body in bytes: some options of a volume are command lines.
const MAX_BODY: usize = 1 << 20;
/// The time for a request to arrive once it has begun, and for its response to be sent. Between requests there is no
/// limit: Docker keeps connections for days, and after a connection that is closed during a request it repeats the
/// request without the body.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The media type that go-plugins-helpers sends; engines do not check it.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";

/// A connection from an engine.
pub(super) struct Connection {
    stream: UnixStream,
    /// Bytes that were read and belong to the next request.
    buffer: Vec<u8>,
    timeout: Duration,
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// Set if another request may follow.
    pub(super) keep_alive: bool,
    /// Set if the request has a Content-Type: podman sends one, Docker does not.
    pub(super) has_content_type: bool,
}

/// The reason for not having a request.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The engine has hung up, or is too slow.
    Gone,
    /// The request cannot be handled; it gets this status, and the connection is closed.
    Bad(u16, &'static str),
}

/// The head of a request.
struct Head {
    request: Request,
    /// The offset and the length of the body, in bytes.
    body: (usize, usize),
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), timeout: TIMEOUT }
    }

    #[cfg(test)]
    pub(super) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Waits for the next request. Returns `None` at the end of the connection.
    pub(super) fn next(&mut self) -> Result<Option<Request>, RequestError> {
        if self.buffer.is_empty() {
            self.stream.set_read_timeout(None).map_err(|_| RequestError::Gone)?;
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
        let deadline = Instant::now() + self.timeout;
        let Head { mut request, body: (start, length) } = loop {
            match parse(&self.buffer)? {
                Some(head) => break head,
                None if self.buffer.len() > MAX_HEAD => {
                    return Err(RequestError::Bad(431, "the head is too long"));
                }
                None => self.fill_before(deadline)?,
            }
        };
        while self.buffer.len() < start + length {
            self.fill_before(deadline)?;
        }
        request.body = self.buffer[start..start + length].to_vec();
        self.buffer.drain(..start + length);
        Ok(Some(request))
    }

    /// Reads more bytes before the deadline.
    fn fill_before(&mut self, deadline: Instant) -> Result<(), RequestError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
            return Err(RequestError::Gone);
        }
        match self.fill()? {
            0 => Err(RequestError::Gone),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> Result<usize, RequestError> {
        let mut buffer = [0; 4 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(RequestError::Gone),
                Ok(length) => {
                    self.buffer.extend_from_slice(&buffer[..length]);
                    return Ok(length);
                }
            }
        }
    }

    /// Sends a response. On a unix socket the write fails if the engine has hung up.
    ///
    /// # Errors
    ///
    /// The response was not delivered.
    pub(super) fn respond(&mut self, status: u16, body: &[u8], keep_alive: bool) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.timeout))?;
        let reason = if status == 200 { "OK" } else { "Error" };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut answer = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend_from_slice(body);
        self.stream.write_all(&answer)
    }
}

/// Parses a head. Returns `None` if it is incomplete.
fn parse(read: &[u8]) -> Result<Option<Head>, RequestError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let start = match parsed.parse(read) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(RequestError::Bad(431, "the head has too many fields"));
        }
        Err(_) => return Err(RequestError::Bad(400, "this is not HTTP")),
    };
    let is = |name: &'static str| move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
    let mut lengths = parsed.headers.iter().filter(is("content-length"));
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => 0,
        (Some(length), None) => std::str::from_utf8(length.value)
            .ok()
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            .map(|digits| digits.parse().unwrap_or(usize::MAX))
            .ok_or(RequestError::Bad(400, "the Content-Length is not a number"))?,
        (Some(_), Some(_)) => return Err(RequestError::Bad(400, "there are two Content-Lengths")),
    };
    if parsed.headers.iter().any(|field| is("transfer-encoding")(&field)) {
        return Err(RequestError::Bad(411, "the body needs a Content-Length"));
    }
    if length > MAX_BODY {
        return Err(RequestError::Bad(413, "the body is too long"));
    }
    let closes = parsed
        .headers
        .iter()
        .filter(is("connection"))
        .any(|field| field.value.to_ascii_lowercase().windows(5).any(|word| word == b"close"));
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        body: Vec::new(),
        keep_alive: parsed.version == Some(1) && !closes,
        has_content_type: parsed.headers.iter().any(|field| is("content-type")(&field)),
    };
    Ok(Some(Head { request, body: (start, length) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_does_not_come_to_its_end_is_not_waited_for() {
        let timeout = Duration::from_millis(20);
        for half in
            ["P", "POST /VolumeDriver.Get HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
        {
            let (here, mut there) = UnixStream::pair().unwrap();
            there.write_all(half.as_bytes()).unwrap();
            let mut connection = Connection::new(here).with_timeout(timeout);
            assert!(matches!(connection.next(), Err(RequestError::Gone)), "{half:?}");
        }
    }

    #[test]
    fn an_answer_that_nobody_reads_is_not_waited_for() {
        let (here, _there) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(here).with_timeout(Duration::from_millis(20));
        assert!(connection.respond(200, &vec![b' '; 8 << 20], true).is_err());
    }

    #[test]
    fn that_nobody_is_there_to_read_is_known_at_once() {
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        assert!(Connection::new(here).respond(200, b"{}", true).is_err());
    }
}
