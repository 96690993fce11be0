//! `volio unpack`: unpacks an image into a directory.

mod summary;
mod watch;

use self::summary::{ensure_all_removed, summary};
use self::watch::WatchArgs;
use crate::args::{Format, OutputArgs, RegistryArgs, location, tree_path};
use crate::data_io::{Direction, EnvConfig};
use crate::documents::UnpackDocument;
use crate::exit::Exit;
use crate::limit_args::LimitArgs;
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use crate::unattended::UnattendedArgs;
use crate::{environment, output, signal};
use clap::{Args, ValueEnum, ValueHint};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use volio::data_io::unpack_announced;
use volio::progress::Progress;
use volio::service::{Change, Done};
use volio::unpack::{
    ArchiveOptions, CompareBy, ForeignTarget, IfPresent, Options, Outcome, PathFilter, ReadAs, Run,
    SyncOptions, Unpacked, WriteMode, unpack, unpack_archive,
};
use volio::{
    Access, CancelToken, Error, ExtractOptions, FileThreads, Holes, IdMaps, IdRange, Location, Owner,
    Platform, ReadOptions, Result, SignedPart, Source, TreePath,
};

/// The size of the buffer for standard output, in bytes.
const OUT_BUFFER: usize = 128 << 10;

const EXAMPLES: &str = "\
Examples:
  volio unpack registry.example/data:v1 /data
  volio unpack --keep registry.example/data:v1 /data     in an init container, which may be started again
  volio unpack --subpath /etc/nginx oci:backup:monday conf
  volio unpack --merge oci:patch:v2 /srv/site
  volio unpack registry.example/data:v1 - | ssh there tar -x -C /data
  volio unpack --atomic --force registry.example/site:v2 /srv/site
  volio unpack --sync registry.example/site:v3 /srv/site     fetches and writes only what differs
  volio unpack --watch 30s --link current registry.example/site:stable /srv     follows the tag, until SIGTERM
  volio unpack --platform linux/arm64 registry.example/app:v1 rootfs
  volio unpack --artifact oci://registry.example/charts/app:1.0.0 chart

DIR is created if it is missing. Otherwise it must be empty, except for a lost+found of root and empty mount points: its \
files would be mixed with those of the image.

volio records the image in DIR, in the attribute user.volio.image or in a file .volio.json. So the same command completes \
an interrupted unpack, and does nothing if DIR has the image already. It does not notice files that were changed since; \
--checksum restores them.

With --sync, DIR becomes identical to the image, also if it holds another version or was changed since: everything else \
in it is removed. DIR must have been filled by volio with the same options, or --force is given. A file that kept its size \
and its mtime although another program changed it is noticed if that was after the last unpack, and always with --checksum. \
Mount points in DIR stay; the exit code is 6 if the image does not have them.

With --watch, DIR follows the tag. With --sync it is changed in place; with --link NAME, each version is unpacked into a \
directory of its own in DIR, named after its digest, and the symbolic link DIR/NAME is replaced atomically. Whatever fails, the \
last version stays.

With - as DIR, the image is written to standard output as an uncompressed tar archive, of verified bytes only. If \
verification fails, the archive is left without its end, and the exit code is 3. The line with the digest goes to stderr.

Without IMAGE and DIR, unpack works as data-io does: DATA_TAG names the image, with REGISTRY as its host if that is set, \
and the image is extracted over / each time, or over VOLIO_TARGET. REGISTRY_USERNAME and REGISTRY_PASSWORD are the \
credentials. With NO_PULL, the image is read from the layout /var/lib/volio/store, or VOLIO_STORE. A version other than \
the one in the target is refused once, unless NO_CHECK is set. INCREMENTAL stands for --sync where VOLIO_TARGET holds \
nothing but what volio has unpacked there. A file in /run/secrets replaces the variable of the same name.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

/// Unpack an image into a directory
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Unpack {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]; by default DATA_TAG in the environment names it
    #[arg(requires = "target", value_parser = location())]
    image: Option<Location>,

    /// The directory for the files; - writes a tar archive to standard output
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    target: Option<PathBuf>,

    /// Take the image for this platform [default: the host's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    target_args: TargetArgs,
    #[command(flatten)]
    tree: TreeArgs,
    #[command(flatten)]
    signatures: VerificationArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    unattended: UnattendedArgs,
}

/// Options for a target that is not empty.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Target options")]
struct TargetArgs {
    /// Extract over the contents of DIR: files are replaced, directories stay and get the image's attributes
    #[arg(long, conflicts_with = "atomic")]
    merge: bool,

