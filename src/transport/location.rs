//! Names of images, wherever they are, in skopeo's spelling.

use super::docker_archive::{DockerArchive, DockerArchiveWriter};
use super::oci_archive::{OciArchive, OciArchiveWriter};
use super::{Destination, Source, Transfer, layout::Layout, registry::Registry};
use crate::error::{Error, Result};
use crate::oci::{Digest, Reference};
use std::fmt;
use std::path::{Path, PathBuf};
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
    /// `oci-archive:FILE[:TAG]` or `oci-archive:FILE@DIGEST`.
    OciArchive {
        /// The archive.
        file: PathBuf,
        /// The tag, where one is given.
        tag: Option<String>,
        /// The digest, where one is given.
        digest: Option<Digest>,
    },
    /// `docker-archive:FILE[:REFERENCE]` or `docker-archive:FILE@DIGEST`.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// What the image is called when it is loaded, where that is given.
        reference: Option<Reference>,
        /// The digest, where one is given.
        digest: Option<Digest>,
    },
}

/// What is needed to get at a place.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Files with credentials, the first one that knows the registry wins: docker's `config.json`.
    pub credential_files: Vec<PathBuf>,
    /// Talk plain HTTP to every registry, and not only to those on this machine's loopback.
    pub plain_http: bool,
    /// How bytes travel to and from registries.
    pub transfer: Transfer,
}

impl Location {
    /// Opens the place for reading.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn source(&self, access: &Access) -> Result<Box<dyn Source>> {
        Ok(match self {
            Self::Registry(reference) => Box::new(Registry::new(reference.clone(), access)?),
            Self::Layout { directory, tag, digest } => {
                Box::new(Layout::open(directory, tag.as_deref(), digest.clone())?)
            }
            Self::OciArchive { file, tag, digest } => {
                Box::new(OciArchive::open(file, tag.as_deref(), digest.clone())?)
            }
            Self::DockerArchive { file, reference, digest } => {
                Box::new(DockerArchive::open(file, reference.as_ref(), digest.as_ref())?)
            }
        })
    }

    /// Opens the place for writing; a layout or an archive is created where there is none.
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
            Self::OciArchive { file, tag, .. } => Box::new(OciArchiveWriter::create(file, tag.as_deref())?),
            Self::DockerArchive { file, reference, .. } => {
                Box::new(DockerArchiveWriter::create(file, reference.as_ref())?)
            }
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
            Self::OciArchive { .. } | Self::DockerArchive { .. } => {
                return Err(Error::usage(format!("cannot remove {self}: archives are only added to"))
                    .hint("copy the images that shall stay into another archive"));
            }
        })
    }

    /// Whether this names a place with all its images, and not one of them by its tag or its digest.
    pub fn is_repository(&self) -> bool {
        match self {
            Self::Registry(reference) => reference.is_repository(),
            Self::Layout { tag, digest, .. } | Self::OciArchive { tag, digest, .. } => {
                tag.is_none() && digest.is_none()
            }
            Self::DockerArchive { reference, digest, .. } => reference.is_none() && digest.is_none(),
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
            Self::OciArchive { file, .. } if is_ref_name(tag) => {
                Ok(Self::OciArchive { file: file.clone(), tag: Some(tag.to_owned()), digest: None })
            }
            Self::Layout { .. } | Self::OciArchive { .. } => {
                Err(Error::usage(format!("{tag:?} cannot be a tag in a layout")))
            }
            Self::DockerArchive { file, .. } => {
                Ok(Self::DockerArchive { file: file.clone(), reference: Some(tag.parse()?), digest: None })
            }
        }
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Registry(reference) => reference.digest(),
            Self::Layout { digest, .. }
            | Self::OciArchive { digest, .. }
            | Self::DockerArchive { digest, .. } => digest.as_ref(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout { directory, tag, digest } => {
                show(f, "oci", directory, tag.as_ref(), digest.as_ref())
            }
            Self::OciArchive { file, tag, digest } => {
                show(f, "oci-archive", file, tag.as_ref(), digest.as_ref())
            }
            Self::DockerArchive { file, reference, digest } => {
                show(f, "docker-archive", file, reference.as_ref(), digest.as_ref())
            }
        }
    }
}

