//! The content of a file on disk. Holes are found instead of read, and changes are detected.

use super::activity::{Care, Sum, pause, wait_for_write};
use super::race::{Changed, FileChange, Stamp, Unreadable, is_about_entry};
use super::{Content, TreePath};
use crate::error::Error;
use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{SeekFrom, Stat, fstat, seek};
use rustix::io::{Errno, pread, retry_on_intr};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

/// The largest file that is read as a whole before its entry is built: if it changes meanwhile, it is simply read again.
/// Larger ones are read while they are archived.
pub(super) const READ_AT_ONCE: u64 = 1 << 20;

/// The most bytes that are read of a file of unknown size, such as those in `/proc` and `/sys`.
const MAX_UNKNOWN_SIZE: usize = 16 << 20;

/// The buffer size of the second reading.
const BUFFER: usize = 256 << 10;

/// The unit of `st_blocks`, whatever the file system's block size is.
const STAT_BLOCK: u64 = 512;

/// The content of a regular file, from its beginning. Holes are zeros.
///
/// Reading fails if the file has changed since it was opened; that is known at the last byte. The cause of the error is
/// then a [`Changed`]. A file that a program may be writing to is read a second time before that byte is returned.
#[derive(Debug)]
pub struct FileContent(Source);

#[derive(Debug)]
enum Source {
    Memory(io::Cursor<Vec<u8>>),
    Disk(Box<DiskContent>),
    Stored(StoredContent),
}

/// A part of the file with the contents of a [`StoredTree`](super::StoredTree).
#[derive(Debug)]
struct StoredContent {
    file: Arc<File>,
    position: u64,
    end: u64,
}

/// A file that is read on demand.
#[derive(Debug)]
struct DiskContent {
    fd: OwnedFd,
    /// The name on disk.
    shown: String,
    /// The path in the tree.
    path: TreePath,
    stamp: Stamp,
    position: u64,
    /// The run that the position is in.
    run: DataRun,
    /// The number of bytes without blocks. They need not be in holes: a file system may compress.
    holes: u64,
    /// Cleared when the file has no holes, or its file system does not report them.
    seeks: bool,
    /// The checksum of what was read so far, if a second reading is needed.
    sum: Option<Sum>,
}

/// A run of data, or a hole.
#[derive(Clone, Copy, Debug)]
struct DataRun {
    end: u64,
    is_hole: bool,
}

/// The reason for which a file could not be read at once.
pub(super) enum ReadFailure {
    Errno(Errno),
    Changed(FileChange),
    /// The size is unknown, and above [`MAX_UNKNOWN_SIZE`].
    Endless,
}

impl From<Errno> for ReadFailure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl FileContent {
    /// The content of a file that was read already.
    pub(super) fn in_memory(bytes: Vec<u8>) -> Self {
        Self(Source::Memory(io::Cursor::new(bytes)))
    }

    /// `size` bytes of the file with the contents of a stored tree, from `position` on.
    pub(super) fn stored(file: Arc<File>, position: u64, size: u64) -> Self {
        Self(Source::Stored(StoredContent { file, position, end: position + size }))
    }

    /// The content of an open file, which is read on demand. `shown` is its name on disk.
    pub(super) fn on_disk(fd: OwnedFd, stat: &Stat, care: Care, shown: String, path: TreePath) -> Self {
        let holes = holes(stat);
        let (stamp, run) = (Stamp::new(stat), DataRun { end: 0, is_hole: false });
        Self(Source::Disk(Box::new(DiskContent {
            fd,
            shown,
            path,
            stamp,
            position: 0,
            run,
            holes,
            seeks: holes > 0,
            sum: (care != Care::Once).then(Sum::default),
        })))
    }

    /// Returns about how many bytes are in holes, which cost no reading but must be archived and hashed.
    pub fn holes(&self) -> u64 {
        match &self.0 {
            Source::Memory(_) | Source::Stored(_) => 0,
            Source::Disk(disk) => disk.holes,
        }
    }
}

impl Read for FileContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::Memory(bytes) => bytes.read(buffer),
            Source::Disk(disk) => disk.read(buffer),
            Source::Stored(stored) => stored.read(buffer),
        }
    }
}

