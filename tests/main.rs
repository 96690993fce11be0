//! All integration tests, in one binary: linking dominates the time of a test run.
// In a test an unwrap is an assertion; clippy knows that for unit tests only.
// Tests may remove their own directories in any way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod architecture; // the import rule and the invariants, read from the sources
mod archives; // images in tar files
mod compatibility; // images with the shapes of other builders
mod contract; // the contract of transports, run for each of them
mod documents; // the commands in README and docs/, executed
mod engines; // other container programs as judges; `tests/run` installs them
mod fidelity; // a tree with every kind of entry and attribute is restored exactly
mod full_disk; // no space left, in every phase
mod fuzzed; // the targets of fuzz/, on this toolchain
mod hostile; // hostile images
mod images; // trees into images and back, in memory and in layouts
mod incremental; // random changes of random trees, packed and unpacked
mod interrupted; // packs that are killed while they publish
mod interrupted_unpack; // unpacks that are killed while several threads write files
mod kubernetes; // the examples for Kubernetes, compared with its API
mod limited_file_systems; // unpacking on vfat and exFAT
mod packaging; // the files of the crate, manual pages and completions
mod plugin; // the volume plugin, with the requests of engines
mod prune; // retention
mod registry; // the registry client, against a registry in this process
mod restricted; // a user without a name and a home, and a read-only root
mod screens; // the program as users see it
mod service; // verbs that run unattended
mod sidecar; // a pack that waits for a signal
mod signatures; // signatures of images
mod snapshot; // a tree, recorded by an independent implementation
mod sync; // `unpack --sync`
mod transports; // the contract, for layouts, archives and memory
