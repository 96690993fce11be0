//! Times that say whether a file may have changed without a trace.

use crate::tree::{TargetState, Time};

/// A file whose mtime is this close to the last change of its inode may have changed without a trace, in seconds. FAT has
/// a resolution of two seconds.
const RACY: i64 = 2;

/// The times in the record of a target.
#[derive(Clone, Copy)]
pub(super) struct RecordedTimes {
    /// See [`TargetState::finished_at`].
    pub finished_at: Time,
    /// See [`TargetState::newest`].
    pub newest: Time,
}

impl RecordedTimes {
    /// Returns the times, if the record has them.
    pub fn of(state: &TargetState) -> Option<Self> {
        Some(Self { finished_at: state.finished_at?.into(), newest: state.newest?.into() })
    }
}

/// Returns whether an mtime is so close to a moment, or after it, that a later change need not have changed it.
pub(super) fn is_racy(mtime: Time, moment: Time) -> bool {
    Time { seconds: mtime.seconds.saturating_add(RACY), ..mtime } >= moment
}
