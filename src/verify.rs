//! Whether an image is what it says: every size, digest and diff_id is computed anew, wherever the image is.
//!
//! The documents come first, for they say what the blobs should be. Then each blob is streamed once, however many
//! platforms share it, and nothing of it is kept. Damage is collected and not reported at the first: who has to mend
//! an image wants to know all that is broken.

use crate::error::{Error, Kind, Result};
use crate::image::{DEPTH_LIMIT, DOCUMENTS_LIMIT};
use crate::layer::{Budget, LayerReader, Limits, Meter, TocBytes, TocChecker, decompress};
use crate::oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, Platform, media_type};
use crate::partial::Listings;
use crate::progress::Progress;
use crate::stream::{Body, HashingReader, on_threads};
use crate::transport::{self, Source};
use crate::tree::SpoolDirectory;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blobs that are read side by side: enough to keep a few cores and one network busy.
const WORKERS: usize = 4;

/// What may be chosen when an image is verified.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Verify only the image for this platform; otherwise all that there are.
    pub platform: Option<Platform>,
    /// The most plain content that may be read, in bytes; otherwise in proportion to what is stored.
    pub content: Option<u64>,
    /// Where tables of contents are held that are large, in files that are gone when they are closed: in memory otherwise.
    pub temporary: Option<PathBuf>,
}

/// What was verified, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The digest of the index or the manifest that the name stands for.
    pub digest: Digest,
    /// How many images were verified, one for each platform.
    pub images: u64,
    /// How many blobs and documents were read.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// What is wrong; nothing when the image is sound.
    pub damage: Vec<Damage>,
}

/// A blob or a document that is missing or is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What it is in the image, such as `layer 2 of linux/amd64`.
    pub role: String,
    /// Its digest.
    pub digest: Digest,
    /// What is wrong with it.
    pub why: String,
}

/// Verifies an image with all its platforms, or one of them. Damage is part of the answer and no error.
///
/// # Errors
/// When the image cannot be found or read, so that nothing can be said of it.
pub fn verify(source: &dyn Source, options: &Options, progress: &dyn Progress) -> Result<Verified> {
    let root = source.resolve()?;
    let mut plan = Plan::new(source, options, root.descriptor().digest.clone());
    plan.document(&root, None, 0)?;
    let Plan { mut verified, checks, .. } = plan;
    if verified.images == 0
        && verified.damage.is_empty()
        && let Some(platform) = &options.platform
    {
        return Err(Error::not_found(format!("there is no image for {platform} under this name"))
            .with_hint("volio inspect shows which there are"));
    }
    let examiner = Examiner::new(source, options, progress);
    for (check, outcome) in checks.iter().zip(examiner.examine_all(&checks)) {
        verified.blobs += 1;
        verified.bytes = verified.bytes.saturating_add(check.blob.size);
        verified.note(outcome, &check.roles.join(", "), &check.blob.digest)?;
    }
    Ok(verified)
}

impl Verified {
    /// Files an outcome: what is missing or wrong is damage, and what could not be found out is an error.
    fn note<T>(&mut self, outcome: Result<T>, role: &str, digest: &Digest) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.kind(), Kind::Integrity | Kind::NotFound) => {
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

/// A blob that is to be read.
struct Check {
    blob: Descriptor,
    /// The digest that its plain archive should have, if it is a layer.
    diff_id: Option<Digest>,
    /// What it is in the image; platforms share their layers.
    roles: Vec<String>,
}

/// The documents, read one after the other, and the blobs that they name.
struct Plan<'a> {
    source: &'a dyn Source,
    options: &'a Options,
    verified: Verified,
    checks: Vec<Check>,
    /// Where a blob stands in `checks`, by what its descriptors say.
    known: HashMap<(Digest, u64), Vec<usize>>,
    documents: HashSet<Digest>,
}

impl<'a> Plan<'a> {
    fn new(source: &'a dyn Source, options: &'a Options, digest: Digest) -> Self {
        let verified = Verified { digest, images: 0, blobs: 0, bytes: 0, damage: Vec::new() };
        Self {
            source,
            options,
            verified,
            checks: Vec::new(),
            known: HashMap::new(),
            documents: HashSet::new(),
        }
    }

