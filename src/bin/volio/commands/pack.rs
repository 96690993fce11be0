//! `volio pack`: packs directories and files into an image.

mod image;
mod incremental;
mod service;
mod summary;
mod tags;

use self::image::ImageArgs;
use self::incremental::IncrementalArgs;
use self::service::{LastRun, ScheduleArgs};
use self::summary::{done, is_unchanged, summary};
use self::tags::{OnRefusal, TagArgs};
use crate::args::{RegistryArgs, location, size};
use crate::data_io::{Direction, EnvConfig};
use crate::documents::PackDocument;
use crate::exit::Exit;
use crate::progress::Display;
use crate::signature_args::SigningArgs;
use crate::unattended::UnattendedArgs;
use crate::{environment, output};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgGroup, Args, ValueEnum, ValueHint};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use volio::data_io;
use volio::error::Kind;
use volio::pack::{Base, Options, Packed, pack, pack_incremental, read_archive};
use volio::progress::{Progress, Silent};
use volio::service::Done;
use volio::{
    Access, Compression, Error, IdMaps, IdRange, Location, OnChange, Owner, Result, RuleFiles, SourceSpec,
    Time, WalkOptions, rule_lines,
};

const EXAMPLES: &str = "\
Examples:
  volio pack registry.example/data:v1 /srv/data
  volio pack oci:backup:monday /srv/data              into a layout, which is created if it is missing
  volio pack docker-archive:data.tar:data:v1 public   for docker load: one platform, not compressed
  volio pack oci:site:v1 public:/usr/share/site app.conf:/etc/
  volio pack --normalize --exclude target registry.example/checkout:$COMMIT .
  tar c --format=posix --xattrs . | volio pack oci:backup:v1 -    a tar archive, also compressed
  volio pack --wait-for-signal registry.example/results:v1 /results   when a pod ends
  volio pack --incremental registry.example/data:nightly /srv/data     only what changed
  volio pack --format data-io registry.example/old:v1 /srv/data   for data-io to unpack
  volio pack --platform linux/arm64 --entrypoint '[\"/volio\"]' registry.example/volio:v1 volio

SOURCE is a directory or a file, or - for a tar archive on standard input; PATH is absolute, and / unless given. The contents of a directory are placed at PATH. A \
file is placed at PATH, or in PATH under its own name if PATH ends with a slash.

A file .volioignore at the root of a SOURCE lists paths to leave out, in the syntax of .gitignore. Without SOURCE on the \
command line, it is packed as an ordinary file. The rules of --exclude-from are applied after it, and those of --exclude \
last; the last rule that matches decides.

The archive on standard input may be compressed with gzip or zstd. It is read as strictly as a layer, kept in TMPDIR, and \
packed in the order of a directory: if the archive has all attributes of the tree (--format=posix --xattrs), the image is \
the same as that of the directory. Of several entries with the same path, the last one is packed.

An image with an entrypoint or a command is for one platform: the host's unless given. Other images are data and \
the same for all platforms.

Each file is packed as it was at one moment. A file counts as changed if its size, mtime or ctime changed while it was \
read. A file that was modified within the last minute is read twice, and counts as changed if the two reads differ. So \
does an entry that was moved into a directory after that directory was read. With --on-change retry (the default), a \
changed file is read again up to three times, and a large file together with its layer; then the command fails. With \
skip, files that keep changing, such as a busy log, are left out, named in a warning and counted. With fail, the first \
change is an error. To pack data that is written to all the time, pack a snapshot.

With --incremental or --base, the image has the layers of the base and further ones with what changed. A file counts as \
unchanged if its type, size, mtime, mode, owner and extended attributes are those in the base. Its content is compared too \
if it was modified within two seconds of the newest file in the base, or later, or if the recorded time is not its own \
(--normalize, SOURCE_DATE_EPOCH). If nothing changed, there is no new image. With --incremental, the command fails (6) if \
another writer has changed the tag meanwhile.

Maps of owners have the syntax of podman, buildah and umoci: --uid-map 0:100000:65536 packs files of the user 100000 as \
files of root. ACLs are translated too. An owner that is not in any range is an error.

Without IMAGE and SOURCE, pack works as data-io does: DATA_TAG names the image, with REGISTRY as its host if that is set, \
and /source, or VOLIO_SOURCE, is packed. REGISTRY_USERNAME and REGISTRY_PASSWORD are the credentials. With NO_PUSH, the \
image is written to the layout /var/lib/volio/store, or VOLIO_STORE. INCREMENTAL stands for --incremental. A file in \
/run/secrets replaces the variable of the same name.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

