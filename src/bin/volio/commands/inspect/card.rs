//! The summary of an image as text.

use super::attached;
use super::layers::{self, ShownLayers};
use crate::human::{bytes, count};
use crate::output::printable;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use volio::inspect::{
    ArtifactSummary, Attached, BaseSummary, ImageSummary, Inspected, LayerContents, LayerSummary,
};
use volio::{ContainerConfig, Digest, Result};

/// The annotation with the file name of an artifact's layer.
const TITLE: &str = "org.opencontainers.image.title";
/// The annotations that the line about the base says in words.
const BASE: [&str; 2] = ["org.opencontainers.image.base.digest", "org.opencontainers.image.base.name"];
/// The number of characters of a text from outside that are shown in a line with other words.
const SHOWN: usize = 120;

/// An image, and what is known about it.
pub struct Card<'a> {
    /// The name that the user has given.
    pub image: &'a str,
    pub inspected: &'a Inspected,
    /// The contents of the layers that were counted.
    pub contents: &'a HashMap<Digest, LayerContents>,
    pub attached: &'a Result<Vec<Attached>>,
}

impl Card<'_> {
    /// Writes first the whole, then each image and each artifact in it.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Inspected { digest, media_type, annotations, images, artifacts, .. } = self.inspected;
        line(out, "image", self.image)?;
        line(out, "digest", &digest.to_string())?;
        line(out, "media type", media_type)?;
        if let Some(Some(created)) = common(images, |image| &image.created) {
            line(out, "created", created)?;
        }
        if !images.is_empty() {
            let platforms: Vec<String> = images.iter().map(|image| image.platform.to_string()).collect();
            line(out, "platforms", &platforms.join(", "))?;
            line(out, "size", &self.size(images.iter().flat_map(|image| &image.layers)))?;
        }
        if let Some(Some(base)) = common(images, |image| &image.base) {
            line(out, "base", &describe_base(base))?;
        }
        attached::write(out, self.inspected, self.attached)?;
        let has_base = |image: &ImageSummary| image.base.is_some();
        let hidden: &[&str] = if images.iter().any(has_base) { &BASE } else { &[] };
        let annotations = annotations.iter().filter(|(key, _)| !hidden.contains(&key.as_str()));
        map(out, "annotation", annotations)?;
        let mut shown = ShownLayers::default();
        images.iter().try_for_each(|image| self.write_image(out, image, &mut shown))?;
        artifacts.iter().try_for_each(|artifact| self.write_artifact(out, artifact))
    }

    /// Describes the size of layers, each of which counts once.
    fn size<'l>(&self, layers: impl Iterator<Item = &'l LayerSummary>) -> String {
        let mut seen = HashSet::new();
        let (mut stored, mut all) = (0_u64, Some(LayerContents::default()));
        for layer in layers.filter(|layer| seen.insert(&layer.digest)) {
            stored = stored.saturating_add(layer.size);
            let one = self.contents.get(&layer.digest);
            all = all.zip(one).map(|(mut all, one)| {
                all.size = all.size.saturating_add(one.size);
                all.entries += one.entries;
                all
            });
        }
        let layers = count(seen.len() as u64, "layer", "layers");
        match all.filter(|_| !seen.is_empty()) {
            Some(all) => {
                let entries = count(all.entries, "entry", "entries");
                format!("{} stored in {layers}, {} of content in {entries}", bytes(stored), bytes(all.size))
            }
            None => format!("{} stored in {layers}", bytes(stored)),
        }
    }

    fn write_image<'i>(
        &'i self,
        out: &mut dyn Write,
        image: &'i ImageSummary,
        shown: &mut ShownLayers<'i>,
    ) -> io::Result<()> {
        let Inspected { digest, annotations, images, .. } = self.inspected;
        writeln!(out, "\n{}", printable(&image.platform.to_string()))?;
        if image.digest != *digest {
            line(out, "  digest", &image.digest.to_string())?;
        }
        if let Some(created) =
            image.created.as_ref().filter(|_| common(images, |image| &image.created).is_none())
        {
            line(out, "  created", created)?;
        }
        if let Some(base) = image.base.as_ref().filter(|_| common(images, |image| &image.base).is_none()) {
            line(out, "  base", &describe_base(base))?;
        }
        let is_own = |(key, value): &(&String, &String)| {
            annotations.get(*key) != Some(*value) && !(image.base.is_some() && BASE.contains(&key.as_str()))
        };
        map(out, "  annotation", image.annotations.iter().filter(is_own))?;
        map(out, "  label", image.labels.iter())?;
        if let Some(execution) = &image.execution {
            run(out, execution)?;
        }
        if images.len() > 1 {
            line(out, "  size", &self.size(image.layers.iter()))?;
        }
        layers::write(out, image, self.contents, shown)
    }

    /// Writes an artifact, and the titles of its layers.
    fn write_artifact(&self, out: &mut dyn Write, artifact: &ArtifactSummary) -> io::Result<()> {
        writeln!(out, "\nartifact of type {}", printable(&artifact.artifact_type))?;
        if artifact.digest != self.inspected.digest {
            line(out, "  digest", &artifact.digest.to_string())?;
        }
        if let Some(subject) = &artifact.subject {
            line(out, "  subject", &subject.to_string())?;
        }
        let is_own = |(key, value): &(&String, &String)| self.inspected.annotations.get(*key) != Some(*value);
        map(out, "  annotation", artifact.annotations.iter().filter(is_own))?;
        line(out, "  size", &bytes(artifact.size))?;
        blob(out, "  config", &artifact.config)?;
        artifact.layers.iter().try_for_each(|layer| blob(out, "  layer", layer))
    }
}

