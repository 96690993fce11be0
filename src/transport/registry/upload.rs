//! Blobs going in (distribution-spec, "Pushing blobs").
//!
//! A blob whose digest is known goes in one PUT. One that is still being made goes in one PATCH without
//! `Content-Range`, as docker and podman do it, and a PUT says afterwards what it was. In chunks it goes when the user
//! wants that, when a request was too large, or when connections do not last ([`quirks`](super::quirks)). Either way
//! its last bytes are held back until the body has said that they are right: a registry never holds the whole of a lie.
//!
//! What broke goes on where the registry says that it stopped, or from the beginning where it has forgotten
//! everything. A body that comes only once goes back no further than its last chunk; beyond that, whoever makes it
//! makes it anew.

use super::client::Client;
use super::http::wait;
use super::retry::Attempts;
use super::saved_session::SavedSession;
use super::session::{Piece, Session};
use super::upload_policy::CHUNK;
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::stream::{Body, Written};
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use tokio::time::sleep;

/// Blobs below this size are sent again rather than continued by another process, in bytes.
const WORTH_REMEMBERING: u64 = 1 << 20;

/// The largest chunk of a body that comes only once, in bytes: such a chunk is kept until the registry has it.
const KEPT_LIMIT: u64 = 64 << 20;
/// What may have been sent and not have arrived when a connection breaks, in bytes: it waited in buffers on the way.
const ON_ITS_WAY: u64 = 8 << 20;
/// Breaks of smaller requests are not worth asking twice, in bytes.
const WORTH_ASKING: u64 = 1 << 20;
/// How often a registry is asked again that may not have noticed yet that a connection broke.
const QUESTIONS: u32 = 4;

/// Statuses by which a proxy says that the connection broke behind it.
const BROKEN: [u16; 4] = [499, 502, 504, 522];
/// Statuses that say that a request was too large: a proxy's, that of ghcr.io, and those of servers that want to know
/// the length beforehand.
const TOO_LARGE: [u16; 3] = [413, 416, 411];

/// The way of one blob into a repository.
pub(super) struct Upload<'a> {
    client: &'a Arc<Client>,
    reference: &'a Reference,
    what: String,
    /// How many bytes the registry has said that it took.
    accepted: u64,
    /// The size of the last request, in bytes.
    request: u64,
    /// The upload goes on from before a failure: what it has may be something else than we think.
    continued: bool,
    /// How often that was thought.
    doubts: u32,
}

impl<'a> Upload<'a> {
    /// Sends nothing yet.
    pub(super) fn new(client: &'a Arc<Client>, reference: &'a Reference) -> Self {
        Self { client, reference, what: String::new(), accepted: 0, request: 0, continued: false, doubts: 0 }
    }

    /// Sends a blob, whatever it takes.
    pub(super) fn run(mut self, body: Body) -> Result<Written> {
        let _guard = self.client.options().cancel.guard()?;
        let expected = body.expected().cloned();
        self.what = match &expected {
            Some(expected) => format!("upload {} to {}", expected.digest, self.reference.name()),
            None => format!("upload a blob to {}", self.reference.name()),
        };
        let worth = expected
            .filter(|expected| expected.size >= WORTH_REMEMBERING && self.client.upload_policy.takes_parts());
        let mut memory = worth
            .and_then(|expected| SavedSession::of(self.client.options(), self.reference, &expected.digest));
        let mut supply = Supply { body, again: Cursor::default() };
        let mut session = self.resume(memory.as_mut(), &mut supply)?;
        let outcome = self.persist(&mut session, &mut supply, memory.as_mut());
        let is_over = outcome.as_ref().err().is_none_or(|error| error.retry_after().is_none());
        // What may still be continued is left where it is.
        if outcome.is_err() && (memory.is_none() || is_over) {
            session.cancel();
        }
        if let Some(memory) = memory.filter(|_| is_over) {
            memory.forget();
        }
        outcome?;
        supply.body.finish()
    }

