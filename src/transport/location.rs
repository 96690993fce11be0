//! Names of images, wherever they are, in skopeo's spelling.

use super::{Access, Destination, Source, layout::Layout, registry::Registry};
use crate::error::{Error, Result};
use crate::oci::{Digest, Reference};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an image is or shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `host/repository:tag` or `docker://…`.
    Registry(Reference),
    /// `oci:DIRECTORY[:TAG]` or `oci:DIRECTORY@DIGEST`.
    Layout {
        /// The directory of the layout.
        directory: PathBuf,
        /// The tag, where one is given.
        tag: Option<String>,
        /// The digest, where one is given.
        digest: Option<Digest>,
    },
}

impl Location {
    /// Opens the place for reading.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn source(&self, access: &Access) -> Result<Box<dyn Source>> {
        Ok(match self {
            Self::Registry(reference) => Registry::source(reference, access)?,
            Self::Layout { directory, tag, digest } => {
                Box::new(Layout::open(directory, tag.as_deref(), digest.clone())?)
            }
        })
    }

    /// Opens the place for writing; a layout is created where there is none.
    ///
    /// # Errors
    /// When the place cannot be written, or its name is a digest: an image gets its digest by what it is.
    pub fn destination(&self, access: &Access) -> Result<Box<dyn Destination>> {
        if self.digest().is_some() {
            return Err(Error::usage(format!("cannot write to {self}: a digest is no name to write to"))
                .hint("name a tag; the digest is printed when the image is there"));
        }
        Ok(match self {
            Self::Registry(reference) => Box::new(Registry::new(reference.clone(), access)?),
            Self::Layout { directory, tag, .. } => Box::new(Layout::create(directory, tag.as_deref())?),
        })
    }

    /// Opens the place for taking an image away: it must be there, and a digest is as good a name as a tag.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn removal(&self, access: &Access) -> Result<Box<dyn Destination>> {
        Ok(match self {
            Self::Registry(reference) => Box::new(Registry::new(reference.clone(), access)?),
            Self::Layout { directory, tag, digest } => {
                Box::new(Layout::open(directory, tag.as_deref(), digest.clone())?)
            }
        })
    }

    /// Whether this names a place with all its images, and not one of them by its tag or its digest.
    pub fn is_repository(&self) -> bool {
        match self {
            Self::Registry(reference) => reference.is_repository(),
            Self::Layout { tag, digest, .. } => tag.is_none() && digest.is_none(),
        }
    }

    /// The image with this tag in the same place.
    ///
    /// # Errors
    /// When the place cannot have such a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        match self {
            Self::Registry(reference) => reference.with_tag(tag).map(Self::Registry),
            Self::Layout { directory, .. } if is_ref_name(tag) => {
                Ok(Self::Layout { directory: directory.clone(), tag: Some(tag.to_owned()), digest: None })
            }
            Self::Layout { .. } => Err(Error::usage(format!("{tag:?} cannot be a tag in a layout"))),
        }
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Registry(reference) => reference.digest(),
            Self::Layout { digest, .. } => digest.as_ref(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout { directory, tag, digest } => {
                write!(f, "oci:{}", directory.display())?;
                match (tag, digest) {
                    (_, Some(digest)) => write!(f, "@{digest}"),
                    (Some(tag), None) => write!(f, ":{tag}"),
                    (None, None) => Ok(()),
                }
            }
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("docker", rest)) if rest.starts_with("//") => Ok(Self::Registry(rest[2..].parse()?)),
            Some(("oci", rest)) => layout(text, rest),
            Some((
                scheme @ ("oci-archive" | "docker-archive" | "docker-daemon" | "containers-storage" | "dir"),
                _,
            )) => Err(Error::usage(format!("{text:?}: volio does not read or write {scheme}: yet"))
                .hint("use a registry (HOST/REPOSITORY:TAG) or an image layout (oci:DIRECTORY:TAG)")),
            _ => Ok(Self::Registry(text.parse()?)),
        }
    }
}

/// `DIRECTORY[:TAG][@DIGEST]`; a digest says more than a tag. As with skopeo, the first colon ends the directory.
fn layout(text: &str, rest: &str) -> Result<Location> {
    let invalid = |why: &str| {
        Error::usage(format!("{text:?} is not the name of an image layout: {why}"))
            .hint("write oci:DIRECTORY[:TAG]")
    };
    // Directories may have an `@` in their names too: only what begins like a digest is one.
    let is_digest = |text: &str| text.starts_with("sha256:") || text.starts_with("sha512:");
    let (place, digest) = match rest.rsplit_once('@').filter(|(_, digest)| is_digest(digest)) {
        Some((place, digest)) => (place, Some(digest.parse().map_err(|error| invalid(&format!("{error}")))?)),
        None => (rest, None),
    };
    let (directory, tag) = match place.split_once(':') {
        Some((directory, tag)) => (directory, Some(tag)),
        None => (place, None),
    };
    if directory.is_empty() {
        return Err(invalid("it names no directory"));
    }
    if let Some(tag) = tag
        && !is_ref_name(tag)
    {
        return Err(invalid(&format!("{tag:?} is not a tag")));
    }
    Ok(Location::Layout { directory: directory.into(), tag: tag.map(str::to_owned), digest })
}

/// image-spec, "Annotations", `org.opencontainers.image.ref.name`: words joined by one of `-._:@/+` or by `--`.
fn is_ref_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:@/+".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_print_as_they_are_written() {
        let digest = format!("sha256:{}", "b".repeat(64));
        for text in ["oci:dir", "oci:/a/b:v1", "oci:dir:host.io/repo:tag", "localhost:5000/x:1"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        let text = format!("oci:dir@{digest}");
        assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        for text in ["oci:me@share:v1", &format!("oci:a@b@{digest}"), "oci:a@b"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        assert_eq!("docker://h.io/a".parse::<Location>().unwrap().to_string(), "h.io/a:latest");
    }

    #[test]
    fn what_is_no_location_is_a_usage_error() {
        for text in ["oci:", "oci::tag", "oci:dir:", "oci:dir:a b", "oci:dir@sha256:1", "dir:/x", "docker://"]
        {
            assert!(text.parse::<Location>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_place_is_told_from_an_image_in_it() {
        let location = |text: &str| text.parse::<Location>().unwrap();
        for text in ["oci:dir", "h.io/a"] {
            assert!(location(text).is_repository(), "{text}");
            let tagged = location(text).with_tag("v1").unwrap();
            assert_eq!(tagged, location(&format!("{text}:v1")));
            assert!(!tagged.is_repository());
            assert!(location(text).with_tag("a b").is_err());
        }
        assert!(location("h.io/a").with_tag("a/b").is_err(), "a layout's tag that no registry takes");
    }

    #[test]
    fn a_digest_cannot_be_written_to() {
        let text = format!("h.io/a@sha256:{}", "b".repeat(64));
        let error = text.parse::<Location>().unwrap().destination(&Access::default()).err().unwrap();
        assert_eq!(error.kind(), crate::error::Kind::Usage);
    }
}
