//! Lists in pages, such as tags (distribution-spec, "Listing Tags").
//!
//! Each page names the URL of the next one. The number of pages is limited. Only the path and the query of the URL count:
//! registries with a proxy in front of them often do not know their own host.

use super::client::Client;
use super::http::{Request, wait};
use super::printable::printable;
use super::response::Response;
use super::token::Scopes;
use crate::error::{Error, Result};
use reqwest::header::LINK;
use reqwest::{Method, Url};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeSet, HashSet};
use std::fmt;

/// The requested number of tags in a page. ECR rejects a larger one, and others ignore it.
const PAGE: usize = 1000;
/// The maximum size in bytes of all pages of a list of tags: a quarter of a million tags of the maximum length.
const TAGS_LIMIT: usize = 32 << 20;
/// The maximum number of tags of a repository. Each takes 24 bytes of memory besides its text.
const TAGS_COUNT: usize = 1 << 20;
/// The maximum number of consecutive pages without new items. Registries that filter lists send empty pages.
const EMPTY_PAGES_LIMIT: usize = 8;

/// The limit on the first page, in bytes, for a caller that needs no more: a thousand tags of the maximum length, and a
/// registry that sends more than was asked for.
const FIRST_PAGE_LIMIT: usize = 1 << 20;

/// Returns the tags on the first page of the list.
pub(super) fn first_tags(client: &Client, repository: &str, name: &str) -> Result<Vec<String>> {
    let request = tags_request(client, repository, name);
    wait(async {
        let mut first = client.send(request, &Scopes::pull(repository)).await?.success().await?;
        let page = first.read(FIRST_PAGE_LIMIT + 1).await?;
        if page.len() > FIRST_PAGE_LIMIT {
            return Err(Error::failed(format!(
                "the first tags of {name} take more than {FIRST_PAGE_LIMIT} bytes"
            )));
        }
        Ok(parse_tags(&page, name)?.0)
    })
}

fn tags_request(client: &Client, repository: &str, name: &str) -> Request {
    let mut url = client.url(&format!("{repository}/tags/list"));
    url.set_query(Some(&format!("n={PAGE}")));
    Request::new(Method::GET, url, format!("list the tags of {name}"))
}

fn parse_tags(page: &[u8], name: &str) -> Result<Tags> {
    let page: Page = serde_json::from_slice(page).map_err(|error| {
        Error::failed(format!("the tags of {name} cannot be read: {}", printable(&error.to_string())))
    })?;
    Ok(page.tags.unwrap_or_default())
}

/// Returns all tags of a repository in the order of their bytes. The specification requires this order, but distribution 2.8
/// does not keep it.
pub(super) fn tags(client: &Client, repository: &str, name: &str) -> Result<Vec<String>> {
    let request = tags_request(client, repository, name);
    let scopes = Scopes::pull(repository);
    let mut tags = BTreeSet::new();
    wait(async {
        let first = client.send(request.clone(), &scopes).await?.success().await?;
        pages(client, request, &scopes, first, TAGS_LIMIT, |page| {
            let before = tags.len();
            tags.extend(parse_tags(page, name)?.0);
            if tags.len() > TAGS_COUNT {
                return Err(Error::failed(format!("{name} has more than {TAGS_COUNT} tags")));
            }
            Ok(tags.len() > before)
        })
        .await
    })?;
    Ok(tags.into_iter().collect())
}

/// A page of tags.
#[derive(Deserialize)]
struct Page {
    /// distribution writes `null` after the last tag of a repository was deleted.
    tags: Option<Tags>,
}

/// A list of at most [`TAGS_COUNT`] tags.
#[derive(Default)]
struct Tags(Vec<String>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct TagsVisitor;

        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tags")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Tags, A::Error> {
                let mut tags = Vec::new();
                while let Some(tag) = list.next_element()? {
                    if tags.len() == TAGS_COUNT {
                        return Err(A::Error::custom(format!("there are more than {TAGS_COUNT}")));
                    }
                    tags.push(tag);
                }
                Ok(Tags(tags))
            }
        }

        deserializer.deserialize_seq(TagsVisitor)
    }
}

/// Reads all pages of a list, of which `response` to `request` is the first, up to `limit` bytes in all. `take` parses
/// a page and returns whether it has new items.
///
/// # Errors
/// When the pages form a circle or exceed the limits.
pub(super) async fn pages(
    client: &Client,
    mut request: Request,
    scopes: &Scopes,
    mut response: Response,
    limit: usize,
    mut take: impl FnMut(&[u8]) -> Result<bool>,
) -> Result<()> {
    let mut visited = HashSet::from([request.url.clone()]);
    let (mut room, mut empty_pages) = (limit, 0);
    loop {
        let next =
            response.header(&LINK).and_then(next).and_then(|target| on_same_server(&request.url, target));
        let page = response.read(room + 1).await?;
        // The URLs of the pages are kept in memory too.
        let size = page.len() + next.as_ref().map_or(0, |next| next.as_str().len());
        room = room.checked_sub(size).ok_or_else(|| {
            Error::failed(format!("cannot {}: the list is larger than {limit} bytes", request.what))
        })?;
        empty_pages = if take(&page)? { 0 } else { empty_pages + 1 };
        let Some(next) = next else { return Ok(()) };
        if empty_pages > EMPTY_PAGES_LIMIT || !visited.insert(next.clone()) {
            return Err(Error::failed(format!(
                "cannot {}: the pages of the list lead in circles",
                request.what
            ))
            .with_hint("the registry or a proxy in front of it is out of order"));
        }
        request.url = next;
        response = client.send(request.clone(), scopes).await?.success().await?;
    }
}

/// Returns the target of `rel="next"` in a `Link` header (RFC 8288).
fn next(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((target, after)) = rest.split_once('<').and_then(|(_, link)| link.split_once('>')) {
        let parameters = after.split('<').next().unwrap_or_default();
        let is_next = parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('=')).any(
            |(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
            },
        );
        if is_next {
            return Some(target);
        }
        rest = after;
    }
    None
}

/// Returns a URL with the path and the query of the target on the server that was asked.
fn on_same_server(asked: &Url, target: &str) -> Option<Url> {
    let target = asked.join(target).ok()?;
    let mut url = asked.clone();
    url.set_path(target.path());
    url.set_query(target.query());
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_every_form_of_the_header() {
        for (header, target) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("/v2/a/tags/list?last=b&n=2")),
            ("<?last=b>;rel=next", Some("?last=b")),
            (r#"<a,b>; rel="prev", <c>; title="x"; REL="Next""#, Some("c")),
            (r#"<a>; rel="prev""#, None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next(header), target, "{header}");
        }
    }

    #[test]
    fn the_next_page_is_requested_from_the_same_server() {
        let asked = Url::parse("https://r.io:5000/v2/a/tags/list?n=2").unwrap();
        for (target, url) in [
            ("?last=b%2Fc", "https://r.io:5000/v2/a/tags/list?last=b%2Fc"),
            ("/v2/a/tags/list?last=b", "https://r.io:5000/v2/a/tags/list?last=b"),
            ("http://inside.example/v2/a/tags/list?last=b", "https://r.io:5000/v2/a/tags/list?last=b"),
        ] {
            assert_eq!(on_same_server(&asked, target).unwrap().as_str(), url);
        }
    }
}
