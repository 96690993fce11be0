//! `volio pack`: a tree into an image, wherever the image is.

use crate::args::{AbsolutePath, Pair, Registries, Words, location, size};
use crate::data_io::{Way, Wish};
use crate::quantity::{bytes, count, duration, rate};
use crate::{environment, output, progress};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use volio::error::Kind;
use volio::image::Description;
use volio::layer::Compression;
use volio::oci::{Execution, Platform};
use volio::pack::{Form, Options, Packed, pack, read_archive};
use volio::progress::Progress;
use volio::transport::{Access, Location};
use volio::tree::{IdMaps, IdRange, OnChange, Owner, RuleFiles, SourceSpec, Time, WalkOptions, rule_lines};
use volio::{Error, Result, oci};

const EXAMPLES: &str = "\
Examples:
  volio pack registry.example/data:v1 /srv/data
  volio pack oci:backup:monday /srv/data              into a directory here, made when missing
  volio pack docker-archive:data.tar:data:v1 public   for docker load: one platform, not compressed
  volio pack oci:site:v1 public:/usr/share/site app.conf:/etc/
  volio pack --normalize --exclude target registry.example/checkout:$COMMIT .
  tar c --format=posix --xattrs . | volio pack oci:backup:v1 -    a tar archive, also compressed
  volio pack --wait-for-signal registry.example/results:v1 /results   when a pod ends
  volio pack --format data-io registry.example/old:v1 /srv/data   for data-io to unpack
  volio pack --platform linux/arm64 --entrypoint '[\"/volio\"]' registry.example/volio:v1 volio

SOURCE is a directory or a file, or - for a tar archive on standard input; PATH is absolute, and / unless given. A directory's contents land at PATH. A file \
lands at PATH, or in it under its own name where PATH ends with a slash.

A file .volioignore at the root of a SOURCE names what to leave out, in the words of \
.gitignore. Without SOURCE on the command line it is a file like any other. The rules of --exclude-from come after it, and those \
of --exclude last; the last rule that matches counts.

The archive on standard input may be compressed with gzip or zstd. It is read as strictly as a layer, kept in TMPDIR, and \
packed in the order of a directory: where the archive says all about a tree (--format=posix --xattrs), the image is \
the same as that of the directory. Of entries with the same path, the last one counts.

An image with an entrypoint or a command is for one platform: the host's unless given. Other images are data and \
the same for all platforms.

A file has changed when its size, its mtime or its ctime differ between before and after it was read, or, where it was \
changed within the last minute, when it is not the same when it is read a second time. What was moved into a directory \
that had been read has changed too. With \
--on-change retry (the default), it is read again up to three times, and a large file with the whole layer; then the \
command fails. With skip, what still changes, such as a log that is written to all the time, is left out, named in a \
warning and counted; with fail, the first change is an error. A file is in the image as it was at one moment. \
To pack what is written to all the time, pack a snapshot.

Without IMAGE and SOURCE it is data-io's pack: DATA_TAG (behind REGISTRY, where that is set) names the image, and \
/source, or VOLIO_SOURCE, is packed. REGISTRY_USERNAME and REGISTRY_PASSWORD log in; NO_PUSH puts the image into the \
layout /var/lib/volio/store, or VOLIO_STORE. A file in /run/secrets counts as a variable.

Maps of owners are written as podman, buildah and umoci have them: --uid-map 0:100000:65536 packs what belongs to \
100000 here as root's. ACLs are translated too. An owner that is in no range is an error.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

/// Pack directories and files into an image
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Pack {
    /// Where the image shall be: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]; without one, what DATA_TAG in the environment says
    #[arg(requires = "sources", value_parser = location())]
    image: Option<Location>,

    /// What to pack, and where it lands in the image
    #[arg(value_name = "SOURCE[:PATH]", value_hint = ValueHint::AnyPath, value_parser = source())]
    sources: Vec<SourceSpec>,

    #[command(flatten)]
    tree: TreeArgs,
    #[command(flatten)]
    image_args: ImageArgs,
    #[command(flatten)]
    registries: Registries,
    #[command(flatten)]
    report: PackReport,

    /// Write the digest of the image to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output options")]
    digestfile: Option<PathBuf>,

    /// Wait for SIGTERM or Ctrl-C before anything is read, as a sidecar does; another one interrupts
    #[arg(long, help_heading = "Tree options")]
    pub wait_for_signal: bool,
}

/// What of the sources is packed, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tree options")]
struct TreeArgs {
    /// Leave out what this pattern matches, as in .gitignore
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<OsString>,

    /// Leave out what a pattern in this file matches, one a line; those of --exclude come after them
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    exclude_from: Vec<PathBuf>,

    /// Leave out what is in directories with a CACHEDIR.TAG, but for that
    #[arg(long)]
    exclude_caches: bool,

