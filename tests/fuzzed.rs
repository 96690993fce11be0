//! Runs the targets of `fuzz/` with the fixtures, and with random mutations of them. This finds less than fuzzing, but it
//! shows that the targets compile and pass.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use proptest::prelude::*;
use std::fs;
use std::io::Read;
use std::path::Path;

/// Returns the fixtures for a target, decompressed.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let kind = match target {
        "archive" => "layers",
        "compressed" => "blobs",
        "images" => "layouts",
        "toc" => {
            let digest = format!("sha256:{}", "0".repeat(64));
            let entries = format!(
                "{{\"type\":\"dir\",\"name\":\"a/\",\"mode\":493}},\
                 {{\"type\":\"reg\",\"name\":\"a/b\",\"size\":1,\"digest\":\"{digest}\",\
                 \"offset\":8,\"chunkDigest\":\"{digest}\"}}"
            );
            return vec![format!("{{\"version\":1,\"entries\":[{entries}]}}").into(), b"8:20:40".to_vec()];
        }
        "policy" => {
            let identity =
                r#"{"type":"remapIdentity","prefix":"registry.example:5000","signedPrefix":"h.io"}"#;
            let signed =
                format!(r#"[{{"type":"sigstoreSigned","keyPath":"/a","signedIdentity":{identity}}}]"#);
            let policy = format!(
                r#"{{"default":{signed},"transports":{{"docker":{{"registry.example:5000":{signed}}}}}}}"#
            );
            return vec![format!("{policy}\0h.io/team/data:v1").into()];
        }
        "signatures" => return signatures(),
        "sha256" => {
            return vec![(0..=255).cycle().take(9000).collect(), [&[9; 28][..], &[b'x'; 700]].concat()];
        }
        _ => return vec![(0..=255).cycle().take(300).collect(), b"{}".to_vec()],
    };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hostile").join(kind);
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let plain = files.map(|file| {
        let bytes = fs::read(&file).unwrap();
        let mut plain = Vec::new();
        if file.extension().is_some_and(|extension| extension == "gz") {
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
        } else {
            plain = bytes;
        }
        plain
    });
    // The few large ones would take most of the time.
    plain.filter(|seed| seed.len() < 20_000).collect()
}

/// Returns keys, a payload, a bundle, and a manifest of signatures.
fn signatures() -> Vec<Vec<u8>> {
    let (private, public) =
        (include_str!("../fixtures/keys/signer.pem"), include_str!("../fixtures/keys/signer.pub"));
    let digest = volio::oci::Digest::of(b"");
    let payload = volio::trust::Payload { reference: "h.io/a:1".to_owned(), digest: digest.clone() };
    let bundle = volio::trust::Bundle::sign(&volio::SigningKey::from_pem(private).unwrap(), &digest);
    let config = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":""#;
    let layer = r#"{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":2,"digest":""#;
    let signature = r#""annotations":{"dev.cosignproject.cosign/signature":"MAYCAQECAQE="}"#;
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{config}{digest}"}},"layers":[{layer}{digest}",{signature}}}]}}"#
    );
    vec![private.into(), public.into(), payload.to_bytes(), bundle, manifest.into()]
}

/// Returns a seed with some bytes changed, and possibly without its end.
fn mutated(seed: &[u8], changes: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    if let Some(cut) = cut.filter(|_| !bytes.is_empty()) {
        bytes.truncate(cut.index(seed.len()));
    }
    for (at, byte) in changes {
        match bytes.len() {
            0 => bytes.push(*byte),
            length => bytes[at.index(length)] = *byte,
        }
    }
    bytes
}

fn fuzz(name: &str, cases: u32) {
    let (_, target) = targets::TARGETS.iter().find(|(found, _)| *found == name).unwrap();
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| target(seed));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let strategy = (
        prop::sample::select(seeds),
        prop::collection::vec(change, 0..8),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
        prop::option::weighted(0.3, prop::collection::vec(any::<u8>(), 0..400)),
    );
    proptest!(config, |((seed, changes, cut, random) in strategy)| {
        match random {
            Some(random) => target(&random),
            None => target(&mutated(&seed, &changes, cut)),
        }
    });
}

#[test]
fn archives_at_random_are_read_or_refused() {
    fuzz("archive", 500);
}

#[test]
fn compressed_blobs_at_random_are_read_or_refused() {
    fuzz("compressed", 300);
}

#[test]
fn documents_at_random_are_read_or_refused() {
    fuzz("documents", 300);
}

#[test]
fn names_at_random_are_read_or_refused() {
    fuzz("references", 1000);
}

#[test]
fn credentials_at_random_are_read_or_refused() {
    fuzz("credentials", 50);
}

#[test]
fn policies_at_random_are_read_or_refused() {
    fuzz("policy", 1000);
}

#[test]
fn signatures_at_random_are_refused() {
    fuzz("signatures", 1000);
}

#[test]
fn messages_at_random_have_the_same_digests_alone_and_together() {
    fuzz("sha256", 500);
}

#[test]
fn images_at_random_are_read_or_refused() {
    fuzz("images", 50);
}

#[test]
fn tables_of_contents_at_random_are_read_or_refused() {
    fuzz("toc", 300);
}

#[test]
fn images_at_random_are_synced_over_directories_at_random_as_they_are_unpacked() {
    fuzz("sync", 60);
}

#[test]
fn layers_at_random_are_extracted_as_by_the_oracle() {
    fuzz("extractor", 300);
}
