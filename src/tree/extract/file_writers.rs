//! Threads that write small files. Each system call may take long, on a network or a slow disk, and most files of a tree are
//! small: their contents and attributes can be written at the same time.
//!
//! Names are changed by the extracting thread alone, in the order of the layer. It creates a file, reads its content, and
//! hands over the open descriptor. From then on everything works on the descriptor, and not on the name. If the queue is full,
//! the extracting thread writes the file itself. It waits for other threads only at the end, and for a file that it has to
//! read or to link, or whose name it removes.

use super::attributes::{self, AttributeFailure, Attributes, Given, Lost};
use super::content::{self, Holes};
use super::journal::JournaledFile;
use super::retention::{Retained, Retention};
use crate::tree::TreePath;
use rustix::fd::AsFd;
use rustix::process::{Resource, getrlimit};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// The size up to which a file is handed over, in bytes.
pub(super) const MAX_SIZE: u64 = content::BUFFER as u64;

/// The most files in the queue. Each is open.
const MAX_QUEUED: u64 = 64;

/// The memory for the contents and extended attributes that are not written yet, and for buffers that are used again, in
/// bytes.
const MAX_MEMORY: usize = 8 << 20;

/// A file that was created, with what has to be written to it.
pub(super) struct SmallFile {
    /// The number of the file in the order of creation.
    number: u64,
    path: TreePath,
    file: File,
    pub content: Vec<u8>,
    attributes: Attributes<'static>,
    given: Given,
    /// The file system.
    pub device: u64,
    /// The file in the journal, in which it is marked as finished at the end.
    recorded: Option<JournaledFile>,
}

impl SmallFile {
    /// A file without content yet.
    pub fn new(
        path: &TreePath,
        file: File,
        recorded: Option<JournaledFile>,
        (attributes, given): (Attributes<'_>, Given),
        device: u64,
    ) -> Self {
        let (path, attributes) = (path.clone(), attributes.into_owned());
        Self { number: 0, path, file, content: Vec::new(), attributes, given, device, recorded }
    }

    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// Returns the memory of the content and the extended attributes, in bytes.
    fn memory(&self) -> usize {
        self.content.capacity() + self.attributes.xattrs_memory()
    }

    /// Writes the content and the attributes.
    pub fn write(&self, holes: Holes, retained: &mut Retained) -> Result<Lost, FileFailure> {
        content::write_whole(&self.file, &self.content, holes).map_err(FileFailure::Disk)?;
        let lost = attributes::apply(self.file.as_fd(), &self.attributes, self.given, retained)
            .map_err(FileFailure::Attributes)?;
        if let Some(recorded) = &self.recorded {
            recorded.finish();
        }
        Ok(lost)
    }
}

/// The reason for which a file could not be written.
#[derive(Debug)]
pub(super) enum FileFailure {
    Disk(io::Error),
    Attributes(AttributeFailure),
    Panicked,
}

/// The outcome of the files that were written since the last one was asked for.
#[derive(Default)]
pub(super) struct WriterOutcome {
    pub ownership: u64,
    pub attributes: u64,
    pub xattrs: u64,
    /// The first file, in the order of creation, that could not be written.
    pub failure: Option<(TreePath, FileFailure)>,
}

/// The threads that write small files. Dropping this ends them; files in the queue are not written then.
pub(super) struct FileWriters {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    max_queued: usize,
    /// The number of files that were handed over.
    submitted: u64,
}

struct Shared {
    state: Mutex<State>,
    has_failed: AtomicBool,
    /// Notified when there is a file to write, or no more.
    available: Condvar,
    /// Notified when a file was written and the extracting thread waits.
    written: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<SmallFile>,
    /// The paths of the files that are being written.
    in_work: Vec<TreePath>,
    /// The memory of the files that are not written yet, in bytes.
    memory: usize,
    spare: Vec<Vec<u8>>,
    spare_memory: usize,
    outcome: WriterOutcome,
    /// The number of the file in `outcome.failure`.
    failed: Option<u64>,
    /// The threads that wait for a file.
    idle: usize,
    /// Set while the extracting thread waits.
    is_awaited: bool,
    is_ended: bool,
}

impl State {
    /// Takes a file from the queue.
    fn take(&mut self, at: usize) -> Option<SmallFile> {
        let file = self.queue.remove(at)?;
        self.in_work.push(file.path.clone());
        Some(file)
    }

    /// Keeps a buffer for another file, as far as the memory allows.
    fn keep(&mut self, buffer: Vec<u8>) {
        if self.memory + self.spare_memory + buffer.capacity() <= MAX_MEMORY {
            self.spare_memory += buffer.capacity();
            self.spare.push(buffer);
        }
    }

