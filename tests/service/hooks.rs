//! Hooks around a run, with real commands.

use super::{Lines, RealClock, eventually, log};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};
use volio::error::Kind;
use volio::service::{Change, Done, Hook, HookContext, Hooks, JobState, Report, Runner};
use volio::{CancelToken, Error, Result};

const LONG: Duration = Duration::from_secs(600);

fn hook(event: &'static str, command: &str) -> Hook {
    Hook::new(event, OsStr::new(command), LONG).unwrap()
}

/// A directory in which hooks write what they do to a file `diary`.
struct Place {
    directory: tempfile::TempDir,
    log: Arc<Lines>,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), log: log() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A hook that writes its event and result, and then does something else.
    fn note(&self, event: &'static str, then: &str) -> Option<Hook> {
        let diary = self.path().join("diary");
        let line = format!("echo $VOLIO_EVENT $VOLIO_RESULT $VOLIO_ERROR >>{}; {then}", diary.display());
        Some(hook(event, &line))
    }

    fn diary(&self) -> String {
        fs::read_to_string(self.path().join("diary")).unwrap_or_default()
    }

    fn runner(&self, hooks: Hooks) -> Runner {
        let environment = std::env::vars_os().chain([("VOLIO_PASSWORD".into(), "hunter2".into())]).collect();
        Runner {
            hooks,
            context: HookContext { environment, log: self.log.clone() },
            image: "registry.example/data:v1".to_owned(),
            clock: Arc::new(RealClock::default()),
        }
    }

    fn all(&self) -> Hooks {
        Hooks {
            before: self.note("before", ""),
            after: self.note("after", ""),
            on_error: self.note("on-error", ""),
        }
    }

    fn state(&self) -> Result<JobState> {
        let cancel = CancelToken::default();
        JobState::open(
            self.path(),
            "pack registry.example/data:v1",
            &RealClock::default(),
            &*self.log,
            &cancel,
        )
    }
}

fn done() -> Result<Done> {
    let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    Ok(Done { digest, bytes: 7, change: Change::Changed, size: None })
}

fn run(runner: &Runner, work: impl FnOnce(&CancelToken) -> Result<Done> + Send + 'static) -> Report {
    runner.run(None, &CancelToken::default(), work)
}

#[test]
fn hooks_run_in_their_order_and_know_the_result() {
    let place = Place::new();
    let runner = place.runner(place.all());
    assert!(run(&runner, |_| done()).into_result().is_ok());
    assert_eq!(place.diary(), "before\nafter success\n");
    fs::write(place.path().join("diary"), "").unwrap();
    let report = run(&runner, |_| Err(Error::refused("the source is empty")));
    assert_eq!(report.into_result().unwrap_err().kind(), Kind::Refused);
    assert_eq!(
        place.diary(),
        "before\non-error failed the source is empty\nafter failed the source is empty\n"
    );
}

#[test]
fn a_before_that_fails_prevents_the_work_and_after_runs_still() {
    let place = Place::new();
    let runner = place.runner(Hooks { before: place.note("before", "echo locked; exit 3"), ..place.all() });
    let worked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&worked);
    let report = run(&runner, move |_| {
        flag.store(true, Ordering::SeqCst);
        done()
    });
    assert!(!worked.load(Ordering::SeqCst));
    assert_eq!(report.hook_error.as_ref().unwrap().to_string(), "--before failed: exit status 3: locked");
    assert!(report.into_result().is_err());
    let failed = "failed --before failed: exit status 3: locked";
    assert_eq!(place.diary(), format!("before\non-error {failed}\nafter {failed}\n"));
    assert!(place.log.has("hook: before: locked"));
}

#[test]
fn an_after_that_fails_is_an_error_although_the_work_is_done() {
    let place = Place::new();
    let runner = place.runner(Hooks { after: place.note("after", "exit 1"), ..Hooks::default() });
    let report = run(&runner, |_| done());
    assert!(report.outcome.is_ok());
    let error = report.into_result().unwrap_err().to_string();
    assert!(error.contains("the work is done") && error.contains("--after failed: exit status 1"), "{error}");
}

#[test]
fn after_runs_after_a_panic() {
    let place = Place::new();
    let report = run(&place.runner(place.all()), |_| panic!("for the test"));
    let error = report.into_result().unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
    assert!(place.diary().ends_with(&format!("after failed {error}\n")), "{}", place.diary());
}

