//! What engines ask and what they are answered: Docker's volume plugin protocol, version 1.
//!
//! Docker sends no Content-Type, podman does; Docker sends `"Opts": null`, podman leaves it out; both accept an error with
//! status 500 only. Fields that nobody knows yet are passed over.

use super::volume_name::VolumeName;
use crate::error::{Error, Result, is_harmful};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the plugin is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Activate,
    Capabilities,
    List,
    Create { name: VolumeName, options: BTreeMap<String, String> },
    Get(VolumeName),
    Path(VolumeName),
    Mount { name: VolumeName, id: MountId },
    Unmount { name: VolumeName, id: MountId },
    Remove(VolumeName),
}

/// The name that an engine gives a mount. It says the same one again for `docker cp`, and podman has only one.
pub(super) type MountId = String;

/// The longest id; Docker's have 64 digits.
const ID_LIMIT: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RequestBody {
    name: Option<String>,
    #[serde(rename = "ID")]
    id: Option<String>,
    opts: Option<BTreeMap<String, String>>,
}

impl Call {
    /// The path of the call that ends a mount.
    pub(super) const UNMOUNT: &str = "/VolumeDriver.Unmount";

    /// Understands a request; `None` when there is no such call.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when the body is not what the call needs. After a lost connection Docker asks
    /// again with an empty body: that must not become a volume with an empty name, nor an answer.
    pub(super) fn parse(path: &str, body: &[u8]) -> Result<Option<Self>> {
        let asked = || {
            serde_json::from_slice::<RequestBody>(body)
                .map_err(|error| Error::usage(format!("{path}: the request cannot be understood: {error}")))
        };
        let missing = |what: &str| Error::usage(format!("{path}: the request has no {what}"));
        let named = || asked()?.name.ok_or_else(|| missing("Name"))?.parse::<VolumeName>();
        let mount = || {
            let RequestBody { name, id, .. } = asked()?;
            let id = id.filter(|id| !id.is_empty()).ok_or_else(|| missing("ID"))?;
            match id.len() <= ID_LIMIT && id.bytes().all(|b| b.is_ascii_graphic()) {
                true => Ok((name.ok_or_else(|| missing("Name"))?.parse::<VolumeName>()?, id)),
                false => Err(Error::usage(format!("{path}: the ID makes no sense"))),
            }
        };
        Ok(Some(match path {
            "/Plugin.Activate" => Self::Activate,
            "/VolumeDriver.Capabilities" => Self::Capabilities,
            "/VolumeDriver.List" => Self::List,
            "/VolumeDriver.Create" => {
                Self::Create { name: named()?, options: asked()?.opts.unwrap_or_default() }
            }
            "/VolumeDriver.Get" => Self::Get(named()?),
            "/VolumeDriver.Path" => Self::Path(named()?),
            "/VolumeDriver.Mount" => mount().map(|(name, id)| Self::Mount { name, id })?,
            Self::UNMOUNT => mount().map(|(name, id)| Self::Unmount { name, id })?,
            "/VolumeDriver.Remove" => Self::Remove(named()?),
            _ => return Ok(None),
        }))
    }
}

/// What the plugin answers. Only what was asked for is set; Go reads a missing error as none.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ResponseBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) implements: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) volume: Option<VolumeInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) volumes: Option<Vec<VolumeInfo>>,
    /// Never empty: Docker would give the container a directory of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mountpoint: Option<PathBuf>,
    pub(super) err: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Capabilities {
    pub(super) scope: &'static str,
}

/// A volume as engines show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VolumeInfo {
    pub(super) name: String,
    pub(super) mountpoint: PathBuf,
    /// Left out rather than empty: Go fails on a time that is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Value>,
}

impl ResponseBody {
    pub(super) fn activated() -> Self {
        Self { implements: Some(["VolumeDriver"]), ..Self::default() }
    }

    /// The volumes are this machine's: with `global` a swarm would take those of all machines for one.
    pub(super) fn capabilities() -> Self {
        Self { capabilities: Some(Capabilities { scope: "local" }), ..Self::default() }
    }

    pub(super) fn mounted(mountpoint: PathBuf) -> Self {
        Self { mountpoint: Some(mountpoint), ..Self::default() }
    }

    /// An error as the user of an engine reads it. Docker shows it as it is, and words of a registry or of an image may be
    /// in it; a hook's lines stay lines.
    pub(super) fn failed(error: &Error) -> Self {
        let text = match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        let err = text.chars().fold(String::with_capacity(text.len()), |mut clean, c| {
            match is_harmful(c) && !matches!(c, '\n' | '\t') {
                true => clean.extend(c.escape_default()),
                false => clean.push(c),
            }
            clean
        });
        Self { err, ..Self::default() }
    }
}
