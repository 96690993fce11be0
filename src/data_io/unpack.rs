//! Unpacks an image as data-io did: a new version is refused once, so that a user can look at it first.

use crate::error::{Error, Result};
use crate::oci::Document;
use crate::progress::Progress;
use crate::transport::Source;
use crate::tree::{Target, TargetState};
use crate::unpack::{Options, Unpacked, recorded_digest, unpack_if};
use std::path::Path;

/// Unpacks the image, unless the target holds another one and this one has not been refused before.
///
/// # Errors
/// Those of [`unpack`](crate::unpack::unpack()); [`Refused`](crate::error::Kind::Refused) if this version is new.
pub fn unpack_announced(
    source: &dyn Source,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Unpacked> {
    unpack_if(source, target, options, progress, announce)
}

/// Refuses an image once if the target holds another one.
///
/// # Errors
/// [`Refused`](crate::error::Kind::Refused) if this version is met for the first time; or that cannot be recorded.
fn announce(target: &Target, root: &Document) -> Result<()> {
    let wanted = &root.descriptor().digest;
    let filled = target.filled_states();
    let other = |state: &TargetState| recorded_digest(state).is_none_or(|held| held != *wanted);
    let is_known = |state: &TargetState| state.announced.as_deref() == Some(wanted.to_string().as_str());
    let Some((_, state)) = filled.iter().find(|(_, state)| other(state) && !is_known(state)) else {
        return Ok(());
    };
    target.announce(&wanted.to_string())?;
    let shown = target.path().display();
    let held =
        recorded_digest(state).map_or_else(|| "another image".to_owned(), |held| format!("the image {held}"));
    Err(Error::refused(format!("there is a new version: {shown} holds {held}, and it is {wanted} now"))
        .with_hint("look at it if you like, and run the same again: the next run unpacks it"))
}
