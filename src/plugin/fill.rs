//! A volume is filled from an image: beside its place, and then the two are swapped.
//!
//! So nobody ever sees half of an image, and where a fetch fails, for want of space or of a network, the volume is as it
//! was. Nothing is swapped that anybody sees.

use super::directory::{make_private, sync_directory};
use super::export::{self, WaitFor};
use super::fingerprint::fingerprint;
use super::keeper::Keeper;
use super::mounts::{self, Seen};
use super::options::{Fill, Owner, Policy, Pull};
use super::pace::Pace;
use super::record::{Moment, Record};
use super::root::{set_mode, something_in};
use super::volume::{Doing, Passed, Turn, Volume, Watched};
use crate::disk::mountinfo;
use crate::error::{Error, Result};
use crate::stream::CancelToken;
use crate::transport::{Location, Source};
use crate::tree::ExtractOptions;
use crate::unpack::{self, Part, unpack};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Whether the volume has to be filled before a first container gets it.
pub(super) fn is_wanted(fill: &Fill, record: &Record, is_fresh: bool) -> bool {
    let is_filled = record.filled.as_ref().is_some_and(|filled| is_from(filled, fill));
    match fill.pull {
        Pull::Missing => !is_filled,
        // What has just come for this mount need not come again: a fetch may take longer than an engine waits.
        Pull::Newer | Pull::Always => !(is_filled && is_fresh),
    }
}

/// Whether this is the image, and the part of it, that is asked for; not necessarily its newest version.
fn is_from(filled: &Moment, fill: &Fill) -> bool {
    filled.image == fill.image.to_string() && filled.subpath == subpath(fill)
}

fn subpath(fill: &Fill) -> Option<String> {
    fill.subpath.as_ref().map(|path| path.to_string())
}

/// What a volume is filled with, and what has to happen to what it holds.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) fill: Fill,
    pub(super) owner: Owner,
    /// Where what it holds has to be before it is replaced.
    pub(super) export: Option<Location>,
}

/// Fills the volume in a thread of its own, which goes on when nobody waits any more.
pub(super) fn in_background(keeper: &Arc<Keeper>, volume: &Arc<Volume>, job: Job, turn: Turn) -> Result<()> {
    let (passed, stop) = (Arc::new(Passed::default()), CancelToken::default());
    let image = job.fill.image.to_string();
    turn.now(Doing::Fetching { image, passed: Arc::clone(&passed), stop: stop.clone() });
    let (keeper, volume) = (Arc::clone(keeper), Arc::clone(volume));
    let work = move || {
        // Whoever has waited for the turn must find out that there was a fetch, also where a panic ends it.
        let mut end =
            End { volume: &volume, outcome: Some(Err("it was given up: this is a bug".to_owned())) };
        let pace = Pace::watch(Arc::clone(&passed), stop.clone(), keeper.settings.pace);
        let filling = Filling { keeper: &keeper, volume: &volume, job: &job, passed, stop: &stop };
        let outcome = filling.run().map_err(|error| pace.explain(error));
        drop(pace);
        if let Err(error) = &outcome {
            keeper.failed(&volume, "filling it", error);
        }
        end.outcome = Some(outcome.map_err(|error| match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        }));
        drop(end);
        drop(turn);
    };
    let begun = thread::Builder::new().name("fetch".to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::io("cannot begin a fetch", error))
}

/// Notes how a fetch ended when it is dropped.
struct End<'a> {
    volume: &'a Volume,
    outcome: Option<Result<(), String>>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.volume.end_fetch(outcome);
        }
    }
}

struct Filling<'a> {
    keeper: &'a Keeper,
    volume: &'a Volume,
    job: &'a Job,
    passed: Arc<Passed>,
    stop: &'a CancelToken,
}

