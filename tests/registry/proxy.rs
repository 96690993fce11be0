//! A proxy that cuts every connection after some bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A proxy in front of a server. It runs until the process of the tests ends.
pub struct CuttingProxy {
    host: String,
    counts: Arc<Counts>,
}

/// The numbers of connections and transferred bytes.
#[derive(Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
}

impl CuttingProxy {
    /// Starts a proxy that cuts each connection after this many bytes, counted in both directions.
    pub fn cutting(target: &str, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let counts = Arc::<Counts>::default();
        let (target, shared) = (target.to_owned(), Arc::clone(&counts));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let left = Arc::new(AtomicU64::new(after));
                for (from, to, up) in [(&client, &server, true), (&server, &client, false)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (left, counts) = (Arc::clone(&left), Arc::clone(&shared));
                    thread::spawn(move || pass(from, to, &left, if up { &counts.up } else { &counts.down }));
                }
            }
        });
        Self { host, counts }
    }

    /// `127.0.0.1:port`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the number of bytes to the server.
    pub fn up(&self) -> u64 {
        self.counts.up.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes from the server.
    pub fn down(&self) -> u64 {
        self.counts.down.load(Ordering::Relaxed)
    }

    /// Returns the number of connections.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }
}

/// Copies bytes until the end, or until the limit of the connection.
fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicU64, count: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        let allowed = |left: u64| Some(left.saturating_sub(read as u64));
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, allowed).unwrap();
        let passing = (read as u64).min(before) as usize;
        count.fetch_add(passing as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..passing]).is_err() || passing < read {
            break;
        }
        if read == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
