//! Locations: the text that names an image, in skopeo's spelling.

use super::docker_archive::{DockerArchive, DockerArchiveWriter};
use super::oci_archive::{OciArchive, OciArchiveWriter};
use super::{Access, BulkRemoval, Destination, Removal, Source, layout::Layout, registry::Registry};
use crate::error::{Error, Result};
use crate::oci::{Digest, Reference};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The location of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `host/repository:tag`, `docker://…` or `oci://host/…`.
    Registry(Reference),
    /// `oci:DIRECTORY[:TAG]` or `oci:DIRECTORY@DIGEST`.
    Layout {
        /// The directory of the layout.
        directory: PathBuf,
        /// The tag, if there is one.
        tag: Option<String>,
        /// The digest, if there is one.
        digest: Option<Digest>,
    },
    /// `oci-archive:FILE[:TAG]` or `oci-archive:FILE@DIGEST`.
    OciArchive {
        /// The archive.
        file: PathBuf,
        /// The tag, if there is one.
        tag: Option<String>,
        /// The digest, if there is one.
        digest: Option<Digest>,
    },
    /// `docker-archive:FILE[:REFERENCE]` or `docker-archive:FILE@DIGEST`.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// The name that the image gets when it is loaded, if there is one.
        reference: Option<Reference>,
        /// The digest, if there is one.
        digest: Option<Digest>,
    },
}

