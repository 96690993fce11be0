//! `registries.conf`, version 2, of podman, skopeo and CRI-O (containers-registries.conf(5)): mirrors, moved registries,
//! and registries that are insecure or blocked.
//!
//! Mirrors and locations apply to reading only. Images are written to the registry in their name.

use crate::error::{Error, Result};
use crate::oci::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The entries of all files, by prefix.
#[derive(Default)]
pub(super) struct RegistriesConf(BTreeMap<String, RegistryEntry>);

/// A location that an image can be read from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageLocation {
    pub(super) reference: Reference,
    /// Accept any certificate there.
    pub(super) is_insecure: bool,
}

#[derive(Default, Deserialize)]
struct ConfFile {
    #[serde(default, rename = "registry")]
    registries: Vec<RegistryEntry>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct RegistryEntry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    #[serde(rename = "mirror")]
    mirrors: Vec<MirrorEntry>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFromMirror,
}

/// The images that are read from a mirror.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

impl RegistriesConf {
    /// Reads files. Of two entries with one prefix, that of the later file counts.
    ///
    /// # Errors
    /// When a file cannot be read or parsed. Going on without it could contact a registry that it blocks.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for path in files {
            let text = fs::read_to_string(path)
                .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
            let file: ConfFile = toml::from_str(&text).map_err(|error| {
                Error::failed(format!("cannot understand {}", path.display()))
                    .with_source(error.message().to_owned())
            })?;
            for mut entry in file.registries {
                if entry.prefix.is_empty() {
                    entry.prefix.clone_from(&entry.location);
                }
                entries.insert(entry.prefix.clone(), entry);
            }
        }
        entries.remove("");
        Ok(Self(entries))
    }

    /// Returns whether any certificate is accepted of a registry or a repository.
    ///
    /// # Errors
    /// [`Denied`](crate::error::Kind::Denied) when it is blocked.
    pub(super) fn is_insecure(&self, name: &str) -> Result<bool> {
        match self.entry(name) {
            Some((entry, _)) if entry.blocked => {
                Err(Error::denied(format!("{} is blocked by registries.conf", entry.prefix)))
            }
            entry => Ok(entry.is_some_and(|(entry, _)| entry.insecure)),
        }
    }

    /// Returns the locations to read an image from, in order: the mirrors, and last the registry itself.
    ///
    /// # Errors
    /// As [`is_insecure`](Self::is_insecure), and when a location is invalid.
    pub(super) fn locations(&self, reference: &Reference) -> Result<Vec<ImageLocation>> {
        let is_insecure = self.is_insecure(&reference.name())?;
        let Some((entry, matched)) = self.entry(&reference.name()) else {
            return Ok(vec![ImageLocation { reference: reference.clone(), is_insecure }]);
        };
        let by_digest = reference.digest().is_some();
        let mut locations = Vec::new();
        for mirror in &entry.mirrors {
            let applies = match mirror.pull_from_mirror {
                PullFromMirror::All => by_digest || !entry.mirror_by_digest_only,
                PullFromMirror::DigestOnly => by_digest,
                PullFromMirror::TagOnly => !by_digest,
            };
            if applies {
                let reference = relocate(reference, matched, &mirror.location)?;
                locations.push(ImageLocation { reference, is_insecure: mirror.insecure });
            }
        }
        let reference = if entry.location.is_empty() {
            reference.clone()
        } else {
            relocate(reference, matched, &entry.location)?
        };
        locations.push(ImageLocation { reference, is_insecure });
        Ok(locations)
    }

    /// Returns the entry with the longest prefix of a name, and the number of bytes that it matches.
    fn entry(&self, name: &str) -> Option<(&RegistryEntry, usize)> {
        let matching = self.0.values().filter_map(|entry| Some((entry, match_prefix(&entry.prefix, name)?)));
        matching.max_by_key(|(entry, _)| entry.prefix.len())
    }
}

/// Returns how many bytes of `host/repository` a prefix matches. A match ends at a slash or at the end.
fn match_prefix(prefix: &str, name: &str) -> Option<usize> {
    // `*.example.com` matches any host below the domain, with any repository.
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or_default();
        return (host.ends_with(domain) && host.len() > domain.len()).then_some(host.len());
    }
    let is_match = name.starts_with(prefix) && matches!(name.as_bytes().get(prefix.len()), None | Some(b'/'));
    is_match.then_some(prefix.len())
}