/// Pack directories and files into an image
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group(ArgGroup::new("guarded").args(["incremental", "base", "every", "cron"]).multiple(true)))]
pub struct Pack {
    /// The image to write: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]; by default DATA_TAG in the environment names it
    #[arg(requires = "sources", value_parser = location())]
    image: Option<Location>,

    /// A directory or a file to pack, and its path in the image
    #[arg(value_name = "SOURCE[:PATH]", value_hint = ValueHint::AnyPath, value_parser = source())]
    sources: Vec<SourceSpec>,

    #[command(flatten)]
    tree: TreeArgs,
    #[command(flatten)]
    incremental: IncrementalArgs,
    #[command(flatten)]
    image_args: ImageArgs,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    tags: TagArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: PackOutputArgs,
    #[command(flatten)]
    schedule: ScheduleArgs,
    #[command(flatten)]
    unattended: UnattendedArgs,

    /// Write the digest of the image to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output options")]
    digestfile: Option<PathBuf>,

    /// Wait for SIGTERM or Ctrl-C before anything is read, as a sidecar does; a second signal interrupts the command
    #[arg(long, help_heading = "Tree options")]
    pub wait_for_signal: bool,
}

/// Options for the tree.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tree options")]
struct TreeArgs {
    /// Leave out paths that match this pattern, as in .gitignore
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<OsString>,

    /// Leave out paths that match a pattern in this file, one a line; those of --exclude come after them
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    exclude_from: Vec<PathBuf>,

    /// Leave out the contents of directories with a CACHEDIR.TAG, except for that file
    #[arg(long)]
    exclude_caches: bool,

    /// Do not cross mount points
    #[arg(long)]
    one_file_system: bool,

    /// Leave out files that cannot be read, because of permissions or a failing disk or server, with a warning
    #[arg(long)]
    skip_unreadable: bool,

    /// Fail, read again or leave out what changes while it is read
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

    /// Replace owners, times and most of the modes: 0:0, SOURCE_DATE_EPOCH or 1970, 0644 or 0755
    #[arg(long)]
    normalize: bool,

    /// Compress layers with zstd[:LEVEL] or gzip[:LEVEL], or do not: none
    #[arg(long, value_name = "METHOD", default_value_t)]
    compression: Compression,

    /// Split the tree into layers of about this size; a file of more than twice that is a layer by itself
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = layer_size)]
    layer_size: u64,
}

/// Options for the output and for the form of the image.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output options")]
struct PackOutputArgs {
    /// Print the result as text or as one JSON document; data-io packs an image as data-io made them. May be given twice
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    format: Vec<PackFormat>,

    /// Print nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
}

/// A form of the result, or of the image, as in `podman build --format`. The variants have no help texts, because those
/// would double the length of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PackFormat {
    Text,
    Json,
    DataIo,
}

/// The values of `--on-change`.
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
    /// Checks the arguments that clap does not check.
    fn check(&self) -> Result<()> {
        self.exclude_from.iter().try_for_each(|file| rules_in(file).map(drop))?;
        IdMaps::new(self.uid_map.clone(), self.gid_map.clone()).map(drop)
    }

    /// Returns the options of the walk. `epoch` is `SOURCE_DATE_EPOCH`.
    fn walk_options(self, epoch: Option<Time>, rule_files: RuleFiles) -> Result<WalkOptions> {
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
        })
    }
}

/// The image, the sources and the access, from the arguments or from data-io's variables.
struct Invocation {
    image: Location,
    sources: Vec<SourceSpec>,
    access: Access,
    /// data-io's variables, if there are no arguments.
    config: Option<EnvConfig>,
}

impl Invocation {
    /// Returns the use of rule files. The user chooses the sources on a command line and trusts their rules. The sources of
    /// data-io's interface are volumes, and the programs that write to them are not trusted.
    fn rule_files(&self) -> RuleFiles {
        if self.config.is_some() { RuleFiles::Ignore } else { RuleFiles::Apply }
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        self.config.as_ref().map_or_else(|| environment::variable(name), |config| config.variable(name))
    }

