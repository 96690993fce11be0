//! Runs by a schedule, with a clock that passes quickly and jumps.

use super::clock::SimulatedClock;
use super::{Lines, RealClock, eventually, log};
use std::ffi::OsStr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use volio::error::Kind;
use volio::service::{
    AtEnd, Change, Clock, Done, HookContext, Hooks, JobState, Runner, Schedule, Scheduled, Status, Stopped,
    Zone,
};
use volio::{CancelToken, Error, Result};

const HOUR: Duration = Duration::from_secs(3600);

pub fn done() -> Result<Done> {
    let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    Ok(Done { digest, bytes: 7, change: Change::Changed, size: None })
}

/// A service that is not started yet.
struct Place {
    clock: Arc<SimulatedClock>,
    log: Arc<Lines>,
    scheduled: Scheduled,
}

impl Place {
    fn new(clock: SimulatedClock, schedule: Schedule) -> Self {
        let (clock, log) = (Arc::new(clock), log());
        let scheduled = scheduled(clock.clone(), log.clone(), schedule);
        Self { clock, log, scheduled }
    }

    fn every(clock: SimulatedClock, period: Duration) -> Self {
        Self::new(clock, Schedule::every(period).unwrap())
    }

    fn cron(clock: SimulatedClock, line: &str, zone: &str) -> Self {
        let zone = Zone::find(Some(OsStr::new(zone))).unwrap();
        let schedule = Schedule::cron(line, zone.clone(), clock.now()).unwrap();
        let mut place = Self::new(clock, schedule);
        place.scheduled.zone = zone;
        place
    }

    /// Serves so many runs. `work` gets the number of the run and the clock. Returns when each began.
    fn runs(
        &self,
        count: usize,
        state: Option<JobState>,
        work: impl Fn(usize, &SimulatedClock) -> Result<Done> + Send + Sync + 'static,
    ) -> (Vec<String>, Result<Stopped>) {
        let times = Arc::new(Mutex::new(Vec::new()));
        let end = CancelToken::default();
        let (clock, begun, token) = (Arc::clone(&self.clock), Arc::clone(&times), end.clone());
        let outcome = self.scheduled.serve(state, &end, move |_| {
            let mut begun = begun.lock().unwrap();
            begun.push(clock.text());
            let outcome = work(begun.len() - 1, &clock);
            if begun.len() == count {
                token.cancel();
            }
            outcome
        });
        let times = times.lock().unwrap().clone();
        (times, outcome)
    }

    fn state(&self, directory: &tempfile::TempDir) -> Option<JobState> {
        let cancel = CancelToken::default();
        Some(JobState::open(directory.path(), "pack x", &*self.clock, &*self.log, &cancel).unwrap())
    }
}

fn scheduled(clock: Arc<dyn Clock>, log: Arc<Lines>, schedule: Schedule) -> Scheduled {
    Scheduled {
        runner: Runner {
            hooks: Hooks::default(),
            context: HookContext { environment: std::env::vars_os().collect(), log },
            image: "registry.example/data:v1".to_owned(),
            clock,
        },
        schedule,
        zone: Zone::find(Some(OsStr::new("UTC"))).unwrap(),
        jitter: Duration::ZERO,
        at_end: AtEnd::Stop,
        max_failures: None,
        status: Arc::new(Status::default()),
    }
}

fn noon() -> SimulatedClock {
    SimulatedClock::at("2026-06-01T12:00:00Z")
}

#[test]
fn a_period_begins_at_once_and_runs_that_were_missed_become_one() {
    let place = Place::every(noon(), HOUR);
    let (times, outcome) = place.runs(5, None, |number, clock| {
        if number == 1 {
            clock.pass(HOUR * 7 / 2);
        }
        done()
    });
    assert_eq!(outcome.unwrap(), Stopped::Idle);
    // The second run takes three and a half hours; the schedule is where it was.
    let expected = ["06-01 12:00:00", "06-01 13:00:00", "06-01 16:30:00", "06-01 17:00:00", "06-01 18:00:00"];
    assert_eq!(times, expected);
}

#[test]
fn a_period_does_not_depend_on_the_time_of_day() {
    for jump in [86_400 * 365, -86_400 * 365] {
        let place = Place::every(noon().jump(Duration::from_secs(1800), jump), HOUR);
        let clock = Arc::clone(&place.clock);
        place.runs(3, None, |_, _| done()).1.unwrap();
        assert_eq!(clock.elapsed(), 2 * HOUR);
    }
}

