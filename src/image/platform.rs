//! Which of the images under one name is the one for this machine.

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::oci::{
    ARTIFACT_TYPE, Descriptor, Document, Fit, ImageConfig, Index, Manifest, Platform, media_type,
};
use serde_json::Value;

/// How deep indexes may be nested: one in another occurs, more than a few is an attack.
pub const DEPTH_LIMIT: usize = 4;
/// How many manifests and indexes there may be under one name: a dozen is usual, and without a limit an index that
/// lists itself a thousand times over fills the memory.
const DOCUMENT_COUNT_LIMIT: usize = 128;
/// The most bytes of documents that are read of one image: their parsed forms take up to twenty times as much memory.
pub const DOCUMENTS_LIMIT: u64 = 16 << 20;

/// The image that was chosen.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The manifest, as it is stored.
    pub document: Document,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

/// An image in an index, or the one that a name stands for: its platform, where the index names one, and its manifest.
pub type Offer = (Option<Platform>, Descriptor);

/// How well an offer serves a platform, for all that the index says. The least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It is for the platform.
    Named(Fit),
    /// The index does not say what it is for; its configuration may.
    Unnamed,
}

/// Returns the offers that may serve a platform, the best first; of equal ones the first in the index.
pub fn ranked<'a>(offers: &'a [Offer], platform: &Platform) -> Vec<(Rank, &'a Offer)> {
    let rank = |offer: &'a Offer| match &offer.0 {
        Some(offered) => Some((Rank::Named(platform.fit(offered)?), offer)),
        None => Some((Rank::Unnamed, offer)),
    };
    let mut ranked: Vec<_> = offers.iter().filter_map(rank).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked
}

