//! Certificates of registries: the accepted ones, and the errors for the others.

use super::front::self_signed_front_of;
use super::{Authority, Registry};
use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};
use std::path::PathBuf;
use volio::oci::{Document, media_type};
use volio::transport::{Access, Source, Tls, registry};
use volio::{Error, Result};

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

fn plain() -> Registry {
    let registry = Registry::start();
    registry.plant("a", "t", media_type::MANIFEST, MANIFEST);
    registry
}

fn resolve(host: &str, authority: impl Into<PathBuf>) -> Result<Document> {
    let tls = Tls { authorities: vec![authority.into()], ..Tls::default() };
    let access = Access { tls, ..Access::default() };
    registry::Registry::new(format!("{host}/a:t").parse().unwrap(), &access)?.resolve()
}

/// Returns the error about a certificate as the user sees it.
fn message(error: &Error, host: &str) -> String {
    format!("{error}\nhint: {}", error.hint().unwrap_or_default()).replace(host, "HOST")
}

#[test]
fn a_self_signed_certificate_that_was_named_is_accepted() {
    let registry = plain();
    for change in [
        // Docker's documentation makes a certificate of an authority.
        (|_| {}) as fn(&mut CertificateParams),
        |params| params.is_ca = IsCa::ExplicitNoCa,
        |params| params.is_ca = IsCa::NoCa,
    ] {
        let (host, file) = self_signed_front_of(registry.host(), change);
        assert_eq!(resolve(&host, file.path()).unwrap().bytes(), MANIFEST);
        let (_, another) = self_signed_front_of(registry.host(), change);
        let told = message(&resolve(&host, another.path()).unwrap_err(), &host);
        assert!(told.contains("is not trusted on this machine") && told.contains("--ca-file"), "{told}");
    }
}

#[test]
fn a_servers_own_certificate_that_was_named_is_accepted_with_any_issuer() {
    let (registry, authority) = (plain(), Authority::new());
    let (host, certificate) = authority.front_and_certificate(registry.host(), |_| {});
    assert_eq!(resolve(&host, certificate.path()).unwrap().bytes(), MANIFEST);
}

#[test]
fn the_name_and_the_dates_of_a_named_certificate_are_checked() {
    let registry = plain();
    let expired = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 3, 4));
    };
    let (host, file) = self_signed_front_of(registry.host(), expired);
    assert_eq!(
        message(&resolve(&host, file.path()).unwrap_err(), &host),
        "cannot reach the registry HOST: HOST: its certificate expired on 2002-03-04\n\
         hint: the operator of HOST must renew it; is the clock of this machine right?"
    );
    let elsewhere = |params: &mut CertificateParams| {
        params.subject_alt_names = ["r.io", "10.1.2.3"]
            .map(|name| name.try_into().map_or_else(|_| unreachable!(), rcgen::SanType::DnsName))
            .to_vec();
    };
    let (host, file) = self_signed_front_of(registry.host(), elsewhere);
    let told = message(&resolve(&host, file.path()).unwrap_err(), &host);
    assert!(told.contains("its certificate is for another host: r.io, 10.1.2.3\n"), "{told}");

    // Certificates that an authority has signed and that were named too.
    let authority = Authority::new();
    let (host, certificate) = authority.front_and_certificate(registry.host(), expired);
    assert!(resolve(&host, certificate.path()).unwrap_err().to_string().contains("expired on 2002-03-04"));
}

#[test]
fn critical_policies_are_accepted_and_other_critical_extensions_are_not() {
    let (registry, authority) = (plain(), Authority::new());
    // certificatePolicies with one policy, 1.2.3.4.
    let policies = || extension(&[2, 5, 29, 32], &[0x30, 0x07, 0x30, 0x05, 0x06, 0x03, 0x2a, 0x03, 0x04]);
    let host = authority.front_with(registry.host(), |params| params.custom_extensions = vec![policies()]);
    assert_eq!(resolve(&host, authority.path("ca.crt")).unwrap().bytes(), MANIFEST);
    let (host, file) =
        self_signed_front_of(registry.host(), |params| params.custom_extensions = vec![policies()]);
    assert_eq!(resolve(&host, file.path()).unwrap().bytes(), MANIFEST);
    // The relaxed parsing accepts no other certificate.
    let other = Authority::new();
    let host = other.front_with(registry.host(), |params| params.custom_extensions = vec![policies()]);
    assert!(message(&resolve(&host, authority.path("ca.crt")).unwrap_err(), &host).contains("not trusted"));

    let constraints = extension(&[2, 5, 29, 36], &[0x30, 0x03, 0x80, 0x01, 0x00]);
    let host = authority.front_with(registry.host(), |params| params.custom_extensions = vec![constraints]);
    let told = message(&resolve(&host, authority.path("ca.crt")).unwrap_err(), &host);
    assert!(told.contains("critical extension that volio does not know"), "{told}");
}

fn extension(oid: &[u64], content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(true);
    extension
}

#[test]
fn every_fault_of_a_certificate_is_reported_in_a_sentence_with_a_hint() {
    let (registry, authority) = (plain(), Authority::new());
    for (change, sentence) in [
        (
            (|params| params.not_before = date_time_ymd(2901, 2, 3)) as fn(&mut CertificateParams),
            "its certificate is not valid before 2901-02-03",
        ),
        (
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "its certificate is not meant for servers",
        ),
        (
            |params| params.subject_alt_names = Vec::new(),
            "its certificate names no host; a Common Name does not count",
        ),
        (
            |params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            "its certificate is not trusted on this machine: it is that of an authority",
        ),
    ] {
        let host = authority.front_with(registry.host(), change);
        let told = message(&resolve(&host, authority.path("ca.crt")).unwrap_err(), &host);
        assert!(told.contains(&format!("HOST: {sentence}\nhint: ")), "{told}");
        assert!(!told.contains(['{', '(', '"']) && !told.ends_with("hint: "), "{told}");
    }
    let host = authority.front_of(registry.host(), true);
    let told = message(&resolve(&host, authority.path("ca.crt")).unwrap_err(), &host);
    assert!(
        told.contains("it wants a certificate from its clients") && told.contains("--cert-dir"),
        "{told}"
    );
}
