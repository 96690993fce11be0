//! The events of the month, and the conditions that hold at all times.

use super::measures::{Effect, Usage, memory};
use super::{Files, Month, Tree, USERS};
use crate::service::eventually;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use volio::progress::Silent;
use volio::service::publish::version_name;
use volio::unpack;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const DAYS: u32 = 30;
/// The time between two looks at the world.
const STEP: Duration = Duration::from_secs(3 * 3600);
/// The time after a fault in which everybody recovers.
const RECOVERY: Duration = Duration::from_secs(4 * 3600);
/// The time after which a change has reached the registry: a period, a restart and a retry.
const EXPORTED: Duration = Duration::from_secs(7 * 3600);
/// The time after which an image has reached the followers.
const FOLLOWED: Duration = Duration::from_secs(3 * 3600);
/// The largest file that fits on a disk that is nearly full.
const NEARLY_FULL: u64 = 32 << 10;
/// The day from which memory is not to grow.
const SETTLED: usize = 10;
/// The days whose median of memory counts: it depends on what a run has just done, and on what the allocator has given
/// back.
const WINDOW: usize = 3;
/// The growth of the memory that is no leak, in KiB: twice what ten seeds have shown. There are more than 300 runs in
/// that time.
const GROWTH: usize = 8 << 10;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The registry answers so many requests more, and then 503, for so long.
    Down(u64, Duration),
    /// The registry has another password than the machines.
    PasswordRotated,
    /// The clock of a machine is wrong by seconds from now on.
    Jump(usize, i64),
    DiskFull,
    TagDeleted,
    /// A service is killed while it waits.
    KilledAsleep(usize),
    /// A service is killed in its next run.
    KilledInRun(usize),
}

/// The fault of each day after the first three, in turn.
const FAULTS: [Fault; 24] = [
    Fault::KilledInRun(1),
    Fault::Down(0, Duration::from_secs(6 * 3600)),
    Fault::KilledInRun(2),
    Fault::KilledInRun(3),
    Fault::Jump(1, -2 * 86_400),
    Fault::DiskFull,
    Fault::PasswordRotated,
    Fault::KilledAsleep(4),
    Fault::Down(7, Duration::from_secs(9 * 3600)),
    Fault::KilledInRun(4),
    Fault::Down(0, Duration::from_secs(24 * 3600)),
    Fault::KilledInRun(1),
    Fault::TagDeleted,
    Fault::Jump(1, 40 * 86_400),
    Fault::KilledAsleep(1),
    Fault::Jump(1, 3600),
    Fault::Jump(2, 365 * 86_400),
    Fault::KilledAsleep(2),
    Fault::Down(30, Duration::from_secs(6 * 3600)),
    Fault::KilledInRun(1),
    Fault::DiskFull,
    Fault::KilledInRun(3),
    Fault::PasswordRotated,
    Fault::Jump(3, -3600),
];

/// Limits the size of files that this process writes. Returns the limit from before.
fn limit_files(size: Option<u64>) -> Option<u64> {
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: size.or(limit.maximum), ..limit }).unwrap();
    limit.current
}

/// Returns a hash of the content of a file.
fn hash(content: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(content)
}

/// Reads a tree without subdirectories; `None` if it is removed meanwhile.
fn read(directory: &Path) -> Option<Tree> {
    let mut tree = Tree { version: None, files: Files::new() };
    for entry in fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with(".volio") {
            continue;
        }
        let content = fs::read(entry.path()).ok()?;
        if name == "version" {
            tree.version = String::from_utf8_lossy(&content).parse().ok();
        }
        tree.files.insert(name, hash(&content));
    }
    Some(tree)
}

/// Lives through the month.
pub fn run(month: &Arc<Month>) {
    month.change();
    let (ended, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let services: Vec<_> = (1..5).map(|machine| scope.spawn(move || month.serve(machine))).collect();
        let (ended_soon, looks) = (&ended, &looks);
        for machine in [3, 4] {
            scope.spawn(move || month.observe(machine, ended_soon, looks));
        }
        scope.spawn(move || month.observe_files(2, ended_soon));
        month.live();
        for machine in &month.machines {
            machine.end.lock().unwrap().cancel();
        }
        month.timeline.leave(0);
        services.into_iter().for_each(|service| service.join().unwrap());
        ended.store(true, Ordering::SeqCst);
    });
    assert!(looks.into_inner() > 100);
    month.check_end();
}

