//! Mirrors: read from first, passed over when they fail, never written to.

use super::{Registry, access};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use volio::oci::{Descriptor, media_type};
use volio::stream::Body;
use volio::transport::{Access, Destination, Location, Told, Transfer, fetch};

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

/// A registry that holds an image `mirror/a:t`, or only the manifest of it.
fn holding(blob: bool) -> Registry {
    let registry = Registry::start();
    registry.plant("mirror/a", "t", media_type::MANIFEST, MANIFEST);
    if blob {
        registry.client("mirror/a", "t").upload(Body::new(&b"data"[..])).unwrap();
    }
    registry
}

/// Access by a file that says that `original/mirror` has a mirror, and what is told meanwhile.
fn by_mirror(directory: &Path, original: &str, mirrors: &[&str]) -> (Access, Arc<Mutex<Vec<String>>>) {
    let file = directory.join("registries.conf");
    let mirrors: String = mirrors
        .iter()
        .map(|mirror| format!("[[registry.mirror]]\nlocation = \"{mirror}/mirror\"\n"))
        .collect();
    fs::write(&file, format!("[[registry]]\nlocation = \"{original}/mirror\"\n{mirrors}")).unwrap();
    let told = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&told);
    let listener = Told::new(move |remark| log.lock().unwrap().push(remark.to_owned()));
    let transfer = Transfer { told: listener, ..super::patient() };
    (Access { registries_conf: vec![file], transfer, ..Access::default() }, told)
}

fn image(registry: &Registry) -> Location {
    registry.location("mirror/a", "t")
}

fn data() -> Descriptor {
    Descriptor::of("application/octet-stream", b"data")
}

#[test]
fn an_image_comes_from_the_mirror_and_what_that_lacks_from_the_registry() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, original) = (holding(false), holding(true));
    let (access, told) = by_mirror(directory.path(), original.host(), &[mirror.host()]);
    let source = image(&original).source(&access).unwrap();
    let before = original.requests().len();
    assert_eq!(source.resolve().unwrap().bytes(), MANIFEST);
    assert_eq!(original.requests().len(), before);
    assert_eq!(fetch(source.as_ref(), &data()).unwrap().bytes(), b"data");
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn a_mirror_that_fails_is_told_once_and_asked_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let original = holding(true);
    let (access, told) = by_mirror(directory.path(), original.host(), &["localhost:1"]);
    let source = image(&original).source(&access).unwrap();
    assert_eq!(source.resolve().unwrap().bytes(), MANIFEST);
    assert_eq!(fetch(source.as_ref(), &data()).unwrap().bytes(), b"data");
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("the mirror localhost:1/mirror/a is passed over: "), "{told:?}");
}

#[test]
fn a_mirror_is_never_written_to_and_sees_no_credentials_of_the_registry() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, original) = (holding(true), holding(true));
    let (_credentials, with) = access(original.host(), "me:hunter2");
    mirror.behave(|behaviour| behaviour.login = super::Login::Basic { user: "me:hunter2" });
    original.behave(|behaviour| behaviour.login = super::Login::Basic { user: "me:hunter2" });
    let (access, told) = by_mirror(directory.path(), original.host(), &[mirror.host()]);
    let access = Access { credentials: with.credentials, ..access };
    let destination = image(&original).destination(&access).unwrap();
    destination.upload(Body::new(&b"more"[..])).unwrap();
    // Until now it was asked only for what it was given when the test began.
    let before = mirror.requests().len();
    assert_eq!(image(&original).source(&access).unwrap().resolve().unwrap().bytes(), MANIFEST);
    assert!(mirror.requests().len() > before);
    assert!(mirror.requests().iter().all(|request| request.header("authorization").is_none()));
    assert_eq!(told.lock().unwrap().len(), 1);
}
