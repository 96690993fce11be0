//! Taking a tag or an image away (distribution-spec, "Content Management").
//!
//! Taking away a tag alone is what a user means who names one, but not every registry can: distribution before 3 takes
//! away only the image, and with it all its tags. That is refused while another tag means the same image. Whether
//! something refers to the image, or an index lists it, is not looked at; the space is freed by the registry's own
//! garbage collection.

use super::http::{Request, wait};
use super::token::Scopes;
use super::{CONTENT_DIGEST, Registry};
use crate::error::{Error, Result};
use crate::oci::{Digest, media_type};
use crate::transport::{Removal, Removed, Source};
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};

/// How many tags are looked at to find those that mean the same image: each is a request.
const TAGS_LIMIT: usize = 100;

impl Removal for Registry {
    fn remove(&self, force: bool) -> Result<Removed> {
        let digest = self.resolve()?.descriptor().digest.clone();
        let tag = self.reference.tag();
        if let (Some(tag), Some(_)) = (tag, self.reference.digest())
            && self.meaning(tag)? != Some(digest.clone())
        {
            return Err(Error::refused(format!("the tag {tag} does not mean {digest} any more"))
                .with_hint("name the tag or the digest alone"));
        }
        if let Some(tag) = tag
            && self.delete(tag)?
        {
            return Ok(Removed { tags: vec![tag.to_owned()], ..Removed::nothing(digest) });
        }
        let tags = self.tags_of(&digest, force)?;
        let others: Vec<&str> = tags.iter().map(String::as_str).filter(|other| Some(*other) != tag).collect();
        // Named by its digest alone, an image may have one tag.
        let welcome = usize::from(tag.is_none());
        if others.len() > welcome && !force {
            return Err(Error::refused(format!(
                "{} can only be taken away with all its tags, also {}",
                self.reference,
                others.join(", ")
            ))
            .with_hint("use --force if all of them shall go"));
        }
        match self.delete(&digest.to_string())? {
            true => Ok(Removed { tags, ..Removed::nothing(digest) }),
            false => Err(Error::failed(format!("{} does not let images be removed", self.reference.registry()))
                .with_hint("deletion must be enabled in the registry (distribution: REGISTRY_STORAGE_DELETE_ENABLED=true)")),
        }
    }
}

impl Registry {
    /// Asks for a manifest to be deleted, by its tag or its digest; `false` when the registry does not do that.
    fn delete(&self, name: &str) -> Result<bool> {
        use StatusCode as S;
        let what = format!("remove {name} from {}", self.reference.name());
        let request = Request::new(Method::DELETE, self.manifest(name), what);
        let status = wait(async {
            let response = self.client.send(request, &Scopes::delete(self.reference.repository())).await?;
            match response.status() {
                S::BAD_REQUEST | S::NOT_FOUND | S::METHOD_NOT_ALLOWED | S::NOT_IMPLEMENTED => {
                    Ok(response.status())
                }
                _ => response.success().await.map(|response| response.status()),
            }
        })?;
        match status {
            // It was there a moment ago. Either the response to a first request was lost, or this is Harbor, which looks
            // for a digest and knows no other name.
            S::NOT_FOUND => Ok(self.meaning(name)?.is_none()),
            status => Ok(status.is_success()),
        }
    }

    /// The tags that mean this image.
    fn tags_of(&self, digest: &Digest, force: bool) -> Result<Vec<String>> {
        let mut tags = self.tags()?;
        if tags.len() > TAGS_LIMIT {
            return match force {
                true => Ok(self.reference.tag().map(str::to_owned).into_iter().collect()),
                false => Err(Error::refused(format!(
                    "{} can only be taken away with all its tags, and the repository has too many tags to look at each",
                    self.reference
                ))
                .with_hint("use --force if all tags of the image shall go")),
            };
        }
        let mut outcome = Ok(());
        tags.retain(|tag| match self.meaning(tag) {
            Ok(meaning) => meaning.as_ref() == Some(digest),
            Err(error) => {
                outcome = Err(error);
                false
            }
        });
        outcome.map(|()| tags)
    }

    /// The digest of what a tag means, if it means anything.
    fn meaning(&self, tag: &str) -> Result<Option<Digest>> {
        let what = format!("look at the tag {tag} of {}", self.reference.name());
        let request = Request::new(Method::HEAD, self.manifest(tag), what)
            .header(ACCEPT, &media_type::DOCUMENTS.join(", "));
        wait(async {
            let response = self.client.send(request, &self.pull()).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let response = response.success().await?;
            let digest = response.header(&CONTENT_DIGEST).and_then(|digest| digest.parse().ok());
            digest.map(Some).ok_or_else(|| {
                Error::failed(format!("{} does not say what its tag {tag} means", self.reference.name()))
            })
        })
    }
}
