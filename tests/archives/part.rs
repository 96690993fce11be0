//! Parts of images in archives, several images at once, and their referrers.

use super::{assert_unpacks, destination, location, pack, source, tree};
use serde_json::json;
use volio::copy::{Base, Options, copy, copy_tags};
use volio::error::Kind;
use volio::oci::{Descriptor, Document, media_type};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::{Access, Destination};

/// Returns a manifest that has this image as its subject, as a signature has.
fn signature(subject: &Descriptor) -> Document {
    let empty = Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": "text/signature",
        "config": empty, "layers": [], "subject": subject,
    });
    Document::write(media_type::MANIFEST, &manifest)
}

fn sign(to: &dyn Destination, image: &Document) -> Document {
    to.upload(Body::new(&b"{}"[..])).unwrap();
    let signature = signature(image.descriptor());
    to.put_manifest(&signature).unwrap();
    to.commit(image).unwrap();
    signature
}

#[test]
fn referrers_are_copied_into_an_archive_and_out_of_it() {
    let place = tempfile::tempdir().unwrap();
    let (layout, archive) = (
        format!("oci:{}/layout:v1", place.path().display()),
        format!("oci-archive:{}/a.tar:v1", place.path().display()),
    );
    pack(&layout, tree("signed").path()).unwrap();
    let image = source(&layout).resolve().unwrap();
    let signature = sign(&*destination(&layout), &image);

    let options = Options { referrers: true, ..Options::default() };
    for (from, to) in [(&layout, &archive), (&archive, &format!("oci:{}/back:v1", place.path().display()))] {
        let done = copy(&*source(from), &*destination(to), &options, &Silent).unwrap();
        assert_eq!(done.referrers, 1);
        let listed = source(to).referrers(&image.descriptor().digest).unwrap();
        assert_eq!(listed[0].digest, signature.descriptor().digest);
        assert_eq!(source(to).resolve().unwrap(), image);
        assert_eq!(source(to).tags().unwrap(), ["v1"]);
    }
    // Without a name, the image is selected and not its untagged referrer.
    let unnamed = archive.trim_end_matches(":v1");
    assert_eq!(source(unnamed).resolve().unwrap(), image);
    let to = destination(&format!("docker-archive:{}/d.tar", place.path().display()));
    assert_eq!(copy(&*source(&layout), &*to, &options, &Silent).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn all_tags_are_copied_into_archives_and_out_of_them() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", place.path().display());
    let trees = [tree("one"), tree("two")];
    for (tag, tree) in ["one", "two"].iter().zip(&trees) {
        pack(&format!("oci:{}:{tag}", at("layout")), tree.path()).unwrap();
    }
    for (from, to) in [
        ("oci:layout", "oci-archive:a.tar"),
        ("oci-archive:a.tar", "docker-archive:d.tar"),
        ("docker-archive:d.tar", "oci:back"),
    ] {
        let place = |text: &str| location(&text.replacen(':', &format!(":{}/", place.path().display()), 1));
        let (from, to) = (place(from), place(to));
        let tags = from.source(&Access::default()).unwrap().tags().unwrap();
        let open = |tag: &str| {
            let access = Access::default();
            Ok((from.with_tag(tag)?.source(&access)?, to.with_tag(tag)?.destination(&access)?))
        };
        let done = copy_tags(&tags, open, &Options::default(), &Silent).unwrap();
        assert!(done.len() == 2 && done.iter().all(|tag| tag.outcome.is_ok()), "{done:?}");
    }
    assert_unpacks(&format!("oci:{}:docker.io/library/one:latest", at("back")), trees[0].path());
    assert_unpacks(&format!("oci:{}:docker.io/library/two:latest", at("back")), trees[1].path());
}

#[test]
fn an_archive_for_an_air_gap_holds_only_what_the_other_side_lacks() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", place.path().display());
    let (tree, layout) = (tree("same"), format!("oci:{}:v1", at("layout")));
    pack(&layout, tree.path()).unwrap();
    let base = Base::read("registry.example/data", &*source(&layout)).unwrap();
    let options = Options { since: vec![base], ..Options::default() };
    let archive = format!("oci-archive:{}:v2", at("a.tar"));
    let done = copy(&*source(&layout), &*destination(&archive), &options, &Silent).unwrap();
    assert_eq!((done.blobs_omitted, done.blobs_copied), (1, 2));
    let inside = format!("oci:{}:v2", at("inside"));
    let error = copy(&*source(&archive), &*destination(&inside), &Options::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint().unwrap().contains("registry.example/data@sha256:"), "{error:?}");
    let to = destination(&format!("docker-archive:{}", at("d.tar")));
    assert_eq!(copy(&*source(&layout), &*to, &options, &Silent).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn one_platform_is_chosen_for_an_archive_of_docker() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", place.path().display());
    let layout = format!("oci:{}:v1", at("layout"));
    pack(&layout, tree("x").path()).unwrap();
    let copied = |platforms: &[&str]| {
        let platforms = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
        let options = Options { platforms, ..Options::default() };
        copy(&*source(&layout), &*destination(&format!("docker-archive:{}", at("d.tar"))), &options, &Silent)
    };
    assert_eq!(copied(&["linux/arm64", "linux/amd64"]).unwrap_err().kind(), Kind::Usage);
    assert_eq!(copied(&["linux/s390x"]).unwrap_err().kind(), Kind::NotFound);
    copied(&["linux/arm64"]).unwrap();
    let inspected = volio::inspect::inspect(&*source(&format!("docker-archive:{}", at("d.tar")))).unwrap();
    assert_eq!(inspected.images[0].platform.to_string(), "linux/arm64");
}

#[test]
fn an_archive_is_not_packed_into_itself() {
    let tree = tree("x");
    for scheme in ["oci-archive", "docker-archive"] {
        let error = pack(&format!("{scheme}:{}/a.tar", tree.path().display()), tree.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
        assert_eq!(std::fs::read_dir(tree.path()).unwrap().count(), 1);
    }
}
