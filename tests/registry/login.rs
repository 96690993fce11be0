//! Authentication, and the hosts that receive credentials.

use super::{Locations, Login, Registry, Warnings, access};
use axum::http::Method;
use std::fs;
use std::io::{self, Read};
use std::sync::Arc;
use volio::error::Kind;
use volio::oci::{Descriptor, Document, media_type};
use volio::stream::{Body, Unverified};
use volio::transport::{Access, CredentialSource, Destination, Source, fetch, registry};

const BLOB: &str = "application/octet-stream";
const USER: &str = "me:hunter2";
const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

const BASIC: Login = Login::Basic { user: USER };
const TOKEN: Login = Login::Token { user: USER, anonymous_pull: true, expires_in: 300 };

/// Starts a registry with this authentication, an image `a:t` and a blob `data`.
fn guarded(login: Login) -> Registry {
    let registry = Registry::start();
    registry.client("a", "t").upload(Body::new(&b"data"[..])).unwrap();
    registry.plant("a", "t", media_type::MANIFEST, MANIFEST);
    registry.behave(|behaviour| behaviour.login = login);
    registry
}

fn data() -> Descriptor {
    Descriptor::of(BLOB, b"data")
}

/// Returns a client with these credentials.
fn client(registry: &Registry, user: &str) -> registry::Registry {
    let (_directory, access) = access(registry.host(), user);
    registry.client_with("a", "t", &access)
}

fn tokens_asked(registry: &Registry) -> usize {
    registry.paths(Method::GET).iter().filter(|path| *path == "/token").count()
}

/// Does everything that a client can do with a registry.
fn exercise(client: &registry::Registry) {
    client.upload(Body::new(&b"more"[..])).unwrap();
    client.upload(Unverified::new(&b"data"[..]).verify(&data())).unwrap();
    assert!(client.contains(&data()).unwrap());
    assert_eq!(fetch(client, &data()).unwrap().bytes(), b"data");
    let document = Document::new(media_type::MANIFEST, MANIFEST.to_vec());
    client.put_manifest(&document).unwrap();
    client.commit(&document).unwrap();
    assert_eq!(client.resolve().unwrap(), document);
}

#[test]
fn a_password_is_accepted() {
    exercise(&client(&guarded(BASIC), USER));
}

#[test]
fn a_token_is_accepted() {
    let registry = guarded(TOKEN);
    exercise(&client(&registry, USER));
    assert_eq!(tokens_asked(&registry), 2, "one for reading and one for writing");
}

#[test]
fn without_a_password_the_error_says_how_to_log_in() {
    for login in [BASIC, Login::Token { user: USER, anonymous_pull: false, expires_in: 300 }] {
        let registry = guarded(login);
        let client = registry.client("a", "t");
        for error in [client.resolve().unwrap_err(), client.upload(Body::new(&b"x"[..])).unwrap_err()] {
            assert_eq!(error.kind(), Kind::Denied, "{error}");
            assert!(error.to_string().contains(registry.host()), "{error}");
            assert!(error.hint().unwrap().contains("config.json"), "{error}");
        }
        assert_eq!(registry.open_uploads(), 0);
    }
}

#[test]
fn a_wrong_password_is_denied_and_not_shown() {
    for login in [BASIC, TOKEN] {
        let error = client(&guarded(login), "me:wrong-secret").resolve().unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        let told = format!("{error} {error:?} {:?}", error.hint());
        assert!(!told.contains("secret") && !told.contains("bWU6"), "{told}");
    }
}

#[test]
fn anonymous_pulls_work_if_they_are_allowed() {
    let registry = guarded(TOKEN);
    let client = registry.client("a", "t");
    assert_eq!(client.resolve().unwrap().bytes(), MANIFEST);
    assert_eq!(fetch(&client, &data()).unwrap().bytes(), b"data");
    assert_eq!(client.upload(Body::new(&b"x"[..])).unwrap_err().kind(), Kind::Denied);
    assert_eq!(client.commit(&client.resolve().unwrap()).unwrap_err().kind(), Kind::Denied);
}

#[test]
fn a_revoked_token_is_renewed_once() {
    let registry = guarded(TOKEN);
    let client = client(&registry, USER);
    exercise(&client);
    for step in [0, 1] {
        registry.revoke_tokens();
        match step {
            0 => assert_eq!(client.resolve().unwrap().bytes(), MANIFEST),
            _ => drop(client.upload(Body::new(&b"later"[..])).unwrap()),
        }
    }
    assert_eq!(tokens_asked(&registry), 4);
}

