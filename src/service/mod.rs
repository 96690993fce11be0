//! Verbs that run unattended: hooks around each run, and what they need of the system.
//!
//! The library reads neither the clock nor the environment, and does not print: a [`Clock`], the environment of hooks and
//! a [`Log`] come from the program.

mod clock;
mod hook;
mod log;
pub mod publish;
mod run;
mod state;
pub mod watch;

pub use clock::Clock;
pub use hook::{Hook, HookContext, VARIABLES, Variables};
pub use log::{Level, Line, Log};
pub use run::{Change, Done, Hooks, Report, Runner};
pub use state::{JobState, is_in_container};
