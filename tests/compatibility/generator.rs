//! Writes images without volio: tar archives by the crate `tar`, documents as JSON.

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// A tar archive under construction. Names are written as they are given, which the crate's own methods would correct.
pub struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Tar {
        Tar(Builder::new(Vec::new()))
    }

    pub fn dir(self, name: &str, mtime: u64) -> Tar {
        self.entry(EntryType::Directory, name, "", 0o755, mtime, "")
    }

    pub fn file(self, name: &str, content: &str, mtime: u64) -> Tar {
        self.entry(EntryType::Regular, name, content, 0o444, mtime, "")
    }

    pub fn whiteout(self, name: &str) -> Tar {
        self.entry(EntryType::Regular, name, "", 0, 0, "")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.entry(EntryType::Link, name, "", 0o444, 0, target)
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(EntryType::Symlink, name, "", 0o777, 0, target)
    }

    fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        content: &str,
        mode: u32,
        mtime: u64,
        target: &str,
    ) -> Tar {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(mtime);
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_cksum();
        self.0.append(&header, content.as_bytes()).unwrap();
        self
    }
}

/// A layer: its blob, the digest of its archive, and its media type without the vendor's part.
pub struct Layer {
    pub media_type: String,
    blob: Vec<u8>,
    diff_id: String,
}

impl Layer {
    pub fn plain(tar: Tar) -> Layer {
        let blob = tar.0.into_inner().unwrap();
        Layer { media_type: "tar".to_owned(), diff_id: digest(&blob), blob }
    }

    pub fn gzip(tar: Tar) -> Layer {
        let plain = Layer::plain(tar);
        let mut writer = GzBuilder::new().write(Vec::new(), Compression::default());
        writer.write_all(&plain.blob).unwrap();
        Layer { media_type: "tar+gzip".to_owned(), blob: writer.finish().unwrap(), ..plain }
    }
}

enum Form {
    Docker,
    Oci,
    Archive,
}

enum History {
    Full,
    Missing,
    WithEmptyLayers,
}

/// An image for linux/amd64.
pub struct Image {
    form: Form,
    history: History,
    layers: Vec<Layer>,
}

impl Image {
    /// An image in a layout with the media types of Docker.
    pub fn docker(layers: Vec<Layer>) -> Image {
        Image { form: Form::Docker, history: History::Full, layers }
    }

    /// An image in a layout with the media types of the specification.
    pub fn oci(layers: Vec<Layer>) -> Image {
        Image { form: Form::Oci, ..Image::docker(layers) }
    }

    /// An archive of `docker save`.
    pub fn archive(layers: Vec<Layer>) -> Image {
        Image { form: Form::Archive, ..Image::docker(layers) }
    }

    pub fn without_history(self) -> Image {
        Image { history: History::Missing, ..self }
    }

    pub fn with_empty_history(self) -> Image {
        Image { history: History::WithEmptyLayers, ..self }
    }

    /// Writes the image below the directory. Returns its name for volio.
    pub fn write(&self, directory: &Path) -> String {
        match self.form {
            Form::Archive => self.write_archive(&directory.join("image.tar")),
            Form::Docker | Form::Oci => self.write_layout(&directory.join("layout")),
        }
    }

    fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<&str> = self.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let mut config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let mut history: Vec<Value> =
            self.layers.iter().map(|_| json!({ "created_by": "a builder" })).collect();
        match self.history {
            History::Missing => return config.to_string().into_bytes(),
            History::Full => {}
            History::WithEmptyLayers => history.push(json!({ "created_by": "CMD", "empty_layer": true })),
        }
        config["history"] = history.into();
        config.to_string().into_bytes()
    }

    fn write_layout(&self, layout: &Path) -> String {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let store = |media_type: String, bytes: &[u8]| {
            let digest = digest(bytes);
            fs::write(blobs.join(&digest["sha256:".len()..]), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
        };
        let is_docker = matches!(self.form, Form::Docker);
        let (manifest_type, config_type) = if is_docker {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            )
        } else {
            ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json")
        };
        let layers: Vec<Value> =
            self.layers.iter().map(|layer| store(media_type(layer, is_docker), &layer.blob)).collect();
        let config = store(config_type.to_owned(), &self.config());
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers });
        let mut root = store(manifest_type.to_owned(), manifest.to_string().as_bytes());
        root["annotations"] = json!({ "org.opencontainers.image.ref.name": "tag" });
        let index = json!({ "schemaVersion": 2, "manifests": [root] });
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        format!("oci:{}:tag", layout.display())
    }

    fn write_archive(&self, file: &Path) -> String {
        let mut archive = Builder::new(fs::File::create(file).unwrap());
        let mut append = |name: &str, bytes: &[u8]| {
            let mut header = Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o444);
            archive.append_data(&mut header, name, bytes).unwrap();
        };
        let hex = |bytes: &[u8]| digest(bytes)["sha256:".len()..].to_owned();
        let names: Vec<String> =
            self.layers.iter().map(|layer| format!("{}/layer.tar", hex(&layer.blob))).collect();
        for (name, layer) in names.iter().zip(&self.layers) {
            append(name, &layer.blob);
        }
        let config_name = format!("{}.json", hex(&self.config()));
        append(&config_name, &self.config());
        let manifest = json!([{ "Config": config_name, "RepoTags": ["name:tag"], "Layers": names }]);
        append("manifest.json", manifest.to_string().as_bytes());
        archive.finish().unwrap();
        format!("docker-archive:{}", file.display())
    }
}

fn media_type(layer: &Layer, is_docker: bool) -> String {
    match (layer.media_type.as_str(), is_docker) {
        ("tar", true) => "application/vnd.docker.image.rootfs.diff.tar".to_owned(),
        ("tar+gzip", true) => "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned(),
        (short @ ("tar" | "tar+gzip"), false) => format!("application/vnd.oci.image.layer.v1.{short}"),
        (whole, _) => whole.to_owned(),
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
