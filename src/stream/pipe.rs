//! A bounded pipe whose blocks are worked on by several threads and leave in the order in which they came.

use super::threads::start;
use crate::error::{Error, Result};
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks of one pipe that wait beyond the ones being worked on: enough that no worker is idle while the reader blinks.
const AHEAD: usize = 2;

type Job = Box<dyn FnOnce() + Send>;
type Reply<T> = io::Result<T>;
/// What travels to the reader: the place where the next block's result will appear, or the end.
enum Slot<T> {
    Block(Receiver<Reply<T>>),
    End,
}

/// Threads that do the work of one pipe or of several.
///
/// They end when this and all pipes that were made with it are gone.
pub struct Workers {
    jobs: Sender<Job>,
    count: usize,
}

impl Workers {
    /// Starts so many threads, at least one; fewer where the system gives no more.
    ///
    /// # Errors
    /// When it gives none.
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

    /// How many they are.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// A pipe: each block that is sent goes through `work` on one of the workers, and the results are read in the order
/// of the blocks.
///
/// At most `share` + 2 blocks of this pipe exist at a time, where `share` is the part of the workers that it can keep
/// busy: where several pipes share the workers, their memory adds up.
///
/// Both ends notice when the other goes away: the reader gets an error, never an end, unless
/// [`PipeWriter::finish`] was called; the writer gets [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub fn pipe<B, T, W>(workers: &Workers, share: usize, work: W) -> (PipeWriter<B, T>, PipeReader<T>)
where
    B: Send + 'static,
    T: Send + 'static,
    W: Fn(B) -> Reply<T> + Send + Sync + 'static,
{
    let (slots, results) = sync_channel(share.max(1) + AHEAD - 1);
    let writer = PipeWriter { jobs: workers.jobs.clone(), slots, work: Arc::new(work) };
    (writer, PipeReader { results, ended: false })
}

/// The end of a pipe that is written. Dropping it abandons the pipe; only [`finish`](PipeWriter::finish) ends it well.
pub struct PipeWriter<B, T> {
    jobs: Sender<Job>,
    slots: SyncSender<Slot<T>>,
    work: Arc<dyn Fn(B) -> Reply<T> + Send + Sync>,
}

impl<B: Send + 'static, T: Send + 'static> PipeWriter<B, T> {
    /// Sends a block; waits while too many are on their way.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the reader is gone.
    pub fn send(&mut self, block: B) -> io::Result<()> {
        let (reply, result) = channel();
        // The slot first: it is bounded, and so bounds the jobs too.
        self.slots.send(Slot::Block(result)).map_err(|_| reader_is_gone())?;
        let work = Arc::clone(&self.work);
        // Where nobody waits for the result any more, the reader was dropped.
        let job = Box::new(move || _ = reply.send(work(block)));
        self.jobs.send(job).map_err(|_| reader_is_gone())
    }

    /// Says that all was sent.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the reader is gone.
    pub fn finish(self) -> io::Result<()> {
        self.slots.send(Slot::End).map_err(|_| reader_is_gone())
    }
}

/// The end of a pipe that is read.
pub struct PipeReader<T> {
    results: Receiver<Slot<T>>,
    ended: bool,
}

impl<T> PipeReader<T> {
    /// The next result; `None` at the end.
    ///
    /// # Errors
    /// Those of the work; and when the writer died before it had sent all.
    pub fn receive(&mut self) -> io::Result<Option<T>> {
        if self.ended {
            return Ok(None);
        }
        match self.results.recv() {
            Ok(Slot::Block(result)) => result.recv().map_err(|_| worker_died())?.map(Some),
            Ok(Slot::End) => {
                self.ended = true;
                Ok(None)
            }
            Err(_) => Err(writer_died()),
        }
    }
}

fn reader_is_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other end of the pipe is gone")
}

fn writer_died() -> io::Error {
    Error::failed("the data ended before it was complete").with_source(reader_is_gone()).into()
}

fn worker_died() -> io::Error {
    Error::failed("a worker thread died; this is a bug in volio").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    fn numbers(workers: &Workers, share: usize, count: u64) -> Vec<u64> {
        // The later ones are the quicker ones: without order they would overtake.
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
    fn no_more_blocks_exist_than_were_agreed_on() {
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
        // One that the writer still holds, and one that the reader holds.
        assert!(most.load(Ordering::SeqCst) <= 3 + AHEAD + 1, "{most:?}");
    }

    #[test]
    fn a_writer_that_died_is_an_error_and_not_an_end() {
        let (mut writer, mut reader) = pipe(&Workers::start(1).unwrap(), 1, Ok::<u8, io::Error>);
        writer.send(1).unwrap();
        drop(writer);
        assert_eq!(reader.receive().unwrap(), Some(1));
        assert!(Error::io("", reader.receive().unwrap_err()).is_broken_pipe());
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_for_the_writer() {
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
    fn a_worker_that_died_is_an_error_for_the_reader() {
        let work = |n: u8| Ok(100 / n);
        let (mut writer, mut reader) = pipe(&Workers::start(1).unwrap(), 2, work);
        writer.send(0).unwrap();
        assert!(reader.receive().unwrap_err().to_string().contains("worker"));
    }
}