/// Replaces the first `matched` bytes of an image's name by a location.
fn relocate(reference: &Reference, matched: usize, location: &str) -> Result<Reference> {
    let name = reference.name();
    let mut text = format!("{location}{}", &name[matched..]);
    if let Some(tag) = reference.tag() {
        text += &format!(":{tag}");
    }
    if let Some(digest) = reference.digest() {
        text += &format!("@{digest}");
    }
    text.parse().map_err(|_| {
        Error::failed(format!(
            "{text:?}, where registries.conf says that {name} is, is not the name of an image"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"
[aliases]
"a" = "b.io/a"
[[registry]]
prefix = "r.io"
location = "cache.io/r"
insecure = true
[[registry.mirror]]
location = "m1.io:5000/mirror"
insecure = true
[[registry.mirror]]
location = "m2.io"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "r.io/team"
blocked = true
[[registry]]
prefix = "*.example.com"
location = "inside.io/x"
[[registry]]
location = "plain.io"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m3.io"
"#;

    fn conf(texts: &[&str]) -> Result<RegistriesConf> {
        let directory = tempfile::tempdir().unwrap();
        let files = texts.iter().enumerate().map(|(number, text)| {
            let file = directory.path().join(number.to_string());
            fs::write(&file, text).unwrap();
            file
        });
        RegistriesConf::read(&files.collect::<Vec<_>>())
    }

    fn locations(conf: &RegistriesConf, reference: &str) -> Vec<String> {
        let locations = conf.locations(&reference.parse().unwrap()).unwrap();
        let mark = |location: ImageLocation| {
            format!("{}{}", location.reference, if location.is_insecure { "!" } else { "" })
        };
        locations.into_iter().map(mark).collect()
    }

    #[test]
    fn an_image_is_read_from_mirrors_first() {
        let conf = conf(&[CONF]).unwrap();
        let digest = format!("sha256:{}", "b".repeat(64));
        assert_eq!(locations(&conf, "r.io/a/b:1"), ["m1.io:5000/mirror/a/b:1!", "cache.io/r/a/b:1!"]);
        let [first, second, itself] =
            ["m1.io:5000/mirror/a", "m2.io/a", "cache.io/r/a"].map(|name| format!("{name}@{digest}"));
        assert_eq!(locations(&conf, &format!("r.io/a@{digest}")), [first + "!", second, itself + "!"]);
        assert_eq!(locations(&conf, "r.iox/a:1"), ["r.iox/a:1"]);
        assert_eq!(locations(&conf, "a.example.com/b:1"), ["inside.io/x/b:1"]);
        assert_eq!(locations(&conf, "example.com/b:1"), ["example.com/b:1"]);
        assert_eq!(locations(&conf, "plain.io/b:1"), ["plain.io/b:1"]);
        assert_eq!(locations(&conf, &format!("plain.io/b@{digest}")).len(), 2);
    }

    #[test]
    fn the_longest_prefix_decides_and_may_block() {
        let conf = conf(&[CONF]).unwrap();
        let error = conf.locations(&"r.io/team/a:1".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Denied);
        assert!(error.to_string().contains("r.io/team"), "{error}");
        assert_eq!(locations(&conf, "r.io/teams/a:1").len(), 2);
    }

    #[test]
    fn a_later_file_replaces_an_entry_and_a_broken_one_is_named() {
        let later = "[[registry]]\nprefix = \"r.io\"\n[[registry]]\nprefix = \"r.io/team\"";
        let both = conf(&[CONF, later]).unwrap();
        assert_eq!(locations(&both, "r.io/a:1"), ["r.io/a:1"]);
        assert_eq!(locations(&both, "r.io/team/a:1"), ["r.io/team/a:1"]);
        for broken in [
            "[[registry]]\nlocation = 1",
            "[[",
            "[[registry]]\n[[registry.mirror]]\npull-from-mirror = \"x\"",
        ] {
            assert!(conf(&[broken]).is_err(), "{broken}");
        }
    }
}
