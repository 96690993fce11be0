//! The payload of a simple signature: what is signed, as JSON (cosign, `specs/SIGNATURE_SPEC.md`).
//!
//! It is parsed as strictly as containers/image does: a missing, unknown or repeated member is an error, so that no two
//! programs understand a signed text differently. Only `optional` may have further members.

use crate::error::{Error, Result};
use crate::oci::Digest;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The media type of a payload, as a layer of the manifest of signatures.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The only value of `type`.
const TYPE: &str = "cosign container image signature";

/// The statement of a simple signature: this name has meant the image with this digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The name of the image, `host/repository:tag` or `host/repository`.
    pub reference: String,
    /// The digest of the manifest or the index.
    pub digest: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    critical: Critical,
    #[serde(deserialize_with = "checked_optional")]
    optional: Option<()>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: Digest,
}

impl Payload {
    /// Returns the bytes that are signed. They depend on the name and the digest only.
    pub fn to_bytes(&self) -> Vec<u8> {
        let identity = Identity { docker_reference: self.reference.clone() };
        let image = Image { docker_manifest_digest: self.digest.clone() };
        let critical = Critical { identity, image, r#type: TYPE.to_owned() };
        serde_json::to_vec(&Form { critical, optional: None }).expect("the form has string keys only")
    }

    /// Parses a payload.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it does not have exactly the expected form.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let invalid =
            |why: String| Error::integrity(format!("the payload of the signature is not valid: {why}"));
        let form: Form = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if form.critical.r#type != TYPE {
            return Err(invalid(format!("its type is {:?}", form.critical.r#type)));
        }
        Ok(Self {
            reference: form.critical.identity.docker_reference,
            digest: form.critical.image.docker_manifest_digest,
        })
    }
}

/// Checks the members of `optional` that have a meaning. It is `null` or an object without repeated members.
fn checked_optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<()>, D::Error> {
    let Some(Members(members)) = Option::<Members>::deserialize(deserializer)? else { return Ok(None) };
    if members.get("creator").is_some_and(|creator| !creator.is_string()) {
        return Err(D::Error::custom("optional.creator is not a text"));
    }
    if members.get("timestamp").is_some_and(|time| !is_integer(time)) {
        return Err(D::Error::custom("optional.timestamp is not an integer"));
    }
    Ok(Some(()))
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() < 9e15)
}

/// An object of which no member is repeated.
struct Members(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("duplicate field `{key}`")));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn text() -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"h/r:t"}},"image":{{"docker-manifest-digest":"sha256:{HEX}"}},"type":"cosign container image signature"}},"optional":null}}"#
        )
    }

    #[test]
    fn a_payload_has_the_bytes_that_cosign_writes() {
        let payload = Payload { reference: "h/r:t".to_owned(), digest: Digest::of(b"") };
        assert_eq!(String::from_utf8(payload.to_bytes()).unwrap(), text());
        assert_eq!(Payload::parse(&payload.to_bytes()).unwrap(), payload);
    }

    #[test]
    fn optional_members_are_accepted_if_they_are_well_formed() {
        for (optional, is_valid) in [
            (r#"{"creator":"skopeo 1.9","timestamp":1700000000}"#, true),
            (r#"{"timestamp":1700000000.0,"branch":"main"}"#, true),
            ("{}", true),
            (r#"{"creator":1}"#, false),
            (r#"{"timestamp":1.5}"#, false),
            (r#"{"timestamp":"1"}"#, false),
            (r#"{"a":1,"a":1}"#, false),
            ("[]", false),
            ("1", false),
        ] {
            let changed = text().replace(r#""optional":null"#, &format!(r#""optional":{optional}"#));
            assert_eq!(Payload::parse(changed.as_bytes()).is_ok(), is_valid, "{optional}");
        }
    }

    #[test]
    fn a_payload_of_any_other_form_is_refused() {
        let text = text();
        for (from, to) in [
            (r#","optional":null"#, ""),
            (r#""optional":null"#, r#""optional":null,"x":1"#),
            (r#""optional":null"#, r#""optional":null,"optional":null"#),
            (r#""docker-reference":"h/r:t""#, ""),
            (r#""docker-reference":"h/r:t""#, r#""docker-reference":"h/r:t","x":1"#),
            (r#""docker-reference":"h/r:t""#, r#""docker-reference":"h/r:t","docker-reference":"h/r:t""#),
            (r#""h/r:t""#, "null"),
            (r#""h/r:t""#, "7"),
            ("sha256:", "sha1:"),
            (&HEX[..8], "XXXXXXXX"),
            ("cosign container image signature", "atomic container signature"),
            (r#""type""#, r#""Type""#),
            ("}", ""),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(Payload::parse(changed.as_bytes()).is_err(), "{changed}");
        }
        for bad in ["", "null", "[]", "\u{feff}{}", &format!("{text} x"), &text.to_uppercase()] {
            assert!(Payload::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Payload::parse(&[text.as_bytes(), &[0xff]].concat()).is_err());
    }
}
