//! What `docker volume inspect` shows of a volume. Options are not in it, nor is anything that could hold a password.

use super::options::{Policy, Pull, Spec};
use super::record::{Moment, Record};
use super::volume::Volume;
use crate::error::Result;
use serde_json::{Map, Value, json};

/// The status of a volume as one object.
pub(super) fn status(spec: &Result<Spec>, volume: &Volume) -> Value {
    let mut status = Map::new();
    let mut put =
        |key: &str, value: Option<Value>| _ = value.map(|value| status.insert(key.to_owned(), value));
    match spec {
        Ok(spec) => {
            put("image", spec.fill.as_ref().map(|fill| fill.image.to_string().into()));
            put("pull", spec.fill.as_ref().map(|fill| pull(fill.pull).into()));
            put("policy", spec.fill.as_ref().map(|fill| policy(fill.policy).into()));
            put("export", spec.export.as_ref().map(|export| export.to_string().into()));
        }
        Err(error) => put("invalid", Some(error.to_string().into())),
    }
    put("doing", volume.doing().map(Value::from));
    match volume.record() {
        Ok(record) => {
            put("digest", record.filled.as_ref().map(|filled| filled.digest.clone().into()));
            put("lastFetch", record.filled.as_ref().map(moment));
            put("lastExport", record.exported.as_ref().map(moment));
            put("exportDue", record.export_due.then_some(true.into()));
            put("lastError", last_error(&record));
            put("mounts", Some(json!(record.mounts)));
        }
        Err(error) => put("lastError", Some(json!({ "error": error.to_string() }))),
    }
    Value::Object(status)
}

fn moment(moment: &Moment) -> Value {
    json!({ "at": moment.at, "image": moment.image, "digest": moment.digest })
}

fn last_error(record: &Record) -> Option<Value> {
    let failure = record.last_error.as_ref()?;
    Some(json!({ "at": failure.at, "doing": failure.doing, "error": failure.error }))
}

fn pull(pull: Pull) -> &'static str {
    match pull {
        Pull::Missing => "missing",
        Pull::Newer => "newer",
        Pull::Always => "always",
    }
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Once => "once",
        Policy::Replace => "replace",
    }
}
