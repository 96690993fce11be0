//! Moves directories in and out of OCI registries, without Docker.
//!
//! A **tree** is packed into a **layer**; layers make an **image**; images live in **transports**. The verbs are
//! modules, each with a function of the same name, its options and its result: [`pack`], [`unpack`], [`copy`],
//! [`list`], [`cat`], [`diff`], [`inspect`], [`verify`], [`sign`] and [`doctor`].
//!
//! A [`Location`] names an image in a registry, a layout, or an archive, and opens it as a [`Source`] or a [`Destination`]:
//!
//! ```
//! use volio::{Access, Location, SourceSpec, pack, progress::Silent, unpack};
//!
//! # fn main() -> volio::Result<()> {
//! # let directory = tempfile::tempdir().map_err(|error| volio::Error::io("no directory", error))?;
//! # let at = |name: &str| directory.path().join(name);
//! # let (tree, restored) = (at("tree"), at("restored"));
//! # std::fs::create_dir(&tree).and_then(|()| std::fs::write(tree.join("file"), "text")).map_err(|e| volio::Error::io("", e))?;
//! # let name = format!("oci:{}:v1", at("layout").display());
//! let image: Location = name.parse()?; // such as oci:backup:v1, or registry.example/data:v1
//! let access = Access::from_environment(&std::env::vars_os().collect())?; // credentials, certificates, proxies
//!
//! let destination = image.destination(&access)?;
//! let packed = pack::pack(&*destination, &[SourceSpec::new(&tree)], &pack::Options::default(), &Silent)?;
//! println!("{}: {} entries", packed.address, packed.entries);
//!
//! let source = image.source(&access)?;
//! unpack::unpack(&*source, &restored, &unpack::Options::default(), &Silent)?;
//! # assert_eq!(std::fs::read(restored.join("file")).unwrap(), b"text");
//! # Ok(())
//! # }
//! ```
//!
//! The library neither prints, exits, nor reads the environment: a caller passes credentials and proxies in [`Access`],
//! which [`Access::from_environment`] finds as docker and podman do, and a receiver of [`progress`]. All functions
//! block; they use threads, and a registry client with its own asynchronous runtime.
//!
//! The feature `cli`, on by default, is for the program `volio` only. Turn it off with `default-features = false`.

#![cfg_attr(test, allow(clippy::disallowed_methods))]
// Heads of modules are for readers of the code too: `cargo doc --document-private-items` has their links.
#![allow(rustdoc::private_intra_doc_links)]

pub mod cat;
pub mod copy;
pub mod data_io;
pub mod diff;
pub mod doctor;
pub mod error;
pub mod inspect;
pub mod list;
pub mod pack;
pub mod plugin;
pub mod progress;
pub mod prune;
pub mod service;
pub mod sign;
pub mod tags;
pub mod unpack;
pub mod verify;

pub use error::{Error, Result};
pub use image::{Description, ReadOptions, SignedPart, SignedSource, VerificationCache};
pub use layer::{Compression, Limits};
pub use oci::{ContainerConfig, Descriptor, Digest, Document, Platform, Reference, TagMatch, TagTemplate};
pub use stream::CancelToken;
pub use transport::memory::Memory;
pub use transport::registry::{
    LoggedIn, StoredIn, login, login_file, logout, named_auth_file, parse_host as parse_registry_host,
};
pub use transport::{
    Access, BulkRemoval, ClientOptions, CredentialSource, Destination, Environment, ImageSupport, Location,
    Proxies, Proxy, Removal, Removed, Retry, Secret, Source, Tls,
};
pub use tree::{
    Entry, EntryKind, ExtractOptions, Extracted, FileThreads, Holes, IdMaps, IdRange, MergedTree, Metadata,
    OnChange, Owner, RuleFiles, SourceSpec, Time, TreePath, WalkOptions, rule_lines,
};
pub use trust::{Identity, ImageName, PublicKey, Requirement, SignaturePolicy, Signed, Signer, SigningKey};

mod disk;
mod process;
#[cfg(test)]
mod testing;

// Not part of the API: these modules are visible to the tests, the benchmarks and the fuzzing targets only, and change
// at any time.
#[doc(hidden)]
pub mod image;
#[doc(hidden)]
pub mod layer;
#[doc(hidden)]
pub mod oci;
#[doc(hidden)]
pub mod stream;
#[doc(hidden)]
pub mod transport;
#[doc(hidden)]
pub mod tree;
#[doc(hidden)]
pub mod trust;
