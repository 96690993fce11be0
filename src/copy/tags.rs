//! Copying several tags, one image after the other. Blobs that they share are copied once.

use super::{Copied, Options, copy_image};
use crate::error::{Error, Kind, Result};
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

/// Copies the images with these tags. `open` opens the source and the destination for a tag.
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
    let mut present = HashSet::new();
    let mut copied = Vec::with_capacity(tags.len());
    for tag in tags {
        let outcome = open(tag)
            .and_then(|(from, to)| copy_image(from.as_ref(), to.as_ref(), options, progress, &mut present));
        match outcome {
            Err(error) if !concerns_one_image(&error) => return Err(error),
            outcome => copied.push(TagCopied { tag: tag.clone(), outcome }),
        }
    }
    Ok(copied)
}

fn concerns_one_image(error: &Error) -> bool {
    matches!(error.kind(), Kind::Integrity | Kind::NotFound | Kind::Usage)
}
