//! A bounded pipe whose blocks are worked on by several threads and leave in the order in which they came.

use crate::error::Error;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Blocks that wait beyond the ones being worked on: enough that no worker is idle while the reader blinks.
const AHEAD: usize = 2;

type Block = Vec<u8>;
type Reply = io::Result<Block>;
/// What travels to the reader: the place where the next block's result will appear, or the end.
enum Slot {
    Block(Receiver<Reply>),
    End,
}

/// A pipe: what is written is cut into blocks of `block_size` bytes, each block goes through `work` on one of
/// `workers` threads, and the results are read one behind the other.
///
/// The cuts depend on the bytes only, so that the result is the same for any number of workers. At most
/// `workers` + 2 blocks exist at a time. A last block that is empty is left out, unless it is the only one.
///
/// Both ends notice when the other goes away: the reader gets an error, never an end of file, unless
/// [`PipeWriter::finish`] was called; the writer gets [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub fn pipe<W>(block_size: usize, workers: usize, work: W) -> (PipeWriter, PipeReader)
where
    W: Fn(Block) -> Reply + Send + Sync + 'static,
{
    let (slots, results) = sync_channel(workers + AHEAD);
    let (jobs, queue) = channel::<(Block, Sender<Reply>)>();
    let queue = Arc::new(Mutex::new(queue));
    let work = Arc::new(work);
    for _ in 0..workers.max(1) {
        let (queue, work) = (Arc::clone(&queue), Arc::clone(&work));
        // The threads end when the writer, which holds the only sender of jobs, is gone.
        thread::spawn(move || {
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((block, reply)) = job else { return };
                // Nobody waits for the result any more: the reader was dropped.
                let _ = reply.send(work(block));
            }
        });
    }
    let writer = PipeWriter { block: Vec::new(), block_size, begun: false, jobs, slots };
    (writer, PipeReader { results, current: VecDeque::new(), ended: false })
}

/// The end of a pipe that is written. Dropping it abandons the pipe; only [`finish`](PipeWriter::finish) ends it well.
pub struct PipeWriter {
    block: Block,
    block_size: usize,
    begun: bool,
    jobs: Sender<(Block, Sender<Reply>)>,
    slots: SyncSender<Slot>,
}

impl PipeWriter {
    /// Says that all was written.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the reader is gone.
    pub fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() || !self.begun {
            self.send()?;
        }
        self.slots.send(Slot::End).map_err(|_| reader_is_gone())
    }

    fn send(&mut self) -> io::Result<()> {
        self.begun = true;
        let block = std::mem::take(&mut self.block);
        let (reply, result) = channel();
        // The slot first: it is bounded, and so bounds the jobs too.
        self.slots.send(Slot::Block(result)).map_err(|_| reader_is_gone())?;
        self.jobs.send((block, reply)).map_err(|_| reader_is_gone())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.capacity() == 0 {
            self.block.reserve_exact(self.block_size);
        }
        let taken = bytes.len().min(self.block_size - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == self.block_size {
            self.send()?;
        }
        Ok(taken)
    }

    /// Does nothing: a block leaves when it is full, so that flushing does not change the cuts.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of a pipe that is read.
pub struct PipeReader {
    results: Receiver<Slot>,
    current: VecDeque<u8>,
    ended: bool,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.results.recv() {
                Ok(Slot::Block(result)) => self.current = result.recv().map_err(|_| worker_died())??.into(),
                Ok(Slot::End) => self.ended = true,
                Err(_) => return Err(writer_died()),
            }
        }
        self.current.read(buffer)
    }
}

fn reader_is_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other end of the pipe is gone")
}

fn writer_died() -> io::Error {
    Error::failed("the data ended before it was complete").because(reader_is_gone()).into()
}

fn worker_died() -> io::Error {
    Error::failed("a worker thread died; this is a bug in volio").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shout(block: Block) -> Reply {
        Ok(block.to_ascii_uppercase())
    }

    fn through(block_size: usize, workers: usize, bytes: &[u8]) -> Vec<u8> {
        let (mut writer, mut reader) = pipe(block_size, workers, shout);
        let mut out = Vec::new();
        thread::scope(|scope| {
            scope.spawn(move || {
                writer.write_all(bytes).unwrap();
                writer.finish().unwrap();
            });
            reader.read_to_end(&mut out).unwrap();
        });
        out
    }

    #[test]
    fn blocks_leave_in_the_order_in_which_they_came() {
        let bytes: Vec<u8> = (0..10_000u32).flat_map(|n| format!("{n:x},").into_bytes()).collect();
        for (block_size, workers) in [(1, 3), (7, 1), (7, 4), (1 << 20, 2)] {
            assert_eq!(through(block_size, workers, &bytes), bytes.to_ascii_uppercase());
        }
        assert!(through(7, 2, b"").is_empty());
    }

    #[test]
    fn the_work_sees_blocks_of_the_same_size_whatever_the_writes_were() {
        let (mut writer, mut reader) = pipe(4, 2, |block| Ok(format!("[{}]", block.len()).into_bytes()));
        for byte in *b"123456789" {
            writer.write_all(&[byte]).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap();
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        assert_eq!(out, "[4][4][1]");
    }

    #[test]
    fn a_pipe_without_content_still_has_one_block() {
        let (writer, mut reader) = pipe(4, 2, |block| Ok(format!("[{}]", block.len()).into_bytes()));
        writer.finish().unwrap();
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        assert_eq!(out, "[0]");
    }

    #[test]
    fn a_writer_that_died_is_an_error_and_not_an_end() {
        let (mut writer, mut reader) = pipe(4, 2, shout);
        writer.write_all(b"1234567").unwrap();
        drop(writer);
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(Error::io("", error).is_broken_pipe());
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_for_the_writer() {
        let (mut writer, reader) = pipe(1, 1, shout);
        drop(reader);
        assert_eq!(writer.write_all(b"123").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_error_of_the_work_reaches_the_reader() {
        let (mut writer, mut reader) = pipe(2, 2, |_| Err(io::Error::other("no")));
        writer.write_all(b"12").unwrap();
        writer.finish().unwrap();
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap_err().to_string(), "no");
    }
}
