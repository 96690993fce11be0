//! Platforms of images (image-spec, "Image Index", `platform`).

use super::members::{Members, Unknown};
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// An operating system and an architecture by the names of Go, such as `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// The architecture: `amd64`, `arm64`, …; empty if a program has omitted it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// The operating system: `linux`, …; empty if a program has omitted it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os: String,
    /// The variant of the architecture, such as `v7` or `v8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `os.version`, `os.features` and fields that volio does not know.
    #[serde(flatten)]
    pub extra: Unknown,
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        Ok(Self {
            architecture: members.or_default("architecture")?,
            os: members.or_default("os")?,
            variant: members.optional("variant")?,
            extra: members.rest()?,
        })
    }
}

impl Platform {
    /// Creates a platform without a variant.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Self {
        Self { os: os.into(), architecture: architecture.into(), variant: None, extra: Unknown::default() }
    }

    /// Returns the platform of this program.
    pub fn host() -> Self {
        Self::new(
            "linux",
            match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                "x86" => "386",
                "powerpc64" => "ppc64le",
                "loongarch64" => "loong64",
                other => other,
            },
        )
    }

    /// Returns whether both the operating system and the architecture are named. A platform without one of them selects no
    /// image.
    pub fn is_complete(&self) -> bool {
        !self.os.is_empty() && !self.architecture.is_empty()
    }

    /// Returns how well an image for `offered` fits this platform; `None` if it does not.
    ///
    /// Different variants exclude each other only if both sides name one.
    pub fn fit(&self, offered: &Platform) -> Option<Fit> {
        let is_same_machine = self.os == offered.os && self.architecture == offered.architecture;
        match (self.named_variant(), offered.named_variant()) {
            _ if !is_same_machine => None,
            _ if self.usual_variant() == offered.usual_variant() => Some(Fit::Exact),
            (Some(_), Some(_)) => None,
            _ => Some(Fit::OtherVariant),
        }
    }

    /// Returns whether an image for `offered` fits this platform at all.
    pub fn accepts(&self, offered: &Platform) -> bool {
        self.fit(offered).is_some()
    }

    fn named_variant(&self) -> Option<&str> {
        self.variant.as_deref().filter(|variant| !variant.is_empty())
    }

    /// Returns the variant, or the default one of the architecture as in containerd.
    fn usual_variant(&self) -> Option<&str> {
        self.named_variant().or(match self.architecture.as_str() {
            "amd64" => Some("v1"),
            "arm" => Some("v7"),
            "arm64" => Some("v8"),
            _ => None,
        })
    }
}

/// A measure of how well an image fits a platform. The least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The image is for this platform.
    Exact,
    /// The image is for another variant, and only one side names a variant.
    OtherVariant,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |word: &'_ str| if word.is_empty() { "unknown".to_owned() } else { word.to_owned() };
        write!(f, "{}/{}", word(&self.os), word(&self.architecture))?;
        match self.named_variant() {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() < 2 && parts.iter().all(word) => Ok(Self {
                variant: variant.first().map(|variant| (*variant).to_owned()),
                ..Self::new(*os, *architecture)
            }),
            _ => Err(Error::usage(format!("{text:?} is not a platform"))
                .with_hint("write OS/ARCHITECTURE[/VARIANT], for example linux/amd64 or linux/arm/v7")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_printed_as_they_are_parsed() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["linux", "linux/", "/amd64", "linux/amd64/v1/x", "Linux/amd64", ""] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_usual_variant_fits_better_than_another_one() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        for (wanted, offered, fit) in [
            ("linux/amd64", "linux/amd64", Some(Fit::Exact)),
            ("linux/amd64", "linux/amd64/v1", Some(Fit::Exact)),
            ("linux/amd64", "linux/amd64/v3", Some(Fit::OtherVariant)),
            ("linux/arm", "linux/arm/v6", Some(Fit::OtherVariant)),
            ("linux/arm", "linux/arm/v7", Some(Fit::Exact)),
            ("linux/arm64", "linux/arm64/v8", Some(Fit::Exact)),
            ("linux/amd64/v3", "linux/amd64", Some(Fit::OtherVariant)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/amd64", "windows/amd64", None),
        ] {
            assert_eq!(platform(wanted).fit(&platform(offered)), fit, "{wanted} {offered}");
        }
        assert!(Fit::Exact < Fit::OtherVariant);
    }

    #[test]
    fn a_platform_without_a_system_or_an_architecture_is_read_and_is_incomplete() {
        for json in ["{}", r#"{"architecture":"amd64"}"#, r#"{"os":"linux","architecture":""}"#] {
            let platform: Platform = serde_json::from_str(json).unwrap();
            assert!(!platform.is_complete() && !platform.accepts(&Platform::host()), "{json}");
        }
        assert_eq!(serde_json::from_str::<Platform>("{}").unwrap().to_string(), "unknown/unknown");
    }

    #[test]
    fn variants_count_only_if_both_sides_name_one() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(platform("linux/arm64").accepts(&platform("linux/arm64/v8")));
        assert!(platform("linux/arm64/v8").accepts(&platform("linux/arm64")));
        assert!(!platform("linux/arm/v6").accepts(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").accepts(&platform("linux/arm64")));
    }
}