/// Writes a name as it is read.
fn show(
    f: &mut fmt::Formatter<'_>,
    scheme: &str,
    path: &Path,
    name: Option<&impl fmt::Display>,
    digest: Option<&Digest>,
) -> fmt::Result {
    write!(f, "{scheme}:{}", path.display())?;
    match (name, digest) {
        (_, Some(digest)) => write!(f, "@{digest}"),
        (Some(name), None) => write!(f, ":{name}"),
        (None, None) => Ok(()),
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("docker", rest)) if rest.starts_with("//") => Ok(Self::Registry(rest[2..].parse()?)),
            Some(("oci", rest)) => {
                let parts = Parts::of(text, rest, "oci:DIRECTORY[:TAG]")?;
                let tag = parts.tag()?;
                Ok(Self::Layout { directory: parts.path, tag, digest: parts.digest })
            }
            Some(("oci-archive", rest)) => {
                let parts = Parts::of(text, rest, "oci-archive:FILE[:TAG]")?;
                let tag = parts.tag()?;
                Ok(Self::OciArchive { file: parts.path, tag, digest: parts.digest })
            }
            Some(("docker-archive", rest)) => {
                let parts = Parts::of(text, rest, "docker-archive:FILE[:HOST/REPOSITORY:TAG]")?;
                let reference = parts.reference()?;
                Ok(Self::DockerArchive { file: parts.path, reference, digest: parts.digest })
            }
            Some((scheme @ ("docker-daemon" | "containers-storage" | "dir"), _)) => {
                Err(Error::usage(format!("{text:?}: volio does not read or write {scheme}:")).hint(
                    "use a registry (HOST/REPOSITORY:TAG), a layout (oci:DIRECTORY:TAG) or an archive \
                     (oci-archive:FILE:TAG)",
                ))
            }
            _ => Ok(Self::Registry(text.parse()?)),
        }
    }
}

/// What follows the name of a transport: `PATH[:NAME][@DIGEST]`.
struct Parts<'a> {
    text: &'a str,
    /// How it is written.
    form: &'static str,
    path: PathBuf,
    name: Option<&'a str>,
    digest: Option<Digest>,
}

impl<'a> Parts<'a> {
    /// Takes a location apart; a digest says more than a name. As with skopeo, the first colon ends the path.
    fn of(text: &'a str, rest: &'a str, form: &'static str) -> Result<Self> {
        let parts = Self { text, form, path: PathBuf::new(), name: None, digest: None };
        // Paths may have an `@` in their names too: only what begins like a digest is one.
        let is_digest = |text: &str| text.starts_with("sha256:") || text.starts_with("sha512:");
        let (place, digest) = match rest.rsplit_once('@').filter(|(_, digest)| is_digest(digest)) {
            Some((place, digest)) => {
                (place, Some(digest.parse().map_err(|error: Error| parts.invalid(&error.to_string()))?))
            }
            None => (rest, None),
        };
        let (path, name) = match place.split_once(':') {
            Some((path, name)) => (path, Some(name)),
            None => (place, None),
        };
        match path.is_empty() {
            true => Err(parts.invalid("it has no path")),
            false => Ok(Self { path: path.into(), name, digest, ..parts }),
        }
    }

    /// The name as a tag in a layout.
    fn tag(&self) -> Result<Option<String>> {
        match self.name {
            Some(tag) if !is_ref_name(tag) => Err(self.invalid(&format!("{tag:?} is not a tag"))),
            tag => Ok(tag.map(str::to_owned)),
        }
    }

    /// The name as one that images have in an engine.
    fn reference(&self) -> Result<Option<Reference>> {
        let reference = self.name.map(str::parse).transpose();
        reference.map_err(|error: Error| self.invalid(&error.to_string()))
    }

    fn invalid(&self, why: &str) -> Error {
        Error::usage(format!("{:?} is not the name of an image: {why}", self.text))
            .hint(format!("write {}", self.form))
    }
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
        for text in
            ["oci-archive:a.tar", "oci-archive:/a/b.tar:v1", "docker-archive:a.tar:host:5000/repo:tag"]
        {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        for scheme in ["oci", "oci-archive", "docker-archive"] {
            let text = format!("{scheme}:dir@{digest}");
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        let short: Location = "docker-archive:a.tar:repo".parse().unwrap();
        assert_eq!(short.to_string(), "docker-archive:a.tar:docker.io/library/repo:latest");
        for text in ["oci:me@share:v1", &format!("oci:a@b@{digest}"), "oci:a@b"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        assert_eq!("docker://h.io/a".parse::<Location>().unwrap().to_string(), "h.io/a:latest");
    }

    #[test]
    fn what_is_no_location_is_a_usage_error() {
        for text in [
            "oci:",
            "oci::tag",
            "oci:dir:",
            "oci:dir:a b",
            "oci:dir@sha256:1",
            "dir:/x",
            "docker://",
            "oci-archive:",
            "oci-archive:a.tar:",
            "docker-archive::a",
            "docker-archive:a.tar:A B",
        ] {
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
