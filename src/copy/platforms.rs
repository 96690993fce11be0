//! Some of the platforms of an image. What is copied is then another document, with another digest.

use crate::error::{Error, Result};
use crate::image;
use crate::oci::{Config, Descriptor, Digest, Document, Index, Manifest, Platform, media_type};
use std::collections::HashSet;

/// The annotation by which buildkit's attestations name the manifest that they are about.
const ATTESTED: &str = "vnd.docker.reference.digest";

/// The root of an image with only these platforms: of one, its manifest; of several, an index of those entries that
/// keeps whatever else the index says. Without a wish it is the root as it is.
pub(super) fn choose(
    root: &Document,
    wanted: &[Platform],
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Document> {
    if wanted.is_empty() {
        return Ok(root.clone());
    }
    if media_type::is_manifest(&root.descriptor().media_type) {
        let platform = platform_of(root, &fetch)?;
        return match wanted.iter().find(|wanted| !wanted.accepts(&platform)) {
            None => Ok(root.clone()),
            Some(wanted) => Err(absent(wanted, &[platform])),
        };
    }
    let index = Index::parse(root)?;
    // What no index says about a platform, the configuration does.
    let named = |(platform, entry): (Option<Platform>, Descriptor)| match platform {
        Some(platform) => Ok((platform, entry)),
        None => Ok((platform_of(&fetch(&entry)?, &fetch)?, entry)),
    };
    let offers = image::offers(root, &fetch)?.into_iter().map(named).collect::<Result<Vec<_>>>()?;
    let mut chosen: Vec<&Descriptor> = Vec::new();
    for wanted in wanted {
        // The first that fits, as everywhere where one is chosen.
        match offers.iter().find(|(platform, _)| wanted.accepts(platform)) {
            Some((_, entry)) => chosen.push(entry),
            None => {
                let offered: Vec<_> = offers.iter().map(|(platform, _)| platform.clone()).collect();
                return Err(absent(wanted, &offered));
            }
        }
    }
    match (wanted, chosen.as_slice()) {
        ([_], [entry]) => fetch(entry),
        _ => {
            let digests: HashSet<&Digest> = chosen.iter().map(|entry| &entry.digest).collect();
            let entries = offers.iter().map(|(_, entry)| entry).chain(&index.manifests);
            let manifests = narrowed(entries, &digests);
            Ok(Document::write(root.descriptor().media_type.clone(), &Index { manifests, ..index }))
        }
    }
}

/// The chosen entries in the order in which they stood, and behind them the attestations about them.
fn narrowed<'a>(entries: impl Iterator<Item = &'a Descriptor>, chosen: &HashSet<&Digest>) -> Vec<Descriptor> {
    let is_about = |entry: &Descriptor| {
        let subject = entry.annotations.get(ATTESTED).and_then(|digest| digest.parse::<Digest>().ok());
        subject.is_some_and(|subject| chosen.contains(&subject))
    };
    let mut seen = HashSet::new();
    entries
        .filter(|entry| chosen.contains(&entry.digest) || is_about(entry))
        .filter(|entry| seen.insert(&entry.digest))
        .cloned()
        .collect()
}

/// The platform that the configuration of an image names.
fn platform_of(document: &Document, fetch: &impl Fn(&Descriptor) -> Result<Document>) -> Result<Platform> {
    let config: Config = fetch(&Manifest::parse(document)?.config)?.parse()?;
    Ok(config.platform)
}

fn absent(wanted: &Platform, offered: &[Platform]) -> Error {
    let offered: Vec<String> = offered.iter().map(Platform::to_string).collect();
    Error::not_found(format!("there is no image for {wanted} under this name")).hint(
        match offered.as_slice() {
            [] => "it holds no image at all".to_owned(),
            offered => format!("choose among {}", offered.join(", ")),
        },
    )
}
