//! The content of a file on disk: holes are found and not read, and a change is noticed.

use super::activity::{Care, Sum, pause, wait_for_write};
use super::race::{Changed, FileChange, Stamp, Unreadable, is_about_what_is_read};
use super::{Content, TreePath};
use crate::error::Error;
use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{SeekFrom, Stat, fstat, seek};
use rustix::io::{Errno, pread, retry_on_intr};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

/// Up to this size a file is read at once, before anything is said about it: then a file that changes meanwhile is
/// simply read again. Larger ones are read while they are archived.
pub(super) const READ_AT_ONCE: u64 = 1 << 20;

/// How much is read of a file that does not say how long it is, as those in `/proc` and `/sys`.
const UNKNOWN: usize = 16 << 20;

/// How much of a file is read at a time when it is read for the second time.
const PIECE: usize = 256 << 10;

/// `st_blocks` counts in these, whatever the file system's own blocks are.
const BLOCK: u64 = 512;

/// The content of a regular file, from its beginning. Holes are zeros.
///
/// Reading it fails when the file has changed since it was opened; that is known at the last byte. The cause of the
/// error is then a [`Changed`]. A file that somebody may be writing to is read once more before that byte is given away.
#[derive(Debug)]
pub struct FileContent(Source);

#[derive(Debug)]
enum Source {
    Held(io::Cursor<Vec<u8>>),
    Disk(Box<Disk>),
    Stored(Stored),
}

/// A part of a file of ours.
#[derive(Debug)]
struct Stored {
    file: Arc<File>,
    position: u64,
    end: u64,
}

/// A file that is read as it is asked for.
#[derive(Debug)]
struct Disk {
    fd: OwnedFd,
    /// Its name on disk, and the one in the tree.
    place: String,
    path: TreePath,
    stamp: Stamp,
    position: u64,
    /// Where that ends which the position is in: a hole or bytes.
    run: Run,
    /// How many bytes have no blocks; they need not be in holes, as on a file system that compresses.
    holes: u64,
    /// Whether it is worth asking where the holes are.
    seeks: bool,
    /// What was read so far, where it is to be compared.
    sum: Option<Sum>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    end: u64,
    is_hole: bool,
}

/// Why a file could not be read at once.
pub(super) enum Failure {
    Errno(Errno),
    Changed(FileChange),
    /// It does not say how long it is, and it is longer than [`UNKNOWN`].
    Endless,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl FileContent {
    /// Bytes that were read before.
    pub(super) fn held(bytes: Vec<u8>) -> Self {
        Self(Source::Held(io::Cursor::new(bytes)))
    }

    /// So many bytes of a file of ours, from that position on.
    pub(super) fn stored(file: Arc<File>, position: u64, size: u64) -> Self {
        Self(Source::Stored(Stored { file, position, end: position + size }))
    }

    /// A file that is read later.
    pub(super) fn disk(fd: OwnedFd, stat: &Stat, care: Care, place: String, path: TreePath) -> Self {
        let holes = holes(stat);
        let (stamp, run) = (Stamp::new(stat), Run { end: 0, is_hole: false });
        Self(Source::Disk(Box::new(Disk {
            fd,
            place,
            path,
            stamp,
            position: 0,
            run,
            holes,
            seeks: holes > 0,
            sum: (care != Care::Once).then(Sum::default),
        })))
    }

    /// About how many of its bytes are in holes, which cost no reading but must be archived and hashed.
    pub fn holes(&self) -> u64 {
        match &self.0 {
            Source::Held(_) | Source::Stored(_) => 0,
            Source::Disk(disk) => disk.holes,
        }
    }
}

impl Read for FileContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::Held(bytes) => bytes.read(buffer),
            Source::Disk(disk) => disk.read(buffer),
            Source::Stored(stored) => stored.read(buffer),
        }
    }
}

impl Stored {
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
            Source::Held(_) | Source::Stored(_) => 0,
            Source::Disk(disk) => disk.skip_hole(),
        }
    }
}

