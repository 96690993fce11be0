//! Suggestions after an error: the tag or the transport that was probably meant.

use crate::args::RegistryArgs;
use crate::progress::Display;
use clap::{ArgMatches, FromArgMatches};
use std::ffi::{OsStr, OsString};
use std::time::Duration;
use strsim::damerau_levenshtein;
use volio::error::Kind;
use volio::{Access, ClientOptions, Error, Location, Reference, Result, Retry, tags};

/// The number of tags that are suggested.
const SUGGESTED: usize = 3;
/// The number of tags that are compared, which is one page of a registry.
const COMPARED: usize = 1000;
/// The longest tag that is compared, in bytes: no longer name of an image is usual.
const LONGEST: usize = 256;
/// The time after which a registry that does not answer is not waited for any longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The images that a command line names.
#[derive(Default)]
pub struct NamedImages {
    images: Vec<(OsString, Location)>,
    registries: Option<RegistryArgs>,
}

impl NamedImages {
    /// Finds all arguments that are locations.
    pub fn of(matches: &ArgMatches) -> Self {
        let Some((_, command)) = matches.subcommand() else { return Self::default() };
        let mut images = Vec::new();
        for id in command.ids() {
            let locations = command.try_get_many::<Location>(id.as_str());
            let texts = command.try_get_raw(id.as_str());
            if let (Ok(Some(locations)), Ok(Some(texts))) = (locations, texts) {
                images.extend(texts.map(OsStr::to_owned).zip(locations.cloned()));
            }
        }
        // Every command with images has these options.
        let registries = (!images.is_empty()).then(|| RegistryArgs::from_arg_matches(command).ok());
        Self { images, registries: registries.flatten() }
    }

    /// Adds to the hint of an error which tag or transport was probably meant. A registry is asked for its tags only if the
    /// error says that a tag does not exist; if that fails, there is no suggestion.
    pub fn complete(&self, error: Error) -> Error {
        let question = self.other_transport(&error).or_else(|| self.other_tags(&error));
        match question {
            Some(question) => ask(error, &question),
            None => error,
        }
    }

    /// Returns the transport that was meant if an image was looked for in the default registry only because the name of
    /// the transport is misspelt: `oci-arhive:x` is the tag `x` of `docker.io/library/oci-arhive`.
    fn other_transport(&self, error: &Error) -> Option<String> {
        let message = error.to_string();
        self.images.iter().find_map(|(text, location)| {
            let Location::Registry(reference) = location else { return None };
            let is_about_it =
                error.kind() != Kind::Usage && message.contains(&format!("/{}", reference.repository()));
            transport_question(text).filter(|_| is_about_it)
        })
    }

    fn other_tags(&self, error: &Error) -> Option<String> {
        let missing = error.missing_tag()?;
        let is_named = |location: &&Location| tag(location).as_deref() == Some(missing);
        self.images.iter().map(|(_, location)| location).filter(is_named).find_map(|location| {
            let tags = self.tags(location).ok()?;
            // The hint of a layout or an archive lists them already.
            let is_listed = location.path().is_some() && tags.len() <= SUGGESTED;
            if is_listed || tags.iter().any(|tag| tag == missing) {
                return None;
            }
            enumerate(&nearest(missing, &tags))
        })
    }

    /// Returns the tags of the place of an image; of a registry, those of the first page.
    fn tags(&self, location: &Location) -> Result<Vec<String>> {
        let access = match (&self.registries, location) {
            (Some(registries), Location::Registry(_)) => {
                let access = registries.access(&Display::warnings_unless(true))?;
                let retry = Retry { retries: 0, ..access.client.retry };
                let (connect_timeout, stall_timeout) = (TIMEOUT, TIMEOUT);
                let client = ClientOptions { retry, connect_timeout, stall_timeout, ..access.client };
                Access { client, ..access }
            }
            _ => Access::default(),
        };
        Ok(tags::first(place(location).source(&access)?.as_ref())?.images)
    }
}

/// Returns the same place without the name of an image.
fn place(location: &Location) -> Location {
    match location.clone() {
        Location::Layout { directory, .. } => Location::Layout { directory, tag: None, digest: None },
        Location::OciArchive { file, .. } => Location::OciArchive { file, tag: None, digest: None },
        Location::DockerArchive { file, .. } => {
            Location::DockerArchive { file, reference: None, digest: None }
        }
        registry => registry,
    }
}

/// Returns the tag of a location, as errors name it.
fn tag(location: &Location) -> Option<String> {
    match location {
        Location::Registry(reference) => reference.tag().map(str::to_owned),
        Location::DockerArchive { reference, .. } => reference.as_ref().map(Reference::to_string),
        Location::Layout { tag, .. } | Location::OciArchive { tag, .. } => {
            Some(tag.clone().unwrap_or_else(|| "latest".to_owned()))
        }
    }
}

/// Adds to an error of parsing a location which transport was probably meant.
pub fn after_parsing(error: Error, text: &OsStr) -> Error {
    match transport_question(text) {
        Some(question) => ask(error, &question),
        None => error,
    }
}

