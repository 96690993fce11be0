//! A bounded pipe. Its blocks are processed by several threads and leave in the order in which they came.

use super::threads::start;
use crate::error::{Error, Result};
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// The number of blocks in a pipe beyond those that are being processed, so that no worker is idle while the reader is
/// briefly busy.
const QUEUE_DEPTH: usize = 2;

type Job = Box<dyn FnOnce() + Send>;
type Reply<T> = io::Result<T>;
/// A message to the reader: the receiver of a block's result, or the end.
enum Slot<T> {
    Block(Receiver<Reply<T>>),
    End,
}

/// Threads that do the work of one or several pipes.
///
/// They end when this and all its pipes are dropped.
pub struct Workers {
    jobs: Sender<Job>,
    count: usize,
}

impl Workers {
    /// Starts `count` threads, at least one. There are fewer if the system cannot start as many.
    ///
    /// # Errors
    /// Fails if the system cannot start any.
    pub fn start(count: usize) -> Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let mut started = 0;
        while started < count.max(1) {
            let queue = Arc::clone(&queue);
            let work = move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    job();
                }
            };
            match start(work) {
                Ok(_) => started += 1,
                Err(error) if started == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Self { jobs, count: started })
    }

    /// Returns the number of threads.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Creates a pipe. Each block that is sent is processed by `work` on one of the workers, and the results are read in the
/// order of the blocks.
///
/// At most `share` + 2 blocks of the pipe exist at a time, where `share` is the number of workers that it can keep busy.
/// The memory of several pipes with the same workers adds up.
///
/// If the writer is dropped before [`PipeWriter::finish`], the reader gets an error instead of an end. If the reader is
/// dropped, the writer gets [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub fn pipe<B, T, W>(workers: &Workers, share: usize, work: W) -> (PipeWriter<B, T>, PipeReader<T>)
where
    B: Send + 'static,
    T: Send + 'static,
    W: Fn(B) -> Reply<T> + Send + Sync + 'static,
{
    let (slots, results) = sync_channel(share.max(1) + QUEUE_DEPTH - 1);
    let writer = PipeWriter { jobs: workers.jobs.clone(), slots, work: Arc::new(work) };
    (writer, PipeReader { results, ended: false })
}

/// The writing end of a pipe. Dropping it abandons the pipe; only [`finish`](PipeWriter::finish) completes it.
pub struct PipeWriter<B, T> {
    jobs: Sender<Job>,
    slots: SyncSender<Slot<T>>,
    work: Arc<dyn Fn(B) -> Reply<T> + Send + Sync>,
}

impl<B: Send + 'static, T: Send + 'static> PipeWriter<B, T> {
    /// Sends a block. Waits while the pipe is full.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the reader was dropped.
    pub fn send(&mut self, block: B) -> io::Result<()> {
        let (reply, result) = channel();
        // The slot is sent first: the queue of slots is bounded, and so it bounds that of the jobs.
        self.slots.send(Slot::Block(result)).map_err(|_| reader_dropped())?;
        let work = Arc::clone(&self.work);
        // The send fails if the reader was dropped.
        let job = Box::new(move || _ = reply.send(work(block)));
        self.jobs.send(job).map_err(|_| reader_dropped())
    }

    /// Ends the pipe after the last block.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the reader was dropped.
    pub fn finish(self) -> io::Result<()> {
        self.slots.send(Slot::End).map_err(|_| reader_dropped())
    }
}

/// The reading end of a pipe.
pub struct PipeReader<T> {
    results: Receiver<Slot<T>>,
    ended: bool,
}

impl<T> PipeReader<T> {
    /// Returns the next result; `None` at the end.
    ///
    /// # Errors
    /// Those of the work; fails if the writer was dropped before the end.
    pub fn receive(&mut self) -> io::Result<Option<T>> {
        if self.ended {
            return Ok(None);
        }
        match self.results.recv() {
            Ok(Slot::Block(result)) => result.recv().map_err(|_| worker_panicked())?.map(Some),
            Ok(Slot::End) => {
                self.ended = true;
                Ok(None)
            }
            Err(_) => Err(writer_dropped()),
        }
    }
}

