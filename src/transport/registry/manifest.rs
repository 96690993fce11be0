//! Manifests and indexes in responses of registries.

use super::CONTENT_DIGEST;
use super::printable::printable;
use super::response::Response;
use crate::error::{Error, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Hasher, Reference, media_type};
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

/// Reads a manifest or an index, and checks its digest and its media type.
pub(super) async fn read(mut response: Response, reference: &Reference) -> Result<Document> {
    let announced = response.header(&CONTENT_TYPE).unwrap_or_default().to_owned();
    // A digest of an unknown algorithm is ignored.
    let claimed = response.header(&CONTENT_DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
    let bytes = response.read(DOCUMENT_LIMIT as usize + 1).await?;
    check(bytes, &announced, [reference.digest(), claimed.as_ref()], &reference.to_string())
}

fn check(bytes: Vec<u8>, announced: &str, digests: [Option<&Digest>; 2], name: &str) -> Result<Document> {
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(Error::integrity(format!(
            "{name} is larger than the {DOCUMENT_LIMIT} bytes of any manifest"
        )));
    }
    for digest in digests.into_iter().flatten() {
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != *digest {
            return Err(Error::integrity(format!("{name} should be {digest} and is {actual}")).with_hint(
                "it was damaged or replaced in the registry or on its way; nothing of it was used",
            ));
        }
    }
    let media_type = media_type_of(&bytes, announced, name)?;
    let document = Document::identified(&media_type, bytes);
    let media_type = &document.descriptor().media_type;
    if media_type::is_document(media_type) {
        Ok(document)
    } else if media_type::is_generic(media_type) {
        Err(Error::failed(format!("neither the registry nor {name} itself says what kind of thing it is"))
            .with_hint("a proxy in front of the registry may have taken the Content-Type away"))
    } else {
        Err(Error::failed(format!(
            "{name} is a {}, which is not an image that volio knows",
            printable(media_type)
        ))
        .with_hint("it was pushed by a very old program, or is not an image"))
    }
}

/// Returns the media type of a document.
///
/// # Errors
/// When the `Content-Type` header and the document name different ones. A tool that reads the header and a tool that
/// reads the document would see different images (CVE-2021-41190).
fn media_type_of(bytes: &[u8], announced: &str, name: &str) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Declared {
        media_type: Option<String>,
    }
    let announced = announced.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Static file servers guess a type from the extension of a name.
    let announced = if announced.starts_with("application/vnd.") { announced } else { String::new() };
    let declared: Declared = serde_json::from_slice(bytes).map_err(|error| {
        Error::integrity(format!("{name} is not a valid manifest: {}", printable(&error.to_string())))
    })?;
    match declared.media_type.filter(|own| !media_type::is_generic(own)) {
        Some(own) if media_type::is_generic(&announced) => Ok(own),
        Some(own) if own != announced => Err(Error::integrity(format!(
            "{name} is announced as {} and calls itself {}",
            printable(&announced),
            printable(&own)
        ))),
        _ => Ok(announced),
    }
}

/// Returns whether the `Content-Length` in a response to HEAD fits a descriptor. A blob of another size is damaged, and
/// has to be uploaded again.
pub(super) fn is_size_plausible(content_length: Option<&str>, descriptor: &Descriptor) -> bool {
    content_length.is_none_or(|length| length.parse() == Ok(descriptor.size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn checked(json: &str, announced: &str) -> Result<Document> {
        check(json.as_bytes().to_vec(), announced, [None, None], "r.io/a:1")
    }

    #[test]
    fn the_header_and_the_document_must_agree_on_the_media_type() {
        let own = format!(r#"{{"mediaType":"{}"}}"#, media_type::MANIFEST);
        for announced in [media_type::MANIFEST, "application/json", "", "text/plain; charset=utf-8"] {
            assert_eq!(checked(&own, announced).unwrap().descriptor().media_type, media_type::MANIFEST);
        }
        assert_eq!(checked(&own, media_type::INDEX).unwrap_err().kind(), Kind::Integrity);
        assert_eq!(checked("{}", media_type::INDEX).unwrap().descriptor().media_type, media_type::INDEX);
    }

    #[test]
    fn a_document_that_is_not_an_image_is_rejected() {
        let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert_eq!(checked("{}", schema_1).unwrap_err().kind(), Kind::Failed);
        let error = checked("{}", "").unwrap_err();
        assert!(error.to_string().starts_with("neither the registry nor r.io/a:1 itself says"), "{error}");
        assert_eq!(checked("<html>", media_type::INDEX).unwrap_err().kind(), Kind::Integrity);
    }

    #[test]
    fn without_a_media_type_the_members_of_a_document_decide() {
        let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        for announced in ["", "application/octet-stream", "text/plain; charset=utf-8", "application/json"] {
            assert_eq!(checked(manifest, announced).unwrap().descriptor().media_type, media_type::MANIFEST);
            let index = checked(r#"{"schemaVersion":2,"manifests":[]}"#, announced).unwrap();
            assert_eq!(index.descriptor().media_type, media_type::INDEX);
            let both = r#"{"config":{},"layers":[],"manifests":[]}"#;
            assert_eq!(checked(both, announced).unwrap_err().kind(), Kind::Failed);
        }
        let generic = r#"{"mediaType":"application/json","manifests":[]}"#;
        let index = checked(generic, media_type::DOCKER_MANIFEST_LIST).unwrap();
        assert_eq!(index.descriptor().media_type, media_type::DOCKER_MANIFEST_LIST);
    }

    #[test]
    fn every_known_digest_must_match() {
        let (right, wrong) = (Digest::of(b"{}"), Digest::of(b"[]"));
        let check = |digests| check(b"{}".to_vec(), media_type::INDEX, digests, "r.io/a:1");
        assert!(check([Some(&right), Some(&right)]).is_ok());
        for digests in [[Some(&wrong), None], [None, Some(&wrong)], [Some(&right), Some(&wrong)]] {
            assert_eq!(check(digests).unwrap_err().kind(), Kind::Integrity);
        }
    }
}
