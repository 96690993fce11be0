//! All tags of a place, one image after the other. What one has brought, the next need not.

use super::{Copied, Options, copy_one};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::transport::{Destination, Source};
use std::collections::HashSet;

/// What became of one tag.
#[derive(Debug)]
pub struct TagCopied {
    /// The tag.
    pub tag: String,
    /// What was copied, or why it was not.
    pub outcome: Result<Copied>,
}

/// Copies the images with these tags; `open` opens both places, bound to a tag.
///
/// A tag whose image is damaged or gone, or that cannot be a tag at the destination, does not keep the others.
///
/// # Errors
/// What is wrong with a place and not with one image: the next tag would fail as well.
pub fn copy_tags(
    tags: &[String],
    open: impl Fn(&str) -> Result<(Box<dyn Source>, Box<dyn Destination>)>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<TagCopied>> {
    let mut seen = HashSet::new();
    let mut copied = Vec::with_capacity(tags.len());
    for tag in tags {
        let outcome = open(tag)
            .and_then(|(from, to)| copy_one(from.as_ref(), to.as_ref(), options, progress, &mut seen));
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
