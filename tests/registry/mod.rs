//! Tests of the registry client against a registry in this process.

mod attachment_removal;
mod attachments;
mod certificates;
mod downloads;
mod faults;
mod front;
mod login;
mod mirrors;
mod pagination;
mod partial;
mod proxy;
mod ranges;
mod referrers;
mod removal;
mod retries;
mod server;
mod stalled;
mod static_files;
mod tokens;
mod transfer;
mod trickle;
mod trust;
mod uploads;

pub use front::{Authority, Proxy, self_signed_front_of};

pub use proxy::CuttingProxy;
pub use server::{
    Behaviour, Damage, Deletes, Lengths, Locations, Login, NoReferrers, Pages, Ranges, Recorded, Refusal,
    Registry, Tokens,
};

use crate::contract::TestTransport;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use volio::Result;
use volio::progress::{Progress, Silent, Task, TaskInfo};
use volio::transport::{
    Access, ClientOptions, CredentialSource, Destination, Location, Removal, Retry, Source, registry,
};

mod fulfils_the_contract {
    crate::contract::suite!(crate::registry::Registry::start());
}

mod has_tags {
    crate::contract::suite!(crate::registry::Registry::start() => tags_are_sorted_by_their_bytes a_removed_tag_is_not_found);
}

impl TestTransport for Registry {
    fn source(&self, tag: &str) -> Result<Box<dyn Source>> {
        self.location("team/data", tag).source(&Access::default())
    }

    fn destination(&self, tag: &str) -> Result<Box<dyn Destination>> {
        self.location("team/data", tag).destination(&Access::default())
    }

    fn removal(&self, tag: &str) -> Result<Box<dyn Removal>> {
        self.location("team/data", tag).removal(&Access::default())
    }
}

impl Registry {
    /// Returns the location of an image in this registry.
    pub fn location(&self, repository: &str, tag: &str) -> Location {
        format!("{}/{repository}:{tag}", self.host()).parse().unwrap()
    }

    /// Returns a client for a tag, without credentials.
    fn client(&self, repository: &str, tag: &str) -> registry::Registry {
        self.client_with(repository, tag, &Access { client: patient(), ..Access::default() })
    }

    /// Returns a client with other options.
    fn client_by(&self, repository: &str, change: impl FnOnce(&mut ClientOptions)) -> registry::Registry {
        let mut client = patient();
        change(&mut client);
        self.client_with(repository, "t", &Access { client, ..Access::default() })
    }

    fn client_with(&self, repository: &str, tag: &str, access: &Access) -> registry::Registry {
        let name = format!("{}/{repository}:{tag}", self.host());
        registry::Registry::new(name.parse().unwrap(), access).unwrap()
    }
}

/// The warnings of a client.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Warnings {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        Silent.begin(info)
    }

    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

/// Returns client options with retries without a delay.
fn patient() -> ClientOptions {
    ClientOptions { retry: Retry { retries: 5, delay: Duration::ZERO }, ..ClientOptions::default() }
}

/// Returns bytes without repetitions.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Returns access with a docker `config.json` that has one user, `name:password`, for a registry.
fn access(host: &str, user: &str) -> (TempDir, Access) {
    let (name, password) = user.split_once(':').unwrap();
    access_by(host, &format!(r#"{{"username":"{name}","password":"{password}"}}"#))
}

/// Returns access with a docker `config.json` that has this entry.
fn access_by(host: &str, entry: &str) -> (TempDir, Access) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("config.json");
    fs::write(&path, format!(r#"{{"auths":{{"{host}":{entry}}}}}"#)).unwrap();
    (directory, Access { credentials: vec![CredentialSource::File(path)], ..Access::default() })
}
