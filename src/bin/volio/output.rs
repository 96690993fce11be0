//! Output: results on stdout, everything else on stderr.

use crate::color::{self, Stream, paint};
use crate::exit::Exit;
use clap::ValueEnum;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Serialize;
use std::borrow::Cow;
use std::error::Error as _;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use volio::error::is_harmful;
use volio::service::Level;
use volio::{Error, Result};

/// Writes results to stdout.
///
/// A closed pipe (`volio ls … | head`) is not an error; the rest is dropped without a message.
pub fn results(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // The buffer tries once more when it is dropped, which is harmless.
            Ok(())
        }
        result => result.map_err(|error| Error::io("cannot write to standard output", error)),
    }
}

/// Writes one JSON document to stdout, in pieces: a listing may be larger than memory.
pub fn json(document: &impl Serialize) -> Result<()> {
    results(|out| {
        serde_json::to_writer_pretty(JsonEscaper(&mut *out), document)?;
        writeln!(out)
    })
}

/// A writer for JSON that escapes the characters that a terminal could obey. JSON itself requires that only of the first
/// 32 characters, and all others stand in strings.
struct JsonEscaper<W>(W);

impl<W: Write> Write for JsonEscaper<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // serde_json writes strings and never parts of characters.
        let text = String::from_utf8_lossy(bytes);
        for piece in text.split_inclusive(|c| c >= '\x7f' && is_harmful(c)) {
            match piece.char_indices().next_back() {
                // All of them are below U+10000, so that one escape is enough.
                Some((at, c)) if c >= '\x7f' && is_harmful(c) => {
                    write!(self.0, "{}\\u{:04x}", &piece[..at], u32::from(c))?;
                }
                _ => self.0.write_all(piece.as_bytes())?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The form of the lines on stderr. The variants have no help texts, because those would double the length of every
/// help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

static JSON_LINES: AtomicBool = AtomicBool::new(false);

/// Sets the form of all lines on stderr that follow.
pub fn set_format(format: LogFormat) {
    JSON_LINES.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// A line of a log in JSON.
#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// Prints a message on stderr, in the form of [`set_format`]. Errors are ignored, because there is no other place to report
/// them.
pub fn log(level: Level, topic: Option<&str>, message: &str, hint: Option<&str>) {
    if !JSON_LINES.load(Ordering::Relaxed) {
        let message = printable(message);
        match level {
            Level::Info => write_line(&message),
            Level::Warning => {
                write_line(&format!("{} {message}", paint(Stream::Stderr, color::WARNING, "warning:")));
            }
            Level::Error => print_error(message.as_ref(), hint),
        }
        return;
    }
    let level = match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    event(&JsonLine { time: now(), level, topic, message, hint });
}

/// Returns the time as lines in JSON have it.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Prints a line in JSON on stderr.
pub fn event(line: &impl Serialize) {
    let mut text = Vec::new();
    // Strings and numbers can always be serialized, and a vector takes all bytes.
    let _ = serde_json::to_writer(JsonEscaper(&mut text), line);
    write_line(&String::from_utf8_lossy(&text));
}

/// Prints an error and its hint on stderr.
pub fn error(error: &Error) {
    log(Level::Error, None, &error.to_string(), error.hint());
}

/// Prints a warning on stderr.
pub fn warning(message: &str) {
    log(Level::Warning, None, message, None);
}

/// Prints a line on stderr, whose text is harmless.
pub fn line(text: &str) {
    if JSON_LINES.load(Ordering::Relaxed) {
        log(Level::Info, None, text, None);
    } else {
        write_line(text);
    }
}

fn write_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints clap's answer to a command line that it did not accept: help on stdout, an error on stderr.
pub fn usage_error(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A stdout that is closed or full is ignored.
            let _ = results(|out| out.write_all(rendered(error, Stream::Stdout, arguments).as_bytes()));
            Exit::Done.into()
        }
        _ => {
            match error.source().and_then(|source| source.downcast_ref::<Error>()) {
                // The errors of volio's own argument types have a hint, which clap would leave out.
                Some(ours) => print_error(&format!("{}: {ours}", argument(error)), ours.hint()),
                None => write_line(rendered(error, Stream::Stderr, arguments).trim_end_matches('\n')),
            }
            Exit::Usage.into()
        }
    }
}

/// Returns clap's text for a stream. It quotes the arguments: if they could harm a terminal, it has no colours, and
/// all of it is escaped.
fn rendered(error: &clap::Error, stream: Stream, arguments: &[OsString]) -> String {
    let text = error.render();
    let is_harmless = arguments.iter().all(|argument| !argument.to_string_lossy().contains(is_harmful));
    if color::is_on(stream) && is_harmless {
        return text.ansi().to_string();
    }
    let text = text.to_string();
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(printable).collect();
    lines.join("\n")
}

/// Returns the argument that an error is about, as the help shows it.
fn argument(error: &clap::Error) -> String {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        _ => "arguments".to_owned(),
    }
}

fn print_error(message: &str, hint: Option<&str>) {
    let title = paint(Stream::Stderr, color::ERROR, "error:");
    write_line(&format!("{title} {}", printable(message)));
    if let Some(hint) = hint {
        let title = paint(Stream::Stderr, color::HINT, "hint:");
        write_line(&format!("{title} {}", printable(hint)));
    }
}

/// Escapes characters that could harm a terminal. Text from an image or a server may contain control characters, which
/// a terminal obeys, and marks that turn the direction of writing, which make one name look like another.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return text.into();
    }
    text.chars()
        .fold(String::with_capacity(text.len()), |mut clean, c| {
            if is_harmful(c) {
                clean.extend(c.escape_default());
            } else {
                clean.push(c);
            }
            clean
        })
        .into()
}

/// Does the same for bytes; those that are not UTF-8 become `\xNN`.
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
    fn printed_text_cannot_move_the_cursor_or_turn_the_direction_of_writing() {
        assert_eq!(printable("plain, äöü"), "plain, äöü");
        assert_eq!(printable("a\x1b[2J\r\n\u{9b}b"), "a\\u{1b}[2J\\r\\n\\u{9b}b");
        assert_eq!(printable("exe\u{202e}gpj"), "exe\\u{202e}gpj");
        assert_eq!(printable_bytes(b"a\x1b\xff"), "a\\u{1b}\\xff");
        let mut json = Vec::new();
        serde_json::to_writer_pretty(JsonEscaper(&mut json), &["a\u{9b}b\x1b\u{202e}"]).unwrap();
        assert_eq!(json, b"[\n  \"a\\u009bb\\u001b\\u202e\"\n]");
    }
}
