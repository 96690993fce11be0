//! The log of verbs that run unattended. The library does not print: the program has the receiver.

/// The importance of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The ordinary course of the work.
    Info,
    /// A problem that does not stop the work.
    Warning,
    /// A failure.
    Error,
}

/// A line of the log.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Line<'a> {
    /// The importance.
    pub level: Level,
    /// The part of the service that says it, such as `hook` or `schedule`.
    pub topic: &'a str,
    /// The text, which may come from outside.
    pub text: &'a str,
}

/// A receiver of lines.
pub trait Log: Send + Sync {
    /// Called with each line.
    fn line(&self, line: Line<'_>);
}

/// Formats a number of things.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

impl dyn Log + '_ {
    /// Logs the ordinary course of the work.
    pub fn info(&self, topic: &str, text: &str) {
        self.line(Line { level: Level::Info, topic, text });
    }

    /// Logs a problem that does not stop the work.
    pub fn warning(&self, topic: &str, text: &str) {
        self.line(Line { level: Level::Warning, topic, text });
    }

    /// Logs a failure.
    pub fn error(&self, topic: &str, text: &str) {
        self.line(Line { level: Level::Error, topic, text });
    }
}