    fn take_spare(&mut self) -> Option<Vec<u8>> {
        let buffer = self.spare.pop()?;
        self.spare_memory -= buffer.capacity();
        Some(buffer)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next file to write; `None` at the end.
    fn next(&self) -> Option<SmallFile> {
        let mut state = self.state();
        loop {
            if state.is_ended {
                return None;
            }
            if let Some(file) = state.take(0) {
                return Some(file);
            }
            state.idle += 1;
            state = self.available.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn complete(&self, file: SmallFile, written: Result<Lost, FileFailure>) {
        let memory = file.memory();
        let SmallFile { number, path, file, content, .. } = file;
        // Closing a file may write it, on a network file system.
        drop(file);
        let mut state = self.state();
        if let Some(at) = state.in_work.iter().position(|found| *found == path) {
            state.in_work.swap_remove(at);
        }
        state.memory -= memory;
        state.keep(content);
        match written {
            Ok(lost) => {
                state.outcome.ownership += u64::from(lost.ownership);
                state.outcome.attributes += u64::from(lost.mode || lost.mtime);
                state.outcome.xattrs += lost.xattrs;
            }
            Err(failure) => {
                self.has_failed.store(true, Ordering::Relaxed);
                if state.failed.is_none_or(|failed| number < failed) {
                    state.failed = Some(number);
                    state.outcome.failure = Some((path, failure));
                }
            }
        }
        if state.is_awaited {
            self.written.notify_one();
        }
    }
}

impl FileWriters {
    /// Starts `count` threads. There are fewer if the system cannot start as many; `None` if it cannot start any.
    pub fn start(count: usize, holes: Holes) -> Option<Self> {
        Self::start_with(count, move || {
            // Each has its own, so that nothing is locked while a file is written.
            let mut retention = Retention::default();
            move |file: &SmallFile| file.write(holes, retention.on(file.device))
        })
    }

    fn start_with<W>(count: usize, writer: impl Fn() -> W) -> Option<Self>
    where
        W: FnMut(&SmallFile) -> Result<Lost, FileFailure> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            has_failed: AtomicBool::new(false),
            available: Condvar::new(),
            written: Condvar::new(),
        });
        let mut threads = Vec::new();
        for _ in 0..count {
            let (shared, mut write) = (Arc::clone(&shared), writer());
            let work = move || {
                while let Some(file) = shared.next() {
                    let written = catch_unwind(AssertUnwindSafe(|| write(&file)));
                    shared.complete(file, written.unwrap_or(Err(FileFailure::Panicked)));
                }
            };
            match Builder::new().spawn(work) {
                Ok(thread) => threads.push(thread),
                Err(_) => break,
            }
        }
        let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        // At most 64, so that it fits.
        let max_queued = MAX_QUEUED.min(open_files / 8) as usize;
        (!threads.is_empty()).then_some(Self { shared, threads, max_queued, submitted: 0 })
    }

    /// Returns whether a file could not be written.
    pub fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Relaxed)
    }

    /// Returns an empty buffer for a content.
    pub fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.shared.state().take_spare().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Hands over a file. Returns it if the queue is full: then the caller has to write it, and to [`complete`](Self::complete)
    /// it.
    #[must_use]
    pub fn submit(&mut self, mut file: SmallFile) -> Option<SmallFile> {
        self.submitted += 1;
        file.number = self.submitted;
        let size = file.memory();
        let mut state = self.shared.state();
        let is_full = state.queue.len() >= self.max_queued || state.memory + size > MAX_MEMORY;
        state.memory += size;
        while state.memory + state.spare_memory > MAX_MEMORY && state.take_spare().is_some() {}
        if is_full {
            state.in_work.push(file.path.clone());
            return Some(file);
        }
        state.queue.push_back(file);
        if state.idle > 0 {
            self.shared.available.notify_one();
        }
        None
    }

    /// Waits until the files are written whose paths are wanted. A file that no thread has begun is returned instead: then the
    /// caller has to write it, to [`complete`](Self::complete) it, and to call this again.
    pub fn wait_for(&self, is_wanted: impl Fn(&TreePath) -> bool) -> Option<SmallFile> {
        let mut state = self.shared.state();
        loop {
            if let Some(at) = state.queue.iter().position(|file| is_wanted(&file.path)) {
                return state.take(at);
            }
            if !state.in_work.iter().any(&is_wanted) {
                return None;
            }
            state.is_awaited = true;
            state = self.shared.written.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.is_awaited = false;
        }
    }

    /// Notes that a file was written, or could not be written.
    pub fn complete(&self, file: SmallFile, written: Result<Lost, FileFailure>) {
        self.shared.complete(file, written);
    }

    /// Returns the outcome of the files that were written.
    pub fn take_outcome(&self) -> WriterOutcome {
        std::mem::take(&mut self.shared.state().outcome)
    }
}

