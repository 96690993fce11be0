//! HTTP/1.1 as far as registries and their clients speak it: connections that last, bodies by length and in chunks,
//! and ranges.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write};
use std::net::TcpStream;
use std::path::Path;

/// Bytes of a body that are read at once, few enough to stay in the cache until they are written.
const BUFFER: usize = 256 << 10;
/// The longest line of a head: a location with its state fits many times.
const LINE: u64 = 64 << 10;

/// The head of a request.
pub struct Request {
    pub method: String,
    pub path: String,
    query: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

/// A response.
pub struct Answer {
    status: u16,
    headers: String,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    /// So many bytes of a file, from where it stands.
    File(File, u64),
}

/// The unread rest of the body of a request.
enum Left {
    Bytes(u64),
    /// Chunks, of which the current one has so many bytes left.
    Chunks(u64),
}

/// A connection to a client.
pub struct Connection {
    stream: BufReader<TcpStream>,
    left: Left,
    /// The client waits for the word to go on before it sends its body.
    expects: bool,
    buffer: Vec<u8>,
    received: u64,
    sent: u64,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the client speaks no HTTP that is known here: {why}"))
}

impl Request {
    /// The value of a header; its name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the address. Of what may be encoded in a digest, only the colon ever is.
    pub fn query(&self, name: &str) -> Option<String> {
        let mut parameters = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = parameters.find(|(other, _)| *other == name)?;
        Some(value.replace("%3A", ":").replace("%3a", ":"))
    }

    /// A file, or the range of it that is asked for.
    pub fn ranged(&self, path: &Path) -> io::Result<Answer> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let asked = self.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((start, end)) = asked else {
            return Ok(Answer { content: Content::File(file, size), ..Answer::new(200) }.ranges());
        };
        let start: u64 = start.parse().map_err(|_| invalid("its range begins nowhere"))?;
        let end = end.parse().map_or(size, |end: u64| end.saturating_add(1).min(size));
        if start >= end {
            return Ok(Answer::new(416));
        }
        file.seek(SeekFrom::Start(start))?;
        let answer = Answer { content: Content::File(file, end - start), ..Answer::new(206) };
        Ok(answer.ranges().header("content-range", &format!("bytes {start}-{}/{size}", end - 1)))
    }
}

impl Answer {
    /// An answer without content.
    pub fn new(status: u16) -> Self {
        Self { status, headers: String::new(), content: Content::Bytes(Vec::new()) }
    }

    /// The same with a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// The same with these bytes as its content.
    pub fn bytes(self, bytes: Vec<u8>) -> Self {
        Self { content: Content::Bytes(bytes), ..self }
    }

    /// The same with a text as its content.
    pub fn text(self, text: String) -> Self {
        self.bytes(text.into_bytes())
    }

    fn ranges(self) -> Self {
        self.header("accept-ranges", "bytes").header("content-type", "application/octet-stream")
    }
}

impl Connection {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::with_capacity(BUFFER, stream),
            left: Left::Bytes(0),
            expects: false,
            buffer: vec![0; BUFFER],
            received: 0,
            sent: 0,
        })
    }

    /// The bytes received and sent since this was asked last.
    pub fn take_traffic(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.received), std::mem::take(&mut self.sent))
    }

    /// The head of the next request; `None` when the client has no more.
    pub fn request(&mut self) -> io::Result<Option<Request>> {
        let line = self.line()?;
        let mut words = line.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return if line.is_empty() { Ok(None) } else { Err(invalid("the first line")) };
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Vec::new(),
        };
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        self.left = match (request.header("transfer-encoding"), request.header("content-length")) {
            (Some(_), _) => Left::Chunks(0),
            (None, length) => Left::Bytes(length.and_then(|length| length.parse().ok()).unwrap_or(0)),
        };
        self.expects = request.header("expect").is_some();
        Ok(Some(request))
    }

    /// A line of a head, without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.received += self.stream.by_ref().take(LINE).read_until(b'\n', &mut line)? as u64;
        String::from_utf8(line).map(|line| line.trim_end().to_owned()).map_err(|_| invalid("a line"))
    }

    /// Copies what is left of the body of the request.
    pub fn body(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::take(&mut self.expects) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        loop {
            let left = match &mut self.left {
                Left::Bytes(left) => left,
                Left::Chunks(0) => match self.next_chunk()? {
                    0 => return Ok(()),
                    size => {
                        self.left = Left::Chunks(size);
                        continue;
                    }
                },
                Left::Chunks(left) => left,
            };
            if *left == 0 {
                return Ok(());
            }
            let most = usize::try_from(*left).map_or(BUFFER, |left| left.min(BUFFER));
            let read = self.stream.read(&mut self.buffer[..most])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *left -= read as u64;
            self.received += read as u64;
            out.write_all(&self.buffer[..read])?;
            if matches!(self.left, Left::Chunks(0)) {
                self.line()?; // the end of the chunk
            }
        }
    }

    /// Reads the size of the next chunk; 0 ends the body.
    fn next_chunk(&mut self) -> io::Result<u64> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(digits.trim(), 16).map_err(|_| invalid("the size of a chunk"))?;
        if size == 0 {
            while !self.line()?.is_empty() {}
            self.left = Left::Bytes(0);
        }
        Ok(size)
    }

    /// Skips the rest of the body, which stands before the next request.
    pub fn drain(&mut self) -> io::Result<()> {
        match (self.expects, &self.left) {
            (true, _) | (_, Left::Bytes(0)) => Ok(()),
            _ => self.body(&mut io::sink()),
        }
    }

    /// Sends an answer.
    pub fn answer(&mut self, request: &Request, answer: Answer) -> io::Result<()> {
        let length = match &answer.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(_, length) => *length,
        };
        let status = answer.status;
        let length = if status == 204 { String::new() } else { format!("content-length: {length}\r\n") };
        let head = format!("HTTP/1.1 {status} -\r\n{}{length}\r\n", answer.headers);
        match answer.content {
            _ if request.method == "HEAD" => self.send(head.as_bytes()),
            Content::Bytes(bytes) => self.send(&[head.as_bytes(), &bytes].concat()),
            Content::File(file, length) => {
                self.send(head.as_bytes())?;
                // From a file to a socket the standard library copies within the kernel.
                self.sent += io::copy(&mut file.take(length), self.stream.get_mut())?;
                Ok(())
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sent += bytes.len() as u64;
        self.stream.get_mut().write_all(bytes)
    }
}
