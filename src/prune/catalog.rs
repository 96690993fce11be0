//! A catalog of the images of a place: when they were made, and what they refer to.

use crate::error::{Error, Kind, Result};
use crate::image::DEPTH_LIMIT;
use crate::oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, media_type};
use crate::stream::try_for_each;
use crate::transport::{Source, fetch};
use jiff::fmt::temporal::{Pieces, PiecesOffset};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The annotation with the time at which an image was made (image-spec, "Pre-Defined Annotation Keys").
const CREATED: &str = "org.opencontainers.image.created";

/// The number of tags that are read at the same time.
pub(super) const CONCURRENT_READS: usize = 6;

/// The largest number of manifests that all images together may list: about 100 MiB of memory.
const LINKS_LIMIT: usize = 500_000;

/// The images of a place, each read once.
pub(super) struct Catalog<'a> {
    source: &'a dyn Source,
    images: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    images: HashMap<Digest, Arc<Image>>,
    /// The number of their links.
    links: usize,
}

/// A manifest or an index.
#[derive(Debug)]
pub(super) struct Image {
    /// Its digest.
    pub digest: Digest,
    /// Its annotation about its time.
    created: Option<String>,
    /// Its configuration, if it is an image for one platform.
    config: Option<Descriptor>,
    /// The manifests that it lists.
    children: Vec<Descriptor>,
    /// The manifest that it refers to.
    pub subject: Option<Descriptor>,
}

/// The meaning of a tag.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    Image(Arc<Image>),
    /// It does not exist any more.
    Missing,
    /// It means something that cannot be read, for this reason.
    Unreadable(String),
}

impl<'a> Catalog<'a> {
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source, images: Mutex::default() }
    }

    /// Reads what these tags mean.
    ///
    /// # Errors
    /// Those of the source, except that an image is missing or damaged.
    pub fn read(&self, tags: &[String]) -> Result<Vec<Meaning>> {
        try_for_each(CONCURRENT_READS, tags, |_, tag| self.meaning(tag)).into_result()
    }

    /// Reads what a tag means.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn meaning(&self, tag: &str) -> Result<Meaning> {
        let read = self.source.tagged(tag);
        match read.and_then(|document| document.map(|document| self.remember(&document)).transpose()) {
            Ok(Some(image)) => Ok(Meaning::Image(image)),
            Ok(None) => Ok(Meaning::Missing),
            Err(error) => match error.kind() {
                Kind::NotFound => Ok(Meaning::Missing),
                Kind::Integrity | Kind::Usage => Ok(Meaning::Unreadable(error.to_string())),
                _ => Err(error),
            },
        }
    }

    /// Returns the image with this digest, if it was read before.
    pub fn known(&self, digest: &Digest) -> Option<Arc<Image>> {
        self.lock().images.get(digest).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // No code panics while it holds the lock.
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, document: &Document) -> Result<Arc<Image>> {
        if let Some(known) = self.known(&document.descriptor().digest) {
            return Ok(known);
        }
        let image = Arc::new(Image::parse(document)?);
        let mut known = self.lock();
        known.links += image.children.len();
        if known.links > LINKS_LIMIT {
            return Err(Error::failed(format!("the images list more than {LINKS_LIMIT} manifests")));
        }
        known.images.insert(image.digest.clone(), Arc::clone(&image));
        Ok(image)
    }

    fn fetch(&self, descriptor: &Descriptor) -> Result<Arc<Image>> {
        if let Some(known) = self.known(&descriptor.digest) {
            return Ok(known);
        }
        self.remember(&fetch(self.source, descriptor)?)
    }

    /// Returns the digests of these images and of everything that they refer to: the manifests that an index lists, and the
    /// subjects of referrers. What does not exist is not followed.
    ///
    /// # Errors
    /// When something cannot be read, because then it is not known what else is needed.
    pub fn reach(&self, images: impl IntoIterator<Item = Arc<Image>>) -> Result<HashSet<Digest>> {
        let mut pending: Vec<Arc<Image>> = images.into_iter().collect();
        let mut reached: HashSet<Digest> = pending.iter().map(|image| image.digest.clone()).collect();
        while let Some(image) = pending.pop() {
            for link in image.children.iter().chain(&image.subject) {
                if !reached.insert(link.digest.clone()) {
                    continue;
                }
                match self.fetch(link) {
                    Ok(image) => pending.push(image),
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => {
                        return Err(error.context("what the images need that stay cannot be known"));
                    }
                }
            }
        }
        Ok(reached)
    }

    /// Returns the digests of these images and of the manifests that they list, directly or indirectly, without their
    /// subjects.
    ///
    /// # Errors
    /// As [`reach`](Self::reach).
    pub fn contents(&self, images: impl IntoIterator<Item = Arc<Image>>) -> Result<HashSet<Digest>> {
        self.reach(images.into_iter().map(|image| match image.subject {
            None => image,
            Some(_) => Arc::new(image.without_subject()),
        }))
    }

    /// Sorts images so that each comes before those that it refers to, directly or indirectly, and otherwise in their order.
    pub fn users_first(&self, images: &[Digest]) -> Vec<Digest> {
        let (mut sorted, mut seen) = (Vec::new(), HashSet::new());
        // Each image is pushed after all that it refers to, and the list is reversed at the end.
        for image in images.iter().rev() {
            let mut pending = vec![(image.clone(), false)];
            while let Some((digest, is_done)) = pending.pop() {
                if is_done {
                    sorted.push(digest);
                    continue;
                }
                if !seen.insert(digest.clone()) {
                    continue;
                }
                let links = self.known(&digest);
                pending.push((digest, true));
                for link in links.iter().flat_map(|image| image.children.iter().chain(&image.subject)) {
                    pending.push((link.digest.clone(), false));
                }
            }
        }
        let wanted: HashSet<&Digest> = images.iter().collect();
        sorted.into_iter().rev().filter(|digest| wanted.contains(digest)).collect()
    }

    /// Returns the time at which an image was made: its annotation, or else that in its configuration; `None` if neither has
    /// one.
    ///
    /// # Errors
    /// Those of reading the configuration.
    pub fn time(&self, image: &Image) -> Result<Option<Zoned>> {
        self.time_within(image, 0)
    }

    fn time_within(&self, image: &Image, depth: usize) -> Result<Option<Zoned>> {
        if let Some(time) = image.created.as_deref().and_then(parse_time) {
            return Ok(Some(time));
        }
        if let Some(config) = &image.config {
            let config: Result<ImageConfig> = fetch(self.source, config).and_then(|config| config.parse());
            let created = none_if_damaged(config)?.and_then(|config| config.created);
            return Ok(created.as_deref().and_then(parse_time));
        }
        // Every platform's image of an index is made at the same time.
        let is_image =
            |child: &&Descriptor| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
        match image.children.iter().find(is_image) {
            Some(child) if depth < DEPTH_LIMIT => match none_if_damaged(self.fetch(child))? {
                Some(child) => self.time_within(&child, depth + 1),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// Returns `None` for what is missing or damaged: an image without a time is kept.
fn none_if_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Integrity) => Ok(None),
        read => read.map(Some),
    }
}

