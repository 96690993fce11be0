//! What a container has left is packed into an image when the last one lets go.
//!
//! That an export is due is written down before the container starts, so that it happens even if the plugin, the engine or
//! the machine dies in between. It is tried until it succeeds: engines do not show what went wrong at an unmount. Whether
//! there is something to export is decided by what the volume holds: its fingerprint beside that of the content that
//! was filled or exported last.

use super::fingerprint::fingerprint;
use super::keeper::Keeper;
use super::record::{Content, Moment, Needed, Origin};
use super::root::something_in;
use super::usage::{Usage, usage};
use super::volume::{Doing, Exported, Passed, Turn, Volume, Watched};
use crate::error::{Error, Kind, Result};
use crate::pack::{self, Packed, pack};
use crate::transport::Location;
use crate::tree::SourceSpec;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// What a failure of an export was a failure of.
const EXPORTING: &str = "exporting it";

/// The users of a volume that an export waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// Those that an engine counts, and those that see it.
    Everybody,
    /// Those that see it: the engine has said that it counts none.
    Processes,
}

/// Exports the volume in a thread of its own, if that is due.
pub(super) fn in_background(
    keeper: &Arc<Keeper>,
    volume: &Arc<Volume>,
    to: Location,
    wait_for: WaitFor,
    turn: Turn,
) -> Result<()> {
    turn.now(Doing::Exporting { image: to.to_string() });
    let (keeper, volume) = (Arc::clone(keeper), Arc::clone(volume));
    let work = move || {
        // Also where a panic ends the export: the next one is then tried later, and not at once.
        let mut end =
            End { volume: &volume, outcome: Some(Err("it was given up: this is a bug".to_owned())) };
        let outcome = export(&keeper, &volume, &to, wait_for);
        if let Err(error) = &outcome {
            keeper.failed(&volume, EXPORTING, error);
        }
        end.outcome = Some(outcome.map_err(|error| error.to_string()));
        drop(end);
        drop(turn);
    };
    let begun = thread::Builder::new().name("export".to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::io("cannot begin an export", error))
}

/// Notes how an export ended when it is dropped.
struct End<'a> {
    volume: &'a Volume,
    outcome: Option<Result<Exported, String>>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.volume.end_export(outcome);
        }
    }
}

/// The same, and waits for its end until the deadline, or until something else goes on with the volume.
///
/// # Errors
/// Why it failed, or that it did not end in time.
pub(super) fn and_wait(
    keeper: &Arc<Keeper>,
    volume: &Arc<Volume>,
    to: Location,
    wait_for: WaitFor,
    (turn, then): (Turn, Doing),
    deadline: Instant,
) -> Result<Turn> {
    in_background(keeper, volume, to, wait_for, turn)?;
    // Whoever gets the turn comes after the export.
    let turn = volume.turn(then, deadline)?;
    outcome(volume).map(|()| turn)
}

/// How the last export ended.
///
/// # Errors
/// Why it failed.
pub(super) fn outcome(volume: &Volume) -> Result<()> {
    match volume.export_failure() {
        Some(failure) => Err(Error::failed(format!("{EXPORTING} failed: {failure}"))),
        None => Ok(()),
    }
}

/// Exports the volume if it holds what the image has not. Needs the turn.
pub(super) fn export(keeper: &Keeper, volume: &Volume, to: &Location, wait_for: WaitFor) -> Result<Exported> {
    let is_counted = match usage(keeper, volume)? {
        Usage::Seen(_) => return Ok(Exported::InUse),
        Usage::Mounted if wait_for == WaitFor::Everybody => return Ok(Exported::InUse),
        Usage::Mounted | Usage::Idle => wait_for == WaitFor::Everybody,
        Usage::Free => false,
    };
    let directory = keeper.directory.volume(&volume.name);
    let before = fingerprint(&directory)?;
    let is_empty = something_in(&directory)?.is_none();
    let name = to.to_string();
    let is_needed = match volume.record()?.needed(&name, &before, is_empty) {
        Needed::Nothing => false,
        Needed::IfMissing => is_missing(keeper, volume, to)?,
        Needed::Export => true,
    };
    let exported = match is_needed {
        true => Some(send(keeper, volume, to, &directory)?),
        false => None,
    };
    volume.change(|record| {
        if let Some(exported) = exported {
            // Where it comes from the same name, this is now what it was filled with.
            if let Some(filled) =
                record.filled.as_mut().filter(|filled| filled.image == name && filled.subpath.is_none())
            {
                filled.digest.clone_from(&exported.digest);
            }
            record.exported = Some(exported);
            record.content = Some(Content { fingerprint: before, origin: Origin::Exported });
        }
        record.export_due = is_counted;
        record.mend(EXPORTING);
    })?;
    Ok(if is_counted { Exported::Counted } else { Exported::Settled })
}

/// Whether the name means no image: what no container has changed makes one then, and replaces none.
fn is_missing(keeper: &Keeper, volume: &Volume, to: &Location) -> Result<bool> {
    let found = to.source(&(keeper.settings.access)()?).and_then(|source| source.resolve());
    match found {
        Err(error) if error.kind() == Kind::NotFound => Ok(true),
        // A registry that does not say so to everybody. Nothing is lost: the content is what it was.
        Err(error) if error.kind() != Kind::Denied => Err(error),
        _ => {
            keeper.log(&format!("{}: not exported: nothing has changed, and {to} is there", volume.name));
            Ok(false)
        }
    }
}

/// Packs the volume and gives the image its name.
fn send(keeper: &Keeper, volume: &Volume, to: &Location, directory: &Path) -> Result<Moment> {
    keeper.log(&format!("{}: exporting it to {to}", volume.name));
    let begun = Instant::now();
    let destination = to.destination(&(keeper.settings.access)()?)?;
    let told = |message: &str| keeper.log(&format!("{}: {message}", volume.name));
    let progress = Watched { passed: Arc::new(Passed::default()), journal: &told };
    // Whoever writes into a volume does not decide what is exported of it: no rule files.
    let packed =
        pack(destination.as_ref(), &[SourceSpec::new(directory)], &pack::Options::default(), &progress)?;
    keeper.log(&format!(
        "{}: exported {} entries as {} in {:.1} s{}",
        volume.name,
        packed.entries,
        packed.address,
        begun.elapsed().as_secs_f64(),
        left_out(&packed),
    ));
    let digest = packed.digest.to_string();
    Ok(Moment { image: to.to_string(), digest, at: super::volume::shown(keeper.now()), subpath: None })
}

/// What is in the volume and not in its image, counted.
fn left_out(packed: &Packed) -> String {
    let counted = [
        (packed.excluded, "excluded"),
        (packed.sockets_skipped, "sockets"),
        (packed.unreadable_skipped, "unreadable"),
        (packed.changed_skipped, "changed"),
    ];
    let counted: Vec<String> = counted
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    match counted.is_empty() {
        true => String::new(),
        false => format!("; left out: {}", counted.join(", ")),
    }
}
