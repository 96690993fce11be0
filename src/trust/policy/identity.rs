//! The name that a signature must claim for an image: `signedIdentity` of containers-policy.json(5).

use super::json::Value;
use super::name::ImageName;
use crate::error::Result;
use crate::oci::Reference;
use crate::transport::Location;
use std::fmt;

/// The names that are accepted in the signature of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Any name, and also a signature without one. A policy in a file cannot ask for this.
    Any,
    /// `matchExact`: the name of the image.
    Exact,
    /// `matchRepoDigestOrExact`, the default: the name of the image; for one that is named by its digest, any name in its
    /// repository with a tag or a digest.
    RepositoryOfDigestOrExact,
    /// `matchRepository`: any name in the repository of the image.
    Repository,
    /// `exactReference`: this name, for any image.
    ExactReference(ImageName),
    /// `exactRepository`: any name in this repository, for any image.
    ExactRepository(ImageName),
    /// `remapIdentity`: as [`RepositoryOfDigestOrExact`](Self::RepositoryOfDigestOrExact) for the name of the image in
    /// which this prefix is replaced.
    Remap {
        /// A host, a namespace or a repository. An image outside of it keeps its name.
        prefix: String,
        /// The replacement.
        signed_prefix: String,
    },
}

impl Identity {
    /// Returns whether a signature that claims this name, or none, is accepted for the image at this location.
    ///
    /// An image in a layout has no name. For it only the kinds hold that do not look at its name: [`Any`](Self::Any),
    /// [`ExactReference`](Self::ExactReference) and [`ExactRepository`](Self::ExactRepository).
    pub fn accepts(&self, image: &Location, claimed: Option<&str>) -> bool {
        if *self == Self::Any {
            return true;
        }
        let claimed = claimed.and_then(|claimed| ImageName::parse(claimed).ok());
        claimed.is_some_and(|claimed| self.accepts_name(ImageName::of(image), &claimed))
    }

    /// As [`accepts`](Self::accepts), with parsed names.
    pub(super) fn accepts_name(&self, image: Option<ImageName>, claimed: &ImageName) -> bool {
        match (self, image) {
            (Self::Any, _) => true,
            (Self::ExactReference(expected), _) => is_same_image(expected, claimed),
            (Self::ExactRepository(expected), _) => expected.repository() == claimed.repository(),
            (_, None) => false,
            (Self::Exact, Some(image)) => is_same_image(&image, claimed),
            (Self::Repository, Some(image)) => image.repository() == claimed.repository(),
            (Self::RepositoryOfDigestOrExact, Some(image)) => is_same_image_or_digest(&image, claimed),
            (Self::Remap { prefix, signed_prefix }, Some(image)) => remap(image, prefix, signed_prefix)
                .is_some_and(|image| is_same_image_or_digest(&image, claimed)),
        }
    }

    /// Reads `signedIdentity`.
    pub(super) fn parse(value: &Value) -> Result<Self> {
        let mut object = value.object()?;
        let kind = object.required("type")?;
        let identity = match kind.string()?.as_str() {
            "matchExact" => Self::Exact,
            "matchRepoDigestOrExact" => Self::RepositoryOfDigestOrExact,
            "matchRepository" => Self::Repository,
            "exactReference" => {
                let value = object.required("dockerReference")?;
                let name = name(&value)?;
                if name.is_repository() {
                    return Err(value.error(format!("{name} has neither a tag nor a digest")));
                }
                Self::ExactReference(name)
            }
            "exactRepository" => Self::ExactRepository(name(&object.required("dockerRepository")?)?),
            "remapIdentity" => Self::Remap {
                prefix: prefix(&object.required("prefix")?)?,
                signed_prefix: prefix(&object.required("signedPrefix")?)?,
            },
            other => return Err(kind.error(format!("{other:?} is not a kind of identity that volio knows"))),
        };
        object.finish()?;
        Ok(identity)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any name"),
            Self::Exact => f.write_str("matchExact"),
            Self::RepositoryOfDigestOrExact => f.write_str("matchRepoDigestOrExact"),
            Self::Repository => f.write_str("matchRepository"),
            Self::ExactReference(name) => write!(f, "exactReference {name}"),
            Self::ExactRepository(name) => write!(f, "exactRepository {}", name.repository()),
            Self::Remap { prefix, signed_prefix } => write!(f, "remapIdentity {prefix} to {signed_prefix}"),
        }
    }
}

/// Returns whether two names are the same, with their tag and their digest, of which there must be one.
fn is_same_image(image: &ImageName, claimed: &ImageName) -> bool {
    !image.is_repository() && image == claimed
}

/// Returns whether the names are the same, or, for an image with a digest only, the repositories. The digest itself is
/// compared with the one in the signature, and not here.
fn is_same_image_or_digest(image: &ImageName, claimed: &ImageName) -> bool {
    if claimed.is_repository() || image.is_repository() {
        return false;
    }
    if image.is_tagged() { image == claimed } else { image.repository() == claimed.repository() }
}

/// Replaces a prefix that is a host, a namespace or the repository. A name outside of it stays as it is. `None` if the
/// result is not a complete name.
fn remap(image: ImageName, prefix: &str, signed_prefix: &str) -> Option<ImageName> {
    let matches =
        image.repository().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !matches {
        return Some(image);
    }
    let text = format!("{signed_prefix}{}", &image.to_string()[prefix.len()..]);
    ImageName::parse(&text).ok().filter(|name| name.to_string() == text)
}

fn name(value: &Value) -> Result<ImageName> {
    ImageName::parse(&value.string()?).map_err(|error| value.error(error))
}

/// Reads a host, a namespace or a repository, without a tag and a digest.
fn prefix(value: &Value) -> Result<String> {
    let text = value.string()?;
    if format!("{text}/x").parse::<Reference>().is_err() {
        return Err(value.error(format!("{text:?} is not a host, a namespace or a repository")));
    }
    Ok(text)
}
