//! Docker's volume plugin protocol, version 1: calls and responses.
//!
//! Docker sends no Content-Type, podman does. Docker sends `"Opts": null`, podman omits it. Both accept errors with
//! status 500 only. Unknown fields are ignored.

use super::volume_name::VolumeName;
use crate::error::{Error, Result, is_harmful};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A call of the protocol.
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

/// The id that an engine gives to a mount. Docker uses it again for `docker cp`; podman has only one id.
pub(super) type MountId = String;

/// The maximum length of an id; Docker's have 64 digits.
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

    /// Parses a request. Returns `None` for an unknown call.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::error::Kind::Usage) if the body is not what the call needs. After a lost connection Docker
    /// repeats a call with an empty body, which must neither create a volume with an empty name nor be answered.
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
            if id.len() <= ID_LIMIT && id.bytes().all(|b| b.is_ascii_graphic()) {
                Ok((name.ok_or_else(|| missing("Name"))?.parse::<VolumeName>()?, id))
            } else {
                Err(Error::usage(format!("{path}: the ID makes no sense")))
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

/// The body of a response. Only the fields of its call are set; Go reads a missing error as none.
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
    /// Never empty: Docker would give the container an anonymous directory.
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
    /// Omitted if unknown: Go cannot parse an empty time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Value>,
}

impl ResponseBody {
    pub(super) fn activated() -> Self {
        Self { implements: Some(["VolumeDriver"]), ..Self::default() }
    }

    /// Volumes are local to this machine: with `global` a swarm would treat the volumes of all machines as one.
    pub(super) fn capabilities() -> Self {
        Self { capabilities: Some(Capabilities { scope: "local" }), ..Self::default() }
    }

    pub(super) fn mounted(mountpoint: PathBuf) -> Self {
        Self { mountpoint: Some(mountpoint), ..Self::default() }
    }

    /// Returns an error response. Docker shows its text unchanged, and the text may contain messages of a registry or
    /// names of an image, so control characters are escaped; line breaks in a hook's output are kept.
    pub(super) fn failed(error: &Error) -> Self {
        let text = match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        let err = text.chars().fold(String::with_capacity(text.len()), |mut clean, c| {
            if is_harmful(c) && !matches!(c, '\n' | '\t') {
                clean.extend(c.escape_default())
            } else {
                clean.push(c)
            }
            clean
        });
        Self { err, ..Self::default() }
    }
}
