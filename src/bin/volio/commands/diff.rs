//! `volio diff`: compares an image with a directory, or two images.

use super::ls::{absolute, text};
use crate::args::{Format, OutputArgs, RegistryArgs};
use crate::color::{self, Stream, paint};
use crate::exit::Exit;
use crate::human::count;
use crate::limit_args::{ContentLimitArg, LimitArgs};
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use crate::{environment, output};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};
use serde::{Serialize, Serializer};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use volio::diff::{Attribute, Change, Compared, ContentComparison, Difference, Options, Side, diff};
use volio::{Error, Location, Platform, ReadOptions, Reference, Result, SignedPart, Source};

const EXAMPLES: &str = "\
Examples:
  volio diff registry.example/data:v1 /data              what has changed since it was unpacked?
  volio diff registry.example/data:v1 registry.example/data:v2
  volio diff --quick registry.example/data:v1 /data      files of equal size and mtime are not read
  volio diff --ignore owner,mtime oci:backup restored    restored by somebody who is not root

FIRST and SECOND are an image or a directory each. An argument is a directory if it begins with / or ., if the path exists, \
or if it has no registry, tag or digest. ./NAME is always a directory and oci:NAME always an image. A directory is read \
as volio pack reads it.

Each difference is one line, in the order of paths:
  + PATH                         only SECOND has it
  - PATH                         only FIRST has it
  ~ PATH ATTRIBUTE FIRST SECOND  both have it, and not the same; - stands for what is not there

ATTRIBUTE is type, size, content (its SHA-256; of a file that volio stores in several chunks of at most 4 MiB, that of the list of its chunks), target (of a symbolic \
link), device, mode, owner, mtime, hardlink (the first name of the same file), or xattr with its name. Where the type differs, nothing else is compared; where the size \
differs, the content is not mentioned. With --format json, paths with spaces are unambiguous.

The exit code is 0 when nothing differs and 7 when something does.";

