//! Builds the documents of an image around its layers: configs, manifests, and an index of them.

use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::oci::{
    ContainerConfig, Descriptor, Digest, Document, History, ImageConfig, Index, Manifest, Platform, RootFs,
    media_type,
};
use std::collections::BTreeMap;

/// The command of a data image, which cannot be started: `docker create` refuses an image without a command.
const NO_COMMAND: &str = "/volio-data";
/// The annotation of entries of an index whose images have layers in zstd, as containers/image writes it. skopeo would add it
/// to a copy of all platforms, which then would have another digest; it refuses to copy a signed image so.
const ZSTD_ENTRY: &str = "io.github.containers.compression.zstd";
/// The default platforms of a data image: data has no architecture, but Kubernetes nodes look for their own.
const DEFAULT_PLATFORMS: [&str; 2] = ["amd64", "arm64"];

/// The description of an image, apart from its layers.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// The platforms; if there are none, the default ones.
    pub platforms: Vec<Platform>,
    /// The labels, in the config.
    pub labels: BTreeMap<String, String>,
    /// The annotations, in the manifests and the index.
    pub annotations: BTreeMap<String, String>,
    /// The configuration of containers.
    pub execution: ContainerConfig,
    /// The time at which it was created, RFC 3339.
    pub created: Option<String>,
}

/// The annotation with the digest of the image that an image was made from (image-spec, "Pre-Defined Annotation Keys").
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// The annotation with the name of that image.
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// The image whose layers are the lowest layers of another one.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// The digest of its index, or of its manifest if there is no index.
    pub digest: Digest,
    /// Its fully qualified reference, if it has one: an image in a layout has not.
    pub name: Option<String>,
    /// The descriptors of its layers, as its manifest has them.
    pub layers: Vec<Descriptor>,
    /// The diff_ids of its layers.
    pub diff_ids: Vec<Digest>,
    /// Its history, including steps without a layer.
    pub history: Vec<History>,
}

/// The documents of an image. The root refers to the manifests, and these refer to the configs and the layers.
#[derive(Clone, Debug)]
pub struct Built {
    /// One config for each platform.
    pub configs: Vec<Document>,
    /// One manifest for each platform.
    pub manifests: Vec<Document>,
    /// The document that gets the name: an index, or the manifest if there is only one platform.
    pub root: Document,
    /// The platforms.
    pub platforms: Vec<Platform>,
}

impl BaseImage {
    /// Returns the descriptors of its layers for an OCI manifest.
    pub(crate) fn oci_layers(&self) -> Vec<Descriptor> {
        let layers = self.layers.iter().cloned();
        layers
            .map(|layer| Descriptor { media_type: media_type::oci_layer(&layer.media_type), ..layer })
            .collect()
    }
}

