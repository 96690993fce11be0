//! A volume is filled from an image: beside its place, and then the two are swapped.
//!
//! So nobody ever sees half of an image, and where a fetch fails, for want of space or of a network, the volume is as it
//! was. Nothing is swapped that anybody sees.

use super::directory::{make_private, sync_directory};
use super::fingerprint::fingerprint;
use super::keeper::Keeper;
use super::mounts::{self, Seen};
use super::options::{Fill, Owner, Policy, Pull};
use super::record::{Moment, Record};
use super::volume::{Doing, Passed, Turn, Volume, Watched};
use crate::disk::mountinfo;
use crate::error::{Error, Result};
use crate::transport::Source;
use crate::tree::{ExtractOptions, Target, TreePath};
use crate::unpack::{self, Part, unpack};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
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

/// Fills the volume in a thread of its own, which goes on when nobody waits any more.
pub(super) fn in_background(
    keeper: &Arc<Keeper>,
    volume: &Arc<Volume>,
    fill: Fill,
    owner: Owner,
    turn: Turn,
) -> Result<()> {
    let passed = Arc::new(Passed::default());
    turn.now(Doing::Fetching { image: fill.image.to_string(), passed: Arc::clone(&passed) });
    let (keeper, volume) = (Arc::clone(keeper), Arc::clone(volume));
    let work = move || {
        let filling = Filling { keeper: &keeper, volume: &volume, fill: &fill, owner, passed };
        let outcome = filling.run();
        if let Err(error) = &outcome {
            keeper.failed(&volume, "filling it", error);
        }
        let outcome = outcome.map_err(|error| match error.advice() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        });
        // Whoever has waited for the turn must find out that there was a fetch.
        volume.end_fetch(outcome);
        drop(turn);
    };
    let begun = thread::Builder::new().name("fetch".to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::io("cannot begin a fetch", error))
}

struct Filling<'a> {
    keeper: &'a Keeper,
    volume: &'a Volume,
    fill: &'a Fill,
    owner: Owner,
    passed: Arc<Passed>,
}

impl Filling<'_> {
    fn run(&self) -> Result<()> {
        let Self { keeper, volume, fill, .. } = self;
        recover(keeper, volume)?;
        let record = volume.record()?;
        let target = keeper.directory.volume(&volume.name);
        let holds = something_in(&target)?;
        if record.filled.as_ref().is_some_and(|filled| is_from(filled, fill)) && fill.pull == Pull::Missing {
            return Ok(());
        }
        self.refuse_to_lose(&record, holds.as_ref())?;

        let source = fill.image.source(&(keeper.settings.access)()?)?;
        if fill.pull == Pull::Newer && record.filled.as_ref().is_some_and(|filled| is_from(filled, fill)) {
            let digest = source.resolve()?.descriptor().digest.to_string();
            if record.filled.as_ref().is_some_and(|filled| filled.digest == digest) {
                keeper.log(&format!("{}: {} is still {digest}", volume.name, fill.image));
                return Ok(());
            }
        }
        refuse_mounts_in(&target)?;
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

    /// Insists that nothing gets lost that is to stay.
    fn refuse_to_lose(&self, record: &Record, holds: Option<&TreePath>) -> Result<()> {
        let Self { keeper, volume, fill, .. } = self;
        let Some(held) = holds else { return Ok(()) };
        let target = keeper.directory.volume(&volume.name);
        if fill.policy == Policy::Once {
            return Err(Error::refused(format!(
                "{} holds data that is not from {}, such as {held}",
                target.display(),
                fill.image
            ))
            .hint("empty it, or make the volume with policy=replace"));
        }
        let changed = || record.fingerprint.is_none() || fingerprint(&target).ok() != record.fingerprint;
        if record.export_due && changed() {
            return Err(Error::refused(format!(
                "what {} holds was not exported yet, and would be lost",
                target.display()
            ))
            .hint("the export is tried again by itself; the volume's Status says why it failed"));
        }
        Ok(())
    }

    /// Makes the new content beside its place. Returns the digest of its image.
    fn stage(&self, source: &dyn Source, staging: &Path) -> Result<String> {
        self.keeper.directory.trash.take(staging)?;
        let own = staging.parent().unwrap_or(staging);
        make_private(own).map_err(|error| Error::io(format!("cannot make {}", own.display()), error))?;
        // A root that no image describes is as other volumes are.
        fs::create_dir(staging)
            .map_err(|error| Error::io(format!("cannot make {}", staging.display()), error))?;
        let options = unpack::Options {
            platform: self.fill.platform.clone(),
            part: self.fill.subpath.clone().map_or(Part::All, Part::Subpath),
            tree: ExtractOptions { uid: self.owner.uid, gid: self.owner.gid, ..ExtractOptions::default() },
            ..unpack::Options::default()
        };
        let watched = Watched { passed: Arc::clone(&self.passed), journal: &self.keeper.settings.journal };
        let unpacked = unpack(source, staging, &options, &watched)?;
        set_mode(staging, self.owner)
            .map_err(|error| Error::io(format!("cannot set the mode of {}", staging.display()), error))?;
        Ok(unpacked.digest.to_string())
    }

    /// Puts the new content in its place; returns its digest.
    fn swap(&self, content: &Path, target: &Path, filled: Moment) -> Result<String> {
        let Self { volume, .. } = self;
        let shown = target.display();
        let trouble = |error: io::Error| Error::io(format!("cannot put the new content at {shown}"), error);
        if let Seen::By(process) = mounts::seen(target) {
            return Err(Error::refused(format!("{shown} is in use by process {process}"))
                .hint("it is filled when no container has it any more"));
        }
        refuse_mounts_in(target)?;
        let inode = fs::symlink_metadata(content).map_err(trouble)?.ino();
        volume.change(|record| record.filling = Some((filled.clone(), inode)))?;
        let exchanged = match fs::symlink_metadata(target) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::refused(format!("{shown} is not a directory")));
            }
            Ok(_) => renameat_with(CWD, content, CWD, target, RenameFlags::EXCHANGE),
            Err(_) => renameat_with(CWD, content, CWD, target, RenameFlags::NOREPLACE),
        };
        exchanged.map_err(|errno| match errno {
            rustix::io::Errno::BUSY | rustix::io::Errno::XDEV => {
                Error::refused(format!("{shown} is a mount point of its own"))
                    .hint("a volume that is filled from an image is on the disk of the storage")
            }
            errno => trouble(errno.into()),
        })?;
        for directory in [content.parent(), target.parent()].into_iter().flatten() {
            sync_directory(directory).map_err(trouble)?;
        }
        let digest = filled.digest.clone();
        accept(volume, target, filled)?;
        Ok(digest)
    }
}

