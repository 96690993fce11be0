//! Registries that cannot be used, or not for all purposes.

use super::{Workspace, assert_named, assert_screen, without_digests};
use crate::registry::{Authority, Deletes, Login, Ranges, Refusal, Registry, self_signed_front_of};
use axum::http::Method;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, SanType, date_time_ymd};
use snapbox::str;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// Returns the address of a port at which nothing listens.
fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Returns a workspace, and a registry with its image as `a:v1`.
fn filled() -> (Workspace, Registry) {
    let (place, registry) = (Workspace::with_image(), Registry::start());
    let pushed = place.run(place.volio(&format!("push --quiet oci:layout:v1 {}/a:v1", registry.host())));
    assert!(pushed.status.success(), "{pushed:?}");
    (place, registry)
}

/// Returns a command with credentials for a host in `DOCKER_AUTH_CONFIG`.
fn with_entry(place: &Workspace, arguments: &str, host: &str, entry: &str) -> Command {
    let mut command = place.volio(arguments);
    command.env("DOCKER_AUTH_CONFIG", format!(r#"{{"auths":{{"{host}":{entry}}}}}"#));
    command
}

/// Returns a command that trusts only this authority.
fn trusting(place: &Workspace, arguments: &str, authority: &Path) -> Command {
    let mut command = place.volio(arguments);
    command.env("SSL_CERT_FILE", authority).env("SSL_CERT_DIR", "/does/not/exist");
    command
}

#[test]
fn a_registry_without_login_and_without_a_referrers_api() {
    let (place, registry) = filled();
    let screen = place.screen(&format!("doctor {}/a", registry.host()));
    assert_screen(
        screen.replace(registry.host(), "HOST"),
        str![[r#"
warning  referrers: HOST/a: it has no referrers API (404): clients keep lists of signatures under tags sha256-…, and two that write at once may lose an entry
         do: nothing for one writer; several that sign should take turns
HOST/a
-- stderr
0 errors, 1 warning; 10 checks passed
-- exit 0

"#]],
    );
}

#[test]
fn a_registry_in_full_with_sources() {
    let (place, registry) = filled();
    registry.behave(|behaviour| behaviour.lists_referrers = true);
    let host = registry.host();
    let screen = place.screen(&format!("doctor --verbose --write-test {host}/a"));
    let screen =
        without_digests(&screen.replace(host, "HOST").replace("differ by 1 seconds", "differ by 0 seconds"));
    assert_screen(
        screen,
        str![[r#"
ok       proxy: HOST: it is reached without a proxy
         source: RFC 9110, section 9.3.6: CONNECT; curl(1), ENVIRONMENT
ok       name: HOST: its addresses are 127.0.0.1
         source: getaddrinfo(3)
ok       tls: HOST: it is on this machine, and contacted without encryption
         source: docs/credentials.md, "Plain HTTP on loopback addresses"
ok       protocol: HOST: it answers 200 to /v2/
         source: distribution-spec, "Determining Support": GET /v2/ answers 200 or 401
ok       clock: HOST: its clock and the one of this machine differ by 0 seconds
         source: RFC 9110, section 6.6.1: Date
ok       credentials: HOST: there are no credentials for it
         source: containers-auth.json(5); docker login, "Credential stores"
ok       login: HOST: it takes requests without credentials
         source: RFC 9110, section 11.6.1; distribution, "Token Authentication Specification"
ok       tags: HOST/a: it can be read, and has 1 tag(s) on the first page
         source: distribution-spec, "Listing Tags"
ok       ranges: HOST/a: it sends parts of blobs
         source: distribution-spec, "Pulling blobs"; RFC 9110, section 14
ok       referrers: HOST/a: it lists referrers itself
         source: distribution-spec, "Listing Referrers" and "Referrers Tag Schema"
ok       push: HOST/a: uploads can be begun
         source: distribution-spec, "Pushing blobs"
ok       chunks: HOST/a: it takes blobs in chunks
         source: distribution-spec, "Pushing a blob in chunks"; https://github.com/dotnet/sdk-container-builds/issues/287
ok       whole-blobs: HOST/a: it reads whole blobs, and rejects a wrong digest
         source: distribution-spec, "Pushing blobs"
ok       mount-blob: HOST/a: it mounts blobs between repositories
         source: distribution-spec, "Mounting a blob from another repository"
ok       delete: HOST/a: it deletes images
         source: distribution-spec, "Content Management": 405 if deletion is disabled
HOST/a
-- stderr
0 errors, 0 warnings; 15 checks passed
-- exit 0

"#]],
    );
}

#[test]
fn nothing_is_left_by_a_test_of_writing_and_nothing_is_written_without_one() {
    let (place, registry) = filled();
    let before = registry.requests().len();
    let run = |arguments: &str| {
        assert!(
            place.run(place.volio(&format!("doctor {arguments} {}/a", registry.host()))).status.success()
        );
    };
    run("");
    let sent = registry.requests().split_off(before);
    assert!(sent.iter().all(|request| matches!(request.method, Method::GET | Method::HEAD)), "{sent:?}");
    run("--write-test");
    assert_eq!(registry.open_uploads(), 0);
    assert_eq!(registry.stored_tags("a"), ["v1"]);
    assert!(place.run(place.volio(&format!("verify {}/a:v1", registry.host()))).status.success());
}

#[test]
fn an_unknown_host_and_a_refused_port_are_named() {
    let place = Workspace::new();
    let told = "cannot find the address of registry.invalid";
    assert_named(&place, place.volio("doctor registry.invalid"), "error", "name", told);
    let command = place.volio(&format!("doctor {}", closed()));
    assert_named(&place, command, "error", "connection", "Connection refused");
}

#[test]
fn a_certificate_of_another_authority_an_expired_one_and_one_for_another_name_are_named() {
    let (place, registry) = (Workspace::new(), Registry::start());
    let (authority, other) = (Authority::new(), Authority::new());
    let host = authority.front_of(registry.host(), false);
    let command = trusting(&place, &format!("doctor --tls-verify {host}"), &other.path("ca.crt"));
    assert_named(&place, command, "error", "tls", "is not trusted on this machine");

    let expired = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 3, 4));
    };
    let (host, file) = self_signed_front_of(registry.host(), expired);
    let command = trusting(&place, &format!("doctor --tls-verify {host}"), file.path());
    assert_named(&place, command, "error", "tls", "its certificate expired on 2002-03-04");

    let elsewhere = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![SanType::DnsName("r.io".try_into().unwrap())];
    };
    let (host, file) = self_signed_front_of(registry.host(), elsewhere);
    let command = trusting(&place, &format!("doctor --tls-verify {host}"), file.path());
    assert_named(&place, command, "error", "tls", "its certificate is for another host: r.io");
}

#[test]
fn plain_http_where_tls_was_expected_and_the_reverse_are_named() {
    let (place, registry, authority) = (Workspace::new(), Registry::start(), Authority::new());
    let command = place.volio(&format!("doctor --tls-verify {}", registry.host()));
    let text =
        assert_named(&place, command, "error", "scheme", "it speaks plain HTTP, and was contacted with TLS");
    assert!(text.contains("--plain-http"), "{text}");
    let front = authority.front_of(registry.host(), false);
    let command = place.volio(&format!("doctor {front}"));
    let text =
        assert_named(&place, command, "error", "scheme", "it speaks TLS, and was contacted with plain HTTP");
    assert!(text.contains("--tls-verify"), "{text}");
}

#[test]
fn a_proxy_that_is_down_is_named_with_its_variable() {
    let place = Workspace::new();
    let closed = closed();
    let mut command = place.volio("doctor registry.example");
    command.env("HTTPS_PROXY", format!("http://me:hunter2@{closed}"));
    let text = assert_named(&place, command, "error", "proxy", "cannot connect to 127.0.0.1:");
    assert!(text.contains("of HTTPS_PROXY") && text.contains("NO_PROXY=registry.example"), "{text}");
}

#[test]
fn a_server_that_is_not_a_registry_is_named() {
    let (place, registry) = (Workspace::new(), Registry::start());
    registry.behave(|behaviour| behaviour.root_status = Some(404));
    let command = place.volio(&format!("doctor {}", registry.host()));
    assert_named(&place, command, "error", "protocol", "it answers 404 to /v2/, so it is not a registry");
}

#[test]
fn a_wrong_password_is_named_with_the_place_where_it_was_found() {
    for login in [
        Login::Basic { user: "me:hunter2" },
        Login::Token { user: "me:hunter2", anonymous_pull: false, expires_in: 300 },
    ] {
        let (place, registry) = (Workspace::new(), Registry::start());
        registry.behave(|behaviour| behaviour.login = login);
        let host = registry.host();
        let wrong = r#"{"username":"me","password":"not-hunter2"}"#;
        let command = with_entry(&place, &format!("doctor {host}"), host, wrong);
        let told = "it rejects the credentials in DOCKER_AUTH_CONFIG: 401";
        assert_named(&place, command, "error", "login", told);
        assert_named(
            &place,
            place.volio(&format!("doctor {host}")),
            "warning",
            "login",
            "it wants credentials: 401",
        );
        let right = r#"{"username":"me","password":"hunter2"}"#;
        let command = with_entry(&place, &format!("doctor {host}"), host, right);
        assert_named(&place, command, "ok", "login", "it takes requests with these credentials");
    }
}

#[test]
fn an_expired_token_is_named_with_its_time() {
    let (place, registry) = (Workspace::new(), Registry::start());
    let token = |exp: i64| {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp},"sub":"hunter2"}}"#));
        format!(r#"{{"registrytoken":"e30.{payload}.hunter2"}}"#)
    };
    let host = registry.host();
    let command = with_entry(&place, &format!("doctor {host}"), host, &token(1_000_000_000));
    let told = "the token in DOCKER_AUTH_CONFIG expired at 2001-09-09T01:46:40Z";
    assert_named(&place, command, "error", "token-expiry", told);
    let command = with_entry(&place, &format!("doctor {host}"), host, &token(99_000_000_000));
    assert_named(&place, command, "ok", "token-expiry", "is valid until 5107-");
}

