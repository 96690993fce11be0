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

/// `DIRECTORY[:TAG]` or `DIRECTORY@DIGEST`. As with skopeo, the first colon ends the directory.
fn layout(text: &str, rest: &str) -> Result<Location> {
    let invalid = |why: &str| {
        Error::usage(format!("{text:?} is not the name of an image layout: {why}"))
            .hint("write oci:DIRECTORY[:TAG]")
    };
    let (directory, tag, digest) = match rest.split_once('@').filter(|(_, digest)| digest.starts_with("sha"))
    {
        Some((directory, digest)) => {
            (directory, None, Some(digest.parse().map_err(|error| invalid(&format!("{error}")))?))
        }
        None => match rest.split_once(':') {
            Some((directory, tag)) => (directory, Some(tag), None),
            None => (rest, None, None),
        },
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
    fn a_digest_cannot_be_written_to() {
        let text = format!("h.io/a@sha256:{}", "b".repeat(64));
        let error = text.parse::<Location>().unwrap().destination(&Access::default()).err().unwrap();
        assert_eq!(error.kind(), crate::error::Kind::Usage);
    }
}
