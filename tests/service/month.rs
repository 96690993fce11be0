//! A month of one exporter and three followers, in compressed time, with faults. Killing the real program is tested
//! elsewhere; here a service is dropped in the middle, and another one starts.
//!
//! The month runs in a process of its own, so that its threads and descriptors can be counted.

mod measures;
mod model;
mod time;
mod world;

use crate::registry::{Login, Registry};
use measures::{Effects, LastLines};
use model::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use time::{Killed, Machine, TICK, Timeline};
use volio::pack::{Base, IncrementalOptions, ShrinkRule, add_tags, pack_incremental};
use volio::progress::{Progress, Silent, Task, TaskInfo};
use volio::prune::{Options, ensure_stored, prune};
use volio::service::publish::{LinkOptions, Publication};
use volio::service::watch::{Purpose, Watch, WatchOptions};
use volio::service::{
    AtEnd, Change, Clock, Done, Hook, HookContext, Hooks, JobState, Runner, Schedule, Scheduled, Status, Zone,
};
use volio::transport::{Access, ClientOptions, CredentialSource, Retry};
use volio::{CancelToken, Digest, Error, ExtractOptions, Location, Result, SourceSpec, pack, unpack};

/// The variable with the directory of the month, in its own process.
const PLACE: &str = "MONTH_OF_THE_TEST";
/// The variable with another seed.
const SEED: &str = "SEED_OF_THE_TEST";
/// The seed of all random choices. The pauses of the services after failures have other ones.
const USUAL_SEED: u64 = 20_261_129;
/// The period of the exporter.
const EXPORT: Duration = Duration::from_secs(6 * 3600);
/// The period of the followers.
const POLL: Duration = Duration::from_secs(2 * 3600);
const USERS: [&str; 2] = ["me:first-secret", "me:second-secret"];

#[test]
fn a_simulated_month_loses_no_change_and_leaves_nothing_behind() {
    if let Some(place) = std::env::var_os(PLACE) {
        return simulate(Path::new(&place));
    }
    // Thousands of small files reach the disk, and in memory that takes less time.
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    fs::create_dir(place.path().join("tmp")).unwrap();
    // Without the signal, a file that grows too large is an error of writing, as on a full disk.
    let line = r#"trap "" XFSZ; exec "$0" "$@""#;
    let output = Command::new("sh")
        .args(["-c", line])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "service::month::a_simulated_month_loses_no_change_and_leaves_nothing_behind",
        ])
        .env(PLACE, place.path())
        .env("TMPDIR", place.path().join("tmp"))
        // With one arena, memory that is free is used again, and what grows is a leak.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "seed {}: {}\n{text}",
        seed(),
        output.status
    );
}

fn seed() -> u64 {
    std::env::var(SEED).map_or(USUAL_SEED, |seed| seed.parse().unwrap())
}

/// A source of numbers that repeats itself with the same seed.
#[derive(Debug)]
struct Random(AtomicU64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed | 1))
    }

    /// Returns a number below a limit.
    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.load(Ordering::SeqCst);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.store(state, Ordering::SeqCst);
        (state >> 11) % limit
    }
}

/// The files of a tree, with hashes of their contents: the contents of a whole month would look like a leak.
type Files = BTreeMap<String, u64>;

/// A tree as it is found.
struct Tree {
    /// The number in its file `version`.
    version: Option<usize>,
    files: Files,
}

/// An image that got its name.
struct Export {
    time: Duration,
    version: usize,
    digest: Digest,
}

struct Month {
    place: PathBuf,
    registry: Registry,
    timeline: Arc<Timeline>,
    /// The world itself, the exporter and the followers.
    machines: Vec<Arc<Machine>>,
    random: Random,
    log: Arc<LastLines>,
    effects: Arc<Effects>,
    /// The versions of the exported tree, with their times. The number of a version is in its file `version`.
    truth: Mutex<Vec<(Duration, Files)>>,
    exports: Mutex<Vec<Export>>,
    /// The dated tags that there must be.
    snapshots: Mutex<Vec<Snapshot>>,
    /// The tags that there must be after the last complete prune.
    kept: Mutex<BTreeSet<String>>,
    /// The number of complete prunes.
    prunes: AtomicU64,
    /// The times of faults. An end that is not known yet is far away.
    faults: Mutex<Vec<(Duration, Duration)>>,
}

/// Progress that revokes all tokens now and then.
struct Revoking(Arc<Month>);

impl Progress for Revoking {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        if self.0.random.below(8) == 0 {
            self.0.registry.revoke_tokens();
        }
        Silent.begin(info)
    }

    fn warn(&self, _message: &str) {}
}