/// Show what differs between two images, or an image and a directory
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Diff {
    /// An image (HOST/REPOSITORY:TAG, oci:DIR[:TAG], …) or a directory
    #[arg(value_hint = ValueHint::AnyPath, value_parser = operand())]
    first: Operand,

    /// Another one
    #[arg(value_hint = ValueHint::AnyPath, value_parser = operand())]
    second: Operand,

    /// Do not compare these attributes
    #[arg(long, value_name = "ATTRIBUTE", value_enum, value_delimiter = ',')]
    ignore: Vec<IgnoredAttribute>,

    /// Compare a directory by metadata first: the content of a file counts as equal, and is not read, if its
    /// size and mtime are those of the image
    #[arg(long)]
    quick: bool,

    /// Take images for this platform [default: the host's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    /// Recognise layers by their first bytes instead of their media types
    #[arg(long)]
    any_media_type: bool,

    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    content: ContentLimitArg,
    #[command(flatten)]
    signatures: VerificationArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The values of `--ignore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IgnoredAttribute {
    Content,
    Mode,
    Owner,
    Mtime,
    Hardlink,
    Xattr,
}

impl From<IgnoredAttribute> for Attribute {
    fn from(ignored: IgnoredAttribute) -> Self {
        match ignored {
            IgnoredAttribute::Content => Self::Content,
            IgnoredAttribute::Mode => Self::Mode,
            IgnoredAttribute::Owner => Self::Owner,
            IgnoredAttribute::Mtime => Self::Mtime,
            IgnoredAttribute::Hardlink => Self::Hardlink,
            IgnoredAttribute::Xattr => Self::Xattr(String::new()),
        }
    }
}

/// FIRST or SECOND, as an argument.
#[derive(Clone, Debug)]
enum Operand {
    Image(Location),
    Directory(PathBuf),
}

/// FIRST or SECOND, opened.
enum OpenOperand {
    Image(Box<dyn Source>),
    Directory(PathBuf),
}

impl Operand {
    fn parse(text: &OsStr) -> Result<Self> {
        let is_path = matches!(text.as_bytes(), [b'/' | b'.', ..]);
        if is_path || Path::new(text).exists() {
            return Ok(Self::Directory(text.into()));
        }
        match Location::parse(text) {
            // A misspelt directory is more likely than an image without a registry.
            Ok(Location::Registry(reference)) if reference.is_repository() && is_bare_word(text) => {
                Ok(Self::Directory(text.into()))
            }
            Err(_) if is_bare_word(text) => Ok(Self::Directory(text.into())),
            location => location.map(Self::Image),
        }
    }

    fn open(self, open_image: impl Fn(&Location) -> Result<Box<dyn Source>>) -> Result<OpenOperand> {
        match self {
            Self::Image(location) => Ok(OpenOperand::Image(open_image(&location)?)),
            Self::Directory(directory) if directory.symlink_metadata().is_err_and(is_missing) => {
                let shown = directory.display();
                let error = Error::not_found(format!("there is no directory {shown}"));
                Err(if is_bare_word(directory.as_os_str()) {
                    error.with_hint(format!(
                        "if an image is meant, write its registry or its tag: docker.io/library/{shown}:latest, \
                         oci:{shown}"
                    ))
                } else {
                    error
                })
            }
            Self::Directory(directory) => Ok(OpenOperand::Directory(directory)),
        }
    }
}

/// Returns `true` if a word is neither an absolute path nor the name of an image with a registry, a transport, a tag or a
/// digest.
fn is_bare_word(text: &OsStr) -> bool {
    let registry = text.to_str().is_some_and(Reference::names_registry);
    !registry && !text.as_bytes().contains(&b':') && !text.as_bytes().starts_with(b"/")
}

fn is_missing(error: io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

impl OpenOperand {
    fn side(&self) -> Side<'_> {
        match self {
            Self::Image(source) => Side::Image(source.as_ref()),
            Self::Directory(directory) => Side::Directory(directory),
        }
    }
}

fn operand() -> impl TypedValueParser<Value = Operand> {
    OsStringValueParser::new().try_map(|text: OsString| Operand::parse(&text))
}

impl Diff {
    /// Compares, and prints the differences.
    pub fn run(self) -> Result<Exit> {
        let progress = Display::start("diff", self.output.quiet);
        let access = self.registries.access(&progress)?;
        let (signatures, part) = (&self.signatures, SignedPart::Platform(self.platform.clone()));
        let open = |image: &Location| signatures.source(image, &access, part.clone());
        let (first, second) = (self.first.open(open)?, self.second.open(open)?);
        let ignore: BTreeSet<Attribute> = self.ignore.into_iter().map(Attribute::from).collect();
        let read = ReadOptions {
            platform: self.platform,
            limits: self.limits.limits(),
            connections: access.client.concurrency,
            temporary: Some(environment::temporary(environment::variable)),
            max_content: self.content.max_content,
            any_media_type: self.any_media_type,
        };
        let contents = if self.quick { ContentComparison::IfMtimeDiffers } else { ContentComparison::All };
        let options = Options { read, ignore, contents };
        let compared = diff(first.side(), second.side(), &options, progress.as_ref())?;
        drop(progress);

        match self.output.format {
            Format::Text => {
                output::results(|out| compared.differences().try_for_each(|found| write(out, &found)))?;
            }
            Format::Json => output::json(&DiffDocument { differences: Rows(&compared) })?,
        }
        let paths = compared.paths();
        if !self.output.quiet {
            output::line(&summary(compared.entries(), paths));
        }
        Ok(if paths == 0 { Exit::Done } else { Exit::Differs })
    }
}

/// Writes a difference as a line, in the colours of `git diff`.
fn write(out: &mut dyn Write, difference: &Difference) -> io::Result<()> {
    let style = match difference.change {
        Change::Added => color::GOOD,
        Change::Removed => color::ERROR,
        Change::Changed { .. } => color::WARNING,
    };
    writeln!(out, "{}", paint(Stream::Stdout, style, &difference.to_string()))
}

fn summary(entries: u64, paths: u64) -> String {
    let entries = count(entries, "path", "paths");
    match paths {
        0 => format!("compared {entries}: nothing differs"),
        1 => format!("compared {entries}: 1 differs"),
        number => format!("compared {entries}: {number} differ"),
    }
}

/// The differences as JSON.
#[derive(Serialize)]
struct DiffDocument<'a> {
    differences: Rows<'a>,
}

/// The list of differences as JSON. They are serialised one at a time, because all of them may be larger than memory.
struct Rows<'a>(&'a Compared);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.differences().map(Row::new))
    }
}

/// One difference as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    path: String,
    /// The bytes of the path in base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_raw: Option<String>,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attribute: Option<String>,
    /// The name of an extended attribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<String>,
}

impl Row {
    fn new(difference: Difference) -> Self {
        let (path, path_raw) = text(&absolute(&difference.path));
        let plain =
            |change| Self { path, path_raw, change, attribute: None, name: None, first: None, second: None };
        match difference.change {
            Change::Added => plain("added"),
            Change::Removed => plain("removed"),
            Change::Changed { attribute, left, right } => Self {
                attribute: Some(attribute.to_string()),
                name: match attribute {
                    Attribute::Xattr(name) => Some(name),
                    _ => None,
                },
                first: left,
                second: right,
                ..plain("changed")
            },
        }
    }
}
