//! Whom to trust, and who we are by certificate.
//!
//! A registry of a company has a certificate that only the company's authority vouches for. People say so on the
//! command line, or once for all programs in a directory per host, as docker and containers/image have it: `*.crt` are
//! authorities, `*.cert` and `*.key` of one name are ours.

mod algorithms;
mod failure;
mod policies;
mod verifier;

pub(super) use self::failure::describe;

use self::verifier::Verifier;
use super::registries_conf::RegistriesConf;
use super::url::{host_of, same_server};
use crate::error::{Error, Result};
use crate::transport::Access;
use reqwest::Url;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// What encrypted connections look like: to one registry, and to the hosts to which it sends us.
#[derive(Default)]
pub(super) struct TlsConfig {
    /// Trust any server, as somebody said of all of them.
    anybody: bool,
    /// What was named on the command line, which counts for all hosts.
    named: Found,
    /// The registry trusts any server that answers in its name.
    own_anybody: bool,
    /// What was found for the registry itself.
    own: Found,
    /// Directories that may hold something for the other hosts.
    directories: Vec<PathBuf>,
    /// What says which of the other hosts prove nothing.
    conf: Arc<RegistriesConf>,
    /// The authorities of this machine.
    system: OnceLock<Vec<CertificateDer<'static>>>,
    /// Whether somebody wants encryption, also where it would not be needed.
    pub(super) wanted: bool,
}

/// Hosts that are connected to in the same way.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// The registry: the only one that sees a certificate of ours.
    Registry,
    /// Another port of the registry's host, such as that of its token server.
    Neighbour,
    /// A host that has something of its own.
    Host(String),
    /// All others.
    Other,
}

/// Certificates that belong together.
#[derive(Default)]
struct Found {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
}

/// A certificate of ours, and its key.
struct Identity {
    file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsConfig {
    /// Reads what there is for a registry; `anybody` when it is known as one that proves nothing.
    ///
    /// # Errors
    /// When a file cannot be read or understood: going on without it would end in a distrust that nobody could
    /// explain.
    pub(super) fn read(
        access: &Access,
        registry: &str,
        anybody: bool,
        conf: &Arc<RegistriesConf>,
    ) -> Result<Self> {
        let asked = &access.tls;
        if access.plain_http {
            return Ok(Self::default());
        }
        let mut tls = Self {
            anybody: asked.anybody,
            // Who asks for proofs in so many words gets them, whatever a file says.
            own_anybody: anybody && !asked.wanted,
            wanted: asked.wanted || asked.anybody || !asked.authorities.is_empty(),
            ..Self::default()
        };
        if !asked.wanted {
            tls.conf = Arc::clone(conf);
        }
        for file in &asked.authorities {
            tls.named.authorities.extend(authorities(file)?);
        }
        match &asked.directory {
            Some(directory) => {
                tls.wanted = true;
                tls.named.add(directory)?;
            }
            None => {
                tls.directories.clone_from(&asked.directories);
                if let Some(directory) = tls.directory_of(registry) {
                    tls.wanted = true;
                    tls.own.add(&directory)?;
                }
            }
        }
        Ok(tls)
    }

    /// How an address is connected to, when this is the root of the registry's protocol.
    ///
    /// # Errors
    /// When `registries.conf` blocks the host.
    pub(super) fn peer(&self, url: &Url, registry: Option<&Url>) -> Result<Peer> {
        if registry.is_some_and(|registry| same_server(registry, url)) {
            return Ok(Peer::Registry);
        }
        let host = host_of(url);
        if self.directory_of(&host).is_some() || self.conf.trusts_anybody(&host)? {
            return Ok(Peer::Host(host));
        }
        let is_neighbour = registry.is_some_and(|registry| registry.host_str() == url.host_str());
        Ok(if is_neighbour { Peer::Neighbour } else { Peer::Other })
    }

    /// How connections to such a host are encrypted.
    ///
    /// # Errors
    /// When nobody at all can be trusted, or a certificate of ours cannot be used.
    pub(super) fn client_config(&self, peer: &Peer) -> Result<ClientConfig> {
        let mut found = Found::default();
        let (own, anybody) = match peer {
            Peer::Registry | Peer::Neighbour => (&self.own, self.own_anybody),
            Peer::Host(host) => {
                if let Some(directory) = self.directory_of(host) {
                    found.add(&directory)?;
                }
                (&found, self.conf.trusts_anybody(host)?)
            }
            Peer::Other => (&found, false),
        };
        let verifier = match self.anybody || anybody {
            true => Verifier::Anybody,
            false => Verifier::of(
                [&self.named.authorities, &own.authorities, self.system()]
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            ),
        };
        if verifier.is_empty() {
            return Err(Error::failed("cannot prepare encrypted connections")
                .with_source("there are no certificates of authorities on this machine")
                .with_hint("Debian's are in the package ca-certificates; --ca-file names others"));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(algorithms::provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::failed("cannot prepare encrypted connections").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let identity = match peer {
            Peer::Registry => self.named.identity.as_ref().or(own.identity.as_ref()),
            Peer::Host(_) => own.identity.as_ref(),
            Peer::Neighbour | Peer::Other => None,
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|_| {
                    unusable(
                        &identity.file,
                        "its key is of another certificate, or of a kind that is not taken",
                    )
                    .with_hint("RSA, Ed25519, and ECDSA with P-256 and P-384 are taken")
                })?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The directory that is for a host.
    fn directory_of(&self, host: &str) -> Option<PathBuf> {
        self.directories.iter().map(|all| all.join(host)).find(|own| own.is_dir())
    }

    /// The authorities of this machine; those that cannot be read are left out, as other programs do it.
    fn system(&self) -> &Vec<CertificateDer<'static>> {
        self.system.get_or_init(|| rustls_native_certs::load_native_certs().certs)
    }
}

impl Found {
    /// Adds what is in a directory; of several certificates of ours, the first by name.
    fn add(&mut self, directory: &Path) -> Result<()> {
        let cannot = |error| Error::io(format!("cannot read the directory {}", directory.display()), error);
        let entries = fs::read_dir(directory).map_err(cannot)?;
        let mut files =
            entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>, _>>().map_err(cannot)?;
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.extend(authorities(&file)?),
                Some("cert") if self.identity.is_none() => self.identity = Some(identity(&file)?),
                _ => {}
            }
        }
        Ok(())
    }
}

fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(file)?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
    if certificates.is_empty() {
        return Err(unusable(file, "it holds no certificate in PEM"));
    }
    let mut roots = RootCertStore::empty();
    match certificates.iter().try_for_each(|certificate| roots.add(certificate.clone())) {
        Ok(()) => Ok(certificates),
        Err(_) => Err(unusable(file, "it holds a certificate that cannot be read")),
    }
}

