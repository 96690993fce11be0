//! `volio prune`: removes the images that no rule of retention keeps.

use crate::args::{Format, OutputArgs, RegistryArgs, ensure_repository, location};
use crate::human::{bytes, count};
use crate::output::{self, printable};
use crate::progress::Display;
use crate::retention_args::RetentionArgs;
use crate::unattended;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use std::time::{Duration, SystemTime};
use volio::prune::{Effect, EmptyResult, Fate, Options, Pruned, PrunedTag, prune};
use volio::{Digest, Error, Location, Result, TagTemplate};

const EXAMPLES: &str = "\
Examples:
  volio prune --keep-daily 7 --keep-weekly 5 --keep-monthly 12 registry.example/backup
  volio prune --keep-within 14d --tag-template '{date}-{digest:.8}' --dry-run registry.example/backup
  volio prune --keep-last 3 oci:backup
  volio prune --tag-template 'pr-{date}' --allow-remove-all registry.example/checkout

The rules are those of restic forget. Each keeps the newest image of each of its periods, and counts only periods that have \
images. Periods are those of the calendar, in the time zone of each image's time; weeks begin on Monday. An image is kept \
if any rule keeps it. If a rule reaches the oldest image before its count, it keeps that one too. The rules for spans count \
back from the newest image that is not in the future. Several tags of one image count once.

With --tag-template, only tags of its form are looked at, and the date in a tag, in the time zone TZ, is the time of its \
image. All other tags are kept. Without it, all images are looked at. The time of an image whose tag has no date is \
its annotation org.opencontainers.image.created, or else the time in its configuration. Images without a time, or with one \
before 1971, are kept.

Attachments, such as signatures, are kept with their image and go with it, or when it does not exist. A registry that cannot remove a tag alone loses \
an image only if no tag that is kept means it or needs it. Of a layout, blobs that no image needs are deleted too.

Nothing is removed if the rules keep no image (6), and tags that mean another image by now are kept. If the registry \
refuses to remove a tag, such as an immutable one, the others are removed, and the command fails at the end. One line for \
each tag says what happens to it, and why.";

/// Remove the images of a repository or a layout that no rule keeps
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Prune {
    /// The repository or the layout: HOST/REPOSITORY or oci:DIR
    #[arg(value_name = "PLACE", value_parser = location())]
    location: Location,

    /// Look only at tags of this form; its fields are {date}, {time}, {date:%Y%m%d}, {digest} and {digest:.8}
    #[arg(long, value_name = "TEMPLATE")]
    tag_template: Option<TagTemplate>,

    /// Remove also all images of the template, if no rule keeps any
    #[arg(long, requires = "tag_template")]
    allow_remove_all: bool,

    /// Keep unneeded blobs of a layout that are younger, which another program may be writing
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    blob_age: u32,

    /// Say what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The result as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PruneDocument {
    place: String,
    dry_run: bool,
    tags: Vec<TagDocument>,
    /// Blobs of a layout that were deleted, or would have been.
    blobs: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    blobs_left: Option<String>,
}

/// A tag as JSON.
#[derive(Serialize)]
struct TagDocument {
    tag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    action: String,
    /// Set if the tag was to be removed, and the registry refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    refused: bool,
    reasons: Vec<String>,
}

impl Prune {
    /// Removes images, and prints what happened to each tag.
    pub fn run(self) -> Result<()> {
        let place = self.location.without_name();
        ensure_repository(&self.location, "prune", "looks at all of a repository")?;
        let options = self.options()?;
        options.check()?;
        let access = self.registries.access(&Display::warnings())?;
        let removal = self.location.bulk_removal(&access)?;
        let source = self.location.source_without_mirrors(&access)?;
        let pruned = prune(source.as_ref(), removal.as_ref(), &options)?;
        for tag in &pruned.unknown_tags {
            output::warning(&format!("--keep-tag {tag}: {place} has no such tag"));
        }
        if !self.output.quiet {
            output::line(&summary(&pruned, self.dry_run));
        }
        match self.output.format {
            Format::Text => print(&pruned),
            Format::Json => output::json(&document(place, self.dry_run, &pruned)),
        }?;
        pruned.refusal().map_or(Ok(()), Err)
    }

    fn options(&self) -> Result<Options> {
        let now = Timestamp::try_from(SystemTime::now())
            .map_err(|error| Error::failed("the clock has a time that no calendar has").with_source(error))?;
        Ok(Options {
            template: self.tag_template.clone(),
            time_zone: unattended::zone()?.time_zone(),
            empty_result: if self.allow_remove_all { EmptyResult::Allow } else { EmptyResult::Refuse },
            garbage_age: Duration::from_secs(u64::from(self.blob_age) * 3600),
            effect: if self.dry_run { Effect::DryRun } else { Effect::Remove },
            ..Options::new(self.retention.policy(), now)
        })
    }
}

/// Prints a line for each tag.
fn print(pruned: &Pruned) -> Result<()> {
    let width = pruned.tags.iter().map(|tag| printable(&tag.tag).chars().count()).max().unwrap_or_default();
    output::results(|out| {
        pruned.tags.iter().try_for_each(|tag| {
            let time = time(tag).unwrap_or_else(|| "-".to_owned());
            let (name, reasons) = (printable(&tag.tag), reasons(tag).join(", "));
            writeln!(out, "{:<6}  {name:<width$}  {time:<25}  {}", tag.fate.to_string(), printable(&reasons))
        })
    })
}

fn time(tag: &PrunedTag) -> Option<String> {
    tag.time.as_ref().map(|time| time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
}

/// Returns the reasons for the fate of a tag, in words.
pub fn reasons(tag: &PrunedTag) -> Vec<String> {
    tag.reasons.iter().map(ToString::to_string).collect()
}

/// Formats the result in one line.
pub fn summary(pruned: &Pruned, is_dry_run: bool) -> String {
    let removed = pruned.removed().count() as u64;
    let kept = pruned.tags.len() as u64 - removed;
    let (prefix, deleted) = if is_dry_run { ("dry run: would have ", "deleted") } else { ("", "deleted") };
    let mut line = format!("{prefix}removed {}, kept {kept}", count(removed, "tag", "tags"));
    if pruned.garbage.blobs > 0 {
        let blobs = count(pruned.garbage.blobs, "blob", "blobs");
        line += &format!("; {deleted} {blobs}, {}", bytes(pruned.garbage.bytes));
    }
    match &pruned.garbage.left {
        Some(why) => line + &format!("; unneeded blobs are still there: {}", printable(why)),
        None => line,
    }
}

fn document(place: String, dry_run: bool, pruned: &Pruned) -> PruneDocument {
    let tags = pruned.tags.iter().map(|tag| TagDocument {
        tag: tag.tag.clone(),
        digest: tag.digest.clone(),
        time: time(tag),
        action: match tag.fate {
            Fate::Keep => "keep".to_owned(),
            Fate::Remove => "remove".to_owned(),
        },
        refused: tag.refusal().is_some(),
        reasons: reasons(tag),
    });
    let garbage = &pruned.garbage;
    let (blobs, bytes) = (garbage.blobs, garbage.bytes);
    PruneDocument { place, dry_run, tags: tags.collect(), blobs, bytes, blobs_left: garbage.left.clone() }
}
