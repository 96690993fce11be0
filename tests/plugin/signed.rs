//! Volumes that are filled from signed images only.

use super::Service;
use crate::signatures::{public, signer};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use volio::progress::Silent;
use volio::sign::sign;
use volio::transport::{Access, Location};
use volio::{SignaturePolicy, Signer};

fn sign_image(image: &str, signer: &Signer) {
    let image: Location = image.parse().unwrap();
    let (from, to) = (image.source(&Access::default()), image.attachment_destination(&Access::default()));
    sign(&*from.unwrap(), &*to.unwrap(), signer, &Silent).unwrap();
}

fn key(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/keys/{name}.pub")).display().to_string()
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn a_volume_with_a_key_is_filled_only_from_an_image_that_the_key_has_signed() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image), ("verify-key", &key("signer"))]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("is not signed"), "{error}");
    assert!(is_empty(&service.volume("a")));
    sign_image(&image, &signer("other"));
    assert!(service.mount("a", "1").unwrap_err().contains("made by another key"));
    sign_image(&image, &signer("signer"));
    let path = service.mount("a", "1").unwrap();
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "one");
}

#[test]
fn a_newer_image_that_is_not_signed_does_not_replace_a_signed_one() {
    for policy in ["replace", "sync"] {
        let service = Service::start();
        let image = service.pack("v1", &[("file", "one")]);
        sign_image(&image, &signer("signer"));
        let options = [
            ("image", image.as_str()),
            ("pull", "newer"),
            ("policy", policy),
            ("verify-key", &key("signer")),
        ];
        service.create("a", &options);
        let path = service.mount("a", "1").unwrap();
        service.unmount("a", "1");
        service.pack("v1", &[("file", "from somebody else")]);
        assert!(service.mount("a", "2").unwrap_err().contains("is not signed"));
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "one");
    }
}

#[test]
fn a_key_of_the_plugin_is_required_beside_that_of_the_volume() {
    let service = Service::adjusted(|settings| {
        settings.signatures = Some(Arc::new(SignaturePolicy::from_keys(vec![public("signer")])));
    });
    let image = service.pack("v1", &[("file", "one")]);
    sign_image(&image, &signer("other"));
    service.create("a", &[("image", &image), ("verify-key", &key("other"))]);
    assert!(service.mount("a", "1").unwrap_err().contains("made by another key"));
    sign_image(&image, &signer("signer"));
    service.mount("a", "1").unwrap();
}

#[test]
fn a_key_that_is_not_a_full_path_is_refused_at_once() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    let options = json!({"image": image, "verify-key": "release.pub"});
    let (_, answer) = service.volio("Create", json!({"Name": "a", "Opts": options}));
    assert!(answer["Err"].as_str().unwrap().contains("full path"), "{answer}");
}
