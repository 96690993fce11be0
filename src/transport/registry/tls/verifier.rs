//! Verification of server certificates.
//!
//! A certificate is accepted if it leads to a trusted authority, or if it is itself in the list of trusted certificates.
//! The second is for self-signed certificates as Docker's documentation makes them (`openssl req -x509`); Go and OpenSSL
//! accept them too.

use super::algorithms::ALGORITHMS;
use super::policies::{Original, Relaxed};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

/// A verifier of server certificates.
#[derive(Debug)]
pub(super) enum Verifier {
    /// Accepts any certificate.
    AcceptAny,
    /// Accepts certificates of these authorities.
    Authorities {
        roots: RootCertStore,
        /// The certificates of the authorities, unchanged.
        certificates: Vec<CertificateDer<'static>>,
    },
}

impl Verifier {
    /// Returns a verifier that trusts these authorities. Certificates that cannot be parsed are skipped.
    pub(super) fn trusting(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        Self::Authorities { roots, certificates }
    }

    /// Returns whether no certificate can be accepted.
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
        if certificates.contains(end_entity) {
            // It needs no authority. Dates and purpose are checked before the issuer, so that an error about the issuer
            // means that they are right.
            match verify(&RootCertStore::empty(), &[]) {
                Err(error) if is_issuer_error(&error) => {}
                verified => verified?,
            }
        } else {
            verify(roots, &intermediates)?;
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

/// Returns whether a certificate was rejected because of its issuer, or because it is an authority itself.
fn is_issuer_error(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
        || webpki_error(error) == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// Returns the error of webpki for which rustls has no variant.
pub(super) fn webpki_error(error: &Error) -> Option<&webpki::Error> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => cause.downcast_ref(),
        _ => None,
    }
}
