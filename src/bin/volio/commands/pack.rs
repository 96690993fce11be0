//! `volio pack`: a tree into an image, wherever the image is.

use crate::args::{AbsolutePath, Format, Pair, Registries, Report, Words};
use crate::quantity::{bytes, count, duration, rate};
use crate::{environment, output, progress};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use volio::image::Description;
use volio::layer::Compression;
use volio::oci::{Execution, Platform};
use volio::pack::{Options, Packed, pack};
use volio::transport::Location;
use volio::tree::{SourceSpec, WalkOptions};
use volio::{Result, oci};

const EXAMPLES: &str = "\
Examples:
  volio pack registry.example/data:v1 /srv/data
  volio pack oci:backup:monday /srv/data              into a directory here, made when missing
  volio pack docker-archive:data.tar:data:v1 public   for docker load: one platform, not compressed
  volio pack oci:site:v1 public:/usr/share/site app.conf:/etc/
  volio pack --normalize --exclude target registry.example/checkout:$COMMIT .
  volio pack --platform linux/arm64 --entrypoint '[\"/volio\"]' registry.example/volio:v1 volio

SOURCE is a directory or a file; PATH is absolute, and / unless given. A directory's contents land at PATH. A file \
lands at PATH, or in it under its own name where PATH ends with a slash.

A file .volioignore at the root of a SOURCE names what to leave out, in the words of \
.gitignore.

An image with an entrypoint or a command is for one platform: the host's unless given. Other images are data and \
the same for all platforms.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

/// Pack directories and files into an image
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Pack {
    /// Where the image shall be: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    image: Location,

    /// What to pack, and where it lands in the image
    #[arg(value_name = "SOURCE[:PATH]", required = true, value_hint = ValueHint::AnyPath, value_parser = source())]
    sources: Vec<SourceSpec>,

    #[command(flatten)]
    tree: TreeArgs,
    #[command(flatten)]
    image_args: ImageArgs,
    #[command(flatten)]
    registries: Registries,
    #[command(flatten)]
    report: Report,

    /// Write the digest of the image to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output options")]
    digestfile: Option<PathBuf>,
}

/// What of the sources is packed, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tree options")]
struct TreeArgs {
    /// Leave out what this pattern matches, as in .gitignore
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Do not cross mount points
    #[arg(long)]
    one_file_system: bool,

    /// Forget owners, times and most of the modes: 0:0, SOURCE_DATE_EPOCH or 1970, 0644 or 0755
    #[arg(long)]
    normalize: bool,

    /// Compress layers with zstd[:LEVEL] or gzip[:LEVEL], or do not: none
    #[arg(long, value_name = "METHOD", default_value_t)]
    compression: Compression,
}

/// What the image says about itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "Image options")]
struct ImageArgs {
    /// Make the image for these platforms [default: linux/amd64,linux/arm64]
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<Platform>,

    /// Set a label in the image's configuration
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Pair>,

    /// Set an annotation on the image's manifests and index
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<Pair>,

    /// The program that a container runs: one word, or a JSON array of words
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    entrypoint: Option<Words>,

    /// The program's arguments, written as --entrypoint
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    cmd: Option<Words>,

    /// Set an environment variable for containers
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<Pair>,

    /// The user that containers run as
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// The directory that containers start in
    #[arg(long, value_name = "DIR")]
    workdir: Option<AbsolutePath>,
}

impl Pack {
    /// Packs, and says what came of it.
    pub fn run(self) -> Result<()> {
        super::check_digestfile(self.digestfile.as_deref())?;
        let access = self.registries.access()?;
        let epoch = environment::source_date_epoch(environment::variable)?;
        let options = Options {
            compression: self.tree.compression,
            tree: WalkOptions {
                exclude: self.tree.exclude,
                one_file_system: self.tree.one_file_system,
                normalize: self.tree.normalize.then(|| epoch.unwrap_or_default()),
                clamp_mtime: epoch,
            },
            image: self.image_args.describe(),
        };
        let begun = Instant::now();
        let destination = self.image.destination(&access)?;
        let progress = progress::start("pack", self.report.quiet);
        let packed = pack(destination.as_ref(), &self.sources, &options, progress.as_ref())?;
        drop(progress);

        super::write_digest(self.digestfile.as_deref(), &packed.digest)?;
        if !self.report.quiet {
            output::line(&summary(&packed, begun.elapsed()));
        }
        match self.report.format {
            Format::Text => output::results(|out| writeln!(out, "{}", packed.address)),
            Format::Json => output::json(&packed),
        }
    }
}

/// Reads sources as they are typed: file names are bytes and need not be text.
fn source() -> impl TypedValueParser<Value = SourceSpec> {
    OsStringValueParser::new().try_map(|text| SourceSpec::parse(&text))
}

impl ImageArgs {
    /// The description of the image; of a key that is given twice, the last value counts.
    fn describe(self) -> Description {
        let words = |words: Option<Words>| words.map(|words| words.0).unwrap_or_default();
        let pairs = |pairs: Vec<Pair>| pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
        Description {
            platforms: self.platforms,
            labels: pairs(self.labels),
            annotations: pairs(self.annotations),
            execution: Execution {
                user: self.user,
                env: variables(self.env),
                entrypoint: words(self.entrypoint),
                cmd: words(self.cmd),
                working_dir: self.workdir.map(|path| path.0),
                ..oci::Execution::default()
            },
            ..Description::default()
        }
    }
}

/// Environment variables in the order in which they were first named, each once with its last value.
fn variables(pairs: Vec<Pair>) -> Vec<String> {
    let mut variables: Vec<Pair> = Vec::with_capacity(pairs.len());
    for pair in pairs {
        match variables.iter_mut().find(|known| known.key == pair.key) {
            Some(known) => known.value = pair.value,
            None => variables.push(pair),
        }
    }
    variables.into_iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect()
}

/// One line: what was packed, what it became, how fast, and what was left out.
fn summary(packed: &Packed, time: Duration) -> String {
    let size = packed.layers.iter().map(|layer| layer.size).sum();
    let mut line = format!(
        "packed {}, {} into {} of {} in {}",
        count(packed.entries, "entry", "entries"),
        bytes(packed.bytes),
        count(packed.layers.len() as u64, "layer", "layers"),
        bytes(size),
        duration(time),
    );
    line.extend(rate(packed.bytes, time).map(|rate| format!(", {rate}")));
    if packed.excluded > 0 {
        line += &format!("; {} excluded", packed.excluded);
    }
    if packed.sockets_skipped > 0 {
        line += &format!("; {} skipped", count(packed.sockets_skipped, "socket", "sockets"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_set_twice_has_its_last_value() {
        let pairs = ["A=1", "B=2", "A=3"].map(|text| text.parse().unwrap());
        assert_eq!(variables(pairs.into()), ["A=3", "B=2"]);
    }
}
