//! Use of a volume, from the mounts that engines count and from what the kernel shows.

use super::in_use::{self, InUse};
use super::volume::Volume;
use super::volumes::VolumeStore;
use crate::error::Result;

/// The factor on the usual grace for a mount whose unmount may have been lost: its engine is running, and may still
/// wait for other volumes of the container.
const SUSPICION_FACTOR: u32 = 10;

/// The use of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// No engine counts a mount, and no process sees the volume.
    Free,
    /// An engine counts a mount, and no process has seen the volume for some time. The engine may still prepare a
    /// container, or its unmount may have been lost.
    Idle,
    /// An engine has mounted it recently, or it is not known which processes see it.
    Mounted,
    /// This process sees the volume, perhaps among others.
    InUse(u32),
}

/// Determines the use of the volume, and forgets the mounts of engines that have ended.
///
/// # Errors
///
/// The mounts or the state cannot be read.
pub(super) fn usage(store: &VolumeStore, volume: &Volume) -> Result<Usage> {
    let seen = in_use::in_use_by(&store.storage.volume_dir(&volume.name))?;
    if let InUse::By(process) = seen {
        return Ok(Usage::InUse(process));
    }
    let state = volume.state()?;
    if state.mounts.is_empty() {
        return Ok(Usage::Free);
    }
    // An engine that has just died may have started a container that is about to get the volume.
    if seen == InUse::Unknown || volume.was_mounted_within(store.settings.mount_grace) {
        return Ok(Usage::Mounted);
    }
    let doubted = volume.suspected_mounts(store.settings.mount_grace * SUSPICION_FACTOR);
    let is_doubted = state.mounts.keys().any(|id| doubted.contains(id));
    if is_doubted || state.has_mounts_of_ended_engines() {
        let left = volume.update(|state| {
            state.forget_ended_engines();
            state.forget(&doubted);
            state.mounts.len()
        })?;
        store.log(&format!(
            "{}: mounts that their engine has ended without a word are forgotten",
            volume.name
        ));
        if left == 0 {
            return Ok(Usage::Free);
        }
    }
    Ok(Usage::Idle)
}