    /// Do not cross mount points
    #[arg(long)]
    one_file_system: bool,

    /// Leave out what cannot be read, for want of rights or because its disk or its server fails; its name is told
    #[arg(long)]
    skip_unreadable: bool,

    /// What to do when something changes while it is read
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    on_change: OnChangeArg,

    /// Give everything this owner and group, by number
    #[arg(long, value_name = "UID:GID", conflicts_with_all = ["uid_map", "gid_map"])]
    chown: Option<Owner>,

    /// Translate owners: HOST on disk is CONTAINER in the image. Groups too, unless --gid-map is given
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", conflicts_with = "normalize")]
    uid_map: Vec<IdRange>,

    /// Translate groups in the same way
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", conflicts_with = "normalize")]
    gid_map: Vec<IdRange>,

    /// Forget owners, times and most of the modes: 0:0, SOURCE_DATE_EPOCH or 1970, 0644 or 0755
    #[arg(long)]
    normalize: bool,

    /// Compress layers with zstd[:LEVEL] or gzip[:LEVEL], or do not: none
    #[arg(long, value_name = "METHOD", default_value_t)]
    compression: Compression,

    /// Cut the tree into layers of about this size; a file of more than twice that is a layer by itself
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = layer_size)]
    layer_size: u64,
}

/// How much is said, and in what form; and in what form the tree is in the image.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output options")]
struct PackReport {
    /// Print the result as text or as one JSON document; data-io packs an image as data-io made them. May be given twice
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    format: Vec<PackFormat>,

    /// Print nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
}

/// A form of the result, or of the image: `podman build --format` says the latter too. The variants have no words of their
/// own: they would double the length of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PackFormat {
    Text,
    Json,
    DataIo,
}

impl PackReport {
    fn form(&self, variable: impl Fn(&str) -> Option<OsString>) -> Form {
        match self.format.contains(&PackFormat::DataIo) {
            true => Form::DataIo { spool: environment::temporary(variable) },
            false => Form::Layers,
        }
    }
}

/// What to do when something changes while it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OnChangeArg {
    Fail,
    #[default]
    Retry,
    Skip,
}

impl From<OnChangeArg> for OnChange {
    fn from(argument: OnChangeArg) -> Self {
        match argument {
            OnChangeArg::Fail => Self::Fail,
            OnChangeArg::Retry => Self::Retry,
            OnChangeArg::Skip => Self::Skip,
        }
    }
}

impl TreeArgs {
    /// Whether this can be understood at all.
    fn check(&self) -> Result<()> {
        self.exclude_from.iter().try_for_each(|file| rules_in(file).map(drop))?;
        IdMaps::new(self.uid_map.clone(), self.gid_map.clone()).map(drop)
    }

    /// How the tree is read. `epoch` is `SOURCE_DATE_EPOCH`.
    fn walk(self, epoch: Option<Time>, rule_files: RuleFiles) -> Result<WalkOptions> {
        let mut exclude = Vec::new();
        for file in &self.exclude_from {
            exclude.extend(rules_in(file)?);
        }
        exclude.extend(self.exclude);
        Ok(WalkOptions {
            exclude,
            rule_files,
            exclude_caches: self.exclude_caches,
            one_file_system: self.one_file_system,
            normalize: self.normalize.then(|| epoch.unwrap_or_default()),
            clamp_mtime: epoch,
            chown: self.chown,
            id_maps: IdMaps::new(self.uid_map, self.gid_map)?,
            skip_unreadable: self.skip_unreadable,
            on_change: self.on_change.into(),
            ..WalkOptions::default()
        })
    }
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

/// What is packed, and where to.
struct Job {
    image: Location,
    sources: Vec<SourceSpec>,
    access: Access,
    /// What the environment wants, where nothing was typed.
    wish: Option<Wish>,
}

impl Job {
    /// Returns the meaning of rule files. Somebody who types a source chooses its rules; what the environment names is
    /// volumes that containers write to.
    fn rule_files(&self) -> RuleFiles {
        match self.wish {
            Some(_) => RuleFiles::Ignore,
            None => RuleFiles::Apply,
        }
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        self.wish.as_ref().map_or_else(|| environment::variable(name), |wish| wish.variable(name))
    }

    /// The sources, with what the archive on standard input holds where that is one.
    fn with_standard_input(&self, progress: &dyn Progress) -> Result<Vec<SourceSpec>> {
        let mut sources = self.sources.clone();
        let mut archives = sources.iter_mut().filter(|source| source.is_standard_input());
        let (first, another) = (archives.next(), archives.next().is_some());
        if another {
            return Err(Error::usage("standard input can be one source and not two"));
        }
        if let Some(source) = first {
            if io::stdin().is_terminal() {
                return Err(Error::usage("standard input is a terminal and no archive")
                    .with_hint("`tar c . | volio pack IMAGE -`; a file called `-` is `./-`"));
            }
            let spool = environment::temporary(|name| self.variable(name));
            source.stored = Some(Arc::new(read_archive(io::stdin(), &spool, progress)?));
        }
        Ok(sources)
    }

