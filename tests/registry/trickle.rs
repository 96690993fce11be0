//! A registry that sends data very slowly.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use volio::oci::Descriptor;
use volio::transport::{Access, ClientOptions, Retry, Source, registry};

const DATA: &[u8] = &[7; 4096];

/// Starts a server that sends one blob a byte at a time, at most this many bytes per connection, and counts its requests.
fn slow_server(cut_after: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let count = Arc::<AtomicUsize>::default();
    let asked = Arc::clone(&count);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let asked = Arc::clone(&asked);
            thread::spawn(move || drop(send_slowly(connection, cut_after, &asked)));
        }
    });
    (host, count)
}

fn send_slowly(mut connection: TcpStream, cut_after: usize, asked: &AtomicUsize) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let read = connection.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
    if !request.contains("/blobs/") {
        return connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    asked.fetch_add(1, Ordering::Relaxed);
    let range =
        request.split_once("range: bytes=").and_then(|(_, range)| range.split_once('-')?.0.parse().ok());
    let start: usize = range.unwrap_or(0);
    let length = DATA.len() - start;
    let head = match range {
        Some(_) => {
            format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", DATA.len() - 1, DATA.len())
        }
        None => "200 OK".to_owned(),
    };
    write!(connection, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n")?;
    for byte in DATA[start..].iter().take(cut_after) {
        connection.write_all(&[*byte])?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn fetch(host: &str, min_rate: u64) -> volio::Result<()> {
    let retry = Retry { retries: 2, delay: Duration::ZERO };
    let stall_timeout = Duration::from_millis(150);
    let access = Access {
        client: ClientOptions { retry, stall_timeout, min_rate, ..ClientOptions::default() },
        ..Access::default()
    };
    let client = registry::Registry::new(format!("{host}/a:t").parse().unwrap(), &access)?;
    let blob = Descriptor::of("application/octet-stream", DATA);
    client.open(&blob)?.verify(&blob).drain().map(drop)
}

#[test]
fn a_registry_that_is_too_slow_is_an_error_after_the_retries() {
    for cut_after in [usize::MAX, 2] {
        let (host, asked) = slow_server(cut_after);
        let begun = Instant::now();
        let error = fetch(&host, 100_000).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10), "{cut_after} {:?}", begun.elapsed());
        if cut_after > DATA.len() {
            assert!(
                error.to_string().contains("fewer than 100000 bytes a second came for 0.15 seconds"),
                "{error}"
            );
            assert_eq!(asked.load(Ordering::Relaxed), 3, "tried again as often as anything else");
        }
    }
}
