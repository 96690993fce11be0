//! Identity tokens, tokens that lack scopes, and credential helpers.

use super::{Login, Refusal, Registry, access_by};
use axum::http::Method;
use std::io::Read;
use volio::error::Kind;
use volio::oci::{Descriptor, media_type};
use volio::stream::Body;
use volio::transport::{Access, ClientOptions, CredentialSource, Destination, Secret, Source, registry};

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;
const IDENTITY: &str = "identity-hunter2/+=&";
const TOKEN: Login = Login::Token { user: "me:hunter2", anonymous_pull: false, expires_in: 300 };

/// Starts a registry with tokens and an image `a:t`.
fn guarded() -> Registry {
    let registry = Registry::start();
    registry.plant("a", "t", media_type::MANIFEST, MANIFEST);
    registry.behave(|behaviour| {
        behaviour.login = TOKEN;
        behaviour.identity = Some(IDENTITY);
    });
    registry
}

/// Returns a client with this entry in a file.
fn client(registry: &Registry, entry: &str) -> registry::Registry {
    let (_directory, access) = access_by(registry.host(), entry);
    registry.client_with("a", "t", &access)
}

fn token_requests(registry: &Registry) -> Vec<(Method, String)> {
    let requests = registry.requests().into_iter().filter(|request| request.path.starts_with("/token"));
    requests.map(|request| (request.method, request.path)).collect()
}