    /// Returns the sources, after reading the archive on standard input if that is one of them.
    fn with_standard_input(&self, progress: &dyn Progress) -> Result<Vec<SourceSpec>> {
        let mut sources = self.sources.clone();
        let mut archives = sources.iter_mut().filter(|source| source.is_standard_input());
        let (first, another) = (archives.next(), archives.next().is_some());
        if another {
            return Err(Error::usage("standard input can be one source only"));
        }
        if let Some(source) = first {
            if io::stdin().is_terminal() {
                return Err(Error::usage("standard input is a terminal and not an archive")
                    .with_hint("`tar c . | volio pack IMAGE -`; a file called `-` is `./-`"));
            }
            let spool = environment::temporary(|name| self.variable(name));
            source.stored = Some(Arc::new(read_archive(io::stdin(), &spool, progress)?));
        }
        Ok(sources)
    }

    fn explain(&self, error: Error) -> Error {
        if self.config.is_some() { EnvConfig::explain(error) } else { error }
    }
}

impl Pack {
    /// Returns the value of `--quiet`.
    pub fn is_quiet(&self) -> bool {
        self.output.quiet
    }

    /// Checks the command before it waits for a signal, while the user can still correct it. Credentials that a registry
    /// rejects are an error now. Other failures of a registry are not, because they may be over when the wait is.
    pub fn check(&self) -> Result<()> {
        self.unattended.set_log_format();
        self.check_unattended()?;
        super::clear_digestfile(self.digestfile.as_deref())?;
        self.tree.check()?;
        self.ensure_one_standard_input()?;
        let invocation = self.invocation(&Display::warnings())?;
        self.tags.check(&invocation.image)?;
        environment::source_date_epoch(|name| invocation.variable(name))?;
        if !self.signing.reads_standard_input() {
            self.signing.signer(&invocation.image, &Silent)?;
        }
        self.incremental.base(&invocation.image, &invocation.access)?;
        for source in invocation.sources.iter().filter(|source| !source.is_standard_input()) {
            source.path.metadata().map_err(|error| {
                Error::io(format!("cannot read {}", source.path.display()), error)
                    .with_hint("every SOURCE must exist before the wait begins")
            })?;
        }
        match invocation.image.source(&invocation.access).and_then(|image| image.resolve()) {
            Err(error) if error.kind() == Kind::Denied => Err(invocation.explain(error)),
            _ => Ok(()),
        }
    }

    /// Packs, and prints the result.
    pub fn run(self) -> Result<Exit> {
        self.ensure_one_standard_input()?;
        super::clear_digestfile(self.digestfile.as_deref())?;
        if self.is_unattended() {
            return self.run_unattended();
        }
        let progress = Display::start("pack", self.output.quiet);
        let invocation = self.invocation(&progress)?;
        let packed = self.pack(&invocation, progress, LastRun::default());
        packed.map(|_| Exit::Done).map_err(|error| invocation.explain(error))
    }

    /// Fails if standard input is to be an archive and a key.
    fn ensure_one_standard_input(&self) -> Result<()> {
        if self.signing.reads_standard_input() && self.sources.iter().any(SourceSpec::is_standard_input) {
            return Err(Error::usage("standard input cannot be a source and the key at the same time")
                .with_hint("give --sign-key a file"));
        }
        if self.signing.reads_standard_input() && self.schedule.is_given() {
            return Err(Error::usage("a key on standard input can be read once only, and not for every run")
                .with_hint("give --sign-key a file"));
        }
        Ok(())
    }

    /// Returns the image and the sources of the arguments, or of data-io's variables without arguments.
    fn invocation(&self, progress: &Display) -> Result<Invocation> {
        let Some(image) = self.image.clone() else {
            let config = EnvConfig::read(Direction::Pack)?;
            if !self.signing.is_given() {
                config.ensure_no_secrets(&["VOLIO_SIGN_KEY"])?;
            }
            config.check_source()?;
            let access = self.registries.access_for_data_io(&config, progress)?;
            let sources = vec![SourceSpec::new(&config.source)];
            return Ok(Invocation {
                image: config.location(&access)?,
                sources,
                access,
                config: Some(config),
            });
        };
        let (sources, access) = (self.sources.clone(), self.registries.access(progress)?);
        Ok(Invocation { image, sources, access, config: None })
    }

