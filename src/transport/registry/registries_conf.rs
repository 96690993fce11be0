//! `registries.conf`, version 2, of podman, skopeo and CRI-O (containers-registries.conf(5)): where an image is really
//! to be had. It says so for reading only; what is written goes to the registry that was named.

use crate::error::{Error, Result};
use crate::oci::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// What the files say, by prefix.
#[derive(Default)]
pub(super) struct RegistriesConf(BTreeMap<String, Entry>);

/// A place to read an image from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) reference: Reference,
    /// Whether whoever answers there is trusted.
    pub(super) anybody: bool,
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default, rename = "registry")]
    registries: Vec<Entry>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    #[serde(rename = "mirror")]
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Pull,
}

/// Which images are read from a mirror.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Pull {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

impl RegistriesConf {
    /// Reads files; of two entries for one prefix, that of the later file counts.
    ///
    /// # Errors
    /// When one cannot be read or understood: going on without it could leave a network by a way that it forbids.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for path in files {
            let text = fs::read_to_string(path)
                .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
            let file: File = toml::from_str(&text).map_err(|error| {
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

    /// Whether whoever answers at a registry, or for a repository that was named, is trusted.
    ///
    /// # Errors
    /// [`Denied`](crate::error::Kind::Denied) when it must not be spoken to.
    pub(super) fn trusts_anybody(&self, name: &str) -> Result<bool> {
        match self.entry(name) {
            Some((entry, _)) if entry.blocked => {
                Err(Error::denied(format!("{} is blocked by registries.conf", entry.prefix)))
            }
            entry => Ok(entry.is_some_and(|(entry, _)| entry.insecure)),
        }
    }

    /// Where to read an image, best first; the last one is the registry itself, wherever that is.
    ///
    /// # Errors
    /// As [`trusts_anybody`](Self::trusts_anybody), and when a location is none.
    pub(super) fn places(&self, reference: &Reference) -> Result<Vec<Place>> {
        let anybody = self.trusts_anybody(&reference.name())?;
        let Some((entry, matched)) = self.entry(&reference.name()) else {
            return Ok(vec![Place { reference: reference.clone(), anybody }]);
        };
        let by_digest = reference.digest().is_some();
        let mut places = Vec::new();
        for mirror in &entry.mirrors {
            let wanted = match mirror.pull_from_mirror {
                Pull::All => by_digest || !entry.mirror_by_digest_only,
                Pull::DigestOnly => by_digest,
                Pull::TagOnly => !by_digest,
            };
            if wanted {
                let reference = moved(reference, matched, &mirror.location)?;
                places.push(Place { reference, anybody: mirror.insecure });
            }
        }
        let itself = match entry.location.is_empty() {
            true => reference.clone(),
            false => moved(reference, matched, &entry.location)?,
        };
        places.push(Place { reference: itself, anybody });
        Ok(places)
    }

    /// The entry with the longest prefix of a name, and how much of the name that is.
    fn entry(&self, name: &str) -> Option<(&Entry, usize)> {
        let fitting = self.0.values().filter_map(|entry| Some((entry, covers(&entry.prefix, name)?)));
        fitting.max_by_key(|(entry, _)| entry.prefix.len())
    }
}

/// How much of `host/repository` a prefix covers, in bytes; it ends between words.
fn covers(prefix: &str, name: &str) -> Option<usize> {
    let length = match prefix.strip_prefix('*') {
        // `*.example.com` is any host below it, and nothing behind the host.
        Some(domain) => {
            let host = name.split('/').next().unwrap_or_default();
            return (host.ends_with(domain) && host.len() > domain.len()).then_some(host.len());
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    matches!(name.as_bytes().get(length), None | Some(b'/')).then_some(length)
}

/// The same image at another location.
fn moved(reference: &Reference, matched: usize, location: &str) -> Result<Reference> {
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

    fn places(conf: &RegistriesConf, reference: &str) -> Vec<String> {
        let places = conf.places(&reference.parse().unwrap()).unwrap();
        let mark = |place: Place| format!("{}{}", place.reference, if place.anybody { "!" } else { "" });
        places.into_iter().map(mark).collect()
    }

    #[test]
    fn an_image_is_read_from_mirrors_first() {
        let conf = conf(&[CONF]).unwrap();
        let digest = format!("sha256:{}", "b".repeat(64));
        assert_eq!(places(&conf, "r.io/a/b:1"), ["m1.io:5000/mirror/a/b:1!", "cache.io/r/a/b:1!"]);
        let [first, second, itself] =
            ["m1.io:5000/mirror/a", "m2.io/a", "cache.io/r/a"].map(|name| format!("{name}@{digest}"));
        assert_eq!(places(&conf, &format!("r.io/a@{digest}")), [first + "!", second, itself + "!"]);
        assert_eq!(places(&conf, "r.iox/a:1"), ["r.iox/a:1"]);
        assert_eq!(places(&conf, "a.example.com/b:1"), ["inside.io/x/b:1"]);
        assert_eq!(places(&conf, "example.com/b:1"), ["example.com/b:1"]);
        assert_eq!(places(&conf, "plain.io/b:1"), ["plain.io/b:1"]);
        assert_eq!(places(&conf, &format!("plain.io/b@{digest}")).len(), 2);
    }

    #[test]
    fn the_longest_prefix_decides_and_may_forbid() {
        let conf = conf(&[CONF]).unwrap();
        let error = conf.places(&"r.io/team/a:1".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Denied);
        assert!(error.to_string().contains("r.io/team"), "{error}");
        assert_eq!(places(&conf, "r.io/teams/a:1").len(), 2);
    }

    #[test]
    fn a_later_file_replaces_an_entry_and_a_broken_one_is_named() {
        let later = "[[registry]]\nprefix = \"r.io\"\n[[registry]]\nprefix = \"r.io/team\"";
        let both = conf(&[CONF, later]).unwrap();
        assert_eq!(places(&both, "r.io/a:1"), ["r.io/a:1"]);
        assert_eq!(places(&both, "r.io/team/a:1"), ["r.io/team/a:1"]);
        for broken in [
            "[[registry]]\nlocation = 1",
            "[[",
            "[[registry]]\n[[registry.mirror]]\npull-from-mirror = \"x\"",
        ] {
            assert!(conf(&[broken]).is_err(), "{broken}");
        }
    }
}
