//! Access to registries: credentials, certificates, proxies and mirrors.
//!
//! The library does not read the environment and does not know the home directory. The caller says which files are read, and
//! in which order.

use super::{ClientOptions, Environment};
use std::fmt;
use std::path::PathBuf;

/// Everything that is needed to reach a registry.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The sources of credentials. The first one that knows the registry is used.
    pub credentials: Vec<CredentialSource>,
    /// Use plain HTTP for every registry, not only for those on the loopback interface.
    pub plain_http: bool,
    /// The certificates that are trusted.
    pub tls: Tls,
    /// Files like `registries.conf` of podman and skopeo, which name mirrors. Of two entries for a prefix, the one in the
    /// later file is used.
    pub registries_conf: Vec<PathBuf>,
    /// The proxies.
    pub proxies: Proxies,
    /// The environment of credential helpers, which are looked up in its `PATH`.
    pub helper_environment: Environment,
    /// The options for connections.
    pub client: ClientOptions,
}

/// The proxies between this machine and registries. They are not used for the loopback interface.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// The proxy for `http` URLs.
    pub http: Option<Proxy>,
    /// The proxy for `https` URLs.
    pub https: Option<Proxy>,
    /// The hosts that are reached without a proxy, in the syntax of the variable `NO_PROXY`: hosts with their subdomains,
    /// addresses, networks (`10.0.0.0/8`) and patterns (`*.corp`), each with or without a port, separated by commas.
    pub except: String,
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The origin of the setting, for errors, such as the name of an environment variable.
    pub name: String,
    /// Its URL, which may contain a password: `http://HOST:PORT`, or with `https`, `socks4` or `socks5`.
    pub address: Secret,
}

/// The certificates that are trusted in addition to those of the system.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Use TLS also on the loopback interface, and verify certificates also of registries that `registries.conf` calls
    /// insecure. `accept_invalid_certs`, `authorities` and directories with certificates imply TLS too.
    pub required: bool,
    /// Accept any certificate. Passwords and data can then be read and changed on the way.
    pub accept_invalid_certs: bool,
    /// Files and directories with the authorities that replace those of the system. If there are none, the system's
    /// authorities are read from the directories where Linux distributions have them.
    pub system_authorities: Vec<PathBuf>,
    /// Files with certificates of authorities, in PEM.
    pub authorities: Vec<PathBuf>,
    /// A directory with certificates of authorities, `*.crt`, and a client certificate, `*.cert` with `*.key`.
    pub directory: Option<PathBuf>,
    /// Directories with such a directory for each registry, named by its host and port. The first one found is used if
    /// `directory` is `None`.
    pub directories: Vec<PathBuf>,
}

/// A source of credentials, in the format of docker's `config.json`, which is also the format of podman's `auth.json` and of
/// a `.dockerconfigjson` of Kubernetes, or in the older format of `.dockercfg`.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// A file, or a directory with a file that has one of the usual names, such as a mounted Kubernetes secret. A missing
    /// file is skipped. One that cannot be read causes a warning if a registry requires credentials.
    File(PathBuf),
    /// A file that the user has named: it is an error if it cannot be read.
    Named(PathBuf),
    /// A text in memory.
    Text {
        /// Its name for errors, such as the name of an environment variable.
        name: String,
        /// The JSON.
        text: Secret,
    },
}

/// A secret text. Its `Debug` output does not contain it, so that it does not end up in logs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let text = Secret::new("hunter2");
        let access = Access {
            credentials: vec![CredentialSource::Text { name: "X".to_owned(), text }],
            ..Access::default()
        };
        assert!(!format!("{access:?} {access:#?}").contains("hunter2"));
    }
}
