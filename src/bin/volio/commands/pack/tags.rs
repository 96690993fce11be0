//! The options of `volio pack` for further tags, and for the removal of older images.

use crate::commands::prune::{reasons, summary};
use crate::output::{self, printable};
use crate::retention_args::RetentionArgs;
use crate::unattended;
use clap::Args;
use jiff::Timestamp;
use std::time::SystemTime;
use volio::pack::{Packed, add_tags};
use volio::prune::{Options, ensure_stored, prune};
use volio::{Access, Destination, Error, Location, Result, TagTemplate};

/// Options for further tags, and for the removal of older images.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tag options")]
pub struct TagArgs {
    /// Give the image this tag too; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,

    /// Give the image a tag of this form too, such as '{date}-{digest:.8}'; the --keep options look only at such tags
    #[arg(long, value_name = "TEMPLATE")]
    tag_template: Option<TagTemplate>,

    #[command(flatten)]
    retention: RetentionArgs,
}

/// The reaction to a registry that refuses to remove some of the older images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefusal {
    /// The command fails. The image is stored.
    Fail,
    /// A warning is given: with a schedule, a failure would repeat the whole run after a minute.
    Warn,
}

impl TagArgs {
    /// Checks the arguments before the work, and not after the image is stored.
    pub fn check(&self, image: &Location) -> Result<()> {
        let has_retention = self.retention.is_given();
        if self.tags.is_empty() && self.tag_template.is_none() && !has_retention {
            return Ok(());
        }
        if !matches!(image, Location::Registry(_) | Location::Layout { .. }) {
            return Err(Error::usage(format!("{image} gets one tag, and nothing is removed from it"))
                .with_hint("--tag, --tag-template and the --keep options need a registry or a layout"));
        }
        self.tags.iter().try_for_each(|tag| image.with_tag(tag).map(drop))?;
        unattended::zone()?;
        if has_retention { self.options(SystemTime::now())?.check() } else { Ok(()) }
    }

    /// Gives the image its further tags. `begun` is the time at which the pack began. Returns the tags.
    pub fn add(
        &self,
        destination: &dyn Destination,
        packed: &Packed,
        begun: SystemTime,
    ) -> Result<Vec<String>> {
        let mut tags = self.tags.clone();
        if let Some(template) = &self.tag_template {
            let zone = unattended::zone()?.time_zone();
            tags.push(template.tag(timestamp(begun)?.to_zoned(zone).datetime(), &packed.digest)?);
        }
        add_tags(destination, packed, &tags).map(|()| tags)
    }

    /// Removes the images that no rule keeps, if there are rules, after looking whether the new image is stored.
    pub fn prune(
        &self,
        image: &Location,
        access: &Access,
        destination: Box<dyn Destination>,
        packed: &Packed,
        is_quiet: bool,
        on_refusal: OnRefusal,
    ) -> Result<()> {
        if !self.retention.is_given() {
            return Ok(());
        }
        let by_digest = match image {
            Location::Layout { directory, .. } => {
                let digest = Some(packed.digest.clone());
                Location::Layout { directory: directory.clone(), tag: None, digest }
            }
            _ => packed.address.parse()?,
        };
        let source = by_digest.source_without_mirrors(access)?;
        let kept = |error: Error| error.context("no older image was removed");
        ensure_stored(source.as_ref(), destination.as_ref(), &packed.digest).map_err(kept)?;
        // A writer of a layout keeps its blobs from being deleted.
        drop(destination);
        let options =
            Options { just_packed: Some(packed.digest.clone()), ..self.options(SystemTime::now())? };
        let removal = image.bulk_removal(access)?;
        let pruned = prune(source.as_ref(), removal.as_ref(), &options)?;
        for tag in &pruned.unknown_tags {
            output::warning(&format!("--keep-tag {tag}: there is no such tag"));
        }
        if !is_quiet {
            for tag in pruned.removed() {
                let line = format!("removed {}: {}", tag.tag, reasons(tag).join(", "));
                output::line(&printable(&line));
            }
            output::line(&summary(&pruned, false));
        }
        let Some(refusal) = pruned.refusal() else { return Ok(()) };
        let refusal =
            refusal.context(format!("{} is stored, but not all older images are removed", packed.address));
        match on_refusal {
            OnRefusal::Fail => Err(refusal),
            OnRefusal::Warn => {
                output::warning(&refusal.to_string());
                Ok(())
            }
        }
    }

    fn options(&self, now: SystemTime) -> Result<Options> {
        Ok(Options {
            template: self.tag_template.clone(),
            time_zone: unattended::zone()?.time_zone(),
            ..Options::new(self.retention.policy(), timestamp(now)?)
        })
    }
}

fn timestamp(time: SystemTime) -> Result<Timestamp> {
    Timestamp::try_from(time)
        .map_err(|error| Error::failed("the clock has a time that no calendar has").with_source(error))
}
