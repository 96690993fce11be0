//! The decision whether the signatures of an image are enough.

use super::find::find_signatures;
use super::key::PublicKey;
use super::policy::{Identity, Requirement};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::transport::{Location, Source};

/// The number of signatures that an error describes.
const DESCRIBED: usize = 5;

/// Fails unless the manifest or the index with this digest satisfies all of the requirements. `location` is where the image
/// was asked for: some requirements are about its name.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if it does not; the error says which signatures there are, and why they do
/// not count. Those of reading the signatures.
pub fn ensure_signed(
    source: &dyn Source,
    subject: &Digest,
    location: &Location,
    requirements: &[Requirement],
) -> Result<()> {
    for requirement in requirements {
        match requirement {
            Requirement::AcceptAnything => {}
            Requirement::Reject => {
                return Err(Error::integrity(format!("the policy rejects {location}")));
            }
            Requirement::Signed { keys, identity } => {
                ensure_signed_by(source, subject, location, keys, identity)?;
            }
        }
    }
    Ok(())
}

fn ensure_signed_by(
    source: &dyn Source,
    subject: &Digest,
    location: &Location,
    keys: &[PublicKey],
    identity: &Identity,
) -> Result<()> {
    let mut refused = Vec::new();
    let is_signed = find_signatures(source, subject, |signature| {
        let claim = signature.verify(keys).and_then(|claim| {
            if !claim.digests.contains(subject) {
                return Err(Error::integrity("it is about another image"));
            }
            if !identity.accepts(location, claim.reference.as_deref()) {
                return Err(Error::integrity(match claim.reference {
                    Some(reference) => format!("it was made for the name {reference:?}"),
                    None => "it names no image, and the policy requires a name".to_owned(),
                }));
            }
            Ok(())
        });
        match claim {
            Ok(()) => true,
            Err(why) => {
                refused.push(format!("{signature}: {why}"));
                false
            }
        }
    })
    .map_err(|error| error.context(format!("cannot read the signatures of {location}")))?;
    if is_signed { Ok(()) } else { Err(unsigned(subject, location, keys, &refused)) }
}

fn unsigned(subject: &Digest, location: &Location, keys: &[PublicKey], refused: &[String]) -> Error {
    if refused.is_empty() {
        return Error::integrity(format!(
            "{location} is not signed: {subject} has neither a .sig tag nor a bundle among its referrers"
        ))
        .with_hint("volio sign adds signatures; volio copy --referrers carries them with an image");
    }
    let more = match refused.len().saturating_sub(DESCRIBED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let described = refused.get(..DESCRIBED).unwrap_or(refused).join("; ");
    let hints: Vec<_> = keys.iter().map(PublicKey::hint).collect();
    Error::integrity(format!(
        "{location} is not signed as required: {subject} has no signature that counts: {described}{more}"
    ))
    .with_hint(format!("the key hint of what is trusted: {}", hints.join(", ")))
}