/// Writes a line with a name and a value.
pub fn line(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    // The names of a block are indented, and their values too.
    let width = if name.starts_with(' ') { 14 } else { 12 };
    writeln!(out, "{name:width$}{}", printable(value))
}

fn blob(out: &mut dyn Write, name: &str, blob: &LayerSummary) -> io::Result<()> {
    let title = blob.annotations.get(TITLE).map_or_else(String::new, |title| format!("  {title}"));
    line(out, name, &format!("{}  {:>10}  {}{title}", blob.digest, bytes(blob.size), blob.media_type))
}

/// Returns the value that all images have; `None` if they differ, or there are none.
fn common<'i, T: PartialEq>(
    images: &'i [ImageSummary],
    value: impl Fn(&'i ImageSummary) -> &'i T,
) -> Option<&'i T> {
    let first = value(images.first()?);
    images.iter().all(|image| value(image) == first).then_some(first)
}

/// Shortens a text from outside.
pub fn limited(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn describe_base(base: &BaseSummary) -> String {
    let [name, digest] = [&base.name, &base.digest].map(|text| limited(text.as_deref().unwrap_or_default()));
    if name.is_empty() || digest.is_empty() { format!("{name}{digest}") } else { format!("{name}@{digest}") }
}

/// Writes the parts of the configuration that start a container.
fn run(out: &mut dyn Write, execution: &ContainerConfig) -> io::Result<()> {
    for (name, words) in [("  entrypoint", &execution.entrypoint), ("  cmd", &execution.cmd)] {
        if !words.is_empty() {
            // As JSON, which shows where each word ends.
            line(out, name, &serde_json::to_string(words)?)?;
        }
    }
    for variable in &execution.env {
        line(out, "  env", variable)?;
    }
    for (name, value) in [("  user", &execution.user), ("  workdir", &execution.working_dir)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            line(out, name, value)?;
        }
    }
    Ok(())
}

fn map<'m>(
    out: &mut dyn Write,
    name: &str,
    mut map: impl Iterator<Item = <&'m BTreeMap<String, String> as IntoIterator>::Item>,
) -> io::Result<()> {
    map.try_for_each(|(key, value)| line(out, name, &format!("{key}={value}")))
}