#[test]
fn a_hook_that_hangs_is_ended_with_its_forks_and_after_runs() {
    let place = Place::new();
    let pids = place.path().join("pids");
    let script = format!("trap '' TERM; sleep 1000 & echo $! $$ >{}; wait; sleep 1000", pids.display());
    let before = Hook::new("before", OsStr::new(&script), Duration::from_millis(500)).unwrap();
    let runner = place.runner(Hooks { before: Some(before), ..place.all() });
    let error = run(&runner, |_| done()).into_result().unwrap_err();
    assert!(error.to_string().contains("did not end within 0.5 s"), "{error}");
    assert!(error.hint().is_none() || error.hint().unwrap().contains("--hook-timeout"));
    assert!(place.diary().contains("after failed"), "{}", place.diary());
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        eventually("the processes of the hook have ended", || {
            fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
    }
}

#[test]
fn an_interruption_ends_work_that_does_not_look_at_it_and_after_runs() {
    let place = Place::new();
    let runner = place.runner(place.all());
    let cancel = CancelToken::default();
    let begun = Instant::now();
    let (token, working) = (cancel.clone(), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&working);
    let report = thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the work has begun", || working.load(Ordering::SeqCst));
            token.cancel();
        });
        runner.run(None, &cancel, move |_| {
            flag.store(true, Ordering::SeqCst);
            thread::sleep(LONG);
            done()
        })
    });
    assert!(report.interrupted && begun.elapsed() < Duration::from_secs(60));
    // An interruption is not an alarm.
    assert_eq!(place.diary(), "before\nafter interrupted interrupted\n");
}

#[test]
fn an_interruption_ends_a_before_that_is_running() {
    let place = Place::new();
    let cancel = CancelToken::default();
    let runner = place.runner(Hooks { before: place.note("before", "sleep 1000"), ..place.all() });
    let report = thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the hook has begun", || !place.diary().is_empty());
            cancel.cancel();
        });
        runner.run(None, &cancel, |_| done())
    });
    assert!(report.interrupted);
    assert!(place.diary().contains("after interrupted"), "{}", place.diary());
}

#[test]
fn the_variables_of_a_hook_have_no_options_of_volio() {
    let place = Place::new();
    let out = place.path().join("out");
    let after = hook("after", &format!("env >{}", out.display()));
    let runner = place.runner(Hooks { after: Some(after), ..Hooks::default() });
    run(&runner, |_| done()).into_result().unwrap();
    let environment = fs::read_to_string(out).unwrap();
    assert!(!environment.contains("hunter2"));
    let mut own: Vec<&str> = environment.lines().filter(|line| line.starts_with("VOLIO_")).collect();
    own.sort_unstable();
    let names: Vec<&str> = own.iter().map(|line| line.split_once('=').unwrap().0).collect();
    assert_eq!(
        names,
        ["VOLIO_BYTES", "VOLIO_DIGEST", "VOLIO_EVENT", "VOLIO_IMAGE", "VOLIO_RESULT", "VOLIO_SECONDS"]
    );
    assert!(own.contains(&"VOLIO_BYTES=7") && own.contains(&"VOLIO_IMAGE=registry.example/data:v1"));
    assert!(names.iter().all(|name| volio::service::VARIABLES.iter().any(|(known, _)| known == name)));
}

#[test]
fn the_output_of_a_hook_is_logged_line_by_line_and_limited() {
    let place = Place::new();
    let noise = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; head -c 100000 /dev/zero | tr '\\0' x";
    let runner = place.runner(Hooks { before: Some(hook("before", noise)), ..Hooks::default() });
    run(&runner, |_| done()).into_result().unwrap();
    let lines = place.log.all();
    assert_eq!(lines.len(), 1001);
    assert_eq!((lines[0].as_str(), lines[999].as_str()), ("hook: before: line 0", "hook: before: line 999"));
    assert_eq!(lines[1000], "hook: before: 2001 more lines are not shown");
    // A long line is cut.
    let place = Place::new();
    let long = Some(hook("before", "head -c 100000 /dev/zero | tr '\\0' x"));
    run(&place.runner(Hooks { before: long, ..Hooks::default() }), |_| done()).into_result().unwrap();
    assert!(place.log.all()[0].len() < 5000);
}

