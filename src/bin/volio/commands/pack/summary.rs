//! The lines on stderr after a pack.

use crate::human::{bytes, count, counts, duration, rate};
use crate::output::printable;
use crate::signature_args;
use std::time::Duration;
use volio::pack::{Base, BaseRole, ImageForm, Incremental, Packed};
use volio::service::{Change, Done, TreeSize};

/// Formats the result: a line about the work, one about the base if there was a comparison, and one about the signatures if it was signed.
pub fn summary(packed: &Packed, base: Option<&Base>, time: Duration) -> Vec<String> {
    let compared = packed.incremental.as_ref().zip(base);
    let reason = compared.map(|(report, base)| printable(&reason(report, base)).into_owned());
    let signed = packed.signed.as_ref().map(signature_args::summary);
    work(packed, time).into_iter().chain(reason).chain(signed).collect()
}

/// Formats the result of the work in one line: what was packed, into what, how fast, and what was left out. `None` if nothing was packed.
fn work(packed: &Packed, time: Duration) -> Option<String> {
    let incremental = packed.incremental.as_ref();
    let what = match incremental.map(|report| (&report.form, report.added + report.changed)) {
        Some((ImageForm::Unchanged, _)) => return None,
        Some((ImageForm::Delta, number)) => {
            format!("{number} of {}", count(packed.entries, "entry", "entries"))
        }
        _ => format!("{}, {}", count(packed.entries, "entry", "entries"), bytes(packed.bytes)),
    };
    let size = packed.layers.iter().map(|layer| layer.size).sum();
    let layers = count(packed.layers.len() as u64, "layer", "layers");
    let mut line = format!("packed {what} into {layers} of {} in {}", bytes(size), duration(time));
    line.extend(rate(packed.bytes, time).filter(|_| incremental.is_none()).map(|rate| format!(", {rate}")));
    if packed.layers_found > 0 {
        line += &format!("; {} sent before", count(packed.layers_found, "layer was", "layers were"));
    }
    if packed.excluded > 0 {
        line += &format!("; {} excluded", packed.excluded);
    }
    let skipped = counts([
        (packed.sockets_skipped, "socket", "sockets"),
        (packed.attributes_skipped.values().sum(), "attribute of this host", "attributes of this host"),
        (packed.bookkeeping_skipped, "record or lost+found", "records and lost+found"),
        (packed.mounts_skipped, "mount point", "mount points"),
        (packed.unreadable_skipped, "unreadable", "unreadable"),
        (packed.changed_skipped, "changed", "changed"),
    ]);
    line.extend(skipped.map(|skipped| format!("; {skipped} skipped")));
    Some(line)
}

/// Formats the comparison in one line: the base, or the reason why there is none, and what was saved.
fn reason(report: &Incremental, base: &Base) -> String {
    let address = report.base.as_deref().unwrap_or_default();
    match &report.form {
        ImageForm::Unchanged => format!("nothing changed since {address}: no new image"),
        ImageForm::Full(reason) => match base.role() {
            BaseRole::Current if report.base.is_none() => format!("no base: {reason}: packed in full"),
            _ => format!("packed in full: {reason}"),
        },
        ImageForm::Delta => format!(
            "base: {address} (the image that {} names); {} added, {} changed, {} removed; read {}, sent {} (a full pack \
             would have sent about {})",
            base.location(),
            report.added,
            report.changed,
            report.removed,
            bytes(report.bytes_read),
            bytes(report.bytes_sent),
            bytes(report.full_bytes),
        ),
    }
}

/// Returns what the log and the hooks of an unattended pack say about the result.
pub fn done(packed: &Packed) -> Done {
    Done {
        digest: packed.digest.clone(),
        bytes: match &packed.incremental {
            Some(report) => report.bytes_sent,
            None => packed.bytes_of_new_layers(),
        },
        change: if is_unchanged(packed) { Change::Unchanged } else { Change::Changed },
        // With a base, that is what the next tree is compared with.
        size: packed.incremental.is_none().then_some(TreeSize { files: packed.files, bytes: packed.bytes }),
    }
}

/// Returns whether the image is the base itself.
pub fn is_unchanged(packed: &Packed) -> bool {
    packed.incremental.as_ref().is_some_and(|report| report.form == ImageForm::Unchanged)
}
