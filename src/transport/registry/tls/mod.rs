//! TLS: trusted authorities and client certificates.
//!
//! The authorities are those of the machine and those that the user names, in options or in directories for each host.
//! The directories have the form that docker and containers/image have given them: `*.crt` are authorities, `*.cert` and
//! `*.key` of one name are a client certificate with its key.

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
use rustls_native_certs::load_certs_from_paths;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The files in which Linux distributions have their authorities; the first that exists counts. The list and the next are
/// those of openssl-probe, which also reads the environment.
const SYSTEM_FILES: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",   // older Fedora and RHEL
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/pki/tls/cacert.pem",            // OpenELEC
    "/etc/ssl/cert.pem",                  // Alpine
    "/opt/etc/ssl/certs/ca-certificates.crt", // Entware
    "/etc/ssl/certs/cacert.pem",          // OpenHarmony
];
/// The directories in which Linux distributions have their authorities; all that exist count.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/security/certificates"];

/// The TLS settings for one registry and the hosts that it refers to.
#[derive(Default)]
pub(super) struct TlsConfig {
    /// Accept any certificate of any host.
    accept_invalid_certs: bool,
    /// The certificates that the user named in options. They apply to all hosts.
    named: Certificates,
    /// Accept any certificate of the registry's host.
    registry_is_insecure: bool,
    /// The certificates in the directory of the registry's host.
    registry: Certificates,
    /// Directories with a directory for each host.
    directories: Vec<PathBuf>,
    /// The rules for the other hosts.
    conf: Arc<RegistriesConf>,
    /// The files and directories that replace the authorities of the machine.
    system_authorities: Vec<PathBuf>,
    /// The authorities of the machine, loaded when they are first needed.
    system: OnceLock<Vec<CertificateDer<'static>>>,
    /// Use TLS also on loopback addresses, because something names certificates or asks for verification.
    pub(super) required: bool,
}

/// A group of hosts that are connected to with the same TLS settings.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// The registry. Only the registry receives the client certificate.
    Registry,
    /// Another port of the registry's host, such as its token server.
    SameHost,
    /// A host with certificates or rules of its own.
    Host(String),
    /// Any other host.
    Other,
}

/// Authorities, and a client certificate.
#[derive(Default)]
struct Certificates {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<ClientCertificate>,
}

