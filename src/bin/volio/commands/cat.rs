//! `volio cat`: writes the content of files in an image to standard output.

use crate::args::{RegistryArgs, location, tree_path};
use crate::limit_args::{ContentLimitArg, LimitArgs};
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use crate::{environment, output};
use clap::Args;
use std::io::{self, Write};
use volio::cat::cat;
use volio::{Location, Platform, ReadOptions, Result, SignedPart, TreePath};

const EXAMPLES: &str = "\
Examples:
  volio cat registry.example/data:v1 /etc/nginx/nginx.conf
  volio cat oci:backup:monday /var/log/app.log /var/log/app.log.1 | grep ERROR
  volio cat registry.example/site:v2 /dump.sql.gz > dump.sql.gz

Symbolic links are followed inside of the image. Bytes are written unchanged, after they were verified against a digest.

Of zstd layers that volio made, only the table of contents and the content itself are fetched. Other layers are read \
completely, and twice, with a warning.";

/// Write files of an image to standard output
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Cat {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    #[arg(value_parser = location())]
    image: Location,

    /// Write the content of these files, in this order
    #[arg(required = true, value_name = "PATH", value_parser = tree_path())]
    paths: Vec<TreePath>,

    /// Take the image for this platform [default: the host's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    /// Recognise layers by their first bytes instead of their media types
    #[arg(long)]
    any_media_type: bool,

    /// Print nothing on stderr but errors
    #[arg(short, long, help_heading = "Output options")]
    quiet: bool,

    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    content: ContentLimitArg,
    #[command(flatten)]
    signatures: VerificationArgs,
    #[command(flatten)]
    registries: RegistryArgs,
}

impl Cat {
    /// Writes the files.
    pub fn run(self) -> Result<()> {
        let progress = Display::start_beside_results("cat", self.quiet);
        let access = self.registries.access(&progress)?;
        let part = SignedPart::Platform(self.platform.clone());
        let source = self.signatures.source(&self.image, &access, part)?;
        let options = ReadOptions {
            platform: self.platform.clone(),
            limits: self.limits.limits(),
            connections: access.client.concurrency,
            temporary: Some(environment::temporary(environment::variable)),
            max_content: self.content.max_content,
            any_media_type: self.any_media_type,
        };
        output::results(|out| {
            let mut out = PipeWatcher { out, is_closed: false };
            let outcome = cat(source.as_ref(), &self.paths, &options, &mut out, progress.as_ref());
            match outcome {
                // `cat` may report the closed pipe as another error.
                Err(_) if out.is_closed => Err(io::ErrorKind::BrokenPipe.into()),
                outcome => outcome.map(drop).map_err(io::Error::from),
            }
        })
    }
}

/// Standard output. It notices that the other end of a pipe was closed.
struct PipeWatcher<'a> {
    out: &'a mut dyn Write,
    is_closed: bool,
}

impl Write for PipeWatcher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.is_closed |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
