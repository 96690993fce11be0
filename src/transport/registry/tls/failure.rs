//! Explanations of TLS errors, for users and for operators of registries.

use super::super::printable::printable;
use super::verifier::webpki_error;
use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription as Alert, CertificateError as C, Error};

/// The maximum number of names of a certificate that are shown.
const NAMES: usize = 5;

/// An explanation of a TLS error. The message continues the sentence "HOST: …".
pub(in super::super) struct TlsExplanation {
    pub(in super::super) why: String,
    pub(in super::super) hint: Option<String>,
}

/// Explains why a TLS connection to a host failed.
pub(in super::super) fn describe(error: &Error, host: &str) -> TlsExplanation {
    let (why, hint) = match error {
        Error::InvalidCertificate(certificate) => {
            let (why, hint) = match webpki_error(error) {
                Some(error) => explain_webpki(error, host),
                None => explain_certificate(certificate, host),
            };
            return TlsExplanation { why, hint: Some(hint) };
        }
        Error::InvalidMessage(_) => (
            "what it sends is not TLS",
            Some(format!("use --plain-http if {host} is meant to be reached without encryption")),
        ),
        Error::AlertReceived(alert) => explain_alert(*alert, host),
        Error::PeerIncompatible(_) => (
            "it speaks no version of TLS, or has no cipher or key, that volio takes",
            Some(format!(
                "volio speaks TLS 1.2 and 1.3; the operator of {host} must set it up for one of them"
            )),
        ),
        Error::NoCertificatesPresented => ("it shows no certificate", None),
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => (
            "it breaks the rules of TLS",
            Some("a proxy on the way may break the connection open".to_owned()),
        ),
        Error::DecryptError => ("what it sends was damaged on the way", None),
        _ => ("no encrypted connection could be agreed upon", None),
    };
    TlsExplanation { why: why.to_owned(), hint }
}

/// Explains an alert of the server.
fn explain_alert(alert: Alert, host: &str) -> (&'static str, Option<String>) {
    match alert {
        Alert::CertificateRequired
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => (
            "it wants a certificate from its clients, and does not take ours",
            Some(format!(
                "put client.cert and client.key into certs.d/{host}, or name a directory that has them with --cert-dir"
            )),
        ),
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => (
            "it refuses the versions of TLS and the ciphers that volio speaks",
            Some(format!(
                "volio speaks TLS 1.2 and 1.3; the operator of {host} must set it up for one of them"
            )),
        ),
        Alert::UnrecognisedName => (
            "it knows no host of this name",
            Some("is the name right? A server with several hosts goes by the name".to_owned()),
        ),
        _ => ("it has ended the encrypted connection", None),
    }
}

/// Explains why rustls rejected a certificate.
fn explain_certificate(error: &C, host: &str) -> (String, String) {
    let renew = format!("the operator of {host} must renew it; is the clock of this machine right?");
    #[allow(deprecated)] // rustls still produces the older variants
    match error {
        C::Expired => ("its certificate has expired".to_owned(), renew),
        C::ExpiredContext { not_after, .. } => {
            (format!("its certificate expired on {}", date(*not_after)), renew)
        }
        C::NotValidYet => ("its certificate is not valid yet".to_owned(), renew),
        C::NotValidYetContext { not_before, .. } => {
            (format!("its certificate is not valid before {}", date(*not_before)), renew)
        }
        C::UnknownIssuer => (
            "its certificate is not trusted on this machine: the authority that has signed it is not known"
                .to_owned(),
            format!("name its authority's certificate with --ca-file, or put it into certs.d/{host}/ca.crt"),
        ),
        C::NotValidForName => (
            "its certificate is for another host".to_owned(),
            format!("use a name that is in the certificate, or let the operator add {host}"),
        ),
        C::NotValidForNameContext { presented, .. } => explain_names(presented, host),
        C::UnsupportedSignatureAlgorithm
        | C::UnsupportedSignatureAlgorithmContext { .. }
        | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            "its certificate is signed by an algorithm that is not taken, such as SHA-1".to_owned(),
            format!(
                "the operator of {host} must have it signed with ECDSA, Ed25519 or RSA, and SHA-256 or better"
            ),
        ),
        C::BadSignature => (
            "its certificate is not trusted on this machine: the authority of that name has another key"
                .to_owned(),
            format!("name its authority's certificate with --ca-file, or put it into certs.d/{host}/ca.crt"),
        ),
        C::UnhandledCriticalExtension => explain_critical(host),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => (
            "its certificate is not meant for servers".to_owned(),
            format!("the operator of {host} must make it with the extended key usage serverAuth"),
        ),
        C::Revoked => {
            ("its certificate was revoked".to_owned(), format!("the operator of {host} must replace it"))
        }
        C::BadEncoding => {
            ("its certificate cannot be read".to_owned(), format!("the operator of {host} must replace it"))
        }
        _ => ("its certificate is not taken".to_owned(), format!("the operator of {host} must replace it")),
    }
}

/// Explains a certificate for other names.
fn explain_names(presented: &[String], host: &str) -> (String, String) {
    // They have the form `DnsName("…")` or `IpAddress(…)`.
    let names = presented.iter().filter_map(|name| {
        let (_, inside) = name.split_once('(')?;
        Some(printable(inside.strip_suffix(')')?.trim_matches('"')))
    });
    let mut names: Vec<_> = names.collect();
    if names.is_empty() {
        return (
            "its certificate names no host; a Common Name does not count".to_owned(),
            format!("the operator of {host} must make it with a subjectAltName for {host}"),
        );
    }
    if names.len() > NAMES {
        names.truncate(NAMES);
        names.push("others".to_owned());
    }
    (
        format!("its certificate is for another host: {}", names.join(", ")),
        format!("use a name that is in the certificate, or let the operator add {host}"),
    )
}

/// Explains why webpki rejected a certificate.
fn explain_webpki(error: &webpki::Error, host: &str) -> (String, String) {
    use webpki::Error as E;
    let replacement = format!("the operator of {host} must replace it");
    match error {
        E::CaUsedAsEndEntity => (
            "its certificate is not trusted on this machine: it is that of an authority".to_owned(),
            format!(
                "if {host} has signed it itself, name it with --ca-file, or put it into certs.d/{host}/ca.crt"
            ),
        ),
        E::UnsupportedCriticalExtension => explain_critical(host),
        E::UnsupportedCertVersion => ("its certificate is not of X.509 version 3".to_owned(), replacement),
        E::NameConstraintViolation => {
            ("the authority of its certificate may not vouch for this host".to_owned(), replacement)
        }
        E::EndEntityUsedAsCa | E::PathLenConstraintViolated => (
            "a certificate between its own and its authority's may sign no other".to_owned(),
            format!("the operator of {host} must send the right chain of certificates"),
        ),
        E::MaximumPathBuildCallsExceeded
        | E::MaximumPathDepthExceeded
        | E::MaximumSignatureChecksExceeded => (
            "there are too many certificates between its own and its authority's".to_owned(),
            format!("the operator of {host} must send the right chain of certificates"),
        ),
        _ => ("its certificate breaks the rules of X.509".to_owned(), replacement),
    }
}

/// Explains an unknown critical extension.
fn explain_critical(host: &str) -> (String, String) {
    (
        "its certificate, or one between it and its authority's, has a critical extension that volio does not know"
            .to_owned(),
        format!("the operator of {host} must make it without that extension, or not mark it as critical"),
    )
}

/// Formats the day of a time.
fn date(time: UnixTime) -> String {
    let second = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(second)
        .map_or_else(|_| "a day far away".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}
