//! Verbs that run unattended: hooks around each run, schedules, tags that are followed, and the health endpoint.
//!
//! The library reads neither the clock nor the environment, and does not print: a [`Clock`], the environment of hooks and
//! a [`Log`] come from the program.

mod clock;
mod duration;
mod health;
mod hook;
mod log;
mod metrics;
pub mod publish;
mod run;
mod schedule;
mod scheduled;
mod state;
mod status;
pub mod watch;
mod zone;

pub use clock::Clock;
pub use duration::parse_duration;
pub use health::HealthServer;
pub use hook::{Hook, HookContext, VARIABLES, Variables};
pub use log::{Level, Line, Log};
pub use run::{Change, Done, Hooks, Report, Runner};
pub use schedule::{CronLine, Schedule};
pub use scheduled::{AtEnd, Scheduled, Stopped};
pub use state::{JobState, RunEnd, TreeSize, is_in_container};
pub use status::{Snapshot, Status};
pub use zone::Zone;
