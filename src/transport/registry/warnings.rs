//! Warnings of a registry to its users: the `Warning` header (distribution-spec, "Warnings").

use super::printable::printable;
use reqwest::header::{HeaderMap, WARNING};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The maximum number of warnings of one registry that are shown.
const LIMIT: usize = 16;

/// The warnings that a registry has sent.
#[derive(Default)]
pub(super) struct Warnings(Mutex<HashSet<String>>);

impl Warnings {
    /// Returns the warnings in the headers of a response that were not returned before.
    pub(super) fn take_new(&self, headers: &HeaderMap) -> Vec<String> {
        let lines = headers.get_all(WARNING).iter().filter_map(|line| parse(line.to_str().ok()?));
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return Vec::new();
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.filter(|text| known.len() < LIMIT && known.insert(text.clone())).collect()
    }
}

/// Parses a header of the form `299 - "TEXT"`. The specification forbids clients to show others.
fn parse(header: &str) -> Option<String> {
    let mut chars = header.trim().strip_prefix("299 - \"")?.chars();
    let mut text = String::new();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    (chars.as_str().is_empty() && !text.is_empty()).then(|| printable(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_warnings_of_the_specified_form_are_shown() {
        for (header, text) in [
            (r#"299 - "This image is deprecated""#, Some("This image is deprecated")),
            (r#" 299 - "a \"quoted\" \\ word" "#, Some(r#"a "quoted" \ word"#)),
            (r#"299 - "a" "Sat, 25 Aug 2012 23:34:45 GMT""#, None),
            (r#"299 proxy "a""#, None),
            (r#"110 - "Response is stale""#, None),
            (r#"299 - "unended"#, None),
            (r#"299 - "unended\"#, None),
            (r#"299 - """#, None),
            ("", None),
        ] {
            assert_eq!(parse(header).as_deref(), text, "{header}");
        }
    }

    #[test]
    fn a_warning_is_returned_once_and_their_number_is_limited() {
        let warnings = Warnings::default();
        let of = |text: &str| HeaderMap::from_iter([(WARNING, format!("299 - \"{text}\"").parse().unwrap())]);
        assert_eq!(warnings.take_new(&of("a")), ["a"]);
        assert!(warnings.take_new(&of("a")).is_empty() && warnings.take_new(&HeaderMap::new()).is_empty());
        let shown = (0..100).flat_map(|number| warnings.take_new(&of(&number.to_string())));
        assert_eq!(shown.count(), LIMIT - 1);
    }
}
