//! The state of a service in the text format of OpenMetrics, which Prometheus reads.

use super::clock::unix_seconds;
use super::status::Snapshot;
use crate::error::Kind;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use std::time::SystemTime;

/// The media type of the format.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The kinds of errors, by which alarms can tell a tag that was deleted from a registry that is down.
const KINDS: [(Kind, &str); 6] = [
    (Kind::Failed, "failed"),
    (Kind::Usage, "usage"),
    (Kind::Integrity, "integrity"),
    (Kind::NotFound, "not_found"),
    (Kind::Denied, "denied"),
    (Kind::Refused, "refused"),
];

/// Formats the state. A time that there is not yet is 0.
pub(super) fn format(state: &Snapshot, complaint: Option<&str>) -> String {
    let mut registry = Registry::with_prefix("volio");
    let time =
        |time: Option<SystemTime>| ConstGauge::new(time.map(unix_seconds).unwrap_or_default().cast_signed());
    let of_error = |error: &Option<(SystemTime, String)>| time(error.as_ref().map(|(time, _)| *time));
    let number = |number: u64| ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX));
    let seconds = Unit::Seconds;
    for (name, help, value) in [
        ("last_success_timestamp", "Beginning of the last successful run", time(state.last_success)),
        ("last_error_timestamp", "Time of the last failure of a run", of_error(&state.last_error)),
        ("last_hook_error_timestamp", "Time of the last failure of a hook", of_error(&state.last_hook_error)),
        ("next_run_timestamp", "Beginning of the next run", time(state.next_run)),
    ] {
        registry.register_with_unit(name, help, seconds.clone(), value);
    }
    let duration = ConstGauge::new(state.last_duration.as_secs_f64());
    registry.register_with_unit("last_duration", "Duration of the last successful run", seconds, duration);
    let bytes = "Bytes that the last successful run has sent or fetched";
    registry.register_with_unit("last_transfer", bytes, Unit::Bytes, number(state.last_bytes));
    let bytes = ConstCounter::new(state.bytes);
    registry.register_with_unit(
        "transferred",
        "Bytes that all runs have sent or fetched",
        Unit::Bytes,
        bytes,
    );
    for (name, help, value) in [
        ("runs_succeeded", "Successful runs", state.succeeded),
        ("runs_failed", "Failed runs", state.failed),
        ("hooks_failed", "Failed hooks", state.hooks_failed),
    ] {
        registry.register(name, help, ConstCounter::new(value));
    }
    registry.register(
        "failures_in_a_row",
        "Failed runs since the last success",
        number(state.failures_in_a_row),
    );
    let failing = Family::<[(&str, &str); 1], Gauge>::default();
    for (kind, name) in KINDS {
        failing.get_or_create(&[("kind", name)]).set((state.failing == Some(kind)).into());
    }
    registry.register("failing", "1 for the kind of error of the last run or poll, if it failed", failing);
    registry.register("running", "1 while a run is in progress", number(state.is_running.into()));
    registry.register("healthy", "1 if /healthz says so", number(complaint.is_none().into()));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &registry);
    text
}
