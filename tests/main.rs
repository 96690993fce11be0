//! All integration tests, in one binary: linking dominates the time of a test run.
// In a test an unwrap is an assertion; clippy knows that for unit tests only.
#![allow(clippy::unwrap_used, clippy::panic)]

mod architecture; // the import rule and the invariants, read from the sources
mod contract; // what every place does, whatever it is
mod images; // trees into images and back, in memory and in layouts
mod registry; // a registry in this process, and the client against it
mod snapshot; // a tree as an independent witness sees it
