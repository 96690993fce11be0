//! Uploads of blobs (distribution-spec, "Pushing blobs").
//!
//! A blob with a known digest is uploaded by one PUT. A blob that is still being written is uploaded by one PATCH without
//! `Content-Range`, as docker and podman do it, and a PUT with its digest. Chunks are used if the user asks for them, if a
//! request was too large, or if connections do not last ([`upload_policy`](super::upload_policy)). The last bytes are held
//! back until the body has verified itself, so a registry never holds a complete but unverified blob.
//!
//! After an error, the upload continues at the offset that the registry names, or from the beginning if the registry no
//! longer knows the session. A body that can be read only once is buffered by one chunk. If it would have to go back
//! further, the error is retryable, and the caller makes a new body.

use super::client::Client;
use super::http::wait;
use super::retry::Attempts;
use super::saved_session::SavedSession;
use super::session::{Piece, Session};
use super::upload_policy::Cause;
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::stream::{Body, ReadBytes, Written};
use bytes::Bytes;
use std::io::{self, BufRead, Cursor, Read};
use std::sync::Arc;
use tokio::time::sleep;

/// The minimum size in bytes of a blob for which the session is saved for other processes.
const MIN_SAVED_SIZE: u64 = 1 << 20;
/// The maximum chunk size in bytes of a body that can be read only once. Such a chunk is buffered until the registry has it.
const BUFFERED_CHUNK_LIMIT: u64 = 64 << 20;
/// The number of bytes that may be in buffers on the way when a connection breaks.
const IN_FLIGHT_LIMIT: u64 = 8 << 20;
/// The minimum number of unconfirmed bytes for which the offset is asked for repeatedly.
const MIN_REPEATED_SIZE: u64 = 1 << 20;
/// The number of times that the offset is asked for again, because the registry may not have noticed yet that a connection
/// broke.
const OFFSET_QUERIES: u32 = 4;

/// Statuses by which a proxy reports a broken connection to the registry.
const CONNECTION_LOST: [u16; 4] = [499, 502, 504, 522];
/// Statuses for requests that are too large: those of a proxy, of ghcr.io, and of servers that require a length.
const TOO_LARGE: [u16; 3] = [413, 416, 411];

/// An upload of one blob to a repository.
pub(super) struct Upload<'a> {
    client: &'a Arc<Client>,
    reference: &'a Reference,
    what: String,
    /// The number of bytes that the registry has confirmed.
    accepted: u64,
    /// The size of the last request in bytes.
    request: u64,
    /// The session was resumed after an error or by another process, so its offset may be wrong.
    is_resumed: bool,
    /// The number of errors that were attributed to a wrong offset.
    offset_errors: u32,
}

impl<'a> Upload<'a> {
    /// Returns an upload. No request is sent yet.
    pub(super) fn new(client: &'a Arc<Client>, reference: &'a Reference) -> Self {
        Self {
            client,
            reference,
            what: String::new(),
            accepted: 0,
            request: 0,
            is_resumed: false,
            offset_errors: 0,
        }
    }

    /// Uploads a body, with retries.
    pub(super) fn run(mut self, body: Body) -> Result<Written> {
        let _guard = self.client.options().cancel.guard()?;
        let expected = body.expected().cloned();
        self.what = match &expected {
            Some(expected) => format!("upload {} to {}", expected.digest, self.reference.name()),
            None => format!("upload a blob to {}", self.reference.name()),
        };
        let saved = expected.filter(|expected| {
            expected.size >= MIN_SAVED_SIZE && self.client.upload_policy.supports_chunks()
        });
        let mut saved = saved
            .and_then(|expected| SavedSession::open(self.client.options(), self.reference, &expected.digest));
        let mut body = RewindBuffer { body, buffer: Cursor::default() };
        let mut session = self.resume(saved.as_mut(), &mut body)?;
        let result = self.send_with_retries(&mut session, &mut body, saved.as_mut());
        let is_final = result.as_ref().err().is_none_or(|error| error.retry_after().is_none());
        // A session that can be resumed is not aborted.
        if result.is_err() && (saved.is_none() || is_final) {
            session.abort();
        }
        if let Some(saved) = saved.filter(|_| is_final) {
            saved.delete();
        }
        result?;
        body.body.finish()
    }