    /// Reads an index or a manifest whose own digest was proved when it was fetched.
    fn document(&mut self, document: &Document, platform: Option<&Platform>, depth: usize) -> Result<()> {
        let Descriptor { digest, size, media_type, .. } = document.descriptor();
        if !self.documents.insert(digest.clone()) {
            return Ok(());
        }
        self.verified.blobs += 1;
        self.count(*size)?;
        match media_type::is_index(media_type) {
            true if depth == DEPTH_LIMIT => {
                Err(document.malformed(&format!("indexes are nested more than {DEPTH_LIMIT} deep")))
            }
            true => match self.verified.note(Index::parse(document), "index", digest)? {
                Some(index) => index.manifests.iter().try_for_each(|entry| self.entry(entry, depth + 1)),
                None => Ok(()),
            },
            false => {
                let role = of("manifest", platform.map(Platform::to_string).as_deref());
                match self.verified.note(Manifest::parse(document), &role, digest)? {
                    Some(manifest) => self.manifest(document, &manifest, platform),
                    None => Ok(()),
                }
            }
        }
    }

    /// Counts a document.
    fn count(&mut self, size: u64) -> Result<()> {
        self.verified.bytes = self.verified.bytes.saturating_add(size);
        match self.verified.bytes > DOCUMENTS_LIMIT {
            true => Err(Error::integrity(format!(
                "the image has more than {DOCUMENTS_LIMIT} bytes of manifests and configurations"
            ))),
            false => Ok(()),
        }
    }

    /// Reads what an index names: a manifest, another index, or anything else.
    fn entry(&mut self, entry: &Descriptor, depth: usize) -> Result<()> {
        if let (Some(wanted), Some(platform)) = (&self.options.platform, &entry.platform)
            && platform.is_complete()
            && !wanted.accepts(platform)
        {
            return Ok(());
        }
        let name = entry.platform.as_ref().map(Platform::to_string);
        if !media_type::is_document(&entry.media_type) {
            self.check(entry, None, of("blob in the index", name.as_deref()));
            return Ok(());
        }
        let role =
            of(if media_type::is_index(&entry.media_type) { "index" } else { "manifest" }, name.as_deref());
        match self.verified.note(transport::fetch(self.source, entry), &role, &entry.digest)? {
            Some(document) => self.document(&document, entry.platform.as_ref(), depth),
            None => Ok(()),
        }
    }

    /// Reads the configuration of an image, and notes its layers with the diff_ids that it names.
    fn manifest(
        &mut self,
        document: &Document,
        manifest: &Manifest,
        platform: Option<&Platform>,
    ) -> Result<()> {
        let mut name = platform.map(Platform::to_string);
        let mut diff_ids = Vec::new();
        if media_type::is_config(&manifest.config.media_type) {
            let role = of("configuration", name.as_deref());
            let config = transport::fetch(self.source, &manifest.config)
                .and_then(|config| config.parse::<ImageConfig>())
                .and_then(|config| matching(document, manifest, config));
            self.verified.blobs += 1;
            self.count(manifest.config.size)?;
            if let Some(config) = self.verified.note(config, &role, &manifest.config.digest)? {
                match &self.options.platform {
                    Some(wanted) if platform.is_none() && !wanted.accepts(&config.platform) => return Ok(()),
                    _ => name = name.or_else(|| Some(config.platform.to_string())),
                }
                diff_ids = config.rootfs.diff_ids;
            }
        } else {
            self.check(&manifest.config, None, of("configuration", name.as_deref()));
        }
        self.verified.images += 1;
        let mut diff_ids = diff_ids.into_iter();
        for (number, layer) in manifest.layers.iter().enumerate() {
            // An attestation has diff_ids too, of blobs that are no archives.
            let diff_id = diff_ids.next().filter(|_| media_type::is_layer(&layer.media_type));
            self.check(layer, diff_id, of(&format!("layer {}", number + 1), name.as_deref()));
        }
        Ok(())
    }

    /// Notes a blob, once for all platforms that claim the same of it.
    fn check(&mut self, blob: &Descriptor, diff_id: Option<Digest>, role: String) {
        let known = self.known.entry((blob.digest.clone(), blob.size)).or_default();
        for at in known.iter() {
            let check = &mut self.checks[*at];
            // Each may name its own table of contents.
            if check.blob.annotations != blob.annotations {
                continue;
            }
            // A platform whose configuration is broken claims nothing.
            if check.diff_id == diff_id || check.diff_id.is_none() || diff_id.is_none() {
                check.diff_id = check.diff_id.take().or(diff_id);
                return check.roles.push(role);
            }
        }
        known.push(self.checks.len());
        self.checks.push(Check { blob: blob.clone(), diff_id, roles: vec![role] });
    }
}

/// The role of a part, with the platform where it is known.
fn of(part: &str, platform: Option<&str>) -> String {
    platform.map_or_else(|| part.to_owned(), |platform| format!("{part} of {platform}"))
}