impl Image {
    fn parse(document: &Document) -> Result<Self> {
        let digest = document.descriptor().digest.clone();
        let subject = |extra: &crate::oci::Unknown| {
            extra.get("subject").and_then(|subject| serde_json::from_value::<Descriptor>(subject).ok())
        };
        let created = |annotations: &BTreeMap<String, String>| annotations.get(CREATED).cloned();
        if media_type::is_index(&document.descriptor().media_type) {
            let index = Index::parse(document)?;
            let (created, subject) = (created(&index.annotations), subject(&index.extra));
            let children =
                index.manifests.into_iter().filter(|child| media_type::is_document(&child.media_type));
            let slim = |child: Descriptor| Descriptor {
                platform: child.platform,
                ..Descriptor::new(child.media_type, child.digest, child.size)
            };
            return Ok(Self {
                digest,
                created,
                config: None,
                children: children.map(slim).collect(),
                subject,
            });
        }
        let manifest = Manifest::parse(document)?;
        Ok(Self {
            digest,
            created: created(&manifest.annotations),
            subject: subject(&manifest.extra),
            config: Some(manifest.config).filter(|config| media_type::is_config(&config.media_type)),
            children: Vec::new(),
        })
    }

    fn without_subject(&self) -> Self {
        Self {
            digest: self.digest.clone(),
            created: None,
            config: None,
            children: self.children.clone(),
            subject: None,
        }
    }
}

/// Parses a time of RFC 3339 with its time zone. A time before 1971 is that of a reproducible image, which has no time, and
/// so is the year 1 of Docker's images.
fn parse_time(text: &str) -> Option<Zoned> {
    let time: Timestamp = text.parse().ok()?;
    let zone = match Pieces::parse(text).ok()?.offset()? {
        PiecesOffset::Numeric(offset) => TimeZone::fixed(offset.offset()),
        _ => TimeZone::UTC,
    };
    let time = time.to_zoned(zone);
    (time.year() > 1970).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_time_zone_in_which_it_was_written_and_1970_is_none() {
        for (text, date) in [
            ("2026-11-29T23:30:00Z", Some("2026-11-29")),
            ("2026-11-29T23:30:00-02:00", Some("2026-11-29")),
            ("2026-11-29T23:30:00.123456789+14:00", Some("2026-11-29")),
            ("1970-01-01T00:00:00Z", None),
            ("1970-01-01T00:00:01Z", None),
            ("0001-01-01T00:00:00Z", None),
            ("yesterday", None),
            ("2026-11-29", None),
            ("", None),
        ] {
            let time = parse_time(text);
            assert_eq!(time.map(|time| time.date().to_string()).as_deref(), date, "{text}");
        }
    }
}
