//! The entries of a target on their way from the thread that walks it to the one that compares them.

use crate::disk::working_directory;
use crate::error::Result;
use crate::tree::{FoundEntry, TargetWalk};
use std::sync::mpsc::{Receiver, SyncSender};

/// The number of entries of a target that are passed on together.
const BATCH: usize = 256;
/// The number of such batches that are read ahead of the comparison.
pub(super) const BATCHES_AHEAD: usize = 128;
/// The most bytes of the paths of a batch, apart from the last one.
const BATCH_BYTES: usize = 64 << 10;

/// Sends the entries of a walk, many at once, from a thread of its own. Ends early if the receiver is gone, which has failed
/// then.
pub(super) fn send_in_batches(walk: TargetWalk, sender: &SyncSender<Batch>) {
    working_directory::separate();
    let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), 0);
    for found in walk {
        bytes += found.as_ref().map_or(0, |found| found.path.as_bytes().len());
        batch.push(found);
        if batch.len() == BATCH || bytes >= BATCH_BYTES {
            if sender.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).is_err() {
                return;
            }
            bytes = 0;
        }
    }
    let _ = sender.send(batch);
}

pub(super) type Batch = Vec<Result<FoundEntry>>;

/// The entries that are sent in batches.
pub(super) struct Batches {
    batches: Receiver<Batch>,
    current: std::vec::IntoIter<Result<FoundEntry>>,
}

impl Batches {
    pub fn of(batches: Receiver<Batch>) -> Self {
        Self { batches, current: Vec::new().into_iter() }
    }
}

impl Iterator for Batches {
    type Item = Result<FoundEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(next) = self.current.next() {
                return Some(next);
            }
            self.current = self.batches.recv().ok()?.into_iter();
        }
    }
}
