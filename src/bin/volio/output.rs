//! What the user sees: results on stdout, everything else on stderr.

use crate::exit::Exit;
use clap::builder::styling::{AnsiColor, Style};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use std::borrow::Cow;
use std::error::Error as _;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use volio::error::is_harmful;
use volio::{Error, Result};

/// Writes results to stdout.
///
/// A reader that has seen enough (`volio ls … | head`) is no failure: the rest is dropped without a word.
pub fn results(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // The buffer would try once more when it is dropped, which is harmless.
            Ok(())
        }
        result => result.map_err(|error| Error::io("cannot write to standard output", error)),
    }
}

/// Writes one JSON document to stdout, and nothing else.
pub fn json(document: &impl Serialize) -> Result<()> {
    results(|out| {
        let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Harmless::default());
        document.serialize(&mut serializer)?;
        writeln!(out)
    })
}

/// JSON for people to look at, in which everything is escaped that a terminal could obey: JSON itself demands that only
/// of the first 32 characters.
#[derive(Default)]
struct Harmless(PrettyFormatter<'static>);

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some((at, harmful)) = rest.char_indices().find(|(_, c)| is_harmful(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            // All of them are below U+10000: one escape each.
            write!(writer, "\\u{:04x}", u32::from(harmful))?;
            rest = &rest[at + harmful.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// Says on stderr what went wrong, and what the user can do about it.
pub fn error(error: &Error) {
    report(&error.to_string(), error.hint());
}

/// Says on stderr what the user should know although the work goes on.
pub fn warning(message: &str) {
    line(&format!("{} {}", paint("warning:", AnsiColor::Yellow), printable(message)));
}

/// One more line on stderr. That nobody reads it is no reason to fail.
pub fn line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Answers a command line that clap did not take: help goes to stdout, a mistake to stderr.
pub fn not_understood(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Help for a reader that has gone away is help that nobody wants.
            let _ = error.print();
            Exit::Done.into()
        }
        _ => {
            match error.source().and_then(|source| source.downcast_ref::<Error>()) {
                // Our own types say better than clap what is wrong with a value, and what to write instead.
                Some(ours) => report(&format!("{}: {ours}", argument(error)), ours.hint()),
                None => drop(error.print()),
            }
            Exit::Usage.into()
        }
    }
}

/// The argument that a mistake is about, as help shows it.
fn argument(error: &clap::Error) -> String {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        _ => "arguments".to_owned(),
    }
}

fn report(what: &str, hint: Option<&str>) {
    line(&format!("{} {}", paint("error:", AnsiColor::Red), printable(what)));
    if let Some(hint) = hint {
        line(&format!("{} {}", paint("hint:", AnsiColor::Cyan), printable(hint)));
    }
}

/// A word in colour where colour is wanted: on a terminal that has not said otherwise (<https://no-color.org>).
fn paint(word: &str, color: AnsiColor) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    if plain || !io::stderr().is_terminal() {
        return word.to_owned();
    }
    let style = Style::new().bold().fg_color(Some(color.into()));
    format!("{style}{word}{style:#}")
}

/// Text that came from an image or a server, made harmless: a terminal could obey control characters, and marks
/// that turn the direction of writing could make a name look like another.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return text.into();
    }
    text.chars()
        .fold(String::with_capacity(text.len()), |mut clean, c| {
            match is_harmful(c) {
                true => clean.extend(c.escape_default()),
                false => clean.push(c),
            }
            clean
        })
        .into()
}

/// The same for bytes that need not be text.
pub fn printable_bytes(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::with_capacity(bytes.len()), |mut clean, chunk| {
        clean.push_str(&printable(chunk.valid()));
        clean.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        clean
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_can_move_the_cursor_or_turn_the_text() {
        assert_eq!(printable("plain, äöü"), "plain, äöü");
        assert_eq!(printable("a\x1b[2J\r\n\u{9b}b"), "a\\u{1b}[2J\\r\\n\\u{9b}b");
        assert_eq!(printable("exe\u{202e}gpj"), "exe\\u{202e}gpj");
        assert_eq!(printable_bytes(b"a\x1b\xff"), "a\\u{1b}\\xff");
        let mut json = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut json, Harmless::default());
        ["a\u{9b}b\x1b\u{202e}"].serialize(&mut serializer).unwrap();
        assert_eq!(json, b"[\n  \"a\\u009bb\\u001b\\u202e\"\n]");
    }
}
