//! The signatures of an image, and what else is attached to it, as text.

use super::card::{limited, line};
use std::collections::BTreeMap;
use std::io::{self, Write};
use volio::inspect::{Attached, AttachedKind, Inspected};
use volio::{Digest, Result};

/// The type of signatures of notation, which volio does not read.
const NOTATION: &str = "application/vnd.cncf.notary.signature";
/// The number of lines for signatures, and of lines for anything else.
const LINES: usize = 16;

/// Writes the signatures, and then everything else that is attached.
pub fn write(out: &mut dyn Write, inspected: &Inspected, attached: &Result<Vec<Attached>>) -> io::Result<()> {
    let attached = match attached {
        Ok(attached) => attached,
        Err(error) => return line(out, "signatures", &format!("they cannot be read: {error}")),
    };
    let (signatures, others): (Vec<_>, Vec<_>) = attached.iter().partition(|attached| is_signature(attached));
    if signatures.is_empty() {
        line(out, "signatures", "none")?;
    } else {
        block(out, "signatures", inspected, &signatures)?;
        line(out, "", "not verified here: volio verify --key does that")?;
    }
    block(out, "attached", inspected, &others)
}

fn is_signature(attached: &Attached) -> bool {
    match &attached.kind {
        AttachedKind::Simple | AttachedKind::Bundle { .. } => true,
        AttachedKind::Referrer(kind) => kind == NOTATION,
        _ => false,
    }
}

/// Writes a line for each thing that is attached. What is the same for several manifests has one line.
fn block(out: &mut dyn Write, name: &str, inspected: &Inspected, attached: &[&Attached]) -> io::Result<()> {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for attached in attached {
        let text = describe(attached);
        let number = *known.entry(text.clone()).or_insert(lines.len());
        if number == lines.len() {
            lines.push((text, Vec::new()));
        }
        let subject = name_of(inspected, &attached.subject);
        if !lines[number].1.contains(&subject) {
            lines[number].1.push(subject);
        }
    }
    for (number, (text, subjects)) in lines.iter().take(LINES).enumerate() {
        let title = if number == 0 { name } else { "" };
        match (inspected.images.len(), subjects.as_slice()) {
            (0 | 1, _) => line(out, title, text)?,
            (_, subjects) => line(out, title, &format!("{text}: {}", subjects.join(", ")))?,
        }
    }
    match lines.len().saturating_sub(LINES) {
        0 => Ok(()),
        more => line(out, "", &format!("and {more} more")),
    }
}

fn describe(attached: &Attached) -> String {
    let mut text = match &attached.kind {
        AttachedKind::Simple => "signature in the .sig tag".to_owned(),
        AttachedKind::Bundle { has_certificate: true } => "sigstore bundle with a certificate".to_owned(),
        AttachedKind::Bundle { .. } => "sigstore bundle".to_owned(),
        AttachedKind::Statement(kind) => format!("sigstore bundle with a statement, {}", limited(kind)),
        AttachedKind::Referrer(kind) if kind == NOTATION => "signature of notation".to_owned(),
        AttachedKind::Referrer(kind) => format!("referrer of type {}", limited(kind)),
        _ => "something".to_owned(),
    };
    if let Some(identity) = &attached.identity {
        text.push_str(&format!(" for the name {}", limited(identity)));
    }
    if let Some(hint) = &attached.key_hint {
        text.push_str(&format!(" with the key hint {}", limited(hint)));
    }
    if let Some(fault) = &attached.fault {
        text.push_str(&format!(" that cannot be read ({})", limited(fault)));
    }
    text
}

/// Returns the name of a manifest or an index for people.
fn name_of(inspected: &Inspected, subject: &Digest) -> String {
    let image = inspected.images.iter().find(|image| image.digest == *subject);
    image.map_or_else(|| "index".to_owned(), |image| image.platform.to_string())
}
