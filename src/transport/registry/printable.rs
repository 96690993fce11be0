//! Text from servers, made safe for a terminal.

use crate::error::is_harmful;

/// The number of characters of a server's text that are shown.
pub(super) const PRINTABLE_LIMIT: usize = 400;

/// Escapes characters that move the cursor or change colours or the direction of writing, and cuts text that is longer
/// than [`PRINTABLE_LIMIT`].
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::new();
    for (number, c) in text.chars().enumerate() {
        match c {
            _ if number == PRINTABLE_LIMIT => {
                printable.push('…');
                break;
            }
            c if is_harmful(c) => printable.extend(c.escape_default()),
            c => printable.push(c),
        }
    }
    printable
}
