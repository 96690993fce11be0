//! Lists in pages, correct and incorrect.

use super::Shared;
use super::protocol::{Query, error, reply, reply_json, with};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use volio::oci::media_type;

/// The form of lists.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Pages {
    /// One page with everything, as in distribution before 2.8.2.
    #[default]
    Whole,
    /// Pages of two items, with a URL on a host that only the registry's network knows.
    OfTwo,
    /// The second page links to the first.
    InCircles,
    /// Each page links to a new one and has no new items.
    Barren,
    /// Each page has new items and links to another page.
    Endless,
    /// Each page has few new items and a long URL.
    EndlessAddresses,
    /// Pages of two items, with an opaque name in an absolute URL of the registry, as in Quay and Amazon ECR.
    Opaque,
    /// `null`, as in distribution after the last tag was deleted.
    Null,
}

/// The form in which a registry does not support the referrers API.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum NoReferrers {
    /// Answers 404.
    #[default]
    NotFound,
    /// Answers 404, and sends `OCI-Subject` nevertheless, as Amazon ECR did.
    Claimed,
    /// Redirects to a page, as Google's registries do.
    LoginPage,
}

/// Lists the tags of a repository.
pub fn tags(shared: &Shared, repository: &str, query: &Query) -> Response {
    let inside = shared.inside();
    // As in Amazon ECR. Other registries send fewer items than were requested.
    if query.first("n").is_some_and(|number| number.parse::<usize>().unwrap() > 1000) {
        return error(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID");
    }
    let Some(tags) = inside.store.tags(repository) else {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    };
    let last = query.first("last").unwrap_or_default().to_owned();
    let link =
        |host: &str, last: &str| format!(r#"<{host}/v2/{repository}/tags/list?last={last}&n=2>; rel="next""#);
    let (tags, next) = match inside.behaviour.pages {
        Pages::Whole => (json!(tags), None),
        Pages::Null => (json!(null), None),
        Pages::OfTwo => {
            let page: Vec<_> = tags.iter().filter(|tag| **tag > last).take(2).collect();
            let next = page.last().filter(|tag| tags.last() != Some(tag));
            (json!(page), next.map(|tag| link("http://registry.internal", tag)))
        }
        Pages::Opaque => {
            let start: usize = query
                .first("next_page")
                .map_or(0, |page| page.strip_prefix("gAAAA/==").unwrap().parse().unwrap());
            let next = (start + 2 < tags.len()).then(|| {
                let query = format!("n=2&next_page=gAAAA%2F%3D%3D{}", start + 2);
                format!(r#"<http://{}/v2/{repository}/tags/list?{query}>; rel="next""#, shared.host)
            });
            (json!(tags.iter().skip(start).take(2).collect::<Vec<_>>()), next)
        }
        Pages::InCircles => (json!([&last]), Some(link("", if last == "a" { "b" } else { "a" }))),
        Pages::Barren => (json!(["same"]), Some(link("", &format!("{last}x")))),
        Pages::EndlessAddresses => {
            let number = last.trim_start_matches('x').parse::<u64>().unwrap_or_default() + 1;
            (json!([number.to_string()]), Some(link("", &format!("{}{number}", "x".repeat(60_000)))))
        }
        Pages::Endless => {
            let page: Vec<_> = (0..10_000).map(|number| format!("{number:0>100}-{last}")).collect();
            (json!(page), Some(link("", &format!("{last}x"))))
        }
    };
    let response = reply_json(StatusCode::OK, json!({"name": repository, "tags": tags}).to_string());
    match next {
        Some(next) => with(response, "link", &next),
        None => response,
    }
}

/// Returns the subject of a manifest.
pub fn subject_of(manifest: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(manifest).ok()?;
    json["subject"]["digest"].as_str().map(str::to_owned)
}

/// Lists the referrers of a manifest, one on each page.
pub fn referrers(shared: &Shared, repository: &str, digest: &str, query: &Query) -> Response {
    let inside = shared.inside();
    if !inside.behaviour.lists_referrers {
        return match inside.behaviour.no_referrers {
            NoReferrers::LoginPage => with(reply(StatusCode::FOUND), "location", "/login"),
            NoReferrers::NotFound | NoReferrers::Claimed => error(StatusCode::NOT_FOUND, "NOT_FOUND"),
        };
    }
    let mut found = inside.store.manifests(repository);
    found.retain(|stored| subject_of(&stored.bytes).as_deref() == Some(digest));
    let filter = query.first("artifactType").map(|wanted| format!(r#""artifactType":"{wanted}""#));
    found.retain(|stored| {
        filter.as_ref().is_none_or(|filter| String::from_utf8_lossy(&stored.bytes).contains(filter))
    });
    found.sort_by(|a, b| a.digest.cmp(&b.digest));
    let last = query.first("last").unwrap_or_default();
    let mut rest = found.iter().filter(|stored| stored.digest.as_str() > last);
    let page = rest.next().map(|stored| {
        let json: Value = serde_json::from_slice(&stored.bytes).unwrap();
        json!({"mediaType": stored.media_type, "digest": stored.digest, "size": stored.bytes.len(),
               "artifactType": json["artifactType"]})
    });
    let index =
        json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": Vec::from_iter(&page)});
    let response = reply_json(StatusCode::OK, index.to_string());
    let mut response = with(response, "content-type", media_type::INDEX);
    if filter.is_some() {
        response = with(response, "oci-filters-applied", "artifactType");
    }
    if let (Some(page), true) = (&page, rest.next().is_some()) {
        let last = page["digest"].as_str().unwrap();
        response = with(
            response,
            "link",
            &format!(r#"</v2/{repository}/referrers/{digest}?last={last}>; rel="next""#),
        );
    }
    response
}