impl Location {
    /// Opens the location for reading. A registry is not contacted yet.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if the layout or the archive does not exist.
    pub fn source(&self, access: &Access) -> Result<Box<dyn Source>> {
        Ok(match self {
            Self::Registry(reference) => Registry::source(reference, access)?,
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

    /// Opens the location for reading, from the registry itself and not from a mirror, which may be behind it. An image that
    /// is to be replaced is read so.
    ///
    /// # Errors
    /// As [`source`](Self::source).
    pub fn source_without_mirrors(&self, access: &Access) -> Result<Box<dyn Source>> {
        match self {
            Self::Registry(reference) => Ok(Box::new(Registry::new(reference.clone(), access)?)),
            _ => self.source(access),
        }
    }

    /// Opens the location for writing. A layout or an archive that does not exist is created.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the location has a digest: the digest of an image follows from its content.
    /// [`Refused`](crate::error::Kind::Refused) if there is something else than a layout or an archive.
    pub fn destination(&self, access: &Access) -> Result<Box<dyn Destination>> {
        if self.digest().is_some() {
            return Err(Error::usage(format!("cannot write to {self}: a digest is not a name to write to"))
                .with_hint("name a tag; the digest is printed when the image is there"));
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

    /// Opens the place of an existing image for writing what is attached to it, such as signatures.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if nothing can be attached to an image there.
    pub fn attachment_destination(&self, access: &Access) -> Result<Box<dyn Destination>> {
        Ok(match self {
            Self::Registry(reference) => Box::new(Registry::new(reference.clone(), access)?),
            Self::Layout { directory, tag, .. } => Box::new(Layout::create(directory, tag.as_deref())?),
            Self::OciArchive { file, tag, .. } => Box::new(OciArchiveWriter::create(file, tag.as_deref())?),
            Self::DockerArchive { .. } => {
                return Err(Error::usage(format!("nothing can be attached to {self}"))
                    .with_hint("use an oci-archive, a layout or a registry"));
            }
        })
    }

    /// Opens the location for a removal, of a tag or, by its digest, of an image.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if the layout does not exist, [`Usage`](crate::error::Kind::Usage) for an
    /// archive.
    pub fn removal(&self, access: &Access) -> Result<Box<dyn Removal>> {
        Ok(match self {
            Self::Registry(reference) => Box::new(Registry::new(reference.clone(), access)?),
            Self::Layout { directory, tag, digest } => {
                Box::new(Layout::open(directory, tag.as_deref(), digest.clone())?)
            }
            Self::OciArchive { .. } | Self::DockerArchive { .. } => {
                return Err(Error::usage(format!("cannot remove {self}: archives are only added to"))
                    .with_hint("copy the images that shall stay into another archive"));
            }
        })
    }

    /// Opens the repository or the layout for the removal of several images, for retention.
    ///
    /// # Errors
    /// As [`removal`](Self::removal).
    pub fn bulk_removal(&self, access: &Access) -> Result<Box<dyn BulkRemoval>> {
        Ok(match self {
            Self::Registry(reference) => Box::new(Registry::new(reference.clone(), access)?),
            Self::Layout { directory, .. } => Box::new(Layout::open(directory, None, None)?),
            Self::OciArchive { .. } | Self::DockerArchive { .. } => {
                return Err(Error::usage(format!(
                    "cannot remove anything from {self}: archives are only added to"
                ))
                .with_hint("copy the images that shall stay into another archive"));
            }
        })
    }

    /// Returns the path of the layout or the archive; `None` for a registry.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Registry(_) => None,
            Self::Layout { directory: path, .. }
            | Self::OciArchive { file: path, .. }
            | Self::DockerArchive { file: path, .. } => Some(path),
        }
    }

    /// Returns the digest, if the location has one.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Registry(reference) => reference.digest(),
            Self::Layout { digest, .. }
            | Self::OciArchive { digest, .. }
            | Self::DockerArchive { digest, .. } => digest.as_ref(),
        }
    }

    /// Returns the location without a tag and a digest, as text: `host/repository` or `oci:DIRECTORY`.
    pub fn without_name(&self) -> String {
        match (self, self.path()) {
            (Self::Registry(reference), _) => reference.name(),
            (_, path) => format!("{}:{}", self.scheme(), path.unwrap_or(Path::new("")).display()),
        }
    }

    /// Returns whether the location has neither a tag nor a digest, and so names all images there.
    pub fn is_repository(&self) -> bool {
        match self {
            Self::Registry(reference) => reference.is_repository(),
            Self::Layout { tag, digest, .. } | Self::OciArchive { tag, digest, .. } => {
                tag.is_none() && digest.is_none()
            }
            Self::DockerArchive { reference, digest, .. } => reference.is_none() && digest.is_none(),
        }
    }

    /// Returns the location of the image with this tag in the same repository, layout or archive.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if such a tag is not possible there.
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

    /// Parses a location. Paths are bytes and need not be UTF-8.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the text is not a location.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let Some((scheme, rest)) = split_once(text.as_bytes(), b':') else {
            return Ok(Self::Registry(utf8(text)?.parse()?));
        };
        match scheme {
            b"docker" if rest.starts_with(b"//") => Ok(Self::Registry(utf8(text)?[9..].parse()?)),
            // The spelling of helm and flux.
            b"oci" if rest.starts_with(b"//") => match &utf8(text)?[6..] {
                name if Reference::names_registry(name) => Ok(Self::Registry(name.parse()?)),
                _ => Err(Error::usage(format!("{text:?} names no registry")).with_hint(
                    "write oci://HOST/REPOSITORY:TAG for an image in a registry, or oci:DIRECTORY:TAG for one in a \
                     layout",
                )),
            },
            b"oci" => {
                let parts = PathLocation::parse(text, rest, "oci:DIRECTORY[:TAG]")?;
                let tag = parts.tag()?;
                Ok(Self::Layout { directory: parts.path, tag, digest: parts.digest })
            }
            b"oci-archive" => {
                let parts = PathLocation::parse(text, rest, "oci-archive:FILE[:TAG]")?;
                let tag = parts.tag()?;
                Ok(Self::OciArchive { file: parts.path, tag, digest: parts.digest })
            }
            b"docker-archive" => {
                let parts = PathLocation::parse(text, rest, "docker-archive:FILE[:HOST/REPOSITORY:TAG]")?;
                let reference = parts.reference()?;
                Ok(Self::DockerArchive { file: parts.path, reference, digest: parts.digest })
            }
            b"docker-daemon" | b"containers-storage" | b"dir" => {
                let scheme = String::from_utf8_lossy(scheme);
                Err(Error::usage(format!("{text:?}: volio does not read or write {scheme}:")).with_hint(
                    "use a registry (HOST/REPOSITORY:TAG), a layout (oci:DIRECTORY:TAG) or an archive \
                     (oci-archive:FILE:TAG)",
                ))
            }
            _ => Ok(Self::Registry(utf8(text)?.parse()?)),
        }
    }

    /// Returns the name of the transport, as skopeo spells it.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Registry(_) => "docker",
            Self::Layout { .. } => "oci",
            Self::OciArchive { .. } => "oci-archive",
            Self::DockerArchive { .. } => "docker-archive",
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Registry(reference) = self {
            return reference.fmt(f);
        }
        f.write_str(&self.without_name())?;
        if let Some(digest) = self.digest() {
            return write!(f, "@{digest}");
        }
        match self {
            Self::Layout { tag: Some(tag), .. } | Self::OciArchive { tag: Some(tag), .. } => {
                write!(f, ":{tag}")
            }
            Self::DockerArchive { reference: Some(reference), .. } => write!(f, ":{reference}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(OsStr::new(text))
    }
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..position], &bytes[position + 1..]))
}

fn utf8(text: &OsStr) -> Result<&str> {
    text.to_str().ok_or_else(|| {
        Error::usage(format!("{text:?} is not a reference to an image: it is not UTF-8"))
            .with_hint("only the paths of layouts and archives may have other bytes: oci:DIRECTORY[:TAG]")
    })
}

