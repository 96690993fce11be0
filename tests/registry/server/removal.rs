//! Deleting manifests.

use super::Shared;
use super::protocol::{error, reply};
use axum::http::StatusCode;
use axum::response::Response;

/// The supported deletions.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletes {
    /// Tags, and images by digest.
    #[default]
    All,
    /// Images by digest, as in distribution before 3 and Harbor. The number is the status for a tag.
    Images(u16),
    /// None.
    Nothing,
}

/// Deletes a tag or a manifest.
pub fn manifest(shared: &Shared, repository: &str, name: &str) -> Response {
    let mut inside = shared.inside();
    if let Some(refusal) = inside.protected_tag(repository, name) {
        return refusal;
    }
    let is_digest = name.contains(':');
    let protected = inside.behaviour.protects.iter().find(|(protected, _)| protected == name);
    if let Some((_, status)) = protected {
        return error(StatusCode::from_u16(*status).unwrap(), "DENIED");
    }
    let found = match inside.behaviour.deletes {
        Deletes::Nothing => return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        Deletes::Images(status) if !is_digest => {
            return error(StatusCode::from_u16(status).unwrap(), "UNSUPPORTED");
        }
        _ if is_digest => inside.store.delete(repository, name),
        _ => inside.store.untag(repository, name),
    };
    if found { reply(StatusCode::ACCEPTED) } else { error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN") }
}