impl Disk {
    /// The last byte is always left to be read: only a read can say that the file has changed.
    fn skip_hole(&mut self) -> u64 {
        if self.seeks && self.position == self.run.end && self.position < self.stamp.size {
            self.run = self.next_run();
        }
        let end = self.run.end.min(self.stamp.size.saturating_sub(1));
        match self.run.is_hole && end > self.position {
            true => end - std::mem::replace(&mut self.position, end),
            false => 0,
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
        let read = match self.run.is_hole {
            true => {
                buffer.fill(0);
                most
            }
            false => self.pread(&mut *buffer)?,
        };
        if let Some(sum) = self.sum.as_mut().filter(|_| !self.run.is_hole) {
            sum.add(self.position, &buffer[..read]);
        }
        self.position += read as u64;
        // Asked before the last byte is given away: nobody who takes all of it can miss the answer.
        if read == 0 || self.position == self.stamp.size {
            self.insist_on_no_change()?;
        }
        match read {
            0 => Err(Error::failed(format!(
                "{} ends after {} bytes, although its file system says that it has {}",
                self.place, self.position, self.stamp.size
            ))
            .with_hint("leave it out with --exclude")
            .into()),
            read => Ok(read),
        }
    }

    fn pread(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry_on_intr(|| pread(&self.fd, &mut *buffer, self.position)).map_err(|errno| {
            match is_about_what_is_read(errno) {
                true => Unreadable { path: self.path.clone(), errno: errno.raw_os_error() }
                    .into_error(&self.place)
                    .into(),
                false => errno.into(),
            }
        })
    }

    /// Whether bytes or a hole come next, and until where.
    fn next_run(&mut self) -> Run {
        let size = self.stamp.size;
        let rest = |is_hole| Run { end: size, is_hole };
        if !self.seeks {
            return rest(false);
        }
        match seek(&self.fd, SeekFrom::Data(self.position)) {
            Ok(data) if data > self.position => Run { end: data.min(size), is_hole: true },
            Ok(_) => match seek(&self.fd, SeekFrom::Hole(self.position)) {
                Ok(hole) if hole > self.position => Run { end: hole.min(size), is_hole: false },
                _ => rest(false),
            },
            // Nothing but a hole until the end, or the file is shorter now, which is noticed there.
            Err(Errno::NXIO) => rest(true),
            // A file system that does not tell: what is not known to be a hole is read.
            Err(_) => {
                self.seeks = false;
                rest(false)
            }
        }
    }

    fn insist_on_no_change(&mut self) -> io::Result<()> {
        let is_same = match self.sum {
            Some(sum) => self.sum_of_all()? == sum,
            None => true,
        };
        let change = match self.stamp.change(&Stamp::new(&fstat(&self.fd)?)) {
            None if is_same => return Ok(()),
            None => FileChange::Touched,
            Some(change) => change,
        };
        Err(Changed { path: self.path.clone(), change }.into_error(&self.place).into())
    }

    /// Reads everything once more; the position stays at the end.
    fn sum_of_all(&mut self) -> io::Result<Sum> {
        wait_for_write(&self.fd);
        let mut sum = Sum::default();
        let mut buffer = vec![0; PIECE];
        let end = std::mem::take(&mut self.position);
        while self.position < end {
            let run = self.next_run();
            while !run.is_hole && self.position < run.end {
                let left = usize::try_from(run.end - self.position).unwrap_or(PIECE).min(PIECE);
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

/// About how many bytes of a file are in holes.
fn holes(stat: &Stat) -> u64 {
    stat.st_size.unsigned_abs().saturating_sub(stat.st_blocks.unsigned_abs().saturating_mul(BLOCK))
}

/// Reads a file from its beginning to its end. It may have more or fewer bytes than it says, as in `/proc` and `/sys`.
pub(super) fn read_at_once(fd: BorrowedFd<'_>, stat: &Stat, care: Care) -> Result<Vec<u8>, Failure> {
    let said = usize::try_from(stat.st_size).unwrap_or_default();
    // One byte more than it says, so that the end of an ordinary file is seen by one call.
    let mut bytes = Vec::with_capacity(said + 1);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len().max(4 << 10));
        }
        let offset = bytes.len() as u64;
        let read = retry_on_intr(|| pread(fd, spare_capacity(&mut bytes), offset))?;
        if read == 0 || (bytes.len() == said && bytes.len() < bytes.capacity()) {
            break;
        }
        if bytes.len() > UNKNOWN {
            return Err(changed(fd, stat)?.map_or(Failure::Endless, Failure::Changed));
        }
    }
    // What the kernel makes up as it is read does not know its size, and differs each time.
    let care = if bytes.len() == said { care } else { Care::Once };
    let is_same = care == Care::Once || is_still(fd, &bytes)?;
    match changed(fd, stat)? {
        None if is_same => {}
        None => return Err(Failure::Changed(FileChange::Touched)),
        Some(change) => return Err(Failure::Changed(change)),
    }
    if care == Care::TwiceApart {
        pause();
        // If its stamps tell of a change now, that came later.
        if !is_still(fd, &bytes)? && changed(fd, stat)?.is_none() {
            return Err(Failure::Changed(FileChange::Touched));
        }
    }
    Ok(bytes)
}

/// Whether a file still begins with these bytes, once nobody is in the middle of a `write()`.
fn is_still(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<bool, Errno> {
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
