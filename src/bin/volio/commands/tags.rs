//! `volio tags`: lists the tags of a repository or a layout.

use crate::args::{Format, OutputArgs, RegistryArgs, location};
use crate::output::{self, printable};
use crate::progress::Display;
use clap::Args;
use serde::Serialize;
use volio::{Digest, Error, Location, Result};

const EXAMPLES: &str = "\
Examples:
  volio tags registry.example/data
  volio tags oci:backup
  volio tags --format json registry.example/data | jq -r '.tags[-1]'

One tag a line, in the order of their bytes. Where several images of a layout share a short tag, their full names take \
its place. Images without a tag are listed on stderr, by their digests.";

/// List the tags of a repository or a layout
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Tags {
    /// The repository or the layout: HOST/REPOSITORY or oci:DIR
    #[arg(value_name = "PLACE", value_parser = location())]
    location: Location,

    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The result as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TagsDocument {
    place: String,
    tags: Vec<String>,
    /// The digests of the images without a tag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    untagged: Vec<Digest>,
}

impl Tags {
    /// Prints the tags.
    pub fn run(self) -> Result<()> {
        let place = self.location.without_name();
        if !self.location.is_repository() {
            return Err(Error::usage(format!(
                "{} is one image, and volio tags lists a repository",
                self.location
            ))
            .with_hint(format!("write volio tags {place}")));
        }
        let source = self.location.source(&self.registries.access(&Display::warnings())?)?;
        let (tags, untagged) = (source.tags()?, source.untagged()?);
        if self.output.format == Format::Text && !self.output.quiet && !untagged.is_empty() {
            output::line(&super::without_tag(&untagged));
        }
        match self.output.format {
            Format::Text => {
                output::results(|out| tags.iter().try_for_each(|tag| writeln!(out, "{}", printable(tag))))
            }
            Format::Json => output::json(&TagsDocument { place, tags, untagged }),
        }
    }
}
