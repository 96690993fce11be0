//! `volio copy`, `volio push` and `volio pull`: an image from one place to another, byte for byte.

use crate::args::{Format, Registries, Report};
use crate::quantity::{bytes, count, duration, rate};
use crate::{output, progress};
use clap::{Args, ValueHint};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use volio::copy::{Copied, copy};
use volio::transport::Location;
use volio::{Error, Result};

const COPY_EXAMPLES: &str = "\
Examples:
  volio copy registry.example/data:v1 mirror.example/data:v1
  volio copy registry.example/data:v1 oci:/media/stick:v1    for a place without a network
  volio copy oci:/media/stick:v1 inside.example/data:v1      and in that place

No byte changes, so the digest stays. What is there already is not sent again.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

const PUSH_EXAMPLES: &str = "\
Examples:
  volio push oci:backup:monday registry.example/backup:monday

The same as volio copy; TO must be in a registry.";

const PULL_EXAMPLES: &str = "\
Examples:
  volio pull registry.example/data:v1 oci:data:v1

The same as volio copy; FROM must be in a registry.";

/// Copy an image from one place to another
#[derive(Debug, Args)]
#[command(after_long_help = COPY_EXAMPLES)]
pub struct Copy {
    #[command(flatten)]
    journey: Journey,
}

/// Copy an image into a registry
#[derive(Debug, Args)]
#[command(after_long_help = PUSH_EXAMPLES)]
pub struct Push {
    #[command(flatten)]
    journey: Journey,
}

/// Copy an image out of a registry
#[derive(Debug, Args)]
#[command(after_long_help = PULL_EXAMPLES)]
pub struct Pull {
    #[command(flatten)]
    journey: Journey,
}

/// What the three have in common.
#[derive(Debug, Args)]
struct Journey {
    /// Where the image is: HOST/REPOSITORY:TAG or oci:DIR[:TAG]
    from: Location,

    /// Where it shall be too
    to: Location,

    #[command(flatten)]
    registries: Registries,
    #[command(flatten)]
    report: Report,

    /// Write the digest of the image to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output options")]
    digestfile: Option<PathBuf>,
}

impl Copy {
    /// Copies, and says what came of it.
    pub fn run(self) -> Result<()> {
        self.journey.run("copy")
    }
}

impl Push {
    /// Copies into a registry, and says what came of it.
    pub fn run(self) -> Result<()> {
        match self.journey.to {
            Location::Registry(_) => self.journey.run("push"),
            _ => Err(Error::usage(format!("push: {} is not in a registry", self.journey.to))
                .hint("write volio push FROM HOST/REPOSITORY:TAG, or use volio copy")),
        }
    }
}

impl Pull {
    /// Copies out of a registry, and says what came of it.
    pub fn run(self) -> Result<()> {
        match self.journey.from {
            Location::Registry(_) => self.journey.run("pull"),
            _ => Err(Error::usage(format!("pull: {} is not in a registry", self.journey.from))
                .hint("write volio pull HOST/REPOSITORY:TAG TO, or use volio copy")),
        }
    }
}

impl Journey {
    fn run(self, verb: &'static str) -> Result<()> {
        let access = self.registries.access()?;
        let begun = Instant::now();
        let from = self.from.source(&access)?;
        let to = self.to.destination(&access)?;
        let progress = progress::start(verb, self.report.quiet);
        let copied = copy(from.as_ref(), to.as_ref(), progress.as_ref())?;
        drop(progress);

        super::write_digest(self.digestfile.as_deref(), &copied.digest)?;
        if !self.report.quiet {
            output::line(&summary(&copied, begun.elapsed()));
        }
        match self.report.format {
            Format::Text => output::results(|out| writeln!(out, "{}", copied.address)),
            Format::Json => output::json(&copied),
        }
    }
}

/// One line: what was copied, how fast, and what was there already.
fn summary(copied: &Copied, time: Duration) -> String {
    let mut line = format!(
        "copied {}, {} in {}",
        count(copied.blobs_copied, "blob", "blobs"),
        bytes(copied.bytes_copied),
        duration(time),
    );
    if copied.blobs_copied > 0 {
        line.extend(rate(copied.bytes_copied, time).map(|rate| format!(", {rate}")));
    }
    if copied.blobs_present > 0 {
        line += &format!("; {} there already", copied.blobs_present);
    }
    if copied.blobs_mounted > 0 {
        line += &format!("; {} taken over from a neighbour", copied.blobs_mounted);
    }
    line
}