    /// Make DIR identical to the image: fetch and write what differs, and remove everything else
    #[arg(long, conflicts_with_all = ["merge", "keep", "atomic", "artifact"])]
    sync: bool,

    /// With --sync, print what would be done, and change nothing
    #[arg(long, requires = "sync")]
    dry_run: bool,

    /// With --merge, replace directories by files too; with --atomic, replace a DIR that is not empty; with --sync, a
    /// DIR that volio did not fill
    #[arg(long)]
    force: bool,

    /// Do nothing if DIR holds any complete image
    #[arg(long, conflicts_with = "checksum")]
    keep: bool,

    /// If DIR holds this image already, write it again, which restores changed files; with --sync, compare the contents of
    /// all files
    #[arg(long)]
    checksum: bool,

    /// Fill a directory beside DIR, and replace DIR by it at the end: all or nothing
    #[arg(long)]
    atomic: bool,

    /// Do not wait until all data is on the disk
    #[arg(long)]
    no_sync: bool,

    /// Write small files with this many threads besides the one that creates them [default: one for each core but one,
    /// at most 4; none on one or two cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=64))]
    file_threads: Option<u8>,
}

/// Options for the tree.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tree options")]
struct TreeArgs {
    /// Extract this path only: the contents of a directory, or a file under its own name
    #[arg(long, value_name = "PATH", value_parser = tree_path(), conflicts_with = "strip")]
    subpath: Option<TreePath>,

    /// Remove this many names from the beginning of each path, and leave out shorter paths
    #[arg(long, value_name = "N")]
    strip: Option<usize>,

    /// Give everything this owner
    #[arg(long, value_name = "UID:GID", conflicts_with_all = ["uid_map", "gid_map"])]
    owner: Option<Owner>,

    /// Translate users: IMAGE in the image is HOST on disk. Groups too, unless --gid-map is given
    #[arg(long, value_name = "IMAGE:HOST[:SIZE]", value_delimiter = ',')]
    uid_map: Vec<IdRange>,

    /// Translate groups. Users too, unless --uid-map is given
    #[arg(long, value_name = "IMAGE:HOST[:SIZE]", value_delimiter = ',')]
    gid_map: Vec<IdRange>,

    /// Unpack an image of data-io without unpacking its archive: its base, and a file data.tar.gz
    #[arg(long)]
    as_is: bool,

    /// Recognise layers by their first bytes instead of their media types
    #[arg(long, conflicts_with = "artifact")]
    any_media_type: bool,

    /// Unpack an artifact, such as a chart: archives, and files by the titles of their layers
    #[arg(long, conflicts_with_all = ["as_is", "platform"])]
    artifact: bool,

    /// Give the group the owner's permissions, and make directories setgid
    #[arg(long)]
    group_access: bool,

    /// Leave out devices, as an unprivileged user has to
    #[arg(long)]
    no_devices: bool,

    /// Make holes from runs of zeros of 64 KiB and more, from all whole blocks, or from none
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    sparse: Sparse,
}

/// The values of `--sparse`. They have no help texts, because those would double the length of the help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Sparse {
    #[default]
    Auto,
    Always,
    Never,
}

impl From<Sparse> for Holes {
    fn from(sparse: Sparse) -> Self {
        match sparse {
            Sparse::Auto => Self::Long,
            Sparse::Always => Self::All,
            Sparse::Never => Self::Never,
        }
    }
}

impl TargetArgs {
    fn sync_options(&self) -> SyncOptions {
        SyncOptions {
            compare: if self.checksum { CompareBy::Content } else { CompareBy::Metadata },
            foreign: if self.force { ForeignTarget::Overwrite } else { ForeignTarget::Refuse },
            run: if self.dry_run { Run::Dry } else { Run::Apply },
        }
    }
}

/// [`unpack`] or [`unpack_announced`].
type UnpackFunction = fn(&dyn Source, &Path, &Options, &dyn Progress) -> Result<Unpacked>;

