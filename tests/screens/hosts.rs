//! Certificates and proxies, as they are named on the command line and in the environment.

use super::{Place, assert_screen};
use crate::registry::{Authority, Proxy, Registry};
use snapbox::str;
use std::process::Command;

/// A registry that is only to be had encrypted, its authority, and the proxy through which it is reached.
fn behind_a_proxy() -> (Registry, Authority, Proxy) {
    let (registry, authority) = (Registry::start(), Authority::new());
    let proxy = Proxy::to(&authority.front_of(registry.host(), false));
    (registry, authority, proxy)
}

fn push(place: &Place, arguments: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = place.volio(&format!("push --quiet oci:layout:v1 registry.test/a:v1 {arguments}"));
    command.envs(variables.iter().copied());
    command
}

#[test]
fn a_proxy_is_a_tunnel_and_sees_no_more_than_the_host() {
    let (place, (_registry, authority, proxy)) = (Place::with_image(), behind_a_proxy());
    let (ca, address) = (authority.path("ca.crt"), format!("http://{}", proxy.address));
    for (arguments, variables) in [
        (format!("--ca-file {}", ca.display()), vec![("HTTPS_PROXY", address.as_str())]),
        (String::new(), vec![("https_proxy", &address), ("SSL_CERT_FILE", ca.to_str().unwrap())]),
    ] {
        assert_screen(
            place.screen_of(push(&place, &arguments, &variables)),
            str![[r#"
registry.test/a@sha256:[DIGEST]
-- exit 0

"#]],
        );
    }
    let asked = proxy.asked();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|line| line == "CONNECT registry.test:443 HTTP/1.1"), "{asked:?}");
}

#[test]
fn a_host_can_be_taken_from_the_proxy() {
    let (place, (_registry, _authority, proxy)) = (Place::with_image(), behind_a_proxy());
    let address = format!("http://{}", proxy.address);
    for except in ["registry.test", ".test", "*"] {
        let command = push(&place, "", &[("HTTPS_PROXY", &address), ("NO_PROXY", except)]);
        let screen = place.screen_of(command);
        assert!(screen.ends_with("-- exit 1\n"), "{screen}");
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
    let plain = push(&place, "--plain-http", &[("HTTP_PROXY", &address)]);
    assert!(place.screen_of(plain).contains("it does not know /v2/"));
    assert_eq!(proxy.asked(), ["GET http://registry.test/v2/ HTTP/1.1"], "blobs side by side ask once");
}

#[test]
fn a_machine_without_authorities_can_name_one_and_needs_none_for_plain_http() {
    let (place, (registry, authority, _proxy)) = (Place::with_image(), behind_a_proxy());
    let front = authority.front_of(registry.host(), false);
    let run = |image: &str, arguments: &str| {
        let mut command = place.volio(&format!("push --quiet oci:layout:v1 {image}/a:v1 {arguments}"));
        command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/does/not/exist");
        place.screen_of(command).replace(&front, "HOST").replace(registry.host(), "HOST")
    };
    assert_screen(
        run(&front, "--tls-verify"),
        str![[r#"
-- stderr
error: destination: cannot prepare encrypted connections: No CA certificates were loaded from the system
hint: are there certificates of authorities on this machine? (Debian: ca-certificates) --ca-file names others
-- exit 1

"#]],
    );
    assert!(run(&front, &format!("--ca-file {}", authority.path("ca.crt").display())).ends_with("exit 0\n"));
    assert!(run(registry.host(), "").ends_with("exit 0\n"));
    assert_screen(
        run(&front, "--tls-verify=false"),
        str![[r#"
HOST/a@sha256:[DIGEST]
-- stderr
warning: whoever answers is trusted: passwords and data can be read and changed on the way
-- exit 0

"#]],
    );
}

#[test]
fn encryption_cannot_be_wanted_and_not() {
    let screen = Place::new().screen("pull --plain-http --ca-file x registry.test/a oci:a");
    assert!(screen.contains("--ca-file") && screen.ends_with("-- exit 2\n"), "{screen}");
}
