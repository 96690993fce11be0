//! `volio rm`: an image is taken out of the place where it is.

use crate::args::{Format, Registries, Report, location};
use crate::output::{self, printable};
use crate::quantity::{bytes, count};
use clap::Args;
use serde::Serialize;
use volio::transport::{Location, Removed};
use volio::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  volio rm registry.example/data:v1
  volio rm oci:backup:monday
  volio rm registry.example/data@sha256:…

A TAG is taken away alone, and other tags of the same image stay. Some registries can only remove an image with all its \
tags; while it has others, that is refused with exit code 6, unless --force is given. Named by its digest, an image \
goes with its tag; while it has several, that is refused too.

A layout loses the blobs that no other image in it needs. A registry frees the space when it collects its garbage.

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
    registries: Registries,
    #[command(flatten)]
    report: Report,
}

/// What came of it, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    address: &'a str,
    #[serde(flatten)]
    removed: &'a Removed,
}

impl Rm {
    /// Removes it, and says what is gone.
    pub fn run(self) -> Result<()> {
        if self.image.is_repository() {
            let place = super::place(&self.image);
            return Err(Error::usage(format!("rm: {place} names no image"))
                .with_hint(format!("write {place}:TAG; volio tags {place} lists them")));
        }
        let removed = self.image.removal(&self.registries.access()?)?.remove(self.force)?;
        let address = super::address(&self.image, &removed.digest);
        if !self.report.quiet {
            output::line(&summary(&removed));
        }
        match self.report.format {
            Format::Text => output::results(|out| writeln!(out, "{address}")),
            Format::Json => output::json(&Done { address: &address, removed: &removed }),
        }
    }
}

/// One line: what is gone, and what is not.
fn summary(removed: &Removed) -> String {
    let tags = removed.tags.len() as u64;
    let mut line = match removed.tags.as_slice() {
        [] => "removed an image without a tag".to_owned(),
        names => format!(
            "removed {} {}",
            if tags == 1 { "the tag" } else { "the tags" },
            printable(&names.join(", "))
        ),
    };
    if removed.blobs > 0 {
        line += &format!("; deleted {}, {}", count(removed.blobs, "blob", "blobs"), bytes(removed.bytes));
    }
    match &removed.blobs_left {
        Some(why) => line + &format!("; its blobs are still there: {}", printable(why)),
        None => line,
    }
}
