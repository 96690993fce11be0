//! Colours, for people at a terminal. Each stream is decided on for itself.

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Color, Style};
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stderr, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

/// The style of errors, and of what is missing or removed.
pub const ERROR: Style = bold(AnsiColor::Red);
/// The style of warnings, and of what has changed.
pub const WARNING: Style = bold(AnsiColor::Yellow);
/// The style of what is in order, and of what was added.
pub const GOOD: Style = bold(AnsiColor::Green);
/// The style of advice.
pub const HINT: Style = bold(AnsiColor::Cyan);

const fn bold(color: AnsiColor) -> Style {
    Style::new().bold().fg_color(Some(Color::Ansi(color)))
}

/// The value of `--color`. The variants have no help texts, because those would double the length of every help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    #[default]
    Auto,
    Always,
    Never,
}

/// A stream of the program's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

static ON_STDOUT: AtomicBool = AtomicBool::new(false);
static ON_STDERR: AtomicBool = AtomicBool::new(false);

impl ColorChoice {
    /// Reads the choice from a command line that may have mistakes, because they are reported in colour too.
    pub fn from_command_line(arguments: &[OsString]) -> Option<Self> {
        let mut arguments =
            arguments.iter().map(OsString::as_os_str).take_while(|argument| *argument != "--");
        let mut choice = None;
        while let Some(argument) = arguments.next() {
            let value = match argument.to_str().and_then(|text| text.strip_prefix("--color")) {
                Some("") => arguments.next().and_then(OsStr::to_str),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            choice = value.and_then(|value| Self::from_str(value, false).ok()).or(choice);
        }
        choice
    }

    /// Sets the colours of all output that follows.
    pub fn apply(self, variable: impl Fn(&str) -> Option<OsString>) {
        ON_STDOUT.store(self.allows(stdout().is_terminal(), &variable), Ordering::Relaxed);
        ON_STDERR.store(self.allows(stderr().is_terminal(), &variable), Ordering::Relaxed);
    }

    /// Decides on the colours of a stream: <https://no-color.org>, and `CLICOLOR` and `CLICOLOR_FORCE` as in
    /// <https://bixense.com/clicolors>. An empty variable counts as unset.
    fn allows(self, is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if variable("NO_COLOR").is_some() => false,
            Self::Auto if variable("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
            Self::Auto if variable("CLICOLOR").is_some_and(|value| value == "0") => false,
            Self::Auto => is_terminal && variable("TERM").is_some_and(|terminal| terminal != "dumb"),
        }
    }
}

/// Returns whether a stream has colours.
pub fn is_on(stream: Stream) -> bool {
    match stream {
        Stream::Stdout => ON_STDOUT.load(Ordering::Relaxed),
        Stream::Stderr => ON_STDERR.load(Ordering::Relaxed),
    }
}

/// Returns text in a style, if the stream has colours. The text must be harmless, such as that of
/// [`printable`](crate::output::printable).
pub fn paint(stream: Stream, style: Style, text: &str) -> Cow<'_, str> {
    if is_on(stream) { format!("{style}{text}{style:#}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_unless_a_variable_says_otherwise() {
        let auto = |is_terminal, variables: &[(&str, &str)]| {
            let find = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            };
            ColorChoice::Auto.allows(is_terminal, find)
        };
        let term = ("TERM", "xterm-256color");
        assert!(auto(true, &[term]) && !auto(false, &[term]));
        assert!(!auto(true, &[]) && !auto(true, &[("TERM", "dumb")]));
        assert!(!auto(true, &[term, ("NO_COLOR", "1")]) && !auto(true, &[term, ("CLICOLOR", "0")]));
        assert!(auto(false, &[("CLICOLOR_FORCE", "1")]) && !auto(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!auto(true, &[term, ("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
        let without_colour = |name: &str| (name == "NO_COLOR").then(|| "1".into());
        assert!(ColorChoice::Always.allows(false, without_colour));
        assert!(!ColorChoice::Never.allows(true, |_| Some("1".into())));
    }

    #[test]
    fn the_choice_is_found_on_a_command_line_with_mistakes() {
        let find = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            ColorChoice::from_command_line(&arguments)
        };
        assert_eq!(find("volio --color never --no-such-flag"), Some(ColorChoice::Never));
        assert_eq!(find("volio ls --color=always"), Some(ColorChoice::Always));
        assert_eq!(find("volio ls --color=always --color never"), Some(ColorChoice::Never));
        for none in [
            "volio ls",
            "volio ls -- --color=always",
            "volio --color",
            "volio --colors=never",
            "volio --color=red",
        ] {
            assert_eq!(find(none), None, "{none}");
        }
    }
}
