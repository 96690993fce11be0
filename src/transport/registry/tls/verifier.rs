//! Whether a server is who it says: its certificate leads to an authority that is trusted, or is one of those that
//! were named itself, as Docker's documentation has people make them (`openssl req -x509`), and as Go and OpenSSL
//! take them.

use super::algorithms::ALGORITHMS;
use super::policies::{Original, Relaxed};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

/// Who is trusted.
#[derive(Debug)]
pub(super) enum Verifier {
    /// Any server, whatever its certificate.
    Anybody,
    /// Servers for which an authority vouches.
    Authorities {
        roots: RootCertStore,
        /// The same certificates as they were given.
        certificates: Vec<CertificateDer<'static>>,
    },
}

impl Verifier {
    /// Trusts these authorities; those that cannot be read are left out.
    pub(super) fn of(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        Self::Authorities { roots, certificates }
    }

    /// Whether nobody at all can be trusted.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Authorities { roots, .. } if roots.is_empty())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Self::Authorities { roots, certificates } = self else {
            return Ok(ServerCertVerified::assertion());
        };
        let mut relaxed = Vec::new();
        let mut read = |certificate: &CertificateDer<'_>| match Relaxed::new(certificate) {
            Some(copy) => {
                let der = CertificateDer::from(copy.der.clone());
                relaxed.push(copy);
                der
            }
            None => certificate.clone().into_owned(),
        };
        let own = read(end_entity);
        let intermediates: Vec<_> = intermediates.iter().map(read).collect();
        let algorithms: Vec<_> = ALGORITHMS
            .all
            .iter()
            .map(|algorithm| Original { algorithm: *algorithm, relaxed: &relaxed })
            .collect();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            algorithms.iter().map(|algorithm| algorithm as _).collect();
        let parsed = ParsedCertificate::try_from(&own)?;
        let verify = |roots, others| {
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, &algorithms)
        };
        match certificates.contains(end_entity) {
            // Nobody needs to vouch for it, so that is asked last and of nobody, after its dates and its purpose.
            true => match verify(&RootCertStore::empty(), &[]) {
                Err(error) if is_about_the_issuer(&error) => {}
                verified => verified?,
            },
            false => verify(roots, &intermediates)?,
        }
        verify_server_name(&parsed, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let relaxed = Relaxed::new(certificate).map(|relaxed| CertificateDer::from(relaxed.der));
        verify_tls12_signature(message, relaxed.as_ref().unwrap_or(certificate), signed, &ALGORITHMS)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let relaxed = Relaxed::new(certificate).map(|relaxed| CertificateDer::from(relaxed.der));
        verify_tls13_signature(message, relaxed.as_ref().unwrap_or(certificate), signed, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// Whether a certificate was refused for who has signed it, or because it may sign others itself.
fn is_about_the_issuer(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
        || webpki_error(error) == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// What webpki says, where rustls has no words for it.
pub(super) fn webpki_error(error: &Error) -> Option<&webpki::Error> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => cause.downcast_ref(),
        _ => None,
    }
}
