//! Images in memory, mostly for tests: the smallest transport.

use super::{Destination, Removal, Removed, Source};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document};
use crate::stream::{Body, Unverified, Written};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A store of images, bound to a name. Clones share the store.
#[derive(Clone, Default)]
pub struct Memory {
    store: Arc<Mutex<Store>>,
    name: String,
}

#[derive(Default)]
struct Store {
    blobs: HashMap<Digest, Vec<u8>>,
    names: HashMap<String, Document>,
    /// The stored manifests that have a subject, as entries of its list of referrers.
    referrers: HashMap<Digest, Vec<Descriptor>>,
}

impl Memory {
    /// Returns the same store, bound to another name.
    #[must_use]
    pub fn named(&self, name: impl Into<String>) -> Self {
        Self { store: Arc::clone(&self.store), name: name.into() }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // No code panics while it holds the lock.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Memory {
    fn resolve(&self) -> Result<Document> {
        let names = &self.store().names;
        names
            .get(&self.name)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("there is no image {:?}", self.name)))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let blob = self.store().blobs.get(&descriptor.digest).cloned();
        blob.map(unverified).ok_or_else(|| missing_blob(descriptor))
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        let store = self.store();
        let bytes = store.blobs.get(&blob.digest).ok_or_else(|| missing_blob(blob))?;
        // The blob may be shorter than the descriptor says, which `Unverified` finds out.
        let at = |offset: u64| usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
        Ok(Some(unverified(bytes[at(range.start)..at(range.end)].to_vec())))
    }

    fn tags(&self) -> Result<Vec<String>> {
        let mut tags: Vec<_> = self.store().names.keys().cloned().collect();
        tags.sort_unstable();
        Ok(tags)
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(self.store().referrers.get(subject).cloned().unwrap_or_default())
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        Ok(self.store().names.get(tag).cloned())
    }
}

impl Destination for Memory {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.store().blobs.contains_key(&descriptor.digest))
    }

    fn upload(&self, mut body: Body) -> Result<Written> {
        let mut blob = Vec::new();
        body.read_to_end(&mut blob).map_err(|error| Error::io("cannot read the blob", error))?;
        let written = body.finish()?;
        self.store().blobs.insert(written.digest.clone(), blob);
        Ok(written)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        let mut store = self.store();
        store.blobs.insert(document.descriptor().digest.clone(), document.bytes().to_vec());
        if let Some((subject, entry)) = document.as_referrer() {
            let known = store.referrers.entry(subject).or_default();
            if known.iter().all(|other| other.digest != entry.digest) {
                known.push(entry);
            }
        }
        Ok(())
    }

    fn commit(&self, root: &Document) -> Result<()> {
        self.store().names.insert(self.name.clone(), root.clone());
        Ok(())
    }

    fn commit_unless_moved(&self, root: &Document, expected: Option<&Digest>) -> Result<()> {
        let mut store = self.store();
        let found = store.names.get(&self.name).map(|document| &document.descriptor().digest);
        let new = &root.descriptor().digest;
        super::ensure_unmoved(&self.name, expected, found, new, &self.address(new))?;
        store.names.insert(self.name.clone(), root.clone());
        Ok(())
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        Source::tagged(self, tag)
    }

    fn attach(&self, tag: &str, document: &Document) -> Result<()> {
        self.store().names.insert(tag.to_owned(), document.clone());
        Ok(())
    }

    fn address(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name)
    }
}

impl Removal for Memory {
    fn remove(&self, _force: bool) -> Result<Removed> {
        let digest = self.resolve()?.descriptor().digest.clone();
        self.store().names.remove(&self.name);
        Ok(Removed { tags: vec![self.name.clone()], ..Removed::nothing(digest) })
    }
}

fn missing_blob(blob: &Descriptor) -> Error {
    Error::not_found(format!("there is no blob {}", blob.digest))
}

fn unverified(blob: Vec<u8>) -> Unverified {
    let copy = blob.clone();
    Unverified::new(Cursor::new(blob)).reopenable(move |offset| {
        let mut bytes = Cursor::new(copy.clone());
        bytes.set_position(offset);
        Ok(Box::new(bytes))
    })
}