/// Chooses the image for a platform from the index or the manifest that a name stands for: one for this very platform
/// before one for a variant of it, and that before one of which the index says nothing. Artifacts and attestations
/// beside images are passed over.
///
/// Without a wish it is the host's platform; an index that offers only one image offers it to everyone, for data
/// has no architecture. `fetch` gets the documents below the root that lead to it, and no others: mirrors often leave
/// out the images for platforms that nobody there has.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) when there is no image for the platform, naming those that there are;
/// [`Usage`](crate::error::Kind::Usage) when the name stands for an artifact.
pub fn select(
    root: &Document,
    wanted: Option<&Platform>,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Selected> {
    let offers = offers(root, &fetch)?;
    let platform = wanted.cloned().unwrap_or_else(Platform::host);
    let candidates = match offers.as_slice() {
        [only] if wanted.is_none() => vec![(Rank::Unnamed, only)],
        offers => ranked(offers, &platform),
    };
    let (mut artifact, mut passed_over) = (None, Vec::new());
    for (rank, (chosen, descriptor)) in candidates {
        let left_out = |error| left_out(error, chosen.as_ref(), &offers);
        let document = document(root, descriptor, &fetch).map_err(left_out)?;
        let manifest = Manifest::parse(&document)?;
        if let Some(kind) = manifest.artifact_type() {
            artifact.get_or_insert_with(|| not_an_image(&document, &kind));
            continue;
        }
        let config: ImageConfig = fetch(&manifest.config).map_err(left_out)?.parse()?;
        let is_named = rank != Rank::Unnamed;
        let fits = match config.platform.is_complete() {
            // What no index says about a platform, the configuration does.
            true => {
                platform.accepts(&config.platform) || (wanted.is_none() && (is_named || offers.len() == 1))
            }
            false => is_named || wanted.is_none(),
        };
        if fits {
            return whole(Selected { document, manifest, config });
        }
        passed_over.push((Some(config.platform), descriptor.clone()));
    }
    passed_over.extend(offers.into_iter().filter(|(offered, _)| offered.is_some()));
    match artifact {
        Some(artifact) if passed_over.is_empty() => Err(artifact),
        _ => Err(no_match(wanted, &passed_over)),
    }
}

/// The same image, if its configuration knows all its layers.
fn whole(image: Selected) -> Result<Selected> {
    let (layers, diff_ids) = (image.manifest.layers.len(), image.config.rootfs.diff_ids.len());
    match layers == diff_ids {
        true => Ok(image),
        false => Err(image
            .document
            .malformed(&format!("it has {layers} layers and its configuration {diff_ids} diff_ids"))),
    }
}

/// The error for an artifact where an image is needed.
fn not_an_image(document: &Document, kind: &str) -> Error {
    let digest = &document.descriptor().digest;
    Error::usage(format!("{digest} is an artifact of type {kind} and not an image"))
        .with_hint("volio inspect shows what it holds; volio unpack --artifact writes its files")
}

/// All images and artifacts under a root, with their platforms where an index names them.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when a document is not what it says.
pub fn manifests(
    root: &Document,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Vec<(Option<Platform>, Document)>> {
    let listed = listed(root, &fetch, |entry| !is_attestation(entry))?;
    let bytes = listed.iter().map(|(_, descriptor)| descriptor.size).fold(0, u64::saturating_add);
    if bytes > DOCUMENTS_LIMIT {
        return Err(root.malformed(&format!("it lists more than {DOCUMENTS_LIMIT} bytes of manifests")));
    }
    let listed = listed.into_iter();
    listed.map(|(platform, descriptor)| Ok((platform, document(root, &descriptor, &fetch)?))).collect()
}

/// The descriptors of all images under a root; only indexes are fetched. What an index calls an artifact is left out, and
/// so are attestations.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when an index is not what it says, or there is no end to it.
pub fn offers(root: &Document, fetch: impl Fn(&Descriptor) -> Result<Document>) -> Result<Vec<Offer>> {
    listed(root, fetch, |entry| !is_attestation(entry) && !is_artifact(entry))
}

/// The descriptors of all manifests under a root, without the entries of indexes that are not wanted.
fn listed(
    root: &Document,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
    is_wanted: impl Fn(&Descriptor) -> bool,
) -> Result<Vec<Offer>> {
    let mut offers = Vec::new();
    let mut open = vec![(0, None, root.descriptor().clone())];
    for _ in 0..=DOCUMENT_COUNT_LIMIT {
        let Some((depth, platform, descriptor)) = open.pop() else { return Ok(offers) };
        match descriptor.media_type.as_str() {
            kind if media_type::is_manifest(kind) => offers.push((platform, descriptor)),
            kind if media_type::is_index(kind) && depth < DEPTH_LIMIT => {
                let index = Index::parse(&document(root, &descriptor, &fetch)?)?;
                let entries = index
                    .manifests
                    .into_iter()
                    .filter(|entry| media_type::is_document(&entry.media_type) && is_wanted(entry));
                // Pushed in reverse, so that they are popped in the order in which they stand there.
                open.extend(
                    entries.rev().map(|entry| {
                        (depth + 1, entry.platform.clone().filter(Platform::is_complete), entry)
                    }),
                );
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

/// Returns `true` for an attestation of buildkit, which it lists as an image for the platform `unknown/unknown`.
fn is_attestation(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

/// Returns `true` if the index says that an entry is an artifact: images that refer to another one have the type of
/// their configuration there.
fn is_artifact(entry: &Descriptor) -> bool {
    let kind = entry.extra.get(ARTIFACT_TYPE);
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    !kind.is_empty() && !media_type::is_config(kind)
}

fn no_match(wanted: Option<&Platform>, offers: &[Offer]) -> Error {
    let wanted = wanted.cloned().unwrap_or_else(Platform::host);
    let mut names: Vec<String> =
        offers.iter().filter_map(|(platform, _)| Some(platform.as_ref()?.to_string())).collect();
    names.dedup();
    Error::not_found(format!("there is no image for {wanted} under this name")).with_hint(
        match names.as_slice() {
            [] => "it holds no image at all".to_owned(),
            names => format!("choose one with --platform: {}", names.join(", ")),
        },
    )
}

/// The error for an image that an index lists and that is not there: `docker save` and mirrors leave out what they do not have.
fn left_out(error: Error, chosen: Option<&Platform>, offers: &[(Option<Platform>, Descriptor)]) -> Error {
    let Some(chosen) = chosen.filter(|_| error.kind() == ErrorKind::NotFound) else { return error };
    let others = offers.iter().filter_map(|(platform, _)| platform.as_ref()).filter(|other| *other != chosen);
    let others: Vec<String> = others.map(Platform::to_string).collect();
    match others.is_empty() {
        true => error,
        false => error.with_hint(format!(
            "the image for {chosen} is listed here and was left out when it was saved or copied; choose another one with --platform: {}",
            others.join(", ")
        )),
    }
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
    fn an_image_that_is_listed_and_was_left_out_is_not_found_and_others_are_named() {
        let mut place = Place::new();
        let manifest = place.select("linux/arm64").unwrap().document.descriptor().digest.to_string();
        place.documents.remove(&manifest);
        let error = place.select("linux/arm64").unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::NotFound);
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("linux/arm64 is listed") && hint.ends_with("--platform: linux/amd64"),
            "{hint}"
        );
        assert!(place.select("linux/amd64").is_ok());
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
        assert!(error.hint().unwrap().contains("linux/s390x"));
    }

    /// A place whose index has an image with this created time for each of these platforms, in the index and in its
    /// configuration, where they are named.
    fn listing(entries: &[(Option<&str>, Option<&str>)]) -> Place {
        let mut place = Place::new();
        let mut manifests = Vec::new();
        for (number, (listed, configured)) in entries.iter().enumerate() {
            let rootfs = crate::oci::RootFs::new(Vec::new());
            let platform = configured.map_or_else(|| Platform::new("", ""), |text| text.parse().unwrap());
            let created = Some(number.to_string());
            let config = ImageConfig { created, platform, config: None, rootfs, history: Vec::new() };
            let config = Document::write(media_type::CONFIG, &config);
            let manifest = Manifest::new(config.descriptor().clone(), Vec::new(), Default::default());
            let manifest = Document::write(media_type::MANIFEST, &manifest);
            let platform = listed.map(|text| text.parse().unwrap());
            manifests.push(Descriptor { platform, ..manifest.descriptor().clone() });
            place.add(config);
            place.add(manifest);
        }
        place.root = Document::write(media_type::INDEX, &Index::new(manifests, Default::default()));
        place
    }

    /// Which of the entries is chosen.
    fn chosen(entries: &[(Option<&str>, Option<&str>)], wanted: &str) -> Option<usize> {
        let selected = listing(entries).select(wanted).ok()?;
        selected.config.created.map(|number| number.parse().unwrap())
    }

    #[test]
    fn the_entry_that_fits_best_is_chosen_wherever_it_stands() {
        let (amd64, v3, arm) = (Some("linux/amd64"), Some("linux/amd64/v3"), Some("linux/arm64"));
        let wanted = "linux/amd64";
        assert_eq!(
            chosen(&[(v3, v3), (amd64, amd64)], wanted),
            Some(1),
            "not a variant that the machine may lack"
        );
        assert_eq!(chosen(&[(v3, v3), (arm, arm)], wanted), Some(0), "but better than nothing");
        assert_eq!(chosen(&[(None, amd64), (amd64, amd64)], wanted), Some(1), "what is named comes first");
        assert_eq!(chosen(&[(None, arm), (None, amd64)], wanted), Some(1), "the configuration says it");
        assert_eq!(chosen(&[(None, None), (None, amd64)], wanted), Some(1));
        assert_eq!(chosen(&[(amd64, None)], wanted), Some(0), "the index says it");
        assert_eq!(chosen(&[(amd64, arm)], wanted), None, "the index and the configuration disagree");
        assert_eq!(chosen(&[(None, None)], wanted), None);
    }

    #[test]
    fn an_entry_with_half_a_platform_stands_in_the_way_of_no_other() {
        let mut place = Place::new();
        let mut index = Index::parse(&place.root).unwrap();
        for platform in index.manifests[0].platform.iter_mut() {
            platform.os.clear();
        }
        place.root = Document::write(media_type::INDEX, &index);
        assert_eq!(place.select("linux/arm64").unwrap().config.platform.architecture, "arm64");
        assert_eq!(place.select("linux/amd64").unwrap().config.platform.architecture, "amd64");
    }

    #[test]
    fn without_a_wish_the_only_image_is_taken_and_one_of_several_for_other_machines_is_not() {
        let select = |entries: &[(Option<&str>, Option<&str>)]| {
            let place = listing(entries);
            select(&place.root, None, |entry| {
                place
                    .documents
                    .get(&entry.digest.to_string())
                    .cloned()
                    .ok_or_else(|| Error::not_found("nothing"))
            })
        };
        let (strange, other) = (Some("linux/s390x"), Some("linux/ppc64"));
        for only in [(strange, strange), (None, strange), (None, None), (strange, None)] {
            assert!(select(&[only]).is_ok(), "{only:?}");
        }
        for several in [[(strange, strange), (other, other)], [(None, strange), (None, other)]] {
            let error = select(&several).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::NotFound);
            assert!(error.hint().unwrap().ends_with("linux/s390x, linux/ppc64"), "{error:?}");
        }
    }

    #[test]
    fn artifacts_beside_an_image_are_passed_over_and_one_alone_is_named() {
        let mut place = Place::new();
        let config = Document::new("application/vnd.example.config+json", b"{}".to_vec());
        let artifact = Manifest::new(config.descriptor().clone(), Vec::new(), Default::default());
        let artifact = Document::write(media_type::MANIFEST, &artifact);
        place.add(artifact.clone());
        let mut index = Index::parse(&place.root).unwrap();
        let mut labelled = artifact.descriptor().clone();
        labelled.extra.insert(ARTIFACT_TYPE, &"application/x".into());
        index.manifests.insert(0, artifact.descriptor().clone());
        index.manifests.insert(0, labelled);
        for entry in &mut index.manifests {
            entry.platform = None;
        }
        place.root = Document::write(media_type::INDEX, &index);
        assert_eq!(place.select("linux/arm64").unwrap().config.platform.architecture, "arm64");

        let alone = Index::new(vec![artifact.descriptor().clone()], Default::default());
        for root in [artifact, Document::write(media_type::INDEX, &alone)] {
            place.root = root;
            let error = place.select("linux/arm64").unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            let what = "is an artifact of type application/vnd.example.config+json and not an image";
            assert!(error.to_string().ends_with(what), "{error}");
        }
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
