//! The action for a target that is not empty.

use super::{IfPresent, Options, PathFilter, ReadAs, WriteMode};
use crate::error::{Error, Result};
use crate::oci::{Digest, Document, Platform};
use crate::tree::{Target, TargetState, TreePath};
use serde_json::{Map, Value};

/// The key in the content of a target that a sync is changing. No wanted content has it.
pub(super) const SYNC_IN_PROGRESS: &str = "syncing";

/// The action for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TargetAction {
    /// Do nothing: the image is there.
    Skip,
    /// Extract the image, into an empty target or over its contents.
    Extract,
    /// Remove what an interrupted run of another image has made, then extract.
    RemoveInterrupted,
}

/// Returns the description of the target's content for its state: the image, and the options that affect the files.
pub(super) fn state_content(root: &Document, options: &Options) -> Value {
    let text = |value: String| Value::String(value);
    let mut content = Map::new();
    let mut note = |name: &str, value: Value| drop(content.insert(name.to_owned(), value));
    note("digest", text(root.descriptor().digest.to_string()));
    note("platform", text(options.platform.clone().unwrap_or_else(Platform::host).to_string()));
    match &options.filter {
        PathFilter::All => {}
        PathFilter::Subpath(path) => note("subpath", text(path.to_string())),
        PathFilter::Strip(count) => note("strip", Value::from(*count)),
    }
    match options.read_as {
        ReadAs::Image { as_is: false, .. } => {}
        ReadAs::Image { as_is: true, .. } => note("asIs", Value::Bool(true)),
        ReadAs::Artifact => note("artifact", Value::Bool(true)),
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

/// Returns the digest of the image in a target, from its state.
pub(crate) fn digest(state: &TargetState) -> Option<Digest> {
    state.content.get("digest")?.as_str()?.parse().ok()
}

/// Returns the platform of the image in a target, from its state.
pub(super) fn platform(state: &TargetState) -> Option<Platform> {
    state.content.get("platform")?.as_str()?.parse().ok()
}

/// Returns the action for a target that will hold `wanted`.
///
/// # Errors
///
/// [`Refused`](crate::error::Kind::Refused) if it holds entries that would be mixed with those of the image.
pub(super) fn action(target: &Target, wanted: &Value, options: &Options) -> Result<TargetAction> {
    let (state, held) = (target.state(), target.foreign_entry()?);
    let Some(held) = held else { return Ok(TargetAction::Extract) };
    match state {
        Some(state)
            if state.complete && state.content == *wanted && options.if_present != IfPresent::Rewrite =>
        {
            Ok(TargetAction::Skip)
        }
        Some(state) if state.content == *wanted => Ok(TargetAction::Extract),
        // The run was not completed, and the target was empty before: all entries are from volio.
        Some(state) if !state.complete && state.was_empty => Ok(TargetAction::RemoveInterrupted),
        _ if is_merge(options) => Ok(TargetAction::Extract),
        state => Err(refused(target, state.as_ref(), &held, options)),
    }
}

/// Returns an error if the target holds entries after the removal.
pub(super) fn ensure_empty(target: &Target, options: &Options) -> Result<()> {
    match target.foreign_entry()? {
        Some(held) if !is_merge(options) => Err(refused(target, target.state().as_ref(), &held, options)),
        _ => Ok(()),
    }
}

fn is_merge(options: &Options) -> bool {
    matches!(options.write, WriteMode::Merge { .. })
}

fn refused(target: &Target, state: Option<&TargetState>, held: &TreePath, options: &Options) -> Error {
    let over = match options.write {
        WriteMode::Atomic { .. } => "replace all of it with --force",
        _ => "extract over it with --merge",
    };
    let shown = target.path().display();
    // Without its slash, because the path is relative to the target.
    let held = held.to_string();
    let held = held.trim_start_matches('/');
    let image = |state: &TargetState| match digest(state) {
        Some(digest) => format!("the image {digest}"),
        None => "another image".to_owned(),
    };
    match state {
        Some(state) if state.complete => Error::refused(format!(
            "{shown} holds {} already, or another part of it",
            image(state)
        ))
        .with_hint(
            "choose another directory; --keep is content with what is there, --merge extracts over it",
        ),
        Some(state) if state.content.get(SYNC_IN_PROGRESS).is_some() => Error::refused(format!(
            "{shown} is incomplete: `volio unpack --sync` was interrupted in it"
        ))
        .with_hint(
            "run it again to complete the directory; --sync removes everything that the image does not have",
        ),
        Some(state) => Error::refused(format!(
            "{shown} is not empty: it holds {held}, and a part of {} over what was there before",
            image(state)
        ))
        .with_hint("unpack that image again to complete it, or extract over all of it with --merge"),
        None => Error::refused(format!("{shown} is not empty: it holds {held}"))
            .with_hint(format!("choose another directory, empty this one, or {over}")),
    }
}
