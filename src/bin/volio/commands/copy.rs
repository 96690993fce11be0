//! `volio copy`, `volio push` and `volio pull`: copy an image from one location to another, byte for byte.

use crate::args::{Format, OutputArgs, RegistryArgs, location};
use crate::documents::{CopyDocument, TagDocument};
use crate::human::{bytes, count, duration, rate};
use crate::output;
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use clap::{Args, ValueHint};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use volio::copy::{Base, Copied, Options, TagCopied, copy, copy_tags};
use volio::progress::Progress;
use volio::{Access, Error, ImageSupport, Location, Platform, Result, SignedPart, tags};

const COPY_EXAMPLES: &str = "\
Examples:
  volio copy registry.example/data:v1 mirror.example/data:v1
  volio copy registry.example/data:v1 oci:/media/stick:v1    for a site without a network
  volio copy oci:/media/stick:v1 inside.example/data:v1      and at that site
  volio copy registry.example/data:v1 docker-archive:data.tar:data:v1
  volio copy --since registry.example/data:v1 registry.example/data:v2 oci:/media/stick:v2
  volio copy --all-tags --referrers registry.example/data mirror.example/data

The copy has the same bytes and the same digest. Blobs that TO has already are not sent again. With --platform, the digest \
is that of the platform's manifest, or of a new index of the selected platforms. A docker-archive can hold one platform \
only, and no compressed layers: the image for the host is copied, unless --platform is given, and its layers are \
decompressed.

With --since, layers that the named images have are left out. The copy in TO is incomplete: it can be inspected, and \
copied to a location that has those images.

With --all-tags, FROM and TO are HOST/REPOSITORY, oci:DIR or an archive without a tag. If the image of one tag is damaged, \
the other tags are copied, and the exit code reports the damage. Signatures and other attachments are copied with \
--referrers only, once with the images that they belong to; their tags are not images.

With --referrers, a tag of signatures or attestations (.sig, .att) that has others in TO is not replaced, with a warning.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

const PUSH_EXAMPLES: &str = "\
Examples:
  volio push oci:backup:monday registry.example/backup:monday

The same as volio copy; TO must be in a registry.";

const PULL_EXAMPLES: &str = "\
Examples:
  volio pull registry.example/data:v1 oci:data:v1

The same as volio copy; FROM must be in a registry.";

/// Copy an image from one location to another
#[derive(Debug, Args)]
#[command(after_long_help = COPY_EXAMPLES)]
pub struct Copy {
    #[command(flatten)]
    copy: CopyArgs,
}

/// Copy an image into a registry
#[derive(Debug, Args)]
#[command(after_long_help = PUSH_EXAMPLES)]
pub struct Push {
    #[command(flatten)]
    copy: CopyArgs,
}

/// Copy an image out of a registry
#[derive(Debug, Args)]
#[command(after_long_help = PULL_EXAMPLES)]
pub struct Pull {
    #[command(flatten)]
    copy: CopyArgs,
}

/// The arguments of all three commands.
#[derive(Debug, Args)]
struct CopyArgs {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    #[arg(value_parser = location())]
    from: Location,

    /// The image to write, in the same forms
    #[arg(value_parser = location())]
    to: Location,

    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    signatures: VerificationArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Write the digest of the image to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output options")]
    digestfile: Option<PathBuf>,
}

/// Options for the images and layers to copy.
#[derive(Debug, Args)]
#[command(next_help_heading = "Copy options")]
struct SelectionArgs {
    /// Copy the images for these platforms only [default: all]
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<Platform>,

    /// Copy all tags of a repository or a layout
    #[arg(long, conflicts_with = "digestfile")]
    all_tags: bool,

    /// Copy the image's referrers too, such as signatures, and the attachments that cosign named by tags,
    /// also those of its platforms
    #[arg(long)]
    referrers: bool,

    /// Leave out layers that this image has; may be given several times
    #[arg(long, value_name = "IMAGE", value_parser = location())]
    since: Vec<Location>,
}

