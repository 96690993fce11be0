//! zot.

use super::{Site, assert_screen, str};
use serde_json::json;
use volio::oci::media_type;

#[test]
fn a_registry_that_checks_the_types_of_requests_gets_the_right_ones() {
    let site = Site::new(|behaviour| behaviour.checks_types = true);
    site.round_trip();
    site.sign_and_verify();
}

#[test]
fn an_image_in_dockers_format_is_rejected_with_advice() {
    let site = Site::new(|behaviour| behaviour.checks_types = true);
    let config = site.place.blob(media_type::DOCKER_CONFIG, br#"{"architecture":"amd64","os":"linux"}"#);
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST, "config": config, "layers": []});
    let mut entry = site.place.blob(media_type::DOCKER_MANIFEST, manifest.to_string().as_bytes());
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "docker"});
    let Site { place, registry } = site;
    let place = place.with_index(|index| index["manifests"].as_array_mut().unwrap().push(entry));
    let site = Site { place, registry };
    assert_screen(
        site.screen("push oci:layout:docker HOST/a:v1"),
        str![[r#"
-- stderr
error: destination: cannot store the manifest sha256:[DIGEST] in HOST/a: HOST answers 415 Unsupported Media Type: MANIFEST_INVALID: so says the test
hint: if HOST accepts images in the OCI format only, skopeo copy --format oci converts them; zot has a setting for Docker's format (http.compat)
-- exit 1

"#]],
    );
}