#[test]
fn a_credential_helper_that_is_missing_is_named() {
    let (place, registry) = (Workspace::new(), Registry::start());
    registry.behave(|behaviour| behaviour.login = Login::Basic { user: "me:hunter2" });
    let mut command = place.volio(&format!("doctor {}", registry.host()));
    command.env("DOCKER_AUTH_CONFIG", r#"{"credsStore":"volio-test-is-not-there"}"#);
    assert_named(&place, command, "error", "credential-store", "docker-credential-volio-test-is-not-there");
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let (place, registry) = (Workspace::new(), Registry::start());
    registry.behave(|behaviour| behaviour.headers = vec![("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
    let command = place.volio(&format!("doctor {}", registry.host()));
    assert_named(&place, command, "warning", "clock", "this machine is ahead");
    registry.behave(|behaviour| behaviour.headers = vec![("date", "Fri, 06 Nov 2122 08:49:37 GMT")]);
    let command = place.volio(&format!("doctor {}", registry.host()));
    assert_named(&place, command, "warning", "clock", "this machine is behind");
}

#[test]
fn a_token_that_may_only_read_is_named_by_a_test_of_writing() {
    for (status, told) in [(403, "the credentials allow to read only"), (405, "the registry is read-only")] {
        let (place, registry) = filled();
        registry.behave(|behaviour| {
            let (method, path) = (Method::POST, "/uploads/");
            behaviour.refusals = vec![Refusal { method, path, status, ..Refusal::default() }];
        });
        let command = place.volio(&format!("doctor --write-test {}/a", registry.host()));
        assert_named(&place, command, "error", "push", told);
    }
}

#[test]
fn a_repository_that_may_not_be_read_and_one_that_does_not_exist_are_named() {
    let (place, registry) = filled();
    registry.behave(|behaviour| {
        let (method, path) = (Method::GET, "/tags/list");
        behaviour.refusals = vec![Refusal { method, path, status: 403, ..Refusal::default() }];
    });
    let command = place.volio(&format!("doctor {}/a", registry.host()));
    assert_named(&place, command, "error", "pull", "the credentials do not allow to read it: 403");
    let command = place.volio(&format!("doctor {}/b", registry.host()));
    assert_named(&place, command, "warning", "tags", "the repository does not exist");
}

#[test]
fn missing_abilities_of_a_registry_are_named() {
    let (place, registry) = filled();
    registry.behave(|behaviour| {
        behaviour.ranges = Ranges::Ignored;
        behaviour.deletes = Deletes::Nothing;
        behaviour.refuses_mounts = true;
        behaviour.whole_only = true;
        behaviour.headers = vec![("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600")];
    });
    for (check, told) in [
        ("ranges", "it sends whole blobs when it is asked for a part"),
        ("referrers", "it has no referrers API (404)"),
        ("delete", "deletion is disabled: 405"),
        ("mount-blob", "it does not mount blobs (202)"),
        ("chunks", "it takes no chunks (405)"),
        ("rate-limit", "0;w=21600 pulls are left of 100;w=21600"),
    ] {
        let command = place.volio(&format!("doctor --write-test {}/a", registry.host()));
        assert_named(&place, command, "warning", check, told);
    }
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn a_limit_on_the_size_of_requests_and_a_registry_that_checks_no_digests_are_named() {
    let (place, registry) = filled();
    registry.behave(|behaviour| behaviour.limits_bodies = Some(10));
    let command = place.volio(&format!("doctor --write-test {}/a", registry.host()));
    assert_named(&place, command, "error", "whole-blobs", "limits the size of requests: 413");
    registry.behave(|behaviour| (behaviour.limits_bodies, behaviour.believes_digests) = (None, true));
    let command = place.volio(&format!("doctor --write-test {}/a", registry.host()));
    assert_named(&place, command, "error", "whole-blobs", "under a digest that it does not have");
}

#[test]
fn a_mirror_that_does_not_answer_is_named() {
    let (place, registry) = filled();
    let (conf, closed) = (place.path().join("registries.conf"), closed());
    let text = format!(
        "[[registry]]\nprefix = \"{host}/a\"\nlocation = \"{host}/a\"\n[[registry.mirror]]\nlocation = \"{closed}/m\"\n",
        host = registry.host()
    );
    fs::write(&conf, text).unwrap();
    let mut command = place.volio(&format!("doctor {}/a", registry.host()));
    command.env("CONTAINERS_REGISTRIES_CONF", conf);
    assert_named(&place, command, "warning", "mirror", "this mirror is read first, and fails");
}

#[test]
fn what_a_server_says_cannot_control_the_terminal() {
    let (place, registry) = filled();
    registry.behave(|behaviour| {
        behaviour.headers = vec![("ratelimit-limit", "a"), ("ratelimit-remaining", "1\tb")];
    });
    let output = place.run(place.volio(&format!("doctor --verbose {}/a", registry.host())));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(r"1\tb pulls are left"), "{text}");
}
