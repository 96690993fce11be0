//! The base of an incremental pack: an image whose layers are reused.

use crate::error::{Error, Kind, Result};
use crate::image::{
    BaseImage, ContentId, ContentIds, EntryPosition, EntryVisitor, Image, PathNote, ReadOptions, SignedPart,
    SignedSource, check_media_type,
};
use crate::layer::{Chunk, Item, TocEntry};
use crate::oci::{Digest, Document, History, ImageConfig};
use crate::progress::Progress;
use crate::transport::{Access, Location, Source};
use crate::tree::{Content, Entry, EntryKind, MergedTree, Time};
use crate::trust::{SignaturePolicy, Signer};
use std::sync::Arc;

/// The size of an entry in an archive without its content, in bytes.
pub const HEADER: u64 = 512;

/// The image whose layers are reused.
#[derive(Clone, Debug)]
pub struct Base {
    location: Location,
    access: Access,
    role: BaseRole,
    policy: Option<Arc<SignaturePolicy>>,
}

/// The relation of a base to the name that the new image gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseRole {
    /// It is the image that the name means now, and the new one takes its place.
    Current,
    /// It is any image.
    Other,
}

impl Base {
    /// The image that the name of the destination means now, if there is one. `location` is that of the destination.
    pub fn current(location: Location, access: Access) -> Self {
        Self { location, access, role: BaseRole::Current, policy: None }
    }

    /// Another image, which must exist.
    pub fn image(location: Location, access: Access) -> Self {
        Self { location, access, role: BaseRole::Other, policy: None }
    }

    /// Requires signatures of the base. Without this, a base of an image that is signed must have a signature by the same
    /// key: the new signature is about the layers of the base too.
    #[must_use]
    pub fn signed_as(self, policy: Arc<SignaturePolicy>) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// The relation to the name that the new image gets.
    pub fn role(&self) -> BaseRole {
        self.role
    }

    /// The location of the base.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Resolves the base of an image that `signer` signs.
    ///
    /// # Errors
    /// [`NotFound`](Kind::NotFound) if an image that must exist does not, [`Integrity`](Kind::Integrity) if it is not signed
    /// as required; those of the source.
    pub(super) fn find(&self, signer: Option<&Signer>) -> Result<Found> {
        let of_signer = || Some(Arc::new(SignaturePolicy::from_keys(vec![signer?.key().public().clone()])));
        let policy = self.policy.clone().or_else(of_signer);
        match self.try_find(policy.as_deref()) {
            Ok((source, root)) => {
                let address = format!("{}@{}", self.location.without_name(), root.descriptor().digest);
                Ok(Found::Image(FoundBase { source, root, address }))
            }
            Err(error) if self.role == BaseRole::Other => Err(error.context("cannot open the base")),
            Err(error) if error.kind() == Kind::NotFound => Ok(Found::Nothing),
            // Some registries deny access to a repository that does not exist yet.
            Err(error) if error.kind() == Kind::Denied => Ok(Found::Denied(error)),
            Err(error) if error.kind() == Kind::Integrity && policy.is_some() => {
                let (_, root) = self.try_find(None)?;
                Ok(Found::Unsigned { digest: root.descriptor().digest.clone(), error })
            }
            Err(error) => Err(error),
        }
    }

    fn try_find(&self, policy: Option<&SignaturePolicy>) -> Result<(Box<dyn Source>, Document)> {
        let source = match self.role {
            // A mirror may have the image from before.
            BaseRole::Current => self.location.source_without_mirrors(&self.access)?,
            BaseRole::Other => self.location.source(&self.access)?,
        };
        let source = match policy {
            None => source,
            Some(policy) => Box::new(SignedSource::new(source, &self.location, policy, SignedPart::Whole)?),
        };
        let root = source.resolve()?;
        Ok((source, root))
    }

    /// Returns the name for an annotation; `None` if the base has no fully qualified reference.
    pub(super) fn reference(&self) -> Option<String> {
        match &self.location {
            Location::Registry(reference) => Some(reference.to_string()),
            _ => None,
        }
    }
}

/// The outcome of resolving a base.
pub(super) enum Found {
    Image(FoundBase),
    /// There is no such image.
    Nothing,
    /// The registry does not say whether there is one.
    Denied(Error),
    /// It is not signed as required.
    Unsigned {
        digest: Digest,
        error: Error,
    },
}

/// A base that was resolved.
pub(super) struct FoundBase {
    pub source: Box<dyn Source>,
    /// Its index or its manifest.
    pub root: Document,
    /// Its address with its digest.
    pub address: String,
}

