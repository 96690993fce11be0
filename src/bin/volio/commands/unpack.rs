//! `volio unpack`: an image into a directory.

use crate::args::{Format, Registries, Report};
use crate::limits::Bounds;
use crate::quantity::{bytes, count, duration, rate};
use crate::{output, progress};
use clap::{Args, ValueHint};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use volio::Result;
use volio::oci::Platform;
use volio::transport::Location;
use volio::tree::Extracted;
use volio::unpack::{Options, Unpacked, unpack};

const EXAMPLES: &str = "\
Examples:
  volio unpack registry.example/data:v1 /data
  volio unpack oci:backup:monday restored
  volio unpack --platform linux/arm64 registry.example/app:v1 rootfs

DIR is made when it is missing. It must be empty: what it holds would be mixed up with the image.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

/// Unpack an image into a directory
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Unpack {
    /// Where the image is: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    image: Location,

    /// The directory that the files shall be in
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    target: PathBuf,

    /// Take the image for this platform [default: the host's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    registries: Registries,
    #[command(flatten)]
    report: Report,
}

/// What came of it, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    address: &'a str,
    #[serde(flatten)]
    unpacked: &'a Unpacked,
}

impl Unpack {
    /// Unpacks, and says what came of it.
    pub fn run(self) -> Result<()> {
        let access = self.registries.access()?;
        let begun = Instant::now();
        let source = self.image.source(&access)?;
        let progress = progress::start("unpack", self.report.quiet);
        let options = Options { platform: self.platform, limits: self.bounds.limits() };
        let unpacked = unpack(source.as_ref(), &self.target, &options, progress.as_ref())?;
        drop(progress);

        if !self.report.quiet {
            output::line(&summary(&unpacked, begun.elapsed()));
        }
        let address = super::address(&self.image, &unpacked.digest);
        match self.report.format {
            Format::Text => output::results(|out| writeln!(out, "{address}")),
            Format::Json => output::json(&Done { address: &address, unpacked: &unpacked }),
        }
    }
}

/// One line: what was unpacked, how fast, and what could not be restored.
fn summary(unpacked: &Unpacked, time: Duration) -> String {
    let Extracted {
        entries,
        bytes: size,
        ownership_not_restored,
        attributes_not_restored,
        xattrs_not_restored,
        devices_skipped,
    } = unpacked.extracted;
    let mut line = format!(
        "unpacked {}, {} from {} in {}",
        count(entries, "entry", "entries"),
        bytes(size),
        count(unpacked.layers as u64, "layer", "layers"),
        duration(time),
    );
    line.extend(rate(size, time).map(|rate| format!(", {rate}")));
    let lost = [
        (ownership_not_restored, "owner", "owners"),
        (attributes_not_restored, "directory's attributes", "directories' attributes"),
        (xattrs_not_restored, "extended attribute", "extended attributes"),
        (devices_skipped, "device", "devices"),
    ];
    let lost: Vec<String> = lost
        .into_iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, one, many)| count(number, one, many))
        .collect();
    if !lost.is_empty() {
        line += &format!("; not restored: {}", lost.join(", "));
    }
    line
}
