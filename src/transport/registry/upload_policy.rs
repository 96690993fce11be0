//! Limits of registries on uploads: those that are known in advance, and those that were learned from errors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MIB: u64 = 1 << 20;
/// The chunk size in bytes if chunks are needed and nothing says how large.
const DEFAULT_CHUNK: u64 = 16 * MIB;
/// The minimum chunk size in bytes: nginx accepts 1 MiB by default, and some networks less.
const MIN_CHUNK: u64 = MIB / 4;

/// The limits of the registries with a host.
#[derive(Debug, PartialEq, Eq)]
struct UploadLimits {
    /// The name of the host, or `*` and the end of the name.
    host: &'static str,
    /// Blobs have to be uploaded whole.
    whole_only: bool,
    /// The minimum size of a chunk in bytes, except the last.
    min_chunk: u64,
    /// The maximum size of a chunk in bytes.
    max_chunk: u64,
}

const NO_LIMITS: UploadLimits =
    UploadLimits { host: "*", whole_only: false, min_chunk: 0, max_chunk: u64::MAX };

/// The known limits, from the issue trackers of other clients and the documentation of the registries.
#[rustfmt::skip]
const KNOWN_LIMITS: &[UploadLimits] = &[
    // Answers 416 to a chunk above 4 MiB, and accepts one PUT of any size.
    UploadLimits { host: "ghcr.io", max_chunk: 4 * MIB, ..NO_LIMITS },
    // "Does not support Docker chunked uploads."
    UploadLimits { host: "gcr.io", whole_only: true, ..NO_LIMITS },
    UploadLimits { host: "*.gcr.io", whole_only: true, ..NO_LIMITS },
    UploadLimits { host: "*.pkg.dev", whole_only: true, ..NO_LIMITS },
    // Parts of 5 to 10 MiB. Answers 201 to each, with outdated ranges.
    UploadLimits { host: "*.amazonaws.com", min_chunk: 5 * MIB, max_chunk: 10 * MIB, ..NO_LIMITS },
    UploadLimits { host: "public.ecr.aws", min_chunk: 5 * MIB, max_chunk: 10 * MIB, ..NO_LIMITS },
    // May answer 413 to a PUT above 20 MB. Its own tools send 4 MB at a time.
    UploadLimits { host: "*.azurecr.io", max_chunk: 4 * MIB, ..NO_LIMITS },
];

/// The way in which blobs are uploaded to a registry. What one upload learns applies to all that follow.
pub(super) struct UploadPolicy {
    limits: &'static UploadLimits,
    /// The chunk size, if blobs are uploaded in chunks.
    chunk_size: Mutex<Option<u64>>,
    /// The minimum size of a chunk in bytes, except the last, that the registry has announced.
    min_chunk: AtomicU64,
}

/// The reason for smaller chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The registry rejected the size of a request.
    TooLarge,
    /// The connection broke.
    ConnectionLost,
}

impl UploadPolicy {
    /// Returns the policy for a host, with the chunk size that the user chose, if any.
    pub(super) fn new(host: &str, chunk_size: Option<u64>) -> Self {
        let limits = KNOWN_LIMITS.iter().find(|limits| limits.apply_to(host)).unwrap_or(&NO_LIMITS);
        let chunk_size = chunk_size.filter(|_| !limits.whole_only).map(|size| limits.clamp(size.max(1)));
        Self { limits, chunk_size: Mutex::new(chunk_size), min_chunk: AtomicU64::new(0) }
    }

    /// Returns the chunk size in bytes; `None` if blobs are uploaded whole.
    pub(super) fn chunk_size(&self) -> Option<u64> {
        self.lock().map(|size| self.clamp(size))
    }

    /// Returns the chunk size in bytes if a blob has to be uploaded in chunks, and nothing says how large.
    pub(super) fn default_chunk(&self) -> u64 {
        self.clamp(DEFAULT_CHUNK)
    }

    /// Sets the minimum size of a chunk that the registry announces (`OCI-Chunk-Min-Length`).
    pub(super) fn set_min_chunk(&self, size: u64) {
        self.min_chunk.store(size, Ordering::Relaxed);
    }

    fn clamp(&self, chunk: u64) -> u64 {
        self.limits.clamp(chunk.max(self.min_chunk.load(Ordering::Relaxed)))
    }

    /// Reduces the chunk size after a request of `size` bytes failed. Returns whether a retry makes sense.
    pub(super) fn reduce_chunks(&self, size: u64, cause: Cause) -> bool {
        if self.limits.whole_only {
            return false;
        }
        let mut chunk_size = self.lock();
        let guess = match (*chunk_size, cause) {
            // Another upload has failed at the same time and reduced the size already.
            (Some(reduced), _) if size > reduced => reduced,
            // A quarter of the bytes after which a connection broke should get through.
            (None, Cause::ConnectionLost) => (size / 4).clamp(4 * MIB, DEFAULT_CHUNK),
            (Some(_), Cause::ConnectionLost) => (size / 2).clamp(MIB, DEFAULT_CHUNK),
            (_, Cause::TooLarge) => (size / 2).min(DEFAULT_CHUNK),
        };
        let reduced = self.clamp(guess);
        let is_progress = reduced >= MIN_CHUNK && (reduced < size || chunk_size.is_none());
        if is_progress {
            *chunk_size = Some(reduced);
        }
        is_progress
    }

