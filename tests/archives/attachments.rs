//! Attachments, such as signatures, that are added to an archive without a change of its images.

use super::{blobs, copied, destination, source};
use crate::contract::publish;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;
use volio::oci::{CONTAINERD_NAME, Descriptor, Document, Manifest, SINCE, media_type};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::{Destination, fetch};

/// Stores a manifest with one blob that contains `word`, about `subject` if there is one.
fn attachment(to: &dyn Destination, word: &str, subject: Option<&Document>) -> Document {
    let blob = Descriptor::of("application/octet-stream", word.as_bytes());
    to.upload(Body::new(Cursor::new(word.to_owned()))).unwrap();
    let mut manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": "test/signature",
        "config": blob, "layers": [blob],
    });
    if let Some(subject) = subject {
        manifest["subject"] = serde_json::to_value(subject.descriptor()).unwrap();
    }
    let document = Document::new(media_type::MANIFEST, manifest.to_string().into_bytes());
    to.put_manifest(&document).unwrap();
    document
}

/// Returns all members with their contents, without the index.
fn members(file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(fs::File::open(file).unwrap());
    let read = |entry: std::io::Result<tar::Entry<'_, fs::File>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    };
    archive.entries().unwrap().map(read).filter(|(name, _)| name != "index.json").collect()
}

/// Adds members to an archive, as another program would.
fn add(file: &Path, added: &[(&str, &str)]) {
    let bytes = fs::read(file).unwrap();
    let mut end = bytes.len();
    while bytes[..end].ends_with(&[0; 512]) {
        end -= 512;
    }
    let mut archive = tar::Builder::new(bytes[..end].to_vec());
    for (name, content) in added {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    fs::write(file, archive.into_inner().unwrap()).unwrap();
}

#[test]
fn a_signature_is_added_to_an_archive_that_keeps_everything_else() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.tar");
    let name = |tag: &str| format!("oci-archive:{}{tag}", file.display());
    let to = destination(&name(":v1"));
    let image = publish(&*to, "first");
    let annotated =
        image.clone().annotated(CONTAINERD_NAME, "docker.io/library/data:v1").annotated("other", "kept");
    to.commit(&annotated.annotated(SINCE, "site.example/data:v0")).unwrap();
    publish(&*destination(&name(":v2")), "second");
    attachment(&*to, "a referrer that was there", Some(&image));
    to.publish_attachments().unwrap();
    add(&file, &[("manifest.json", "[]"), ("README", "of another program")]);
    let index = || -> serde_json::Value {
        let from = tar::Archive::new(fs::File::open(&file).unwrap())
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|entry| entry.path().unwrap() == Path::new("index.json"))
            .map(|entry| serde_json::from_reader(entry).unwrap());
        from.unwrap()
    };
    let (before, listed) = (members(&file), index());
    let tag = format!("sha256-{}.sig", image.descriptor().digest.hex());

    // The image is named by its only digest with that tag, by a tag that no image has, or committed again.
    for (round, (rest, is_committed)) in [(":v1", false), ("", false), (":v1", true)].into_iter().enumerate()
    {
        let to = destination(&name(rest));
        let signature = attachment(&*to, &format!("signature {round}"), None);
        to.attach(&tag, &signature).unwrap();
        let bundle = attachment(&*to, &format!("bundle {round}"), Some(&image));
        if is_committed {
            to.commit_unless_moved(&image, Some(&image.descriptor().digest)).unwrap();
        } else {
            to.publish_attachments().unwrap();
        }
        let from = source(&name(":v1"));
        assert_eq!(from.tagged(&tag).unwrap(), Some(signature.clone()));
        assert_eq!(from.resolve().unwrap(), image);
        assert_eq!(from.tags().unwrap(), [tag.as_str(), "v1", "v2"]);
        assert_eq!(from.referrers(&image.descriptor().digest).unwrap().len(), 2 + round);
        for document in [&signature, &bundle] {
            let layer = &Manifest::parse(document).unwrap().layers[0];
            from.open(layer).unwrap().verify(layer).drain().unwrap();
            fetch(&*from, document.descriptor()).unwrap();
        }
        let after = members(&file);
        assert!(before.iter().all(|member| after.contains(member)), "{round}: {:?}", blobs(&file));
        let (old, new) = (listed["manifests"].as_array().unwrap(), index());
        let new = new["manifests"].as_array().unwrap();
        // The annotation of an incomplete copy goes when the image is written again.
        let is_kept = |entry: &&serde_json::Value| is_committed || new.contains(entry);
        assert!(old.iter().all(|entry| is_kept(&entry)), "{round}: {new:?}");
    }
    let entry = index()["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["annotations"]["other"] == "kept")
        .cloned()
        .unwrap();
    assert_eq!(entry["annotations"][CONTAINERD_NAME], "docker.io/library/data:v1");
    assert_eq!(entry["annotations"].get(SINCE), None);
    // A signature that was replaced is gone, and with it its blob.
    assert_eq!(members(&file).len(), before.len() + 3 * 2 + 2);

    // Another image under the name ends the other lists, which do not name it.
    copied(&*source(&name(":v2")), &*destination(&name(":v3")), &Silent).unwrap();
    let names: Vec<String> = members(&file).into_iter().map(|(name, _)| name).collect();
    assert!(!names.contains(&"manifest.json".to_owned()) && names.contains(&"README".to_owned()));
}
