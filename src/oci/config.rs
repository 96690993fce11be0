//! The image configuration (image-spec, "Image Configuration").

use super::descriptor::null_is_default;
use super::members::{Members, Unknown};
use super::{Digest, Platform};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// What an image is, apart from its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// When the image was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The platform the image is for.
    #[serde(flatten)]
    pub platform: Platform,
    /// How a container is started from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Execution>,
    /// The layers by what they hold.
    pub rootfs: RootFs,
    /// How each layer came about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// How a container is started from the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// The user that the process runs as, `UID[:GID]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment variables, `NAME=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program with its first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments that `docker run` replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The directory that the process starts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Free words about the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whatever else stood there.
    #[serde(flatten)]
    pub extra: Unknown,
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        Ok(Self {
            created: members.optional("created")?,
            config: members.optional("config")?,
            rootfs: members.required("rootfs")?,
            history: members.or_default("history")?,
            platform: Platform {
                architecture: members.or_default("architecture")?,
                os: members.or_default("os")?,
                variant: members.optional("variant")?,
                extra: members.rest()?,
            },
        })
    }
}

impl<'de> Deserialize<'de> for Execution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        Ok(Self {
            user: members.optional("User")?,
            env: members.or_default("Env")?,
            entrypoint: members.or_default("Entrypoint")?,
            cmd: members.or_default("Cmd")?,
            working_dir: members.optional("WorkingDir")?,
            labels: members.or_default("Labels")?,
            extra: members.rest()?,
        })
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        Ok(Self {
            created: members.optional("created")?,
            created_by: members.optional("created_by")?,
            empty_layer: members.or_default("empty_layer")?,
            extra: members.rest()?,
        })
    }
}

/// The layers by what they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each layer's plain tar archive, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl RootFs {
    /// The layers with these diff_ids, lowest first.
    pub fn new(diff_ids: Vec<Digest>) -> Self {
        Self { kind: "layers".to_owned(), diff_ids }
    }
}

/// How one layer came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whether there is no layer for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Whatever else stood there.
    #[serde(flatten)]
    pub extra: Unknown,
}
