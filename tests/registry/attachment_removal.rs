//! Attachments of an image go with its last tag, from layouts and from registries with different abilities.

use super::attachments::{image, put, registry, sign, signature};
use super::{Deletes, Registry};
use tempfile::TempDir;
use volio::oci::{Descriptor, Document, Index, attachment_tags, media_type, referrers_tag};
use volio::tags;
use volio::transport::{Access, Destination, Location, Removed, Source};

/// A place that images are removed from.
struct Place {
    name: String,
    location: Location,
    /// The content of the location.
    _storage: (Option<Registry>, Option<TempDir>),
    lists_referrers: bool,
}

impl Place {
    fn source(&self) -> Box<dyn Source> {
        self.location.source(&Access::default()).unwrap()
    }

    fn destination(&self, tag: &str) -> Box<dyn Destination> {
        self.location.with_tag(tag).unwrap().destination(&Access::default()).unwrap()
    }

    fn remove(&self, tag: &str) -> Removed {
        let removed = self.location.with_tag(tag).unwrap().removal(&Access::default()).unwrap().remove(false);
        let removed = removed.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert_eq!(removed.tags, [tag], "{}", self.name);
        removed
    }

    fn tags(&self) -> tags::Tags {
        tags::list(&*self.source()).unwrap()
    }

    fn referrers(&self, subject: &Document) -> usize {
        self.source().referrers(&subject.descriptor().digest).unwrap().len()
    }

    fn has_tag(&self, subject: &Document, which: usize) -> bool {
        let tag = &attachment_tags(&subject.descriptor().digest)[which];
        self.source().tagged(tag).unwrap().is_some()
    }
}

/// Returns a layout, and registries that delete tags or only images, with and without the referrers API.
fn places() -> Vec<Place> {
    let directory = tempfile::tempdir().unwrap();
    let location = format!("oci:{}:v1", directory.path().display()).parse().unwrap();
    let layout = Place {
        name: "layout".to_owned(),
        location,
        _storage: (None, Some(directory)),
        lists_referrers: true,
    };
    let mut places = vec![layout];
    for (lists_referrers, deletes) in [
        (true, Deletes::All),
        (false, Deletes::All),
        (true, Deletes::Images(405)),
        (false, Deletes::Images(404)),
    ] {
        let registry = registry(lists_referrers);
        registry.behave(|behaviour| behaviour.deletes = deletes);
        let name = format!("lists {lists_referrers}, deletes tags {}", deletes == Deletes::All);
        let location = registry.location("data", "v1");
        places.push(Place { name, location, _storage: (Some(registry), None), lists_referrers });
    }
    places
}

#[test]
fn everything_that_is_attached_goes_with_the_last_tag_and_not_before() {
    for place in places() {
        let to = place.destination("v1");
        let [index, amd64, arm64] = &image(&*to, "data");
        let made = sign(&*to, &[index.clone(), amd64.clone(), arm64.clone()]);
        let other = image(&*place.destination("other"), "other");
        let others = sign(&*place.destination("other"), &other);
        let can_have_two = !place.name.contains("tags false");
        drop(to);
        if can_have_two {
            place.destination("latest").commit(index).unwrap();
            let removed = place.remove("latest");
            assert_eq!((removed.attachments, removed.attachments_left), (Vec::new(), None), "{}", place.name);
        }
        let before = place.tags().attachments.len();
        let removed = place.remove("v1");
        assert_eq!(removed.attachments_left, None, "{}", place.name);
        // Without the API there are indexes of referrers too: for each document and for the signature of the SBOM.
        let indexes = if place.lists_referrers { 0 } else { 4 };
        assert_eq!(
            removed.attachments.len(),
            made.len() + indexes,
            "{}: {:?}",
            place.name,
            removed.attachments
        );
        for subject in [index, amd64, arm64, &made[7], &made[8]] {
            assert_eq!(place.referrers(subject), 0, "{}", place.name);
            assert!((0..3).all(|which| !place.has_tag(subject, which)), "{}", place.name);
        }
        let left = place.tags();
        assert_eq!(
            (left.images, left.attachments.len()),
            (vec!["other".to_owned()], before / 2),
            "{}",
            place.name
        );
        let removed = place.remove("other");
        assert_eq!(removed.attachments.len(), others.len() + indexes, "{}", place.name);
        if place.name == "layout" {
            let blobs = std::fs::read_dir(place.location.path().unwrap().join("blobs/sha256")).unwrap();
            assert_eq!(blobs.count(), 0, "no blob is left");
        }
    }
}