/// The configuration, if it has a diff_id for each layer.
fn matching(document: &Document, manifest: &Manifest, config: ImageConfig) -> Result<ImageConfig> {
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    match layers == diff_ids {
        true => Ok(config),
        false => Err(Error::integrity(format!(
            "it has {diff_ids} diff_ids, and its manifest {} has {layers} layers",
            document.descriptor().digest
        ))),
    }
}

/// Reads blobs and finds out whether they are what they should be.
struct Examiner<'a> {
    source: &'a dyn Source,
    progress: &'a dyn Progress,
    meter: Meter,
    spool: Option<SpoolDirectory>,
}

impl<'a> Examiner<'a> {
    fn new(source: &'a dyn Source, options: &Options, progress: &'a dyn Progress) -> Self {
        let spool = options.temporary.as_deref().and_then(|path| SpoolDirectory::open(path).ok());
        Self { source, progress, meter: Meter::new(options.content), spool }
    }

    /// Reads all blobs, several at a time; the outcomes are in their order.
    fn examine_all(&self, checks: &[Check]) -> Vec<Result<()>> {
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(Vec::with_capacity(checks.len()));
        on_threads(WORKERS.min(checks.len()), || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(check) = checks.get(number) else { return };
                let outcome = self.examine(check);
                // A network that is gone is gone for all.
                let is_damage = |error: &Error| matches!(error.kind(), Kind::Integrity | Kind::NotFound);
                if outcome.as_ref().is_err_and(|error| !is_damage(error)) {
                    next.fetch_max(checks.len(), Ordering::Relaxed);
                }
                outcomes.lock().unwrap_or_else(|poison| poison.into_inner()).push((number, outcome));
            }
        });
        let mut outcomes = outcomes.into_inner().unwrap_or_else(|poison| poison.into_inner());
        outcomes.sort_by_key(|(number, _)| *number);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// Reads one blob to its end.
    fn examine(&self, check: &Check) -> Result<()> {
        let Check { blob, diff_id, .. } = check;
        let task = self.progress.begin(&format!("verifying {}", blob.digest.short()), Some(blob.size));
        let body = self.source.open(blob)?.verify(blob).on_read(move |bytes| task.advance(bytes));
        let mut body = body.on_read(self.meter.stored());
        let Some(diff_id) = diff_id else { return body.drain().map(drop) };
        let toc = self.table_of_contents(blob);
        let plain = toc.and_then(|toc| self.read_archive(&mut body, diff_id, toc));
        // A blob with the wrong digest is that before it is a malformed archive; one that stopped coming is neither.
        match plain {
            Err(error) if error.kind() != Kind::Integrity => return Err(error),
            _ => body.drain()?,
        };
        match plain? {
            actual if actual == *diff_id => Ok(()),
            actual => Err(Error::integrity(format!(
                "its content has the digest {actual}, and the configuration says {diff_id}"
            ))),
        }
    }

    /// What the layer's table of contents says about it, if it has one: proved, and held compressed.
    fn table_of_contents(&self, layer: &Descriptor) -> Result<Option<Checker>> {
        let limits = *unlimited().limits();
        let held = Listings::new(self.spool.as_ref(), &limits);
        let listing = match held.fetch(self.source, layer)? {
            Some(listing) => Some(listing),
            None => held.fetch_from_whole(self.source, layer)?,
        };
        listing.map(|listing| Ok(TocChecker::new(listing.entries(unlimited())?))).transpose()
    }

    /// Reads the archive of a layer entry by entry, beside its table of contents; the digest of the whole, by the
    /// algorithm of its diff_id.
    fn read_archive(&self, layer: &mut Body, diff_id: &Digest, mut toc: Option<Checker>) -> Result<Digest> {
        let cannot_read = |error| Error::io("cannot read the layer", error);
        let plain = self.meter.bound(decompress(layer).map_err(cannot_read)?);
        let mut plain = HashingReader::new(plain, diff_id.algorithm());
        let mut entries = LayerReader::within(&mut plain, unlimited());
        while let Some(item) = entries.next_item()? {
            if let Some(toc) = &mut toc {
                toc.item(&item)?;
                io::copy(&mut toc.content(entries.content()), &mut io::sink()).map_err(cannot_read)?;
            }
        }
        entries.drain()?;
        toc.map_or(Ok(()), TocChecker::finish)?;
        Ok(plain.finish())
    }
}

/// Nothing is remembered here: an image may have as many entries as it likes, wherever they are.
fn unlimited() -> Budget {
    let most = u64::MAX;
    Budget::new(Limits { max_entries: most, max_path: most, max_depth: most, ..Limits::default() })
}

type Checker = TocChecker<TocBytes>;
