//! Retention: which images of a repository are kept.
//!
//! [`Policy`] has the rules, with the semantics of restic.

mod policy;
mod span;

pub use policy::{Candidate, KeepReason, Period, Policy, Rule, RuleLimit};
pub use span::CalendarSpan;
