//! `volio unpack` unattended: following a tag, or once with hooks.

use super::Unpack;
use crate::data_io::{Direction, EnvConfig};
use crate::exit::Exit;
use crate::progress::Display;
use crate::{output, signal};
use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use volio::service::publish::{LinkOptions, Publication};
use volio::service::watch::{Purpose, Watch, WatchOptions};
use volio::service::{Hook, Status, parse_duration};
use volio::{CancelToken, Error, Location, Result, Retry, SignedPart, Source, VerificationCache};

/// The shortest period.
const MIN_PERIOD: Duration = Duration::from_secs(1);

/// Options for following a tag.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Watch options")]
pub struct WatchArgs {
    /// Look each PERIOD whether the tag means another image, and publish it in DIR, with --sync or --link; until SIGTERM
    #[arg(long, value_name = "PERIOD", requires = "target", value_parser = parse_duration)]
    #[arg(conflicts_with_all = ["merge", "keep", "atomic", "artifact", "dry_run"])]
    watch: Option<Duration>,

    /// Unpack each version into a directory of its own in DIR, and let the symbolic link DIR/NAME lead to it
    #[arg(long, value_name = "NAME", requires = "watch", conflicts_with = "sync")]
    link: Option<OsString>,

    /// With --link, keep this many old versions for programs that still read them
    #[arg(long, value_name = "N", requires = "link", default_value_t = 1)]
    keep_previous: usize,

    /// With --link, run this in the new version before it is published; if it fails, the version before stays
    #[arg(long, value_name = "COMMAND", requires = "link", value_hint = ValueHint::CommandString)]
    before_publish: Option<OsString>,

    /// Run this in the new version after it was published, until it succeeds
    #[arg(long, value_name = "COMMAND", requires = "watch", value_hint = ValueHint::CommandString)]
    on_change: Option<OsString>,

    /// Give up --on-change for a version after so many failures
    #[arg(long, value_name = "N", requires = "on_change", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    on_change_attempts: u32,

    /// Give up after so many failures in a row before the first version is published [default: never]
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u32).range(1..))]
    init_failures: Option<u32>,

    /// Give up after so many failures in a row after that [default: never]
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u32).range(1..))]
    max_failures: Option<u32>,
}

impl WatchArgs {
    /// Returns whether a tag is to be followed.
    pub fn is_given(&self) -> bool {
        self.watch.is_some()
    }
}

impl Unpack {
    /// Returns whether the command follows a tag, or has hooks: then it ends in an orderly way at a signal.
    pub fn is_unattended(&self) -> bool {
        self.watch.is_given() || self.unattended.is_given()
    }

    /// Follows a tag, or unpacks once with hooks.
    pub(super) fn run_unattended(self) -> Result<Exit> {
        self.unattended.set_log_format();
        let unattended = self.unattended.clone();
        let outcome = match self.watch.watch {
            Some(period) => self.follow(period),
            None => self.unpack_with_hooks(),
        };
        outcome.inspect_err(|error| unattended.write_termination_log(error))
    }

    /// Unpacks once with hooks.
    fn unpack_with_hooks(self) -> Result<Exit> {
        if self.target_args.dry_run {
            return Err(Error::usage("--dry-run runs no hooks").with_hint("leave it out"));
        }
        let image = self.image_name()?;
        let runner = self.unattended.runner(&image, self.output.quiet)?;
        let status = Arc::<Status>::default();
        let _server = self.unattended.serve_health(&status, &runner)?;
        let needs_state = self.unattended.has_after();
        let mut state =
            needs_state.then(|| self.unattended.open_state("unpack", &image, &runner)).transpose()?.flatten();
        status.during_hook(&*runner.clock, || runner.recover(state.as_mut()));
        status.begin(&*runner.clock);
        let shown = Arc::clone(&status);
        let work = move |cancel: &CancelToken| {
            let display = Display::start("unpack", self.output.quiet).observed_by(&shown);
            self.unpack_once(display, cancel.clone())
        };
        let report = runner.run(state.as_mut(), &signal::stop_token(), work);
        if report.interrupted {
            return Ok(interrupted());
        }
        report.into_result().map(|_| Exit::Done)
    }