/// A base with its tree.
pub(super) struct BaseTree {
    /// Its layers, for the documents of the new image.
    pub image: BaseImage,
    /// Its tree. The first of several names of a file is the one that is not a hard link, as in a walk.
    pub tree: MergedTree<BaseNote>,
    /// The size of the entries of all layers together, in bytes of archives.
    pub stored: u64,
    /// The number of its files, each once.
    pub files: u64,
    /// The size of its files together, in bytes.
    pub bytes: u64,
    /// The newest mtime of an entry that is not in the future.
    pub newest: Option<Time>,
}

/// A note about an entry of a base: the identity of its content, if it is a file, and the precision of its mtime.
#[derive(Clone, Debug, Default)]
pub(super) enum BaseNote {
    /// A directory that no entry describes.
    #[default]
    Implied,
    /// An entry of a table of contents, which has nanoseconds.
    Exact(Option<ContentId>),
    /// An entry of an archive, which may have seconds only.
    Archived(Option<ContentId>),
}

impl BaseNote {
    /// Returns the identity of the content of a file.
    pub fn content(&self) -> Option<&ContentId> {
        match self {
            Self::Implied => None,
            Self::Exact(content) | Self::Archived(content) => content.as_ref(),
        }
    }
}

impl FoundBase {
    /// Reads the tree of the base. `name` is for the annotations of the new image, `now` the time.
    ///
    /// # Errors
    /// Those of [`Image::open`] and [`Image::tree`].
    pub fn read(
        &self,
        name: Option<String>,
        options: &ReadOptions,
        now: Time,
        progress: &dyn Progress,
    ) -> Result<BaseTree> {
        let image = Image::open_resolved(self.root.clone(), self.source.as_ref(), options, progress)?;
        // Checked here, because the hint of other commands is an option that a pack does not have.
        let checked = image.manifest().layers.iter().try_for_each(|layer| check_media_type(layer, progress));
        checked.map_err(|error| {
            error.with_hint("its layers cannot be those of an image: choose another base")
        })?;
        let mut notes = BaseNotes::default();
        let tree = image.tree_with(&mut notes)?.with_first_names();
        let (mut files, mut bytes, mut newest) = (0, 0u64, None);
        for (size, mtime) in tree.sizes_and_mtimes() {
            newest = newest.max(Some(mtime).filter(|time| *time <= now));
            if let Some(size) = size {
                files += 1;
                bytes = bytes.saturating_add(size);
            }
        }
        let image = BaseImage {
            digest: self.root.descriptor().digest.clone(),
            name,
            layers: image.manifest().layers.clone(),
            diff_ids: image.config().rootfs.diff_ids.clone(),
            history: history(image.config()),
        };
        Ok(BaseTree { image, tree, stored: notes.stored, files, bytes, newest })
    }
}

impl BaseTree {
    /// Returns the compressed size of so many bytes of archives, estimated by that of its layers.
    pub fn compressed_size(&self, stored: u64) -> u64 {
        let layers = self.image.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        let size = u128::from(layers) * u128::from(stored) / u128::from(self.stored.max(1));
        u64::try_from(size).unwrap_or(u64::MAX)
    }
}

/// Returns the history of an image. If it does not have one step for each layer, such steps are made up: otherwise those of
/// the layers that are added would seem to belong to lower ones.
fn history(config: &ImageConfig) -> Vec<History> {
    let layers = config.rootfs.diff_ids.len();
    match config.history.iter().filter(|step| !step.empty_layer).count() {
        steps if steps == layers => config.history.clone(),
        _ => vec![History::default(); layers],
    }
}

/// Returns the bytes that an entry takes in an archive, about.
pub(super) fn stored_size(kind: &EntryKind) -> u64 {
    let content = match kind {
        EntryKind::File { size } => *size,
        _ => 0,
    };
    content.saturating_add(HEADER)
}

/// Makes the notes, and adds up the entries of all layers.
#[derive(Default)]
struct BaseNotes {
    stored: u64,
}

impl BaseNotes {
    fn count(&mut self, entry: &Entry) {
        self.stored = self.stored.saturating_add(stored_size(&entry.kind));
    }
}

impl EntryVisitor for BaseNotes {
    type Note = BaseNote;

    fn indexed(
        &mut self,
        at: EntryPosition,
        entry: &TocEntry,
        chunks: &mut dyn FnMut() -> Result<Option<Chunk>>,
    ) -> Result<BaseNote> {
        if let Item::Entry(entry) = &entry.item {
            self.count(entry);
        }
        ContentIds.indexed(at, entry, chunks).map(|note| BaseNote::Exact(content_of(note)))
    }

    fn streamed(&mut self, at: EntryPosition, entry: &Entry, content: &mut dyn Content) -> Result<BaseNote> {
        self.count(entry);
        ContentIds.streamed(at, entry, content).map(|note| BaseNote::Archived(content_of(note)))
    }
}

fn content_of(note: PathNote) -> Option<ContentId> {
    match note {
        PathNote::Implied => None,
        PathNote::Described(content) => content,
    }
}
