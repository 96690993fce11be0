//! Following a tag. Comments name the failures that other programs were reported to have.

mod hooks;
mod observed;
mod polls;
mod program;
mod readers;

use super::{Lines, log};
use crate::registry::{Recorded, Registry};
use axum::http::Method;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use volio::progress::Silent;
use volio::service::publish::{LinkOptions, Publication};
use volio::service::watch::{OpenSource, Purpose, Watch, WatchOptions};
use volio::service::{Clock, Hook, HookContext, Hooks, Runner, Status};
use volio::transport::{Access, ClientOptions, Retry};
use volio::{CancelToken, Digest, ExtractOptions, Result, SourceSpec, pack, unpack};

/// The period of the watches.
const PERIOD: Duration = Duration::from_secs(10);

/// Something that happens at a time.
type Step = (Duration, Box<dyn FnOnce() + Send>);

/// A clock in which time passes when it is waited for, and at whose times something happens. At the last time the watch
/// ends.
struct Script {
    now: Mutex<Duration>,
    steps: Mutex<VecDeque<Step>>,
    until: Duration,
    end: CancelToken,
}

impl Clock for Script {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn sleep(&self, duration: Duration, cancel: &CancelToken) -> Result<()> {
        let until = self.elapsed() + duration;
        loop {
            let mut steps = self.steps.lock().unwrap();
            if steps.front().is_none_or(|(at, _)| *at > until) {
                break;
            }
            let Some((at, step)) = steps.pop_front() else { break };
            drop(steps);
            let now = self.elapsed().max(at);
            *self.now.lock().unwrap() = now;
            step();
        }
        *self.now.lock().unwrap() = until;
        if until >= self.until {
            self.end.cancel();
        }
        cancel.check()
    }
}

/// A registry with a tag, and a directory in which its versions are published.
#[derive(Clone)]
struct Lab(Arc<Inner>);

struct Inner {
    registry: Registry,
    place: tempfile::TempDir,
    log: Arc<Lines>,
    /// The number of polls.
    polls: AtomicUsize,
    status: Arc<Status>,
}

impl Lab {
    fn new() -> Self {
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(place.path().join("tree")).unwrap();
        Self(Arc::new(Inner {
            registry: Registry::start(),
            place,
            log: log(),
            polls: AtomicUsize::new(0),
            status: Arc::default(),
        }))
    }

    fn registry(&self) -> &Registry {
        &self.0.registry
    }

    fn log(&self) -> &Lines {
        &self.0.log
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.place.path().join(name)
    }

    /// Pushes a version of the tree, which replaces the one before.
    fn push(&self, content: &str) -> Digest {
        let file = self.at("tree/version");
        fs::write(&file, content).unwrap();
        // The same content is the same image.
        let seconds = content.bytes().fold(1_600_000_000, |seconds, byte| seconds + u64::from(byte));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        let destination = self.registry().location("data", "v1").destination(&Access::default()).unwrap();
        let sources = [SourceSpec::new(self.at("tree"))];
        pack::pack(&*destination, &sources, &pack::Options::default(), &Silent).unwrap().digest
    }

    /// Returns the published content.
    fn published(&self, name: &str) -> String {
        fs::read_to_string(self.at("target").join(name).join("version")).unwrap_or_default()
    }

    /// The requests for manifests by the tag, and for anything else but the login.
    fn requests(&self) -> (usize, usize) {
        let mut requests: Vec<Recorded> = self.registry().requests();
        requests.retain(|request| request.path != "/v2/");
        let reads =
            requests.iter().filter(|request| request.method == Method::GET || request.method == Method::HEAD);
        let (manifests, others): (Vec<_>, Vec<_>) =
            reads.partition(|request| request.path == "/v2/data/manifests/v1");
        assert!(manifests.iter().all(|request| request.method == Method::GET));
        (manifests.len(), others.len())
    }

    fn polls(&self) -> usize {
        self.0.polls.load(Ordering::SeqCst)
    }

    fn access(&self, purpose: Purpose) -> Access {
        self.0.polls.fetch_add(usize::from(purpose == Purpose::Poll), Ordering::SeqCst);
        let retries = if purpose == Purpose::Poll { 0 } else { 1 };
        let retry = Retry { retries, delay: Duration::ZERO };
        Access { client: ClientOptions { retry, ..ClientOptions::default() }, ..Access::default() }
    }

    fn opener(&self, name: &str) -> Arc<OpenSource> {
        let (lab, location) = (self.clone(), name.parse::<volio::Location>().unwrap());
        Arc::new(move |purpose| location.source(&lab.access(purpose)))
    }

    /// A watch of the tag with a link `current`, and a clock that ends it after so many periods.
    fn run(&self, periods: u32) -> Run {
        let name = self.registry().location("data", "v1").to_string();
        Run {
            lab: self.clone(),
            open: self.opener(&name),
            steps: Vec::new(),
            until: PERIOD * periods,
            options: WatchOptions {
                period: PERIOD,
                publication: link(),
                unpack: unpack::Options {
                    tree: ExtractOptions { sync: false, ..ExtractOptions::default() },
                    ..unpack::Options::default()
                },
                before_publish: None,
                on_change: None,
                on_change_attempts: 10,
                init_failures: None,
                max_failures: None,
                is_pinned: false,
            },
            hooks: Hooks::default(),
        }
    }

    /// A hook that writes what it is told to a file `diary`, and then does something else.
    fn hook(&self, event: &'static str, then: &str) -> Hook {
        let diary = self.at("diary");
        let line = format!("echo $VOLIO_EVENT $(cat version) >>{}; {then}", diary.display());
        Hook::new(event, OsStr::new(&line), Duration::from_secs(60)).unwrap()
    }

    fn diary(&self) -> String {
        fs::read_to_string(self.at("diary")).unwrap_or_default()
    }
}

fn link() -> Publication {
    Publication::Link(LinkOptions { name: "current".into(), keep_previous: 1 })
}

/// A watch that is being prepared.
struct Run {
    lab: Lab,
    open: Arc<OpenSource>,
    steps: Vec<Step>,
    until: Duration,
    options: WatchOptions,
    hooks: Hooks,
}

impl Run {
    /// Lets something happen shortly before the poll with this number; the first one is 0.
    fn before_poll(self, number: u32, step: impl FnOnce(&Lab) + Send + 'static) -> Self {
        self.after(PERIOD * number - PERIOD / 2, step)
    }

    /// Lets something happen when so much time has passed.
    fn after(mut self, time: Duration, step: impl FnOnce(&Lab) + Send + 'static) -> Self {
        let lab = self.lab.clone();
        self.steps.push((time, Box::new(move || step(&lab))));
        self
    }

    fn with(mut self, change: impl FnOnce(&mut WatchOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Runs the watch to its end.
    fn go(self) -> Result<()> {
        let end = CancelToken::default();
        let clock = Script {
            now: Mutex::default(),
            steps: Mutex::new(self.steps.into()),
            until: self.until,
            end: end.clone(),
        };
        let watch = Watch {
            target: self.lab.at("target"),
            options: self.options,
            open: self.open,
            runner: Runner {
                hooks: self.hooks,
                context: HookContext {
                    environment: std::env::vars_os().collect(),
                    log: self.lab.0.log.clone(),
                },
                image: "registry.example/data:v1".to_owned(),
                clock: Arc::new(clock),
            },
            progress: Arc::new(Silent),
            state: None,
            status: Arc::clone(&self.lab.0.status),
        };
        watch.run(&end)
    }
}