    /// Returns whether the registry supports chunks, and thereby resuming an upload.
    pub(super) fn supports_chunks(&self) -> bool {
        !self.limits.whole_only
    }

    fn lock(&self) -> MutexGuard<'_, Option<u64>> {
        self.chunk_size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parses the number of received bytes in the `Range` header of a session. The format is `0-LAST`, where `0-0` means one
/// byte or none. Quay, on any host, writes a unit before it, and then the number of bytes.
pub(super) fn parse_offset(range: &str) -> Option<u64> {
    let range = range.trim();
    let bare = range.trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    match bare.split_once('-')? {
        ("0", "0" | "-1") => Some(0),
        ("0", count) if bare.len() < range.len() => count.parse().ok(),
        ("0", last) => last.parse::<u64>().ok()?.checked_add(1),
        _ => None,
    }
}

impl UploadLimits {
    fn apply_to(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            Some(end) => host.ends_with(end),
            None => host == self.host,
        }
    }

    fn clamp(&self, chunk: u64) -> u64 {
        chunk.max(self.min_chunk).min(self.max_chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk_size(host: &str, chunk: u64) -> Option<u64> {
        UploadPolicy::new(host, Some(chunk)).chunk_size()
    }

    #[test]
    fn ghcr_gets_chunks_of_4_mib_at_most() {
        assert_eq!(chunk_size("ghcr.io", 100 * MIB), Some(4 * MIB));
        assert_eq!(chunk_size("not-ghcr.io", 100 * MIB), Some(100 * MIB));
    }

    #[test]
    fn google_gets_no_chunks() {
        for host in ["gcr.io", "eu.gcr.io", "europe-docker.pkg.dev"] {
            assert_eq!(chunk_size(host, MIB), None, "{host}");
            assert!(!UploadPolicy::new(host, None).reduce_chunks(1 << 30, Cause::TooLarge), "{host}");
        }
        assert_eq!(chunk_size("evilgcr.io", MIB), Some(MIB));
    }

    #[test]
    fn ecr_gets_chunks_of_5_to_10_mib() {
        for host in ["123.dkr.ecr.eu-west-1.amazonaws.com", "public.ecr.aws"] {
            assert_eq!(chunk_size(host, 1), Some(5 * MIB));
            assert_eq!(chunk_size(host, 100 * MIB), Some(10 * MIB));
            assert!(
                !UploadPolicy::new(host, Some(1)).reduce_chunks(5 * MIB, Cause::TooLarge),
                "smaller ones are rejected"
            );
        }
    }

    #[test]
    fn acr_gets_small_chunks_when_a_put_is_too_large() {
        let policy = UploadPolicy::new("volio.azurecr.io", None);
        assert!(policy.reduce_chunks(100 * MIB, Cause::TooLarge));
        assert_eq!(policy.chunk_size(), Some(4 * MIB));
    }

    #[test]
    fn quay_names_a_count_and_others_name_the_last_byte() {
        for (range, bytes) in [
            ("bytes=0-7", Some(7)),
            ("bytes=0--1", Some(0)),
            ("bytes 0-7", Some(7)),
            ("bytes=0-0", Some(0)),
            ("0-6", Some(7)),
            ("0-0", Some(0)),
            ("3-6", None),
            ("0-x", None),
            ("0-18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(parse_offset(range), bytes, "{range}");
        }
    }

    #[test]
    fn chunks_are_not_smaller_than_the_registry_announces() {
        let policy = UploadPolicy::new("r.io", Some(MIB));
        policy.set_min_chunk(5 * MIB);
        assert_eq!(policy.chunk_size(), Some(5 * MIB));
        assert!(!policy.reduce_chunks(5 * MIB, Cause::TooLarge));
        let ghcr = UploadPolicy::new("ghcr.io", Some(MIB));
        ghcr.set_min_chunk(u64::MAX);
        assert_eq!(ghcr.chunk_size(), Some(4 * MIB), "its known limit");
    }

    #[test]
    fn chunks_shrink_to_a_minimum() {
        let policy = UploadPolicy::new("r.io", None);
        let mut request = 100 * MIB;
        let mut chunks = Vec::new();
        while policy.reduce_chunks(request, Cause::TooLarge) {
            request = policy.chunk_size().unwrap();
            chunks.push(request);
        }
        assert_eq!(chunks, [16 * MIB, 8 * MIB, 4 * MIB, 2 * MIB, MIB, MIB / 2, MIB / 4]);
    }

    #[test]
    fn two_uploads_that_fail_at_once_halve_the_chunk_size_once() {
        let policy = UploadPolicy::new("r.io", None);
        assert!(policy.reduce_chunks(20 * MIB, Cause::ConnectionLost));
        assert!(policy.reduce_chunks(18 * MIB, Cause::ConnectionLost));
        assert_eq!(policy.chunk_size(), Some(5 * MIB));
    }
}
