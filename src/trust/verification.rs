//! The decision whether the signatures of an image are enough.

use super::find::find_signatures;
use super::key::PublicKey;
use super::policy::{Identity, Requirement};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::transport::{Location, Source};

/// The number of signatures that an error describes.
const DESCRIBED: usize = 5;
/// The limit on what is said about a signature, in characters. Parts of it are text from outside.
const DESCRIPTION_LIMIT: usize = 500;

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
    let mut refused = Refused::default();
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
                refused.add(&format!("{signature}: {why}"));
                false
            }
        }
    })
    .map_err(|error| error.context(format!("cannot read the signatures of {location}")))?;
    if is_signed { Ok(()) } else { Err(unsigned(subject, location, keys, &refused)) }
}

/// The signatures that do not count, and why the first ones do not.
#[derive(Default)]
struct Refused {
    count: usize,
    described: Vec<String>,
}

impl Refused {
    fn add(&mut self, why: &str) {
        self.count += 1;
        if self.described.len() < DESCRIBED {
            let mut description: String = why.chars().take(DESCRIPTION_LIMIT).collect();
            if description.len() < why.len() {
                description.push_str("...");
            }
            self.described.push(description);
        }
    }
}

fn unsigned(subject: &Digest, location: &Location, keys: &[PublicKey], refused: &Refused) -> Error {
    if refused.count == 0 {
        return Error::integrity(format!(
            "{location} is not signed: {subject} has neither a .sig tag nor a bundle among its referrers"
        ))
        .with_hint("volio sign adds signatures; volio copy --referrers carries them with an image");
    }
    let more = match refused.count.saturating_sub(DESCRIBED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let described = refused.described.join("; ");
    let hints: Vec<_> = keys.iter().map(PublicKey::hint).collect();
    Error::integrity(format!(
        "{location} is not signed as required: {subject} has no signature that counts: {described}{more}"
    ))
    .with_hint(format!("the key hint of what is trusted: {}", hints.join(", ")))
}
