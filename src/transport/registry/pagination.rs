//! Lists that come in pages (distribution-spec, "Listing Tags").
//!
//! Each page says where the next one is. A server that says so for ever must not be followed for ever, and what it
//! says is taken as a path on itself: behind a proxy, registries often do not know their own address.

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

/// How many tags are asked for at once: ECR answers more with an error, and others give what they like.
const PAGE: usize = 1000;
/// How large all pages of a list of tags may be together, in bytes: a quarter of a million of the longest tags.
const TAGS_LIMIT: usize = 32 << 20;
/// How many tags a repository may have: 24 bytes of memory each beside its own.
const TAGS_COUNT: usize = 1 << 20;
/// How many pages in a row may bring nothing new: filters leave some empty.
const BARREN_LIMIT: usize = 8;

/// All tags of a repository. The order of the bytes is that of the specification, which not every registry keeps (distribution
/// 2.8 has none).
pub(super) fn tags(client: &Client, repository: &str, name: &str) -> Result<Vec<String>> {
    let mut url = client.url(&format!("{repository}/tags/list"));
    url.set_query(Some(&format!("n={PAGE}")));
    let request = Request::new(Method::GET, url, format!("list the tags of {name}"));
    let scopes = Scopes::pull(repository);
    let mut tags = BTreeSet::new();
    wait(async {
        let first = client.send(request.clone(), &scopes).await?.success().await?;
        pages(client, request, &scopes, first, TAGS_LIMIT, |page| {
            let page: Page = serde_json::from_slice(page).map_err(|error| {
                Error::failed(format!("the tags of {name} cannot be read: {}", printable(&error.to_string())))
            })?;
            let before = tags.len();
            tags.extend(page.tags.unwrap_or_default().0);
            match tags.len() > TAGS_COUNT {
                true => Err(Error::failed(format!("{name} has more than {TAGS_COUNT} tags"))),
                false => Ok(tags.len() > before),
            }
        })
        .await
    })?;
    Ok(tags.into_iter().collect())
}

/// A page of tags.
#[derive(Deserialize)]
struct Page {
    /// distribution writes `null` for a repository whose last tag is gone.
    tags: Option<Tags>,
}

/// No more tags than a repository may have.
#[derive(Default)]
struct Tags(Vec<String>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Few;

        impl<'de> Visitor<'de> for Few {
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

        deserializer.deserialize_seq(Few)
    }
}

/// Goes through all pages of a list, beginning with the response to `request`; all of them have `limit` bytes at most. `take` says of each whether it brought
/// something new.
///
/// # Errors
/// When the list leads in circles or does not end.
pub(super) async fn pages(
    client: &Client,
    mut request: Request,
    scopes: &Scopes,
    mut response: Response,
    limit: usize,
    mut take: impl FnMut(&[u8]) -> Result<bool>,
) -> Result<()> {
    let mut visited = HashSet::from([request.url.clone()]);
    let (mut room, mut barren) = (limit, 0);
    loop {
        let next =
            response.header(&LINK).and_then(next).and_then(|target| on_same_server(&request.url, target));
        let page = response.read(room + 1).await?;
        // What is remembered of a page is its address too.
        let size = page.len() + next.as_ref().map_or(0, |next| next.as_str().len());
        room = room.checked_sub(size).ok_or_else(|| {
            Error::failed(format!("cannot {}: the list is larger than {limit} bytes", request.what))
        })?;
        barren = if take(&page)? { 0 } else { barren + 1 };
        let Some(next) = next else { return Ok(()) };
        if barren > BARREN_LIMIT || !visited.insert(next.clone()) {
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

/// The target of `rel="next"` in a `Link` header (RFC 8288).
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

/// The path and the query of the target on the server that was asked.
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
    fn the_next_page_is_found_however_the_header_is_written() {
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
    fn the_next_page_is_on_the_same_server_whatever_it_calls_itself() {
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
