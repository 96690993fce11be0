//! The fuzzing targets, a function for each. The same functions run on a stable toolchain in `cargo test`
//! (tests/fuzzed.rs), so that they keep working.
//!
//! A target fails if it panics. It uses only the public API of volio.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::panic)]

mod extractor;
mod layers;
mod policy;
mod sha256;
mod signatures;
mod sync;
mod toc;

pub use extractor::extractor;
pub use layers::{archive, compressed};
pub use policy::policy;
pub use sha256::sha256;
pub use signatures::signatures;
pub use sync::sync;
pub use toc::toc;

use std::fmt::{Debug, Display};
use std::fs;
use std::path::Path;
use std::str::FromStr;
use volio::image::{self, Image, ReadOptions};
use volio::layer::Compression;
use volio::oci::{
    Descriptor, Digest, Document, ImageConfig, Index, Manifest, Platform, Reference, media_type,
};
use volio::progress::Silent;
use volio::transport::memory::Memory;
use volio::transport::registry::Registry;
use volio::transport::{Access, CredentialSource, Location, Secret};
use volio::tree::TreePath;

/// A fuzzing target.
pub type Target = fn(&[u8]);

/// All targets by their names.
pub const TARGETS: &[(&str, Target)] = &[
    ("archive", archive),
    ("compressed", compressed),
    ("credentials", credentials),
    ("documents", documents),
    ("extractor", extractor),
    ("images", images),
    ("policy", policy),
    ("references", references),
    ("sha256", sha256),
    ("signatures", signatures),
    ("sync", sync),
    ("toc", toc),
];

/// Parses JSON documents of images as each kind.
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
        let _ = document.parse::<ImageConfig>();
        let _ = document.parse::<Descriptor>();
        let source = Memory::default().named("fuzzing:1");
        let _ = Image::open_resolved(document.clone(), &source, &ReadOptions::default(), &Silent);
        let _ = image::manifests(&document, &source);
    }
}

/// Parses names that users and documents write.
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
        assert!(!digest.hex().contains('/'), "a digest is a single path component");
    }
}

fn reads_as_it_prints<T: FromStr<Err: Debug> + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        // Omitted parts, such as a tag, are printed, and then the text stays the same.
        let printed = value.to_string();
        assert_eq!(printed.parse::<T>().unwrap().to_string(), printed);
    }
}

/// Reads a file with credentials and one with mirrors. A zero byte separates them.
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
        // No connection is made and no helper is run before the first request.
        if let Err(error) = Registry::source(&reference, &access).map(drop) {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// Reads whole images in tar files, as a layout and as an archive of docker.
pub fn images(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), layers::repaired(bytes)).unwrap();
    for kind in ["oci-archive", "docker-archive"] {
        let location: Location = format!("{kind}:{}", file.path().display()).parse().unwrap();
        let Ok(source) = location.source(&Access::default()) else { continue };
        let _ = volio::list::list(source.as_ref(), &ReadOptions::default(), &Silent);
        let _ = volio::inspect::inspect(source.as_ref());
        let _ = volio::verify::verify(source.as_ref(), &Default::default(), &Silent);
        let _ = source.tags();
    }
}
