//! What differs between two trees, each of them an image or a directory: by path and by attribute.

mod compare;
mod content;
#[cfg(test)]
mod tests;

pub use compare::{Attribute, Change, Difference};

use crate::error::{Error, Result};
use crate::image;
use crate::layer::{Budget, LayerReader, Limits, Meter, apply_layer, decompress};
use crate::oci::{Descriptor, Platform};
use crate::progress::Progress;
use crate::transport::{self, Source};
use crate::tree::{EntryKind, MergedTree, Overlay, RuleFiles, SourceSpec, Walk, WalkOptions};
use content::{Learned, digest};
use std::collections::BTreeSet;
use std::path::Path;

/// One of the two trees.
#[derive(Clone, Copy)]
pub enum Side<'a> {
    /// An image, as it is when all its layers are applied.
    Image(&'a dyn Source),
    /// A directory, as a pack would see it: without what its `.volioignore` leaves out.
    Directory(&'a Path),
}

/// What may be chosen when trees are compared.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The platform whose image is compared; otherwise the host's.
    pub platform: Option<Platform>,
    /// What is not compared.
    pub ignore: BTreeSet<Attribute>,
    /// What an image may make us remember, for each of the two.
    pub limits: Limits,
    /// The most plain content of an image that may be read, in bytes; otherwise in proportion to what is stored.
    pub content: Option<u64>,
}

/// Two trees, and what differs between them.
#[derive(Debug)]
pub struct Compared {
    left: MergedTree<Learned>,
    right: MergedTree<Learned>,
    ignore: BTreeSet<Attribute>,
}

impl Compared {
    /// What differs, in the order of paths, of one path in the order of [`Attribute`]; it is found anew each time.
    pub fn differences(&self) -> impl Iterator<Item = Difference> + '_ {
        compare::compare(&self.left, &self.right, &self.ignore)
    }

    /// At how many paths anything differs.
    pub fn paths(&self) -> u64 {
        let mut last = None;
        let is_new = |difference: &Difference| {
            last.replace(difference.path.clone()).as_ref() != Some(&difference.path)
        };
        self.differences().filter(is_new).count() as u64
    }

    /// How many paths there are on either side.
    pub fn entries(&self) -> u64 {
        compare::pairs(&self.left, &self.right).count() as u64
    }
}

/// Compares two trees. Contents are read once, and known by their digests; what is kept of an entry is its attributes.
///
/// # Errors
/// When one side cannot be read or an image is not what it says.
pub fn diff(left: Side<'_>, right: Side<'_>, options: &Options, progress: &dyn Progress) -> Result<Compared> {
    // Two images share what both may make us remember.
    let images = [left, right].iter().filter(|side| matches!(side, Side::Image(_))).count() as u64;
    let names = options.limits.max_names / images.max(1);
    let options = &Options { limits: Limits { max_names: names, ..options.limits }, ..options.clone() };
    let gather = |side| match side {
        Side::Image(source) => of_image(source, options, progress),
        Side::Directory(directory) => of_directory(directory, progress),
    };
    // Archives may have the names of a file in any order.
    let (left, right) = (gather(left)?.with_first_names(), gather(right)?.with_first_names());
    Ok(Compared { left, right, ignore: options.ignore.clone() })
}

fn of_image(source: &dyn Source, options: &Options, progress: &dyn Progress) -> Result<MergedTree<Learned>> {
    let root = source.resolve()?;
    let fetch = |descriptor: &Descriptor| transport::fetch(source, descriptor);
    let image = image::select(&root, options.platform.as_ref(), fetch)?;
    let mut overlay = Overlay::within(options.limits.max_names);
    let mut budget = Budget::new(options.limits);
    let meter = Meter::new(options.content);
    for layer in &image.manifest.layers {
        lay(source, layer, &mut overlay, (&mut budget, &meter), progress)?;
    }
    Ok(overlay.finish())
}

/// Lays one layer over those below it.
fn lay(
    source: &dyn Source,
    layer: &Descriptor,
    overlay: &mut Overlay<Learned>,
    (budget, meter): (&mut Budget, &Meter),
    progress: &dyn Progress,
) -> Result<()> {
    let task = progress.begin(&format!("reading {}", layer.digest.short()), Some(layer.size));
    let body = source.open(layer)?.verify(layer).on_read(move |bytes| task.advance(bytes));
    let mut body = body.on_read(meter.stored());
    let laid = (|| {
        let plain = decompress(&mut body).map_err(|error| Error::io("cannot read the layer", error))?;
        let mut reader = LayerReader::within(meter.bound(plain), std::mem::take(budget));
        apply_layer(overlay, &mut reader, |entry, content| Ok(Learned::Told(digest(entry, content)?)))?;
        *budget = reader.budget().clone();
        reader.drain()
    })();
    // A blob with the wrong digest is that before it is a malformed archive.
    body.drain()?;
    laid
}

fn of_directory(directory: &Path, progress: &dyn Progress) -> Result<MergedTree<Learned>> {
    if !directory.is_dir() {
        return Err(Error::not_found(format!("there is no directory {}", directory.display())));
    }
    let task = progress.begin(&format!("reading {}", directory.display()), None);
    // It is the user's own: whatever is in it may take the memory that it needs.
    let mut tree = Overlay::within(u64::MAX);
    let options = WalkOptions { rule_files: RuleFiles::Apply, ..WalkOptions::default() };
    for found in Walk::new(&[SourceSpec::new(directory)], &options)? {
        let found = found?;
        let digest = match found.file {
            Some(mut content) => digest(&found.entry, &mut content)?,
            None => None,
        };
        if let EntryKind::File { size } = found.entry.kind {
            task.advance(size);
        }
        tree.put(&found.entry, Learned::Told(digest))?;
    }
    Ok(tree.finish())
}
