//! Questions to whoever sits at the terminal.

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::io::{self, Read, Write};
use volio::transport::Secret;
use volio::{Error, Result};

/// What Ctrl-C is as a character.
const INTERRUPT: u8 = 3;

/// Asks for a line.
pub fn ask(question: &str) -> Result<String> {
    let mut stderr = io::stderr().lock();
    // Who does not see the question will not answer it, and that is an error below.
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
pub fn ask_secretly(question: &str) -> Result<Secret> {
    let dark = Dark::begin()?;
    let line = ask(question);
    drop(dark);
    // The end of the line was not shown either.
    let _ = writeln!(io::stderr().lock());
    let line = line?;
    if line.contains(char::from(INTERRUPT)) {
        // As it would have been had Ctrl-C not been a character for a while.
        let _ = kill_process(getpid(), Signal::INT);
        return Err(Error::failed("interrupted"));
    }
    Ok(Secret::new(line))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Dark(Termios);

impl Dark {
    fn begin() -> Result<Self> {
        let cannot = |error| Error::io("cannot hide what is typed on the terminal", io::Error::from(error));
        let before = tcgetattr(io::stdin()).map_err(cannot)?;
        let mut dark = before.clone();
        dark.local_modes.remove(LocalModes::ECHO);
        // Who interrupts now must not be left with a terminal that shows nothing: Ctrl-C ends the line instead.
        dark.local_modes.remove(LocalModes::ISIG);
        dark.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(io::stdin(), OptionalActions::Flush, &dark).map_err(cannot)?;
        Ok(Self(before))
    }
}

impl Drop for Dark {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