    /// Resumes the session of another process, or begins a new one.
    fn resume(&mut self, saved: Option<&mut SavedSession>, body: &mut RewindBuffer) -> Result<Session<'a>> {
        let url = saved.and_then(SavedSession::url).filter(|url| self.client.is_own(url));
        if let Some(url) = url {
            let mut session = Session::resume(self.client, self.reference.repository(), &self.what, url);
            let size = body.body.expected().map_or(0, |expected| expected.size);
            if let Some(offset) = session.offset().filter(|offset| *offset <= size) {
                body.body.hash_until(offset)?;
                (self.accepted, self.is_resumed) = (offset, true);
                return Ok(session);
            }
        }
        self.begin()
    }

    fn begin(&mut self) -> Result<Session<'a>> {
        (self.accepted, self.is_resumed) = (0, false);
        Session::begin(self.client, self.reference.repository(), &self.what)
    }

    /// Sends the body until it is complete or no retry makes sense. Progress resets the number of attempts.
    fn send_with_retries(
        &mut self,
        session: &mut Session<'a>,
        body: &mut RewindBuffer,
        mut saved: Option<&mut SavedSession>,
    ) -> Result<()> {
        let options = self.client.options().clone();
        let mut attempts = Attempts::new(&options);
        let mut furthest = 0;
        loop {
            let Err(error) = self.send(session, body, saved.as_deref_mut()) else { return Ok(()) };
            options.cancel.check()?;
            if let Ok(written) = body.written()
                && session.blob_exists(self.reference.repository(), &written)
            {
                // Only the response was lost.
                return Ok(());
            }
            if self.accepted > furthest {
                furthest = self.accepted;
                attempts.restart();
            }
            let is_smaller = self.reduce_chunks(&error);
            let is_offset_error = !is_smaller && self.is_offset_error(&error);
            if !is_smaller && !is_offset_error && !wait(async { Ok(attempts.wait_for_retry(&error).await) })?
            {
                return Err(error);
            }
            if !self.rewind(session, body, &error, is_offset_error)? {
                return Err(if is_smaller { error.with_retry_after(Default::default()) } else { error });
            }
        }
    }

    /// Reduces the chunk size if a request was too large. Returns whether a retry makes sense.
    fn reduce_chunks(&self, error: &Error) -> bool {
        match error.status() {
            // A chunk of this size was accepted before, so the status has another meaning.
            Some(416) if self.accepted > 0 => false,
            Some(status) if TOO_LARGE.contains(&status) => {
                self.client.upload_policy.reduce_chunks(self.request, Cause::TooLarge)
            }
            _ => false,
        }
    }

    /// Returns whether an error may mean that the session's offset is not the one that was assumed.
    fn is_offset_error(&mut self, error: &Error) -> bool {
        let is_continued = self.is_resumed || self.accepted > 0;
        let is_offset_error = is_continued
            && self.offset_errors < 2
            && error.retry_after().is_none()
            && error.status().is_some();
        self.offset_errors += u32::from(is_offset_error);
        is_offset_error
    }

    /// Rewinds the body to the offset of the session, or to the beginning in a new session. Returns `false` if the body
    /// cannot go back so far.
    fn rewind(
        &mut self,
        session: &mut Session<'a>,
        body: &mut RewindBuffer,
        error: &Error,
        is_offset_error: bool,
    ) -> Result<bool> {
        let policy = &self.client.upload_policy;
        let sent = body.position();
        let received = if is_offset_error || !policy.supports_chunks() {
            None
        } else {
            self.received(session, sent, error)?
        };
        // Confirmed bytes count, though some registries name a lower offset afterwards. An offset above what was sent is
        // wrong.
        let offset =
            received.filter(|received| *received <= sent).map(|received| received.max(self.accepted));
        // If the registry has kept nothing after a connection broke, the next request has to be smaller.
        if error.status().is_none() && offset.is_none_or(|offset| offset == self.accepted) {
            policy.reduce_chunks(sent - self.accepted, Cause::ConnectionLost);
        }
        if let Some(offset) = offset.filter(|offset| *offset > 0)
            && body.rewind(offset)?
        {
            (self.accepted, self.is_resumed) = (offset, true);
            return Ok(true);
        }
        if !body.rewind(0)? {
            return Ok(false);
        }
        session.abort();
        *session = self.begin()?;
        Ok(true)
    }

    /// Returns the offset of the session. Before a registry has noticed that a connection broke, it names a lower
    /// offset than a moment later. If much would have to be sent again, it is asked repeatedly, with a tenth of the
    /// usual delays.
    fn received(&self, session: &mut Session<'a>, sent: u64, error: &Error) -> Result<Option<u64>> {
        let options = self.client.options();
        let is_broken = error.status().is_none_or(|status| CONNECTION_LOST.contains(&status));
        let repeats = is_broken && sent - self.accepted > MIN_REPEATED_SIZE;
        let mut received = session.offset();
        for query in 0..OFFSET_QUERIES {
            let Some(offset) = received else { break };
            let is_likely = offset > self.accepted && offset.saturating_add(IN_FLIGHT_LIMIT) >= sent;
            if !repeats || is_likely {
                break;
            }
            options.cancel.check()?;
            let delay = (options.retry.delay / 10).saturating_mul(1 << query);
            wait(async {
                sleep(delay).await;
                Ok(())
            })?;
            received = session.offset();
        }
        Ok(received)
    }

    /// Sends the rest of the body once, in the way that the upload policy prescribes.
    fn send(
        &mut self,
        session: &mut Session<'a>,
        body: &mut RewindBuffer,
        mut saved: Option<&mut SavedSession>,
    ) -> Result<()> {
        if let Some(saved) = saved.as_deref_mut() {
            saved.save(session.own_url());
        }
        let expected = body.body.expected().cloned();
        let chunk = self.client.upload_policy.chunk_size();
        match (expected, chunk) {
            (Some(expected), None) if self.accepted == 0 && !self.is_resumed => {
                self.request = expected.size;
                return session.send(&Piece::Whole(expected), body);
            }
            (None, None) if body.is_unread() && self.accepted == 0 => {
                self.request = u64::MAX;
                session.send(&Piece::Stream, body)?;
            }
            (expected, chunk) => {
                let chunk = match expected {
                    Some(_) => chunk.unwrap_or(u64::MAX),
                    None => {
                        let default = || self.client.upload_policy.default_chunk();
                        chunk.unwrap_or_else(default).min(BUFFERED_CHUNK_LIMIT)
                    }
                };
                while self.send_chunk(session, body, chunk, expected.as_ref())? {
                    if let Some(saved) = saved.as_deref_mut() {
                        saved.save(session.own_url());
                    }
                }
            }
        }
        session.commit(&body.written()?)
    }

    /// Sends one chunk. Returns `false` after the last one.
    fn send_chunk(
        &mut self,
        session: &mut Session<'a>,
        body: &mut RewindBuffer,
        chunk: u64,
        expected: Option<&Written>,
    ) -> Result<bool> {
        let offset = body.position();
        let size = match expected {
            Some(expected) => chunk.min(expected.size - offset),
            None => body.fill(chunk)?,
        };
        let is_last = expected.is_some_and(|expected| offset + size == expected.size) || size == 0;
        self.request = size;
        let piece = Piece::Chunk(offset, size);
        if size == 0 {
            body.drain()?;
        } else if is_last {
            session.send(&piece, body)?;
        } else {
            session.send(&piece, &mut Limited { body, left: size })?;
        }
        self.accepted = offset + size;
        Ok(!is_last)
    }
}

