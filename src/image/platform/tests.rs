//! Tests of the selection of an image.

use super::*;
use crate::image::Description;
use crate::stream::Unverified;
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Mutex;

/// A source of an image for both default platforms, which records the documents that are fetched.
struct ImageSource {
    root: Document,
    documents: HashMap<String, Document>,
    fetched: Mutex<Vec<Document>>,
}

impl ImageSource {
    fn new() -> Self {
        let built = Description::default().build(&[]).unwrap();
        let mut source = Self::with(built.root);
        built.configs.into_iter().chain(built.manifests).for_each(|document| source.add(document));
        source
    }

    fn with(root: Document) -> Self {
        Self { root, documents: HashMap::new(), fetched: Mutex::default() }
    }

    fn add(&mut self, document: Document) {
        self.documents.insert(document.descriptor().digest.to_string(), document);
    }

    fn select(&self, wanted: &str) -> Result<Selected> {
        select(&self.root, Some(&wanted.parse().unwrap()), self)
    }
}

impl Source for ImageSource {
    fn resolve(&self) -> Result<Document> {
        Ok(self.root.clone())
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let found = self.documents.get(&descriptor.digest.to_string()).cloned();
        let document = found.ok_or_else(|| Error::not_found("nothing"))?;
        self.fetched.lock().unwrap().push(document.clone());
        Ok(Unverified::new(Cursor::new(document.bytes().to_vec())))
    }
}

#[test]
fn images_for_other_platforms_need_not_be_present() {
    let source = ImageSource::new();
    let selected = source.select("linux/arm64").unwrap();
    assert_eq!(selected.config.platform.architecture, "arm64");
    assert_eq!(source.fetched.lock().unwrap().len(), 2, "the manifest and its configuration");
}

#[test]
fn an_image_that_is_listed_and_missing_is_not_found_and_others_are_named() {
    let mut source = ImageSource::new();
    let manifest = source.select("linux/arm64").unwrap().document.descriptor().digest.to_string();
    source.documents.remove(&manifest);
    let error = source.select("linux/arm64").unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::NotFound);
    let hint = error.hint().unwrap();
    assert!(hint.contains("linux/arm64 is listed") && hint.ends_with("--platform: linux/amd64"), "{hint}");
    assert!(source.select("linux/amd64").is_ok());
}

#[test]
fn a_requested_platform_is_not_replaced_by_the_only_one() {
    let description =
        Description { platforms: vec![Platform::new("linux", "s390x")], ..Description::default() };
    let built = description.build(&[]).unwrap();
    let mut source = ImageSource::with(built.root);
    built.configs.into_iter().for_each(|document| source.add(document));
    assert!(source.select("linux/s390x").is_ok());
    let error = source.select("linux/amd64").unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::NotFound);
    assert!(error.hint().unwrap().contains("linux/s390x"));
}

/// Returns a source whose index has an image for each of these pairs of platforms, in the index and in the config. The
/// number of the image is its time of creation.
fn listing(entries: &[(Option<&str>, Option<&str>)]) -> ImageSource {
    let mut source = ImageSource::new();
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
        source.add(config);
        source.add(manifest);
    }
    source.root = Document::write(media_type::INDEX, &Index::new(manifests, Default::default()));
    source
}

/// Returns the number of the chosen entry.
fn chosen(entries: &[(Option<&str>, Option<&str>)], wanted: &str) -> Option<usize> {
    let selected = listing(entries).select(wanted).ok()?;
    selected.config.created.map(|number| number.parse().unwrap())
}

#[test]
fn the_best_entry_is_selected_at_any_position() {
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
fn an_entry_with_half_a_platform_does_not_affect_others() {
    let mut source = ImageSource::new();
    let mut index = Index::parse(&source.root).unwrap();
    for platform in index.manifests[0].platform.iter_mut() {
        platform.os.clear();
    }
    source.root = Document::write(media_type::INDEX, &index);
    assert_eq!(source.select("linux/arm64").unwrap().config.platform.architecture, "arm64");
    assert_eq!(source.select("linux/amd64").unwrap().config.platform.architecture, "amd64");
}

#[test]
fn without_a_requested_platform_only_a_single_image_for_another_platform_is_selected() {
    let select = |entries: &[(Option<&str>, Option<&str>)]| {
        let source = listing(entries);
        select(&source.root, None, &source)
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
fn artifacts_beside_an_image_are_skipped_and_a_single_one_is_named() {
    let mut source = ImageSource::new();
    let config = Document::new("application/vnd.example.config+json", b"{}".to_vec());
    let artifact = Manifest::new(config.descriptor().clone(), Vec::new(), Default::default());
    let artifact = Document::write(media_type::MANIFEST, &artifact);
    source.add(artifact.clone());
    let mut index = Index::parse(&source.root).unwrap();
    let mut labelled = artifact.descriptor().clone();
    labelled.extra.insert(ARTIFACT_TYPE, &"application/x".into());
    index.manifests.insert(0, artifact.descriptor().clone());
    index.manifests.insert(0, labelled);
    for entry in &mut index.manifests {
        entry.platform = None;
    }
    source.root = Document::write(media_type::INDEX, &index);
    assert_eq!(source.select("linux/arm64").unwrap().config.platform.architecture, "arm64");

    let alone = Index::new(vec![artifact.descriptor().clone()], Default::default());
    for root in [artifact, Document::write(media_type::INDEX, &alone)] {
        source.root = root;
        let error = source.select("linux/arm64").unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Usage);
        let what = "is an artifact of type application/vnd.example.config+json and not an image";
        assert!(error.to_string().ends_with(what), "{error}");
    }
}

#[test]
fn an_index_that_lists_a_document_too_often_is_refused_before_it_is_fetched() {
    let manifest = ImageSource::new().root;
    let entries = vec![manifest.descriptor().clone(); DOCUMENT_COUNT_LIMIT + 1];
    let mut source =
        ImageSource::with(Document::write(media_type::INDEX, &Index::new(entries, Default::default())));
    source.add(manifest);
    assert_eq!(source.select("linux/amd64").unwrap_err().kind(), crate::error::Kind::Integrity);
}

#[test]
fn indexes_that_are_nested_too_deep_are_refused() {
    let nested = |depth| {
        let mut source = ImageSource::new();
        for _ in 0..depth {
            let index = Index::new(vec![source.root.descriptor().clone()], Default::default());
            let above = Document::write(media_type::INDEX, &index);
            let below = std::mem::replace(&mut source.root, above);
            source.add(below);
        }
        source.select("linux/amd64")
    };
    assert!(nested(DEPTH_LIMIT - 1).is_ok());
    assert_eq!(nested(DEPTH_LIMIT).unwrap_err().kind(), crate::error::Kind::Integrity);
}
