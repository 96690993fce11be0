//! An image: its documents, built and selected, and its layers, opened in a source and verified.
//!
//! # How an image is read
//!
//! [`Image::open`] resolves the name, selects the image for a platform ([`platform`]), and reads its manifest and its
//! config. Each of its layers is an [`ImageLayer`]: a descriptor from the manifest, and a diff_id from the config. The image
//! gives its merged tree ([`Image::tree`]) and the content of its files by ranges ([`Image::read_files`]).
//!
//! # How a layer is verified
//!
//! Three things are known about a layer, and all that read one get them verified from here:
//!
//! 1. The manifest has the **size and the digest** of the blob. [`Body`](crate::stream::Body) hashes the blob while it is
//!    read, and fails at its end if they are wrong.
//! 2. The config has the **diff_id**, the digest of the archive before compression. [`LayerArchive`] decompresses the
//!    blob, hashes the archive, and fails at its end if the diff_id is wrong. If the decompressor fails, it reads the blob to
//!    its end first: a wrong digest explains a malformed archive, and not the other way round.
//! 3. Annotations in the manifest have the digest of the **table of contents**, which [`TocStore`] verifies before anything
//!    is read from it. `ls`, `cat` and `diff` rely on it, and other programs rely on the archive. So the two are compared item by item
//!    (`read_items` in `archive.rs`) whenever both are read.
//!
//! There are four ways to read a layer:
//!
//! | way | used by | verified by |
//! |---|---|---|
//! | the table of contents alone ([`ImageLayer::toc`]), and frames by ranges ([`Image::fetch_frames`]) | `ls`, `cat`, `diff`, `unpack --subpath`, `unpack` of a layer with much dead content ([`LiveContent`]) | 3, and each chunk by its digest in the table of contents |
//! | the archive as a stream ([`ImageLayer::archive`], [`read_items`](ImageLayer::read_items), [`verify`](ImageLayer::verify)) | `ls`, `cat`, `diff` without a table of contents; `copy`, `verify` | 1 and 2 at the end; `verify` also 3 |
//! | the archive while it is fetched ([`IndexedLayer`]) | `unpack` | 3, and each chunk before it is used; 1 and 2 at the end |
//! | the blob in an unnamed file ([`ImageLayer::spool`]) | `unpack` without a table of contents | 1 and 2 before anything is read; 3 if there is one |

mod archive;
mod builder;
mod content;
mod context;
mod documents;
mod fetch;
mod files;
mod indexed;
mod layer;
mod live;
mod merge;
mod open;
mod platform;
mod ranges;
mod signed;
mod spool;
#[cfg(test)]
mod tests;
mod toc_store;

pub use archive::LayerArchive;
pub use builder::{BASE_DIGEST, BASE_NAME, BaseImage, Built, Description};
pub use content::{ContentId, ContentIds, PathNote, identify, identify_chunks};
pub use context::ReadContext;
pub use documents::documents;
pub use fetch::{FetchedLayer, fetch_each};
pub use files::{ChunkReader, ChunkSource, FileChunks, FileLocation, FrameChunks, WantedFile};
pub use indexed::IndexedLayer;
pub use layer::ImageLayer;
pub use live::{LiveContent, LiveFiles};
pub use merge::{EntryPosition, EntryVisitor, SpooledLayers};
pub use open::{Image, ReadOptions, check_media_type};
pub use platform::{DEPTH_LIMIT, DOCUMENTS_LIMIT, Offer, manifests, offers, ranked};
pub use ranges::{FetchPlan, FetchedFrames};
pub use signed::{SignedPart, SignedSource, VerificationCache};
pub use spool::{Observed, SpooledLayer};
pub use toc_store::TocStore;
