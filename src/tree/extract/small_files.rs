//! The part of the extraction that hands small files over to [`FileWriters`], and waits for them.

use super::content::{WriteFailure, short};
use super::file_writers::{FileFailure, FileWriters, MAX_SIZE, SmallFile, WriterOutcome};
use super::journal::JournaledFile;
use super::{Extractor, io_error};
use crate::error::{Error, Result};
use crate::tree::{Content, TreePath};

/// The threads that write small files besides the extracting one, which creates all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileThreads {
    /// As many as suit the cores: none on one or two. There are none either on a file system without birth times, where a
    /// later run could not recognise the files that a killed one has not finished.
    #[default]
    Automatic,
    /// This number.
    Exactly(usize),
}

/// The threads that write small files, if there are any, which are started for the first of them.
pub(super) struct SmallFiles {
    wanted: FileThreads,
    /// The number of threads to start; 0 when there are none, or none any more to start.
    to_start: usize,
    writers: Option<FileWriters>,
}

/// What writes a file that was created.
pub(super) enum Writer {
    /// The thread that has created it.
    Extractor,
    /// Any thread.
    Any {
        /// The file in the journal, if there is one and it has the identity of the file.
        recorded: Option<JournaledFile>,
    },
}

impl SmallFiles {
    pub fn new(wanted: FileThreads) -> Self {
        let to_start = match wanted {
            FileThreads::Automatic => 0,
            FileThreads::Exactly(count) => count,
        };
        Self { wanted, to_start, writers: None }
    }

    /// Sets the number of threads, if the options leave it open.
    pub fn set_default(&mut self, count: usize) {
        if self.wanted == FileThreads::Automatic {
            self.to_start = count;
        }
    }

    /// Returns what writes a file that a later run could not recognise if this one is killed before the file is finished.
    pub fn without_identity(&self) -> Writer {
        match self.wanted {
            FileThreads::Automatic => Writer::Extractor,
            FileThreads::Exactly(_) => Writer::Any { recorded: None },
        }
    }
}

impl Extractor {
    /// Returns whether another thread may write a file of this size. Starts these threads, if that was not tried yet.
    pub(super) fn has_writers_for(&mut self, size: u64) -> bool {
        if size > MAX_SIZE {
            return false;
        }
        let count = std::mem::take(&mut self.small_files.to_start);
        if count > 0 {
            self.small_files.writers = FileWriters::start(count, self.options.holes);
        }
        self.small_files.writers.is_some()
    }

    /// Reads the content of a file that was just created, and hands the file over.
    pub(super) fn hand_over(
        &mut self,
        mut file: SmallFile,
        size: u64,
        content: &mut dyn Content,
    ) -> Result<()> {
        let Some(writers) = &mut self.small_files.writers else { return Ok(()) };
        let mut buffer = writers.buffer();
        // At most `MAX_SIZE`.
        buffer.resize(size as usize, 0);
        if let Err(error) = content.read_exact(&mut buffer) {
            return Err(self.write_error(file.path(), WriteFailure::Source(short(error, size))));
        }
        file.content = buffer;
        self.extracted.bytes += size;
        if let Some(file) = writers.submit(file) {
            self.write_small_file(file);
            self.ensure_no_failure()?;
        }
        Ok(())
    }

    /// Writes a file on this thread. An error is reported with those of the other threads.
    fn write_small_file(&mut self, file: SmallFile) {
        let written = file.write(self.options.holes, self.retention.on(file.device));
        if let Some(writers) = &self.small_files.writers {
            writers.complete(file, written);
        }
    }

    /// Waits until the file with this path is written and closed, if another thread writes it. This is done before a name is
    /// removed too: NFS keeps a file that is open under another name, and its directory could not be removed.
    pub(super) fn finish_small_file(&mut self, path: &TreePath) {
        self.write_until_done(|found| found == path);
    }

    /// Waits until all files are written and closed that were handed over. An error is reported later.
    pub(super) fn finish_all_small_files(&mut self) {
        self.write_until_done(|_| true);
    }

    fn write_until_done(&mut self, is_wanted: impl Fn(&TreePath) -> bool) {
        while let Some(file) = self.small_files.writers.as_ref().and_then(|w| w.wait_for(&is_wanted)) {
            self.write_small_file(file);
        }
    }

    /// Waits until all files are written that were handed over, and counts what they have lost.
    ///
    /// # Errors
    /// The error of the first one, in the order of the entries, that could not be written.
    pub(super) fn finish_small_files(&mut self) -> Result<()> {
        self.finish_all_small_files();
        let Some(writers) = &self.small_files.writers else { return Ok(()) };
        let WriterOutcome { ownership, attributes, xattrs, failure } = writers.take_outcome();
        self.extracted.ownership_not_restored += ownership;
        self.extracted.attributes_not_restored += attributes;
        self.extracted.xattrs_not_restored += xattrs;
        let Some((path, failure)) = failure else { return Ok(()) };
        Err(match failure {
            FileFailure::Disk(error) => io_error("write", &self.target.shown, &path, error),
            FileFailure::Attributes(failure) => self.io_error(failure.doing, &path, failure.errno),
            FileFailure::Panicked => Error::failed(format!(
                "{}{path} was not written because a thread died; this is a bug in volio",
                self.target.shown
            )),
        })
    }

    /// Fails if a file could not be written that was handed over; [`in_order`](Self::in_order) has the reason.
    pub(super) fn ensure_no_failure(&self) -> Result<()> {
        match &self.small_files.writers {
            Some(writers) if writers.has_failed() => {
                Err(Error::failed("an earlier file could not be written"))
            }
            _ => Ok(()),
        }
    }

    /// Returns a result, or in place of an error that of an earlier entry.
    pub(super) fn in_order<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.finish_small_files().err().unwrap_or(error))
    }
}
