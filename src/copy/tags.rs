//! Copying several tags, one image after the other. Blobs that they share are copied once.

use super::{Copied, Known, Options, copy_image};
use crate::error::{Error, Kind, Result};
use crate::oci::{is_attachment_tag, tags_about};
use crate::progress::Progress;
use crate::transport::{Destination, Source};
use std::collections::HashSet;

/// The result for one tag.
#[derive(Debug)]
pub struct TagCopied {
    /// The tag.
    pub tag: String,
    /// The result of the copy.
    pub outcome: Result<Copied>,
}

/// Copies the images with these tags. `open` opens the source and the destination for a tag. Tags of attachments are not
/// images: [`Options::referrers`] copies them, once, with the images that they belong to. A warning says how many are left.
///
/// The copy continues if an image is damaged or missing, or if the destination cannot have the tag.
///
/// # Errors
/// All other errors, which the next tag would have too.
pub fn copy_tags(
    tags: &[String],
    open: impl Fn(&str) -> Result<(Box<dyn Source>, Box<dyn Destination>)>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<TagCopied>> {
    let (attachments, tags): (Vec<&String>, Vec<&String>) =
        tags.iter().partition(|tag| is_attachment_tag(tag));
    let mut known = Known::default();
    let mut copied = Vec::with_capacity(tags.len());
    for tag in tags {
        let outcome = open(tag)
            .and_then(|(from, to)| copy_image(from.as_ref(), to.as_ref(), options, progress, &mut known));
        match outcome {
            Err(error) if !concerns_one_image(&error) => return Err(error),
            outcome => copied.push(TagCopied { tag: tag.clone(), outcome }),
        }
    }
    if let Some(warning) = left_out(&attachments, &known, options) {
        progress.warn(&warning);
    }
    Ok(copied)
}

/// Returns the warning about the attachments that were not copied.
fn left_out(attachments: &[&String], known: &Known, options: &Options) -> Option<String> {
    let followed: HashSet<String> = known.followed.iter().flat_map(tags_about).collect();
    let left: Vec<&str> =
        attachments.iter().map(|tag| tag.as_str()).filter(|tag| !followed.contains(*tag)).collect();
    let number = left.len();
    match (left.first(), options.referrers) {
        (None, _) => None,
        (Some(first), false) => Some(format!(
            "signatures and other attachments are not copied without --referrers, such as {first} ({number} in all)"
        )),
        (Some(first), true) => Some(format!(
            "attachments that belong to no image that was copied are left out, such as {first} ({number} in all)"
        )),
    }
}

fn concerns_one_image(error: &Error) -> bool {
    matches!(error.kind(), Kind::Integrity | Kind::NotFound | Kind::Usage)
}