    /// Follows a tag.
    fn follow(self, period: Duration) -> Result<Exit> {
        let (Some(image), Some(target)) = (self.image.clone(), self.target.clone()) else {
            return Err(Error::usage("--watch needs IMAGE and DIR"));
        };
        let runner = self.unattended.runner(&image, self.output.quiet)?;
        let options = self.watch_options(period, &image, &target)?;
        let status = Arc::<Status>::default();
        let _server = self.unattended.serve_health(&status, &runner)?;
        let needs_state = self.unattended.has_after();
        let state =
            needs_state.then(|| self.unattended.open_state("unpack", &image, &runner)).transpose()?.flatten();
        let display = Display::warnings_unless(self.output.quiet).observed_by(&status);
        let cache = Arc::<VerificationCache>::default();
        let watch = Watch {
            target,
            options,
            runner: runner.clone(),
            progress: display.shared(),
            state,
            status,
            open: Arc::new(move |purpose| self.open(&image, purpose, &display, &cache)),
        };
        watch.run(&signal::stop_token())?;
        Ok(Exit::Done)
    }

    fn watch_options(&self, period: Duration, image: &Location, target: &Path) -> Result<WatchOptions> {
        let args = &self.watch;
        if period < MIN_PERIOD {
            return Err(Error::usage("--watch: the period is shorter than a second")
                .with_hint("give a longer one, such as 30s"));
        }
        if target == Path::new("-") {
            return Err(Error::usage("--watch cannot be used if the image is written to standard output")
                .with_hint("name a directory"));
        }
        let publication = match &args.link {
            Some(name) => {
                Publication::Link(LinkOptions { name: name.clone(), keep_previous: args.keep_previous })
            }
            None if self.target_args.sync => Publication::InPlace,
            None => {
                return Err(Error::usage("--watch does not say how a new version is published").with_hint(
                    "--sync changes DIR in place, and --link NAME lets a link lead to each version",
                ));
            }
        };
        // clap does not require --link beside --sync, which conflicts with it.
        if args.before_publish.is_some() && publication == Publication::InPlace {
            return Err(Error::usage(
                "--before-publish cannot decide about a version that is published in place",
            )
            .with_hint("give --link NAME instead of --sync"));
        }
        let hook = |event, text: &Option<OsString>| {
            text.as_ref().map(|text| Hook::new(event, text, self.unattended.hook_timeout)).transpose()
        };
        Ok(WatchOptions {
            period,
            publication,
            unpack: self.options()?,
            before_publish: hook("before-publish", &args.before_publish)?,
            on_change: hook("on-change", &args.on_change)?,
            on_change_attempts: args.on_change_attempts,
            init_failures: args.init_failures,
            max_failures: args.max_failures,
            is_pinned: image.digest().is_some(),
        })
    }

    /// Opens the image, with the credentials that are there by now.
    fn open(
        &self,
        image: &Location,
        purpose: Purpose,
        display: &Display,
        cache: &Arc<VerificationCache>,
    ) -> Result<Box<dyn Source>> {
        let quiet = Display::warnings_unless(true);
        let mut access = self.registries.access(if purpose == Purpose::Poll { &quiet } else { display })?;
        if purpose == Purpose::Poll {
            access.client.retry = Retry { retries: 0, ..access.client.retry };
        }
        access.client.cancel = signal::stop_token();
        let part = SignedPart::Platform(self.platform.clone());
        self.signatures.source_with_cache(image, &access, part, cache)
    }

    /// Returns the image of the arguments, or of data-io's variables.
    fn image_name(&self) -> Result<Location> {
        match &self.image {
            Some(image) => Ok(image.clone()),
            None => {
                let config = EnvConfig::read(Direction::Unpack)?;
                config.location(&self.registries.access_for_data_io(&config, &Display::warnings())?)
            }
        }
    }
}

fn interrupted() -> Exit {
    output::line("interrupted");
    Exit::Interrupted
}