/// Our certificate, and the key beside it.
fn identity(file: &Path) -> Result<Identity> {
    let key_file = file.with_extension("key");
    if !key_file.exists() {
        return Err(unusable(file, &format!("there is no {} for it", key_file.display())).with_hint(
            "certificates of authorities have the ending .crt, ours .cert with a .key beside it",
        ));
    }
    let (pem, key) = (read(file)?, read(&key_file)?);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    match PrivateKeyDer::from_pem_slice(&key).or_else(|_| PrivateKeyDer::from_pem_slice(&pem)) {
        Ok(key) if !chain.is_empty() => Ok(Identity { file: file.to_owned(), chain, key }),
        // The parser's own words could quote the key.
        _ => Err(unusable(
            file,
            &format!("it and {} are not a certificate and its key in PEM", key_file.display()),
        )),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| Error::io(format!("cannot read {}", file.display()), error))
}

fn unusable(file: &Path, why: &str) -> Error {
    Error::failed(format!("cannot use the certificate {}", file.display())).with_source(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Tls as Asked;

    fn read(access: &Access, registry: &str, anybody: bool) -> Result<TlsConfig> {
        TlsConfig::read(access, registry, anybody, &Arc::default())
    }

    fn access(tls: Asked) -> Access {
        Access { tls, ..Access::default() }
    }

    #[test]
    fn a_directory_is_for_its_host_and_port_only() {
        let all = tempfile::tempdir().unwrap();
        let own = all.path().join("r.io:5000");
        fs::create_dir(&own).unwrap();
        let access = access(Asked { directories: vec![all.path().to_owned()], ..Asked::default() });
        assert!(read(&access, "r.io:5000", false).unwrap().wanted);
        assert!(!read(&access, "r.io", false).unwrap().wanted);
        fs::write(own.join("ca.crt"), "hunter2").unwrap();
        assert!(read(&access, "r.io", false).is_ok());
        let error = read(&access, "r.io:5000", false).err().unwrap();
        assert!(error.to_string().contains("ca.crt"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let access = access(Asked { directory: Some(directory.path().to_owned()), ..Asked::default() });
        assert!(read(&access, "r.io", false).is_ok());
        fs::write(directory.path().join("client.cert"), "x").unwrap();
        let error = read(&access, "r.io", false).err().unwrap();
        assert!(error.to_string().contains("client.key"), "{error}");
        fs::write(directory.path().join("client.key"), "hunter2").unwrap();
        let error = read(&access, "r.io", false).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let access = access(Asked { authorities: vec!["/does/not/exist".into()], ..Asked::default() });
        assert!(read(&access, "r.io", false).is_err());
    }
}