    fn pack(mut self, invocation: &Invocation, progress: Display, last: LastRun) -> Result<Done> {
        if invocation.config.as_ref().is_some_and(|config| config.incremental) {
            self.incremental.enable();
        }
        self.tags.check(&invocation.image)?;
        let epoch = environment::source_date_epoch(|name| invocation.variable(name))?;
        let base = self.incremental.base(&invocation.image, &invocation.access)?;
        let options = Options {
            layer_size: self.tree.layer_size,
            compression: self.tree.compression,
            tree: self.tree.clone().walk_options(epoch, invocation.rule_files())?,
            image: self.image_args.clone().describe(),
            signer: self.signing.signer(&invocation.image, progress.as_ref())?.map(Arc::new),
            earlier_run: last.end,
            predecessor: last.size.filter(|_| base.is_none()).map(|size| self.incremental.predecessor(size)),
        };
        let (begun, time) = (Instant::now(), SystemTime::now());
        let destination = invocation.image.destination(&invocation.access)?;
        let sources = invocation.with_standard_input(progress.as_ref())?;
        let temporary = environment::temporary(|name| invocation.variable(name));
        let is_data_io = self.output.format.contains(&PackFormat::DataIo);
        let (to, report) = (destination.as_ref(), progress.as_ref());
        let packed = match &base {
            None if is_data_io => data_io::pack(to, &sources, &options, &temporary, report)?,
            None => pack(to, &sources, &options, report)?,
            Some(_) if is_data_io => return Err(without_layers()),
            Some(base) => {
                let incremental = self.incremental.options(temporary);
                pack_incremental(to, base, &sources, &options, &incremental, report)?
            }
        };
        drop(progress);

        let is_dry_run = self.incremental.dry_run;
        let tags = if is_dry_run { Vec::new() } else { self.tags.add(to, &packed, time)? };
        self.print(&packed, base.as_ref(), tags, begun.elapsed())?;
        if !is_dry_run {
            let Invocation { image, access, .. } = invocation;
            let on_refusal = if self.schedule.is_given() { OnRefusal::Warn } else { OnRefusal::Fail };
            self.tags.prune(image, access, destination, &packed, self.output.quiet, on_refusal)?;
        }
        Ok(done(&packed))
    }

    /// Prints the result, unless it is one of many and says that nothing has changed.
    fn print(&self, packed: &Packed, base: Option<&Base>, tags: Vec<String>, time: Duration) -> Result<()> {
        let is_dry_run = self.incremental.dry_run;
        if !is_dry_run {
            super::write_digest(self.digestfile.as_deref(), &packed.digest)?;
        }
        if self.schedule.is_given() && is_unchanged(packed) {
            return Ok(());
        }
        if !self.output.quiet {
            let prefix = if is_dry_run { "dry run: " } else { "" };
            for line in summary(packed, base, time) {
                output::line(&format!("{prefix}{line}"));
            }
        }
        if self.output.format.contains(&PackFormat::Json) {
            output::json(&PackDocument::new(packed, tags, is_dry_run))
        } else if is_dry_run && !is_unchanged(packed) {
            // There is no such image.
            Ok(())
        } else {
            output::results(|out| writeln!(out, "{}", packed.address))
        }
    }
}

/// The error for an image that has no layers to add to.
fn without_layers() -> Error {
    Error::usage("an image as data-io made them is one archive, to which nothing can be added")
        .with_hint("leave out --format data-io, or --incremental, --base and the variable INCREMENTAL")
}

/// Reads the patterns in a file.
fn rules_in(file: &Path) -> Result<Vec<OsString>> {
    let text = fs::read(file)
        .map_err(|error| Error::io(format!("--exclude-from: cannot read {}", file.display()), error))?;
    Ok(rule_lines(&text).map(|line| OsStr::from_bytes(line).to_owned()).collect())
}

/// Parses the size of layers, 1 MiB or more: smaller ones would cost more requests than data.
fn layer_size(text: &str) -> Result<u64> {
    const HINT: &str = "write 1M or more, such as 64M or 1G";
    match size(text).map_err(|error| error.with_hint(HINT))? {
        size if size >= 1 << 20 => Ok(size),
        _ => Err(Error::usage(format!("{text:?} is too small for a layer")).with_hint(HINT)),
    }
}

/// Parses a source. File names are bytes and need not be UTF-8.
fn source() -> impl TypedValueParser<Value = SourceSpec> {
    OsStringValueParser::new().try_map(|text| SourceSpec::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_about_a_size_of_layers_names_sizes_that_are_accepted() {
        for text in ["1", "64K", "64 MB", "large"] {
            assert_eq!(
                layer_size(text).unwrap_err().hint(),
                Some("write 1M or more, such as 64M or 1G"),
                "{text}"
            );
        }
        for (text, bytes) in [("1M", 1 << 20), ("64M", 64 << 20), ("1G", 1 << 30)] {
            assert_eq!(layer_size(text).unwrap(), bytes);
        }
    }
}