/// A body with a buffer of its last chunk, so that a body that can be read only once can be sent again from there.
struct RewindBuffer {
    body: Body,
    buffer: Cursor<Vec<u8>>,
}

impl RewindBuffer {
    /// Returns the offset of the next byte in the blob.
    fn position(&self) -> u64 {
        self.body.position() - (self.buffer.get_ref().len() as u64 - self.buffer.position())
    }

    /// Returns whether nothing was read yet.
    fn is_unread(&self) -> bool {
        self.body.position() == 0
    }

    /// Reads the next chunk into the buffer, and returns its size.
    fn fill(&mut self, size: u64) -> Result<u64> {
        let mut chunk = Vec::new();
        self.take(size)
            .read_to_end(&mut chunk)
            .map_err(|error| Error::io("cannot read the data to upload", error))?;
        // If the new chunk is smaller than the buffered one, the rest of that one follows.
        let rest = self.buffer.get_ref()[self.buffer.position() as usize..].to_vec();
        let size = chunk.len() as u64;
        chunk.extend(rest);
        self.buffer = Cursor::new(chunk);
        Ok(size)
    }

    /// Goes back to an offset. Returns `false` if that is not possible.
    fn rewind(&mut self, offset: u64) -> Result<bool> {
        let start = self.body.position() - self.buffer.get_ref().len() as u64;
        if (start..=self.body.position()).contains(&offset) {
            self.buffer.set_position(offset - start);
            return Ok(true);
        }
        self.buffer = Cursor::default();
        self.body.rewind(offset)
    }

    /// Reads to the end, so that the digest is known.
    fn drain(&mut self) -> Result<()> {
        let drained = io::copy(self, &mut io::sink());
        drained.map(drop).map_err(|error| Error::io("cannot read the data to upload", error))
    }

    /// Returns the digest and the size of the body after its end.
    fn written(&self) -> Result<Written> {
        self.body.written()
    }
}

impl Read for RewindBuffer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.buffer.read(buffer)? {
            0 => self.body.read(buffer),
            read => Ok(read),
        }
    }
}

impl ReadBytes for RewindBuffer {
    fn read_bytes(&mut self, limit: usize) -> io::Result<Bytes> {
        let buffered = self.buffer.fill_buf()?;
        if buffered.is_empty() {
            return self.body.read_bytes(limit);
        }
        let bytes = Bytes::copy_from_slice(&buffered[..buffered.len().min(limit)]);
        self.buffer.consume(bytes.len());
        Ok(bytes)
    }
}

/// The next bytes of a body, for one chunk.
struct Limited<'a> {
    body: &'a mut RewindBuffer,
    left: u64,
}

impl ReadBytes for Limited<'_> {
    fn read_bytes(&mut self, limit: usize) -> io::Result<Bytes> {
        let limit = usize::try_from(self.left).map_or(limit, |left| left.min(limit));
        if limit == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.body.read_bytes(limit)?;
        self.left -= bytes.len() as u64;
        Ok(bytes)
    }
}
