//! Sonatype Nexus, and other registries that do not accept every form of an image.

use super::{Site, assert_screen, str};
use crate::registry::{Lengths, Login};
use volio::oci::media_type;

#[test]
fn a_registry_that_requires_the_length_of_every_request_gets_it() {
    let site = Site::new(|behaviour| {
        behaviour.login = Login::Basic { user: "me:hunter2" };
        behaviour.lengths = Lengths::All;
    });
    let screen = site.screen("pack --retry-delay 0 HOST/a:v1 tree");
    assert!(screen.ends_with("-- exit 0\n"), "{screen}");
    site.reads("a:v1");
    site.succeeds("copy HOST/a:v1 HOST/b:v1");
    site.succeeds("sign --key signer.pem HOST/a:v1");
    let requests = site.registry.requests();
    let is_rejected = |request: &&crate::registry::Recorded| {
        ["POST", "PUT", "PATCH"].contains(&request.method.as_str())
            && request.header("content-length").is_none()
    };
    assert!(requests.iter().filter(is_rejected).count() <= 1, "only the first stream has none");
}

#[test]
fn a_registry_without_indexes_is_explained_and_gets_an_image_for_one_platform() {
    let site = Site::new(|behaviour| behaviour.unsupported_type = Some((media_type::INDEX, 400)));
    assert_screen(
        site.screen("pack --quiet HOST/a:v1 tree"),
        str![[r#"
-- stderr
error: cannot store the manifest sha256:[DIGEST] in HOST/a: HOST answers 400 Bad Request: MANIFEST_INVALID: so says the test
hint: if HOST accepts no indexes, pack or copy with one platform makes an image without one: --platform linux/amd64
-- exit 1

"#]],
    );
    assert_eq!(site.registry.stored_tags("a"), Vec::<String>::new());
    site.succeeds("pack --platform linux/amd64 HOST/a:v1 tree");
    site.succeeds("push --platform linux/amd64 oci:layout:v1 HOST/a:v2");
    assert_eq!(site.registry.stored_tags("a"), ["v1", "v2"]);
}

#[test]
fn a_registry_without_zstd_is_explained_and_gets_gzip() {
    for status in [400, 415] {
        let site = Site::new(|behaviour| behaviour.unsupported_type = Some((media_type::LAYER_ZSTD, status)));
        let screen = site.screen("pack --quiet HOST/a:v1 tree");
        assert!(screen.ends_with("-- exit 1\n"), "{screen}");
        let hint = "hint: if HOST accepts no layers with zstd, pack with --compression gzip makes others\n";
        assert!(screen.contains(hint), "{screen}");
        site.succeeds("pack --compression gzip HOST/a:v1 tree");
        site.succeeds("unpack HOST/a:v1 out");
    }
}
