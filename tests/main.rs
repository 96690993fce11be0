//! All tests that run the built program, as one binary: linking dominates the time of a test run.

mod engines;
