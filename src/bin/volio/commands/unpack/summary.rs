//! The line with the result of an unpack.

use crate::human::{bytes, count, counts, duration, rate};
use std::path::Path;
use std::time::Duration;
use volio::unpack::{FetchedPart, Outcome, Synced, Unpacked};
use volio::{Error, Extracted, Result};

/// Fails if a sync could not remove everything that the image does not have.
pub(super) fn ensure_all_removed(synced: &Synced, target: &Path) -> Result<()> {
    let Some(first) = synced.kept_mounts.first() else { return Ok(()) };
    let more = match synced.kept_mounts.len() - 1 {
        0 => String::new(),
        more => format!(", and {} more", count(more as u64, "mount point", "mount points")),
    };
    let (stays, hint) = if synced.is_dry {
        ("it would stay", "unmount it; everything else would be done, with this exit code")
    } else {
        ("it stays", "unmount it and run the command again; everything else is done")
    };
    Err(Error::refused(format!(
        "something is mounted on {}{more}, which the image does not have: {stays}",
        target.join(first.as_path()).display()
    ))
    .with_hint(hint))
}

/// Formats the result in one line: what was unpacked, how fast, and what could not be restored.
pub(super) fn summary(unpacked: &Unpacked, target: &Path, time: Duration) -> String {
    let target = target.display();
    match unpacked.outcome {
        _ if unpacked.sync.is_some() => {}
        Outcome::Present => return format!("nothing to do: {target} holds this image"),
        Outcome::Kept => return format!("nothing to do: {target} keeps the image that it holds"),
        Outcome::Unpacked => {}
    }
    let Extracted {
        entries,
        bytes: size,
        ownership_not_restored,
        attributes_not_restored,
        xattrs_not_restored,
        devices_skipped,
        symlinks_skipped,
        fifos_skipped,
        hardlinks_copied,
    } = unpacked.extracted;
    let mut line = match &unpacked.sync {
        Some(synced) => sync_summary(synced),
        None => format!(
            "unpacked {}, {} from {}{} in {}",
            count(entries, "entry", "entries"),
            bytes(size),
            count(unpacked.layers as u64, "layer", "layers"),
            if unpacked.data_io { " that data-io made" } else { "" },
            duration(time),
        ),
    };
    if unpacked.sync.is_none() {
        line.extend(rate(size, time).map(|rate| format!(", {rate}")));
    }
    if unpacked.fetched.is_partial && unpacked.sync.is_none() {
        let FetchedPart { bytes: part, of, .. } = unpacked.fetched;
        line += &format!("; fetched {} of {}: later layers replace the rest", bytes(part), bytes(of));
    }
    let lost = counts([
        (ownership_not_restored, "owner", "owners"),
        (attributes_not_restored, "mode or mtime", "modes or mtimes"),
        (xattrs_not_restored, "extended attribute", "extended attributes"),
        (devices_skipped, "device", "devices"),
        (symlinks_skipped, "symbolic link", "symbolic links"),
        (fifos_skipped, "fifo", "fifos"),
    ]);
    line.extend(lost.map(|lost| format!("; not restored: {lost}")));
    if hardlinks_copied > 0 {
        line += &format!("; copied: {}", count(hardlinks_copied, "hard link", "hard links"));
    }
    if unpacked.removed > 0 {
        let removed = count(unpacked.removed, "entry", "entries");
        line += &format!("; removed: {removed} of an image that was interrupted");
    }
    line
}

/// Formats what a sync has done, or would do.
fn sync_summary(synced: &Synced) -> String {
    let Synced { is_dry, fetched, requests, reused, written, attributes, removed, unchanged, .. } = synced;
    format!(
        "{}fetched {} in {}; reused {} of local files; wrote {}, changed attributes of {attributes}, removed {removed}; \
         {} unchanged",
        if *is_dry { "dry run: " } else { "" },
        bytes(*fetched),
        count(*requests, "range", "ranges"),
        bytes(*reused),
        count(*written, "entry", "entries"),
        count(*unchanged, "entry", "entries"),
    )
}
