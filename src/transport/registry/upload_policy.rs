//! What registries take, and how: what is known of them beforehand, and what one of them has taught us.

use std::sync::{Mutex, MutexGuard, PoisonError};

const MIB: u64 = 1 << 20;
/// The size of chunks when something calls for chunks and nothing says how large.
pub(super) const CHUNK: u64 = 16 * MIB;
/// The smallest chunk that is tried: nginx takes 1 MiB where nobody has set it up, and some networks less.
const LEAST: u64 = MIB / 4;

/// What is known of a registry, by its host. Where there is no line, a registry takes anything.
#[derive(Debug, PartialEq, Eq)]
struct Quirk {
    /// The host's name, or its end with a `*` before it.
    host: &'static str,
    /// Takes blobs in one piece only.
    whole_only: bool,
    /// The least that a chunk may have, but for the last, in bytes.
    least: u64,
    /// The most that a chunk may have, in bytes.
    most: u64,
}

const ANY: Quirk = Quirk { host: "*", whole_only: false, least: 0, most: u64::MAX };

/// Where the facts come from: the issue trackers of other clients, and the registries' own documentation.
#[rustfmt::skip]
const QUIRKS: &[Quirk] = &[
    // A chunk above 4 MiB is answered with 416; one PUT of any size is fine.
    Quirk { host: "ghcr.io", most: 4 * MIB, ..ANY },
    // "Does not support Docker chunked uploads."
    Quirk { host: "gcr.io", whole_only: true, ..ANY },
    Quirk { host: "*.gcr.io", whole_only: true, ..ANY },
    Quirk { host: "*.pkg.dev", whole_only: true, ..ANY },
    // Parts of 5 to 10 MiB; answers 201 to each, and says stale ranges.
    Quirk { host: "*.amazonaws.com", least: 5 * MIB, most: 10 * MIB, ..ANY },
    Quirk { host: "public.ecr.aws", least: 5 * MIB, most: 10 * MIB, ..ANY },
    // May response 413 to a PUT above 20 MB; its own tools send 4 MB at a time.
    Quirk { host: "*.azurecr.io", most: 4 * MIB, ..ANY },
];

/// How a registry wants to be sent blobs.
pub(super) struct UploadPolicy {
    quirk: &'static Quirk,
    learned: Mutex<Learned>,
}

#[derive(Clone, Copy, Default)]
struct Learned {
    /// The size of chunks, once they are called for.
    chunk: Option<u64>,
}

impl UploadPolicy {
    /// What is known beforehand, and what the user knows.
    pub(super) fn new(host: &str, chunk: Option<u64>) -> Self {
        let quirk = QUIRKS.iter().find(|quirk| quirk.is_about(host)).unwrap_or(&ANY);
        let chunk = chunk.filter(|_| !quirk.whole_only).map(|chunk| quirk.fit(chunk.max(1)));
        Self { quirk, learned: Mutex::new(Learned { chunk }) }
    }

    /// The size of the chunks that it wants; `None` where blobs go in one piece.
    pub(super) fn chunk(&self) -> Option<u64> {
        self.learned().chunk
    }

    /// Learns that a request with so many bytes was too large, or that its connection did not last. Says whether a
    /// smaller one makes sense; what is learned serves all blobs that follow.
    pub(super) fn learn(&self, request: u64, connection: bool) -> bool {
        if self.quirk.whole_only {
            return false;
        }
        let mut learned = self.learned();
        // Several blobs may have made the same experience at once.
        let guess = match learned.chunk {
            Some(chunk) if request > chunk => chunk,
            // A connection that broke after so many bytes carries a quarter of them with some certainty.
            None if connection => (request / 4).clamp(4 * MIB, CHUNK),
            _ if connection => (request / 2).clamp(MIB, CHUNK),
            _ => (request / 2).min(CHUNK),
        };
        let chunk = self.quirk.fit(guess);
        let smaller = chunk >= LEAST && (chunk < request || learned.chunk.is_none());
        if smaller {
            learned.chunk = Some(chunk);
        }
        smaller
    }

    /// Whether a blob comes in one piece only, and so from its beginning.
    pub(super) fn takes_parts(&self) -> bool {
        !self.quirk.whole_only
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many bytes an upload has, by the `Range` that a registry says of it: `0-LAST`, where `0-0` stands for one byte as
/// well as for none. Quay, wherever it runs, is the one that writes a unit before it, and then the number of bytes.
pub(super) fn received(range: &str) -> Option<u64> {
    let range = range.trim();
    let bare = range.trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    match bare.split_once('-')? {
        ("0", "0" | "-1") => Some(0),
        ("0", count) if bare.len() < range.len() => count.parse().ok(),
        ("0", last) => last.parse::<u64>().ok()?.checked_add(1),
        _ => None,
    }
}

impl Quirk {
    fn is_about(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            Some(end) => host.ends_with(end),
            None => host == self.host,
        }
    }

    fn fit(&self, chunk: u64) -> u64 {
        chunk.max(self.least).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_for(host: &str, chunk: u64) -> Option<u64> {
        UploadPolicy::new(host, Some(chunk)).chunk()
    }

    #[test]
    fn ghcr_gets_chunks_of_4_mib_at_most() {
        assert_eq!(asked_for("ghcr.io", 100 * MIB), Some(4 * MIB));
        assert_eq!(asked_for("not-ghcr.io", 100 * MIB), Some(100 * MIB));
    }

    #[test]
    fn google_gets_no_chunks() {
        for host in ["gcr.io", "eu.gcr.io", "europe-docker.pkg.dev"] {
            assert_eq!(asked_for(host, MIB), None, "{host}");
            assert!(!UploadPolicy::new(host, None).learn(1 << 30, false), "{host}");
        }
        assert_eq!(asked_for("evilgcr.io", MIB), Some(MIB));
    }

    #[test]
    fn ecr_gets_chunks_of_5_to_10_mib() {
        for host in ["123.dkr.ecr.eu-west-1.amazonaws.com", "public.ecr.aws"] {
            assert_eq!(asked_for(host, 1), Some(5 * MIB));
            assert_eq!(asked_for(host, 100 * MIB), Some(10 * MIB));
            assert!(!UploadPolicy::new(host, Some(1)).learn(5 * MIB, false), "smaller ones are not taken");
        }
    }

    #[test]
    fn acr_gets_small_chunks_when_a_put_is_too_large() {
        let upload_policy = UploadPolicy::new("volio.azurecr.io", None);
        assert!(upload_policy.learn(100 * MIB, false));
        assert_eq!(upload_policy.chunk(), Some(4 * MIB));
    }

    #[test]
    fn quay_says_how_many_and_others_say_which_was_the_last() {
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
            assert_eq!(received(range), bytes, "{range}");
        }
    }

    #[test]
    fn what_is_too_large_gets_smaller_until_it_makes_no_sense() {
        let upload_policy = UploadPolicy::new("r.io", None);
        let mut request = 100 * MIB;
        let mut chunks = Vec::new();
        while upload_policy.learn(request, false) {
            request = upload_policy.chunk().unwrap();
            chunks.push(request);
        }
        assert_eq!(chunks, [16 * MIB, 8 * MIB, 4 * MIB, 2 * MIB, MIB, MIB / 2, MIB / 4]);
    }

    #[test]
    fn what_was_learned_by_one_blob_is_not_learned_twice_by_its_neighbour() {
        let upload_policy = UploadPolicy::new("r.io", None);
        assert!(upload_policy.learn(20 * MIB, true));
        assert!(upload_policy.learn(18 * MIB, true));
        assert_eq!(upload_policy.chunk(), Some(5 * MIB));
    }
}
