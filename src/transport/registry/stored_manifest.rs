//! Storing manifests and indexes (distribution-spec, "Pushing Manifests"), and advice if a registry rejects one.

use super::Registry;
use super::http::{Request, wait};
use crate::error::{Error, Kind, Result};
use crate::oci::{Document, Manifest, is_attachment_tag, media_type};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderName};

/// A header of registries that maintain the list of referrers themselves.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// The statuses with which registries reject the form of a manifest.
const REJECTIONS: [u16; 4] = [400, 405, 415, 422];
/// The codes of rejections for other reasons than the form.
const OTHER_CODES: [&str; 4] = ["BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_INVALID", "TAG_INVALID"];

impl Registry {
    /// Stores a document under its digest or a tag, and adds it to the list of its subject's referrers if the registry
    /// does not do that itself.
    pub(super) fn put(&self, name: &str, document: &Document) -> Result<()> {
        let is_listed = self.store(name, document)?;
        match document.as_referrer() {
            Some((subject, entry)) if !is_listed || !self.has_referrers_api(&subject) => {
                self.add_referrer(&subject, entry)
            }
            _ => Ok(()),
        }
    }

    /// Stores a document under its digest or a tag. Returns whether the registry says that it has added the document to the
    /// list of its subject's referrers.
    pub(super) fn store(&self, name: &str, document: &Document) -> Result<bool> {
        let what = format!("store the manifest {name} in {}", self.reference.name());
        let request = Request::new(Method::PUT, self.manifest_url(name), what)
            .header(CONTENT_TYPE, &document.descriptor().media_type)
            .body(document.bytes().to_vec());
        match wait(async { self.client.send(request, &self.push_scopes()).await?.success().await }) {
            Ok(response) => Ok(response.header(&SUBJECT).is_some()),
            // An immutable tag may mean this document already, for example because the response to an earlier attempt was lost.
            Err(error) if error.kind() == Kind::Refused && self.means(name, document) => Ok(false),
            Err(error) => Err(match self.advice(&error, name, document) {
                Some(hint) => error.with_hint(hint),
                None => error,
            }),
        }
    }

    /// Returns whether a tag means a document.
    fn means(&self, tag: &str, document: &Document) -> bool {
        self.digest_of_tag(tag).is_ok_and(|found| found.as_ref() == Some(&document.descriptor().digest))
    }

    /// Returns what to do about the rejection of a document, if that depends on the document.
    fn advice(&self, error: &Error, name: &str, document: &Document) -> Option<String> {
        let (status, registry) = (error.status()?, self.reference.registry());
        let text = error.to_string();
        if error.kind() == Kind::Refused {
            return is_attachment_tag(name).then(|| {
                format!(
                    "signatures and lists of them have tags that begin with sha256-, and change: the rule of {registry} must \
                     leave these tags out"
                )
            });
        }
        if status == 413 {
            let size = document.bytes().len();
            return Some(format!(
                "the manifest has {size} bytes, and {registry} or a proxy in front of it accepts fewer: pack with larger layers \
                 (--layer-size), and with fewer annotations"
            ));
        }
        let is_form = REJECTIONS.contains(&status) && !OTHER_CODES.iter().any(|code| text.contains(code));
        if is_form { unsupported_form(document, registry) } else { None }
    }
}

/// Returns how to avoid a form of images that not every registry supports; `None` if the document has none of them.
fn unsupported_form(document: &Document, registry: &str) -> Option<String> {
    let kind = document.descriptor().media_type.as_str();
    if [media_type::DOCKER_MANIFEST, media_type::DOCKER_MANIFEST_LIST].contains(&kind) {
        return Some(format!(
            "if {registry} accepts images in the OCI format only, skopeo copy --format oci converts them; zot has a setting \
             for Docker's format (http.compat)"
        ));
    }
    if media_type::is_index(kind) {
        return Some(format!(
            "if {registry} accepts no indexes, pack or copy with one platform makes an image without one: --platform linux/amd64"
        ));
    }
    let layers = Manifest::parse(document).ok()?.layers;
    layers.iter().any(|layer| layer.media_type == media_type::LAYER_ZSTD).then(|| {
        format!("if {registry} accepts no layers with zstd, pack with --compression gzip makes others")
    })
}
