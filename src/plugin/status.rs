//! The status that `docker volume inspect` shows. It has no options that could contain a password.

use super::options::{ExportMode, FillPolicy, PullPolicy, VolumeOptions};
use super::state::{ImageStamp, VolumeState};
use super::volume::Volume;
use crate::error::Result;
use serde_json::{Map, Value, json};

/// Returns the status of a volume.
pub(super) fn status(options: &Result<VolumeOptions>, volume: &Volume) -> Value {
    let mut status = Map::new();
    let mut put =
        |key: &str, value: Option<Value>| _ = value.map(|value| status.insert(key.to_owned(), value));
    match options {
        Ok(options) => {
            put("image", options.fill.as_ref().map(|fill| fill.image.to_string().into()));
            put("pull", options.fill.as_ref().map(|fill| pull(fill.pull).into()));
            put("policy", options.fill.as_ref().map(|fill| policy(fill.policy).into()));
            put("export", options.export.as_ref().map(|export| export.image.to_string().into()));
            put("exportMode", options.export.as_ref().map(|export| export_mode(export.mode).into()));
        }
        Err(error) => put("invalid", Some(error.to_string().into())),
    }
    put("doing", volume.activity().map(Value::from));
    match volume.state() {
        Ok(state) => {
            put("digest", state.filled.as_ref().map(|filled| filled.digest.clone().into()));
            put("lastFetch", state.filled.as_ref().map(moment));
            put("partlySynced", state.is_partly_synced().then_some(true.into()));
            put("lastExport", state.exported.as_ref().map(moment));
            put("exportDue", state.export_due.then_some(true.into()));
            put("lastError", last_error(&state));
            put("mounts", Some(json!(state.mounts)));
        }
        Err(error) => put("lastError", Some(json!({ "error": error.to_string() }))),
    }
    Value::Object(status)
}

fn moment(moment: &ImageStamp) -> Value {
    json!({ "at": moment.at, "image": moment.image, "digest": moment.digest })
}

fn last_error(state: &VolumeState) -> Option<Value> {
    let failure = state.last_error.as_ref()?;
    Some(json!({ "at": failure.at, "doing": failure.doing, "error": failure.error }))
}

fn pull(pull: PullPolicy) -> &'static str {
    match pull {
        PullPolicy::Missing => "missing",
        PullPolicy::Newer => "newer",
        PullPolicy::Always => "always",
    }
}

fn export_mode(mode: ExportMode) -> &'static str {
    match mode {
        ExportMode::Full => "full",
        ExportMode::Incremental => "incremental",
    }
}

fn policy(policy: FillPolicy) -> &'static str {
    match policy {
        FillPolicy::Once => "once",
        FillPolicy::Replace => "replace",
        FillPolicy::Sync => "sync",
    }
}
