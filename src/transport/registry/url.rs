//! Rules for URLs. Responses of a registry contain further URLs; not each of them may be requested, and only the registry
//! itself receives the credentials.

use crate::error::{Error, Result};
use reqwest::Url;
use std::net::IpAddr;

/// Docker Hub's name, which is a website, and the host of its registry.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Returns the base URL of a registry, `https://host/v2/`.
///
/// Plain HTTP is used for loopback addresses, unless `require_tls` is set, and for all hosts if `plain_http` is set.
/// Data for a loopback address does not leave the machine.
pub(super) fn base(registry: &str, plain_http: bool, require_tls: bool) -> Result<Url> {
    let host = if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry };
    let parse = |scheme: &str| {
        Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| Error::usage(format!("{registry:?} is not the address of a registry: {error}")))
    };
    let url = parse("https")?;
    // The parsed host is checked, because `127.1` and `0x7f.1` are loopback addresses too.
    if plain_http || (is_loopback(&url) && !require_tls) { parse("http") } else { Ok(url) }
}

/// Returns whether the host is a loopback address, without a name lookup.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Returns whether two URLs are on the same server, so that both may receive the same credentials.
pub(super) fn same_server(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default())
        == (b.scheme(), b.host_str(), b.port_or_known_default())
}

/// Returns the host with its port. Errors show only this part of a URL, because queries may contain signatures.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Resolves a `Location` header, which may be relative to the URL that was requested.
///
/// # Errors
/// When it is not a URL, or leads from https to http.
pub(super) fn follow(asked: &Url, location: &str) -> Result<Url> {
    let host = host_of(asked);
    let mut url = asked
        .join(location)
        .map_err(|error| Error::failed(format!("{host} names an address that is none: {error}")))?;
    match (asked.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => {
            return Err(Error::failed(format!(
                "{host} sends the request on to {} without encryption",
                host_of(&url)
            ))
            .with_hint(
                "the registry does not know that it is reached by https: a proxy in front of it must say so",
            ));
        }
        _ => return Err(Error::failed(format!("{host} sends the request on to what is not a web address"))),
    }
    // Credentials in a URL are not used.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    Ok(url)
}

/// Adds a parameter to a URL. The existing query is state of the registry and keeps its bytes.
pub(super) fn with_parameter(mut url: Url, name: &str, value: &str) -> Url {
    let query = match url.query() {
        None | Some("") => format!("{name}={value}"),
        Some(query) => format!("{query}&{name}={value}"),
    };
    url.set_query(Some(&query));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn plain_http_is_used_for_loopback_or_on_request() {
        for (registry, plain_http, base_url) in [
            ("localhost:5000", false, "http://localhost:5000/v2/"),
            ("127.8.9.1", false, "http://127.8.9.1/v2/"),
            ("[::1]:5000", false, "http://[::1]:5000/v2/"),
            ("ghcr.io", false, "https://ghcr.io/v2/"),
            ("localhost.example.com", false, "https://localhost.example.com/v2/"),
            ("10.0.0.1:5000", false, "https://10.0.0.1:5000/v2/"),
            ("10.0.0.1:5000", true, "http://10.0.0.1:5000/v2/"),
            ("docker.io", false, "https://registry-1.docker.io/v2/"),
        ] {
            assert_eq!(base(registry, plain_http, false).unwrap().as_str(), base_url);
        }
    }

    #[test]
    fn tls_can_be_required_on_loopback() {
        assert_eq!(base("localhost:5000", false, true).unwrap().as_str(), "https://localhost:5000/v2/");
    }

    #[test]
    fn a_location_may_be_relative_and_keeps_its_query() {
        let asked = url("https://r.io:5000/v2/a/blobs/uploads/");
        for (location, target) in [
            (
                "/v2/a/blobs/uploads/1?_state=a%2Bb%3D",
                "https://r.io:5000/v2/a/blobs/uploads/1?_state=a%2Bb%3D",
            ),
            ("1?x", "https://r.io:5000/v2/a/blobs/uploads/1?x"),
            ("?s=1", "https://r.io:5000/v2/a/blobs/uploads/?s=1"),
            ("//cdn.io/x", "https://cdn.io/x"),
            ("https://user:word@cdn.io/x#f", "https://cdn.io/x"),
        ] {
            assert_eq!(follow(&asked, location).unwrap().as_str(), target);
        }
    }

    #[test]
    fn a_location_never_leads_from_https_to_http_or_to_another_scheme() {
        let asked = url("https://r.io/v2/");
        for location in ["http://r.io/v2/x", "file:///etc/passwd", "ftp://r.io/", "https://", "http:x y"] {
            assert!(follow(&asked, location).is_err(), "{location:?}");
        }
        assert!(follow(&url("http://r.io/v2/"), "https://r.io/x").is_ok());
        assert!(follow(&url("http://r.io/v2/"), "file:///etc/passwd").is_err());
    }

    #[test]
    fn a_parameter_is_added_after_the_existing_ones() {
        for (before, after) in [
            ("https://r.io/u", "https://r.io/u?digest=sha256:a"),
            ("https://r.io/u?", "https://r.io/u?digest=sha256:a"),
            ("https://r.io/u?_state=x%2F%3D", "https://r.io/u?_state=x%2F%3D&digest=sha256:a"),
        ] {
            assert_eq!(with_parameter(url(before), "digest", "sha256:a").as_str(), after);
        }
    }

    #[test]
    fn a_server_is_its_scheme_its_host_and_its_port() {
        assert!(same_server(&url("https://r.io/a"), &url("https://r.io:443/b")));
        for other in ["http://r.io/", "https://r.io:444/", "https://r.io.evil.io/"] {
            assert!(!same_server(&url("https://r.io/"), &url(other)));
        }
    }
}