impl Filling<'_> {
    fn run(&self) -> Result<()> {
        let Self { keeper, volume, job: Job { fill, .. }, .. } = self;
        let record = volume.record()?;
        let target = keeper.directory.volume(&volume.name);
        if record.filled.as_ref().is_some_and(|filled| is_from(filled, fill)) && fill.pull == Pull::Missing {
            return Ok(());
        }
        self.refuse_once(&target)?;

        let mut access = (keeper.settings.access)()?;
        access.transfer.cancel = self.stop.clone();
        let source = fill.image.source(&access)?;
        if fill.pull == Pull::Newer && record.filled.as_ref().is_some_and(|filled| is_from(filled, fill)) {
            let digest = source.resolve()?.descriptor().digest.to_string();
            if record.filled.as_ref().is_some_and(|filled| filled.digest == digest) {
                keeper.log(&format!("{}: {} is still {digest}", volume.name, fill.image));
                return Ok(());
            }
        }
        refuse_mounts_in(&target)?;
        self.refuse_to_lose(&target)?;
        keeper.log(&format!("{}: filling it from {}", volume.name, fill.image));
        let begun = Instant::now();
        let staging = keeper.directory.staging(&volume.name);
        let outcome = self.stage(source.as_ref(), &staging).and_then(|digest| {
            let at = super::volume::shown(keeper.now());
            let image = fill.image.to_string();
            self.swap(&staging, &target, Moment { image, digest, at, subpath: subpath(fill) })
        });
        // What has been replaced, or what has failed.
        if let Err(error) = keeper.directory.trash.take(&staging) {
            keeper.log(&format!("{}: {error}", volume.name));
        }
        keeper.directory.trash.empty(&|line| keeper.log(line));
        let digest = outcome?;
        keeper.log(&format!(
            "{}: filled with {digest} in {:.1} s",
            volume.name,
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Insists that there is nothing where what is there is to be kept.
    fn refuse_once(&self, target: &Path) -> Result<()> {
        match something_in(target)? {
            Some(held) if self.job.fill.policy == Policy::Once => Err(Error::refused(format!(
                "{} holds data that is not from {}, such as {held}",
                target.display(),
                self.job.fill.image
            ))
            .with_hint("empty it, or make the volume with policy=replace")),
            _ => Ok(()),
        }
    }

    /// Insists that an image has what the volume holds where it is to be exported, and exports it where that is due.
    fn refuse_to_lose(&self, target: &Path) -> Result<()> {
        let Self { keeper, volume, job, .. } = self;
        let Some(to) = &job.export else { return Ok(()) };
        if something_in(target)?.is_none() || volume.record()?.is_stored(&fingerprint(target)?) {
            return Ok(());
        }
        let lost = |why: &dyn std::fmt::Display| {
            Error::refused(format!(
                "what {} holds was not exported yet, and would be lost: {why}",
                target.display()
            ))
        };
        let record = volume.record()?;
        if record.content.is_none() && !record.export_due {
            return Err(
                lost(&"no container has written it").with_hint("export it with volio pack, or empty it")
            );
        }
        let retried = "the export is tried again by itself; the volume's Status says why it failed";
        export::export(keeper, volume, to, WaitFor::Everybody)
            .map_err(|error| lost(&error).with_hint(retried))?;
        match volume.record()?.is_stored(&fingerprint(target)?) {
            true => Ok(()),
            false => Err(lost(&format!("{to} holds something else"))
                .with_hint("export it with volio pack, or empty it")),
        }
    }

    /// Makes the new content beside its place. Returns the digest of its image.
    fn stage(&self, source: &dyn Source, staging: &Path) -> Result<String> {
        self.keeper.directory.trash.take(staging)?;
        let own = staging.parent().unwrap_or(staging);
        make_private(own).map_err(|error| Error::io(format!("cannot make {}", own.display()), error))?;
        // A root that no image describes is as other volumes are.
        fs::create_dir(staging)
            .map_err(|error| Error::io(format!("cannot make {}", staging.display()), error))?;
        let mut options = unpack::Options {
            platform: self.job.fill.platform.clone(),
            part: self.job.fill.subpath.clone().map_or(Part::All, Part::Subpath),
            tree: ExtractOptions {
                uid: self.job.owner.uid,
                gid: self.job.owner.gid,
                ..ExtractOptions::default()
            },
            ..unpack::Options::default()
        };
        // A volume that was exported must come back, however deep a container made it, and nobody can give an option here.
        (options.limits.path, options.limits.depth) = (64 << 10, 2048);
        let watched = Watched { passed: Arc::clone(&self.passed), journal: &self.keeper.settings.journal };
        let unpacked = unpack(source, staging, &options, &watched)?;
        set_mode(staging, self.job.owner)
            .map_err(|error| Error::io(format!("cannot set the mode of {}", staging.display()), error))?;
        Ok(unpacked.digest.to_string())
    }

    /// Puts the new content in its place; returns its digest.
    fn swap(&self, content: &Path, target: &Path, filled: Moment) -> Result<String> {
        let Self { volume, .. } = self;
        let shown = target.display();
        let trouble = |error: io::Error| Error::io(format!("cannot put the new content at {shown}"), error);
        // The fetch took its time, and whoever is root on this machine needs no engine to write there.
        self.refuse_once(target)?;
        self.refuse_to_lose(target)?;
        refuse_seen(target, target)?;
        refuse_mounts_in(target)?;
        let inode = fs::symlink_metadata(content).map_err(trouble)?.ino();
        let fingerprint = fingerprint(content)?;
        volume.change(|record| record.begin_swap(filled.clone(), inode, fingerprint))?;
        let flags = match fs::symlink_metadata(target) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::refused(format!("{shown} is not a directory")));
            }
            Ok(_) => RenameFlags::EXCHANGE,
            Err(_) => RenameFlags::NOREPLACE,
        };
        let rename = || {
            renameat_with(CWD, content, CWD, target, flags).map_err(|errno| match errno {
                rustix::io::Errno::BUSY | rustix::io::Errno::XDEV => {
                    Error::refused(format!("{shown} is a mount point of its own"))
                        .with_hint("a volume that is filled from an image is on the disk of the storage")
                }
                errno => trouble(errno.into()),
            })
        };
        rename()?;
        if flags == RenameFlags::EXCHANGE
            && let Err(error) = refuse_seen(content, target)
        {
            // Somebody was quicker: the old content goes back to where it is seen.
            rename()?;
            return Err(error);
        }
        for directory in [content.parent(), target.parent()].into_iter().flatten() {
            sync_directory(directory).map_err(trouble)?;
        }
        let digest = filled.digest.clone();
        volume.change(|record| record.end_swap(Some(inode)))?;
        Ok(digest)
    }
}

/// Insists that no process sees a directory, which is named as users know it.
fn refuse_seen(directory: &Path, shown: &Path) -> Result<()> {
    match mounts::seen(directory)? {
        Seen::By(process) => {
            Err(Error::refused(format!("{} is in use by process {process}", shown.display()))
                .with_hint("it is filled when no container has it any more"))
        }
        _ => Ok(()),
    }
}

/// Insists that nothing is mounted in a volume, by a hook or by an administrator: it would go where the old content goes.
fn refuse_mounts_in(target: &Path) -> Result<()> {
    let below = match mountinfo::below(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        below => below.map_err(|error| {
            Error::io(format!("cannot find out what is mounted in {}", target.display()), error)
        })?,
    };
    match below.first() {
        None => Ok(()),
        Some(place) => Err(Error::refused(format!(
            "something is mounted on {}",
            target.join(place).display()
        ))
        .with_hint(
            "a volume is filled when nothing is mounted in it any more; a post-unmount hook can see to that",
        )),
    }
}
