//! The health endpoint, with requests of probes, of Prometheus, and of others.

use super::clock::SimulatedClock;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use volio::Error;
use volio::service::{Clock, HealthServer, Status};

const HOUR: Duration = Duration::from_secs(3600);

struct Place {
    clock: Arc<SimulatedClock>,
    status: Arc<Status>,
    server: HealthServer,
}

impl Place {
    fn new() -> Self {
        let clock = Arc::new(SimulatedClock::at("2026-06-01T12:00:00Z"));
        let status = Arc::<Status>::default();
        let server = HealthServer::start("127.0.0.1:0", status.clone(), clock.clone()).unwrap();
        Self { clock, status, server }
    }

    fn get(&self, path: &str) -> (u16, String) {
        request(self.server.address(), &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn succeed(&self) {
        self.status.success(self.clock.now(), &*self.clock, 5, Duration::from_secs(2), Some(3 * HOUR));
    }
}

fn request(address: SocketAddr, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let status = response.split(' ').nth(1).unwrap().parse().unwrap();
    (status, response.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn a_service_is_ready_after_its_first_success() {
    let place = Place::new();
    assert_eq!(place.get("/readyz").0, 503);
    place.status.failure(&*place.clock, &Error::failed("down"));
    assert_eq!(place.get("/readyz").0, 503);
    place.succeed();
    assert_eq!(place.get("/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(place.get("/other").0, 404);
}

#[test]
fn a_service_is_unhealthy_when_its_last_success_is_older_than_three_periods() {
    let place = Place::new();
    place.succeed();
    for _ in 0..3 {
        place.clock.pass(HOUR);
        place.status.failure(&*place.clock, &Error::failed("the registry is down"));
        assert_eq!(place.get("/healthz").0, 200);
    }
    place.clock.pass(Duration::from_secs(10));
    let (status, text) = place.get("/healthz");
    assert_eq!(status, 503);
    assert!(text.contains("the last success is too old") && text.contains("the registry is down"), "{text}");
    // It was ready once, and still has its data.
    assert_eq!(place.get("/readyz").0, 200);
    place.succeed();
    assert_eq!(place.get("/healthz").0, 200);
}

#[test]
fn a_service_whose_loop_is_dead_is_unhealthy_although_its_last_success_is_new() {
    let place = Place::new();
    place.succeed();
    place.clock.pass(Duration::from_secs(600));
    let (status, text) = place.get("/healthz");
    assert!(status == 503 && text.contains("no sign of life for 600 s"), "{status} {text}");
}

#[test]
fn a_run_that_takes_long_is_healthy_while_bytes_move() {
    let place = Place::new();
    place.status.begin(&*place.clock);
    let progress = place.status.observe(Arc::new(volio::progress::Silent));
    let task = progress.begin(&volio::progress::TaskInfo::new(volio::progress::Phase::Fetching));
    for _ in 0..100 {
        place.clock.pass(Duration::from_secs(200));
        task.advance(1);
        assert_eq!(place.get("/healthz").0, 200);
    }
    // Three hooks may follow each other.
    place.status.allow_for_hooks(HOUR);
    place.clock.pass(3 * HOUR);
    assert_eq!(place.get("/healthz").0, 200);
    place.clock.pass(Duration::from_secs(1000));
    assert!(place.get("/healthz").1.contains("the run has not moved"));
}

#[test]
fn metrics_have_the_last_success_error_and_hook_error_and_the_next_run() {
    let place = Place::new();
    place.succeed();
    place.clock.pass(HOUR);
    place.status.failure(&*place.clock, &Error::failed("down"));
    place.status.hook_failure(&*place.clock, &Error::failed("no"));
    place.status.wait(Some(place.clock.now() + HOUR), &*place.clock, None);
    let (status, text) = place.get("/metrics");
    assert_eq!(status, 200);
    let begun = place.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 3600;
    for line in [
        format!("volio_last_success_timestamp_seconds {begun}"),
        format!("volio_last_error_timestamp_seconds {}", begun + 3600),
        format!("volio_last_hook_error_timestamp_seconds {}", begun + 3600),
        format!("volio_next_run_timestamp_seconds {}", begun + 7200),
        "volio_last_duration_seconds 2.0".to_owned(),
        "volio_last_transfer_bytes 5".to_owned(),
        "volio_transferred_bytes_total 5".to_owned(),
        "volio_runs_succeeded_total 1".to_owned(),
        "volio_runs_failed_total 1".to_owned(),
        "volio_hooks_failed_total 1".to_owned(),
        "volio_failures_in_a_row 1".to_owned(),
        "volio_failing{kind=\"failed\"} 1".to_owned(),
        "volio_failing{kind=\"not_found\"} 0".to_owned(),
        "volio_healthy 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_metric_of_the_kind_of_a_failure_has_one_kind_at_a_time_and_none_after_a_success() {
    let place = Place::new();
    let kinds = || {
        let (_, text) = place.get("/metrics");
        let lines =
            text.lines().filter_map(|line| line.strip_prefix("volio_failing{kind=\"")?.strip_suffix("\"} 1"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(kinds().is_empty());
    for (error, kind) in [
        (Error::failed("the registry is down"), "failed"),
        (Error::not_found("the tag is gone"), "not_found"),
        (Error::denied("the password is wrong"), "denied"),
        (Error::integrity("the signature is missing"), "integrity"),
        (Error::refused("the directory is not ours"), "refused"),
        (Error::usage("the arguments are wrong"), "usage"),
    ] {
        place.status.failure(&*place.clock, &error);
        assert_eq!(kinds(), [kind]);
    }
    place.succeed();
    assert!(kinds().is_empty());
}

#[test]
fn requests_that_no_client_sends_get_an_error_and_harm_nothing() {
    let place = Place::new();
    let address = place.server.address();
    assert_eq!(request(address, "POST /healthz HTTP/1.1\r\n\r\n").0, 405);
    assert_eq!(request(address, "nonsense\r\n\r\n").0, 400);
    assert_eq!(request(address, &format!("GET /{} HTTP/1.1", "a".repeat(9000))).0, 431);
    let fields = "A: b\r\n".repeat(100);
    assert_eq!(request(address, &format!("GET /healthz HTTP/1.1\r\n{fields}\r\n")).0, 431);
    assert_eq!(request(address, "GET /readyz?x=1 HTTP/1.0\r\n\r\n").0, 503);
    assert_eq!(request(address, "GET /healthz HTTP/1.1\r\n\r\n").0, 200);
}

#[test]
fn connections_that_send_nothing_or_slowly_do_not_keep_probes_from_their_answer() {
    let place = Place::new();
    let address = place.server.address();
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    let begun = Instant::now();
    assert_eq!(place.get("/healthz").0, 200);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // A byte now and then does not prolong a request.
    let mut slow = TcpStream::connect(address).unwrap();
    let mut copy = slow.try_clone().unwrap();
    let feeding = thread::spawn(move || {
        while copy.write_all(b"G").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    let begun = Instant::now();
    let mut text = String::new();
    let _ = slow.read_to_string(&mut text);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    drop((slow, idle));
    feeding.join().unwrap();
}

#[test]
fn an_address_that_is_in_use_or_is_not_one_is_an_error_at_the_start() {
    let place = Place::new();
    for address in [place.server.address().to_string().as_str(), "nonsense", ":x", "127.0.0.1"] {
        let error = HealthServer::start(address, place.status.clone(), place.clock.clone()).unwrap_err();
        assert!(error.to_string().contains("--listen: cannot listen on"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_hook_that_takes_long_is_healthy_within_its_limit_and_moves_the_next_success() {
    let place = Place::new();
    place.clock.pass(HOUR);
    let _later = HealthServer::start("127.0.0.1:0", place.status.clone(), place.clock.clone()).unwrap();
    assert_eq!(
        place.get("/healthz").0,
        200,
        "a clock that counts from the start of the machine is no silence"
    );
    place.status.allow_for_hooks(10 * HOUR);
    place.succeed();
    place.status.during_hook(&*place.clock, || {
        place.clock.pass(9 * HOUR);
        assert_eq!(place.get("/healthz"), (200, "ok\n".to_owned()));
        place.clock.pass(2 * HOUR);
        assert!(place.get("/healthz").1.contains("a hook has not ended for 39600 s"));
    });
    assert_eq!(place.get("/healthz").0, 200, "nothing could be polled during the hook");
    place.clock.pass(Duration::from_secs(200));
    assert_eq!(place.get("/healthz").0, 200);
    place.clock.pass(HOUR);
    assert_eq!(place.get("/healthz").0, 503);
}
