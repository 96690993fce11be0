//! `volio tags`: which images a place has.

use crate::args::{Format, Registries, Report, location};
use crate::output::{self, printable};
use clap::Args;
use serde::Serialize;
use volio::oci::Digest;
use volio::transport::Location;
use volio::{Error, Result};

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
    place: Location,

    #[command(flatten)]
    registries: Registries,
    #[command(flatten)]
    report: Report,
}

/// What was found, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    place: String,
    tags: Vec<String>,
    /// The digests of the images without a tag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    untagged: Vec<Digest>,
}

impl Tags {
    /// Lists them.
    pub fn run(self) -> Result<()> {
        let place = super::place(&self.place);
        if !self.place.is_repository() {
            return Err(Error::usage(format!("tags: {} is one image", self.place))
                .with_hint(format!("write volio tags {place}")));
        }
        let source = self.place.source(&self.registries.access()?)?;
        let (tags, untagged) = (source.tags()?, source.untagged()?);
        if let (Format::Text, false, false) = (self.report.format, self.report.quiet, untagged.is_empty()) {
            output::line(&super::without_tag(&untagged));
        }
        match self.report.format {
            Format::Text => {
                output::results(|out| tags.iter().try_for_each(|tag| writeln!(out, "{}", printable(tag))))
            }
            Format::Json => output::json(&Found { place, tags, untagged }),
        }
    }
}