    /// The upload that another process has begun, or a new one.
    fn resume(&mut self, memory: Option<&mut SavedSession>, supply: &mut Supply) -> Result<Session<'a>> {
        let known = memory.and_then(SavedSession::address).filter(|url| self.client.is_ours(url));
        if let Some(url) = known {
            let mut session = Session::at(self.client, self.reference.repository(), &self.what, url);
            let size = supply.body.expected().map_or(0, |expected| expected.size);
            if let Some(received) = session.received().filter(|received| *received <= size) {
                supply.body.skip_to(received)?;
                (self.accepted, self.continued) = (received, true);
                return Ok(session);
            }
        }
        self.begin()
    }

    fn begin(&mut self) -> Result<Session<'a>> {
        (self.accepted, self.continued) = (0, false);
        Session::begin(self.client, self.reference.repository(), &self.what)
    }

    /// Sends until all is there, or nothing helps any more.
    fn persist(
        &mut self,
        session: &mut Session<'a>,
        supply: &mut Supply,
        mut memory: Option<&mut SavedSession>,
    ) -> Result<()> {
        let options = self.client.options().clone();
        let mut attempts = Attempts::new(&options);
        let mut furthest = 0;
        loop {
            let Err(error) = self.send(session, supply, memory.as_deref_mut()) else { return Ok(()) };
            options.cancel.check()?;
            if let Ok(written) = supply.body.written()
                && session.has(self.reference.repository(), &written)
            {
                // Only the response was lost.
                return Ok(());
            }
            if self.accepted > furthest {
                furthest = self.accepted;
                attempts.restart();
            }
            let learned = self.learn(&error);
            let doubtful = !learned && self.is_doubtful(&error);
            if !learned && !doubtful && !wait(async { Ok(attempts.wait_for_retry(&error).await) })? {
                return Err(error);
            }
            if !self.go_back(session, supply, &error, doubtful)? {
                return Err(if learned { error.with_retry_after(Default::default()) } else { error });
            }
        }
    }

    /// Learns from a failure how large requests may be, and says whether that helps.
    fn learn(&self, error: &Error) -> bool {
        match error.status() {
            // A chunk of that size was taken before: this is not about the size.
            Some(416) if self.accepted > 0 => false,
            Some(status) if TOO_LARGE.contains(&status) => {
                self.client.upload_policy.learn(self.request, false)
            }
            _ => false,
        }
    }

    /// Whether a refusal may only mean that the upload holds something else than we think.
    fn is_doubtful(&mut self, error: &Error) -> bool {
        let goes_on = self.continued || self.accepted > 0;
        let doubtful =
            goes_on && self.doubts < 2 && error.retry_after().is_none() && error.status().is_some();
        self.doubts += u32::from(doubtful);
        doubtful
    }

    /// Goes back to where the registry stopped, or to the beginning. `false` when the body cannot go back so far.
    fn go_back(
        &mut self,
        session: &mut Session<'a>,
        supply: &mut Supply,
        error: &Error,
        doubtful: bool,
    ) -> Result<bool> {
        let upload_policy = &self.client.upload_policy;
        let sent = supply.position();
        let received = match doubtful || !upload_policy.takes_parts() {
            true => None,
            false => self.received(session, sent, error)?,
        };
        // What it has accepted it has, though some registries say less afterwards; and more than we sent it cannot
        // have from us.
        let offset =
            received.filter(|received| *received <= sent).map(|received| received.max(self.accepted));
        // Of a request whose connection broke it has kept nothing: such a request must not happen to it again.
        if error.status().is_none() && offset.is_none_or(|offset| offset == self.accepted) {
            upload_policy.learn(sent - self.accepted, true);
        }
        if let Some(offset) = offset.filter(|offset| *offset > 0)
            && supply.rewind(offset)?
        {
            (self.accepted, self.continued) = (offset, true);
            return Ok(true);
        }
        if !supply.rewind(0)? {
            return Ok(false);
        }
        session.cancel();
        *session = self.begin()?;
        Ok(true)
    }

    /// How far the upload is. Asked before it has noticed that a connection broke, a registry says less than it will have
    /// a moment later: an response that would cost much is asked for again, in tenths of the pauses between attempts.
    fn received(&self, session: &mut Session<'a>, sent: u64, error: &Error) -> Result<Option<u64>> {
        let options = self.client.options();
        let broke = error.status().is_none_or(|status| BROKEN.contains(&status));
        let is_worth_it = broke && sent - self.accepted > WORTH_ASKING;
        let mut received = session.received();
        for question in 0..QUESTIONS {
            let Some(offset) = received else { break };
            let is_likely = offset > self.accepted && offset.saturating_add(ON_ITS_WAY) >= sent;
            if !is_worth_it || is_likely {
                break;
            }
            options.cancel.check()?;
            let pause = (options.retry.delay / 10).saturating_mul(1 << question);
            wait(async {
                sleep(pause).await;
                Ok(())
            })?;
            received = session.received();
        }
        Ok(received)
    }

    /// Sends what is left, in the way that the registry wants it.
    fn send(
        &mut self,
        session: &mut Session<'a>,
        supply: &mut Supply,
        mut memory: Option<&mut SavedSession>,
    ) -> Result<()> {
        if let Some(memory) = memory.as_deref_mut() {
            memory.remember(session.address());
        }
        let expected = supply.body.expected().cloned();
        let chunk = self.client.upload_policy.chunk();
        match (expected, chunk) {
            (Some(expected), None) if self.accepted == 0 && !self.continued => {
                self.request = expected.size;
                return session.send(&Piece::Whole(expected), supply);
            }
            (None, None) if supply.is_fresh() && self.accepted == 0 => {
                self.request = u64::MAX;
                session.send(&Piece::Endless, supply)?;
            }
            (expected, chunk) => {
                let chunk = match expected {
                    Some(_) => chunk.unwrap_or(u64::MAX),
                    None => chunk.unwrap_or(CHUNK).min(KEPT_LIMIT),
                };
                while self.chunk(session, supply, chunk, expected.as_ref())? {
                    if let Some(memory) = memory.as_deref_mut() {
                        memory.remember(session.address());
                    }
                }
            }
        }
        session.close(&supply.written()?)
    }

    /// Sends one chunk; `false` when it was the last.
    fn chunk(
        &mut self,
        session: &mut Session<'a>,
        supply: &mut Supply,
        chunk: u64,
        expected: Option<&Written>,
    ) -> Result<bool> {
        let offset = supply.position();
        let size = match expected {
            Some(expected) => chunk.min(expected.size - offset),
            None => supply.load(chunk)?,
        };
        let is_last = expected.is_some_and(|expected| offset + size == expected.size) || size == 0;
        self.request = size;
        let piece = Piece::Chunk(offset, size);
        match () {
            () if size == 0 => drain(supply)?,
            () if is_last => session.send(&piece, supply)?,
            () => session.send(&piece, &mut supply.take(size))?,
        }
        self.accepted = offset + size;
        Ok(!is_last)
    }
}