#[test]
fn an_expired_token_is_not_sent() {
    let registry = guarded(Login::Token { user: USER, anonymous_pull: false, expires_in: 1 });
    exercise(&client(&registry, USER));
    let shown: Vec<_> = registry
        .requests()
        .iter()
        .filter_map(|request| request.header("authorization").map(str::to_owned))
        .filter(|value| value.starts_with("Bearer"))
        .collect();
    let mut distinct = shown.clone();
    distinct.dedup();
    assert_eq!(shown, distinct);
}

#[test]
fn a_token_may_expire_during_an_upload() {
    struct Slow(Arc<Registry>, usize);
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 {
                1..=100 => {
                    buffer.fill(7);
                    Ok(buffer.len())
                }
                101 => {
                    // The request with the blob has begun long before.
                    while !self.0.paths(Method::PATCH).iter().any(|path| path.contains("/a/blobs/uploads/")) {
                        std::thread::yield_now();
                    }
                    self.0.revoke_tokens();
                    Ok(0)
                }
                _ => Ok(0),
            }
        }
    }
    let registry = Arc::new(Registry::start());
    registry.behave(|behaviour| behaviour.login = TOKEN);
    client(&registry, USER).upload(Body::new(Slow(Arc::clone(&registry), 0))).unwrap();
    assert_eq!(tokens_asked(&registry), 2);
}

#[test]
fn threads_share_a_token() {
    let registry = guarded(TOKEN);
    let client = client(&registry, USER);
    let pings = || registry.paths(Method::GET).iter().filter(|path| *path == "/v2/").count();
    let before = pings();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(client.contains(&data()).unwrap()));
        }
    });
    assert_eq!(tokens_asked(&registry), 1);
    assert_eq!(pings() - before, 1);
}

#[test]
fn mounting_a_blob_needs_scopes_for_both_repositories() {
    let registry = guarded(TOKEN);
    let (_directory, access) = access(registry.host(), USER);
    let to = registry.client_with("to", "t", &access);
    assert!(to.mount(&data(), &registry.client("a", "t").origin().unwrap()).unwrap());
    let asked = registry.requests().into_iter().find(|request| request.path.starts_with("/token")).unwrap();
    let scopes = asked.path.replace("%3A", ":").replace("%2C", ",");
    assert!(scopes.ends_with("&scope=repository:to:pull,push&scope=repository:a:pull"), "{scopes}");
}

#[test]
fn without_a_token_for_the_other_repository_a_mount_is_refused() {
    let registry = guarded(Login::Token { user: "somebody:else", anonymous_pull: false, expires_in: 300 });
    let origin = registry.client("a", "t").origin().unwrap();
    assert!(!client(&registry, USER).mount(&data(), &origin).unwrap());
}

#[test]
fn no_other_host_receives_the_password_or_the_token() {
    for login in [BASIC, TOKEN] {
        let registry = guarded(login);
        registry.behave(|behaviour| {
            behaviour.blobs_elsewhere = true;
            behaviour.locations = Locations::Elsewhere;
        });
        exercise(&client(&registry, USER));
        let elsewhere: Vec<_> = registry.requests().into_iter().filter(|request| request.elsewhere).collect();
        assert!(elsewhere.len() >= 4, "blobs, an upload, and its end");
        for request in elsewhere {
            assert_eq!(request.header("authorization"), None, "{request:?}");
            assert_eq!(request.header("referer"), None, "{request:?}");
        }
        for request in registry.requests() {
            assert!(!request.path.contains("hunter2"), "{request:?}");
        }
    }
}

#[test]
fn credentials_are_sent_to_their_registry_only() {
    let registry = guarded(BASIC);
    let (_directory, access) = access(registry.elsewhere(), USER);
    let error = registry.client_with("a", "t", &access).resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(registry.requests().iter().all(|request| request.header("authorization").is_none()));
}

/// Resolves an image with these credentials, and returns the warnings and the result.
fn asked_with(registry: &Registry, source: CredentialSource) -> (Vec<String>, volio::Result<Document>) {
    let warnings = Arc::<Warnings>::default();
    let mut access = Access { credentials: vec![source], ..Access::default() };
    access.client.progress = Arc::clone(&warnings) as _;
    let document = registry.client_with("a", "t", &access).resolve();
    (warnings.all(), document)
}

