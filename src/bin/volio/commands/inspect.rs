//! `volio inspect`: shows the documents of an image.

use crate::args::{Format, OutputArgs, RegistryArgs, location};
use crate::documents::InspectDocument;
use crate::human::{bytes, count};
use crate::output::{self, printable};
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use clap::Args;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use volio::inspect::{ArtifactSummary, ImageSummary, Inspected, LayerSummary, inspect};
use volio::{ContainerConfig, Digest, Location, Platform, Result, SignedPart};

const EXAMPLES: &str = "\
Examples:
  volio inspect registry.example/data:v1
  volio inspect --format json oci:backup:monday | jq -r .digest

Only the manifests and the configuration are read, no layer.";

/// The annotation with the file name of an artifact's layer.
const TITLE: &str = "org.opencontainers.image.title";

/// Show the manifests and the configuration of an image
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Inspect {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    #[arg(value_parser = location())]
    image: Location,

    #[command(flatten)]
    signatures: VerificationArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Inspect {
    /// Prints the summary.
    pub fn run(self) -> Result<()> {
        let access = self.registries.access(&Display::warnings())?;
        let source = self.signatures.source(&self.image, &access, SignedPart::Whole)?;
        let inspected = inspect(source.as_ref())?;
        let address = super::address(&self.image, &inspected.digest);
        match self.output.format {
            Format::Text => output::results(|out| {
                text(out, &inspected)?;
                writeln!(out, "\n{address}")
            }),
            Format::Json => output::json(&InspectDocument::new(&address, &inspected)),
        }
    }
}

/// Writes the summary as text: first the whole, then each image in it.
fn text(out: &mut dyn Write, inspected: &Inspected) -> io::Result<()> {
    writeln!(out, "digest      {}", inspected.digest)?;
    writeln!(out, "media type  {}", printable(&inspected.media_type))?;
    map(out, "annotation  ", &inspected.annotations)?;
    let mut shown = HashMap::new();
    inspected.images.iter().try_for_each(|image| one_image(out, image, &mut shown))?;
    inspected.artifacts.iter().try_for_each(|artifact| one_artifact(out, artifact))
}

/// Writes an artifact, and the titles of its layers.
fn one_artifact(out: &mut dyn Write, artifact: &ArtifactSummary) -> io::Result<()> {
    writeln!(out, "\nartifact of type {}", printable(&artifact.artifact_type))?;
    writeln!(out, "  digest      {}", artifact.digest)?;
    if let Some(subject) = &artifact.subject {
        writeln!(out, "  subject     {subject}")?;
    }
    map(out, "  annotation  ", &artifact.annotations)?;
    writeln!(out, "  size        {}", bytes(artifact.size))?;
    layer(out, "config", &artifact.config)?;
    artifact.layers.iter().try_for_each(|blob| layer(out, "layer", blob))
}

fn layer(out: &mut dyn Write, what: &str, blob: &LayerSummary) -> io::Result<()> {
    let (size, kind) = (bytes(blob.size), printable(&blob.media_type));
    write!(out, "  {what:10}  {}  {size:>10}  {kind}", blob.digest)?;
    match blob.annotations.get(TITLE) {
        Some(title) => writeln!(out, "  {}", printable(title)),
        None => writeln!(out),
    }
}

/// The layers that were written, with the first platform that has each.
type ShownLayers<'a> = HashMap<&'a Digest, &'a Platform>;

fn one_image<'a>(
    out: &mut dyn Write,
    image: &'a ImageSummary,
    shown: &mut ShownLayers<'a>,
) -> io::Result<()> {
    writeln!(out, "\n{}", printable(&image.platform.to_string()))?;
    writeln!(out, "  digest      {}", image.digest)?;
    if let Some(created) = &image.created {
        writeln!(out, "  created     {}", printable(created))?;
    }
    map(out, "  annotation  ", &image.annotations)?;
    map(out, "  label       ", &image.labels)?;
    if let Some(execution) = &image.execution {
        run(out, execution)?;
    }
    writeln!(out, "  size        {}", bytes(image.size))?;
    layers(out, image, shown)
}

/// Writes the layers of an image. Those that it shares with an earlier image are not listed again.
fn layers<'a>(out: &mut dyn Write, image: &'a ImageSummary, shown: &mut ShownLayers<'a>) -> io::Result<()> {
    let first = |blob: &LayerSummary| shown.get(&blob.digest).copied();
    for run in image.layers.chunk_by(|one, next| first(one) == first(next)) {
        match first(&run[0]) {
            Some(platform) => {
                let count = count(run.len() as u64, "layer", "layers");
                writeln!(out, "  shared      {count} of {}", printable(&platform.to_string()))?;
            }
            None => run.iter().try_for_each(|blob| layer(out, "layer", blob))?,
        }
    }
    for blob in &image.layers {
        shown.entry(&blob.digest).or_insert(&image.platform);
    }
    Ok(())
}

/// Writes the parts of the configuration that start a container.
fn run(out: &mut dyn Write, execution: &ContainerConfig) -> io::Result<()> {
    for (name, words) in [("entrypoint", &execution.entrypoint), ("cmd", &execution.cmd)] {
        if !words.is_empty() {
            // As JSON, which shows where each word ends.
            writeln!(out, "  {name:10}  {}", printable(&serde_json::to_string(words)?))?;
        }
    }
    for variable in &execution.env {
        writeln!(out, "  env         {}", printable(variable))?;
    }
    for (name, value) in [("user", &execution.user), ("workdir", &execution.working_dir)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            writeln!(out, "  {name:10}  {}", printable(value))?;
        }
    }
    Ok(())
}

fn map(out: &mut dyn Write, name: &str, map: &BTreeMap<String, String>) -> io::Result<()> {
    map.iter().try_for_each(|(key, value)| writeln!(out, "{name}{}={}", printable(key), printable(value)))
}
