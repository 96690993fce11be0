//! Explanations of failed connections.
//!
//! Only the innermost cause of an error is shown: the layers above it add no facts, and the URL in their messages may
//! contain a signature.

use super::printable::printable;
use super::proxies::ProxyRoute;
use super::tls;
use crate::error::Error;
use std::{error, io};

/// Returns the cause of a failed connection to a host.
pub(super) fn cause(error: &reqwest::Error, host: &str) -> String {
    match find::<rustls::Error>(error) {
        Some(tls) => tls::describe(tls, host).why,
        None => printable(&root(error).to_string()),
    }
}

/// Returns advice for the user about a failed connection to a host.
pub(super) fn hint(error: &reqwest::Error, host: &str) -> Option<String> {
    if let Some(tls) = find::<rustls::Error>(error) {
        return tls::describe(tls, host).hint;
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        _ if chain_contains(error, "dns error") => {
            Some("is the name right, and is there a network?".to_owned())
        }
        Some(io::ErrorKind::ConnectionRefused) => Some(format!("is the registry running at {host}?")),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Some("the server hung up; a proxy in front of it may limit the size of requests".to_owned())
        }
        _ if error.is_timeout() => Some(format!("{host} does not response; is there a firewall between?")),
        _ => None,
    }
}

/// Returns the cause of a failed connection to a proxy, or from the proxy to a host.
pub(super) fn proxy_cause(error: &reqwest::Error, host: &str) -> String {
    if needs_proxy_password(error) {
        "it wants a name and a password".to_owned()
    } else if chain(error).any(|cause| cause.to_string().ends_with("unsuccessful")) {
        format!("it does not connect to {host}")
    } else {
        printable(&root(error).to_string())
    }
}

/// Returns advice for the user about a failed connection through a proxy.
pub(super) fn proxy_hint(error: &reqwest::Error, route: &ProxyRoute, host: &str) -> String {
    let variable = route.variable();
    if needs_proxy_password(error) {
        format!("write {variable}=http://NAME:PASSWORD@HOST:PORT")
    } else {
        format!("is {variable} right, and does the proxy run? NO_PROXY={host} goes around it")
    }
}

/// Returns whether encryption failed.
pub(super) fn is_tls(error: &reqwest::Error) -> bool {
    find::<rustls::Error>(error).is_some()
}

/// Returns whether an established connection was lost before the response was complete.
pub(super) fn is_lost_connection(error: &reqwest::Error) -> bool {
    use io::ErrorKind as K;
    let reset = find::<io::Error>(error).is_some_and(|error| {
        matches!(
            error.kind(),
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof | K::TimedOut
        )
    });
    let ended = find::<hyper::Error>(error)
        .is_some_and(|error| error.is_incomplete_message() || error.is_closed() || error.is_canceled());
    reset || ended
}

/// Returns an error for connections that cannot be set up on this machine.
pub(super) fn setup_error(error: &reqwest::Error) -> Error {
    Error::failed("cannot prepare connections").with_source(root(error).to_string())
}

/// Returns whether a proxy answered 407. The type of that error is private, so its text is compared.
fn needs_proxy_password(error: &reqwest::Error) -> bool {
    chain_contains(error, "proxy authorization required")
}

fn chain_contains(error: &reqwest::Error, text: &str) -> bool {
    chain(error).any(|cause| cause.to_string().contains(text))
}

/// Returns an error and its causes, outermost first.
fn chain<'a>(
    error: &'a (dyn error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        // An I/O error displays the error that it wraps, and its source is the source of that error.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn error::Error + 'static)),
            None => error.source(),
        }
    })
}

fn root<'a>(error: &'a (dyn error::Error + 'static)) -> &'a (dyn error::Error + 'static) {
    chain(error).last().unwrap_or(error)
}

/// Returns the innermost cause of a type.
fn find<'a, T: error::Error + 'static>(error: &'a (dyn error::Error + 'static)) -> Option<&'a T> {
    chain(error).filter_map(|cause| cause.downcast_ref::<T>()).last()
}
