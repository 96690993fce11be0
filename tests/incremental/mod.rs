//! Images of what has changed: random trees and random changes, packed, unpacked and compared by programs that share no code
//! with volio.
//!
//! `VOLIO_TEST_SEED` repeats the seed that a failed test names, and `VOLIO_TEST_CASES` runs more seeds.

mod chain;
pub mod changes;
mod digests;
mod foreign;
mod full;
mod generator;
pub mod judge;
mod killed;
mod pack;
pub mod place;
pub mod random;
mod structure;
mod sync;
pub mod tree;
