//! The storage of the registry: blobs, manifests, tags, and uploads that have not ended.

use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use volio::oci::{Digest, Hasher};

/// The damage of a stored blob or manifest.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// One bit in the middle is flipped.
    Flip,
    /// The last byte is missing.
    Truncate,
    /// There is one more byte at the end.
    Extend,
}

/// Contents by repository and digest.
type Key = (String, String);

#[derive(Default)]
pub struct Store {
    blobs: HashMap<Key, Bytes>,
    /// Blobs that were deleted.
    forgotten: HashMap<Key, Bytes>,
    manifests: HashMap<Key, Stored>,
    /// Digests by repository and tag.
    tags: BTreeMap<Key, String>,
    uploads: HashMap<String, Upload>,
    begun: usize,
}

#[derive(Clone)]
pub struct Stored {
    pub media_type: String,
    pub bytes: Bytes,
    pub digest: String,
}

struct Upload {
    repository: String,
    bytes: Vec<u8>,
    /// The number of requests. Only the latest URL is valid, as with distribution's `_state`.
    step: usize,
}

pub fn digest_of(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

impl Store {
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.blobs.get(&(repository.to_owned(), digest.to_owned())).cloned()
    }

    pub fn forget_blob(&mut self, repository: &str, digest: &str) {
        let key = (repository.to_owned(), digest.to_owned());
        self.forgotten.extend(self.blobs.remove(&key).map(|bytes| (key, bytes)));
    }

    /// Returns a blob that was deleted.
    pub fn forgotten_blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.forgotten.get(&(repository.to_owned(), digest.to_owned())).cloned()
    }

    /// Returns a blob of any repository: the second host has no repositories.
    pub fn any_blob(&self, digest: &str) -> Option<Bytes> {
        self.blobs.iter().find(|((_, name), _)| name == digest).map(|(_, bytes)| bytes.clone())
    }

    /// Mounts a blob from another repository, if it exists.
    pub fn mount(&mut self, repository: &str, digest: &str, from: &str) -> bool {
        let found = self.blob(from, digest);
        let key = (repository.to_owned(), digest.to_owned());
        found.map(|bytes| self.blobs.insert(key, bytes)).is_some()
    }

    /// Returns a manifest by its tag or its digest.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Stored> {
        let digest = self.tags.get(&(repository.to_owned(), name.to_owned()));
        let digest = digest.cloned().unwrap_or_else(|| name.to_owned());
        self.manifests.get(&(repository.to_owned(), digest)).cloned()
    }

    /// Stores a manifest, or returns the code of the error.
    pub fn put_manifest(
        &mut self,
        repository: &str,
        name: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<String, &'static str> {
        let json: Value = serde_json::from_slice(&bytes).map_err(|_| "MANIFEST_INVALID")?;
        if json.get("mediaType").is_some_and(|own| own != media_type) {
            return Err("MANIFEST_INVALID");
        }
        let digest = digest_of(&bytes);
        if name.contains(':') && name != digest {
            return Err("DIGEST_INVALID");
        }
        let list = |key: &str| json.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let digest_in =
            |value: &Value| value.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
        let blobs = json.get("config").into_iter().cloned().chain(list("layers"));
        if blobs.map(|blob| digest_in(&blob)).any(|blob| self.blob(repository, &blob).is_none()) {
            return Err("MANIFEST_BLOB_UNKNOWN");
        }
        if list("manifests").iter().any(|one| self.manifest(repository, &digest_in(one)).is_none()) {
            return Err("MANIFEST_UNKNOWN");
        }
        self.store(repository, name, media_type, bytes, digest.clone());
        Ok(digest)
    }

    /// Returns the tags of a repository, if it exists.
    pub fn tags(&self, repository: &str) -> Option<Vec<String>> {
        let known = self.has_repository(repository);
        let tags = self.tags.keys().filter(|(name, _)| name == repository).map(|(_, tag)| tag.clone());
        known.then(|| tags.collect())
    }

    /// Returns whether a repository has a manifest.
    pub fn has_repository(&self, repository: &str) -> bool {
        self.manifests.keys().any(|(name, _)| name == repository)
    }

    /// Returns all manifests of a repository.
    pub fn manifests(&self, repository: &str) -> Vec<Stored> {
        let all = self.manifests.iter().filter(|((name, _), _)| name == repository);
        all.map(|(_, stored)| stored.clone()).collect()
    }

    /// Deletes a tag only.
    pub fn untag(&mut self, repository: &str, tag: &str) -> bool {
        self.tags.remove(&(repository.to_owned(), tag.to_owned())).is_some()
    }

    /// Deletes a manifest with all its tags.
    pub fn delete(&mut self, repository: &str, digest: &str) -> bool {
        self.tags.retain(|(name, _), meaning| name != repository || meaning != digest);
        self.manifests.remove(&(repository.to_owned(), digest.to_owned())).is_some()
    }

    /// Deletes what no tag and none of these manifests reaches, and all uploads.
    pub fn collect_garbage(&mut self, roots: &[String]) {
        let tagged = self.tags.iter().map(|((repository, _), digest)| (repository.clone(), digest.clone()));
        let roots = self.manifests.keys().filter(|(_, digest)| roots.contains(digest)).cloned();
        let (mut left, mut reached) = (tagged.chain(roots).collect::<Vec<Key>>(), HashSet::new());
        while let Some(key) = left.pop() {
            let document = self.manifests.get(&key).map(|stored| serde_json::from_slice(&stored.bytes));
            if !reached.insert(key.clone()) {
                continue;
            }
            let document: Value = document.and_then(Result::ok).unwrap_or_default();
            let lists = ["layers", "manifests"].iter().filter_map(|list| document.get(list)?.as_array());
            let referenced = lists.flatten().chain(document.get("config"));
            let digests = referenced.filter_map(|descriptor| descriptor.get("digest")?.as_str());
            left.extend(digests.map(|digest| (key.0.clone(), digest.to_owned())));
        }
        self.blobs.retain(|key, _| reached.contains(key));
        self.manifests.retain(|key, _| reached.contains(key));
        self.forgotten.clear();
        self.uploads.clear();
    }

    pub fn plant(&mut self, repository: &str, tag: &str, media_type: &str, bytes: Bytes) {
        let digest = digest_of(&bytes);
        self.store(repository, tag, media_type, bytes, digest);
    }

    fn store(&mut self, repository: &str, name: &str, media_type: &str, bytes: Bytes, digest: String) {
        if !name.contains(':') {
            self.tags.insert((repository.to_owned(), name.to_owned()), digest.clone());
        }
        let stored = Stored { media_type: media_type.to_owned(), bytes, digest: digest.clone() };
        self.manifests.insert((repository.to_owned(), digest), stored);
    }

    /// Damages the bytes and keeps the digest.
    pub fn damage(&mut self, digest: &str, damage: Damage) {
        let blobs = self.blobs.iter_mut().map(|((_, name), bytes)| (name, bytes));
        let manifests = self.manifests.iter_mut().map(|((_, name), stored)| (name, &mut stored.bytes));
        for (_, bytes) in blobs.chain(manifests).filter(|(name, _)| *name == digest) {
            let mut spoiled = bytes.to_vec();
            match damage {
                Damage::Flip => {
                    let middle = spoiled.len() / 2;
                    spoiled[middle] ^= 1;
                }
                Damage::Truncate => drop(spoiled.pop()),
                Damage::Extend => spoiled.push(b'\n'),
            }
            *bytes = spoiled.into();
        }
    }

    /// Begins an upload, and returns its name and its state.
    pub fn begin(&mut self, repository: &str) -> (String, usize) {
        self.begun += 1;
        let name = format!("upload-{}", self.begun);
        self.uploads
            .insert(name.clone(), Upload { repository: repository.to_owned(), bytes: Vec::new(), step: 1 });
        (name, 1)
    }

    /// Adds bytes to an upload and returns its new state; `None` if there is no such upload in this state.
    pub fn append(&mut self, name: &str, step: usize, bytes: &[u8]) -> Option<usize> {
        let upload = self.uploads.get_mut(name).filter(|upload| upload.step == step)?;
        upload.bytes.extend_from_slice(bytes);
        upload.step += 1;
        Some(upload.step)
    }

    /// Returns the length of an upload in this state.
    pub fn length(&self, name: &str, step: usize) -> Option<usize> {
        self.uploads.get(name).filter(|upload| upload.step == step).map(|upload| upload.bytes.len())
    }

    /// Goes back to the last state, because its client has not received the new one.
    pub fn step_back(&mut self, name: &str) {
        self.uploads.entry(name.to_owned()).and_modify(|upload| upload.step -= 1);
    }

    /// Ends an upload. It becomes a blob if its digest is right, and is deleted in any case. Returns the repository, or the
    /// code of the error.
    pub fn seal(
        &mut self,
        name: &str,
        step: usize,
        digest: &str,
        believe: bool,
    ) -> Result<String, &'static str> {
        let known = self.uploads.get(name).is_some_and(|upload| upload.step == step);
        let upload = self.uploads.remove(name).filter(|_| known).ok_or("BLOB_UPLOAD_UNKNOWN")?;
        let is_right = |digest: Digest| {
            let mut hasher = Hasher::new(digest.algorithm());
            hasher.update(&upload.bytes);
            hasher.finish() == digest
        };
        if !believe && !digest.parse().is_ok_and(is_right) {
            return Err("DIGEST_INVALID");
        }
        self.blobs.insert((upload.repository.clone(), digest.to_owned()), upload.bytes.into());
        Ok(upload.repository)
    }

    pub fn forget(&mut self, name: &str) -> bool {
        self.uploads.remove(name).is_some()
    }

    pub fn forget_uploads(&mut self) {
        self.uploads.clear();
    }

    pub fn open_uploads(&self) -> usize {
        self.uploads.len()
    }
}