impl Unpack {
    fn options(&self) -> Result<Options> {
        let Self { target_args: target, tree, .. } = self;
        let is_sync = target.sync || self.watch.is_given();
        if target.force && !target.merge && !target.atomic && !is_sync {
            return Err(Error::usage("--force says what --merge, --atomic or --sync may replace")
                .with_hint("give one of them too"));
        }
        Ok(Options {
            platform: self.platform.clone(),
            limits: self.limits.limits(),
            tree: ExtractOptions {
                holes: tree.sparse.into(),
                sync: !target.no_sync,
                uid: tree.owner.map(|owner| owner.uid),
                gid: tree.owner.map(|owner| owner.gid),
                maps: IdMaps::new(tree.uid_map.clone(), tree.gid_map.clone())?,
                group_access: tree.group_access,
                devices: !tree.no_devices,
                file_threads: target
                    .file_threads
                    .map_or(FileThreads::Automatic, |count| FileThreads::Exactly(usize::from(count))),
                ..ExtractOptions::default()
            },
            filter: match (&tree.subpath, tree.strip) {
                (Some(path), _) => PathFilter::Subpath(path.clone()),
                (None, Some(count)) if count > 0 => PathFilter::Strip(count),
                _ => PathFilter::All,
            },
            write: if is_sync {
                WriteMode::Sync(target.sync_options())
            } else if target.merge {
                WriteMode::Merge { replace_directories: target.force }
            } else if target.atomic {
                WriteMode::Atomic { replace: target.force }
            } else {
                WriteMode::InPlace
            },
            if_present: if target.keep {
                IfPresent::KeepAny
            } else if target.checksum {
                IfPresent::Rewrite
            } else {
                IfPresent::Skip
            },
            read_as: if tree.artifact {
                ReadAs::Artifact
            } else {
                ReadAs::Image { as_is: tree.as_is, any_media_type: tree.any_media_type }
            },
            ..Options::default()
        })
    }

    /// Unpacks, and prints the result.
    pub fn run(self) -> Result<Exit> {
        if self.is_unattended() {
            return self.run_unattended();
        }
        let progress = Display::start("unpack", self.output.quiet);
        self.unpack_once(progress, signal::cancel_token()).map(|_| Exit::Done)
    }

    /// Unpacks once, until the token is cancelled.
    fn unpack_once(&self, progress: Display, cancel: CancelToken) -> Result<Done> {
        let options = self.options()?;
        match (&self.image, &self.target) {
            (Some(image), Some(target)) if target == Path::new("-") => {
                self.write_archive(image, options, progress, cancel)
            }
            (Some(image), Some(target)) => {
                let access = with_cancel(self.registries.access(&progress)?, cancel);
                self.unpack(image, target, &options, &access, progress, unpack)
            }
            _ => self.run_as_data_io(options, progress, cancel),
        }
    }

    /// Unpacks as data-io does, with a configuration from the environment: over the target, each time, unless an option
    /// forbids it.
    fn run_as_data_io(&self, options: Options, progress: Display, cancel: CancelToken) -> Result<Done> {
        let config = EnvConfig::read(Direction::Unpack)?;
        if !self.signatures.is_given() {
            config.ensure_no_secrets(&["VOLIO_VERIFY_KEY", "VOLIO_POLICY"])?;
        }
        let access = with_cancel(self.registries.access_for_data_io(&config, &progress)?, cancel);
        let image = config.location(&access)?;
        let write = match options.write {
            // Nothing but the image belongs into such a target, which the root of a container never is.
            WriteMode::InPlace if config.incremental && config.target != Path::new("/") => {
                WriteMode::Sync(SyncOptions { foreign: ForeignTarget::Merge, ..SyncOptions::default() })
            }
            WriteMode::InPlace => WriteMode::Merge { replace_directories: false },
            write => write,
        };
        let if_present = match options.if_present {
            IfPresent::Skip => IfPresent::Rewrite,
            if_present => if_present,
        };
        let options = Options { write, if_present, ..options };
        let unpack = if config.announces { unpack_announced } else { unpack };
        self.unpack(&image, &config.target, &options, &access, progress, unpack).map_err(EnvConfig::explain)
    }

