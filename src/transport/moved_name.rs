//! The error for a name that another writer has moved meanwhile.

use crate::error::{Error, Kind, Result};
use crate::oci::Digest;

/// Fails unless a name still means what it meant before, or already means the image that should get it. `found` is what it
/// means now; `new` is the digest of that image, and `address` its address.
///
/// # Errors
/// [`Refused`](Kind::Refused) if it means something else.
pub fn ensure_unmoved(
    name: &str,
    expected: Option<&Digest>,
    found: Option<&Digest>,
    new: &Digest,
    address: &str,
) -> Result<()> {
    if expected == found || found == Some(new) {
        return Ok(());
    }
    let shown = |digest: Option<&Digest>| digest.map_or("nothing".to_owned(), Digest::to_string);
    Err(Error::refused(format!(
        "another writer has changed {name}: it meant {} and means {} now",
        shown(expected),
        shown(found)
    ))
    .with_hint(format!("nothing is lost: the new image is {address}, without a tag; run the command again")))
}

/// Returns what was found under a name; `None` if there is nothing.
pub(super) fn none_if_missing<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        found => found.map(Some),
    }
}