#[test]
fn a_restart_continues_the_schedule_of_the_last_success() {
    let directory = tempfile::tempdir().unwrap();
    let first = Place::every(noon(), 6 * HOUR);
    first.runs(1, first.state(&directory), |_, _| done()).1.unwrap();
    let second = Place::every(SimulatedClock::at("2026-06-01T14:00:00Z"), 6 * HOUR);
    let (times, _) = second.runs(2, second.state(&directory), |_, _| done());
    assert_eq!(times, ["06-01 18:00:00", "06-02 00:00:00"]);
    assert!(second.log.has("next run: 2026-06-01 18:00:00 +00:00"));
    // It was down for longer than that.
    let third = Place::every(SimulatedClock::at("2026-06-03T14:00:00Z"), 6 * HOUR);
    assert_eq!(third.runs(1, third.state(&directory), |_, _| done()).0, ["06-03 14:00:00"]);
    // The clock was wrong at the last success.
    let fourth = Place::every(SimulatedClock::at("2026-06-01T00:00:00Z"), 6 * HOUR);
    assert_eq!(fourth.runs(1, fourth.state(&directory), |_, _| done()).0, ["06-01 00:00:00"]);
}

#[test]
fn a_line_of_cron_that_was_missed_while_nothing_ran_is_run_once_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let first = Place::cron(noon(), "0 2 * * *", "UTC");
    let (times, _) = first.runs(1, first.state(&directory), |_, _| done());
    assert_eq!(times, ["06-02 02:00:00"]);
    let second = Place::cron(SimulatedClock::at("2026-06-09T14:00:00Z"), "0 2 * * *", "UTC");
    let (times, _) = second.runs(2, second.state(&directory), |_, _| done());
    assert_eq!(times, ["06-09 14:00:00", "06-10 02:00:00"]);
}

#[test]
fn a_clock_that_is_put_forward_runs_once_for_all_that_it_has_skipped() {
    let place = Place::cron(noon().jump(HOUR / 2, 86_400 * 3), "0 * * * *", "UTC");
    let (times, _) = place.runs(2, None, |_, _| done());
    assert_eq!(times.len(), 2);
    assert!(times[0].starts_with("06-04 12:30"), "{times:?}");
    assert_eq!(times[1], "06-04 13:00:00");
}

#[test]
fn a_clock_that_is_put_back_a_little_repeats_nothing_and_far_back_begins_again() {
    // Two minutes back, right after the run of 13:00.
    let place = Place::cron(noon().jump(HOUR + Duration::from_secs(1), -120), "0 * * * *", "UTC");
    let (times, _) = place.runs(2, None, |_, clock| {
        clock.pass(Duration::from_secs(2));
        done()
    });
    assert_eq!(times, ["06-01 13:00:00", "06-01 14:00:00"]);
    // Ten days back: the next time is tomorrow's, and not that in eleven days.
    let place = Place::cron(noon().jump(HOUR, -86_400 * 10), "0 2 * * *", "UTC");
    let (times, _) = place.runs(1, None, |_, _| done());
    assert_eq!(times, ["05-23 02:00:00"]);
    assert!(place.log.has("the clock was set back; next run: 2026-05-23 02:00:00 +00:00"));
}

#[test]
fn the_next_run_is_shown_with_its_offset_in_summer_and_winter() {
    for (now, next) in
        [("2026-07-01T00:00:00Z", "03:00:00 +02:00"), ("2026-12-01T00:00:00Z", "03:00:00 +01:00")]
    {
        let place = Place::cron(SimulatedClock::at(now), "0 3 * * *", "Europe/Berlin");
        place.runs(1, None, |_, _| done()).1.unwrap();
        assert!(place.log.has(next), "{:?}", place.log.all());
    }
}

#[test]
fn a_registry_that_is_down_for_a_day_is_tried_less_and_less_often_and_said_once() {
    let place = Place::cron(SimulatedClock::at("2026-06-01T23:59:00Z"), "@daily", "UTC");
    let day = Duration::from_secs(86_400 - 1800);
    let (times, outcome) = place.runs(30, None, move |number, clock| {
        if clock.elapsed() < day {
            return Err(Error::failed("the registry is down"));
        }
        assert!(number > 20);
        done()
    });
    outcome.unwrap();
    let hours: Vec<&str> = times[..8].iter().map(|time| &time[6..11]).collect();
    assert_eq!(hours, ["00:00", "00:01", "00:03", "00:07", "00:15", "00:31", "01:03", "02:03"]);
    let runs = place.log.all().into_iter().filter(|line| line.starts_with("run: ")).collect::<Vec<_>>();
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!(runs[0], "run: the registry is down");
    assert!(runs[1].starts_with("run: successful again, after "), "{runs:?}");
    // After the success the schedule counts again.
    assert!(times[29].ends_with("00:00:00"), "{times:?}");
}

