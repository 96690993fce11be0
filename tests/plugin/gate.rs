//! A network that stands still until it is opened.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// A proxy in front of a server; data of the server waits while the gate is shut. It lives as long as the tests do.
pub struct Gate {
    host: String,
    open: Arc<(Mutex<State>, Condvar)>,
}

struct State {
    open: bool,
    connections: usize,
}

impl Gate {
    /// A shut gate in front of a server.
    pub fn shut(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let open = Arc::new((Mutex::new(State { open: false, connections: 0 }), Condvar::new()));
        let (target, shared) = (target.to_owned(), Arc::clone(&open));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.0.lock().unwrap().connections += 1;
                shared.1.notify_all();
                let Ok(server) = TcpStream::connect(&target) else { continue };
                for (from, to, waits) in [(&client, &server, false), (&server, &client, true)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let gate = waits.then(|| Arc::clone(&shared));
                    thread::spawn(move || pass(from, to, gate.as_deref()));
                }
            }
        });
        Self { host, open }
    }

    /// `127.0.0.1:port`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Passes everything from now on.
    pub fn open(&self) {
        self.open.0.lock().unwrap().open = true;
        self.open.1.notify_all();
    }

    /// Passes nothing again, and forgets earlier connections.
    pub fn shut_again(&self) {
        *self.open.0.lock().unwrap() = State { open: false, connections: 0 };
    }

    /// Waits for a connection.
    pub fn wait_for_somebody(&self) {
        let state = self.open.0.lock().unwrap();
        drop(self.open.1.wait_while(state, |state| state.connections == 0).unwrap());
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, gate: Option<&(Mutex<State>, Condvar)>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if let Some((state, changed)) = gate {
            drop(changed.wait_while(state.lock().unwrap(), |state| !state.open).unwrap());
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
