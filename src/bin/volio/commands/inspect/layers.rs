//! The layers of an image and their history as tables.

use super::card::{limited, line};
use crate::human::bytes;
use crate::output::printable;
use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;
use volio::inspect::{ImageSummary, LayerContents, LayerSummary};
use volio::{Digest, Platform};

/// The command in the history of layers that volio has made.
const VOLIO: &str = "volio pack";
/// The number of characters of a command that are shown.
const COMMAND: usize = 60;

/// The layers that were written, with the first platform that has each.
pub type ShownLayers<'i> = HashMap<&'i Digest, &'i Platform>;

/// Writes the layers of an image and their history. Layers that an earlier image has too are marked; if all of them are
/// those of one image, they are not listed again.
pub fn write<'i>(
    out: &mut dyn Write,
    image: &'i ImageSummary,
    contents: &HashMap<Digest, LayerContents>,
    shown: &mut ShownLayers<'i>,
) -> io::Result<()> {
    let earlier = |layer: &LayerSummary| shown.get(&layer.digest).copied();
    let same = image.layers.first().and_then(earlier);
    if let Some(platform) = same.filter(|one| image.layers.iter().all(|layer| earlier(layer) == Some(*one))) {
        return line(out, "  layers", &format!("the same as those of {platform}"));
    }
    if image.layers.is_empty() {
        return line(out, "  layers", "none");
    }
    let steps = steps(&image.layers);
    let is_counted = image.layers.iter().any(|layer| contents.contains_key(&layer.digest));
    let mut rows = vec![["layer", "digest", "stored", "content", "entries", "type", ""].map(str::to_owned)];
    for (number, layer) in image.layers.iter().enumerate() {
        let contents = contents.get(&layer.digest);
        let mut notes = Vec::new();
        if layer.is_indexed {
            notes.push("indexed".to_owned());
        }
        notes.extend(origin(image, &steps, number, contents).map(str::to_owned));
        notes.extend(earlier(layer).map(|platform| format!("shared with {platform}")));
        rows.push([
            (number + 1).to_string(),
            format!("{}:{}", layer.digest.algorithm().name(), layer.digest.short()),
            bytes(layer.size),
            contents.map_or_else(|| "-".to_owned(), |contents| bytes(contents.size)),
            contents.map_or_else(|| "-".to_owned(), changes),
            short_type(&layer.media_type),
            notes.join(", "),
        ]);
    }
    if !is_counted {
        for row in &mut rows {
            row[3].clear();
            row[4].clear();
        }
    }
    table(out, &rows, [true, false, true, true, true, false, false])?;
    image.layers.iter().for_each(|layer| _ = shown.entry(&layer.digest).or_insert(&image.platform));
    history(out, &image.layers, &steps)
}

/// Formats the changes of a layer: the entries that it adds or replaces, and those that it removes.
fn changes(contents: &LayerContents) -> String {
    match contents.whiteouts {
        0 => format!("+{}", contents.entries),
        removed => format!("+{} -{removed}", contents.entries),
    }
}

/// Returns the runs of layers that one step of the history has made: a pack may make several.
fn steps(layers: &[LayerSummary]) -> Vec<Range<usize>> {
    let mut end = 0;
    layers
        .chunk_by(|one, next| (&one.created, &one.created_by) == (&next.created, &next.created_by))
        .map(|run| {
            let begin = end;
            end += run.len();
            begin..end
        })
        .collect()
}

/// Returns the relation of a layer to the base of the image, as far as the documents and the contents say it. Packs with
/// the same time cannot be distinguished: then only the last layer is known to be a delta.
fn origin(
    image: &ImageSummary,
    steps: &[Range<usize>],
    number: usize,
    contents: Option<&LayerContents>,
) -> Option<&'static str> {
    let layer = &image.layers[number];
    let last = steps.last()?;
    let is_volio = |layer: &LayerSummary| layer.created_by.as_deref() == Some(VOLIO);
    let has_base = image.base.is_some() && image.layers.last().is_some_and(is_volio);
    let (is_lowest, is_separate) = (number == 0, last.start > 0);
    let is_of_last_pack = if is_separate { last.contains(&number) } else { number + 1 == image.layers.len() };
    if has_base && is_of_last_pack && !is_lowest {
        return Some("delta over the base");
    }
    let removes = contents.is_some_and(|contents| contents.whiteouts > 0);
    let is_later = steps.first().is_some_and(|first| !first.contains(&number));
    let is_delta = is_volio(layer) && !is_lowest && (removes || is_later);
    match (has_base && is_separate, is_delta) {
        (true, true) => Some("delta, of the base"),
        (true, false) => Some("of the base"),
        (false, true) => Some("delta"),
        (false, false) => None,
    }
}

/// Returns a short name for the media types of the specification and of Docker, and any other in full.
fn short_type(media_type: &str) -> String {
    let families = [
        ("application/vnd.oci.image.layer.v1.", ""),
        ("application/vnd.oci.image.layer.nondistributable.v1.", "nondistributable "),
        ("application/vnd.docker.image.rootfs.diff.", "docker "),
        ("application/vnd.docker.image.rootfs.foreign.diff.", "docker foreign "),
    ];
    let short = families
        .iter()
        .find_map(|(family, name)| Some(format!("{name}{}", media_type.strip_prefix(family)?)));
    short.unwrap_or_else(|| limited(media_type))
}

/// Writes the steps of the history that have made layers, unless there is only one pack.
fn history(out: &mut dyn Write, layers: &[LayerSummary], steps: &[Range<usize>]) -> io::Result<()> {
    let is_plain = |step: &Range<usize>| layers[step.start].created_by.as_deref() == Some(VOLIO);
    let is_unknown = layers.iter().all(|layer| layer.created.is_none() && layer.created_by.is_none());
    if is_unknown || matches!(steps, [only] if is_plain(only)) {
        return Ok(());
    }
    let mut rows = vec![["layers", "created", "by"].map(str::to_owned)];
    for step in steps {
        let LayerSummary { created, created_by, .. } = &layers[step.start];
        let numbers = match step.len() {
            1 => step.end.to_string(),
            _ => format!("{}-{}", step.start + 1, step.end),
        };
        let mut command: String = created_by.as_deref().unwrap_or("-").chars().take(COMMAND).collect();
        if command.len() < created_by.as_ref().map_or(0, String::len) {
            command.push('…');
        }
        rows.push([numbers, limited(created.as_deref().unwrap_or("-")), command]);
    }
    writeln!(out)?;
    table(out, &rows, [false, false, false])
}

/// Writes rows with aligned columns: those of numbers to the right. Columns in which all cells are empty are left out.
fn table<const N: usize>(out: &mut dyn Write, rows: &[[String; N]], right: [bool; N]) -> io::Result<()> {
    let cells: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable(cell).into_owned())).collect();
    let mut widths = [0; N];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &cells {
        let mut text = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(right).filter(|((_, width), _)| *width > 0) {
            text.push_str(&if right { format!("  {cell:>width$}") } else { format!("  {cell:width$}") });
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}
