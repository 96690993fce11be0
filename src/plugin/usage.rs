//! Who has a volume: what engines have counted, and what the kernel says.

use super::in_use::{self, InUse};
use super::volume::Volume;
use super::volumes::VolumeStore;
use crate::error::Result;

/// How many times longer than usual a mount is believed that may have ended without a word: its engine lives, and may still
/// wait for other volumes of the container.
const SUSPICION_FACTOR: u32 = 10;

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
    InUse(u32),
}

/// Finds out who has the volume, and forgets the mounts of engines that have ended.
///
/// # Errors
/// When it cannot be found out.
pub(super) fn usage(store: &VolumeStore, volume: &Volume) -> Result<Usage> {
    let seen = in_use::in_use_by(&store.storage.volume_dir(&volume.name))?;
    if let InUse::By(process) = seen {
        return Ok(Usage::InUse(process));
    }
    let state = volume.state()?;
    if state.mounts.is_empty() {
        return Ok(Usage::Free);
    }
    // An engine that dies may have a container on its way to the volume.
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
