//! Who has a volume: what engines have counted, and what the kernel says.

use super::keeper::Keeper;
use super::mounts::{self, Seen};
use super::volume::Volume;
use crate::error::Result;

/// How many times longer than usual a mount is believed that may have ended without a word: its engine lives, and may still
/// wait for other volumes of the container.
const DOUBT: u32 = 10;

/// Who has a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// Nobody: no engine counts a mount, and no process sees it.
    Free,
    /// An engine counts a mount, and no process has seen the volume for some time. It may be that the engine still
    /// prepares a container, or that its unmount got lost.
    Idle,
    /// An engine has just mounted it, or it cannot be known who sees it.
    Mounted,
    /// This process, at least, sees it.
    Seen(u32),
}

/// Finds out who has the volume, and forgets the mounts of engines that have ended.
///
/// # Errors
/// When it cannot be found out.
pub(super) fn usage(keeper: &Keeper, volume: &Volume) -> Result<Usage> {
    let seen = mounts::seen(&keeper.directory.volume(&volume.name))?;
    if let Seen::By(process) = seen {
        return Ok(Usage::Seen(process));
    }
    let record = volume.record()?;
    if record.mounts.is_empty() {
        return Ok(Usage::Free);
    }
    // An engine that dies may have a container on its way to the volume.
    if seen == Seen::Unknown || volume.was_mounted_within(keeper.settings.grace) {
        return Ok(Usage::Mounted);
    }
    let doubted = volume.doubted_mounts(keeper.settings.grace * DOUBT);
    let is_doubted = record.mounts.keys().any(|id| doubted.contains(id));
    if is_doubted || record.has_mounts_of_ended_engines() {
        let left = volume.change(|record| {
            record.forget_ended_engines();
            record.forget(&doubted);
            record.mounts.len()
        })?;
        keeper.log(&format!(
            "{}: mounts that their engine has ended without a word are forgotten",
            volume.name
        ));
        if left == 0 {
            return Ok(Usage::Free);
        }
    }
    Ok(Usage::Idle)
}
