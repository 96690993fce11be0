//! `volio tags`: lists the tags of a repository or a layout.

use crate::args::{Format, OutputArgs, RegistryArgs, ensure_repository, location};
use crate::output::{self, printable};
use crate::progress::Display;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use volio::tags::{self, Attachment};
use volio::{Digest, Location, Result};

const EXAMPLES: &str = "\
Examples:
  volio tags registry.example/data
  volio tags oci:backup
  volio tags --attachments registry.example/data
  volio tags --format json registry.example/data | jq -r '.tags[-1]'

One tag a line, in the order of their bytes. Where several images of a layout share a short tag, their full names take \
its place. Images without a tag are listed on stderr, by their digests.

Tags of signatures and other attachments are not tags of images: sha256-….sig, .att and .sbom, as cosign writes them, and \
sha256-…, the index of an image's referrers. --attachments lists them, indented, after each image that they belong to, also \
through one of its platforms or another attachment. Those of images without a tag follow the digest that they are \
attached to.";

/// List the tags of a repository or a layout
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Tags {
    /// The repository or the layout: HOST/REPOSITORY or oci:DIR
    #[arg(value_name = "PLACE", value_parser = location())]
    location: Location,

    /// List the tags of signatures and other attachments too, with their images
    #[arg(long)]
    attachments: bool,

    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The result as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TagsDocument<'a> {
    place: String,
    tags: &'a [String],
    /// The tags of attachments, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments: Option<Vec<AttachmentDocument<'a>>>,
    /// The digests of the images without a tag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    untagged: Vec<Digest>,
}

#[derive(Serialize)]
struct AttachmentDocument<'a> {
    tag: &'a str,
    /// The digest of the manifest that it is attached to.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a Digest>,
    /// The tags of the images that it belongs to.
    images: &'a [String],
}

impl<'a> From<&'a Attachment> for AttachmentDocument<'a> {
    fn from(Attachment { tag, subject, images, .. }: &'a Attachment) -> Self {
        Self { tag, subject: subject.as_ref(), images }
    }
}

impl Tags {
    /// Prints the tags.
    pub fn run(self) -> Result<()> {
        let place = self.location.without_name();
        ensure_repository(&self.location, "tags", "lists a repository")?;
        let source = self.location.source(&self.registries.access(&Display::warnings())?)?;
        let (tags, untagged) = (tags::list(source.as_ref())?, source.untagged()?);
        let attachments =
            if self.attachments { Some(tags::attachments(&tags, source.as_ref())?) } else { None };
        if self.output.format == Format::Text && !self.output.quiet && !untagged.is_empty() {
            output::line(&super::without_tag(&untagged));
        }
        match self.output.format {
            Format::Text => output::results(|out| {
                write_text(out, &tags.images, attachments.as_deref().unwrap_or_default())
            }),
            Format::Json => output::json(&TagsDocument {
                place,
                tags: &tags.images,
                attachments: attachments.as_ref().map(|list| list.iter().map(Into::into).collect()),
                untagged,
            }),
        }
    }
}

/// Writes the tags of the images, each followed by those of its attachments.
fn write_text(out: &mut dyn Write, images: &[String], attachments: &[Attachment]) -> io::Result<()> {
    let mut by_image: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut left: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for Attachment { tag, subject, images, .. } in attachments {
        images.iter().for_each(|image| by_image.entry(image).or_default().push(tag));
        if images.is_empty() {
            let subject = subject.as_ref().map_or_else(|| "@…".to_owned(), |digest| format!("@{digest}"));
            left.entry(subject).or_default().push(tag);
        }
    }
    let of_images = images.iter().map(|image| (image, by_image.get(image.as_str())));
    for (name, attached) in of_images.chain(left.iter().map(|(subject, tags)| (subject, Some(tags)))) {
        writeln!(out, "{}", printable(name))?;
        attached.into_iter().flatten().try_for_each(|tag| writeln!(out, "  {}", printable(tag)))?;
    }
    Ok(())
}
