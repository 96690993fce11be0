//! What is needed to get at a place: where credentials are looked for, and whom to trust.
//!
//! The library looks at no environment and knows no home directory: whoever calls it says where to look, and in
//! which order.

use super::{ClientOptions, Environment};
use std::fmt;
use std::path::PathBuf;

/// What is needed to get at a place.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Where credentials are looked for: the first that knows the registry wins.
    pub credentials: Vec<CredentialSource>,
    /// Talk plain HTTP to every registry, and not only to those on this machine's loopback.
    pub plain_http: bool,
    /// Whom to trust where connections are encrypted.
    pub tls: Tls,
    /// Files like `registries.conf` of podman and skopeo, which say where images are really read; of two entries for
    /// one prefix, that of the later file counts.
    pub registries_conf: Vec<PathBuf>,
    /// The proxies on the way to registries.
    pub proxies: Proxies,
    /// The environment of credential helpers, which are looked up in its `PATH`.
    pub helper_environment: Environment,
    /// How bytes travel to and from registries.
    pub client: ClientOptions,
}

/// The proxies on the way to registries. None stands between this machine and itself.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// The one for addresses without encryption.
    pub http: Option<Proxy>,
    /// The one for addresses with encryption.
    pub https: Option<Proxy>,
    /// What is reached without them, as in the variable `NO_PROXY`: hosts with all below them, addresses, networks
    /// (`10.0.0.0/8`) and patterns (`*.corp`), each with a port or without, separated by commas.
    pub except: String,
}

/// A proxy, as somebody has named it.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// What has named it, for errors, such as an environment variable.
    pub name: String,
    /// Its address, which may hold a password: `http://HOST:PORT`, or with `https`, `socks4` or `socks5`.
    pub address: Secret,
}

/// Whom to trust, besides the authorities that this machine knows.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Encrypt also on this machine's loopback, and want proofs even of a registry that `registries.conf` calls insecure.
    /// Everything below encrypts too.
    pub required: bool,
    /// Accept any certificate. A man in the middle can then read and change everything.
    pub accept_invalid_certs: bool,
    /// Files and directories with the authorities that replace those of this machine. If there are none, the authorities
    /// are those in the directories where Linux distributions have them.
    pub system_authorities: Vec<PathBuf>,
    /// Files with certificates of authorities, in PEM.
    pub authorities: Vec<PathBuf>,
    /// A directory with authorities, `*.crt`, and a certificate of ours, `*.cert` with `*.key`.
    pub directory: Option<PathBuf>,
    /// Directories that hold such a directory for each registry, under its host and port: the first one that has it
    /// counts, unless one was named.
    pub directories: Vec<PathBuf>,
}

/// A place where credentials may be. The words are those of docker's `config.json`, which podman's `auth.json` and a
/// Kubernetes `.dockerconfigjson` share, or those of its ancestor, `.dockercfg`.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// A file, or a directory that holds one under a usual name, as a mounted Kubernetes secret does. One that is
    /// not there is passed over, and one that cannot be read is told when a registry asks who we are.
    File(PathBuf),
    /// The same, where somebody has asked for this file: one that cannot be read is an error.
    Named(PathBuf),
    /// The text itself.
    Text {
        /// What to call it in an error, such as the name of an environment variable.
        name: String,
        /// The JSON.
        text: Secret,
    },
}

/// A text that nobody shall see: it cannot be printed, and so does not end up in a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whom it is meant.
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
