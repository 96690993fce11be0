//! Which of the images under one name is the one for this machine.

use crate::error::{Error, Result};
use crate::oci::{Config, Descriptor, Document, Index, Manifest, Platform, media_type};

/// How deep indexes may be nested: one in another occurs, more than a few is an attack.
pub const DEPTH_LIMIT: usize = 4;
/// How many manifests and indexes there may be under one name: a dozen is usual, and without a limit an index that
/// lists itself a thousand times over fills the memory.
const DOCUMENT_COUNT_LIMIT: usize = 128;

/// The image that was chosen.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The manifest, as it is stored.
    pub document: Document,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: Config,
}

/// Chooses the image for a platform from the index or the manifest that a name stands for.
///
/// Without a wish it is the host's platform; an index that offers only one image offers it to everyone, for data
/// has no architecture. `fetch` gets the documents below the root that lead to it, and no others: mirrors often leave
/// out the images for platforms that nobody there has.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) when there is no image for the platform, naming those that there are.
pub fn select(
    root: &Document,
    wanted: Option<&Platform>,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Selected> {
    let offers = offers(root, &fetch)?;
    let fits = |offer: &&(Option<Platform>, Descriptor)| match &offer.0 {
        Some(offered) => wanted.unwrap_or(&Platform::host()).accepts(offered),
        None => true,
    };
    let descriptor = match (offers.iter().find(fits), offers.as_slice(), wanted) {
        (Some((_, descriptor)), ..) | (None, [(_, descriptor)], None) => descriptor,
        _ => return Err(no_match(wanted, &offers)),
    };
    let document = document(root, descriptor, &fetch)?;
    let manifest = Manifest::parse(&document)?;
    let config: Config = fetch(&manifest.config)?.parse()?;
    // What no index says about a platform, the configuration does.
    if let Some(wanted) = wanted.filter(|wanted| !wanted.accepts(&config.platform)) {
        return Err(no_match(Some(wanted), &[(Some(config.platform), descriptor.clone())]));
    }
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(document.malformed(&format!(
            "it has {} layers and its configuration {} diff_ids",
            manifest.layers.len(),
            config.rootfs.diff_ids.len()
        )));
    }
    Ok(Selected { document, manifest, config })
}