#[test]
fn a_hook_is_a_command_line_or_an_array_of_words() {
    let place = Place::new();
    for command in [r#"["touch", "two words"]"#, "touch 'two words'"] {
        let file = place.path().join("two words");
        let hook = hook("on-change", command);
        let runner = place.runner(Hooks::default());
        let cancel = CancelToken::default();
        hook.run(&Default::default(), Some(place.path()), &runner.context, &cancel).unwrap();
        fs::remove_file(file).unwrap();
    }
    for wrong in ["", " ", r#"["#.repeat(2).as_str(), r#"["", "x"]"#, r#"["a", 1]"#, "a\0b"] {
        match Hook::new("before", OsStr::new(wrong), LONG) {
            // A shell will say what is wrong.
            Ok(_) => assert_eq!(wrong, "[["),
            Err(error) => assert_eq!(error.kind(), Kind::Usage),
        }
    }
}

#[test]
fn a_run_that_was_killed_is_noted_and_its_after_runs_at_the_next_start() {
    let place = Place::new();
    let runner = place.runner(place.all());
    let mut state = place.state().unwrap();
    assert!(!state.was_killed() && state.last_success().is_none());
    assert!(runner.recover(Some(&mut state)).is_none() && place.diary().is_empty());
    // As if the process was killed here.
    state.begin(std::time::SystemTime::now()).unwrap();
    drop(state);
    let mut state = place.state().unwrap();
    assert!(state.was_killed());
    assert!(runner.recover(Some(&mut state)).is_none());
    assert_eq!(place.diary(), "after killed\n");
    assert!(!state.was_killed());
    let report = runner.run(Some(&mut state), &CancelToken::default(), |_| done());
    assert!(report.into_result().is_ok() && !state.was_killed() && state.last_success().is_some());
    drop(state);
    assert!(place.state().unwrap().last_success().is_some());
}

#[test]
fn an_after_that_fails_is_due_at_the_next_start() {
    let place = Place::new();
    let mut state = place.state().unwrap();
    let broken = place.runner(Hooks { after: place.note("after", "exit 1"), ..Hooks::default() });
    let report = broken.run(Some(&mut state), &CancelToken::default(), |_| done());
    assert!(report.outcome.is_ok() && state.was_killed() && state.last_success().is_some());
    assert!(broken.recover(Some(&mut state)).is_some() && state.was_killed());
    let mended = place.runner(place.all());
    assert!(mended.recover(Some(&mut state)).is_none() && !state.was_killed());
    assert_eq!(place.diary(), "after success\nafter killed\nafter killed\n");
}

#[test]
fn an_error_of_any_length_reaches_the_hooks() {
    let place = Place::new();
    let runner = place.runner(place.all());
    run(&runner, |_| Err(Error::failed("ä\0".repeat(1 << 20)))).into_result().unwrap_err();
    assert!(place.diary().contains("after failed ä"), "no --after");
}

#[test]
fn two_processes_with_the_same_job_wait_for_each_other() {
    let place = Place::new();
    let first = place.state().unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| place.state().unwrap());
        eventually("the second waits", || place.log.has("waiting for another volio with the same job"));
        drop(first);
        second.join().unwrap();
    });
}

#[test]
fn no_run_with_an_after_begins_without_its_note() {
    let place = Place::new();
    let mut state = place.state().unwrap();
    fs::remove_dir_all(place.path().join("jobs")).unwrap();
    let report = place.runner(place.all()).run(Some(&mut state), &CancelToken::default(), |_| done());
    let error = report.into_result().unwrap_err().to_string();
    assert!(error.contains("cannot write the state of the job"), "{error}");
    assert_eq!(place.diary(), "");
    // Nothing depends on the note of a run without it.
    let runner = place.runner(Hooks::default());
    assert!(runner.run(Some(&mut state), &CancelToken::default(), |_| done()).into_result().is_ok());
    assert!(place.log.has("cannot write the state of the job"));
}

#[test]
fn a_note_that_is_damaged_is_an_empty_one() {
    let place = Place::new();
    let mut state = place.state().unwrap();
    state.begin(std::time::SystemTime::now()).unwrap();
    drop(state);
    let note = fs::read_dir(place.path().join("jobs")).unwrap().next().unwrap().unwrap().path();
    fs::write(note, "{").unwrap();
    assert!(!place.state().unwrap().was_killed());
    assert!(place.log.has("the note about the last run is lost"));
}
