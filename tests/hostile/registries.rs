//! Registries whose answers would take very much memory.

use super::runs::peak_of;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use volio::oci::{Digest, media_type};

/// The memory limit of all commands, in bytes.
const MOST: u64 = 300 << 20;

/// A request for a path, with the range that it asks for.
struct Asked {
    path: String,
    range: Option<String>,
}

/// Starts a server that closes each connection after one answer, and says where it is.
fn serve(answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let headers = lines.take_while(|line| !line.is_empty());
                let range = headers
                    .filter_map(|line| Some(line.to_ascii_lowercase().strip_prefix("range: ")?.to_owned()))
                    .last();
                // The client may have gone away, which is what it should do.
                let _ = answer(&Asked { path, range }, &mut stream);
            });
        }
    });
    host
}

fn ok(stream: &mut TcpStream, kind: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n")?;
    stream.write_all(b"Connection: close\r\n\r\n")?;
    stream.write_all(body)
}

fn volio(arguments: &[&str]) -> (i32, u64, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command.args(arguments).args(["--retry", "0"]).env_clear();
    let (output, peak) = peak_of(command);
    (output.status.code().unwrap_or(-1), peak, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_list_of_ten_million_tags_is_refused_before_it_takes_much_memory() {
    let tags: String = (0..3_000_000).map(|number| format!(r#""{number:x}","#)).collect();
    let page = format!(r#"{{"name":"a","tags":[{}"x"]}}"#, tags);
    assert!(page.len() > 24 << 20 && page.len() < 32 << 20, "{}", page.len());
    let host = serve(move |asked, stream| {
        let is_list = asked.path.contains("/tags/list");
        ok(stream, "application/json", if is_list { page.as_bytes() } else { b"{}" })
    });
    let (code, peak, stderr) = volio(&["tags", &format!("{host}/a")]);
    assert!(code == 1 && peak < MOST, "{code} {peak} {stderr}");
    assert!(stderr.contains("there are more than"), "{stderr}");
}

#[test]
fn a_range_without_an_end_waits_for_its_reader_and_is_not_held_in_memory() {
    const SIZE: u64 = 12 << 20;
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    let (config_digest, layer) = (Digest::of(config), Digest::of(b"layer"));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"{}","digest":"{layer}","size":{SIZE}}}]}}"#,
        media_type::CONFIG,
        config.len(),
        media_type::LAYER,
    );
    // Set when nothing more of the last part can be sent.
    let is_full = Arc::new((Mutex::new(false), Condvar::new()));
    let host = serve(move |asked, stream| {
        let (full, changed) = &*is_full;
        match &asked.range {
            _ if asked.path.contains("/manifests/") => ok(stream, media_type::MANIFEST, manifest.as_bytes()),
            _ if asked.path.ends_with(&config_digest.to_string()) => {
                ok(stream, "application/octet-stream", config)
            }
            Some(range) if asked.path.ends_with(&layer.to_string()) => {
                let (from, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{SIZE}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes())?;
                let zeros = vec![0; 1 << 20];
                if last == (SIZE - 1).to_string() {
                    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
                    let sent = (0..1000).try_for_each(|_| stream.write_all(&zeros));
                    *full.lock().unwrap() = true;
                    changed.notify_all();
                    return sent;
                }
                // The reader waits for this part as long as the last one comes.
                let mut full = full.lock().unwrap();
                while !*full {
                    full = changed.wait(full).unwrap();
                }
                (0..4).try_for_each(|_| stream.write_all(&zeros))
            }
            _ => ok(stream, "application/json", b"{}"),
        }
    });
    let (code, peak, stderr) = volio(&["verify", &format!("{host}/a:v1")]);
    assert!(code == 3 && peak < 100 << 20, "{code} {peak} {stderr}");
}