    /// Writes the image to standard output as a tar archive. The digest goes to stderr.
    fn write_archive(
        &self,
        image: &Location,
        options: Options,
        progress: Display,
        cancel: CancelToken,
    ) -> Result<Done> {
        let Options { platform, limits, filter, read_as, .. } = options;
        let ReadAs::Image { as_is, any_media_type } = read_as else {
            return Err(
                Error::usage("an artifact cannot become an archive").with_hint("leave out --artifact")
            );
        };
        if let Some(option) = self.option_for_directory() {
            return Err(Error::usage(format!(
                "{option} cannot be used if the image is written to standard output"
            ))
            .with_hint(format!("leave out {option}, or unpack into a directory")));
        }
        if io::stdout().is_terminal() {
            return Err(Error::usage("standard output is a terminal and cannot show an archive")
                .with_hint("`volio unpack IMAGE - | tar -x`; a directory called `-` is `./-`"));
        }
        let access = with_cancel(self.registries.access(&progress)?, cancel);
        let source = self.source(image, &access)?;
        let temporary = environment::temporary(environment::variable);
        let read = ReadOptions {
            platform,
            limits,
            connections: access.client.concurrency,
            temporary: Some(temporary.clone()),
            // The reader of the archive limits its content.
            max_content: Some(u64::MAX),
            any_media_type,
        };
        let options = ArchiveOptions { read, filter, as_is, temporary };
        let begun = Instant::now();
        let mut out = BufWriter::with_capacity(OUT_BUFFER, StandardOutput(io::stdout().lock()));
        let unpacked = unpack_archive(source.as_ref(), &options, &mut out, progress.as_ref())?;
        drop(progress);
        if !self.output.quiet {
            output::line(&summary(&unpacked, Path::new("-"), begun.elapsed()));
            output::line(&super::address(image, &unpacked.digest));
        }
        Ok(done(&unpacked))
    }

    /// Opens the image to be unpacked.
    fn source(&self, image: &Location, access: &Access) -> Result<Box<dyn Source>> {
        self.signatures.source(image, access, SignedPart::Platform(self.platform.clone()))
    }

    /// Returns the first option that was given and makes sense for a directory only.
    fn option_for_directory(&self) -> Option<&'static str> {
        let Self { target_args: target, tree, output, .. } = self;
        let options = [
            (target.merge, "--merge"),
            (target.atomic, "--atomic"),
            (target.sync, "--sync"),
            (target.force, "--force"),
            (target.keep, "--keep"),
            (target.checksum, "--checksum"),
            (target.no_sync, "--no-sync"),
            (target.file_threads.is_some(), "--file-threads"),
            (tree.owner.is_some(), "--owner"),
            (!tree.uid_map.is_empty(), "--uid-map"),
            (!tree.gid_map.is_empty(), "--gid-map"),
            (tree.group_access, "--group-access"),
            (tree.no_devices, "--no-devices"),
            (tree.sparse != Sparse::Auto, "--sparse"),
            (output.format != Format::Text, "--format"),
        ];
        options.into_iter().find_map(|(is_given, option)| is_given.then_some(option))
    }

    fn unpack(
        &self,
        image: &Location,
        target: &Path,
        options: &Options,
        access: &Access,
        progress: Display,
        unpack: UnpackFunction,
    ) -> Result<Done> {
        let options = &Options { connections: access.client.concurrency, ..options.clone() };
        let begun = Instant::now();
        let source = self.source(image, access)?;
        let unpacked = unpack(source.as_ref(), target, options, progress.as_ref())?;
        drop(progress);

        if !self.output.quiet {
            output::line(&summary(&unpacked, target, begun.elapsed()));
        }
        let address = match unpacked.outcome {
            // The image that was kept may be of another repository.
            Outcome::Kept => unpacked.digest.to_string(),
            _ => super::address(image, &unpacked.digest),
        };
        match self.output.format {
            Format::Text => output::results(|out| writeln!(out, "{address}"))?,
            Format::Json => output::json(&UnpackDocument::new(&address, &unpacked))?,
        }
        unpacked.sync.as_ref().map_or(Ok(()), |synced| ensure_all_removed(synced, target))?;
        Ok(done(&unpacked))
    }
}

/// Returns access whose transfers end when the token is cancelled.
fn with_cancel(mut access: Access, cancel: CancelToken) -> Access {
    access.client.cancel = cancel;
    access
}

/// Returns what the log and the hooks of an unattended unpack say about the result.
fn done(unpacked: &Unpacked) -> Done {
    Done {
        digest: unpacked.digest.clone(),
        bytes: unpacked.sync.as_ref().map_or(unpacked.fetched.bytes, |synced| synced.fetched),
        change: if unpacked.outcome == Outcome::Unpacked { Change::Changed } else { Change::Unchanged },
        size: None,
    }
}

/// Standard output, named in the errors of writing to it.
struct StandardOutput(io::StdoutLock<'static>);

impl StandardOutput {
    fn explain(error: io::Error) -> io::Error {
        match error.kind() {
            // It is tried again.
            io::ErrorKind::Interrupted => error,
            _ => Error::failed("cannot write to standard output").with_source(error).into(),
        }
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(Self::explain)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(Self::explain)
    }
}