#[test]
fn malformed_credentials_are_a_warning_and_the_image_is_requested_without_any() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    for (content, reason) in [
        ("{", "config.json"),
        (r#"{"credsStore": "volio-test-is-not-there"}"#, "docker-credential-volio-test-is-not-there"),
        (r#"{"auths": {"HOST": {"auth": "?"}}}"#, "config.json"),
    ] {
        let registry = guarded(Login::Token { user: USER, anonymous_pull: true, expires_in: 300 });
        fs::write(&path, content.replace("HOST", registry.host())).unwrap();
        let (warnings, document) = asked_with(&registry, CredentialSource::File(path.clone()));
        assert_eq!(document.unwrap().bytes(), MANIFEST, "{content}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains(reason) && warnings[0].contains("is asked without credentials"),
            "{warnings:?}"
        );
        // A registry without authentication needs no credentials.
        registry.behave(|behaviour| behaviour.login = Login::Open);
        assert_eq!(asked_with(&registry, CredentialSource::File(path.clone())).0, Vec::<String>::new());

        for login in [BASIC, Login::Token { user: USER, anonymous_pull: false, expires_in: 300 }] {
            registry.behave(|behaviour| behaviour.login = login);
            let error = asked_with(&registry, CredentialSource::File(path.clone())).1.unwrap_err();
            let hint = error.hint().unwrap_or_default();
            assert_eq!(error.kind(), Kind::Denied);
            assert!(hint.contains("was asked without credentials") && hint.contains(reason), "{hint}");
        }
    }
}

#[test]
fn an_empty_file_has_no_credentials_and_a_malformed_one_that_was_named_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    fs::write(&path, "").unwrap();
    let registry = guarded(Login::Token { user: USER, anonymous_pull: true, expires_in: 300 });
    let (warnings, document) = asked_with(&registry, CredentialSource::Named(path.clone()));
    assert!(warnings.is_empty() && document.unwrap().bytes() == MANIFEST, "{warnings:?}");
    fs::write(&path, "{").unwrap();
    let access = Access { credentials: vec![CredentialSource::Named(path)], ..Access::default() };
    let error = registry::Registry::new("localhost/a".parse().unwrap(), &access).err().unwrap();
    assert!(error.to_string().contains(directory.path().to_str().unwrap()), "{error}");
}

#[test]
fn of_several_challenges_in_any_order_a_supported_one_is_answered() {
    let bearer = "Bearer realm=\"http://HOST/token\",service=\"test registry\"";
    let unusable = "Bearer realm=\"http://auth.example/token\"";
    let gone = "Bearer realm=\"http://HOST/gone\"";
    for (login, challenges) in [
        (BASIC, vec!["Negotiate", bearer, "Basic realm=x"]),
        (BASIC, vec![unusable, "Basic realm=x"]),
        (BASIC, vec![gone, "Basic realm=x"]),
        (TOKEN, vec!["Basic realm=x", bearer]),
        (TOKEN, vec![unusable, gone, "Digest realm=\"y\", nonce=z", bearer]),
        (TOKEN, vec![bearer, "Basic realm=x"]),
    ] {
        for apart in [false, true] {
            let registry = guarded(login.clone());
            let challenges: Vec<_> =
                challenges.iter().map(|line| line.replace("HOST", registry.host())).collect();
            let lines = if apart { challenges } else { vec![challenges.join(", ")] };
            registry.behave(|behaviour| behaviour.challenges = lines.clone());
            let (_directory, access) = access(registry.host(), USER);
            let client = registry.client_with("a", "t", &access);
            assert_eq!(client.resolve().unwrap().bytes(), MANIFEST, "{lines:?}");
            let before = registry.requests().len();
            client.resolve().unwrap();
            assert_eq!(registry.requests().len(), before + 1, "what has worked is shown first: {lines:?}");
        }
    }
    // A token server that is rejected because it has no encryption does not receive the password.
    let registry = guarded(BASIC);
    registry.behave(|behaviour| behaviour.challenges = vec![unusable.to_owned()]);
    let (_directory, access) = access(registry.host(), USER);
    let error = registry.client_with("a", "t", &access).resolve().unwrap_err();
    assert!(error.to_string().contains("is reached without encryption"), "{error}");
}
