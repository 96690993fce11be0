//! What refers to a manifest (distribution-spec, "Listing Referrers").
//!
//! Registries that know no referrers keep an index of them under a tag made of the subject's digest, and it is their
//! clients that write it ("Referrers Tag Schema"). Two clients that add to it at once can lose one of the entries: the
//! protocol has no remedy. Clients in one process wait for each other.

use super::pagination::pages;
use super::{Registry, manifest};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Index, media_type, referrers_tag};
use crate::transport::registry::http::{Request, wait};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// How large all pages of a list may be together, in bytes: some 20 000 referrers.
const LIST_LIMIT: usize = 8 << 20;
/// Who adds to an index under a tag.
static ADDING: Mutex<()> = Mutex::new(());

impl Registry {
    /// What refers to the manifest, by the registry's own list or by the tag that stands in for it.
    pub(super) fn list_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let repository = self.reference.repository();
        let url = self.client.url(&format!("{repository}/referrers/{subject}"));
        let what = format!("list what refers to {subject} in {}", self.reference.name());
        let request = Request::new(Method::GET, url, what).header(ACCEPT, media_type::INDEX);
        let scopes = self.pull();
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let listed = wait(async {
            let response = self.client.send(request.clone(), &scopes).await?;
            let kind = response.header(&CONTENT_TYPE).unwrap_or_default();
            match response.status() {
                // A page for a browser is no list: Google's registries send a stranger to the login.
                status if status.is_success() && kind.starts_with(media_type::INDEX) => {}
                status if status.is_success() || is_unknown(status) => return Ok(false),
                _ => return Err(response.refusal().await),
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
        match listed {
            true => Ok(found),
            false => Ok(self.tagged_referrers(subject)?.map(|index| index.manifests).unwrap_or_default()),
        }
    }

    /// Adds a manifest to the index of what refers to its subject.
    pub(super) fn add_referrer(&self, subject: &Digest, entry: Descriptor) -> Result<()> {
        let _alone = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index =
            self.tagged_referrers(subject)?.unwrap_or_else(|| Index::new(Vec::new(), Default::default()));
        if index.manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        let index = Document::write(media_type::INDEX, &index);
        self.store(&referrers_tag(subject), &index).map(drop)
    }

    /// The index under the tag that is made of the subject's digest, if there is one.
    fn tagged_referrers(&self, subject: &Digest) -> Result<Option<Index>> {
        let tag = referrers_tag(subject);
        let what = format!("find what refers to {subject} in {}", self.reference.name());
        let request = Request::new(Method::GET, self.manifest(&tag), what)
            .header(ACCEPT, &media_type::DOCUMENTS.join(", "));
        let name = self.reference.with_tag(&tag)?;
        let document = wait(async {
            let response = self.client.send(request, &self.pull()).await?;
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

/// Whether a registry that knows no referrers answers so.
fn is_unknown(status: StatusCode) -> bool {
    use StatusCode as S;
    matches!(
        status,
        S::NOT_FOUND | S::BAD_REQUEST | S::METHOD_NOT_ALLOWED | S::NOT_ACCEPTABLE | S::NOT_IMPLEMENTED
    )
}
