//! What fuzzing does with bytes, one function for each target. The same functions run on a stable toolchain in
//! `cargo test` (tests/fuzzed.rs), so that they never rot.
//!
//! A target fails when it panics; it uses the public API of volio and nothing else.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::panic)]

mod extractor;
mod layers;
mod toc;

pub use extractor::extractor;
pub use layers::{archive, compressed};
pub use toc::toc;

use std::fmt::{Debug, Display};
use std::fs;
use std::path::Path;
use std::str::FromStr;
use volio::image;
use volio::layer::Compression;
use volio::oci::{Config, Descriptor, Digest, Document, Index, Manifest, Platform, Reference, media_type};
use volio::progress::Silent;
use volio::transport::registry::Registry;
use volio::transport::{Access, CredentialSource, Location, Secret};
use volio::tree::TreePath;

/// What is done with bytes.
pub type Target = fn(&[u8]);

/// All targets by their names, for those who run all of them.
pub const TARGETS: &[(&str, Target)] = &[
    ("archive", archive),
    ("compressed", compressed),
    ("credentials", credentials),
    ("documents", documents),
    ("extractor", extractor),
    ("images", images),
    ("references", references),
    ("toc", toc),
];

/// JSON documents of images, as each kind that they could claim to be.
pub fn documents(bytes: &[u8]) {
    let kinds = [media_type::MANIFEST, media_type::INDEX, media_type::CONFIG, "application/json"];
    for kind in kinds {
        let document = Document::new(kind, bytes.to_vec());
        if let Ok(manifest) = Manifest::parse(&document) {
            let written = Document::write(kind, &manifest);
            let again = Document::write(kind, &Manifest::parse(&written).unwrap());
            assert_eq!(again, written);
        }
        if let Ok(index) = Index::parse(&document) {
            let written = Document::write(kind, &index);
            let again = Document::write(kind, &Index::parse(&written).unwrap());
            assert_eq!(again, written);
        }
        let _ = document.parse::<Config>();
        let _ = document.parse::<Descriptor>();
        // An index whose every entry is itself never ends by itself.
        let fetch = |_: &Descriptor| Ok(document.clone());
        let _ = image::select(&document, None, fetch);
        let _ = image::manifests(&document, fetch);
    }
}

/// What people and documents write for names.
pub fn references(bytes: &[u8]) {
    if let Some(path) = TreePath::parse(bytes) {
        assert!(
            path.names().all(|name| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0))
        );
        assert_eq!(TreePath::parse(path.as_bytes()), Some(path.clone()));
        assert!(!path.to_string().contains(volio::error::is_harmful));
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    reads_as_it_prints::<Reference>(text);
    reads_as_it_prints::<Digest>(text);
    reads_as_it_prints::<Platform>(text);
    reads_as_it_prints::<Compression>(text);
    let _ = text.parse::<Location>();
    if let Ok(digest) = text.parse::<Digest>() {
        assert!(!Path::new(&digest.hex()).components().any(|part| part.as_os_str() == ".."));
        assert!(!digest.hex().contains('/'), "a digest is no path");
    }
}

fn reads_as_it_prints<T: FromStr<Err: Debug> + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        // What was left out is printed, as a tag may be, and then stays as it is.
        let printed = value.to_string();
        assert_eq!(printed.parse::<T>().unwrap().to_string(), printed);
    }
}

/// Files with credentials and with mirrors, with a zero byte between them.
pub fn credentials(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (json, toml) = text.split_once('\0').unwrap_or((text, ""));
    let conf = tempfile::NamedTempFile::new().unwrap();
    fs::write(conf.path(), toml).unwrap();
    let source = CredentialSource::Text { name: "fuzzing".to_owned(), text: Secret::new(json) };
    let access = Access {
        credentials: vec![source],
        registries_conf: vec![conf.path().to_owned()],
        ..Access::default()
    };
    for name in ["registry.example/team/data:v1", "127.0.0.1:5000/a", "docker.io/library/b"] {
        let reference: Reference = name.parse().unwrap();
        // Nothing is connected to, and no helper is run, before something is asked.
        if let Err(error) = Registry::source(&reference, &access).map(drop) {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// Whole images in tar files, as a layout and as docker writes them.
pub fn images(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), layers::repaired(bytes)).unwrap();
    for kind in ["oci-archive", "docker-archive"] {
        let location: Location = format!("{kind}:{}", file.path().display()).parse().unwrap();
        let Ok(source) = location.source(&Access::default()) else { continue };
        let _ = volio::list::list(source.as_ref(), &volio::list::Options::default(), &Silent);
        let _ = volio::inspect::inspect(source.as_ref());
        let _ = volio::verify::verify(source.as_ref(), &Default::default(), &Silent);
        let _ = source.tags();
    }
}
