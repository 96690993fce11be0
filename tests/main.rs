//! All integration tests in one binary: linking dominates the time of a test run.
#![allow(clippy::unwrap_used, clippy::panic)]

mod contract;
mod registry;
