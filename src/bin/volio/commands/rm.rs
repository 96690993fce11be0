//! `volio rm`: removes an image from a registry or a layout.

use crate::args::{Format, OutputArgs, RegistryArgs, location};
use crate::documents::RmDocument;
use crate::human::{bytes, count};
use crate::output::{self, printable};
use crate::progress::Display;
use clap::Args;
use volio::{Error, Location, Removed, Result};

const EXAMPLES: &str = "\
Examples:
  volio rm registry.example/data:v1
  volio rm oci:backup:monday
  volio rm registry.example/data@sha256:…

With a TAG, only that tag is removed; other tags of the same image stay. Some registries can only remove an image with all \
its tags: if it has others, the command fails with exit code 6, unless --force is given. With a DIGEST, the image and its \
tag are removed; if it has several tags, --force is necessary too.

With the last tag of an image, its signatures and other attachments are removed: those of the image and of its platforms, \
by their tags (.sig, .att, .sbom) or as referrers. What another image with a tag has keeps its attachments. In a \
registry with more than 1000 tags they stay.

In a layout, blobs that no other image needs are removed too. A registry frees the space when it collects its garbage.

The last line of the output is what was removed, with its digest: REPOSITORY@DIGEST.";

/// Remove an image from a registry or a layout
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Rm {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR:TAG, or either with @DIGEST
    #[arg(value_parser = location())]
    image: Location,

    /// Remove tags too that were not named, where the image has several
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Rm {
    /// Removes the image, and prints what was removed.
    pub fn run(self) -> Result<()> {
        if self.image.is_repository() {
            let repository = self.image.without_name();
            return Err(Error::usage(format!("rm: {repository} names no image"))
                .with_hint(format!("write {repository}:TAG; volio tags {repository} lists them")));
        }
        let removed =
            self.image.removal(&self.registries.access(&Display::warnings())?)?.remove(self.force)?;
        let address = super::address(&self.image, &removed.digest);
        if !self.output.quiet {
            output::line(&summary(&removed));
        }
        match self.output.format {
            Format::Text => output::results(|out| writeln!(out, "{address}")),
            Format::Json => output::json(&RmDocument::new(&address, &removed)),
        }
    }
}

/// Formats the result in one line: what was removed, and what was not.
fn summary(removed: &Removed) -> String {
    let mut line = match removed.tags.as_slice() {
        [] => "removed an image without a tag".to_owned(),
        [name] => format!("removed the tag {}", printable(name)),
        names => format!("removed the tags {}", printable(&names.join(", "))),
    };
    if !removed.attachments.is_empty() {
        line += &format!(" and {}", count(removed.attachments.len() as u64, "attachment", "attachments"));
    }
    if let Some(why) = &removed.attachments_left {
        line += &format!("; attachments such as signatures may be left: {}", printable(why));
    }
    if removed.blobs > 0 {
        line += &format!("; deleted {}, {}", count(removed.blobs, "blob", "blobs"), bytes(removed.bytes));
    }
    match &removed.blobs_left {
        Some(why) => line + &format!("; its blobs are still there: {}", printable(why)),
        None => line,
    }
}