impl Month {
    fn version(&self) -> usize {
        self.truth.lock().unwrap().len() - 1
    }

    /// Changes the exported tree: some files change, appear or disappear.
    fn change(&self) {
        // Only the disks of the followers are full.
        let limit = limit_files(None);
        let mut truth = self.truth.lock().unwrap();
        let version = truth.len();
        let mut files = truth.last().map(|(_, files)| files.clone()).unwrap_or_default();
        for name in ["a", "b", "c", "d", "e", "large"] {
            let size = if name == "large" { 80_000 } else { 10 + self.random.below(4000) };
            let path = self.path("tree").join(name);
            match self.random.below(4) {
                0 if version > 0 && name != "large" => {
                    files.remove(name);
                    let _ = fs::remove_file(path);
                }
                1 | 2 if version > 0 => {}
                _ => {
                    let content: Vec<u8> = (0..size).map(|_| self.random.below(256) as u8).collect();
                    fs::write(path, &content).unwrap();
                    files.insert(name.to_owned(), hash(&content));
                }
            }
        }
        fs::write(self.path("tree/version"), version.to_string()).unwrap();
        files.insert("version".to_owned(), hash(version.to_string().as_bytes()));
        truth.push((self.timeline.elapsed(), files));
        limit_files(limit);
    }