impl Copy {
    /// Copies, and prints the result.
    pub fn run(self) -> Result<()> {
        self.copy.run("copy")
    }
}

impl Push {
    /// Copies into a registry, and prints the result.
    pub fn run(self) -> Result<()> {
        match self.copy.to {
            Location::Registry(_) => self.copy.run("push"),
            _ => Err(Error::usage(format!("push: {} is not in a registry", self.copy.to))
                .with_hint("write volio push FROM HOST/REPOSITORY:TAG, or use volio copy")),
        }
    }
}

impl Pull {
    /// Copies out of a registry, and prints the result.
    pub fn run(self) -> Result<()> {
        match self.copy.from {
            Location::Registry(_) => self.copy.run("pull"),
            _ => Err(Error::usage(format!("pull: {} is not in a registry", self.copy.from))
                .with_hint("write volio pull HOST/REPOSITORY:TAG TO, or use volio copy")),
        }
    }
}

impl SelectionArgs {
    /// Returns the options of the copy, after reading the images of `--since`.
    fn options(&self, access: &Access) -> Result<Options> {
        // The digest is added to the name.
        let name = |image: &Location| match image.digest() {
            Some(_) => image.without_name(),
            None => image.to_string(),
        };
        let read = |image: &Location| Base::read(&name(image), image.source(access)?.as_ref());
        let since = self.since.iter().map(read).collect::<Result<_>>()?;
        let (platforms, concurrency) = (self.platforms.clone(), access.client.concurrency);
        Ok(Options { platforms, referrers: self.referrers, since, concurrency })
    }
}

impl CopyArgs {
    fn run(self, verb: &'static str) -> Result<()> {
        if let (Location::Registry(_), false) = (&self.to, self.selection.since.is_empty()) {
            return Err(Error::usage(format!(
                "--since: {} is in a registry, which takes whole images only",
                self.to
            ))
            .with_hint("copy without --since: what is there already is not sent again"));
        }
        let progress = Display::start(verb, self.output.quiet);
        let access = self.registries.access(&progress)?;
        let options = self.selection.options(&access)?;
        if self.selection.all_tags {
            self.copy_all_tags(&options, &access, progress)
        } else {
            self.copy_image(&options, &access, progress)
        }
    }

    fn copy_image(self, options: &Options, access: &Access, progress: Display) -> Result<()> {
        super::clear_digestfile(self.digestfile.as_deref())?;
        let begun = Instant::now();
        let from = self.signatures.source(&self.from, access, self.signed_part())?;
        let to = self.to.destination(access)?;
        let copied = copy(from.as_ref(), to.as_ref(), options, progress.as_ref())?;
        drop(progress);

        super::write_digest(self.digestfile.as_deref(), &copied.digest)?;
        if !self.output.quiet {
            output::line(&summary(&[&copied], begun.elapsed()));
            // If the destination can hold only one platform, a warning was printed.
            if let (Some(source), ImageSupport::Any) = (&copied.source_digest, to.image_support()) {
                output::line(&format!("only some platforms: the digest is not that of the source, {source}"));
            }
        }
        match self.output.format {
            Format::Text => output::results(|out| writeln!(out, "{}", copied.address)),
            Format::Json => output::json(&CopyDocument::from(&copied)),
        }
    }

    fn copy_all_tags(self, options: &Options, access: &Access, progress: Display) -> Result<()> {
        for location in [&self.from, &self.to] {
            if !location.is_repository() {
                return Err(Error::usage(format!("--all-tags: {location} is one image"))
                    .with_hint(format!("write {}", location.without_name())));
            }
        }
        let begun = Instant::now();
        let tags = self.tags(access)?;
        let done = self.copy_tags(&tags, options, access, progress.as_ref())?;
        drop(progress);

        let copied: Vec<&Copied> = done.iter().filter_map(|tag| tag.outcome.as_ref().ok()).collect();
        if !self.output.quiet {
            output::line(&summary(&copied, begun.elapsed()));
        }
        match self.output.format {
            Format::Text => output::results(|out| {
                copied.iter().try_for_each(|copied| writeln!(out, "{}", copied.address))
            })?,
            Format::Json => output::json(&done.iter().map(TagDocument::from).collect::<Vec<_>>())?,
        }
        report_failures(done)
    }

