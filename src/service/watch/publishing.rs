//! The publication of one version: the work between the hooks of a run.

use super::{OpenSource, Purpose};
use crate::error::{Kind, Result};
use crate::oci::{Digest, Document};
use crate::progress::Progress;
use crate::service::hook::{Hook, HookContext, Variables};
use crate::service::log::count;
use crate::service::publish::{Judged, Publisher};
use crate::service::run::{Change, Done};
use crate::stream::CancelToken;
use crate::transport::Source;
use crate::unpack::Unpacked;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All that the publication of a version needs, on whatever thread.
#[derive(Clone)]
pub(super) struct Publishing {
    pub publisher: Arc<Mutex<Publisher>>,
    pub open: Arc<OpenSource>,
    pub before_publish: Option<Hook>,
    pub context: HookContext,
    /// The image, as the command names it.
    pub image: String,
    pub progress: Arc<dyn Progress>,
    /// The image that the last poll has found.
    pub known: Arc<Mutex<Option<Document>>>,
    /// Set if the name of the image is a digest: it will not be another one.
    pub is_pinned: bool,
}

/// The result of a look at the tag.
#[derive(Debug)]
pub(super) enum Found {
    /// The version is published.
    Published(Digest),
    /// `--before-publish` has rejected the version.
    Rejected(Digest),
    /// The version has to be published.
    New(Digest),
}

impl Publishing {
    /// Returns the directory. A run that was abandoned holds it until it ends.
    pub fn publisher(&self) -> MutexGuard<'_, Publisher> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks which version the tag means, and whether that is published.
    ///
    /// # Errors
    /// Those of the source, and of the directory.
    pub fn poll(&self) -> Result<Found> {
        let root = self.resolve()?;
        let mut publisher = self.publisher();
        publisher.refresh()?;
        let digest = root.descriptor().digest.clone();
        if publisher.is_published(&root)? {
            return Ok(Found::Published(digest));
        }
        Ok(if self.is_rejected(&publisher, &digest) { Found::Rejected(digest) } else { Found::New(digest) })
    }

    fn resolve(&self) -> Result<Document> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let root = match &*known {
            Some(known) if self.is_pinned => return Ok(known.clone()),
            Some(known) => (self.open)(Purpose::Poll)?.resolve_again(known)?,
            None => (self.open)(Purpose::Poll)?.resolve()?,
        };
        *known = Some(root.clone());
        Ok(root)
    }

    /// Returns whether the present `--before-publish` has rejected a version.
    pub fn is_rejected(&self, publisher: &Publisher, version: &Digest) -> bool {
        let judged = self.before_publish.as_ref().map(|hook| judged(hook, version));
        judged.is_some() && judged == publisher.note().rejected
    }

    /// Fetches the version that the tag means by now, and publishes it.
    ///
    /// # Errors
    /// Those of the source and of the directory, and a rejection.
    pub fn publish(&self, cancel: &CancelToken) -> Result<Done> {
        let opened = (self.open)(Purpose::Fetch)?;
        // Signatures are verified here.
        let root = opened.resolve()?;
        let cancellable = opened.cancelled_by(cancel);
        let source: &dyn Source = cancellable.as_deref().unwrap_or(&*opened);
        let publisher = self.publisher();
        let digest = root.descriptor().digest.clone();
        let unpacked = publisher.fetch(source, &root, &*self.progress)?;
        cancel.check()?;
        self.ensure_accepted(&publisher, &digest, cancel)?;
        publisher.publish(&digest)?;
        self.report(&publisher, &digest, &unpacked);
        let bytes = unpacked.sync.as_ref().map_or(unpacked.fetched.bytes, |synced| synced.fetched);
        Ok(Done { digest, bytes, change: Change::Changed, size: None })
    }

    /// Runs `--before-publish` in the new tree.
    fn ensure_accepted(&self, publisher: &Publisher, version: &Digest, cancel: &CancelToken) -> Result<()> {
        let Some(hook) = &self.before_publish else { return Ok(()) };
        let tree = publisher.tree(version);
        match hook.run(&self.variables(version, &tree), Some(&tree), &self.context, cancel) {
            Ok(()) => Ok(()),
            // It could not be run, so that it has not said anything about the version.
            Err(error) if cancel.is_cancelled() || error.kind() == Kind::NotFound => Err(error),
            Err(error) => {
                let mut note = publisher.note();
                note.rejected = Some(judged(hook, version));
                publisher.write_note(&note)?;
                publisher.discard(version)?;
                Err(error.context(format!("{version} is not published")))
            }
        }
    }

    /// Returns the variables of the hooks for a version.
    pub fn variables(&self, version: &Digest, tree: &Path) -> Variables {
        Variables::default()
            .with("VOLIO_IMAGE", self.image.as_str())
            .with("VOLIO_DIGEST", version.to_string())
            .with("VOLIO_DIRECTORY", tree)
    }

    /// Logs what was published.
    fn report(&self, publisher: &Publisher, version: &Digest, unpacked: &Unpacked) {
        let log = &*self.context.log;
        let tree = publisher.tree(version);
        let counts = match &unpacked.sync {
            Some(synced) => format!(
                "{} fetched, {} reused; {} written, {} removed",
                count(synced.fetched, "byte", "bytes"),
                synced.reused,
                count(synced.written, "entry", "entries"),
                synced.removed
            ),
            None => count(unpacked.extracted.entries, "entry", "entries"),
        };
        log.info("watch", &format!("published {version} in {}: {counts}", tree.display()));
        let kept = unpacked.sync.iter().flat_map(|synced| &synced.kept_mounts);
        for mount in kept {
            let mount = tree.join(mount.as_path());
            log.warning("watch", &format!("{} stays: something is mounted there", mount.display()));
        }
    }
}

/// Returns the note that a hook has judged a version.
pub(super) fn judged(hook: &Hook, version: &Digest) -> Judged {
    Judged { version: version.clone(), command: hook.command_digest() }
}
