//! The decision about each tag.

use super::catalog::{CONCURRENT_READS, Catalog, Image, Meaning};
use super::policy::Candidate;
use super::report::{Fate, PrunedTag, Reason};
use super::{EmptyResult, Options};
use crate::error::{Error, Result};
use crate::oci::{Digest, attachment_subject, is_attachment_tag};
use crate::stream::try_for_each;
use jiff::{Timestamp, Zoned};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An image at a time, with the tags that say so.
struct DatedImage {
    image: Arc<Image>,
    time: Zoned,
    tags: Vec<String>,
    /// The time that the image itself has, if others have the same time in their tags.
    created: Option<Timestamp>,
}

/// Decides about tags. Those of images that belong to the group are read, and no others.
///
/// # Errors
/// Those of reading; [`Refused`](crate::error::Kind::Refused) if the policy keeps none of the images that have a time.
pub(super) fn decide(catalog: &Catalog<'_>, tags: &[String], options: &Options) -> Result<Vec<PrunedTag>> {
    let mut decided: BTreeMap<String, PrunedTag> = BTreeMap::new();
    let mut decide = |tag: PrunedTag| decided.insert(tag.tag.clone(), tag);
    let mut group = Vec::new();
    for tag in tags {
        if is_attachment_tag(tag) {
            let reason = attachment_subject(tag).map_or(Reason::OtherGroup, Reason::AttachedTo);
            decide(PrunedTag::new(tag, Fate::Keep, reason));
        } else if options.template.as_ref().is_none_or(|template| template.matches(tag).is_some()) {
            group.push(tag.clone());
        } else {
            decide(PrunedTag::new(tag, Fate::Keep, Reason::OtherGroup));
        }
    }
    let mut dated: HashMap<(Digest, Timestamp), DatedImage> = HashMap::new();
    for (tag, meaning) in group.iter().zip(catalog.read(&group)?) {
        let image = match meaning {
            Meaning::Image(image) => image,
            Meaning::Missing => continue,
            Meaning::Unreadable(why) => {
                decide(PrunedTag::new(tag, Fate::Keep, Reason::Unreadable(why)));
                continue;
            }
        };
        let Some(time) = time(catalog, options, tag, &image)? else {
            let digest = Some(image.digest.clone());
            decide(PrunedTag { digest, ..PrunedTag::new(tag, Fate::Keep, Reason::NoTime) });
            continue;
        };
        let key = (image.digest.clone(), time.timestamp());
        dated
            .entry(key)
            .or_insert_with(|| DatedImage { image, time, tags: Vec::new(), created: None })
            .tags
            .push(tag.clone());
    }
    let mut images: Vec<DatedImage> = dated.into_values().collect();
    read_created(catalog, &mut images)?;
    for tag in apply(images, options)? {
        decide(tag);
    }
    Ok(decided.into_values().collect())
}

/// Reads when images were made that have the same time in their tags, such as those of one day.
fn read_created(catalog: &Catalog<'_>, images: &mut [DatedImage]) -> Result<()> {
    let mut counts: HashMap<Timestamp, usize> = HashMap::new();
    images.iter().for_each(|image| *counts.entry(image.time.timestamp()).or_default() += 1);
    let is_tied = |image: &&mut DatedImage| counts[&image.time.timestamp()] > 1;
    let mut tied: Vec<&mut DatedImage> = images.iter_mut().filter(is_tied).collect();
    let documents: Vec<Arc<Image>> = tied.iter().map(|image| Arc::clone(&image.image)).collect();
    let times = try_for_each(CONCURRENT_READS, &documents, |_, image| catalog.time(image)).into_result()?;
    for (image, time) in tied.iter_mut().zip(times) {
        image.created = time.map(|time| time.timestamp());
    }
    Ok(())
}

/// Returns the time of an image: the one in its tag, or else its own. A time before 1971 is that of a clock that was not set.
fn time(catalog: &Catalog<'_>, options: &Options, tag: &str, image: &Image) -> Result<Option<Zoned>> {
    let in_tag =
        options.template.as_ref().and_then(|template| template.matches(tag)).and_then(|found| found.time);
    match in_tag {
        Some(time) if time.year() > 1970 => Ok(time.to_zoned(options.time_zone.clone()).ok()),
        _ => catalog.time(image),
    }
}

/// Applies the policy to images with times.
fn apply(mut images: Vec<DatedImage>, options: &Options) -> Result<Vec<PrunedTag>> {
    images.iter_mut().for_each(|image| image.tags.sort_unstable());
    // Of images with the same time, the one that was just packed counts as the newest, then the one that was made later, and
    // then the one with the greater tag.
    let is_just_packed = |image: &DatedImage| options.just_packed.as_ref() == Some(&image.image.digest);
    let rank = |image: &DatedImage| (image.time.timestamp(), is_just_packed(image), image.created);
    images.sort_by(|one, other| (rank(other), &other.tags).cmp(&(rank(one), &one.tags)));
    let candidates: Vec<Candidate<'_>> = images
        .iter()
        .map(|image| Candidate { digest: &image.image.digest, time: &image.time, tags: &image.tags })
        .collect();
    let reasons = options.policy.apply(&candidates, options.now);
    let is_nothing_kept = !images.is_empty() && reasons.iter().all(Vec::is_empty);
    if is_nothing_kept && options.empty_result == EmptyResult::Refuse {
        return Err(Error::refused(format!(
            "the rules keep none of {} images, and all would be removed",
            images.len()
        ))
        .with_hint(
            "check the rules; --allow-remove-all with --tag-template removes all images of that template",
        ));
    }
    let mut kept_as: HashMap<&Digest, &str> = HashMap::new();
    let mut reasons: Vec<Vec<Reason>> =
        reasons.into_iter().map(|why| why.into_iter().map(Reason::Policy).collect()).collect();
    for (image, why) in images.iter().zip(&mut reasons) {
        let digest = &image.image.digest;
        if why.is_empty() && options.just_packed.as_ref() == Some(digest) && !kept_as.contains_key(digest) {
            why.push(Reason::JustPacked);
        }
        if !why.is_empty() {
            kept_as.entry(digest).or_insert(&image.tags[0]);
        }
    }
    let mut decided = Vec::new();
    for (image, mut why) in images.iter().zip(reasons) {
        let fate = if why.is_empty() { Fate::Remove } else { Fate::Keep };
        if fate == Fate::Remove {
            let kept = kept_as.get(&image.image.digest);
            why.push(kept.map_or(Reason::NoRule, |tag| Reason::KeptAs((*tag).to_owned())));
        }
        decided.extend(image.tags.iter().map(|tag| PrunedTag {
            tag: tag.clone(),
            digest: Some(image.image.digest.clone()),
            time: Some(image.time.clone()),
            fate,
            reasons: why.clone(),
        }));
    }
    Ok(decided)
}