    /// Returns the part of the image that must be signed, if signatures are required.
    fn signed_part(&self) -> SignedPart {
        match (self.selection.platforms.as_slice(), &self.to) {
            ([], Location::DockerArchive { .. }) => SignedPart::Platform(None),
            ([one], _) => SignedPart::Platform(Some(one.clone())),
            _ => SignedPart::Whole,
        }
    }

    /// Returns the tags to copy, at least one of an image: copying nothing would look like success.
    fn tags(&self, access: &Access) -> Result<Vec<String>> {
        let source = self.from.source(access)?;
        let (tags, untagged) = (tags::list(source.as_ref())?, source.untagged()?);
        if tags.images.is_empty() {
            let error = Error::not_found(format!("--all-tags: {} has no tags", self.from.without_name()));
            return Err(error.with_hint(if untagged.is_empty() {
                "it holds no image".to_owned()
            } else {
                format!("it has {}; copy each by its digest", super::without_tag(&untagged))
            }));
        }
        if !untagged.is_empty() {
            output::warning(&format!("not copied: {}", super::without_tag(&untagged)));
        }
        Ok([tags.images, tags.attachments].concat())
    }

    fn copy_tags(
        &self,
        tags: &[String],
        options: &Options,
        access: &Access,
        progress: &dyn Progress,
    ) -> Result<Vec<TagCopied>> {
        let open = |tag: &str| {
            let (from, to) = (self.from.with_tag(tag)?, self.to.with_tag(tag)?);
            Ok((self.signatures.source(&from, access, self.signed_part())?, to.destination(access)?))
        };
        copy_tags(tags, open, options, progress)
    }
}

/// Prints the tags that were not copied, and returns an error with the kind of the first failure.
fn report_failures(done: Vec<TagCopied>) -> Result<()> {
    let all = done.len();
    let failed: Vec<(String, Error)> =
        done.into_iter().filter_map(|tag| Some((tag.tag, tag.outcome.err()?))).collect();
    for (tag, error) in &failed {
        let line = Error::new(error.kind(), format!("the tag {tag} was not copied: {error}"));
        output::error(&match error.hint() {
            Some(hint) => line.with_hint(hint),
            None => line,
        });
    }
    match failed.first() {
        Some((_, first)) => {
            Err(Error::new(first.kind(), format!("{} of {all} tags were not copied", failed.len())))
        }
        None => Ok(()),
    }
}

/// Formats the result in one line: what was copied, how fast, and what was there already.
fn summary(copied: &[&Copied], time: Duration) -> String {
    let sum = |field: fn(&Copied) -> u64| copied.iter().map(|copied| field(copied)).sum::<u64>();
    let (blobs, size) = (sum(|copied| copied.blobs_copied), sum(|copied| copied.bytes_copied));
    let mut line = format!("copied {}, {} in {}", count(blobs, "blob", "blobs"), bytes(size), duration(time));
    if blobs > 0 {
        line.extend(rate(size, time).map(|rate| format!(", {rate}")));
    }
    for (number, what) in [
        (sum(|copied| copied.blobs_present), "there already"),
        (sum(|copied| copied.blobs_mounted), "mounted from another repository"),
        (sum(|copied| copied.blobs_omitted), "left out"),
        (sum(|copied| copied.blobs_foreign), "foreign and not copied"),
    ] {
        if number > 0 {
            line += &format!("; {number} {what}");
        }
    }
    match sum(|copied| copied.referrers) {
        0 => line,
        number => line + &format!("; {}", count(number, "referrer", "referrers")),
    }
}
