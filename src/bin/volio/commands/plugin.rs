//! `volio plugin`: serves volumes to Docker and Podman until a signal stops it.

use crate::args::RegistryArgs;
use crate::output::{self, printable};
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use clap::{Args, ValueHint};
use rustix::io::{FdFlags, fcntl_setfd};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{env, process, thread};
use volio::plugin::{Driver, MinSpeed, Plugin, Settings, Socket, serve};
use volio::{CancelToken, Error, Result};

/// The default directory for volumes. Only this one is created if it is missing: another one may be on a disk that is not
/// mounted.
const STORAGE: &str = "/var/lib/volio/volumes";
/// The directory in which Docker looks for plugins.
const SOCKETS: &str = "/run/docker/plugins";
/// The time between two looks at exports that are due.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The time for which a mount counts although no process sees the volume and its engine has ended.
const MOUNT_GRACE: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  volio plugin
  volio plugin --volmex --storage /var/local/volmex   volmex's volumes, as they are
  docker volume create -d volio -o image=registry.example/data:v1 data
  docker volume create -d volio -o export=registry.example/backup:latest results
  docker run -v data:/data …

Options of a volume, each after -o:
  image=IMAGE          fill the volume from this image before a container gets it
  pull=WHEN            missing (once, the default), newer (when the name means another image) or always
  policy=WHAT          once (keep what is there, the default), or replace or sync, which newer and always need
  subpath=PATH         take the contents of this directory of the image, or this file
  verify-key=FILE      fill it only if this public key has signed the image
  platform=OS/ARCH     take the image for this platform
  uid=N gid=N mode=N   the owner and group of the files, and the mode of the volume's root
  export=IMAGE         pack the volume when the last container has let go of it
  export-mode=WHAT     full (the default), or incremental: add what changed to the image that is there
  pre-mount=COMMAND    run this before each mount; a failure keeps the container from starting
  post-unmount=COMMAND run this after each unmount; a failure keeps the volume from being exported
  cmd=COMMAND          run this before each mount, exactly as volmex did
  timeout=SECONDS      how long a command may take (100)

A COMMAND is words, quoted as in a shell, or a JSON array of words; no shell runs it. Its environment is PATH and \
VOLIO_EVENT, VOLIO_NAME, VOLIO_MOUNTPOINT, VOLIO_ID, VOLIO_MOUNTS, VOLIO_IMAGE, VOLIO_DIGEST and VOLIO_DRIVER.

If a fetch takes longer than the engine waits, it continues; start the container again later. docker volume inspect shows \
its progress and the last error.

Removing a volume leaves its data where it is.";

/// Serve volumes to Docker and Podman
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct PluginArgs {
    /// Keep volumes and their state in this directory [default: /var/lib/volio/volumes]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    storage: Option<PathBuf>,

    /// Also be the driver volmex, for volumes that were made with it
    #[arg(long)]
    volmex: bool,

    /// Make the sockets in this directory, unless systemd has made them
    #[arg(long, value_name = "DIR", default_value = SOCKETS, value_hint = ValueHint::DirPath)]
    sockets: PathBuf,

    /// Answer a mount within this time; dockerd waits for two minutes, and for less where so configured
    #[arg(long, value_name = "SECONDS", default_value_t = 110, value_parser = clap::value_parser!(u64).range(1..=86400))]
    patience: u64,

    #[command(flatten)]
    signatures: VerificationArgs,
    #[command(flatten)]
    registries: RegistryArgs,
}

impl PluginArgs {
    /// Serves until a signal arrives.
    pub fn run(self) -> Result<()> {
        let given = sockets_from_systemd()?;
        let drivers = if !given.is_empty() {
            given.iter().map(Socket::driver).collect()
        } else if self.volmex {
            vec![Driver::Volio, Driver::Volmex]
        } else {
            vec![Driver::Volio]
        };
        let storage = self.storage()?;
        // Errors in the arguments are found now and not when the first volume is mounted.
        self.registries.access(&Display::warnings())?;
        let signatures = self.signatures.policy()?;
        let (registries, sockets) = (self.registries, self.sockets);
        let plugin = Plugin::open(Settings {
            storage: storage.clone(),
            drivers: drivers.clone(),
            answer_timeout: Duration::from_secs(self.patience),
            check_interval: CHECK_INTERVAL,
            mount_grace: MOUNT_GRACE,
            min_speed: MinSpeed::default(),
            access: Box::new(move || registries.access(&Display::warnings())),
            signatures,
            log: Box::new(|line| output::line(&printable(line))),
            clock: SystemTime::now,
            search_path: env::var_os("PATH").unwrap_or_default(),
        })?;
        let cancel = CancelToken::default();
        listen_for_signals(cancel.clone())?;
        // Engines may connect only after the state was read.
        let sockets = if given.is_empty() {
            drivers.into_iter().map(|driver| Socket::make(&sockets, driver)).collect::<Result<_>>()?
        } else {
            given
        };
        for socket in &sockets {
            let name = socket.driver().name();
            output::line(&format!("serving the driver {name}, volumes in {}", storage.display()));
        }
        // Without systemd this fails, which does not matter.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        serve(&plugin, sockets, &cancel)?;
        output::line("stopped");
        Ok(())
    }

    fn storage(&self) -> Result<PathBuf> {
        if let Some(storage) = &self.storage {
            return Ok(storage.clone());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(STORAGE).map_err(|error| {
            Error::io(format!("cannot make {STORAGE}"), error)
                .with_hint("name another directory with --storage")
        })?;
        Ok(STORAGE.into())
    }
}

/// Returns the sockets that systemd passed to this process.
fn sockets_from_systemd() -> Result<Vec<Socket>> {
    let given = sd_listen_fds::get().map_err(|error| Error::usage(format!("LISTEN_FDS: {error}")))?;
    given
        .into_iter()
        .map(|(_, descriptor)| {
            let descriptor: OwnedFd = descriptor.into_std();
            // The commands of volumes do not inherit the socket.
            fcntl_setfd(&descriptor, FdFlags::CLOEXEC)
                .map_err(|errno| Error::io("cannot use a socket of systemd's", errno))?;
            Socket::take_over(UnixListener::from(descriptor))
        })
        .collect()
}

/// Stops the plugin after its open requests at the first signal, and at once at the second. All state survives both.
fn listen_for_signals(cancel: CancelToken) -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| Error::io("cannot listen for signals", error))?;
    let listen = move || {
        for (number, signal) in signals.forever().enumerate() {
            if number > 0 {
                process::exit(128 + signal);
            }
            output::line("stopping");
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            cancel.cancel();
        }
    };
    let started = thread::Builder::new().spawn(listen);
    started.map(drop).map_err(|error| Error::io("cannot listen for signals", error))
}