impl StoredContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end - self.position;
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = retry_on_intr(|| pread(&self.file, &mut buffer[..most], self.position))?;
        self.position += read as u64;
        match read {
            0 if most > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

impl Content for FileContent {
    fn skip_hole(&mut self) -> u64 {
        match &mut self.0 {
            Source::Memory(_) | Source::Stored(_) => 0,
            Source::Disk(disk) => disk.skip_hole(),
        }
    }
}

impl DiskContent {
    /// Skips a hole, but never the last byte: only a read can report that the file has changed.
    fn skip_hole(&mut self) -> u64 {
        if self.seeks && self.position == self.run.end && self.position < self.stamp.size {
            self.run = self.next_run();
        }
        let end = self.run.end.min(self.stamp.size.saturating_sub(1));
        if self.run.is_hole && end > self.position {
            end - std::mem::replace(&mut self.position, end)
        } else {
            0
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.stamp.size - self.position;
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        if self.position == self.run.end {
            self.run = self.next_run();
        }
        let run = left.min(self.run.end - self.position);
        let most = usize::try_from(run).map_or(buffer.len(), |run| run.min(buffer.len()));
        let buffer = &mut buffer[..most];
        let read = if self.run.is_hole {
            buffer.fill(0);
            most
        } else {
            self.pread(&mut *buffer)?
        };
        if let Some(sum) = self.sum.as_mut().filter(|_| !self.run.is_hole) {
            sum.add(self.position, &buffer[..read]);
        }
        self.position += read as u64;
        // This comes before the last byte is returned, so that no caller can miss the error.
        if read == 0 || self.position == self.stamp.size {
            self.ensure_unchanged()?;
        }
        match read {
            0 => Err(Error::failed(format!(
                "{} ends after {} bytes, although its file system says that it has {}",
                self.shown, self.position, self.stamp.size
            ))
            .with_hint("leave it out with --exclude")
            .into()),
            read => Ok(read),
        }
    }

    fn pread(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry_on_intr(|| pread(&self.fd, &mut *buffer, self.position)).map_err(|errno| {
            if is_about_entry(errno) {
                Unreadable { path: self.path.clone(), errno: errno.raw_os_error() }
                    .into_error(&self.shown)
                    .into()
            } else {
                errno.into()
            }
        })
    }

    /// Returns the run at the current position.
    fn next_run(&mut self) -> DataRun {
        let size = self.stamp.size;
        let rest = |is_hole| DataRun { end: size, is_hole };
        if !self.seeks {
            return rest(false);
        }
        match seek(&self.fd, SeekFrom::Data(self.position)) {
            Ok(data) if data > self.position => DataRun { end: data.min(size), is_hole: true },
            Ok(_) => match seek(&self.fd, SeekFrom::Hole(self.position)) {
                Ok(hole) if hole > self.position => DataRun { end: hole.min(size), is_hole: false },
                _ => rest(false),
            },
            // A hole until the end, or the file is shorter now, which is detected there.
            Err(Errno::NXIO) => rest(true),
            // The file system does not report holes, so everything is read.
            Err(_) => {
                self.seeks = false;
                rest(false)
            }
        }
    }

    fn ensure_unchanged(&mut self) -> io::Result<()> {
        let is_same = match self.sum {
            Some(sum) => self.sum_of_all()? == sum,
            None => true,
        };
        let change = match self.stamp.change(&Stamp::new(&fstat(&self.fd)?)) {
            None if is_same => return Ok(()),
            None => FileChange::Touched,
            Some(change) => change,
        };
        Err(Changed { path: self.path.clone(), change }.into_error(&self.shown).into())
    }

    /// Reads the file a second time; the position stays at the end.
    fn sum_of_all(&mut self) -> io::Result<Sum> {
        wait_for_write(&self.fd);
        let mut sum = Sum::default();
        let mut buffer = vec![0; BUFFER];
        let end = std::mem::take(&mut self.position);
        while self.position < end {
            let run = self.next_run();
            while !run.is_hole && self.position < run.end {
                let left = usize::try_from(run.end - self.position).unwrap_or(BUFFER).min(BUFFER);
                let read = self.pread(&mut buffer[..left])?;
                if read == 0 {
                    break;
                }
                sum.add(self.position, &buffer[..read]);
                self.position += read as u64;
            }
            self.position = run.end;
        }
        Ok(sum)
    }
}

/// Returns about how many bytes of a file are in holes.
fn holes(stat: &Stat) -> u64 {
    stat.st_size.unsigned_abs().saturating_sub(stat.st_blocks.unsigned_abs().saturating_mul(STAT_BLOCK))
}

/// Reads a whole file. It may have more or fewer bytes than its size, as in `/proc` and `/sys`.
pub(super) fn read_at_once(fd: BorrowedFd<'_>, stat: &Stat, care: Care) -> Result<Vec<u8>, ReadFailure> {
    let expected = usize::try_from(stat.st_size).unwrap_or_default();
    // One byte more than expected, so that one call sees the end of an ordinary file.
    let mut bytes = Vec::with_capacity(expected + 1);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len().max(4 << 10));
        }
        let offset = bytes.len() as u64;
        let read = retry_on_intr(|| pread(fd, spare_capacity(&mut bytes), offset))?;
        if read == 0 || (bytes.len() == expected && bytes.len() < bytes.capacity()) {
            break;
        }
        if bytes.len() > MAX_UNKNOWN_SIZE {
            return Err(changed(fd, stat)?.map_or(ReadFailure::Endless, ReadFailure::Changed));
        }
    }
    // A file that the kernel generates has no size, and differs with each reading.
    let care = if bytes.len() == expected { care } else { Care::Once };
    let is_same = care == Care::Once || begins_with(fd, &bytes)?;
    match changed(fd, stat)? {
        None if is_same => {}
        None => return Err(ReadFailure::Changed(FileChange::Touched)),
        Some(change) => return Err(ReadFailure::Changed(change)),
    }
    if care == Care::TwiceWithPause {
        pause();
        // A change of the stamps here means that the file changed after it was read, which does no harm.
        if !begins_with(fd, &bytes)? && changed(fd, stat)?.is_none() {
            return Err(ReadFailure::Changed(FileChange::Touched));
        }
    }
    Ok(bytes)
}

/// Returns whether a file begins with these bytes, after waiting for a running `write()`.
fn begins_with(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<bool, Errno> {
    wait_for_write(fd);
    let mut buffer = [0; 16 << 10];
    let mut rest = bytes;
    while !rest.is_empty() {
        let offset = (bytes.len() - rest.len()) as u64;
        let most = rest.len().min(buffer.len());
        let read = retry_on_intr(|| pread(fd, &mut buffer[..most], offset))?;
        if read == 0 || buffer[..read] != rest[..read] {
            return Ok(false);
        }
        rest = &rest[read..];
    }
    Ok(true)
}

fn changed(fd: BorrowedFd<'_>, stat: &Stat) -> Result<Option<FileChange>, Errno> {
    Ok(Stamp::new(stat).change(&Stamp::new(&fstat(fd.as_fd())?)))
}