impl Description {
    /// Returns the platforms of the image, each once.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when an image with an entrypoint has more than one.
    pub fn platforms(&self) -> Result<Vec<Platform>> {
        let runs = !self.execution.entrypoint.is_empty() || !self.execution.cmd.is_empty();
        let mut platforms: Vec<&Platform> = Vec::with_capacity(self.platforms.len());
        for platform in &self.platforms {
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        match platforms.as_slice() {
            [] if runs => Ok(vec![Platform::host()]),
            [] => Ok(DEFAULT_PLATFORMS.map(|architecture| Platform::new("linux", architecture)).to_vec()),
            [_, _, ..] if runs => {
                Err(Error::usage("an image with an entrypoint or a command has one platform")
                    .with_hint("a program runs on one architecture only: pack an image for each"))
            }
            platforms => Ok(platforms.iter().map(|platform| (*platform).clone()).collect()),
        }
    }

    /// Builds the documents of the image with these layers, lowest first.
    ///
    /// # Errors
    /// Those of [`platforms`](Self::platforms).
    pub fn build(&self, layers: &[Layer]) -> Result<Built> {
        self.build_stack(&self.stack(layers))
    }

    /// Builds the documents of the image that has the layers of `base`, and these layers over them, lowest first.
    ///
    /// Layers of a base in Docker's format get the media types of the specification: the blobs are the same.
    ///
    /// Annotations name the base, unless the description has other values for them. The base's own annotations, labels
    /// and execution are not inherited.
    ///
    /// # Errors
    /// Those of [`platforms`](Self::platforms).
    pub fn build_over(&self, base: &BaseImage, layers: &[Layer]) -> Result<Built> {
        let own = self.stack(layers);
        let mut description = self.clone();
        let mut annotate = |key: &str, value: &str| {
            description.annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        };
        annotate(BASE_DIGEST, &base.digest.to_string());
        if let Some(name) = &base.name {
            annotate(BASE_NAME, name);
        }
        description.build_stack(&Stack {
            layers: [base.oci_layers(), own.layers].concat(),
            diff_ids: [base.diff_ids.as_slice(), &own.diff_ids].concat(),
            history: [base.history.as_slice(), &own.history].concat(),
        })
    }

    /// Returns these layers with their history.
    fn stack(&self, layers: &[Layer]) -> Stack {
        let history = History {
            created: self.created.clone(),
            // No version: another volio makes the same image of the same tree.
            created_by: Some("volio pack".to_owned()),
            ..History::default()
        };
        Stack {
            layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
            diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            history: vec![history; layers.len()],
        }
    }

    fn build_stack(&self, stack: &Stack) -> Result<Built> {
        let platforms = self.platforms()?;
        let configs: Vec<Document> = platforms
            .iter()
            .map(|platform| Document::write(media_type::CONFIG, &self.config(platform, stack)))
            .collect();
        let manifests: Vec<Document> = configs
            .iter()
            .map(|config| {
                let (config, layers) = (config.descriptor().clone(), stack.layers.clone());
                let manifest = Manifest::new(config, layers, self.annotations.clone());
                Document::write(media_type::MANIFEST, &manifest)
            })
            .collect();
        let root = match manifests.as_slice() {
            [manifest] => manifest.clone(),
            manifests => {
                let has_zstd = stack.layers.iter().any(|layer| layer.media_type == media_type::LAYER_ZSTD);
                let zstd = has_zstd.then(|| (ZSTD_ENTRY.to_owned(), "true".to_owned()));
                let annotations: BTreeMap<_, _> = zstd.into_iter().collect();
                let entries = manifests.iter().zip(&platforms).map(|(manifest, platform)| Descriptor {
                    platform: Some(platform.clone()),
                    annotations: annotations.clone(),
                    ..manifest.descriptor().clone()
                });
                Document::write(media_type::INDEX, &Index::new(entries.collect(), self.annotations.clone()))
            }
        };
        Ok(Built { configs, manifests, root, platforms })
    }

    fn config(&self, platform: &Platform, stack: &Stack) -> ImageConfig {
        ImageConfig {
            created: self.created.clone(),
            platform: platform.clone(),
            config: Some(self.container_config()),
            rootfs: RootFs::new(stack.diff_ids.clone()),
            history: stack.history.clone(),
        }
    }

    /// Returns the configuration of containers with the labels.
    pub fn container_config(&self) -> ContainerConfig {
        let mut execution = ContainerConfig { labels: self.labels.clone(), ..self.execution.clone() };
        if execution.entrypoint.is_empty() && execution.cmd.is_empty() {
            execution.cmd.push(NO_COMMAND.to_owned());
        }
        execution
    }
}

/// The layers of an image, lowest first, as its documents describe them.
struct Stack {
    layers: Vec<Descriptor>,
    diff_ids: Vec<Digest>,
    history: Vec<History>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Layer {
        let descriptor = Descriptor::of(media_type::LAYER_ZSTD, b"compressed");
        Layer { descriptor, diff_id: Digest::of(b"plain") }
    }