#[test]
fn an_identity_token_is_exchanged_and_is_not_in_a_url() {
    let registry = guarded();
    let client = client(&registry, &format!(r#"{{"identitytoken": "{IDENTITY}"}}"#));
    assert_eq!(client.resolve().unwrap().bytes(), MANIFEST);
    client.upload(Body::new(&b"data"[..])).unwrap();
    assert_eq!(token_requests(&registry), [(); 2].map(|()| (Method::POST, "/token".to_owned())));
    let form = &registry.exchanges()[0];
    assert!(
        form.contains("scope=repository%3Aa%3Apull&refresh_token=identity-hunter2%2F%2B%3D%26"),
        "{form}"
    );
}

#[test]
fn a_token_server_without_exchange_gets_the_identity_token_as_a_password() {
    for status in [404, 405, 401] {
        let registry = guarded();
        registry.behave(|behaviour| {
            let (method, path) = (Method::POST, "/token");
            behaviour.refusals.push(Refusal { method, path, status, ..Refusal::default() });
        });
        let client = client(&registry, &format!(r#"{{"identitytoken": "{IDENTITY}"}}"#));
        assert_eq!(client.resolve().unwrap().bytes(), MANIFEST, "{status}");
        let methods: Vec<_> = token_requests(&registry).into_iter().map(|(method, _)| method).collect();
        assert_eq!(methods, [Method::POST, Method::GET], "{status}");
    }
}

#[test]
fn an_expired_identity_token_is_denied_and_not_shown() {
    let registry = guarded();
    let error = client(&registry, r#"{"identitytoken": "old-hunter2"}"#).resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("hunter2"), "{error:?}");
}

#[test]
fn an_identity_token_is_exchanged_again_during_an_upload() {
    for chunk_size in [None, Some(100_000)] {
        let registry = guarded();
        let (_directory, mut access) =
            access_by(registry.host(), &format!(r#"{{"identitytoken": "{IDENTITY}"}}"#));
        access.client = ClientOptions { chunk_size, ..super::patient() };
        let client = registry.client_with("a", "t", &access);
        let bytes = super::noise(1_000_000);
        std::thread::scope(|scope| {
            let revoking = scope.spawn(|| {
                // The token expires in the middle of the blob, after its first request has begun. If there is only one
                // request, it has been accepted by then, because a stream cannot be sent again.
                let has_begun =
                    || registry.paths(Method::PATCH).iter().any(|path| path.contains("/uploads/"));
                while !has_begun() || (chunk_size.is_none() && !registry.receives()) {
                    std::thread::yield_now();
                }
                registry.revoke_tokens();
            });
            let (sender, data) = std::sync::mpsc::channel::<Vec<u8>>();
            let feeding = scope.spawn({
                let (bytes, registry) = (bytes.clone(), &registry);
                move || {
                    sender.send(bytes[..600_000].to_vec()).unwrap();
                    while registry.exchanges().is_empty() || !revoking.is_finished() {
                        std::thread::yield_now();
                    }
                    sender.send(bytes[600_000..].to_vec()).unwrap();
                }
            });
            client.upload(Body::new(ChannelReader { data, here: std::io::Cursor::default() })).unwrap();
            feeding.join().unwrap();
        });
        assert!(registry.blob("a", &Descriptor::of("x", &bytes).digest).unwrap() == bytes);
        assert_eq!(registry.exchanges().len(), 2, "{chunk_size:?}");
        assert_eq!(registry.open_uploads(), 0);
    }
}

/// A reader of bytes from another thread.
struct ChannelReader {
    data: std::sync::mpsc::Receiver<Vec<u8>>,
    here: std::io::Cursor<Vec<u8>>,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.here.read(buffer)? {
            0 => match self.data.recv() {
                Ok(bytes) => {
                    self.here = std::io::Cursor::new(bytes);
                    self.here.read(buffer)
                }
                Err(_) => Ok(0),
            },
            read => Ok(read),
        }
    }
}

#[test]
fn a_token_for_the_registry_itself_is_sent_unchanged() {
    let registry = guarded();
    registry.behave(|behaviour| behaviour.identity = None);
    // This token was issued to another client.
    client(&registry, r#"{"username": "me", "password": "hunter2"}"#).resolve().unwrap();
    let asked = token_requests(&registry).len();
    let client = client(&registry, r#"{"registrytoken": "token-1"}"#);
    assert_eq!(client.resolve().unwrap().bytes(), MANIFEST);
    registry.revoke_tokens();
    assert_eq!(client.resolve().unwrap_err().kind(), Kind::Denied);
    assert_eq!(token_requests(&registry).len(), asked);
}

#[test]
fn a_registry_that_requires_more_scopes_gets_them_once() {
    for status in [401, 403] {
        let registry = guarded();
        registry.behave(|behaviour| behaviour.wants_also = Some(("repository:other:pull", status)));
        let client = client(&registry, r#"{"username": "me", "password": "hunter2"}"#);
        assert_eq!(client.resolve().unwrap().bytes(), MANIFEST, "{status}");
        assert_eq!(client.resolve().unwrap().bytes(), MANIFEST, "{status}");
        let asked: Vec<_> = token_requests(&registry)
            .into_iter()
            .map(|(_, path)| path.replace("%3A", ":").split_once("&scope=").unwrap().1.to_owned())
            .collect();
        let all = "repository:other:pull&scope=repository:third:pull&scope=repository:a:pull";
        assert_eq!(asked, ["repository:a:pull", all], "{status}");
    }
}

#[test]
fn a_registry_that_rejects_every_token_is_not_retried_for_ever() {
    let registry = guarded();
    // No token server can give this scope, because it contains a space, which separates scopes.
    registry.behave(|behaviour| behaviour.wants_also = Some(("never given", 403)));
    let client = client(&registry, r#"{"username": "me", "password": "hunter2"}"#);
    assert_eq!(client.resolve().unwrap_err().kind(), Kind::Denied);
    assert_eq!(token_requests(&registry).len(), 2);
}

#[test]
fn credentials_may_be_a_text() {
    let registry = guarded();
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"bWU6aHVudGVyMg=="}}}}}}"#, registry.host());
    let source = CredentialSource::Text { name: "DOCKER_AUTH_CONFIG".to_owned(), text: Secret::new(text) };
    let access = Access { credentials: vec![source], ..Access::default() };
    assert_eq!(registry.client_with("a", "t", &access).resolve().unwrap().bytes(), MANIFEST);
}

#[test]
fn a_credential_helper_runs_only_if_the_registry_requires_authentication() {
    let registry = guarded();
    let text = r#"{"credsStore": "volio-test-is-not-there"}"#;
    let source = CredentialSource::Text { name: "TEXT".to_owned(), text: Secret::new(text) };
    let access = Access { credentials: vec![source], ..Access::default() };
    let error = registry.client_with("a", "t", &access).resolve().unwrap_err();
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("docker-credential-volio-test-is-not-there"), "{hint}");
    registry.behave(|behaviour| behaviour.login = Login::Open);
    let client = registry.client_with("a", "t", &access);
    assert!(!client.contains(&Descriptor::of("application/octet-stream", b"x")).unwrap());
}
