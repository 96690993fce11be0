//! Deleting manifests.

use super::Shared;
use super::protocol::{error, reply};
use axum::http::StatusCode;
use axum::response::Response;

/// What may be deleted.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletes {
    /// Tags alone, and images by their digests.
    #[default]
    All,
    /// Images by their digests, as distribution before 3 and Harbor have it; the status for a tag.
    Images(u16),
    /// Nothing.
    Nothing,
}

/// Takes a tag or a manifest away.
pub fn manifest(shared: &Shared, repository: &str, name: &str) -> Response {
    let mut inside = shared.inside();
    let is_digest = name.contains(':');
    let found = match inside.behaviour.deletes {
        Deletes::Nothing => return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        Deletes::Images(status) if !is_digest => {
            return error(StatusCode::from_u16(status).unwrap(), "UNSUPPORTED");
        }
        _ if is_digest => inside.store.delete(repository, name),
        _ => inside.store.untag(repository, name),
    };
    match found {
        true => reply(StatusCode::ACCEPTED),
        false => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
    }
}
