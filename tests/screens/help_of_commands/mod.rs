//! The long help of the commands with many options.
//!
//! Sections that several commands share stand once, in the help of `volio cat`; the others have a reference to it.

mod cat;
mod copy;
mod diff;
mod doctor;
mod ls;
mod pack;
mod unpack;

use super::Workspace;

/// Returns the screen of `volio COMMAND --help`, without the text of the sections that `volio cat` has too.
fn own_help(command: &str) -> String {
    let place = Workspace::new();
    let shared = sections(&place.screen("cat --help"));
    let with_reference = |section: String| match section.split_once('\n') {
        Some((title, text)) if text.starts_with("      --") && shared.contains(&section) => {
            format!("{title}\n  [as in volio cat]\n\n")
        }
        _ => section,
    };
    sections(&place.screen(&format!("{command} --help"))).into_iter().map(with_reference).collect()
}

/// Splits a help text into sections. A section begins with a line that is not indented and ends with a colon.
fn sections(help: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    for line in help.split_inclusive('\n') {
        if !line.starts_with(' ') && line.ends_with(":\n") {
            sections.push(String::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push_str(line);
        }
    }
    sections
}
