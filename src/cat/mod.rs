//! The content of files in an image, without unpacking it.

mod resolve;

use crate::error::{Error, Result};
use crate::image::{Image, ReadOptions};
use crate::progress::Progress;
use crate::transport::Source;
use crate::tree::{Content, TreePath};
use std::io::{self, Write};

/// The size of the buffer in bytes.
const BUFFER: usize = 128 << 10;

/// Writes the content of these files of an image, one after the other. Symbolic links are followed, inside of the image.
/// Returns the number of bytes.
///
/// Only verified bytes are written. Of a layer with a table of contents, that and the frames with the content are fetched;
/// any other layer is read twice ([`image::files`](crate::image::Image::read_files)).
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) if a path is not there, [`Usage`](crate::error::Kind::Usage) if it is not a
/// file; nothing was written then. [`Integrity`](crate::error::Kind::Integrity) if the image is not what it says; those of
/// [`Image::open`].
///
/// ```
/// use volio::{Memory, ReadOptions, SourceSpec, TreePath, cat, pack, progress::Silent};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("file"), "text").unwrap();
/// # let image = Memory::default();
/// # pack::pack(&image, &[SourceSpec::new(directory.path())], &pack::Options::default(), &Silent)?;
/// let mut text = Vec::new();
/// let path = TreePath::parse(b"/file").unwrap();
/// cat::cat(&image, &[path], &ReadOptions::default(), &mut text, &Silent)?;
/// assert_eq!(text, b"text");
/// # Ok::<(), volio::Error>(())
/// ```
pub fn cat(
    source: &dyn Source,
    paths: &[TreePath],
    options: &ReadOptions,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<u64> {
    let image = Image::open(source, options, progress)?;
    let tree = image.file_tree()?;
    let files = paths.iter().map(|path| resolve::file(&tree, path)).collect::<Result<Vec<_>>>()?;
    let mut written = 0;
    image.read_files(&files, |_, content| {
        written += write(content, out)?;
        Ok(())
    })?;
    Ok(written)
}

fn write(content: &mut dyn Content, out: &mut dyn Write) -> Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut written = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Ok(read) => {
                out.write_all(&buffer[..read])
                    .map_err(|error| Error::io("cannot write the content of a file", error))?;
                written += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("cannot read the image", error)),
        }
    }
}