/// The part of a location after the scheme of a layout or an archive: `PATH[:NAME][@DIGEST]`.
struct PathLocation<'a> {
    text: &'a OsStr,
    /// The syntax, for errors.
    syntax: &'static str,
    path: PathBuf,
    name: Option<&'a str>,
    digest: Option<Digest>,
}

impl<'a> PathLocation<'a> {
    /// Parses the part of `text` after the scheme. The first colon ends the path, as with skopeo.
    fn parse(text: &'a OsStr, rest: &'a [u8], syntax: &'static str) -> Result<Self> {
        let empty = Self { text, syntax, path: PathBuf::new(), name: None, digest: None };
        // Paths may contain an `@` too: only text that begins like a digest is one.
        let is_digest = |text: &str| text.starts_with("sha256:") || text.starts_with("sha512:");
        let at = rest.iter().rposition(|byte| *byte == b'@');
        let digest = at.and_then(|at| str::from_utf8(&rest[at + 1..]).ok()).filter(|text| is_digest(text));
        let (path_and_name, digest) = match (digest, at) {
            (Some(digest), Some(at)) => {
                let digest = digest.parse().map_err(|error: Error| empty.invalid(&error.to_string()))?;
                (&rest[..at], Some(digest))
            }
            _ => (rest, None),
        };
        let (path, name) = match split_once(path_and_name, b':') {
            Some((path, name)) => (path, Some(name)),
            None => (path_and_name, None),
        };
        let name = name.map(str::from_utf8).transpose().map_err(|_| empty.invalid("its tag is not UTF-8"))?;
        if path.is_empty() {
            return Err(empty.invalid("it has no path"));
        }
        Ok(Self { path: OsStr::from_bytes(path).into(), name, digest, ..empty })
    }

    /// Returns the name as a tag of a layout.
    fn tag(&self) -> Result<Option<String>> {
        match self.name {
            Some(tag) if !is_ref_name(tag) => Err(self.invalid(&format!("{tag:?} is not a tag"))),
            tag => Ok(tag.map(str::to_owned)),
        }
    }

    /// Returns the name as the name of an image in a container engine.
    fn reference(&self) -> Result<Option<Reference>> {
        let reference = self.name.map(str::parse).transpose();
        reference.map_err(|error: Error| self.invalid(&error.to_string()))
    }

    fn invalid(&self, why: &str) -> Error {
        Error::usage(format!("{:?} is not the name of an image: {why}", self.text))
            .with_hint(format!("write {}", self.syntax))
    }
}

/// Returns whether the text is a reference name (image-spec, "Annotations", `org.opencontainers.image.ref.name`): words
/// joined by one of `-._:@/+` or by `--`.
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
    fn two_slashes_after_oci_are_a_registry() {
        for text in ["oci://h.io/a:v1", "oci://localhost/a:v1", "oci://localhost:5000/team/a:v1"] {
            let location: Location = text.parse().unwrap();
            assert!(matches!(location, Location::Registry(_)), "{text}");
            assert_eq!(location.to_string(), text[6..]);
        }
        // Without a host, or with the path of a directory.
        for text in ["oci://a", "oci://team/a:v1", "oci:///h.io/a", "oci://", "oci://h.io/", "oci://h.io/A"] {
            let error = text.parse::<Location>().unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage, "{text}");
        }
        let layout: Location = "oci:/h.io/a:v1".parse().unwrap();
        assert!(matches!(layout, Location::Layout { .. }));
    }

    #[test]
    fn a_path_need_not_be_utf_8_but_a_tag_must() {
        for (scheme, tag) in [("oci:", ":v1"), ("oci-archive:", ":v1"), ("docker-archive:", ":host.io/a:v1")]
        {
            let text = [scheme.as_bytes(), b"d\xff@r", tag.as_bytes()].concat();
            let location = Location::parse(OsStr::from_bytes(&text)).unwrap();
            assert_eq!(location.path().unwrap().as_os_str().as_bytes(), b"d\xff@r");
        }
        for text in
            [&b"oci:dir:\xff"[..], b"host.io/\xff", b"docker://\xff", b"oci://host.io/\xff", b"\xff:v1"]
        {
            let error = Location::parse(OsStr::from_bytes(text)).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage, "{error}");
        }
    }

    #[test]
    fn other_texts_are_usage_errors() {
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
    fn a_location_without_a_name_is_a_repository() {
        let location = |text: &str| text.parse::<Location>().unwrap();
        for text in ["oci:dir", "h.io/a"] {
            assert!(location(text).is_repository(), "{text}");
            let tagged = location(text).with_tag("v1").unwrap();
            assert_eq!(tagged, location(&format!("{text}:v1")));
            assert!(!tagged.is_repository());
            assert_eq!(tagged.without_name(), text);
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