fn simulate(place: &Path) {
    let (timeline, effects) = (Arc::new(Timeline::new(5)), Arc::<Effects>::default());
    let month = Arc::new(Month {
        place: place.to_owned(),
        registry: Registry::start(),
        machines: (0..5).map(|number| Machine::new(&timeline, number, &effects)).collect(),
        timeline,
        random: Random::new(seed()),
        log: LastLines::new(&effects),
        effects,
        truth: Mutex::default(),
        exports: Mutex::default(),
        snapshots: Mutex::default(),
        kept: Mutex::default(),
        prunes: AtomicU64::new(0),
        faults: Mutex::default(),
    });
    // The other machines would wait for ever for one that has panicked.
    let (log, usual) = (Arc::clone(&month.log), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        eprintln!("seed {}; the last lines:\n{}", seed(), log.last(40).join("\n"));
        std::process::exit(101);
    }));
    month.log_in(USERS[0], USERS[0]);
    fs::create_dir(month.path("tree")).unwrap();
    world::run(&month);
}

impl Month {
    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    fn target(&self, machine: usize) -> PathBuf {
        self.path(&format!("target-{machine}"))
    }

    /// Sets the password that the registry accepts, and the one that the machines have.
    fn log_in(&self, accepted: &'static str, shown: &str) {
        self.registry.behave(|behaviour| {
            behaviour.login = Login::Token { user: accepted, anonymous_pull: false, expires_in: 60 };
        });
        self.registry.revoke_tokens();
        let (name, password) = shown.split_once(':').unwrap();
        let entry = format!(r#"{{"username":"{name}","password":"{password}"}}"#);
        let text = format!(r#"{{"auths":{{"{}":{entry}}}}}"#, self.registry.host());
        fs::write(self.path("config.json"), text).unwrap();
    }

    fn access(&self, retries: u32) -> Access {
        let retry = Retry { retries, delay: Duration::ZERO };
        Access {
            client: ClientOptions { retry, ..ClientOptions::default() },
            credentials: vec![CredentialSource::File(self.path("config.json"))],
            ..Access::default()
        }
    }

    /// Returns a hook that writes what it is told to the diary of a machine.
    fn hook(&self, machine: usize, event: &'static str, more: &str) -> Option<Hook> {
        let diary = self.path(&format!("diary-{machine}"));
        let line = format!("echo $VOLIO_EVENT {more} >>{}", diary.display());
        Some(Hook::new(event, OsStr::new(&line), Duration::from_secs(60)).unwrap())
    }

    fn diary(&self, machine: usize) -> String {
        fs::read_to_string(self.path(&format!("diary-{machine}"))).unwrap_or_default()
    }

    fn runner(&self, machine: usize) -> Runner {
        let log: Arc<LastLines> = Arc::clone(&self.log);
        Runner {
            hooks: Hooks {
                before: self.hook(machine, "before", ""),
                after: self.hook(machine, "after", "$VOLIO_RESULT"),
                on_error: None,
            },
            context: HookContext { environment: std::env::vars_os().collect(), log },
            image: format!("machine {machine}"),
            clock: self.machines[machine].clone(),
        }
    }

    fn job_state(&self, machine: usize, cancel: &CancelToken) -> Result<JobState> {
        let directory = self.path(&format!("state-{machine}"));
        JobState::open(&directory, "the job", &*self.machines[machine], &*self.log, cancel)
    }

    fn digest_of_last(&self) -> Option<Digest> {
        self.exports.lock().unwrap().last().map(|export| export.digest.clone())
    }

    /// Serves until the end. A service that is killed is started again a while later.
    fn serve(self: &Arc<Self>, machine: usize) {
        let own = &self.machines[machine];
        self.timeline.join(machine);
        loop {
            let end = own.end.lock().unwrap().clone();
            let service = || if machine == 1 { self.exporter(&end) } else { self.follower(machine, &end) };
            match catch_unwind(AssertUnwindSafe(service)) {
                Ok(ended) => break ended.unwrap(),
                Err(payload) => assert!(payload.is::<Killed>()),
            }
            if !self.is_down() {
                self.registry.behave(|behaviour| behaviour.limits_requests = None);
            }
            let pause = TICK * (1 + u32::try_from(self.random.below(3)).unwrap());
            if own.sleep(pause, &end).is_err() {
                break;
            }
        }
        self.timeline.leave(machine);
    }

    fn exporter(self: &Arc<Self>, end: &CancelToken) -> Result<()> {
        let scheduled = Scheduled {
            runner: self.runner(1),
            schedule: Schedule::every(EXPORT)?,
            zone: Zone::find(Some(OsStr::new("UTC")))?,
            jitter: Duration::ZERO,
            at_end: AtEnd::Stop,
            max_failures: None,
            status: Arc::default(),
        };
        let (state, month) = (self.job_state(1, end)?, Arc::clone(self));
        scheduled.serve(Some(state), end, move |_| month.export()).map(drop)
    }

    /// Packs as `pack --incremental --tag-template --keep-…` does.
    fn export(self: &Arc<Self>) -> Result<Done> {
        let doomed = self.machines[1].doomed.swap(false, Ordering::SeqCst);
        let dies_at = if doomed { self.random.below(3) } else { u64::MAX };
        let die = |step| {
            let dies = dies_at == step;
            self.machines[1].killed.fetch_or(dies, Ordering::SeqCst);
            if dies { Err(Error::failed("killed")) } else { Ok(()) }
        };
        if dies_at == 0 {
            let left = usize::try_from(self.random.below(8)).unwrap();
            self.registry.behave(|behaviour| behaviour.limits_requests = Some(left));
        }
        let (access, begun) = (self.access(1), self.machines[1].now());
        let location = self.registry.location("data", "latest");
        let destination = location.destination(&access)?;
        let base = Base::current(location.clone(), access.clone());
        let incremental = IncrementalOptions {
            shrink_rule: ShrinkRule::Any,
            temporary: Some(self.path("tmp")),
            ..IncrementalOptions::default()
        };
        let progress = Revoking(Arc::clone(self));
        let (time, version) = (self.timeline.elapsed(), self.truth.lock().unwrap().len() - 1);
        let sources = [SourceSpec::new(self.path("tree"))];
        let options = pack::Options::default();
        let packed = pack_incremental(&*destination, &base, &sources, &options, &incremental, &progress)
            .or_else(|error| die(0).and(Err(error)))?;
        die(0)?;
        let digest = packed.digest.clone();
        let is_new = self.digest_of_last().as_ref() != Some(&digest);
        if is_new {
            self.exports.lock().unwrap().push(Export { time, version, digest: digest.clone() });
        }
        die(1)?;
        let civil = |time| {
            let time = jiff::Timestamp::try_from(time).unwrap();
            (time, time.to_zoned(jiff::tz::TimeZone::UTC).datetime())
        };
        let template: volio::TagTemplate = "n-{date:%Y%m%dT%H%M%S}-{digest:.8}".parse()?;
        let time = civil(begun).1;
        let tag = template.tag(time, &digest)?;
        add_tags(&*destination, &packed, std::slice::from_ref(&tag))?;
        // It is written last.
        let newest = fs::metadata(self.path("tree/version")).unwrap().modified().unwrap();
        let created = newest.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let snapshot = Snapshot { time, tag, digest: digest.clone(), created };
        let before = {
            let mut snapshots = self.snapshots.lock().unwrap();
            snapshots.retain(|other| *other != snapshot);
            snapshots.push(snapshot);
            snapshots.clone()
        };
        die(2)?;
        let source = packed.address.parse::<Location>()?.source_without_mirrors(&access)?;
        ensure_stored(&*source, &*destination, &digest)?;
        drop(destination);
        let (now, today) = civil(self.machines[1].now());
        let kept = model::keep(before, today, &digest);
        let options = Options {
            template: Some(template),
            just_packed: Some(digest.clone()),
            ..Options::new(model::policy(), now)
        };
        let removal = location.bulk_removal(&access)?;
        let pruned = prune(&*source, &*removal, &options);
        // A prune that breaks off has removed some of the others.
        let mut left = self.registry.stored_tags("data");
        left.retain(|tag| tag != "latest");
        assert!(kept.iter().all(|tag| left.contains(tag)), "{kept:?} in {left:?}");
        if pruned.is_ok() {
            assert_eq!(left, kept.iter().cloned().collect::<Vec<_>>());
            self.prunes.fetch_add(1, Ordering::SeqCst);
            *self.kept.lock().unwrap() = kept;
        }
        self.snapshots.lock().unwrap().retain(|snapshot| left.contains(&snapshot.tag));
        assert_eq!(self.snapshots.lock().unwrap().len(), left.len(), "{left:?}");
        pruned?;
        let change = if is_new { Change::Changed } else { Change::Unchanged };
        Ok(Done { digest, bytes: packed.bytes, change, size: None })
    }

    fn follower(self: &Arc<Self>, machine: usize, end: &CancelToken) -> Result<()> {
        let (month, own) = (Arc::clone(self), Arc::clone(&self.machines[machine]));
        let open = move |purpose| {
            let is_fetch = purpose == Purpose::Fetch;
            if is_fetch && own.doomed.swap(false, Ordering::SeqCst) {
                own.killed.store(true, Ordering::SeqCst);
                let left = usize::try_from(month.random.below(12)).unwrap();
                month.registry.behave(|behaviour| behaviour.limits_requests = Some(left));
            }
            month.registry.location("data", "latest").source(&month.access(u32::from(is_fetch)))
        };
        let link = |keep_previous| Publication::Link(LinkOptions { name: "current".into(), keep_previous });
        let hook = |event, line: &str| Hook::new(event, OsStr::new(line), Duration::from_secs(60)).unwrap();
        let watch = Watch {
            target: self.target(machine),
            options: WatchOptions {
                period: POLL,
                publication: [Publication::InPlace, link(1), link(0)][machine - 2].clone(),
                unpack: unpack::Options {
                    tree: ExtractOptions { sync: false, ..ExtractOptions::default() },
                    ..unpack::Options::default()
                },
                before_publish: (machine == 3).then(|| hook("before-publish", "test -s version")),
                on_change: self.hook(machine, "on-change", "$(cat version)"),
                on_change_attempts: 10,
                init_failures: None,
                max_failures: None,
                is_pinned: false,
            },
            open: Arc::new(open),
            runner: self.runner(machine),
            progress: Arc::new(Revoking(Arc::clone(self))),
            state: Some(self.job_state(machine, end)?),
            status: Arc::<Status>::default(),
        };
        watch.run(end)
    }
}
