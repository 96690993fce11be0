//! What a container has left is packed into an image when the last one lets go.
//!
//! That an export is due is written down before the container starts, so that it happens even if the plugin, the engine or
//! the machine dies in between. It is tried until it succeeds: engines do not show what went wrong at an unmount.

use super::fingerprint::fingerprint;
use super::keeper::Keeper;
use super::mounts::{self, Seen};
use super::record::Moment;
use super::volume::{Doing, Turn, Volume};
use crate::error::{Error, Result};
use crate::pack::{self, pack};
use crate::progress::Silent;
use crate::transport::Location;
use crate::tree::SourceSpec;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Whether nobody has the volume: no engine may be about to give it away, and no process sees it.
pub(super) fn is_free(keeper: &Keeper, volume: &Volume) -> Result<bool> {
    let record = volume.record()?;
    if record.is_promised(keeper.now()) {
        return Ok(false);
    }
    Ok(match mounts::seen(&keeper.directory.volume(&volume.name)) {
        Seen::By(_) => false,
        Seen::ByNobody => true,
        Seen::Unknown => record.mounts.is_empty(),
    })
}

/// Exports the volume in a thread of its own, if that is due.
pub(super) fn in_background(
    keeper: &Arc<Keeper>,
    volume: &Arc<Volume>,
    to: Location,
    turn: Turn,
) -> Result<()> {
    turn.now(Doing::Exporting { image: to.to_string() });
    let (keeper, volume) = (Arc::clone(keeper), Arc::clone(volume));
    let work = move || {
        let outcome = export(&keeper, &volume, &to);
        volume.end_export(outcome.is_ok());
        if let Err(error) = outcome {
            keeper.failed(&volume, "exporting it", &error);
        }
        drop(turn);
    };
    let begun = thread::Builder::new().name("export".to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::io("cannot begin an export", error))
}

fn export(keeper: &Keeper, volume: &Volume, to: &Location) -> Result<()> {
    let directory = keeper.directory.volume(&volume.name);
    if !is_free(keeper, volume)? {
        return Ok(());
    }
    let before = fingerprint(&directory).ok();
    let record = volume.record()?;
    // What was filled or exported and not changed since would make the same image again.
    // An export that went elsewhere, before the volume was made anew, does not count.
    let is_known = match &record.exported {
        Some(last) => last.image == to.to_string(),
        None => record.filled.is_some(),
    };
    if is_known && before.is_some() && before == record.fingerprint {
        return volume.change(|record| {
            record.mounts.clear();
            record.export_due = false;
        });
    }
    keeper.log(&format!("{}: exporting it to {to}", volume.name));
    let begun = Instant::now();
    let destination = to.destination(&(keeper.settings.access)()?)?;
    let packed =
        pack(destination.as_ref(), &[SourceSpec::new(&directory)], &pack::Options::default(), &Silent)?;
    let exported = Moment {
        image: to.to_string(),
        digest: packed.digest.to_string(),
        at: super::volume::shown(keeper.now()),
        subpath: None,
    };
    keeper.log(&format!(
        "{}: exported as {} in {:.1} s",
        volume.name,
        packed.address,
        begun.elapsed().as_secs_f64()
    ));
    volume.change(|record| {
        // Where it comes from the same name, this is now what it was filled with.
        if let Some(filled) =
            record.filled.as_mut().filter(|filled| filled.image == exported.image && filled.subpath.is_none())
        {
            filled.digest.clone_from(&exported.digest);
        }
        record.exported = Some(exported);
        record.fingerprint = before;
        record.mounts.clear();
        record.export_due = false;
        record.last_error = None;
    })
}
