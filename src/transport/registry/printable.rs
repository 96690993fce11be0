//! The words of servers, as they may reach a terminal.

use crate::error::is_harmful;

/// How much of a server's words reaches the user, in characters.
pub(super) const WORDS_LIMIT: usize = 400;

/// A server's words as a terminal may show them: nothing that moves the cursor, changes colours or the
/// direction of writing, and not too many.
pub(super) fn printable(words: &str) -> String {
    let mut printable = String::new();
    for (number, c) in words.chars().enumerate() {
        match c {
            _ if number == WORDS_LIMIT => {
                printable.push('…');
                break;
            }
            c if is_harmful(c) => printable.extend(c.escape_default()),
            c => printable.push(c),
        }
    }
    printable
}
