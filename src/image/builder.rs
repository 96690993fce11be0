//! Builds the documents of an image around its layers: configs, manifests, and an index of them.

use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::oci::{
    ContainerConfig, Descriptor, Document, History, ImageConfig, Index, Manifest, Platform, RootFs,
    media_type,
};
use std::collections::BTreeMap;

/// The command of a data image, which cannot be started: `docker create` refuses an image without a command.
const NO_COMMAND: &str = "/volio-data";
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
        let platforms = self.platforms()?;
        let configs: Vec<Document> = platforms
            .iter()
            .map(|platform| Document::write(media_type::CONFIG, &self.config(platform, layers)))
            .collect();
        let manifests: Vec<Document> = configs
            .iter()
            .map(|config| {
                let layers = layers.iter().map(|layer| layer.descriptor.clone()).collect();
                let manifest = Manifest::new(config.descriptor().clone(), layers, self.annotations.clone());
                Document::write(media_type::MANIFEST, &manifest)
            })
            .collect();
        let root = match manifests.as_slice() {
            [manifest] => manifest.clone(),
            manifests => {
                let entries = manifests.iter().zip(&platforms).map(|(manifest, platform)| Descriptor {
                    platform: Some(platform.clone()),
                    ..manifest.descriptor().clone()
                });
                Document::write(media_type::INDEX, &Index::new(entries.collect(), self.annotations.clone()))
            }
        };
        Ok(Built { configs, manifests, root, platforms })
    }

    fn config(&self, platform: &Platform, layers: &[Layer]) -> ImageConfig {
        let mut execution = ContainerConfig { labels: self.labels.clone(), ..self.execution.clone() };
        if execution.entrypoint.is_empty() && execution.cmd.is_empty() {
            execution.cmd.push(NO_COMMAND.to_owned());
        }
        let history = History {
            created: self.created.clone(),
            // No version: another volio makes the same image of the same tree.
            created_by: Some("volio pack".to_owned()),
            ..History::default()
        };
        ImageConfig {
            created: self.created.clone(),
            platform: platform.clone(),
            config: Some(execution),
            rootfs: RootFs::new(layers.iter().map(|layer| layer.diff_id.clone()).collect()),
            history: vec![history; layers.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

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
}
