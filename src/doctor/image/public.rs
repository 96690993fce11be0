//! Whether everybody can read the image.

use super::Finding;
use crate::error::Kind;
use crate::transport::registry::Registry;
use crate::transport::{Access, Location, Source};

/// Users have pushed their data to public repositories without knowing that they are.
const PUBLIC: &str = "https://github.com/docker/cli/issues/1436";

/// Asks for the image without credentials. A failure of the network is not a finding.
pub(super) fn check(location: &Location, access: &Access) -> Option<Finding> {
    let Location::Registry(reference) = location else { return None };
    let anonymous = Access { credentials: Vec::new(), ..access.clone() };
    let registry = Registry::new(reference.clone(), &anonymous).ok()?;
    let place = reference.name();
    match registry.resolve() {
        Ok(_) => Some(
            Finding::warning(
                "public",
                place,
                "everybody who can reach the registry can read the image, without credentials",
            )
            .by(PUBLIC)
            .advise("make the repository private, unless the content is meant for everybody"),
        ),
        // A private repository may seem not to exist.
        Err(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound) => {
            Some(Finding::ok("public", place, "it cannot be read without credentials").by(PUBLIC))
        }
        Err(_) => None,
    }
}
