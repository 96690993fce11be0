//! Suggestions for tags and transports that are misspelt.

use super::{Workspace, assert_screen};
use crate::registry::{Pages, Registry};
use axum::http::Method;
use snapbox::str;
use std::fs;

/// A layout with five tags.
fn with_tags() -> Workspace {
    let tags = ["latest", "stable", "1.2.0", "1.2.1"];
    tags.into_iter().fold(Workspace::with_image(), |place, tag| {
        place.and(&format!("copy oci:layout:v1 oci:layout:{tag}"))
    })
}

/// A registry with these tags of `data`, and the paths of the lists of tags that it was asked for.
fn registry(place: &Workspace) -> Registry {
    let registry = Registry::start();
    for tag in ["v1", "latest", "stable", "1.2.0", "1.2.1"] {
        let pushed = place.run(place.volio(&format!("push oci:layout:v1 {}/data:{tag}", registry.host())));
        assert!(pushed.status.success(), "{pushed:?}");
    }
    registry
}

fn lists(registry: &Registry) -> Vec<String> {
    registry.paths(Method::GET).into_iter().filter(|path| path.contains("/tags/list")).collect()
}

#[test]
fn a_misspelt_tag_of_a_layout() {
    assert_screen(
        with_tags().screen("ls oci:layout:lastest"),
        str![[r#"
-- stderr
error: there is no image with the tag "lastest" in the layout layout
hint: did you mean latest? its tags are 1.2.0, 1.2.1, latest, stable, v1
-- exit 4

"#]],
    );
}

#[test]
fn a_misspelt_tag_of_an_archive() {
    let place = ["latest", "stable", "edge", "v1"].into_iter().fold(with_tags(), |place, tag| {
        let place = place.and(&format!("copy oci:layout:v1 oci-archive:image.tar:{tag}"));
        place.and(&format!("copy --platform linux/amd64 oci:layout:v1 docker-archive:docker.tar:data:{tag}"))
    });
    assert_screen(
        place.screen("unpack oci-archive:image.tar:stabel there"),
        str![[r#"
-- stderr
error: there is no image with the tag "stabel" in the archive image.tar
hint: did you mean stable? its tags are edge, latest, stable, v1
-- exit 4

"#]],
    );
    assert_screen(
        place.screen("cat docker-archive:docker.tar:data:lastest /hello"),
        str![[r#"
-- stderr
error: there is no image docker.io/library/data:lastest in the archive docker.tar
hint: did you mean docker.io/library/data:latest? its images are docker.io/library/data:latest, docker.io/library/data:stable, docker.io/library/data:edge, docker.io/library/data:v1
-- exit 4

"#]],
    );
}

#[test]
fn a_misspelt_tag_of_a_repository_costs_one_request() {
    let place = Workspace::with_image();
    let registry = registry(&place);
    let screen = |arguments: &str| {
        place.screen(&arguments.replace("HOST", registry.host())).replace(registry.host(), "HOST")
    };
    assert_screen(
        screen("inspect HOST/data:lastest"),
        str![[r#"
-- stderr
error: cannot find HOST/data:lastest: HOST answers 404 Not Found: MANIFEST_UNKNOWN: so says the test
hint: did you mean latest? volio tags HOST/data lists what is there
-- exit 4

"#]],
    );
    assert_eq!(lists(&registry).len(), 1);
    registry.behave(|behaviour| behaviour.pages = Pages::OfTwo);
    assert_screen(
        screen("copy HOST/data:1.2 oci:other"),
        str![[r#"
-- stderr
error: source: cannot find HOST/data:1.2: HOST answers 404 Not Found: MANIFEST_UNKNOWN: so says the test
hint: did you mean 1.2.0 or 1.2.1? volio tags HOST/data lists what is there
-- exit 4

"#]],
    );
    assert_eq!(lists(&registry).len(), 2, "the first page only");
}

#[test]
fn without_a_missing_tag_no_list_is_asked_for() {
    let place = Workspace::with_image();
    let registry = registry(&place);
    let screen = |arguments: &str| {
        place.screen(&arguments.replace("HOST", registry.host())).replace(registry.host(), "HOST")
    };
    let digest = "0".repeat(64);
    for arguments in ["ls HOST/data:v1 /none", &format!("ls HOST/data@sha256:{digest}"), "ls HOST/data:v1"] {
        let shown = screen(arguments);
        assert!(!shown.contains("did you mean"), "{shown}");
    }
    assert_eq!(lists(&registry), Vec::<String>::new());
    registry.behave(|behaviour| behaviour.pages = Pages::EndlessAddresses);
    let shown = screen("ls HOST/data:lastest");
    assert!(!shown.contains("did you mean") && shown.ends_with("-- exit 4\n"), "{shown}");
}

#[test]
fn a_misspelt_transport_before_a_path() {
    let place = Workspace::with_image();
    assert_screen(
        place.screen("ls oci-arhive:/tmp/image.tar:v1"),
        str![[r#"
-- stderr
error: <IMAGE>: "oci-arhive:/tmp/image.tar:v1" is not a reference to an image: "oci-arhive:" is not a host name with an optional port
hint: did you mean oci-archive:/tmp/image.tar:v1? write HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], or oci:DIRECTORY[:TAG]
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack OCI:backup:v1 tree"),
        str![[r#"
-- stderr
error: [IMAGE]: "OCI:backup:v1" is not a reference to an image: a repository is words of lower-case letters and digits, joined by '/', '.', '_', '__' or '-'
hint: did you mean oci:backup:v1? write HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], or oci:DIRECTORY[:TAG]
-- exit 2

"#]],
    );
}

#[test]
fn a_misspelt_transport_that_is_the_name_of_a_repository() {
    let place = Workspace::with_image();
    let registry = registry(&place);
    let conf = format!("[[registry]]\nprefix = \"docker.io\"\nlocation = \"{}\"\n", registry.host());
    fs::write(place.path().join("registries.conf"), conf).unwrap();
    let screen = |arguments: &str| {
        let mut command = place.volio(arguments);
        command.env("CONTAINERS_REGISTRIES_CONF", place.path().join("registries.conf"));
        place.screen_of(command).replace(registry.host(), "HOST")
    };
    assert_screen(
        screen("ls oci-arhive:image.tar"),
        str![[r#"
-- stderr
error: cannot find HOST/library/oci-arhive:image.tar: HOST answers 404 Not Found: MANIFEST_UNKNOWN: so says the test
hint: did you mean oci-archive:image.tar? volio tags HOST/library/oci-arhive lists what is there
-- exit 4

"#]],
    );
    let other = screen("ls alpine:image.tar");
    assert!(!other.contains("did you mean"), "{other}");
}