#[test]
fn what_another_image_has_keeps_its_attachments() {
    for place in places() {
        let to = place.destination("v1");
        let [index, amd64, arm64] = &image(&*to, "data");
        sign(&*to, &[index.clone(), amd64.clone(), arm64.clone()]);
        // Another index has one of the platforms, and another image has the same SBOM.
        let to = place.destination("v2");
        let second = Index::new(vec![amd64.descriptor().clone()], Default::default());
        let second = Document::write(media_type::INDEX, &second);
        to.put_manifest(&second).unwrap();
        to.commit(&second).unwrap();
        let sbom = signature(&*to, index, ".sbom", &["the same"]);
        signature(&*to, &second, ".sbom", &["the same"]);
        signature(&*to, &sbom, ".sig", &["of the same"]);
        let kept = place.referrers(amd64);
        let removed = place.remove("v1");
        assert_eq!(place.referrers(amd64), kept, "{}", place.name);
        assert!(
            place.has_tag(amd64, 0) && place.has_tag(&second, 2) && place.has_tag(&sbom, 0),
            "{}",
            place.name
        );
        assert!(!place.has_tag(index, 0) && !place.has_tag(arm64, 0), "{}", place.name);
        assert_eq!(place.referrers(index) + place.referrers(arm64), 0, "{}", place.name);
        // A registry that cannot delete a tag would take the SBOM from the other image.
        let is_left = place.name.contains("tags false");
        assert_eq!(place.has_tag(index, 2), is_left, "{}", place.name);
        assert_eq!(
            removed.attachments_left.is_some(),
            is_left,
            "{}: {:?}",
            place.name,
            removed.attachments_left
        );
        place.remove("v2");
        assert!(!place.has_tag(amd64, 0), "{}", place.name);
        assert_eq!(place.has_tag(&second, 2), is_left, "{}: two tags share the SBOM", place.name);
    }
}

#[test]
fn a_list_of_referrers_with_foreign_entries_removes_none_of_them() {
    let registry = registry(false);
    let client = registry.client("data", "v1");
    let [index, ..] = image(&client, "data");
    let [other, ..] = image(&registry.client("data", "v2"), "other");
    let foreign = put(&client, "test/foreign", "test/foreign", &["foreign"], Some(&other));
    let gone = Descriptor::of(media_type::MANIFEST, b"gone");
    let list =
        Index::new(vec![other.descriptor().clone(), foreign.descriptor().clone(), gone], Default::default());
    let list = Document::write(media_type::INDEX, &list);
    let tag = referrers_tag(&index.descriptor().digest);
    registry.plant("data", &tag, media_type::INDEX, list.bytes().to_vec());
    let removal = registry.location("data", "v1").removal(&Access::default()).unwrap();
    assert_eq!(removal.remove(false).unwrap().attachments, [tag]);
    assert_eq!(registry.client("data", "v2").resolve().unwrap(), other);
    assert_eq!(client.referrers(&other.descriptor().digest).unwrap().len(), 1);
}

#[test]
fn attachments_stay_where_it_cannot_be_known_which_images_have_them() {
    let registry = registry(true);
    let client = registry.client("data", "v1");
    let [index, ..] = image(&client, "data");
    signature(&client, &index, ".sig", &["signature"]);
    // The image of another tag cannot be read.
    registry.plant("data", "damaged", media_type::INDEX, b"{".to_vec());
    let remove = |tag: &str| {
        registry.location("data", tag).removal(&Access::default()).unwrap().remove(false).unwrap()
    };
    let removed = remove("v1");
    assert_eq!((removed.tags, removed.attachments), (vec!["v1".to_owned()], Vec::new()));
    assert!(removed.attachments_left.unwrap().contains("damaged"));
    assert_eq!(tags::list(&client).unwrap().attachments.len(), 1);

    client.commit(&index).unwrap();
    for number in 0..1000 {
        registry.plant("data", &format!("t{number}"), media_type::MANIFEST, b"{}".to_vec());
    }
    let why = remove("v1").attachments_left.unwrap();
    assert!(why.contains("more than 1000"), "{why}");
    assert_eq!(tags::list(&client).unwrap().attachments.len(), 1);
}

#[test]
fn a_layout_with_a_damaged_index_keeps_the_attachments_of_a_removed_image() {
    let directory = tempfile::tempdir().unwrap();
    let name =
        |tag: &str| -> Location { format!("oci:{}:{tag}", directory.path().display()).parse().unwrap() };
    let access = Access::default();
    let to = name("v1").destination(&access).unwrap();
    let [index, ..] = image(&*to, "data");
    signature(&*to, &index, ".sig", &["signature"]);
    let [other, ..] = image(&*name("v2").destination(&access).unwrap(), "other");
    let damaged = directory.path().join("blobs/sha256").join(other.descriptor().digest.hex());
    std::fs::write(damaged, "damaged").unwrap();
    drop(to);
    let removed = name("v1").removal(&access).unwrap().remove(false).unwrap();
    assert!(removed.attachments.is_empty() && removed.attachments_left.is_some(), "{removed:?}");
    let source = name("v2").source(&access).unwrap();
    let tag = &attachment_tags(&index.descriptor().digest)[0];
    let signature = source.tagged(tag).unwrap().unwrap();
    let layer = &volio::oci::Manifest::parse(&signature).unwrap().layers[0];
    source.open(layer).unwrap().verify(layer).drain().unwrap();
}