    fn explain(&self, error: Error) -> Error {
        match self.wish {
            Some(_) => Wish::explain(error),
            None => error,
        }
    }
}

impl Pack {
    /// Whether nothing but errors shall be told.
    pub fn is_quiet(&self) -> bool {
        self.report.quiet
    }

    /// Finds what is wrong with the command before it waits: nobody is there any more when it has waited. Whether a registry
    /// takes the image is not known before, but one that does not know us says so now; one that fails now may do better
    /// later.
    pub fn check(&self) -> Result<()> {
        super::clear_digestfile(self.digestfile.as_deref())?;
        self.tree.check()?;
        let job = self.job()?;
        environment::source_date_epoch(|name| job.variable(name))?;
        for source in job.sources.iter().filter(|source| !source.is_standard_input()) {
            source.path.metadata().map_err(|error| {
                Error::io(format!("cannot read {}", source.path.display()), error)
                    .with_hint("what shall be packed must be there before it is waited for")
            })?;
        }
        match job.image.source(&job.access).and_then(|image| image.resolve()) {
            Err(error) if error.kind() == Kind::Denied => Err(job.explain(error)),
            _ => Ok(()),
        }
    }

    /// Packs, and says what came of it.
    pub fn run(self) -> Result<()> {
        super::clear_digestfile(self.digestfile.as_deref())?;
        let job = self.job()?;
        self.pack(&job).map_err(|error| job.explain(error))
    }

    /// What is packed, and where to: as it was typed, or else as the environment says it.
    fn job(&self) -> Result<Job> {
        let Some(image) = self.image.clone() else {
            let wish = Wish::read(Way::Out)?;
            wish.check_source()?;
            let access = self.registries.access_of(&wish)?;
            let sources = vec![SourceSpec::new(&wish.source)];
            return Ok(Job { image: wish.location(&access)?, sources, access, wish: Some(wish) });
        };
        Ok(Job { image, sources: self.sources.clone(), access: self.registries.access()?, wish: None })
    }

    fn pack(self, job: &Job) -> Result<()> {
        let epoch = environment::source_date_epoch(|name| job.variable(name))?;
        let options = Options {
            layer_size: self.tree.layer_size,
            compression: self.tree.compression,
            tree: self.tree.walk(epoch, job.rule_files())?,
            image: self.image_args.describe(),
            form: self.report.form(|name| job.variable(name)),
        };
        let begun = Instant::now();
        let destination = job.image.destination(&job.access)?;
        let progress = progress::start("pack", self.report.quiet);
        let sources = job.with_standard_input(progress.as_ref())?;
        let packed = pack(destination.as_ref(), &sources, &options, progress.as_ref())?;
        drop(progress);

        super::write_digest(self.digestfile.as_deref(), &packed.digest)?;
        if !self.report.quiet {
            output::line(&summary(&packed, begun.elapsed()));
        }
        match self.report.format.contains(&PackFormat::Json) {
            true => output::json(&packed),
            false => output::results(|out| writeln!(out, "{}", packed.address)),
        }
    }
}

/// Reads a file of patterns.
fn rules_in(file: &Path) -> Result<Vec<OsString>> {
    let text = fs::read(file)
        .map_err(|error| Error::io(format!("--exclude-from: cannot read {}", file.display()), error))?;
    Ok(rule_lines(&text).map(|line| OsStr::from_bytes(line).to_owned()).collect())
}

/// Reads the size of layers. Smaller ones are more requests than data.
fn layer_size(text: &str) -> Result<u64> {
    match size(text)? {
        size if size >= 1 << 20 => Ok(size),
        _ => {
            Err(Error::usage(format!("{text:?} is too small for a layer"))
                .with_hint("layers have 1M or more"))
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
    let skipped: Vec<String> = [
        (packed.sockets_skipped, "socket", "sockets"),
        (packed.attributes_skipped.values().sum(), "attribute of this host", "attributes of this host"),
        (packed.bookkeeping_skipped, "record or lost+found", "records and lost+found"),
        (packed.mounts_skipped, "mount point", "mount points"),
        (packed.unreadable_skipped, "unreadable", "unreadable"),
        (packed.changed_skipped, "changed", "changed"),
    ]
    .into_iter()
    .filter(|(number, ..)| *number > 0)
    .map(|(number, one, many)| count(number, one, many))
    .collect();
    if !skipped.is_empty() {
        line += &format!("; {} skipped", skipped.join(", "));
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
