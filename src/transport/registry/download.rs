//! Blobs coming out (distribution-spec, "Pulling blobs").

use super::answer::Answer;
use super::http::runtime;
use crate::error::{Error, Result};
use crate::stream::Unverified;
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::AbortHandle;

/// Chunks that wait for the reader; a chunk is what the network gave at once, at most half a mebibyte.
const AHEAD: usize = 4;

/// The body of an answer for a thread that may block.
pub(super) fn download(mut answer: Answer) -> Result<Unverified> {
    let (chunks, received) = channel(AHEAD);
    let task = runtime()?.spawn(async move {
        loop {
            let chunk = answer.chunk().await;
            let last = !matches!(chunk, Ok(Some(_)));
            // The reader may be gone; the task then ends with the connection.
            if chunks.send(chunk).await.is_err() || last {
                return;
            }
        }
    });
    let reader =
        Incoming { chunks: received, current: Bytes::new(), ended: false, task: task.abort_handle() };
    Ok(Unverified::new(reader))
}

/// Bytes from the network. Only the word of the connection that this was all is an end of file.
struct Incoming {
    chunks: Receiver<Result<Option<Bytes>>>,
    current: Bytes,
    ended: bool,
    task: AbortHandle,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok(Some(chunk))) => self.current = chunk,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Error::failed("the download has failed already").into()),
            }
        }
        let taken = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}

impl Drop for Incoming {
    /// Ends the download where it is: a server that sends slowly would hold the connection for long.
    fn drop(&mut self) {
        self.task.abort();
    }
}