/// Reads to the end, so that the body says what it was.
fn drain(supply: &mut Supply) -> Result<()> {
    io::copy(supply, &mut io::sink())
        .map(drop)
        .map_err(|error| Error::io("cannot read the data to upload", error))
}

/// A body, and the last chunk of one that comes only once.
struct Supply {
    body: Body,
    again: Cursor<Vec<u8>>,
}

impl Supply {
    /// Where the next byte stands in the blob.
    fn position(&self) -> u64 {
        self.body.position() - (self.again.get_ref().len() as u64 - self.again.position())
    }

    /// Whether nothing was read yet.
    fn is_fresh(&self) -> bool {
        self.body.position() == 0
    }

    /// Keeps the next chunk, so that it can be sent more than once; says how large it is.
    fn load(&mut self, size: u64) -> Result<u64> {
        let mut chunk = Vec::new();
        self.take(size)
            .read_to_end(&mut chunk)
            .map_err(|error| Error::io("cannot read the data to upload", error))?;
        // What was kept before and does not fit into a smaller chunk comes next.
        let rest = self.again.get_ref()[self.again.position() as usize..].to_vec();
        let loaded = chunk.len() as u64;
        chunk.extend(rest);
        self.again = Cursor::new(chunk);
        Ok(loaded)
    }

    /// Goes back, and says whether that is possible.
    fn rewind(&mut self, offset: u64) -> Result<bool> {
        let kept = self.body.position() - self.again.get_ref().len() as u64;
        if (kept..=self.body.position()).contains(&offset) {
            self.again.set_position(offset - kept);
            return Ok(true);
        }
        self.again = Cursor::default();
        self.body.rewind(offset)
    }

    /// What the body was.
    fn written(&self) -> Result<Written> {
        self.body.written()
    }
}

impl Read for Supply {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.again.read(buffer)? {
            0 => self.body.read(buffer),
            read => Ok(read),
        }
    }
}
