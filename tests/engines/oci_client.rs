//! oci-client, the registry client of many Rust programs, reads what volio pushed.

use super::fixture::Directory;
use super::program::volio;
use super::services::repository;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciManifest;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use sha2::{Digest, Sha256};

#[tokio::test]
#[ignore = "needs docker-registry: run tests/run"]
async fn oci_client_pulls_the_manifests_and_layers_that_volio_pushed() {
    let source = Directory::filled();
    let image = repository("oci-client:1");
    let digest = volio(&["pack", &image, source.text()]).digest();

    // reqwest needs a provider of cryptography even for plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
    let reference: Reference = image.parse().expect("a reference");
    let (manifest, seen) =
        client.pull_manifest(&reference, &RegistryAuth::Anonymous).await.expect("the index");
    assert_eq!(seen, digest);
    let OciManifest::ImageIndex(index) = manifest else {
        panic!("two platforms need an index: {manifest:?}")
    };
    assert_eq!(index.manifests.len(), 2);

    for entry in index.manifests {
        let one = reference.clone_with_digest(entry.digest.clone());
        let (manifest, seen) =
            client.pull_image_manifest(&one, &RegistryAuth::Anonymous).await.expect("a manifest");
        assert_eq!(seen, entry.digest);
        assert!(!manifest.layers.is_empty());
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            let mut content = Vec::new();
            client.pull_blob(&one, blob, &mut content).await.expect("a blob");
            assert_eq!(i64::try_from(content.len()).ok(), Some(blob.size));
            let hex: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(format!("sha256:{hex}"), blob.digest);
        }
    }
}
