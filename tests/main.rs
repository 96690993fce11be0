//! All integration tests, in one binary: linking dominates the time of a test run.
// In a test an unwrap is an assertion; clippy knows that for unit tests only.
// What a test has made itself may be removed in any way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod architecture; // the import rule and the invariants, read from the sources
mod archives; // images in tar files
mod contract; // what every place promises, asked of each of them
mod engines; // the programs people already use, as judges; `tests/run` brings them
mod fidelity; // a tree with everything comes back as it was
mod full_disk; // no space left, in every phase
mod fuzzed; // the targets of fuzz/, on this toolchain
mod hostile; // images that were made to do harm
mod images; // trees into images and back, in memory and in layouts
mod interrupted; // packs that are killed while they publish
mod kubernetes; // the examples for Kubernetes, held against its API
mod places; // the contracts kept by layouts, archives and memory
mod plugin; // the volume plugin, asked as engines ask it
mod registry; // the registry client, against a registry in this process
mod restricted; // little is allowed: no name, no home, no root to write to
mod screens; // the program as its users see it
mod sidecar; // a pack that waits for its signal
mod snapshot; // a tree as an independent witness sees it