    /// Asserts that a tree is one of the versions, as a whole. Returns the number.
    fn whole(&self, tree: &Tree) -> usize {
        let version = tree.version.expect("the file with the number is whole");
        let truth = self.truth.lock().unwrap();
        let expected = &truth[version].1;
        let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&tree.files), names(expected), "half of version {version}");
        assert!(tree.files == *expected, "half of version {version}");
        version
    }

    /// Reads the published tree of a follower all the time, as an application does.
    fn observe(&self, machine: usize, ended: &AtomicBool, looks: &AtomicUsize) {
        let link = self.target(machine).join("current");
        while !ended.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
            let Ok(name) = fs::read_link(&link) else { continue };
            let tree = read(&self.target(machine).join(&name));
            // An old version may be removed meanwhile, but not the current one.
            if fs::read_link(&link).unwrap() == name {
                self.whole(&tree.expect("the current version is there"));
                looks.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Reads the files of a follower in place all the time: each is a whole one, of whatever version.
    fn observe_files(&self, machine: usize, ended: &AtomicBool) {
        while !ended.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
            // One may be removed between two looks.
            let Some(tree) = read(&self.target(machine)) else { continue };
            let truth = self.truth.lock().unwrap();
            for (name, content) in &tree.files {
                let is_whole = truth.iter().any(|(_, files)| files.get(name) == Some(content));
                assert!(is_whole, "half of the file {name}");
            }
        }
    }

    fn is_quiet(&self, from: Duration, to: Duration) -> bool {
        let faults = self.faults.lock().unwrap();
        !faults.iter().any(|(begin, end)| *begin < to && from < *end + RECOVERY)
    }

    /// Returns whether the registry is down for everybody.
    pub fn is_down(&self) -> bool {
        let now = self.timeline.elapsed();
        self.faults.lock().unwrap().iter().any(|(begin, end)| (*begin..*end).contains(&now))
    }

    fn live(&self) {
        let (mut early, mut memories, mut effects) = (None, Vec::new(), BTreeMap::new());
        let mut fault_ends = None;
        let mut checks = 0;
        for step in 1..=DAYS * 8 {
            self.timeline.sleep_until(0, STEP * step);
            let now = self.timeline.elapsed();
            if fault_ends.is_some_and(|end| end <= now) {
                fault_ends = None;
                self.mend();
            }
            checks += usize::from(self.check());
            self.tidy();
            memories.push(memory());
            let day = step / 8;
            if step == 3 * 8 {
                (early, effects) = (Some(Usage::now()), self.effects());
            }
            let fault = (3..27).contains(&day).then(|| FAULTS[day as usize - 3]);
            match (fault, step % 8) {
                (Some(fault), 2) if fault_ends.is_none() => {
                    fault_ends = Some(now + self.break_something(fault));
                }
                // The exporter may have set the tag again before a follower has looked.
                (Some(Fault::TagDeleted), 3) => self.delete_tag(),
                _ => {}
            }
            if self.random.below(10) < 4 && step < (DAYS - 1) * 8 {
                self.change();
            }
        }
        assert!(checks > 40, "{checks} checks in quiet times");
        assert!(self.is_quiet(DAY * (DAYS - 1), DAY * DAYS) && fault_ends.is_none());
        self.check_usage(early.unwrap(), &memories);
        self.check_effects(&effects);
    }

    /// Lets the registry delete what it need not have, so that its memory does not grow. No service is in a run.
    fn tidy(&self) {
        self.registry.forget_requests();
        // Its name may have been deleted.
        self.registry.collect_garbage(self.digest_of_last().as_slice());
    }

    /// Asserts that the services have left no descriptor, thread or memory behind.
    fn check_usage(&self, early: Usage, memories: &[usize]) {
        eventually("no more descriptors and threads than on the third day", || {
            let now = Usage::now();
            now.descriptors <= early.descriptors && now.threads <= early.threads
        });
        let median = |last: usize| {
            let mut window = memories[last - WINDOW * 8..last].to_vec();
            window.sort_unstable();
            window[window.len() / 2] >> 10
        };
        let (settled, now) = (median(SETTLED * 8), median(memories.len()));
        println!("memory: {settled} KiB until day {SETTLED}, {now} KiB at the end");
        assert!(now < settled + GROWTH, "the memory has grown from {settled} to {now} KiB");
    }

    /// The number of times that each fault has had an effect.
    fn effects(&self) -> BTreeMap<Effect, usize> {
        let mut effects = self.effects.counts();
        effects.insert(Effect::Unavailable, self.registry.answers(503));
        effects.insert(Effect::PasswordRejected, self.registry.rejected_passwords());
        effects.insert(Effect::TokenRejected, self.registry.rejected_tokens());
        effects
    }

    /// Asserts that each kind of fault has had an effect since the first ones were caused.
    fn check_effects(&self, before: &BTreeMap<Effect, usize>) {
        let now = self.effects();
        println!("effects: {now:?}");
        for effect in Effect::ALL {
            assert!(now.get(&effect) > before.get(&effect), "{effect:?}: none since {before:?}");
        }
    }

    /// Causes a fault. Returns its duration.
    fn break_something(&self, fault: Fault) -> Duration {
        let duration = match fault {
            Fault::Down(left, duration) => {
                let left = usize::try_from(left).unwrap();
                self.registry.behave(|behaviour| behaviour.limits_requests = Some(left));
                duration
            }
            Fault::PasswordRotated => {
                self.log_in(USERS[1], USERS[0]);
                HOUR * 6
            }
            Fault::Jump(machine, seconds) => {
                self.machines[machine].offset.fetch_add(seconds, Ordering::SeqCst);
                HOUR
            }
            Fault::DiskFull => {
                // There has to be something to write.
                self.change();
                limit_files(Some(NEARLY_FULL));
                HOUR * 9
            }
            Fault::TagDeleted => {
                self.delete_tag();
                STEP + EXPORTED
            }
            Fault::KilledAsleep(machine) => {
                self.machines[machine].killed.store(true, Ordering::SeqCst);
                HOUR
            }
            Fault::KilledInRun(machine) => {
                self.machines[machine].doomed.store(true, Ordering::SeqCst);
                DAY / 2
            }
        };
        let now = self.timeline.elapsed();
        self.faults.lock().unwrap().push((now, now + duration));
        duration
    }

    /// Deletes the tag, if it is there.
    fn delete_tag(&self) {
        if self.registry.stored_tags("data").iter().any(|tag| tag == "latest") {
            let removal = self.registry.location("data", "latest").removal(&self.access(0)).unwrap();
            removal.remove(true).unwrap();
        }
    }

    /// Ends all faults. A clock that has jumped stays.
    fn mend(&self) {
        self.registry.behave(|behaviour| behaviour.limits_requests = None);
        self.log_in(USERS[1], USERS[1]);
        limit_files(None);
    }

    /// Checks that changes have arrived, if nothing was broken lately. Returns whether that is so.
    fn check(&self) -> bool {
        let now = self.timeline.elapsed();
        if now < EXPORTED + FOLLOWED || !self.is_quiet(now - EXPORTED - FOLLOWED, now) {
            return false;
        }
        let truth = self.truth.lock().unwrap();
        let due = truth.iter().rposition(|(time, _)| *time <= now - EXPORTED).unwrap();
        drop(truth);
        let exports = self.exports.lock().unwrap();
        let exported = exports.last().unwrap().version;
        assert!(due <= exported, "version {due} at {now:?}, and only {exported} is exported");
        let followed = exports.iter().rev().find(|export| export.time <= now - FOLLOWED).unwrap().version;
        drop(exports);
        for machine in 2..5 {
            let target = self.target(machine);
            let tree = read(&if machine == 2 { target } else { target.join("current") }).unwrap();
            let version = self.whole(&tree);
            assert!(
                (followed..=exported).contains(&version),
                "{machine}: {version}, not {followed} at {now:?}"
            );
        }
        true
    }

    fn check_end(&self) {
        let exports = self.exports.lock().unwrap();
        let last = exports.last().unwrap();
        assert_eq!(last.version, self.version());
        assert!(exports.len() > 50 && self.prunes.load(Ordering::SeqCst) > 90);
        let mut tags = self.registry.stored_tags("data").into_iter().collect::<BTreeSet<_>>();
        assert!(tags.remove("latest"));
        assert_eq!(tags, *self.kept.lock().unwrap());
        let mut due = 0;
        let diaries: Vec<String> = (0..5).map(|machine| self.diary(machine)).collect();
        for (number, export) in exports.iter().enumerate() {
            let until = export.time + FOLLOWED;
            let is_replaced = exports.get(number + 1).is_some_and(|next| next.time <= until);
            if is_replaced || !self.is_quiet(export.time, until) {
                continue;
            }
            due += 1;
            for diary in &diaries[2..] {
                let line = format!("on-change {}", export.version);
                assert!(diary.lines().any(|other| other == line), "{line} is not in {diary}");
            }
        }
        assert!(due > 20, "{due} images in quiet times");
        for (machine, diary) in diaries.iter().enumerate().skip(1) {
            let mut lines = diary.lines().filter(|line| !line.starts_with("on-change"));
            while let Some(before) = lines.next() {
                assert_eq!(before, "before", "{diary}");
                assert!(lines.next().is_some_and(|after| after.starts_with("after")), "{diary}");
            }
            let killed = self.machines[machine].killed_in_runs.load(Ordering::SeqCst);
            assert!(killed > 0 && diary.matches("after killed").count() == killed, "{killed}: {diary}");
        }
        let runs = |diary: &str| diary.lines().filter(|line| *line == "before").count();
        assert!(runs(&diaries[1]) >= exports.len(), "{}", diaries[1]);
        assert!(diaries[2..].iter().all(|diary| runs(diary) > due), "{diaries:?}");
        drop(exports);
        self.check_tags();
        self.check_leftovers();
    }

    /// Each dated tag that is left means a whole version.
    fn check_tags(&self) {
        let exports = self.exports.lock().unwrap();
        for snapshot in self.snapshots.lock().unwrap().iter() {
            let target = self.path("restored");
            let source = self.registry.location("data", &snapshot.tag).source(&self.access(1)).unwrap();
            unpack::unpack(&*source, &target, &unpack::Options::default(), &Silent).unwrap();
            let version = self.whole(&read(&target).unwrap());
            let export = exports.iter().find(|export| export.digest == snapshot.digest).unwrap();
            assert_eq!(version, export.version);
            fs::remove_dir_all(target).unwrap();
        }
    }

    /// Nothing but the data and what is documented is left.
    fn check_leftovers(&self) {
        let names = |path: &Path| -> BTreeSet<String> {
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names(&self.path("tmp")), BTreeSet::new());
        for machine in 1..5 {
            let jobs = names(&self.path(&format!("state-{machine}/jobs")));
            assert!(jobs.len() == 1 && jobs.iter().all(|name| name.ends_with(".json")), "{jobs:?}");
        }
        for (machine, versions) in [(3, 2), (4, 1)] {
            let found = names(&self.target(machine));
            assert_eq!(found.len(), versions + 2, "{found:?}");
            assert!(found.contains(".volio.watch") && found.contains("current"), "{found:?}");
            assert!(found.contains(&version_name(&self.digest_of_last().unwrap())), "{found:?}");
        }
        for machine in 2..5 {
            assert_eq!(names(&self.target(machine).join(".volio.watch")), ["note.json".to_owned()].into());
        }
    }
}
