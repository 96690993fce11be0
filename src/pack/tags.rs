//! Further tags of a packed image.

use super::Packed;
use crate::error::Result;
use crate::transport::Destination;

/// Gives a packed image further tags, beside its name. The image exists already: a run that ends in between leaves fewer tags.
///
/// # Errors
/// Those of writing; [`Usage`](crate::error::Kind::Usage) if the destination has one name only.
pub fn add_tags(destination: &dyn Destination, packed: &Packed, tags: &[String]) -> Result<()> {
    tags.iter().try_for_each(|tag| {
        let attached = destination.attach(tag, &packed.root);
        attached.map_err(|error| {
            error.context(format!("{} is stored, but cannot get the tag {tag}", packed.address))
        })
    })
}
