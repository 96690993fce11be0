//! A network between the plugin and the registry that is slow, stands still, cuts connections or refuses them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// This number of bytes per second and connection.
    Slow(u64),
    /// No data passes, and connections stay.
    Still,
    /// A connection ends after this number of bytes.
    Cutting(u64),
    /// New connections end at once, and old ones too.
    Down,
}

/// A proxy in front of a registry; it lives as long as the tests do.
pub struct Network {
    /// `127.0.0.1:port`
    pub host: String,
    weather: Arc<(Mutex<Weather>, Condvar)>,
}

impl Network {
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let weather = Arc::new((Mutex::new(Weather::Fair), Condvar::new()));
        let (target, shared) = (target.to_owned(), Arc::clone(&weather));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if *shared.0.lock().unwrap() == Weather::Down {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let weather = Arc::clone(&shared);
                    thread::spawn(move || pass(from, to, &weather));
                }
            }
        });
        Self { host, weather }
    }

    pub fn change(&self, weather: Weather) {
        *self.weather.0.lock().unwrap() = weather;
        self.weather.1.notify_all();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, weather: &(Mutex<Weather>, Condvar)) {
    let mut buffer = [0; 8 << 10];
    let mut passed = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let now = *weather.1.wait_while(weather.0.lock().unwrap(), |now| *now == Weather::Still).unwrap();
        match now {
            Weather::Fair | Weather::Still => {}
            Weather::Slow(rate) => thread::sleep(Duration::from_millis(length as u64 * 1000 / rate)),
            Weather::Cutting(after) if passed < after => {}
            Weather::Cutting(_) | Weather::Down => break,
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        passed += length as u64;
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