/// Puts a question before the hint of an error.
fn ask(error: Error, question: &str) -> Error {
    let hint = match error.hint() {
        Some(hint) => format!("{question} {hint}"),
        None => question.to_owned(),
    };
    error.with_hint(hint)
}

/// Returns the question whether another transport was meant, for a text that begins with a misspelt one.
fn transport_question(text: &OsStr) -> Option<String> {
    let text = text.to_string_lossy();
    let (scheme, rest) = text.split_once(':')?;
    let meant = transport_like(scheme)?;
    (!rest.is_empty()).then(|| format!("did you mean {meant}:{rest}?"))
}

/// Returns the transport that a word is a misspelling of.
fn transport_like(word: &str) -> Option<&'static str> {
    let word = (word.len() <= 32).then(|| word.to_ascii_lowercase().replace('_', "-"))?;
    // One change of a short word, two of a long one.
    let known = [("oci", 1), ("oci-archive", 2), ("docker-archive", 2)];
    let distances = known.map(|(name, most)| (damerau_levenshtein(&word, name), most, name));
    let near = distances.into_iter().filter(|(distance, most, _)| distance <= most);
    near.min().map(|(.., name)| name)
}

/// Returns the tags that are most like one that does not exist, the most similar first.
fn nearest<'t>(missing: &str, tags: &'t [String]) -> Vec<&'t str> {
    let compared = tags.iter().filter(|tag| tag.len() <= LONGEST).take(COMPARED);
    let mut near: Vec<_> = compared.filter_map(|tag| Some((distance(missing, tag)?, tag.as_str()))).collect();
    near.sort_unstable();
    near.into_iter().take(SUGGESTED).map(|(_, tag)| tag).collect()
}

/// Returns the distance of two tags; `None` if one is hardly written in place of the other.
fn distance(missing: &str, tag: &str) -> Option<usize> {
    // The long spelling of a name in an archive of Docker's is compared with the same spelling.
    let full = if missing.contains('/') { tag.parse::<Reference>().ok() } else { None };
    let full = full.map_or_else(|| tag.to_lowercase(), |reference| reference.to_string().to_lowercase());
    let missing = missing.to_lowercase();
    // More than a third of another tag is rarely a mistake of typing. `1.2` is often meant to be a `1.2.3`.
    let name = |text: &str| text.rsplit([':', '/']).next().map_or(0, str::len);
    let most = (name(&missing).min(name(&full)) / 3).min(3);
    let is_continued = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.starts_with(['.', '-', '_', '+']))
    };
    if full.len().abs_diff(missing.len()) <= most {
        let distance = damerau_levenshtein(&missing, &full);
        if distance <= most {
            return Some(distance);
        }
    }
    let is_part = is_continued(&full, &missing) || is_continued(&missing, &full);
    is_part.then(|| full.len().abs_diff(missing.len()) + 3)
}

/// Formats a question about tags; `None` without any.
fn enumerate(tags: &[&str]) -> Option<String> {
    let (last, others) = tags.split_last()?;
    Some(match others {
        [] => format!("did you mean {last}?"),
        others => format!("did you mean {} or {last}?", others.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_that_are_suggested_are_mistakes_of_typing_away() {
        let suggested = |missing: &str, tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            nearest(missing, &tags).join(" ")
        };
        assert_eq!(suggested("lastest", &["edge", "latest", "stable"]), "latest");
        assert_eq!(suggested("V1.2.3", &["v1.2.3", "v1.2.4", "v2"]), "v1.2.3 v1.2.4");
        assert_eq!(suggested("1.2", &["1.20", "1.2.0", "1.2.1-rc1", "1.3"]), "1.20 1.3 1.2.0");
        assert_eq!(suggested("v2", &["v1", "v3", "edge"]), "");
        assert_eq!(
            suggested("monday", &["a", "mondya", "mnday", "tuesday", "sunday"]),
            "mnday mondya sunday"
        );
        let archive = ["data:latest", "docker.io/library/base:latest"];
        assert_eq!(suggested("docker.io/library/data:lastest", &archive), "data:latest");
        assert_eq!(suggested(&"x".repeat(128), &[&"x".repeat(300)]), "");
    }

    #[test]
    fn a_misspelt_transport_is_recognised() {
        let asked = |text: &str| transport_question(OsStr::new(text));
        for (text, meant) in [
            ("oci-arhive:x.tar", "oci-archive:x.tar"),
            ("ociarchive:/tmp/x.tar:v1", "oci-archive:/tmp/x.tar:v1"),
            ("OCI:backup:v1", "oci:backup:v1"),
            ("oic:backup", "oci:backup"),
            ("docker_archive:x.tar", "docker-archive:x.tar"),
        ] {
            assert_eq!(asked(text).unwrap(), format!("did you mean {meant}?"));
        }
        for other in
            ["alpine:3", "docker:dind", "registry.example/data:v1", "oic", "oic:", "localhost:5000/x"]
        {
            assert_eq!(asked(other), None, "{other}");
        }
    }
}
