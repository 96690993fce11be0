//! What others see of a watch: metrics, and pings by hooks.

use super::program::{Place, end};
use crate::registry::Registry;
use crate::service::eventually;
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use volio::progress::Silent;
use volio::transport::Access;
use volio::{SourceSpec, pack};

/// Returns the answer to a request, or nothing.
fn get(address: &str, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

/// Returns the value of a metric, 0 while nobody answers.
fn metric(address: &str, name: &str) -> u64 {
    let metrics = get(address, "/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_default()
}

#[test]
fn the_metrics_of_a_watch_show_hooks_that_fail_and_a_tag_that_is_gone() {
    let place = Place::new();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let value = |name: &str| metric(&listen, name);
    place.push(1);
    let hook = ["--on-change", "exit 3", "--on-change-attempts", "1"];
    let child = place.watch(&[&["--link", "current", "--listen", &listen][..], &hook].concat());
    eventually("the failed hook", || value("volio_hooks_failed_total") == 1);
    assert!(
        value("volio_last_hook_error_timestamp_seconds") >= value("volio_last_success_timestamp_seconds")
    );
    assert!(value("volio_last_success_timestamp_seconds") > 0, "the version is published");
    assert_eq!((value("volio_runs_failed_total"), value("volio_last_error_timestamp_seconds")), (0, 0));

    fs::rename(place.at("layout"), place.at("away")).unwrap();
    eventually("the failed poll", || value("volio_runs_failed_total") > 0);
    assert!(value("volio_last_error_timestamp_seconds") >= value("volio_last_success_timestamp_seconds"));
    assert!(value("volio_failures_in_a_row") > 0);
    assert_eq!(value("volio_hooks_failed_total"), 1);
    assert!(get(&listen, "/readyz").contains("200 OK"), "the data is there");
    assert_eq!(Place::version(&place.at("target/current")), "1");

    fs::rename(place.at("away"), place.at("layout")).unwrap();
    eventually("a poll that succeeds", || value("volio_failures_in_a_row") == 0);
    end(child, Signal::TERM);
}

#[test]
fn the_metric_of_a_deleted_tag_is_not_that_of_a_registry_that_is_down() {
    let place = Place::new();
    let registry = Registry::start();
    let location = registry.location("data", "v1");
    let push = || {
        let destination = location.destination(&Access::default()).unwrap();
        let sources = [SourceSpec::new(place.at("tree"))];
        pack::pack(&*destination, &sources, &pack::Options::default(), &Silent).unwrap();
    };
    fs::create_dir(place.at("tree")).unwrap();
    push();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let image = location.to_string();
    let mut watch =
        place.volio(&["unpack", "--no-sync", "--watch", "1s", "--link", "current", "--listen", &listen]);
    watch.args([&image, "target"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = watch.spawn().unwrap();
    let failing = |kind: &str| metric(&listen, &format!("volio_failing{{kind=\"{kind}\"}}"));
    eventually("the version", || metric(&listen, "volio_runs_succeeded_total") > 0);
    assert_eq!((failing("not_found"), failing("failed")), (0, 0));

    location.removal(&Access::default()).unwrap().remove(true).unwrap();
    eventually("the poll after the deletion", || failing("not_found") == 1);
    assert_eq!(failing("failed"), 0);
    assert!(get(&listen, "/readyz").contains("200 OK") && place.at("target/current").exists());
    registry.behave(|behaviour| behaviour.limits_requests = Some(0));
    eventually("the poll after the outage has begun", || failing("failed") == 1);
    assert_eq!(failing("not_found"), 0);
    registry.behave(|behaviour| behaviour.limits_requests = None);
    push();
    eventually("a poll that succeeds", || metric(&listen, "volio_failures_in_a_row") == 0);
    assert_eq!((failing("not_found"), failing("failed")), (0, 0));
    end(child, Signal::TERM);
}

/// A service that waits for pings, and the requests that it got.
fn ping_service() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, pings) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<String>>>::default());
    let seen = Arc::clone(&pings);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut request, mut length) = (String::new(), 0);
            reader.read_line(&mut request).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let path = request.split(' ').nth(1).unwrap_or_default();
            seen.lock().unwrap().push(format!("{path} {}", String::from_utf8_lossy(&body)));
            reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    (address, pings)
}

/// The example of the page, for a directory that is there, one that is not, and a service that does not answer.
#[test]
#[ignore = "needs curl: run tests/run"]
fn the_pings_of_the_page_tell_a_start_a_success_and_a_failure() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/unattended.md")).unwrap();
    let mut blocks = page.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let example = blocks.find(|block| block.contains("https://hc.example")).expect("the example");
    let (service, pings) = ping_service();
    let place = Place::new();
    fs::create_dir(place.at("data")).unwrap();
    let run = |service: &str, directory: &str| {
        let command = example
            .replace("https://hc.example", &format!("http://{service}"))
            .replace("registry.example/data:latest", "oci:layout:v1")
            .replace("/data", directory)
            .replacen("volio", env!("CARGO_BIN_EXE_volio"), 1);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]).current_dir(place.at("")).env_clear();
        shell.env("PATH", std::env::var_os("PATH").unwrap()).env("XDG_STATE_HOME", place.at("state"));
        let output = shell.output().unwrap();
        (output.status.success(), std::mem::take(&mut *pings.lock().unwrap()), output)
    };
    let (success, seen, output) = run(&service, "data");
    assert!(success && seen == ["/ID/start ", "/ID "], "{seen:?} {output:?}");
    let (success, seen, output) = run(&service, "missing");
    assert!(!success && seen.len() == 2 && seen[0] == "/ID/start ", "{seen:?} {output:?}");
    assert!(seen[1].starts_with("/ID/fail ") && seen[1].contains("missing"), "{seen:?}");
    // A service that is down does not prevent the backup.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fs::write(place.at("data/new"), "new").unwrap();
    let (_, seen, output) = run(&closed, "data");
    assert!(seen.is_empty() && place.run(&["cat", "oci:layout:v1", "new"]).stdout == b"new", "{output:?}");
}