impl Drop for FileWriters {
    fn drop(&mut self) {
        self.shared.state().is_ended = true;
        self.shared.available.notify_all();
        for thread in self.threads.drain(..) {
            // Its panics were caught.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn small_file(name: &str) -> SmallFile {
        let metadata = Metadata::default();
        let attributes = Attributes::exactly(&metadata);
        let file = tempfile::tempfile().unwrap();
        let path = TreePath::parse(name).unwrap();
        SmallFile::new(&path, file, None, (attributes, Given::default()), 0)
    }

    fn wait_for_all(writers: &FileWriters, mut write: impl FnMut(&SmallFile)) {
        while let Some(file) = writers.wait_for(|_| true) {
            write(&file);
            writers.complete(file, Ok(Lost::default()));
        }
    }

    #[test]
    fn the_failure_of_the_first_file_is_reported_although_a_later_one_failed_before() {
        let (failed, fails) = channel::<()>();
        let fails = Arc::new(Mutex::new(fails));
        let mut writers = FileWriters::start_with(2, move || {
            let fails = Arc::clone(&fails);
            move |file: &SmallFile| {
                if file.path().name() == b"first" {
                    fails.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
                }
                Err(FileFailure::Disk(io::Error::other("full")))
            }
        })
        .unwrap();
        // The queue has room for both, and two threads take them.
        for name in ["first", "second"] {
            assert!(writers.submit(small_file(name)).is_none());
        }
        while !writers.has_failed() {
            std::thread::yield_now();
        }
        failed.send(()).unwrap();
        wait_for_all(&writers, |_| panic!("both are in work"));
        let (path, failure) = writers.take_outcome().failure.unwrap();
        assert_eq!(path, TreePath::parse("first").unwrap(), "{failure:?}");
    }

    #[test]
    fn a_full_queue_leaves_the_file_to_the_caller_and_its_contents_are_bounded() {
        let (go, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let mut writers = FileWriters::start_with(1, move || {
            let wait = Arc::clone(&wait);
            move |_: &SmallFile| {
                // The end of the channel lets all of them pass.
                let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(60));
                Ok(Lost::default())
            }
        })
        .unwrap();
        let mut memory = 0;
        let refused = loop {
            let mut file = small_file("file");
            file.content = vec![0; MAX_SIZE as usize];
            match writers.submit(file) {
                Some(file) => break file,
                None => memory += MAX_SIZE as usize,
            }
        };
        assert!((1..=MAX_MEMORY).contains(&memory), "{memory}");
        writers.complete(refused, Ok(Lost::default()));
        drop(go);
        wait_for_all(&writers, |_| {});
        assert!(writers.shared.state().spare_memory <= MAX_MEMORY);
        assert_eq!(writers.shared.state().memory, 0);
    }

    #[test]
    fn extended_attributes_count_as_memory() {
        let mut metadata = Metadata::default();
        metadata.xattrs.insert(b"user.large".to_vec(), vec![0; MAX_MEMORY]);
        let (path, attributes) = (TreePath::parse("file").unwrap(), Attributes::exactly(&metadata));
        let attributes = (attributes, Given::default());
        let file = SmallFile::new(&path, tempfile::tempfile().unwrap(), None, attributes, 0);
        let mut writers = FileWriters::start_with(1, || |_: &SmallFile| Ok(Lost::default())).unwrap();
        let refused = writers.submit(file).expect("it exceeds the memory of the queue");
        writers.complete(refused, Ok(Lost::default()));
        assert_eq!(writers.shared.state().memory, 0);
    }

    #[test]
    fn files_in_the_queue_are_not_written_when_the_writers_are_dropped() {
        let (begun, begins) = channel();
        let (go, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let mut writers = FileWriters::start_with(1, move || {
            let (begun, wait) = (begun.clone(), Arc::clone(&wait));
            move |file: &SmallFile| {
                begun.send(file.path().clone()).unwrap();
                let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(60));
                Ok(Lost::default())
            }
        })
        .unwrap();
        for name in ["a", "b", "c"] {
            assert!(writers.submit(small_file(name)).is_none());
        }
        assert_eq!(begins.recv().unwrap(), TreePath::parse("a").unwrap());
        writers.shared.state().is_ended = true;
        drop(go);
        drop(writers);
        assert!(begins.recv().is_err(), "b was written");
    }

    #[test]
    fn a_panic_of_a_writer_is_a_failure_of_its_file() {
        let mut writers =
            FileWriters::start_with(1, || |_: &SmallFile| -> Result<Lost, FileFailure> { panic!("a bug") })
                .unwrap();
        assert!(writers.submit(small_file("a")).is_none());
        while !writers.has_failed() {
            std::thread::yield_now();
        }
        assert!(matches!(writers.take_outcome().failure, Some((_, FileFailure::Panicked))));
    }
}
