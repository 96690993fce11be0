//! The image configuration (image-spec, "Image Configuration").

use super::members::{Members, Unknown, null_is_default};
use super::{Digest, Platform};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The configuration of an image: its platform, its layers by their content, and how a container is started from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageConfig {
    /// The time at which the image was created, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The platform of the image.
    #[serde(flatten)]
    pub platform: Platform,
    /// The defaults for a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ContainerConfig>,
    /// The layers by their diff_ids.
    pub rootfs: RootFs,
    /// The history of each layer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// The defaults for a container that is started from the image (image-spec, "Image Configuration", `config`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// The user of the process, `UID[:GID]`.
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
    /// Labels of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Fields that volio does not know.
    #[serde(flatten)]
    pub extra: Unknown,
}

impl<'de> Deserialize<'de> for ImageConfig {
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

impl<'de> Deserialize<'de> for ContainerConfig {
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

/// The layers by their diff_ids.
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
    /// Creates the list of layers with these diff_ids, lowest first.
    pub fn new(diff_ids: Vec<Digest>) -> Self {
        Self { kind: "layers".to_owned(), diff_ids }
    }
}

/// The history of one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// The time at which it was created, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// True if the step has not created a layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Fields that volio does not know.
    #[serde(flatten)]
    pub extra: Unknown,
}
