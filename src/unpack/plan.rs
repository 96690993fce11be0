//! What is done about what a target holds already.

use super::Options;
use super::selection::Part;
use crate::error::{Error, Result};
use crate::oci::{Digest, Document, Platform};
use crate::tree::{Target, TargetState, TreePath};
use serde_json::{Map, Value};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: it is all there.
    Nothing,
    /// The image is extracted, into nothing or over what is there.
    Extract,
    /// What an interrupted run of another image made is taken away first.
    StartOver,
}

/// What a target will hold, as its record says it: the image, and the options that make a difference.
pub(super) fn content(root: &Document, options: &Options) -> Value {
    let text = |value: String| Value::String(value);
    let mut content = Map::new();
    let mut note = |name: &str, value: Value| drop(content.insert(name.to_owned(), value));
    note("digest", text(root.descriptor().digest.to_string()));
    note("platform", text(options.platform.clone().unwrap_or_else(Platform::host).to_string()));
    match &options.part {
        Part::All => {}
        Part::Subpath(path) => note("subpath", text(path.to_string())),
        Part::Strip(count) => note("strip", Value::from(*count)),
    }
    if options.as_is {
        note("asIs", Value::Bool(true));
    }
    if options.artifact {
        note("artifact", Value::Bool(true));
    }
    let tree = &options.tree;
    for (name, id) in [("uid", tree.uid), ("gid", tree.gid)] {
        if let Some(id) = id {
            note(name, Value::from(id));
        }
    }
    if !tree.maps.is_empty() {
        note("uidMap", text(tree.maps.uid.to_string()));
        note("gidMap", text(tree.maps.gid.to_string()));
    }
    if tree.group_access {
        note("groupAccess", Value::Bool(true));
    }
    if !tree.devices {
        note("devices", Value::Bool(false));
    }
    Value::Object(content)
}

/// The digest of the image in a target, as its record says it.
pub(super) fn digest(record: &TargetState) -> Option<Digest> {
    record.content.get("digest")?.as_str()?.parse().ok()
}

/// The platform of the image in a target, as its record says it.
pub(super) fn platform(record: &TargetState) -> Option<Platform> {
    record.content.get("platform")?.as_str()?.parse().ok()
}

/// Decides what is done with a target that is to hold `wanted`.
///
/// # Errors
/// [`Refused`](crate::error::Kind::Refused) when it holds something that would be mixed up with the image.
pub(super) fn plan(target: &Target, wanted: &Value, options: &Options) -> Result<Plan> {
    let (record, held) = (target.state(), target.foreign_entry()?);
    let Some(held) = held else { return Ok(Plan::Extract) };
    match record {
        Some(record) if record.complete && record.content == *wanted && !options.checksum => {
            Ok(Plan::Nothing)
        }
        Some(record) if record.content == *wanted => Ok(Plan::Extract),
        // It never was complete, and nothing else was there before: all of it is volio's.
        Some(record) if !record.complete && record.alone => Ok(Plan::StartOver),
        _ if options.merge => Ok(Plan::Extract),
        record => Err(refused(target, record.as_ref(), &held, options)),
    }
}

/// The same once what an interrupted run made was taken away.
pub(super) fn plan_anew(target: &Target, options: &Options) -> Result<()> {
    match target.foreign_entry()? {
        Some(held) if !options.merge => Err(refused(target, target.state().as_ref(), &held, options)),
        _ => Ok(()),
    }
}

/// Refuses an image once where another one is there.
///
/// # Errors
/// [`Refused`](crate::error::Kind::Refused) when this is the first time that it is met; when that cannot be noted.
pub(super) fn announce(target: &Target, root: &Document) -> Result<()> {
    let wanted = &root.descriptor().digest;
    let filled = target.filled_states();
    let other = |record: &TargetState| digest(record).is_none_or(|held| held != *wanted);
    let is_known = |record: &TargetState| record.announced.as_deref() == Some(wanted.to_string().as_str());
    let Some((_, record)) = filled.iter().find(|(_, record)| other(record) && !is_known(record)) else {
        return Ok(());
    };
    target.announce(&wanted.to_string())?;
    let shown = target.path().display();
    let held = digest(record).map_or_else(|| "another image".to_owned(), |held| format!("the image {held}"));
    Err(Error::refused(format!("there is a new version: {shown} holds {held}, and it is {wanted} now"))
        .with_hint("look at it if you like, and run the same again: the next run unpacks it"))
}

fn refused(target: &Target, record: Option<&TargetState>, held: &TreePath, options: &Options) -> Error {
    let over = match options.atomic {
        true => "replace all of it with --force",
        false => "extract over it with --merge",
    };
    let shown = target.path().display();
    let image = |record: &TargetState| match digest(record) {
        Some(digest) => format!("the image {digest}"),
        None => "another image".to_owned(),
    };
    match record {
        Some(record) if record.complete => Error::refused(format!(
            "{shown} holds {} already, or another part of it",
            image(record)
        ))
        .with_hint(
            "choose another directory; --keep is content with what is there, --merge extracts over it",
        ),
        Some(record) => Error::refused(format!(
            "{shown} is not empty: it holds {held}, and a part of {} over what was there before",
            image(record)
        ))
        .with_hint("unpack that image again to complete it, or extract over all of it with --merge"),
        None => Error::refused(format!("{shown} is not empty: it holds {held}"))
            .with_hint(format!("choose another directory, empty this one, or {over}")),
    }
}
