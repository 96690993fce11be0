//! Policies: which images are accepted, and by which signatures (containers-policy.json(5)).
//!
//! A policy has a list of requirements for each scope of a transport. For an image those of its most specific scope count
//! ([`scope`]), and all of them must hold. The scopes, the names that a signature may claim ([`identity`]) and the strict
//! syntax ([`json`]) are those of containers/image, so that one file does for podman, skopeo, CRI-O and volio.
//!
//! A policy that volio cannot evaluate completely is refused as a whole: it is never weaker than it reads. This concerns
//! certificates, transparency logs and GnuPG, and also unknown transports and scopes that no image can have, which
//! containers/image ignores.

mod identity;
mod json;
mod name;
mod requirement;
mod scope;
#[cfg(test)]
mod tests;

pub use identity::Identity;
pub use name::ImageName;
pub use requirement::Requirement;

use super::PublicKey;
use crate::error::{Error, Result};
use crate::transport::Location;
use json::Value;
use requirement::Reader;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The maximum size of a policy in bytes.
const SIZE_LIMIT: u64 = 4 << 20;

/// The requirements for the images of each scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignaturePolicy {
    default: Vec<Requirement>,
    /// The requirements by transport and scope.
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

impl SignaturePolicy {
    /// Creates a policy that accepts every image with a signature by one of these keys, whatever name it claims, if any.
    pub fn from_keys(keys: Vec<PublicKey>) -> Self {
        let default = vec![Requirement::Signed { keys, identity: Identity::Any }];
        Self { default, transports: BTreeMap::new() }
    }

    /// Reads a policy from a file, such as `/etc/containers/policy.json`, and the keys from the files that it names.
    /// Relative paths in it are relative to the working directory, as in containers/image.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the policy is invalid, has more than 4 MiB or more than 1000 keys, or asks
    /// for what volio cannot evaluate; those of reading the files.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot use the policy {}", path.display());
        let file = File::open(path).map_err(|error| Error::io(what(), error))?;
        let mut json = Vec::new();
        file.take(SIZE_LIMIT + 1).read_to_end(&mut json).map_err(|error| Error::io(what(), error))?;
        Self::from_json(&json, &PublicKey::read).map_err(|error| error.context(what()))
    }

    /// Parses a policy. `read_key` reads the files with keys that it names.
    ///
    /// # Errors
    /// As [`read`](Self::read). The error names the place in the policy.
    pub fn from_json(json: &[u8], read_key: &dyn Fn(&Path) -> Result<PublicKey>) -> Result<Self> {
        if json.len() as u64 > SIZE_LIMIT {
            return Err(Error::usage(format!("it has more than {SIZE_LIMIT} bytes")));
        }
        let mut reader = Reader::new(read_key);
        let mut object = Value::document(json)?.object()?;
        let default = reader.requirements(&object.required("default")?)?;
        let mut transports = BTreeMap::new();
        if let Some(value) = object.optional("transports") {
            for (transport, scopes) in value.object()?.members() {
                if let Some(why) = scope::refuse_transport(&transport) {
                    return Err(scopes.error(why));
                }
                let mut read = BTreeMap::new();
                for (scope, requirements) in scopes.object()?.members() {
                    if let Some(why) = scope::refuse_scope(&transport, &scope) {
                        return Err(requirements.error(why));
                    }
                    read.insert(scope, reader.requirements(&requirements)?);
                }
                transports.insert(transport, read);
            }
        }
        object.finish()?;
        Ok(Self { default, transports })
    }

    /// Returns the requirements for the image at a location, at least one. All of them must hold.
    ///
    /// # Errors
    /// Those of finding the real path of a layout or an archive, by which scopes name it.
    pub fn requirements_for(&self, image: &Location) -> Result<&[Requirement]> {
        let Some(scopes) = self.transports.get(image.scheme()) else { return Ok(&self.default) };
        let chosen = scope::scopes(image)?.iter().find_map(|scope| scopes.get(scope));
        Ok(chosen.unwrap_or(&self.default))
    }
}
