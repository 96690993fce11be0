//! Engines that pull and mount images, with their versions.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The version of an engine: its first three numbers.
pub(super) type Version = (u32, u32, u32);

/// The engines whose differences are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EngineName {
    Kubernetes,
    Containerd,
    Crio,
    Docker,
    Podman,
    ComposefsRs,
}

impl EngineName {
    pub(super) const ALL: [Self; 6] =
        [Self::Kubernetes, Self::Containerd, Self::Crio, Self::Docker, Self::Podman, Self::ComposefsRs];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::ComposefsRs => "composefs-rs",
        }
    }
}

/// An engine, in the form `NAME=VERSION`, such as `docker=20.10`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    pub(super) name: EngineName,
    pub(super) version: Version,
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let names = EngineName::ALL.map(EngineName::name).join(", ");
        let invalid = || {
            Error::usage(format!("{text:?} is not an engine with its version"))
                .with_hint(format!("write NAME=VERSION, such as docker=20.10; the names are {names}"))
        };
        let (name, version) = text.split_once('=').ok_or_else(invalid)?;
        let name = EngineName::ALL.into_iter().find(|known| known.name() == name).ok_or_else(invalid)?;
        let version = parse_version(version).ok_or_else(invalid)?;
        Ok(Self { name, version })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name.name(), DisplayVersion(self.version))
    }
}

/// A version as text, without a last number that is 0.
pub(super) struct DisplayVersion(pub(super) Version);

impl fmt::Display for DisplayVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            (major, minor, 0) => write!(f, "{major}.{minor}"),
            (major, minor, patch) => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

/// Parses a version such as `v1.31.2-rc.1` or `28`. Missing numbers are 0.
fn parse_version(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+', '~']).unwrap_or(text.len());
    let mut numbers = text[..end].split('.').map(str::parse::<u32>);
    let major = numbers.next()?.ok()?;
    let minor = numbers.next().unwrap_or(Ok(0)).ok()?;
    let patch = numbers.next().unwrap_or(Ok(0)).ok()?;
    Some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_has_a_known_name_and_a_version() {
        for (text, shown) in [
            ("docker=20.10.24+dfsg1", "docker 20.10.24"),
            ("kubernetes=v1.31.2-rc.1", "kubernetes 1.31.2"),
            ("docker=28", "docker 28.0"),
            ("cri-o=1.33", "cri-o 1.33"),
        ] {
            assert_eq!(text.parse::<Engine>().unwrap().to_string(), shown);
        }
        for text in ["docker", "docker=", "docker=new", "rkt=1", "=1", ""] {
            assert!(text.parse::<Engine>().is_err(), "{text}");
        }
    }
}
