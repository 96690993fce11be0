//! References, the names of images in a registry: `host/repository:tag@digest` (distribution-spec, "Pulling manifests").

use super::Digest;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The registry of a name without a host, as in every other tool.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest tag that the specification allows.
const TAG_LIMIT: usize = 128;
/// The longest name, host and repository together, that registries and clients accept.
const NAME_LIMIT: usize = 255;

/// The name of an image in a registry: the registry, the repository, and a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns whether a name begins with the host of a registry. Names in the registry of Docker may omit it.
    pub fn names_registry(text: &str) -> bool {
        text.split_once('/').is_some_and(|(first, _)| is_registry(first))
    }

    /// Returns the host name of the registry, with the port if there is one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the name of the repository in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag. Without a tag and a digest it is `latest`.
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// Returns the digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns whether there is neither a tag nor a digest, so that the name is that of a repository.
    pub fn is_repository(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Returns a reference to another tag of the repository.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the tag is invalid.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::usage(format!("{tag:?} cannot be a tag in {}", self.name())));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Returns the registry and the repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Error::usage(format!("{text:?} is not a reference to an image: {why}"))
                .with_hint("write HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], or oci:DIRECTORY[:TAG]")
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|error| invalid(&format!("{error}")))?))
            }
            None => (text, None),
        };
        let (registry, rest) = split_registry(name);
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !is_host(registry) {
            return Err(invalid(&format!("{registry:?} is not a host name with an optional port")));
        }
        if !is_repository(repository) {
            return Err(invalid(
                "a repository is words of lower-case letters and digits, joined by '/', '.', '_', '__' or '-'",
            ));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(invalid(&format!("{tag:?} is not a tag")));
        }
        let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
        // The limit is for the complete name, because that is printed and must be parsed again.
        if registry.len() + 1 + repository.len() > NAME_LIMIT {
            return Err(invalid(&format!("the name is longer than {NAME_LIMIT} bytes")));
        }
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

/// Returns whether the first component of a name is a registry (Docker's rule).
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// Splits off the registry, if the first component is one.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => match first {
            "index.docker.io" | "registry-1.docker.io" => (DEFAULT_REGISTRY, rest),
            host => (host, rest),
        },
        _ => (DEFAULT_REGISTRY, name),
    }
}

/// Returns whether this is a host name, an IPv4 address or a bracketed IPv6 address, with an optional port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", port.strip_prefix(':').or(port.is_empty().then_some("0")))
        }
        Some(None) => return false,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("0")),
        },
    };
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.ends_with(|c: char| c.is_ascii_alphanumeric())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(word)
        && port.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// Returns whether this matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
fn is_repository(text: &str) -> bool {
    text.split('/').all(|component| {
        let mut separator = String::new();
        let mut after_word = false;
        for c in component.chars() {
            match c {
                'a'..='z' | '0'..='9' => {
                    let joins = matches!(separator.as_str(), "" | "." | "_" | "__")
                        || separator.bytes().all(|b| b == b'-');
                    if !joins {
                        return false;
                    }
                    separator.clear();
                    after_word = true;
                }
                '.' | '_' | '-' if after_word => separator.push(c),
                _ => return false,
            }
        }
        after_word && separator.is_empty()
    })
}

/// Returns whether this matches `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(crate) fn is_tag(text: &str) -> bool {
    (1..=TAG_LIMIT).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_in_every_other_tool() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("me/data:1", "docker.io/me/data:1".to_owned()),
            ("index.docker.io/me/data", "docker.io/me/data:latest".to_owned()),
            ("localhost/data", "localhost/data:latest".to_owned()),
            ("localhost:5000/a/b__c/d-e.f:V1.0_x", "localhost:5000/a/b__c/d-e.f:V1.0_x".to_owned()),
            ("[::1]:5000/data:x", "[::1]:5000/data:x".to_owned()),
            ("[::1]/data:x", "[::1]/data:x".to_owned()),
            (&format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
            (&format!("ghcr.io/a/b:t@{digest}"), format!("ghcr.io/a/b:t@{digest}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(full.parse::<Reference>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn invalid_references_are_refused() {
        for text in [
            "",
            ":",
            "a b",
            "UPPER/x",
            "localhost:5000/",
            "localhost:5000/a:",
            "h.io/a//b",
            "h.io/a_-b",
            "h.io/a___b",
            "h.io/-a",
            "h.io/a-",
            "h.io/a:.t",
            "h.io/a@sha256:12",
            "h.io:99999/a",
            "h.io:x/a",
            "[::1/a",
            "[zz]:1/a",
            "h..io/a",
            "../a",
            "h.io/../a",
            "h.io/a:t\n",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!(format!("h.io/{}", "a".repeat(251)).parse::<Reference>().is_err());
        assert!(format!("h.io/a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn the_complete_name_must_not_be_too_long() {
        let longest = "a".repeat(NAME_LIMIT - "docker.io/library/".len());
        let reference: Reference = longest.parse().unwrap();
        assert_eq!(reference.to_string().parse::<Reference>().unwrap().to_string(), reference.to_string());
        assert!(format!("{longest}a").parse::<Reference>().is_err());
    }
}
