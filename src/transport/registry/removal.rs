//! Removal of tags and images (distribution-spec, "Content Management").
//!
//! A command that names a tag means the tag alone, but not every registry can delete one: distribution before 3 deletes
//! only an image with all its tags. That is refused if another tag points to the same image. Indexes that list the image
//! are not checked. Attachments and referrers go with the last tag ([`attachments`](super::attachments)). The registry's
//! garbage collection frees the space.

use super::attachments::RemovedAttachments;
use super::http::{Request, wait};
use super::token::Scopes;
use super::{CONTENT_DIGEST, Registry};
use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, media_type};
use crate::transport::{Removal, Removed, Source, document_digests, fetch};
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};

/// The maximum number of tags that are compared with the image, because each is a request.
const TAGS_LIMIT: usize = 100;

impl Removal for Registry {
    fn remove(&self, force: bool) -> Result<Removed> {
        let root = self.resolve()?;
        // Indexes below the root are read before it is removed.
        let subjects = document_digests(&root, |entry| fetch(self, entry));
        let removed = self.remove_image(root.descriptor().digest.clone(), force)?;
        let RemovedAttachments { names, left } = self.remove_attachments(subjects);
        Ok(Removed { attachments: names, attachments_left: left, ..removed })
    }
}

/// The answer to a request to delete a manifest.
pub(super) enum Deletion {
    /// It does not exist any more.
    Deleted,
    /// The registry refused.
    Refused(Error),
    /// The registry does not support that, or refused: a registry without the support and one that protects the image may
    /// give the same answer.
    Unsupported(Error),
}

impl Deletion {
    /// Returns whether it is deleted, and not unsupported.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn into_result(self) -> Result<bool> {
        match self {
            Self::Deleted => Ok(true),
            Self::Unsupported(_) => Ok(false),
            Self::Refused(error) => Err(error),
        }
    }
}

impl Registry {
    /// Removes the tag, or the image with its tags.
    fn remove_image(&self, digest: Digest, force: bool) -> Result<Removed> {
        let tag = self.reference.tag();
        if let (Some(tag), Some(_)) = (tag, self.reference.digest())
            && self.digest_of_tag(tag)? != Some(digest.clone())
        {
            return Err(Error::refused(format!("the tag {tag} does not mean {digest} any more"))
                .with_hint("name the tag or the digest alone"));
        }
        if let Some(tag) = tag
            && self.delete(tag)?.into_result()?
        {
            return Ok(Removed { tags: vec![tag.to_owned()], ..Removed::nothing(digest) });
        }
        let tags = self.tags_of(&digest, force)?;
        let others: Vec<&str> = tags.iter().map(String::as_str).filter(|other| Some(*other) != tag).collect();
        // An image that was named by its digest alone may have one tag.
        let allowed = usize::from(tag.is_none());
        if others.len() > allowed && !force {
            return Err(Error::refused(format!(
                "{} can only be taken away with all its tags, also {}",
                self.reference,
                others.join(", ")
            ))
            .with_hint("use --force if all of them shall go"));
        }
        if !self.delete(&digest.to_string())?.into_result()? {
            return Err(self.deletion_is_disabled());
        }
        Ok(Removed { tags, ..Removed::nothing(digest) })
    }

