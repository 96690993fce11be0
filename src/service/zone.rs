//! Time zones, for schedules.

use crate::error::{Error, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::ffi::OsStr;
use std::fs;
use std::time::SystemTime;

/// The file with the time zone of the machine.
const LOCALTIME: &str = "/etc/localtime";

/// A time zone with its changes between summer and winter.
#[derive(Clone, Debug)]
pub struct Zone(pub(super) TimeZone);

impl Zone {
    /// Returns the zone that a value of `TZ` names: a name such as `Europe/Berlin`, or a rule of POSIX such as
    /// `CET-1CEST,M3.5.0,M10.5.0/3`. Without a value it is that of the machine, or UTC where the machine has none.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the value is not a zone: a schedule in another zone than the wanted one
    /// would not be noticed.
    pub fn find(tz: Option<&OsStr>) -> Result<Self> {
        let Some(name) = tz else {
            let local = fs::read(LOCALTIME).ok();
            let zone = local.and_then(|bytes| TimeZone::tzif("Local", &bytes).ok());
            return Ok(Self(zone.unwrap_or(TimeZone::UTC)));
        };
        let text = name.to_string_lossy();
        let name = text.strip_prefix(':').unwrap_or(&text);
        let of_file = || {
            let bytes = fs::read(name).ok().filter(|_| name.starts_with('/'))?;
            TimeZone::tzif(name, &bytes).ok()
        };
        let zone = TimeZone::get(name).ok().or_else(|| TimeZone::posix(name).ok()).or_else(of_file);
        zone.map(Self).ok_or_else(|| {
            Error::usage(format!("TZ is {text:?}, which is not a time zone"))
                .with_hint("set it to a name such as Europe/Berlin or UTC")
        })
    }

    /// Returns the zone, for calendars.
    pub fn time_zone(&self) -> TimeZone {
        self.0.clone()
    }

    /// Formats a time with its offset from UTC: `2026-11-29 02:00:00 +01:00`.
    pub fn format(&self, time: SystemTime) -> String {
        match Timestamp::try_from(time) {
            Ok(time) => time.to_zoned(self.0.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
            Err(_) => "a time that no calendar has".to_owned(),
        }
    }
}
