//! Images in Docker's format, schema 2, for programs that are older than OCI.

use crate::error::Result;
use crate::image::{Built, Description};
use crate::layer::Layer;
use crate::oci::{Descriptor, Document, ImageConfig, Manifest, media_type};
use serde_json::Value;

/// The command that Docker records for a committed container. `docker create` needs one too.
const COMMAND: &str = "sh";

/// Returns the layer with Docker's media type.
#[must_use]
pub fn docker_layer(layer: Layer) -> Layer {
    let media_type = match layer.descriptor.media_type.as_str() {
        media_type::LAYER => media_type::DOCKER_LAYER,
        _ => media_type::DOCKER_LAYER_GZIP,
    };
    let descriptor = Descriptor { media_type: media_type.to_owned(), ..layer.descriptor };
    Layer { descriptor, ..layer }
}

/// Builds the image that data-io would have committed, with one layer and a command that never runs: in Docker's
/// format, or in OCI's if the destination knows only that.
///
/// # Errors
///
/// Those of [`Description::build`].
pub fn archive_image(description: &Description, layer: &Layer, is_docker: bool) -> Result<Built> {
    let mut description = description.clone();
    if description.execution.cmd.is_empty() && description.execution.entrypoint.is_empty() {
        description.execution.cmd.push(COMMAND.to_owned());
    }
    let built = description.build(std::slice::from_ref(layer))?;
    let mut config: ImageConfig = built.configs[0].parse()?;
    for step in &mut config.history {
        step.created_by = Some(COMMAND.to_owned());
        step.extra.insert("comment", &Value::from("volio pack --format data-io"));
    }
    let types = if is_docker {
        (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST)
    } else {
        (media_type::CONFIG, media_type::MANIFEST)
    };
    let config = Document::write(types.0, &config);
    let mut manifest =
        Manifest::new(config.descriptor().clone(), vec![layer.descriptor.clone()], description.annotations);
    manifest.media_type = Some(types.1.to_owned());
    let root = Document::write(types.1, &manifest);
    Ok(Built { configs: vec![config], manifests: vec![root.clone()], root, platforms: built.platforms })
}
