//! Selecting some of the platforms of an image. The copy is another document then, with another digest.

use crate::error::{Error, Result};
use crate::image::{self, Offer};
use crate::oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, Platform, media_type};
use crate::transport::{self, Source};
use std::collections::HashSet;

/// The annotation with which BuildKit's attestations name the manifest that they describe.
const ATTESTED: &str = "vnd.docker.reference.digest";

/// Returns the root of an image with these platforms: the manifest of a single platform, or an index with the entries of
/// several, which keeps everything else that the index contains. If no platforms are wanted, the root is unchanged.
pub(super) fn choose(root: &Document, wanted: &[Platform], source: &dyn Source) -> Result<Document> {
    if wanted.is_empty() {
        return Ok(root.clone());
    }
    if media_type::is_manifest(&root.descriptor().media_type) {
        let platform = platform_of(root, source)?;
        let is_for = |wanted: &Platform| platform.as_ref().is_some_and(|platform| wanted.accepts(platform));
        return match wanted.iter().find(|wanted| !is_for(wanted)) {
            None => Ok(root.clone()),
            Some(wanted) => Err(absent(wanted, platform.as_slice())),
        };
    }
    let index = Index::parse(root)?;
    let offers = image::offers(root, source)?;
    // If the index has no platform for an entry, the config has one. An artifact has no platform.
    let (named, unnamed): (Vec<Offer>, Vec<Offer>) =
        offers.iter().cloned().partition(|(platform, _)| platform.is_some());
    let configured =
        |(_, entry): Offer| Ok((platform_of(&transport::fetch(source, &entry)?, source)?, entry));
    let unnamed = unnamed.into_iter().map(configured).collect::<Result<Vec<Offer>>>()?;
    let unnamed: Vec<Offer> = unnamed.into_iter().filter(|(platform, _)| platform.is_some()).collect();
    let mut chosen: Vec<&Descriptor> = Vec::new();
    for wanted in wanted {
        let fitting = [&named, &unnamed].into_iter().flat_map(|offers| image::ranked(offers, wanted)).next();
        match fitting {
            Some((_, (_, entry))) => chosen.push(entry),
            None => {
                let offered = named.iter().chain(&unnamed).filter_map(|(platform, _)| platform.clone());
                return Err(absent(wanted, &offered.collect::<Vec<_>>()));
            }
        }
    }
    match (wanted, chosen.as_slice()) {
        ([_], [entry]) => transport::fetch(source, entry),
        _ => {
            let digests: HashSet<&Digest> = chosen.iter().map(|entry| &entry.digest).collect();
            let entries = offers.iter().map(|(_, entry)| entry).chain(&index.manifests);
            let manifests = narrowed(entries, &digests);
            Ok(Document::write(root.descriptor().media_type.clone(), &Index { manifests, ..index }))
        }
    }
}

/// Returns the chosen entries in the order of the index, followed by their attestations.
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

/// Returns the platform in the config of an image; `None` for an artifact.
fn platform_of(document: &Document, source: &dyn Source) -> Result<Option<Platform>> {
    let manifest = Manifest::parse(document)?;
    if manifest.artifact_type().is_some() {
        return Ok(None);
    }
    let config: ImageConfig = transport::fetch(source, &manifest.config)?.parse()?;
    Ok(Some(config.platform).filter(Platform::is_complete))
}

fn absent(wanted: &Platform, offered: &[Platform]) -> Error {
    let offered: Vec<String> = offered.iter().map(Platform::to_string).collect();
    Error::not_found(format!("there is no image for {wanted} under this name")).with_hint(
        match offered.as_slice() {
            [] => "it holds no image at all".to_owned(),
            offered => format!("choose among {}", offered.join(", ")),
        },
    )
}
