//! `volio verify`: verifies every blob of an image.

use crate::args::{Format, OutputArgs, RegistryArgs, location};
use crate::documents::VerifyDocument;
use crate::human::{bytes, count, duration, rate};
use crate::limit_args::ContentLimitArg;
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use crate::{environment, output};
use clap::{Args, ValueHint};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use volio::verify::{Options, Verified, verify};
use volio::{Error, Location, Platform, Result, SignedPart};

const EXAMPLES: &str = "\
Examples:
  volio verify registry.example/data:v1
  volio verify oci:/media/stick:v1
  volio verify --key release.pub oci:/media/stick:v1
  volio verify --platform linux/arm64 --format json registry.example/app:v1

With --key or --policy, the signatures of the image are verified first; docs/trust.md has more about them.

Every blob is read, and its size and digest are verified. The archive of each layer is decompressed, verified against its \
diff_id and read entry by entry. Nothing is stored.

Each damaged blob is reported in one line, and the exit code is then 3.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

/// Verify every blob of an image
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Verify {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    #[arg(value_parser = location())]
    image: Location,

    /// Verify the image for this platform only [default: all]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    /// Recognise layers by their first bytes instead of their media types
    #[arg(long)]
    any_media_type: bool,

    /// Verify first that this public key has signed the image; of several, any one [env: VOLIO_VERIFY_KEY]
    #[arg(long = "key", visible_alias = "verify-key", value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "policy")]
    keys: Vec<PathBuf>,

    /// Verify first that the image satisfies this policy, as in containers-policy.json(5)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    policy: Option<PathBuf>,

    #[command(flatten)]
    content: ContentLimitArg,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Verify {
    /// Verifies, and prints the result.
    pub fn run(self) -> Result<()> {
        let begun = Instant::now();
        let progress = Display::start("verify", self.output.quiet);
        let access = self.registries.access(&progress)?;
        let signatures = VerificationArgs::of_keys(self.keys, self.policy);
        let part = self.platform.clone().map_or(SignedPart::Whole, |one| SignedPart::Platform(Some(one)));
        let is_signed = signatures.policy()?.is_some();
        let source = signatures.source(&self.image, &access, part)?;
        let options = Options {
            platform: self.platform,
            max_content: self.content.max_content,
            temporary: Some(environment::temporary(environment::variable)),
            any_media_type: self.any_media_type,
        };
        let verified = verify(source.as_ref(), &options, progress.as_ref())?;
        drop(progress);

        let address = super::address(&self.image, &verified.digest);
        for damage in &verified.damage {
            output::error(&Error::integrity(format!("{}: {}", damage.role, damage.why)));
        }
        if self.output.format == Format::Json {
            output::json(&VerifyDocument::new(&address, &verified))?;
        }
        if !verified.damage.is_empty() {
            return Err(Error::integrity(format!(
                "{} of {} in {address} are not what they should be",
                verified.damage.len(),
                count(verified.blobs, "blob", "blobs"),
            ))
            .with_hint("copy the image again from a place where it is sound"));
        }
        if !self.output.quiet {
            output::line(&summary(&verified, begun.elapsed()));
            if is_signed {
                output::line("its signatures satisfy what was required");
            }
        }
        match self.output.format {
            Format::Text => output::results(|out| writeln!(out, "{address}")),
            Format::Json => Ok(()),
        }
    }
}

/// Formats the result in one line: what was verified, and how fast.
fn summary(verified: &Verified, time: Duration) -> String {
    let mut line = format!(
        "verified {}, {} of {} in {}",
        count(verified.blobs, "blob", "blobs"),
        bytes(verified.bytes),
        count(verified.images, "image", "images"),
        duration(time),
    );
    line.extend(rate(verified.bytes, time).map(|rate| format!(", {rate}")));
    line
}
