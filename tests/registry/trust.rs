//! TLS: trusted authorities, and the hosts that receive the client certificate.

use super::{Authority, Locations, Login, Registry, access};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use volio::Result;
use volio::oci::{Descriptor, Document, media_type};
use volio::stream::Body;
use volio::transport::{Access, Destination, Source, Tls, registry};

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

fn plain() -> Registry {
    let registry = Registry::start();
    registry.plant("a", "t", media_type::MANIFEST, MANIFEST);
    registry
}

fn resolve(host: &str, tls: Tls) -> Result<Document> {
    let access = Access { tls, ..Access::default() };
    registry::Registry::new(format!("{host}/a:t").parse().unwrap(), &access)?.resolve()
}

#[test]
fn an_authority_that_was_named_is_trusted() {
    let (registry, authority, other) = (plain(), Authority::new(), Authority::new());
    let front = authority.front_of(registry.host(), false);
    let named = |file| Tls { authorities: vec![file], ..Tls::default() };
    assert_eq!(resolve(&front, named(authority.path("ca.crt"))).unwrap().bytes(), MANIFEST);
    for tls in [named(other.path("ca.crt")), Tls { required: true, ..Tls::default() }] {
        let error = resolve(&front, tls).unwrap_err();
        assert!(error.hint().unwrap_or_default().contains("--ca-file"), "{error} {:?}", error.hint());
    }
    let anybody = Tls { accept_invalid_certs: true, ..Tls::default() };
    assert_eq!(resolve(&front, anybody).unwrap().bytes(), MANIFEST);
}

#[test]
fn a_registry_that_requires_a_client_certificate_gets_it() {
    let (registry, authority) = (plain(), Authority::new());
    let front = authority.front_of(registry.host(), true);
    let named = Tls { authorities: vec![authority.path("ca.crt")], ..Tls::default() };
    assert!(resolve(&front, named).is_err());
    let given = Tls { directory: Some(authority.directory().to_owned()), ..Tls::default() };
    assert_eq!(resolve(&front, given).unwrap().bytes(), MANIFEST);

    let all = tempfile::tempdir().unwrap();
    fs::create_dir(all.path().join(&front)).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs::copy(authority.path(name), all.path().join(&front).join(name)).unwrap();
    }
    let looked_for = Tls { directories: vec!["/does/not/exist".into(), all.path().into()], ..Tls::default() };
    assert_eq!(resolve(&front, looked_for).unwrap().bytes(), MANIFEST);
}

#[test]
fn loopback_addresses_use_tls_only_on_request() {
    let registry = plain();
    assert_eq!(resolve(registry.host(), Tls::default()).unwrap().bytes(), MANIFEST);
    assert!(resolve(registry.host(), Tls { required: true, ..Tls::default() }).is_err());
    assert_eq!(registry.requests().len(), 2, "the ping and the manifest, and no third request in the clear");
}

#[test]
fn the_client_certificate_is_sent_to_the_registry_only() {
    let (registry, authority) = (plain(), Authority::new());
    let (front, ours) = authority.curious_front_of(registry.host());
    let (second, theirs) = authority.curious_front_of(registry.elsewhere());
    registry.behave(|behaviour| {
        behaviour.blobs_elsewhere = true;
        behaviour.locations = Locations::Elsewhere;
        behaviour.elsewhere_is = Some(format!("https://{second}"));
    });
    let tls = Tls { directory: Some(authority.directory().to_owned()), ..Tls::default() };
    let access = Access { tls, ..Access::default() };
    let client = registry::Registry::new(format!("{front}/a:t").parse().unwrap(), &access).unwrap();
    let written = client.upload(Body::new(&b"data"[..])).unwrap();
    let descriptor = Descriptor::of("application/octet-stream", b"data");
    assert_eq!(written.digest, descriptor.digest);
    client.open(&descriptor).unwrap().verify(&descriptor).drain().unwrap();
    let counts = |seen: &[AtomicUsize; 2]| [0, 1].map(|number| seen[number].load(Ordering::Relaxed) > 0);
    assert_eq!(counts(&ours), [true, false]);
    assert_eq!(counts(&theirs), [false, true]);
}

/// Starts a registry with TLS and a token server on another host, both with certificates of this authority. Returns the
/// addresses of the registry and the token server.
fn with_a_token_server(registry: &Registry, authority: &Authority) -> (String, String) {
    let host = authority.front_of(registry.host(), false);
    let token_server = authority.front_with(registry.host(), |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    });
    let token_server = token_server.replace("127.0.0.1", "localhost");
    registry.behave(|behaviour| {
        behaviour.login = Login::Token { user: "me:hunter2", anonymous_pull: false, expires_in: 300 };
        behaviour.token_server = Some(format!("https://{token_server}"));
    });
    (host, token_server)
}

fn log_in(host: &str, tls: Tls, registries_conf: &str) -> Result<Document> {
    let (directory, mut access) = access(host, "me:hunter2");
    let conf = directory.path().join("registries.conf");
    fs::write(&conf, registries_conf).unwrap();
    (access.tls, access.registries_conf) = (tls, vec![conf]);
    registry::Registry::new(format!("{host}/a:t").parse().unwrap(), &access)?.resolve()
}

#[test]
fn an_insecure_registry_does_not_make_its_token_server_insecure() {
    let (registry, authority) = (plain(), Authority::new());
    let (host, token_server) = with_a_token_server(&registry, &authority);
    // On loopback, encryption has to be requested: here by a certificate that is not used otherwise.
    let other = Authority::new();
    let tls = || Tls { authorities: vec![other.path("ca.crt")], ..Tls::default() };
    let insecure = |host: &str| format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n");
    let error = log_in(&host, tls(), &insecure(&host)).unwrap_err();
    assert!(
        error.to_string().contains(&format!("{token_server}: its certificate is not trusted")),
        "{error}"
    );
    assert!(registry.requests().iter().all(|request| request.header("authorization").is_none()));
    // The token server may be declared insecure too.
    let both = insecure(&host) + &insecure(&token_server);
    assert_eq!(log_in(&host, tls(), &both).unwrap().bytes(), MANIFEST);
}

#[test]
fn certs_d_of_a_registry_does_not_apply_to_its_token_server() {
    let (registry, authority) = (plain(), Authority::new());
    let (host, token_server) = with_a_token_server(&registry, &authority);
    let all = tempfile::tempdir().unwrap();
    let add = |host: &str| {
        fs::create_dir(all.path().join(host)).unwrap();
        fs::copy(authority.path("ca.crt"), all.path().join(host).join("ca.crt")).unwrap();
    };
    let tls = || Tls { directories: vec![all.path().to_owned()], ..Tls::default() };
    add(&host);
    let error = log_in(&host, tls(), "").unwrap_err();
    assert!(
        error.to_string().contains(&format!("{token_server}: its certificate is not trusted")),
        "{error}"
    );
    assert!(registry.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(error.hint().unwrap().contains(&format!("certs.d/{token_server}/ca.crt")), "{error:?}");
    add(&token_server);
    assert_eq!(log_in(&host, tls(), "").unwrap().bytes(), MANIFEST);
    // Certificates that were named in options apply to all hosts.
    let named = Tls { authorities: vec![authority.path("ca.crt")], ..Tls::default() };
    assert_eq!(log_in(&host, named, "").unwrap().bytes(), MANIFEST);
}
