//! Verifies an image: every size, digest and diff_id is computed again, in any source.
//!
//! The documents are read first, because they say what the blobs have to be ([`plan`]). Then each blob is streamed once,
//! also if several platforms share it, and nothing of it is kept. All damage is collected,
//! because repairing an image needs the whole list.

mod plan;

use crate::error::{Error, Kind, Result};
use crate::image::{ImageLayer, ReadContext, ReadOptions, TocStore};
use crate::layer::{Budget, Limits, Meter};
use crate::oci::{Digest, Platform};
use crate::progress::{Phase, Progress};
use crate::stream::try_for_each;
use crate::transport::Source;
use crate::tree::SpoolDirectory;
use plan::{BlobCheck, VerificationPlan};
use std::path::PathBuf;
use std::sync::Arc;

/// The number of blobs that are read at the same time: enough to keep a few cores and one network busy.
const WORKERS: usize = 4;

/// The options of [`verify`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Verify only the image for this platform; otherwise all of them.
    pub platform: Option<Platform>,
    /// The limit on plain content that is read, in bytes; otherwise in proportion to what is stored.
    pub max_content: Option<u64>,
    /// The directory for unnamed files with large tables of contents; without one they stay in memory.
    pub temporary: Option<PathBuf>,
    /// The layers are read by their first bytes, whatever their media types are.
    pub any_media_type: bool,
}

/// The report of a verification.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verified {
    /// The digest of the index or the manifest that the name stands for.
    pub digest: Digest,
    /// The number of images that were verified, one for each platform.
    pub images: u64,
    /// The number of blobs and documents that were read.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The number of foreign layers that the source does not have, and which were not read.
    pub blobs_foreign: u64,
    /// The damage; empty if the image is sound.
    pub damage: Vec<Damage>,
}

/// A blob or a document that is missing or is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Its role in the image, such as `layer 2 of linux/amd64`.
    pub role: String,
    /// Its digest.
    pub digest: Digest,
    /// The reason.
    pub why: String,
}

/// Verifies an image with all its platforms, or one of them. Damage is part of the report, and not an error.
///
/// # Errors
/// When the image cannot be found or read, so that there is nothing to report;
/// [`Integrity`](crate::error::Kind::Integrity) if a layer of an image has a media type that is not read.
///
/// ```
/// use volio::{Memory, SourceSpec, pack, progress::Silent, verify};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("file"), "text").unwrap();
/// # let image = Memory::default();
/// # pack::pack(&image, &[SourceSpec::new(directory.path())], &pack::Options::default(), &Silent)?;
/// let verified = verify::verify(&image, &verify::Options::default(), &Silent)?;
/// assert!(verified.damage.is_empty());
/// # Ok::<(), volio::Error>(())
/// ```
pub fn verify(source: &dyn Source, options: &Options, progress: &dyn Progress) -> Result<Verified> {
    let root = source.resolve()?;
    let mut plan = VerificationPlan::new(source, options, progress, root.descriptor().digest.clone());
    plan.add_document(&root, None, 0)?;
    let VerificationPlan { mut verified, checks, .. } = plan;
    if verified.images == 0
        && verified.damage.is_empty()
        && let Some(platform) = &options.platform
    {
        return Err(Error::not_found(format!("there is no image for {platform} under this name"))
            .with_hint("volio inspect shows which there are"));
    }
    let reader = BlobReader::new(source, options, progress);
    for (check, outcome) in checks.iter().zip(reader.read_all(&checks)?) {
        if outcome.as_ref().is_err_and(|error| error.kind() == Kind::NotFound)
            && let urls @ [_, ..] = check.blob.urls().as_slice()
        {
            verified.blobs_foreign += 1;
            progress.warn(&format!(
                "the foreign layer {} is not verified, because the source does not have it: it is at {}",
                check.blob.digest,
                urls.join(", ")
            ));
            continue;
        }
        verified.blobs += 1;
        verified.bytes = verified.bytes.saturating_add(check.blob.size);
        verified.note(outcome, &check.roles.join(", "), &check.blob.digest)?;
    }
    Ok(verified)
}

impl Verified {
    /// Adds an error to the damage if it says that something is missing or wrong. All other errors are returned.
    fn note<T>(&mut self, outcome: Result<T>, role: &str, digest: &Digest) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_damage(&error) => {
                self.damage.push(Damage {
                    role: role.to_owned(),
                    digest: digest.clone(),
                    why: error.to_string(),
                });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), Kind::Integrity | Kind::NotFound)
}

/// Reads blobs and verifies them.
struct BlobReader<'a> {
    context: ReadContext<'a>,
    place: Option<Arc<SpoolDirectory>>,
}

impl<'a> BlobReader<'a> {
    fn new(source: &'a dyn Source, options: &Options, progress: &'a dyn Progress) -> Self {
        let meter = Meter::new(options.max_content);
        let temporary = options.temporary.clone();
        Self {
            context: ReadContext::new(source, unlimited(), meter, progress),
            place: ReadOptions { temporary, ..ReadOptions::default() }.spool_place(),
        }
    }

    /// Reads all blobs, several at the same time. Returns the damage of each, in their order.
    ///
    /// # Errors
    /// An error that is not damage, such as a failure of the network. Then no other blob is tried.
    fn read_all(&self, checks: &[BlobCheck]) -> Result<Vec<Result<()>>> {
        let read = |_, check: &BlobCheck| match self.read(check) {
            Err(error) if !is_damage(&error) => Err(error),
            outcome => Ok(outcome),
        };
        try_for_each(WORKERS, checks, read).into_result()
    }

    /// Reads one blob to its end.
    fn read(&self, check: &BlobCheck) -> Result<()> {
        match &check.diff_id {
            None => self.context.blob(&check.blob, Phase::Verifying)?.drain().map(drop),
            Some(diff_id) => {
                let store = TocStore::new(self.place.clone(), self.context.limits());
                let layer = ImageLayer::new(&self.context, &check.blob, diff_id);
                layer.verify(&mut Budget::new(self.context.limits()), &store)
            }
        }
    }
}

/// The limits of a verification. It keeps nothing of an entry, so any number of them may be anywhere.
fn unlimited() -> Limits {
    Limits { max_entries: u64::MAX, max_path: u64::MAX, max_depth: u64::MAX, ..Limits::default() }
}
