//! Images of what has changed: random trees and random changes, packed, unpacked and compared by programs that share no code
//! with volio.
//!
//! `VOLIO_TEST_SEED` repeats the seed that a failed test names, and `VOLIO_TEST_CASES` runs more seeds.

mod changes;
mod full;
mod generator;
mod judge;
mod place;
mod random;
mod structure;
mod tree;
