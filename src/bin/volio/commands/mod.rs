//! The commands, one file each: what was typed becomes what it means, and one verb of the library does it.

pub mod cat;
pub mod completions;
pub mod copy;
pub mod diff;
pub mod inspect;
pub mod login;
pub mod ls;
pub mod man;
pub mod pack;
pub mod plugin;
pub mod rm;
pub mod tags;
pub mod unpack;
pub mod verify;

use crate::args::Command;
use crate::exit::Exit;
use crate::quantity::count;
use std::fs::{self, OpenOptions};
use std::path::Path;
use volio::oci::Digest;
use volio::transport::Location;
use volio::{Error, Result};

/// Does what was asked.
pub fn run(command: Command) -> Result<Exit> {
    match command {
        Command::Diff(args) => return args.run(),
        Command::Pack(args) => args.run(),
        Command::Unpack(args) => args.run(),
        Command::Copy(args) => args.run(),
        Command::Push(args) => args.run(),
        Command::Pull(args) => args.run(),
        Command::Ls(args) => args.run(),
        Command::Cat(args) => args.run(),
        Command::Inspect(args) => args.run(),
        Command::Verify(args) => args.run(),
        Command::Tags(args) => args.run(),
        Command::Rm(args) => args.run(),
        Command::Login(args) => args.run(),
        Command::Logout(args) => args.run(),
        Command::Plugin(args) => args.run(),
        Command::Completions(args) => args.run(),
        Command::Man(args) => args.run(),
    }?;
    Ok(Exit::Done)
}

/// Fails where [`write_digest`] would: before the work, and not after the image is there. A digest that an earlier run has
/// left is taken away: a file that is there says that the image is there.
fn clear_digestfile(file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let cannot = |error| Error::io(format!("--digestfile: cannot write to {}", file.display()), error);
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(file).map_err(cannot)?;
    if !open.metadata().map_err(cannot)?.is_file() {
        return Ok(());
    }
    let is_link = file.symlink_metadata().map_err(cannot)?.is_symlink();
    match is_link || fs::remove_file(file).is_err() {
        // What it leads to stays where it is, and so does what is mounted, as the termination message of a pod.
        true => open.set_len(0).map_err(cannot),
        false => Ok(()),
    }
}

/// Writes the digest into the file that `--digestfile` names: nothing but the digest, as skopeo and podman do it.
fn write_digest(file: Option<&Path>, digest: &Digest) -> Result<()> {
    match file {
        Some(file) => fs::write(file, digest.to_string())
            .map_err(|error| Error::io(format!("cannot write the digest to {}", file.display()), error)),
        None => Ok(()),
    }
}

/// What to call an image that was read: the place without its tag, and the digest.
fn address(location: &Location, digest: &Digest) -> String {
    format!("{}@{digest}", place(location))
}

/// Says which images of a place have no tag, so that somebody can name them by their digests.
fn without_tag(digests: &[Digest]) -> String {
    let listed: Vec<String> = digests.iter().map(|digest| format!("@{digest}")).collect();
    format!("{} without a tag: {}", count(digests.len() as u64, "image", "images"), listed.join(", "))
}

/// What to call the place of an image, without its tag and its digest.
fn place(location: &Location) -> String {
    match location {
        Location::Layout { directory, .. } => format!("oci:{}", directory.display()),
        Location::OciArchive { file, .. } => format!("oci-archive:{}", file.display()),
        Location::DockerArchive { file, .. } => format!("docker-archive:{}", file.display()),
        Location::Registry(reference) => reference.name(),
    }
}
