//! Referrers of a manifest (distribution-spec, "Listing Referrers").
//!
//! For registries without the referrers API, clients maintain an index under a tag made of the subject's digest ("Referrers
//! Tag Schema"). If two clients add to it at the same time, an entry can be lost; the protocol cannot prevent that. Clients
//! in one process wait for each other.

use super::http::{Request, wait};
use super::pagination::pages;
use super::response::Response;
use super::{Registry, manifest};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Index, media_type, referrers_tag};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The maximum size in bytes of all pages of a list: about 20 000 referrers.
const LIST_LIMIT: usize = 8 << 20;
/// The lock for changes of an index under a tag.
static INDEX_LOCK: Mutex<()> = Mutex::new(());

impl Registry {
    /// Returns the referrers of a manifest, from the API or from the index under the tag.
    pub(super) fn list_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let (request, scopes) = (self.referrers_request(subject), self.pull_scopes());
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let listed = wait(async {
            let response = self.client.send(request.clone(), &scopes).await?;
            match has_api(&response) {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => return Err(response.refusal().await),
            }
            pages(&self.client, request, &scopes, response, LIST_LIMIT, |page| {
                let before = found.len();
                let page = Index::parse(&Document::new(media_type::INDEX, page.to_vec()))?;
                found.extend(page.manifests.into_iter().filter(|entry| seen.insert(entry.digest.clone())));
                Ok(found.len() > before)
            })
            .await?;
            Ok(true)
        })?;
        if listed {
            return Ok(found);
        }
        Ok(self.tagged_referrers(subject)?.map(|index| index.manifests).unwrap_or_default())
    }

    /// Returns the request for the list of a manifest's referrers. It asks for all types of artifacts: a registry may ignore
    /// the filter.
    fn referrers_request(&self, subject: &Digest) -> Request {
        let url = self.client.url(&format!("{}/referrers/{subject}", self.reference.repository()));
        let what = format!("list what refers to {subject} in {}", self.reference.name());
        Request::new(Method::GET, url, what).header(ACCEPT, media_type::INDEX)
    }

    /// Returns whether the registry has the referrers API. It is asked once. Amazon ECR has sent `OCI-Subject` without that
    /// API, and a referrer that only this header reports would not be found again.
    pub(super) fn has_referrers_api(&self, subject: &Digest) -> bool {
        *self.client.has_referrers_api.get_or_init(|| {
            let request = self.referrers_request(subject);
            let asked = wait(async { Ok(has_api(&self.client.send(request, &self.push_scopes()).await?)) });
            // If it cannot be asked, its header is believed.
            asked.ok().flatten().unwrap_or(true)
        })
    }

    /// Adds a manifest to the index of its subject's referrers.
    pub(super) fn add_referrer(&self, subject: &Digest, entry: Descriptor) -> Result<()> {
        let _lock = INDEX_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index =
            self.tagged_referrers(subject)?.unwrap_or_else(|| Index::new(Vec::new(), Default::default()));
        if index.manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        let index = Document::write(media_type::INDEX, &index);
        self.store(&referrers_tag(subject), &index).map(drop)
    }

    /// Returns the index of referrers under the tag made of the subject's digest, if there is one.
    fn tagged_referrers(&self, subject: &Digest) -> Result<Option<Index>> {
        let tag = referrers_tag(subject);
        let what = format!("find what refers to {subject} in {}", self.reference.name());
        let request = Request::new(Method::GET, self.manifest_url(&tag), what)
            .header(ACCEPT, &media_type::DOCUMENTS.join(", "));
        let name = self.reference.with_tag(&tag)?;
        let document = wait(async {
            let response = self.client.send(request, &self.pull_scopes()).await?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(None),
                _ => manifest::read(response.success().await?, &name).await.map(Some),
            }
        })?;
        match document {
            Some(document) if media_type::is_index(&document.descriptor().media_type) => {
                Index::parse(&document).map(Some)
            }
            Some(_) => Err(Error::failed(format!("{name} should be an index of what refers to {subject}"))),
            None => Ok(None),
        }
    }
}

/// Returns whether this response to the request for referrers is that of a registry with the referrers API; `None` if it does
/// not say.
fn has_api(response: &Response) -> Option<bool> {
    let kind = response.header(&CONTENT_TYPE).unwrap_or_default();
    match response.status() {
        // An HTML page is not a list: Google's registries redirect anonymous clients to a login page.
        status if status.is_success() => Some(kind.starts_with(media_type::INDEX)),
        status => is_unsupported(status).then_some(false),
    }
}

/// Returns whether a registry without the referrers API answers with this status.
fn is_unsupported(status: StatusCode) -> bool {
    use StatusCode as S;
    matches!(
        status,
        S::NOT_FOUND | S::BAD_REQUEST | S::METHOD_NOT_ALLOWED | S::NOT_ACCEPTABLE | S::NOT_IMPLEMENTED
    )
}
