//! Referrers, manifests that have another manifest as their subject, such as signatures (image-spec, "Image Manifest",
//! `subject`).

use super::members::null_is_default;
use super::{Descriptor, Digest, Document};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Returns the tag of the index of referrers, for registries without the referrers API (distribution-spec, "Referrers Tag
/// Schema").
pub fn referrers_tag(subject: &Digest) -> String {
    // A tag has at most 128 characters, so a longer digest is cut.
    format!("{}-{:.64}", subject.algorithm().name(), subject.hex())
}

/// The suffixes of the tags with which cosign attaches signatures, attestations and SBOMs to an image.
const ATTACHMENTS: [&str; 3] = [".sig", ".att", ".sbom"];

/// Returns the tags with which cosign attaches manifests to the manifest or index with this digest.
pub fn attachment_tags(subject: &Digest) -> [String; 3] {
    ATTACHMENTS.map(|ending| format!("{}-{}{ending}", subject.algorithm().name(), subject.hex()))
}

/// Returns whether the tag is for something that is attached to another image, and not for an image: a tag of
/// [`attachment_tags`] or of [`referrers_tag`]. Hexadecimal digits in upper case are not those of a digest.
pub fn is_attachment_tag(tag: &str) -> bool {
    let (digest, has_suffix) = without_suffix(tag);
    digest.split_once('-').is_some_and(|(algorithm, hex)| {
        let is_long_enough = match (algorithm, hex.len()) {
            ("sha256", 64) => true,
            ("sha512", 128) => has_suffix,
            ("sha512", 64) => !has_suffix,
            _ => false,
        };
        is_long_enough && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Returns the digest in the tag of an attachment. `None` for the tag of an image, and for the tag of an index of referrers
/// whose digest was cut.
pub fn attachment_subject(tag: &str) -> Option<Digest> {
    let (digest, _) = without_suffix(tag);
    digest.replacen('-', ":", 1).parse().ok().filter(|_| is_attachment_tag(tag))
}

/// Returns all tags under which something may be attached to the manifest or index with this digest.
pub fn tags_about(subject: &Digest) -> impl Iterator<Item = String> {
    attachment_tags(subject).into_iter().chain([referrers_tag(subject)])
}

fn without_suffix(tag: &str) -> (&str, bool) {
    let suffix = ATTACHMENTS.iter().find_map(|suffix| tag.strip_suffix(suffix));
    suffix.map_or((tag, false), |digest| (digest, true))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
}

impl Document {
    /// Returns the subject of this document, if it is a referrer, and the descriptor of it for a list of referrers.
    pub fn as_referrer(&self) -> Option<(Digest, Descriptor)> {
        let claims: Claims = self.parse().ok()?;
        let mut entry = self.descriptor().clone();
        let kind = claims.artifact_type.or(claims.config.map(|config| config.media_type));
        if let Some(kind) = kind {
            entry.extra.insert(ARTIFACT_TYPE, &Value::from(kind));
        }
        entry.annotations = claims.annotations;
        Some((claims.subject?.digest, entry))
    }
}

/// The field of a descriptor with the type of an artifact.
pub const ARTIFACT_TYPE: &str = "artifactType";
/// The field of a manifest with the descriptor of the manifest that it refers to.
pub const SUBJECT: &str = "subject";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;

    #[test]
    fn a_referrer_is_listed_with_its_type_and_its_annotations() {
        let subject = Descriptor::of(media_type::MANIFEST, b"subject");
        let document = |more: &str| {
            let subject = serde_json::to_string(&subject).unwrap();
            let json =
                format!(r#"{{"schemaVersion":2,"subject":{subject},"annotations":{{"a":"b"}}{more}}}"#);
            Document::new(media_type::MANIFEST, json.into_bytes())
        };
        let config = r#","config":{"mediaType":"c","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        for (more, kind) in [(config, "c"), (r#","artifactType":"t""#, "t")] {
            let (found, entry) = document(more).as_referrer().unwrap();
            assert_eq!(found, subject.digest);
            assert_eq!(entry.extra.get(ARTIFACT_TYPE), Some(kind.into()));
            assert_eq!(entry.annotations["a"], "b");
        }
        assert!(Document::new(media_type::MANIFEST, b"{}".to_vec()).as_referrer().is_none());
    }

    #[test]
    fn tags_of_attachments_are_distinguished_from_tags_of_images() {
        let subject = Digest::of(b"");
        let tags = attachment_tags(&subject);
        assert!(tags[0].starts_with("sha256-e3b0") && tags[0].ends_with("b855.sig"), "{}", tags[0]);
        assert!(tags.iter().all(|tag| is_attachment_tag(tag) && super::super::reference::is_tag(tag)));
        assert!(is_attachment_tag(&referrers_tag(&subject)));
        for tag in [
            "v1",
            "sha256-abc",
            "latest.sig",
            "sha256-",
            "v1-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            &tags[0].to_uppercase(),
            &tags[0].replace("e3b0", "E3B0"),
            &tags[0].replace("e3b0", "e3b"),
            &tags[0].replace("e3b0", "e3b00"),
            &tags[0].replace("sha256", "sha512"),
            &tags[0].replace(".sig", ".vex"),
        ] {
            assert!(!is_attachment_tag(tag), "{tag}");
            assert_eq!(attachment_subject(tag), None, "{tag}");
        }
        assert!(tags_about(&subject).all(|tag| attachment_subject(&tag).as_ref() == Some(&subject)));
        let mut hasher = crate::oci::Hasher::new(crate::oci::Algorithm::Sha512);
        hasher.update(b"");
        assert!(tags_about(&hasher.finish()).all(|tag| is_attachment_tag(&tag)));
    }

    #[test]
    fn the_tag_of_a_subject_is_a_tag() {
        let tag = referrers_tag(&Digest::of(b""));
        assert!(tag.starts_with("sha256-e3b0") && super::super::reference::is_tag(&tag));
    }
}