struct ClientCertificate {
    file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsConfig {
    /// Reads the certificates for a registry. `is_insecure` is set if `registries.conf` says so of the registry.
    ///
    /// # Errors
    /// When a file cannot be read or parsed. Without it, the error would come later, as an untrusted certificate.
    pub(super) fn read(
        access: &Access,
        registry: &str,
        is_insecure: bool,
        conf: &Arc<RegistriesConf>,
    ) -> Result<Self> {
        let options = &access.tls;
        if access.plain_http {
            return Ok(Self::default());
        }
        let mut tls = Self {
            accept_invalid_certs: options.accept_invalid_certs,
            // An explicit option overrides registries.conf.
            registry_is_insecure: is_insecure && !options.required,
            required: options.required || options.accept_invalid_certs || !options.authorities.is_empty(),
            system_authorities: options.system_authorities.clone(),
            ..Self::default()
        };
        if !options.required {
            tls.conf = Arc::clone(conf);
        }
        for file in &options.authorities {
            tls.named.authorities.extend(read_authorities(file)?);
        }
        match &options.directory {
            Some(directory) => {
                tls.required = true;
                tls.named.add_directory(directory)?;
            }
            None => {
                tls.directories.clone_from(&options.directories);
                if let Some(directory) = tls.directory_of(registry) {
                    tls.required = true;
                    tls.registry.add_directory(&directory)?;
                }
            }
        }
        Ok(tls)
    }

    /// Returns the group of the host in a URL. `registry` is the base URL of the registry.
    ///
    /// # Errors
    /// When `registries.conf` blocks the host.
    pub(super) fn peer(&self, url: &Url, registry: Option<&Url>) -> Result<Peer> {
        if registry.is_some_and(|registry| same_server(registry, url)) {
            return Ok(Peer::Registry);
        }
        let host = host_of(url);
        if self.directory_of(&host).is_some() || self.conf.is_insecure(&host)? {
            return Ok(Peer::Host(host));
        }
        let is_same_host = registry.is_some_and(|registry| registry.host_str() == url.host_str());
        Ok(if is_same_host { Peer::SameHost } else { Peer::Other })
    }

    /// Returns the settings of rustls for a group of hosts.
    ///
    /// # Errors
    /// When there are no trusted authorities, or the client certificate cannot be used.
    pub(super) fn client_config(&self, peer: &Peer) -> Result<ClientConfig> {
        let mut found = Certificates::default();
        let (own, is_insecure) = match peer {
            Peer::Registry | Peer::SameHost => (&self.registry, self.registry_is_insecure),
            Peer::Host(host) => {
                if let Some(directory) = self.directory_of(host) {
                    found.add_directory(&directory)?;
                }
                (&found, self.conf.is_insecure(host)?)
            }
            Peer::Other => (&found, false),
        };
        let verifier = if self.accept_invalid_certs || is_insecure {
            Verifier::AcceptAny
        } else {
            let authorities = [&self.named.authorities, &own.authorities, self.system()];
            Verifier::trusting(authorities.into_iter().flatten().cloned().collect())
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
        let client = match peer {
            Peer::Registry => self.named.client.as_ref().or(own.client.as_ref()),
            Peer::Host(_) => own.client.as_ref(),
            Peer::SameHost | Peer::Other => None,
        };
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                builder.with_client_auth_cert(client.chain.clone(), client.key.clone_key()).map_err(|_| {
                    unusable(
                        &client.file,
                        "its key is of another certificate, or of a kind that is not taken",
                    )
                    .with_hint("RSA, Ed25519, and ECDSA with P-256 and P-384 are taken")
                })?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Returns the directory with certificates for a host.
    fn directory_of(&self, host: &str) -> Option<PathBuf> {
        self.directories.iter().map(|parent| parent.join(host)).find(|directory| directory.is_dir())
    }

    /// Returns the authorities of the machine. Those that cannot be read are skipped, as in other programs.
    fn system(&self) -> &Vec<CertificateDer<'static>> {
        self.system.get_or_init(|| {
            let (directories, files) = if self.system_authorities.is_empty() {
                let existing = |path: &&str| Path::new(path).exists();
                let files = SYSTEM_FILES.into_iter().find(existing).map(PathBuf::from);
                let directories = SYSTEM_DIRECTORIES.into_iter().filter(existing).map(PathBuf::from);
                (directories.collect(), files.into_iter().collect())
            } else {
                self.system_authorities.iter().cloned().partition::<Vec<_>, _>(|path| path.is_dir())
            };
            load_system_authorities(&files, &directories)
        })
    }
}

/// Loads the authorities in files and directories, each once. A directory usually holds the certificates of the file
/// again, and links to them, so the first file and the first directory are loaded together: links are skipped then.
fn load_system_authorities(files: &[PathBuf], directories: &[PathBuf]) -> Vec<CertificateDer<'static>> {
    let mut certificates = Vec::new();
    for number in 0..files.len().max(directories.len()) {
        let path = |paths: &'_ [PathBuf]| paths.get(number).cloned();
        let loaded = load_certs_from_paths(path(files).as_deref(), path(directories).as_deref());
        certificates.extend(loaded.certs);
    }
    certificates.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    certificates.dedup();
    certificates
}

impl Certificates {
    /// Adds the certificates in a directory. Of several client certificates, the first by name counts.
    fn add_directory(&mut self, directory: &Path) -> Result<()> {
        let cannot = |error| Error::io(format!("cannot read the directory {}", directory.display()), error);
        let entries = fs::read_dir(directory).map_err(cannot)?;
        let mut files =
            entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>, _>>().map_err(cannot)?;
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.extend(read_authorities(&file)?),
                Some("cert") if self.client.is_none() => self.client = Some(read_client_certificate(&file)?),
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
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

/// Reads a client certificate, and the key in the file beside it or in the same file.
fn read_client_certificate(file: &Path) -> Result<ClientCertificate> {
    let key_file = file.with_extension("key");
    if !key_file.exists() {
        return Err(unusable(file, &format!("there is no {} for it", key_file.display())).with_hint(
            "certificates of authorities have the ending .crt, ours .cert with a .key beside it",
        ));
    }
    let (pem, key) = (read(file)?, read(&key_file)?);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    match PrivateKeyDer::from_pem_slice(&key).or_else(|_| PrivateKeyDer::from_pem_slice(&pem)) {
        Ok(key) if !chain.is_empty() => Ok(ClientCertificate { file: file.to_owned(), chain, key }),
        // The parser's message could quote the key.
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
    use crate::transport::Tls;

    fn read(access: &Access, registry: &str, is_insecure: bool) -> Result<TlsConfig> {
        TlsConfig::read(access, registry, is_insecure, &Arc::default())
    }

    fn access(tls: Tls) -> Access {
        Access { tls, ..Access::default() }
    }

    #[test]
    fn a_directory_is_for_its_host_and_port_only() {
        let all = tempfile::tempdir().unwrap();
        let own = all.path().join("r.io:5000");
        fs::create_dir(&own).unwrap();
        let access = access(Tls { directories: vec![all.path().to_owned()], ..Tls::default() });
        assert!(read(&access, "r.io:5000", false).unwrap().required);
        assert!(!read(&access, "r.io", false).unwrap().required);
        fs::write(own.join("ca.crt"), "hunter2").unwrap();
        assert!(read(&access, "r.io", false).is_ok());
        let error = read(&access, "r.io:5000", false).err().unwrap();
        assert!(error.to_string().contains("ca.crt"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let access = access(Tls { directory: Some(directory.path().to_owned()), ..Tls::default() });
        assert!(read(&access, "r.io", false).is_ok());
        fs::write(directory.path().join("client.cert"), "x").unwrap();
        let error = read(&access, "r.io", false).err().unwrap();
        assert!(error.to_string().contains("client.key"), "{error}");
        fs::write(directory.path().join("client.key"), "hunter2").unwrap();
        let error = read(&access, "r.io", false).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_file_that_was_named_must_exist() {
        let access = access(Tls { authorities: vec!["/does/not/exist".into()], ..Tls::default() });
        assert!(read(&access, "r.io", false).is_err());
    }

    #[test]
    fn authorities_that_replace_those_of_the_machine_are_the_only_ones() {
        let directory = tempfile::tempdir().unwrap();
        let pem = |name: &str| {
            let names = vec![name.to_owned()];
            rcgen::generate_simple_self_signed(names).unwrap().cert.pem()
        };
        let (file, inside) = (directory.path().join("file"), directory.path().join("directory"));
        fs::create_dir(&inside).unwrap();
        let pems = [pem("a"), pem("b"), pem("c")];
        fs::write(&file, &pems[0]).unwrap();
        fs::write(inside.join("first"), &pems[1]).unwrap();
        fs::write(inside.join("second"), pems.concat()).unwrap();
        let system = |paths: &[&Path]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let access = access(Tls { system_authorities: paths, ..Tls::default() });
            read(&access, "r.io", false).unwrap().system().len()
        };
        assert_eq!(system(&[&file]), 1);
        assert_eq!(system(&[&file, &inside]), 3);
        assert_eq!(system(&[Path::new("/does/not/exist"), Path::new("/dev/null")]), 0);
    }
}