/// Notes that the new content is in its place.
fn accept(volume: &Volume, target: &Path, filled: Moment) -> Result<()> {
    // An export that would send the same once more is none.
    let fingerprint = fingerprint(target).ok();
    volume.change(|record| {
        record.filling = None;
        record.filled = Some(filled);
        record.fingerprint = fingerprint;
        record.export_due = false;
        record.last_error = None;
    })
}

/// Finds out how a swap ended that the plugin did not live to note.
pub(super) fn recover(keeper: &Keeper, volume: &Volume) -> Result<()> {
    let Some((filled, inode)) = volume.record()?.filling else { return Ok(()) };
    let target = keeper.directory.volume(&volume.name);
    match fs::symlink_metadata(&target).is_ok_and(|found| found.ino() == inode) {
        true => accept(volume, &target, filled),
        false => volume.change(|record| record.filling = None),
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
        .hint(
            "a volume is filled when nothing is mounted in it any more; a post-unmount hook can see to that",
        )),
    }
}

/// Something that the directory holds; `None` when that is nothing but a file system's or volio's own, or it is not there.
fn something_in(directory: &Path) -> Result<Option<TreePath>> {
    match Target::find(directory)? {
        Some(target) => target.held(),
        None => Ok(None),
    }
}

fn set_mode(directory: &Path, owner: Owner) -> io::Result<()> {
    match owner.mode {
        Some(mode) => fs::set_permissions(directory, Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Gives the directory of a volume that is made anew, over data of an earlier one, to the owner that was named this time.
/// What is in it belongs to whom it did.
pub(super) fn claim(directory: &Path, owner: Owner) -> Result<()> {
    let claimed = match fs::symlink_metadata(directory) {
        // What an administrator has put in its place is not followed.
        Ok(found) if !found.is_dir() => Ok(()),
        _ => lchown(directory, owner.uid, owner.gid).and_then(|()| set_mode(directory, owner)),
    };
    claimed.map_err(|error| Error::io(format!("cannot give {} away", directory.display()), error))
}

/// Makes the directory of a volume where it is missing, and gives it to its owner.
pub(super) fn make(directory: &Path, owner: Owner) -> Result<()> {
    let made = match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Ok(()) => lchown(directory, owner.uid, owner.gid).and_then(|()| set_mode(directory, owner)),
        error => error,
    };
    made.map_err(|error| Error::io(format!("cannot make {}", directory.display()), error))
}
