//! The progress of fetches and exports, for `docker volume inspect` and for the minimum speed.

use crate::progress::{Progress, Task, TaskInfo};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The progress of a fetch, in bytes.
#[derive(Default)]
pub(super) struct TransferProgress {
    done: AtomicU64,
    total: AtomicU64,
}

impl TransferProgress {
    /// Returns the number of bytes fetched so far.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl fmt::Display for TransferProgress {
    /// Shows how much of the total has been fetched, or nothing as long as the total is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total.load(Ordering::Relaxed) {
            0 => Ok(()),
            total => {
                let percent = self.done().min(total) * 100 / total;
                write!(f, ", {percent} % of {} MiB", total.div_ceil(1 << 20))
            }
        }
    }
}

/// Records the progress of a fetch or an export, and logs its warnings.
pub(super) struct ProgressRecorder<'a> {
    pub(super) transfer: Arc<TransferProgress>,
    pub(super) log: &'a (dyn Fn(&str) + Send + Sync),
}

impl Progress for ProgressRecorder<'_> {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        let total = info.total.unwrap_or_default();
        self.transfer.total.fetch_add(total, Ordering::Relaxed);
        Box::new(ProgressTask { transfer: Arc::clone(&self.transfer), total })
    }

    fn warn(&self, message: &str) {
        (self.log)(message);
    }
}

struct ProgressTask {
    transfer: Arc<TransferProgress>,
    total: u64,
}

impl Task for ProgressTask {
    fn advance(&self, bytes: u64) {
        self.transfer.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn skip(&self) {
        self.transfer.done.fetch_add(self.total, Ordering::Relaxed);
    }
}
