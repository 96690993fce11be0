//! Certificates and proxies from the command line and the environment.

use super::{Workspace, assert_screen};
use crate::registry::{Authority, Proxy, Registry};
use snapbox::str;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

/// A registry with TLS, its authority, and a proxy in front of it.
fn behind_a_proxy() -> (Registry, Authority, Proxy) {
    let (registry, authority) = (Registry::start(), Authority::new());
    let proxy = Proxy::to(&authority.front_of(registry.host(), false));
    (registry, authority, proxy)
}

fn push(place: &Workspace, arguments: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = place.volio(&format!("push --quiet oci:layout:v1 registry.test/a:v1 {arguments}"));
    command.envs(variables.iter().copied());
    command
}

#[test]
fn a_proxy_is_a_tunnel_and_sees_no_more_than_the_host() {
    let (place, (_registry, authority, proxy)) = (Workspace::with_image(), behind_a_proxy());
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
    let (place, (_registry, _authority, proxy)) = (Workspace::with_image(), behind_a_proxy());
    let address = format!("http://{}", proxy.address);
    for except in ["registry.test", ".test", "*", "registry.test:443", "*.test", "x.io,reg*.test:443"] {
        let command = push(&place, "", &[("HTTPS_PROXY", &address), ("NO_PROXY", except)]);
        let screen = place.screen_of(command);
        assert!(screen.ends_with("-- exit 1\n"), "{screen}");
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
    let plain = push(&place, "--plain-http", &[("HTTP_PROXY", &address)]);
    assert!(place.screen_of(plain).contains("it does not know /v2/"));
    let pings = proxy.asked().iter().filter(|line| *line == "GET http://registry.test/v2/ HTTP/1.1").count();
    assert_eq!(pings, 1, "blobs side by side ask once");
}

#[test]
fn a_proxy_that_cannot_be_used_is_named_with_its_variable() {
    let place = Workspace::with_image();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let run = |variable: &str, address: &str| {
        let arguments = if variable.starts_with("HTTP_") { "--plain-http" } else { "" };
        let screen = place.screen_of(push(&place, &format!("{arguments} --retry 0"), &[(variable, address)]));
        screen.replace(&closed, "CLOSED")
    };
    for (variable, address) in
        [("HTTPS_PROXY", closed.clone()), ("ALL_PROXY", format!("socks5://me:hunter2@{closed}"))]
    {
        let screen = run(variable, &address);
        let told = format!("cannot reach the registry registry.test: the proxy CLOSED of {variable}: ");
        assert!(screen.contains(&told) && !screen.contains("hunter2"), "{screen}");
        assert!(screen.contains("NO_PROXY=registry.test goes around it"), "{screen}");
    }
    assert_screen(
        run("HTTP_PROXY", &format!("http://me:hunter2@{closed}")),
        str![[r#"
-- stderr
error: destination: cannot reach the registry registry.test: the proxy CLOSED of HTTP_PROXY: Connection refused (os error 111)
hint: is HTTP_PROXY right, and does the proxy run? NO_PROXY=registry.test goes around it
-- exit 1

"#]],
    );
    assert_screen(
        run("HTTPS_PROXY", "ftp://me:hunter2@proxy"),
        str![[r#"
-- stderr
error: destination: cannot reach registry.test through the proxy in HTTPS_PROXY: it is of the kind "ftp", which is not known
hint: write HTTPS_PROXY=http://HOST:PORT; https and socks5 are known too. NO_PROXY=registry.test goes around it
-- exit 1

"#]],
    );
    assert!(
        run("https_proxy", "http://no such host")
            .contains("through the proxy in https_proxy: it is not an address")
    );
}

#[test]
fn a_proxy_that_wants_a_password_or_refuses_says_so() {
    let place = Workspace::with_image();
    for (status, variable, told) in [
        (
            407,
            "HTTPS_PROXY",
            "of HTTPS_PROXY: it wants a name and a password\nhint: write HTTPS_PROXY=http://NAME:PASSWORD@",
        ),
        (403, "HTTPS_PROXY", "of HTTPS_PROXY: it does not connect to registry.test\n"),
        (407, "HTTP_PROXY", "hint: the proxy wants a name and a password: HTTP_PROXY=http://NAME:PASSWORD@"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let _ = connection.read(&mut [0; 4096]);
                let _ = write!(
                    connection,
                    "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
        });
        let arguments = if variable == "HTTP_PROXY" { "--plain-http" } else { "" };
        let screen =
            place.screen_of(push(&place, &format!("{arguments} --retry 0"), &[(variable, &address)]));
        assert!(screen.contains(told), "{screen}");
    }
}

#[test]
fn a_machine_without_authorities_can_name_one_and_needs_none_for_plain_http() {
    let (place, (registry, authority, _proxy)) = (Workspace::with_image(), behind_a_proxy());
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
error: destination: cannot prepare encrypted connections: there are no certificates of authorities on this machine
hint: Debian's are in the package ca-certificates; --ca-file names others
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
warning: any certificate is accepted: passwords and data can be read and changed on the way
-- exit 0

"#]],
    );
}

#[test]
fn encryption_cannot_be_wanted_and_not() {
    let screen = Workspace::new().screen("pull --plain-http --ca-file x registry.test/a oci:a");
    assert!(screen.contains("--ca-file") && screen.ends_with("-- exit 2\n"), "{screen}");
}