fn reader_dropped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other end of the pipe is gone")
}

fn writer_dropped() -> io::Error {
    Error::failed("the data ended before it was complete").with_source(reader_dropped()).into()
}

fn worker_panicked() -> io::Error {
    Error::failed("a worker thread died; this is a bug in volio").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    fn numbers(workers: &Workers, share: usize, count: u64) -> Vec<u64> {
        // Later blocks take less time, so they would overtake if the order were not kept.
        let work = move |n: u64| Ok((0..(count - n) * 50).fold(n, |n, _| std::hint::black_box(n)));
        let (mut writer, mut reader) = pipe(workers, share, work);
        let mut out = Vec::new();
        thread::scope(|scope| {
            scope.spawn(move || {
                (0..count).for_each(|n| writer.send(n).unwrap());
                writer.finish().unwrap();
            });
            out.extend(std::iter::from_fn(|| reader.receive().unwrap()));
        });
        out
    }

    #[test]
    fn blocks_leave_in_the_order_in_which_they_came() {
        for (workers, share) in [(1, 1), (3, 1), (4, 4), (2, 9)] {
            assert_eq!(numbers(&Workers::start(workers).unwrap(), share, 300), (0..300).collect::<Vec<_>>());
        }
    }

    #[test]
    fn several_pipes_share_their_workers() {
        let workers = Workers::start(2).unwrap();
        thread::scope(|scope| {
            let pipes: Vec<_> = (0..5).map(|_| scope.spawn(|| numbers(&workers, 1, 100))).collect();
            for pipe in pipes {
                assert_eq!(pipe.join().unwrap(), (0..100).collect::<Vec<_>>());
            }
        });
    }

    #[test]
    fn the_number_of_blocks_in_a_pipe_is_bounded() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (mut writer, mut reader) = pipe(&Workers::start(8).unwrap(), 3, Ok::<Counted, io::Error>);
        thread::scope(|scope| {
            let (alive, most) = (Arc::clone(&alive), Arc::clone(&most));
            scope.spawn(move || {
                for _ in 0..200 {
                    most.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    writer.send(Counted(Arc::clone(&alive))).unwrap();
                }
                writer.finish().unwrap();
            });
            while reader.receive().unwrap().is_some() {}
        });
        // The writer and the reader may each hold one more.
        assert!(most.load(Ordering::SeqCst) <= 3 + QUEUE_DEPTH + 1, "{most:?}");
    }

    #[test]
    fn a_dropped_writer_is_an_error_and_not_an_end() {
        let (mut writer, mut reader) = pipe(&Workers::start(1).unwrap(), 1, Ok::<u8, io::Error>);
        writer.send(1).unwrap();
        drop(writer);
        assert_eq!(reader.receive().unwrap(), Some(1));
        assert!(Error::from_io(reader.receive().unwrap_err()).unwrap().is_broken_pipe());
    }

    #[test]
    fn a_dropped_reader_is_an_error_for_the_writer() {
        let (mut writer, reader) = pipe(&Workers::start(1).unwrap(), 1, Ok::<u8, io::Error>);
        drop(reader);
        assert_eq!(writer.send(1).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_error_of_the_work_reaches_the_reader() {
        let (mut writer, mut reader) =
            pipe(&Workers::start(2).unwrap(), 2, |_: u8| Err::<u8, _>(io::Error::other("no")));
        writer.send(1).unwrap();
        assert_eq!(reader.receive().unwrap_err().to_string(), "no");
    }

    #[test]
    fn a_panic_of_a_worker_is_an_error_for_the_reader() {
        let work = |n: u8| Ok(100 / n);
        let (mut writer, mut reader) = pipe(&Workers::start(1).unwrap(), 2, work);
        writer.send(0).unwrap();
        assert!(reader.receive().unwrap_err().to_string().contains("worker"));
    }
}