    #[test]
    fn data_is_for_both_platforms_and_a_program_for_one() {
        let data = Description::default().build(&[layer()]).unwrap();
        assert_eq!(data.root.descriptor().media_type, media_type::INDEX);
        assert_eq!(data.manifests.len(), 2);

        let execution =
            ContainerConfig { entrypoint: vec!["/volio".to_owned()], ..ContainerConfig::default() };
        let program = Description { execution, ..Description::default() };
        let built = program.build(&[layer()]).unwrap();
        assert_eq!(built.root, built.manifests[0]);
        assert_eq!(built.platforms, [Platform::host()]);

        let both = ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap()).to_vec();
        assert!(Description { platforms: both, ..program }.build(&[layer()]).is_err());
    }

    #[test]
    fn a_platform_that_is_given_twice_has_one_manifest() {
        let platforms = ["linux/arm64", "linux/arm64"].map(|text| text.parse().unwrap()).to_vec();
        let built = Description { platforms, ..Description::default() }.build(&[layer()]).unwrap();
        assert_eq!(built.manifests.len(), 1);
        assert_eq!(built.root, built.manifests[0]);
    }

    #[test]
    fn an_independent_reader_understands_every_document() {
        let annotations =
            BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let created = Some("2026-01-02T03:04:05Z".to_owned());
        let description = Description { annotations, created, ..Description::default() };
        let built = description.build(&[layer(), layer()]).unwrap();
        let index = oci_spec::image::ImageIndex::from_reader(built.root.bytes()).unwrap();
        let manifest = oci_spec::image::ImageManifest::from_reader(built.manifests[0].bytes()).unwrap();
        let config = oci_spec::image::ImageConfiguration::from_reader(built.configs[0].bytes()).unwrap();
        assert_eq!(index.manifests().len(), 2);
        assert_eq!(manifest.layers().len(), 2);
        assert_eq!(config.rootfs().diff_ids().len(), 2);
        assert_eq!(config.history().as_ref().unwrap().len(), 2);
        assert_eq!(config.architecture().to_string(), "amd64");
    }

    #[test]
    fn an_image_over_a_base_has_its_layers_and_history_and_names_it() {
        let mut lower = Descriptor::of(media_type::DOCKER_LAYER_GZIP, b"lower");
        lower.annotations.insert("io.volio.toc.digest".to_owned(), "x".to_owned());
        let empty =
            History { empty_layer: true, created_by: Some("ENV a=b".to_owned()), ..History::default() };
        let base = BaseImage {
            digest: Digest::of(b"index"),
            name: Some("registry.example/data:v1".to_owned()),
            layers: vec![lower.clone()],
            diff_ids: vec![Digest::of(b"plain lower")],
            history: vec![History::default(), empty.clone()],
        };
        let built = Description::default().build_over(&base, &[layer()]).unwrap();
        let manifest = Manifest::parse(&built.manifests[1]).unwrap();
        let config: ImageConfig = built.configs[1].parse().unwrap();
        // An OCI manifest has OCI media types only; everything else stays.
        lower.media_type = media_type::LAYER_GZIP.to_owned();
        assert_eq!(manifest.layers, [lower, layer().descriptor]);
        let strict = oci_spec::image::ImageManifest::from_reader(built.manifests[1].bytes()).unwrap();
        assert_eq!(*strict.layers()[0].media_type(), oci_spec::image::MediaType::ImageLayerGzip);
        assert_eq!(config.rootfs.diff_ids, [Digest::of(b"plain lower"), layer().diff_id]);
        assert_eq!(config.history[..2], [History::default(), empty]);
        assert_eq!(config.history[2].created_by.as_deref(), Some("volio pack"));
        for annotations in [&manifest.annotations, &Index::parse(&built.root).unwrap().annotations] {
            assert_eq!(annotations[BASE_DIGEST], Digest::of(b"index").to_string());
            assert_eq!(annotations[BASE_NAME], "registry.example/data:v1");
        }
        let own = BTreeMap::from([(BASE_NAME.to_owned(), "mine".to_owned())]);
        let built = Description { annotations: own, ..Description::default() }
            .build_over(&BaseImage { name: None, ..base }, &[])
            .unwrap();
        let manifest = Manifest::parse(&built.manifests[0]).unwrap();
        assert_eq!((manifest.layers.len(), manifest.annotations[BASE_NAME].as_str()), (1, "mine"));
    }
}