/// All images under a root, with their platforms where an index names them.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when a document is not what it says.
pub fn images(
    root: &Document,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Vec<(Option<Platform>, Document)>> {
    let offers = offers(root, &fetch)?.into_iter();
    offers.map(|(platform, descriptor)| Ok((platform, document(root, &descriptor, &fetch)?))).collect()
}

/// The descriptors of all images under a root; only indexes are fetched. Attestations, which buildkit lists as images
/// for the platform `unknown/unknown`, are none.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when an index is not what it says, or there is no end to it.
pub fn offers(
    root: &Document,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Vec<(Option<Platform>, Descriptor)>> {
    let mut offers = Vec::new();
    let mut open = vec![(0, None, root.descriptor().clone())];
    for _ in 0..=DOCUMENT_COUNT_LIMIT {
        let Some((depth, platform, descriptor)) = open.pop() else { return Ok(offers) };
        match descriptor.media_type.as_str() {
            kind if media_type::is_manifest(kind) => offers.push((platform, descriptor)),
            kind if media_type::is_index(kind) && depth < DEPTH_LIMIT => {
                let index = Index::parse(&document(root, &descriptor, &fetch)?)?;
                // Pushed in reverse, so that they are popped in the order in which they stand there.
                let images = index.manifests.into_iter().rev().filter(is_image);
                open.extend(images.map(|entry| (depth + 1, entry.platform.clone(), entry)));
            }
            kind if media_type::is_index(kind) => {
                return Err(root.malformed(&format!("indexes are nested more than {DEPTH_LIMIT} deep")));
            }
            other => {
                let digest = &descriptor.digest;
                return Err(Error::failed(format!("{digest} is no image: its media type is {other:?}")));
            }
        }
    }
    Err(root.malformed(&format!("it lists more than {DOCUMENT_COUNT_LIMIT} manifests")))
}

/// The document of a descriptor: the root is here, all others are fetched.
fn document(
    root: &Document,
    descriptor: &Descriptor,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Document> {
    match descriptor == root.descriptor() {
        true => Ok(root.clone()),
        false => fetch(descriptor),
    }
}

fn is_image(entry: &Descriptor) -> bool {
    media_type::is_document(&entry.media_type)
        && entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
}

fn no_match(wanted: Option<&Platform>, offers: &[(Option<Platform>, Descriptor)]) -> Error {
    let wanted = wanted.cloned().unwrap_or_else(Platform::host);
    let names: Vec<String> =
        offers.iter().filter_map(|(platform, _)| Some(platform.as_ref()?.to_string())).collect();
    Error::not_found(format!("there is no image for {wanted} under this name")).hint(match names.as_slice() {
        [] => "it holds no image at all".to_owned(),
        names => format!("choose one with --platform: {}", names.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Description;
    use std::cell::RefCell;
    use std::collections::HashMap;

    /// An image for both usual platforms, the documents that a place has of it, and which of them were fetched.
    struct Place {
        root: Document,
        documents: HashMap<String, Document>,
        fetched: RefCell<Vec<Document>>,
    }

    impl Place {
        fn new() -> Self {
            let built = Description::default().build(&[]).unwrap();
            let mut place = Self::with(built.root);
            built.configs.into_iter().chain(built.manifests).for_each(|document| place.add(document));
            place
        }

        fn with(root: Document) -> Self {
            Self { root, documents: HashMap::new(), fetched: RefCell::default() }
        }

        fn add(&mut self, document: Document) {
            self.documents.insert(document.descriptor().digest.to_string(), document);
        }

        fn select(&self, wanted: &str) -> Result<Selected> {
            select(&self.root, Some(&wanted.parse().unwrap()), |descriptor| {
                let found = self.documents.get(&descriptor.digest.to_string()).cloned();
                let document = found.ok_or_else(|| Error::not_found("nothing"))?;
                self.fetched.borrow_mut().push(document.clone());
                Ok(document)
            })
        }
    }

    #[test]
    fn images_for_other_platforms_need_not_be_there() {
        let place = Place::new();
        let selected = place.select("linux/arm64").unwrap();
        assert_eq!(selected.config.platform.architecture, "arm64");
        assert_eq!(place.fetched.borrow().len(), 2, "the manifest and its configuration");
    }

    #[test]
    fn a_platform_that_was_asked_for_is_not_replaced_by_the_only_one() {
        let description =
            Description { platforms: vec![Platform::new("linux", "s390x")], ..Description::default() };
        let built = description.build(&[]).unwrap();
        let mut place = Place::with(built.root);
        built.configs.into_iter().for_each(|document| place.add(document));
        assert!(place.select("linux/s390x").is_ok());
        let error = place.select("linux/amd64").unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::NotFound);
        assert!(error.advice().unwrap().contains("linux/s390x"));
    }

    #[test]
    fn an_index_that_lists_the_same_over_and_over_is_refused_before_that_is_fetched() {
        let manifest = Place::new().root;
        let entries = vec![manifest.descriptor().clone(); DOCUMENT_COUNT_LIMIT + 1];
        let mut place =
            Place::with(Document::write(media_type::INDEX, &Index::new(entries, Default::default())));
        place.add(manifest);
        assert_eq!(place.select("linux/amd64").unwrap_err().kind(), crate::error::Kind::Integrity);
    }

    #[test]
    fn indexes_are_not_followed_into_any_depth() {
        let nested = |depth| {
            let mut place = Place::new();
            for _ in 0..depth {
                let index = Index::new(vec![place.root.descriptor().clone()], Default::default());
                let above = Document::write(media_type::INDEX, &index);
                let below = std::mem::replace(&mut place.root, above);
                place.add(below);
            }
            place.select("linux/amd64")
        };
        assert!(nested(DEPTH_LIMIT - 1).is_ok());
        assert_eq!(nested(DEPTH_LIMIT).unwrap_err().kind(), crate::error::Kind::Integrity);
    }
}
