//! Retries: which errors are transient, and when to try again.
//!
//! Busy servers and broken connections are retried; denials and wrong data are not. The delays are those of
//! [`Retry`](super::super::Retry).

use super::super::{ClientOptions, RetryDelay};
use crate::error::{Error, Result};
use crate::stream::CancelToken;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Statuses by which proxies report a broken connection: nginx (the client went away) and Cloudflare (a timeout).
const PROXY_STATUSES: [u16; 2] = [499, 522];

/// Returns whether a request that got this status may succeed later.
pub(super) fn is_transient(status: StatusCode) -> bool {
    use StatusCode as S;
    matches!(
        status,
        S::REQUEST_TIMEOUT
            | S::TOO_MANY_REQUESTS
            | S::INTERNAL_SERVER_ERROR
            | S::BAD_GATEWAY
            | S::SERVICE_UNAVAILABLE
            | S::GATEWAY_TIMEOUT
    ) || PROXY_STATUSES.contains(&status.as_u16())
}

/// Parses the `Retry-After` header: seconds, or a date, which is compared with the server's `Date`, because the clock
/// of this machine may be wrong.
pub(super) fn retry_after(headers: &HeaderMap) -> Duration {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let Some(asked) = text(RETRY_AFTER) else { return Duration::ZERO };
    if let Ok(seconds) = asked.parse() {
        return Duration::from_secs(seconds);
    }
    let date = |text: &str| DateTimeParser::new().parse_timestamp(text).ok();
    let span = |then, now: &str| u64::try_from(date(then)?.as_second() - date(now)?.as_second()).ok();
    text(DATE).and_then(|now| span(asked, now)).map_or(Duration::ZERO, Duration::from_secs)
}

/// The interval at which a wait for the network looks for a cancellation.
const CANCELLATION_INTERVAL: Duration = Duration::from_millis(100);

/// Waits for work of the network until it is done or cancelled.
///
/// # Errors
/// Those of the work, and the cancellation.
pub(super) async fn unless_cancelled<T>(
    cancel: &CancelToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = pin!(work);
    loop {
        cancel.check()?;
        if let Ok(outcome) = timeout(CANCELLATION_INTERVAL, work.as_mut()).await {
            return outcome;
        }
    }
}

/// Returns the delay before a retry, after `failures` retries that failed; `None` if the error is permanent, no retry is
/// left, or everything was cancelled.
pub(super) fn delay(options: &ClientOptions, error: &Error, failures: u32) -> Option<RetryDelay> {
    let asked = error.retry_after()?;
    options.retry.after(failures, asked, &options.cancel)
}

/// The attempts of one operation.
pub(super) struct Attempts<'a> {
    options: &'a ClientOptions,
    failures: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(options: &'a ClientOptions) -> Self {
        Self { options, failures: 0 }
    }

    /// Returns whether a retry is left.
    pub(super) fn are_left(&self) -> bool {
        self.failures < self.options.retry.retries
    }

    /// Resets the count after progress.
    pub(super) fn restart(&mut self) {
        self.failures = 0;
    }

    /// Waits until the next attempt, with a warning. Returns `false` if no retry is left, the error is permanent, or
    /// everything was cancelled.
    pub(super) async fn wait_for_retry(&mut self, error: &Error) -> bool {
        let Some(retry) = delay(self.options, error, self.failures) else { return false };
        self.failures += 1;
        self.options.progress.warn(&format!("{error}; {retry}"));
        let pause = async {
            sleep(retry.delay).await;
            Ok(())
        };
        unless_cancelled(&self.options.cancel, pause).await.is_ok() && !self.options.cancel.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(retry_after: &'static str, date: Option<&'static str>) -> u64 {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        date.map(|date| headers.insert(DATE, date.parse().unwrap()));
        super::retry_after(&headers).as_secs()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Some("Sun, 06 Nov 1994 08:49:00 GMT");
        assert_eq!(asked("120", None), 120);
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", now), 37);
        for (text, date) in [
            ("Sun, 06 Nov 1994 08:48:37 GMT", now), // over already
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("-1", now),
            ("soon", now),
            ("", now),
        ] {
            assert_eq!(asked(text, date), 0, "{text}");
        }
        assert_eq!(super::retry_after(&HeaderMap::new()), Duration::ZERO);
    }

    #[test]
    fn only_transient_statuses_are_retried() {
        for (status, passes) in [
            (408, true),
            (429, true),
            (499, true),
            (500, true),
            (502, true),
            (503, true),
            (504, true),
            (522, true),
            (200, false),
            (301, false),
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (413, false),
            (416, false),
            (501, false),
            (505, false),
        ] {
            assert_eq!(is_transient(StatusCode::from_u16(status).unwrap()), passes, "{status}");
        }
    }
}
