//! Whom to trust, and who we are by certificate.
//!
//! A registry of a company has a certificate that only the company's authority vouches for. People say so on the
//! command line, or once for all programs in a directory per host, as docker and containers/image have it: `*.crt` are
//! authorities, `*.cert` and `*.key` of one name are ours.

use crate::error::{Error, Result};
use crate::transport::Access;
use reqwest::{Certificate, ClientBuilder, Identity};
use std::fs;
use std::path::{Path, PathBuf};

/// What connections to one registry, and to whom it sends us, look like.
#[derive(Default)]
pub(super) struct Tls {
    anybody: bool,
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
    /// Whether somebody wants encryption, also where it would not be needed.
    pub(super) wanted: bool,
}

impl Tls {
    /// Reads what there is for a registry; `anybody` when it is known as one that proves nothing.
    ///
    /// # Errors
    /// When a file cannot be read or understood: going on without it would end in a distrust that nobody could
    /// explain.
    pub(super) fn read(access: &Access, registry: &str, anybody: bool) -> Result<Self> {
        let asked = &access.tls;
        if access.plain_http {
            return Ok(Self::default());
        }
        let usual = || asked.directories.iter().map(|all| all.join(registry)).find(|own| own.is_dir());
        let directory = asked.directory.clone().or_else(usual);
        let wanted = asked.wanted || asked.anybody || !asked.authorities.is_empty() || directory.is_some();
        // Who asks for proofs in so many words gets them, whatever a file says.
        let anybody = asked.anybody || (anybody && !asked.wanted);
        let mut tls = Self { anybody, wanted, ..Self::default() };
        for file in &asked.authorities {
            tls.authorities.extend(authorities(file)?);
        }
        if let Some(directory) = directory {
            tls.add(&directory)?;
        }
        Ok(tls)
    }

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

    /// Prepares a client; our own certificate is for the registry itself and nobody else.
    pub(super) fn prepare(&self, builder: ClientBuilder, own: bool) -> ClientBuilder {
        let builder = match self.anybody {
            true => builder.tls_danger_accept_invalid_certs(true),
            false => builder.tls_certs_merge(self.authorities.iter().cloned()),
        };
        match &self.identity {
            Some(identity) if own => builder.identity(identity.clone()),
            _ => builder,
        }
    }
}

fn authorities(file: &Path) -> Result<Vec<Certificate>> {
    let certificates = Certificate::from_pem_bundle(&read(file)?).unwrap_or_default();
    match certificates.is_empty() {
        true => Err(unusable(file, "it holds no certificate in PEM")),
        false => Ok(certificates),
    }
}

/// Our certificate, and the key beside it.
fn identity(file: &Path) -> Result<Identity> {
    let mut pem = read(file)?;
    let key = file.with_extension("key");
    if !key.exists() {
        return Err(unusable(file, &format!("there is no {} for it", key.display()))
            .hint("certificates of authorities have the ending .crt, ours .cert with a .key beside it"));
    }
    pem.push(b'\n');
    pem.extend(read(&key)?);
    // The parser's own words could quote the key.
    Identity::from_pem(&pem).map_err(|_| {
        unusable(file, &format!("it and {} are not a certificate and its key in PEM", key.display()))
    })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| Error::io(format!("cannot read {}", file.display()), error))
}

fn unusable(file: &Path, why: &str) -> Error {
    Error::failed(format!("cannot use the certificate {}", file.display())).because(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Tls as Asked;

    fn access(tls: Asked) -> Access {
        Access { tls, ..Access::default() }
    }

    #[test]
    fn a_directory_is_for_its_host_and_port_only() {
        let all = tempfile::tempdir().unwrap();
        let own = all.path().join("r.io:5000");
        fs::create_dir(&own).unwrap();
        let access = access(Asked { directories: vec![all.path().to_owned()], ..Asked::default() });
        assert!(Tls::read(&access, "r.io:5000", false).unwrap().wanted);
        assert!(!Tls::read(&access, "r.io", false).unwrap().wanted);
        fs::write(own.join("ca.crt"), "hunter2").unwrap();
        assert!(Tls::read(&access, "r.io", false).is_ok());
        let error = Tls::read(&access, "r.io:5000", false).err().unwrap();
        assert!(error.to_string().contains("ca.crt"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let access = access(Asked { directory: Some(directory.path().to_owned()), ..Asked::default() });
        assert!(Tls::read(&access, "r.io", false).is_ok());
        fs::write(directory.path().join("client.cert"), "x").unwrap();
        let error = Tls::read(&access, "r.io", false).err().unwrap();
        assert!(error.to_string().contains("client.key"), "{error}");
        fs::write(directory.path().join("client.key"), "hunter2").unwrap();
        let error = Tls::read(&access, "r.io", false).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let access = access(Asked { authorities: vec!["/does/not/exist".into()], ..Asked::default() });
        assert!(Tls::read(&access, "r.io", false).is_err());
    }
}