    /// Deletes a manifest by its tag or its digest.
    ///
    /// # Errors
    /// Those of the request; a rejection because of the credentials, and one that another try may not get.
    pub(super) fn delete(&self, name: &str) -> Result<Deletion> {
        use StatusCode as S;
        let what = format!("remove {name} from {}", self.reference.name());
        let request = Request::new(Method::DELETE, self.manifest_url(name), what);
        let (status, answer) = wait(async {
            let response = self.client.send(request, &Scopes::delete(self.reference.repository())).await?;
            let status = response.status();
            let is_refused = status.is_client_error() || status == S::NOT_IMPLEMENTED;
            if !is_refused {
                return response.success().await.map(|_| (status, None));
            }
            let error = response.refusal().await;
            // A request that may be sent again is not refused.
            let is_login = matches!(status, S::UNAUTHORIZED | S::PROXY_AUTHENTICATION_REQUIRED);
            if is_login || error.retry_after().is_some() {
                return Err(error);
            }
            Ok((status, Some(error)))
        })?;
        let Some(answer) = answer else { return Ok(Deletion::Deleted) };
        Ok(match status {
            // The registry can delete tags, and protects this one.
            _ if answer.kind() == Kind::Refused => Deletion::Refused(answer),
            // The tag existed a moment ago. Either the response to a first request was lost, or the registry is Harbor,
            // which supports only digests.
            S::NOT_FOUND if self.digest_of_tag(name)?.is_none() => Deletion::Deleted,
            S::NOT_FOUND | S::BAD_REQUEST | S::METHOD_NOT_ALLOWED | S::NOT_IMPLEMENTED => {
                Deletion::Unsupported(answer)
            }
            _ => Deletion::Refused(answer),
        })
    }

    /// Returns the error for a registry that cannot remove images.
    pub(super) fn deletion_is_disabled(&self) -> Error {
        let registry = self.reference.registry();
        Error::failed(format!("{registry} does not let images be removed")).with_hint(
            "deletion must be enabled in the registry (distribution: REGISTRY_STORAGE_DELETE_ENABLED=true)",
        )
    }

    /// Returns the tags that point to an image.
    fn tags_of(&self, digest: &Digest, force: bool) -> Result<Vec<String>> {
        let mut tags = self.tags()?;
        if tags.len() > TAGS_LIMIT {
            if force {
                return Ok(self.reference.tag().map(str::to_owned).into_iter().collect());
            }
            return Err(Error::refused(format!(
                "{} can only be taken away with all its tags, and the repository has too many tags to look at each",
                self.reference
            ))
            .with_hint("use --force if all tags of the image shall go"));
        }
        let mut outcome = Ok(());
        tags.retain(|tag| match self.digest_of_tag(tag) {
            Ok(target) => target.as_ref() == Some(digest),
            Err(error) => {
                outcome = Err(error);
                false
            }
        });
        outcome.map(|()| tags)
    }

    /// Returns whether a manifest with this digest or tag exists.
    pub(super) fn has_manifest(&self, name: &str) -> Result<bool> {
        let what = format!("look for {name} in {}", self.reference.name());
        let request = Request::new(Method::HEAD, self.manifest_url(name), what)
            .header(ACCEPT, &media_type::DOCUMENTS.join(", "));
        wait(async {
            let response = self.client.send(request, &self.pull_scopes()).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(false);
            }
            response.success().await.map(|_| true)
        })
    }

    /// Returns the digest that a tag points to, if it exists. A digest in its place points to itself.
    pub(super) fn digest_of_tag(&self, tag: &str) -> Result<Option<Digest>> {
        use StatusCode as S;
        let what = format!("look at the tag {tag} of {}", self.reference.name());
        let request = Request::new(Method::HEAD, self.manifest_url(tag), what)
            .header(ACCEPT, &media_type::DOCUMENTS.join(", "));
        let named = wait(async {
            let response = self.client.send(request, &self.pull_scopes()).await?;
            match response.status() {
                // Also Harbor's answer for an image of another registry that it has not fetched yet.
                S::NOT_FOUND | S::METHOD_NOT_ALLOWED | S::NOT_IMPLEMENTED => Ok(None),
                _ => {
                    let response = response.success().await?;
                    let digest = response.header(&CONTENT_DIGEST).unwrap_or(tag);
                    Ok(digest.parse::<Digest>().ok())
                }
            }
        })?;
        match named {
            // The header is optional. The manifest itself always has a digest.
            None => Ok(Source::tagged(self, tag)?.map(|document| document.descriptor().digest.clone())),
            named => Ok(named),
        }
    }
}