#[test]
fn a_service_ends_with_the_last_of_too_many_failures_and_with_a_mistake_at_once() {
    let mut place = Place::every(noon(), HOUR);
    place.scheduled.max_failures = Some(3);
    let (times, outcome) = place.runs(9, None, |_, _| Err(Error::denied("no")));
    assert_eq!((times.len(), outcome.unwrap_err().kind()), (3, Kind::Denied));
    let place = Place::every(noon(), HOUR);
    let (times, outcome) = place.runs(9, None, |_, _| Err(Error::usage("a mistake")));
    assert_eq!((times.len(), outcome.unwrap_err().kind()), (1, Kind::Usage));
}

#[test]
fn jitter_delays_each_run_and_does_not_move_the_schedule() {
    let mut place = Place::every(noon(), HOUR);
    place.scheduled.jitter = HOUR / 6;
    let (times, _) = place.runs(20, None, |_, _| done());
    assert!(times[1..].iter().all(|time| &time[9..10] == "0"), "within ten minutes: {times:?}");
    assert!(times[1..].iter().any(|time| !time.ends_with("00:00")), "{times:?}");
    assert_eq!(&times[19][..8], "06-02 07");
}

#[test]
fn a_run_begins_only_after_the_one_before_has_ended() {
    let place = Place::every(noon(), Duration::from_secs(1));
    let running = Arc::new(Mutex::new(()));
    let (times, _) = place.runs(50, None, move |_, clock| {
        let alone = running.try_lock().expect("two runs at once");
        clock.pass(Duration::from_millis(2500));
        drop(alone);
        done()
    });
    assert_eq!(times.len(), 50);
}

#[test]
fn a_last_run_begins_at_the_end_and_one_that_takes_too_long_is_interrupted_within_the_grace() {
    for (takes, expected) in
        [(Duration::ZERO, Stopped::Idle), (Duration::from_secs(600), Stopped::Interrupted)]
    {
        let log = log();
        let mut scheduled =
            scheduled(Arc::new(RealClock::default()), log.clone(), Schedule::every(HOUR).unwrap());
        scheduled.at_end = AtEnd::RunOnce(Duration::from_secs(2));
        let (end, count) = (CancelToken::default(), Arc::new(Mutex::new(0)));
        let runs = Arc::clone(&count);
        let begun = thread::scope(|scope| {
            let service = scope.spawn(|| {
                scheduled.serve(None, &end, move |cancel| {
                    *runs.lock().unwrap() += 1;
                    if *runs.lock().unwrap() == 2 {
                        cancel.sleep(takes)?;
                    }
                    done()
                })
            });
            eventually("the first run has ended", || scheduled.status.is_ready());
            let begun = Instant::now();
            end.cancel();
            assert_eq!(service.join().unwrap().unwrap(), expected);
            begun
        });
        assert_eq!(*count.lock().unwrap(), 2);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(log.has("the last run was interrupted"), expected == Stopped::Interrupted);
    }
}

#[test]
fn a_last_run_has_its_time_if_the_end_is_seen_before_the_time_of_the_end_is_noted() {
    // As that of the program, the clock counts from the start of the machine.
    let clock = RealClock(Instant::now() - HOUR);
    let mut scheduled = scheduled(Arc::new(clock), log(), Schedule::every(HOUR).unwrap());
    scheduled.at_end = AtEnd::RunOnce(Duration::from_secs(5));
    let (end, ended, count) = (CancelToken::default(), CancelToken::default(), Arc::new(Mutex::new(0)));
    // What is to happen at the end happens in this order, so that this delays the note.
    let delay = ended.clone();
    end.on_cancel(move || drop(delay.sleep(Duration::from_secs(60))));
    let runs = Arc::clone(&count);
    thread::scope(|scope| {
        let service = scope.spawn(|| {
            let stopped = scheduled.serve(None, &end, move |_| {
                *runs.lock().unwrap() += 1;
                done()
            });
            ended.cancel();
            stopped
        });
        eventually("the first run has ended", || scheduled.status.is_ready());
        end.cancel();
        assert_eq!(service.join().unwrap().unwrap(), Stopped::Idle);
    });
    assert_eq!(*count.lock().unwrap(), 2);
}

#[test]
fn a_wait_ends_within_a_second_of_the_signal() {
    let scheduled = scheduled(Arc::new(RealClock::default()), log(), Schedule::every(HOUR).unwrap());
    let end = CancelToken::default();
    thread::scope(|scope| {
        let service = scope.spawn(|| scheduled.serve(None, &end, |_| done()));
        eventually("the first run has ended", || scheduled.status.is_ready());
        let begun = Instant::now();
        end.cancel();
        assert_eq!(service.join().unwrap().unwrap(), Stopped::Idle);
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
}
