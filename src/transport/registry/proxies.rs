//! Proxies, and the rules for the hosts that are reached without them.

use super::printable::printable;
use super::url::{host_of, is_loopback};
use crate::error::{Error, Result};
use crate::transport::{Access, Proxy};
use reqwest::Url;
use std::net::IpAddr;

/// The supported schemes of proxies.
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// The proxies for http and https, and the exceptions.
#[derive(Clone, Default)]
pub(super) struct ProxyRules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// The proxy for a URL.
#[derive(Debug)]
pub(super) struct ProxyRoute {
    /// The URL of the proxy, which may contain a password.
    pub(super) url: Url,
    /// The variable that names it.
    name: String,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    host: Pattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// A network, by its address and the length of its prefix in bits.
    Network(IpAddr, u8),
    /// A domain and all hosts below it.
    Domain(String),
    /// A name in which `*` matches any text.
    Glob(String),
}

impl ProxyRules {
    pub(super) fn new(access: &Access) -> Self {
        let options = &access.proxies;
        // The usual separator is a comma; some programs use spaces.
        let words = options.except.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        Self {
            http: options.http.clone(),
            https: options.https.clone(),
            exceptions: words.map(Exception::parse).collect(),
        }
    }

    /// Returns the proxy for a URL. Loopback addresses have none.
    ///
    /// # Errors
    /// When the proxy cannot be used.
    pub(super) fn route(&self, url: &Url) -> Result<Option<ProxyRoute>> {
        let proxy = match url.scheme() {
            "https" => &self.https,
            _ => &self.http,
        };
        match proxy {
            Some(proxy)
                if !is_loopback(url) && !self.exceptions.iter().any(|exception| exception.covers(url)) =>
            {
                ProxyRoute::new(proxy, url).map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl ProxyRoute {
    fn new(proxy: &Proxy, to: &Url) -> Result<Self> {
        let (name, address) = (&proxy.name, proxy.address.reveal().trim());
        // The URL of the proxy is not shown, because it may contain a password.
        let unusable = |why: &str| {
            Error::failed(format!("cannot reach {} through the proxy in {name}", host_of(to))).with_source(why.to_owned()).with_hint(
                format!("write {name}=http://HOST:PORT; https and socks5 are known too. NO_PROXY={} goes around it", host_of(to)),
            )
        };
        let kind = address.split_once("://").map(|(kind, _)| kind.to_ascii_lowercase());
        let url = match kind.as_deref() {
            Some(kind) if !SCHEMES.contains(&kind) => {
                let kind = printable(kind);
                return Err(unusable(&format!("it is of the kind {kind:?}, which is not known")));
            }
            Some(_) => Url::parse(address),
            None => Url::parse(&format!("http://{address}")),
        };
        match url {
            Ok(mut url) if url.has_host() => {
                if url.scheme().starts_with("socks") && url.port().is_none() {
                    let _ = url.set_port(Some(1080));
                }
                Ok(Self { url, name: name.clone() })
            }
            _ => Err(unusable("it is not an address")),
        }
    }

    /// Returns the name of the proxy for errors.
    pub(super) fn name(&self) -> String {
        format!("the proxy {} of {}", host_of(&self.url), self.name)
    }

    /// Returns the variable that names the proxy.
    pub(super) fn variable(&self) -> &str {
        &self.name
    }
}

impl Exception {
    fn parse(word: &str) -> Self {
        // An IPv6 address contains colons, so it has a port only with brackets.
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        if let Some(network) = Pattern::network(bare) {
            return Self { host: network, port: None };
        }
        let (host, port) = match word.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host, Some(port)),
            _ => (word, None),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = Pattern::network(bare).unwrap_or_else(|| Pattern::name(bare));
        Self { host, port }
    }

    fn covers(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        self.port.is_none_or(|port| url.port_or_known_default() == Some(port)) && self.host.covers(host)
    }
}

impl Pattern {
    fn network(word: &str) -> Option<Self> {
        let (address, bits) = match word.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (word, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self::Network(address, bits))
    }

    fn name(word: &str) -> Self {
        let word = word.trim_end_matches('.').to_ascii_lowercase();
        // `*.example.com` and `.example.com` match the hosts below the domain, and as in curl also the domain itself.
        match word.strip_prefix("*.").unwrap_or(&word) {
            rest if rest.contains('*') => Self::Glob(word),
            rest => Self::Domain(rest.trim_start_matches('.').to_owned()),
        }
    }

    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Network(network, bits) => host.parse().is_ok_and(|address| is_in(address, *network, *bits)),
            Self::Domain(domain) => {
                let above = host.strip_suffix(domain.as_str());
                !domain.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            Self::Glob(glob) => matches_glob(glob, host),
        }
    }
}

/// Returns whether an address is in a network.
fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let differing = number(address) ^ number(network);
    address.is_ipv4() == network.is_ipv4() && differing.leading_zeros() >= u32::from(bits)
}

/// Returns whether a text matches a pattern in which `*` matches any text.
fn matches_glob(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(position) => rest = &rest[position + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Proxies, Secret};

    fn proxies(address: &str, except: &str) -> ProxyRules {
        let proxy = |name: &str| Some(Proxy { name: name.to_owned(), address: Secret::new(address) });
        let proxies =
            Proxies { http: proxy("HTTP_PROXY"), https: proxy("HTTPS_PROXY"), except: except.to_owned() };
        ProxyRules::new(&Access { proxies, ..Access::default() })
    }

    fn is_excepted(except: &str, url: &str) -> bool {
        proxies("http://proxy:3128", except).route(&Url::parse(url).unwrap()).unwrap().is_none()
    }

    #[test]
    fn hosts_networks_patterns_and_ports_are_excepted_from_the_proxy() {
        for (except, url, expected) in [
            ("", "https://r.io/", false),
            ("r.io", "https://r.io/", true),
            ("R.IO.", "https://a.r.io:5000/", true),
            ("r.io", "https://xr.io/", false),
            (".r.io", "https://a.r.io/", true),
            (".r.io", "https://r.io/", true),
            ("*.r.io", "https://a.b.r.io/", true),
            ("*.r.io", "https://xr.io/", false),
            ("r.io:5000", "https://r.io:5000/", true),
            ("r.io:5000", "https://r.io/", false),
            ("r.io:443", "https://r.io/", true),
            ("r.io:80", "http://r.io/", true),
            ("*.r.io:443", "https://a.r.io/", true),
            ("*", "https://r.io/", true),
            ("*:5000", "https://r.io/", false),
            ("reg*.corp", "https://registry-1.corp/", true),
            ("reg*.corp", "https://registry-1.corp.evil/", false),
            ("10.*", "https://10.1.2.3/", true),
            ("10.1.2.3", "https://10.1.2.3:5000/", true),
            ("10.1.2.3:5000", "https://10.1.2.3:5000/", true),
            ("10.1.2.3:5000", "https://10.1.2.3/", false),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("0.0.0.0/0", "https://11.1.2.3/", true),
            ("0.0.0.0/0", "https://r.io/", false),
            ("10.0.0.0/33", "https://10.1.2.3/", false),
            ("fd00::/8", "https://[fd00::1]:5000/", true),
            ("fd00::1", "https://[fd00::1]/", true),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/", true),
            ("[fd00::1]:5000", "https://[fd00::1]/", false),
            ("a.io, b.io  c.io,,", "https://c.io/", true),
            (".", "https://r.io/", false),
            ("", "https://localhost:5000/", true),
            ("", "http://127.8.9.1/", true),
            ("", "https://[::1]/", true),
        ] {
            assert_eq!(is_excepted(except, url), expected, "{except:?} {url}");
        }
    }

    #[test]
    fn a_proxy_may_have_no_scheme_and_a_password() {
        let to = Url::parse("https://r.io/").unwrap();
        for (address, url) in [
            ("proxy:3128", "http://proxy:3128/"),
            (" http://me:word@proxy ", "http://me:word@proxy/"),
            ("HTTPS://proxy", "https://proxy/"),
            ("socks5h://proxy", "socks5h://proxy:1080"),
        ] {
            assert_eq!(proxies(address, "").route(&to).unwrap().unwrap().url.as_str(), url, "{address}");
        }
    }

    #[test]
    fn an_unusable_proxy_is_reported_with_its_variable_and_without_its_password() {
        let to = Url::parse("https://r.io/").unwrap();
        for address in
            ["ftp://me:hunter2@proxy", "http://", "http://me:hunter2@pro xy", "http://me:hunter2@proxy:port"]
        {
            let error = proxies(address, "").route(&to).unwrap_err();
            let message = format!("{error} {error:?}");
            assert!(message.contains("HTTPS_PROXY") && !message.contains("hunter2"), "{message}");
        }
        assert!(
            proxies("ftp://proxy", "").route(&Url::parse("https://localhost/").unwrap()).unwrap().is_none()
        );
    }
}
