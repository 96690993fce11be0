//! Prompts on the terminal.

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::io::{self, Read, Write};
use volio::{Error, Result, Secret};

/// The character of Ctrl-C.
const INTERRUPT: u8 = 3;

/// Asks for a line.
pub fn prompt(question: &str) -> Result<String> {
    let mut stderr = io::stderr().lock();
    // If the question cannot be written there is no answer, which is an error below.
    let _ = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    let mut line = Vec::new();
    for byte in io::stdin().lock().bytes() {
        let byte = byte.map_err(|error| Error::io("cannot read from the terminal", error))?;
        line.push(byte);
        if byte == b'\n' || byte == INTERRUPT {
            break;
        }
    }
    let line = String::from_utf8(line).map_err(|_| Error::usage("what was typed is not text"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks for a line that is not shown while it is typed.
pub fn prompt_secret(question: &str) -> Result<Secret> {
    let echo = EchoOff::new()?;
    let line = prompt(question);
    drop(echo);
    // The end of the line was not echoed either.
    let _ = writeln!(io::stderr().lock());
    let line = line?;
    if line.contains(char::from(INTERRUPT)) {
        // Ctrl-C was only a character while the echo was off.
        let _ = kill_process(getpid(), Signal::INT);
        return Err(Error::failed("interrupted"));
    }
    Ok(Secret::new(line))
}

/// A terminal without echo, until this is dropped.
struct EchoOff(Termios);

impl EchoOff {
    fn new() -> Result<Self> {
        let cannot = |error| Error::io("cannot hide what is typed on the terminal", io::Error::from(error));
        let before = tcgetattr(io::stdin()).map_err(cannot)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // Ctrl-C ends the line and does not end the program, which would leave a terminal without echo.
        hidden.local_modes.remove(LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).map_err(cannot)?;
        Ok(Self(before))
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
