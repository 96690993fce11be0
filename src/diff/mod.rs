//! What differs between two trees, each of them an image or a directory: by path and by attribute.

mod compare;
mod nodes;
#[cfg(test)]
mod tests;

pub use compare::{Attribute, Change, Difference};

use crate::error::{Error, Result};
use crate::image;
use crate::layer::{Budget, LayerReader, Limits, decompress, lay_over};
use crate::oci::{Descriptor, Platform};
use crate::progress::Progress;
use crate::transport::{self, Source};
use crate::tree::{Kind, Overlay, RuleFiles, SourceSpec, Walk, WalkOptions};
use nodes::{Hasher, Learned, Node, Nodes};
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
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Compared {
    /// How many paths there are on either side.
    pub entries: u64,
    /// What differs, in the order of paths, of one path in the order of [`Attribute`].
    pub differences: Vec<Difference>,
}

/// Compares two trees. Contents are read once, and known by their digests; what is kept of an entry is its attributes.
///
/// # Errors
/// When one side cannot be read or an image is not what it says.
pub fn diff(left: Side<'_>, right: Side<'_>, options: &Options, progress: &dyn Progress) -> Result<Compared> {
    let left = gather(left, options, progress)?;
    let right = gather(right, options, progress)?;
    let entries = left.paths().chain(right.paths()).collect::<BTreeSet<_>>().len() as u64;
    Ok(Compared { entries, differences: compare::compare(&left, &right, &options.ignore) })
}

fn gather(side: Side<'_>, options: &Options, progress: &dyn Progress) -> Result<Nodes> {
    match side {
        Side::Image(source) => of_image(source, options, progress),
        Side::Directory(directory) => of_directory(directory, progress),
    }
}

fn of_image(source: &dyn Source, options: &Options, progress: &dyn Progress) -> Result<Nodes> {
    let root = source.resolve()?;
    let fetch = |descriptor: &Descriptor| transport::fetch(source, descriptor);
    let image = image::select(&root, options.platform.as_ref(), fetch)?;
    let mut overlay = Overlay::new();
    let mut budget = Budget::new(options.limits);
    for layer in &image.manifest.layers {
        lay(source, layer, &mut overlay, &mut budget, progress)?;
    }
    Ok(overlay.finish().into_iter().map(|(entry, learned)| Node::new(entry, learned)).collect())
}

/// Lays one layer over those below it.
fn lay(
    source: &dyn Source,
    layer: &Descriptor,
    overlay: &mut Overlay<Learned>,
    budget: &mut Budget,
    progress: &dyn Progress,
) -> Result<()> {
    let task = progress.begin(&format!("reading {}", layer.digest.short()), Some(layer.size));
    let mut body = source.open(layer)?.verify(layer).observed(move |bytes| task.advance(bytes));
    let laid = (|| {
        let plain = decompress(&mut body).map_err(|error| Error::io("cannot read the layer", error))?;
        let mut reader = LayerReader::within(plain, std::mem::take(budget));
        let mut hasher = Hasher::default();
        lay_over(overlay, &mut reader, |entry, content| Ok(Learned::Told(hasher.hash(entry, content)?)))?;
        *budget = reader.budget().clone();
        reader.drain()
    })();
    // A blob with the wrong digest is that before it is a malformed archive.
    body.drain()?;
    laid
}

fn of_directory(directory: &Path, progress: &dyn Progress) -> Result<Nodes> {
    if !directory.is_dir() {
        return Err(Error::not_found(format!("there is no directory {}", directory.display())));
    }
    let task = progress.begin(&format!("reading {}", directory.display()), None);
    let mut hasher = Hasher::default();
    let options = WalkOptions { rule_files: RuleFiles::Apply, ..WalkOptions::default() };
    Walk::new(&[SourceSpec::new(directory)], &options)?
        .map(|found| {
            let found = found?;
            let hash = match found.file {
                Some(mut content) => hasher.hash(&found.entry, &mut content)?,
                None => None,
            };
            if let Kind::File { size } = found.entry.kind {
                task.advance(size);
            }
            Ok(Node::new(found.entry, Learned::Told(hash)))
        })
        .collect()
}
