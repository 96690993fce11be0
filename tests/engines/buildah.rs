//! buildah. Its layers are changes against a base, with whiteouts, as in images that people build.

use std::fs;
use std::path::Path;

use super::fixture::Directory;
use super::program::{tool, volio};
use super::services::repository;
use super::survey::Survey;

fn buildah(arguments: &[&str]) -> String {
    tool("buildah", arguments)
}

#[test]
#[ignore = "needs docker-registry, buildah and root: run tests/run"]
fn volio_unpacks_an_image_of_buildah_with_whiteouts() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let layout = format!("oci:{}", work.join("layout"));

    // The first layer.
    let container = buildah(&["from", "scratch"]);
    let mounted = buildah(&["mount", &container]);
    tool("cp", &["--archive", &source.join("."), &mounted]);
    let base = buildah(&["commit", "--quiet", &container, "localhost/volio-base:1"]);
    buildah(&["rm", &container]);

    // The second layer: a deleted file, a deleted directory, a replaced (opaque) directory, and a changed file.
    let container = buildah(&["from", &base]);
    let mounted = buildah(&["mount", &container]);
    let root = Path::new(&mounted);
    fs::remove_file(root.join("setuid")).expect("rm");
    fs::remove_dir_all(root.join("links")).expect("rm -r");
    fs::remove_dir_all(root.join("directory")).expect("rm -r");
    fs::create_dir(root.join("directory")).expect("mkdir");
    fs::write(root.join("directory/new"), "new\n").expect("write");
    fs::write(root.join("file"), "changed\n").expect("write");
    let (in_layout, in_registry) = (format!("{layout}:whole"), repository("buildah:whole"));
    buildah(&["commit", "--quiet", &container, &in_layout]);
    buildah(&["commit", "--quiet", "--tls-verify=false", &container, &format!("docker://{in_registry}")]);
    // buildah's layers have whole seconds and no entry for the root.
    let expected = Survey::of(root).whole_seconds().below_the_root();
    buildah(&["rm", &container]);
    let manifest = tool("skopeo", &["inspect", &in_layout]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["Layers"].as_array().map(Vec::len), Some(2), "{manifest}");
    assert!(expected.has("directory/new") && !expected.has("directory/big") && !expected.has("setuid"));

    for image in [in_layout, in_registry] {
        let target = Directory::empty();
        volio(&["unpack", &image, target.text()]).succeeded();
        expected.assert_same(&Survey::of(target.path()).whole_seconds().below_the_root());
    }
}
