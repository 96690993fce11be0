//! The hooks that decide about a version, and that are told of one.

use super::{Lab, PERIOD};
use crate::service::clock::SimulatedClock;
use crate::service::eventually;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use volio::service::Hooks;

/// git-sync#481: the order of two kinds of hooks was not defined.
#[test]
fn the_hooks_of_a_version_run_in_one_order_and_only_for_a_new_one() {
    let lab = Lab::new();
    lab.push("1");
    let around = |event| Some(lab.hook(event, ""));
    let mut run = lab.run(20).with(|options| {
        options.before_publish =
            Some(lab.hook("before-publish", "test ! -e ../current || cat ../current/version >>../../diary"));
        options.on_change =
            Some(lab.hook("on-change", "cat ../current/version >>../../diary; echo >>../../diary"));
    });
    run.hooks = Hooks { before: around("before"), after: around("after"), on_error: around("on-error") };
    run.before_poll(5, |lab| _ = lab.push("2")).go().unwrap();
    // What is printed besides the event is what the link names.
    let expected = "before\nbefore-publish 1\nafter\non-change 1\n1\n\
                    before\nbefore-publish 2\n1after\non-change 2\n2\n";
    assert_eq!(lab.diary(), expected);
}

/// git-sync, pre-publish hooks: bad data was published and then noticed.
#[test]
fn a_version_that_is_rejected_is_not_published_and_not_fetched_again() {
    let lab = Lab::new();
    lab.push("1");
    let check = |options: &mut volio::service::watch::WatchOptions, lab: &Lab, bad: &str| {
        options.before_publish = Some(lab.hook("before-publish", &format!("test $(cat version) != {bad}")));
    };
    let fetched = Arc::new(AtomicUsize::new(0));
    let (count, again) = (Arc::clone(&fetched), Arc::clone(&fetched));
    let run = lab.run(40).with(|options| check(options, &lab, "2"));
    let run = run.before_poll(1, |lab| _ = lab.push("2"));
    let run = run.before_poll(5, move |lab| {
        assert_eq!(lab.published("current"), "1");
        assert_eq!(fs::read_dir(lab.at("target")).unwrap().count(), 3, "it was removed");
        count.store(lab.requests().1, Ordering::SeqCst);
    });
    let run = run.before_poll(20, move |lab| {
        assert_eq!(lab.requests().1, again.load(Ordering::SeqCst));
        lab.push("3");
    });
    run.go().unwrap();
    assert_eq!(lab.published("current"), "3");
    assert_eq!(lab.diary().matches("before-publish 2").count(), 1, "{}", lab.diary());

    // A restart does not ask again, but another command is asked.
    lab.push("2");
    let refused = || lab.diary().matches("before-publish 2").count();
    for _ in 0..2 {
        lab.run(3).with(|options| check(options, &lab, "2")).go().unwrap();
        assert_eq!((lab.published("current").as_str(), refused()), ("3", 1));
    }
    lab.run(3).with(|options| check(options, &lab, "4")).go().unwrap();
    assert_eq!(lab.published("current"), "2");
}

/// git-sync#935 and k8up#370
#[test]
fn a_hook_that_always_fails_is_given_up_for_this_version_and_tried_for_the_next() {
    let lab = Lab::new();
    lab.push("1");
    let run = lab.run(600).with(|options| {
        options.on_change = Some(lab.hook("on-change", "test $(cat version) != 1"));
        options.on_change_attempts = 5;
    });
    let run =
        run.before_poll(1, |lab| assert_eq!(lab.published("current"), "1", "it is published nevertheless"));
    let run = run.before_poll(500, |lab| {
        assert_eq!(lab.diary(), "on-change 1\n".repeat(5));
        lab.push("2");
    });
    run.go().unwrap();
    assert_eq!(lab.diary(), "on-change 1\n".repeat(5) + "on-change 2\n");
    let failures = lab.log().all().iter().filter(|line| line.contains("--on-change")).count();
    assert_eq!(failures, 2, "the first failure, and the end: {:?}", lab.log().all());
}

/// git-sync#313 and git-sync#750: the hook was lost when the process died between the publication and the hook.
#[test]
fn a_hook_that_has_not_succeeded_runs_at_the_next_start_and_one_that_has_does_not() {
    let lab = Lab::new();
    lab.push("1");
    lab.run(3).go().unwrap();
    let run =
        |then: &'static str| lab.run(3).with(|options| options.on_change = Some(lab.hook("on-change", then)));
    // The registry is not needed for that.
    lab.registry().behave(|behaviour| behaviour.limits_requests = Some(0));
    run("").go().unwrap();
    assert_eq!(lab.diary(), "on-change 1\n");
    run("").go().unwrap();
    assert_eq!(lab.diary(), "on-change 1\n", "it has succeeded");
    run("true").go().unwrap();
    assert_eq!(lab.diary(), "on-change 1\non-change 1\n", "another command");
}

#[test]
fn a_hook_that_fails_at_first_is_tried_again_soon() {
    let lab = Lab::new();
    lab.push("1");
    let counted = lab.at("count").display().to_string();
    let then = format!("echo >>{counted}; test $(wc -l <{counted}) -ge 3");
    let run = lab.run(10).with(|options| options.on_change = Some(lab.hook("on-change", &then)));
    run.after(Duration::from_secs(15), |lab| assert_eq!(lab.diary(), "on-change 1\n".repeat(3)))
        .go()
        .unwrap();
    assert_eq!(lab.diary(), "on-change 1\n".repeat(3));
    assert!(PERIOD < Duration::from_secs(15));
}

#[test]
fn a_watch_is_healthy_during_a_hook_that_takes_longer_than_a_silence_may() {
    let lab = Lab::new();
    lab.push("1");
    lab.0.status.allow_for_hooks(Duration::from_secs(3600));
    let going = lab.at("go").display().to_string();
    let hook = lab.hook("on-change", &format!("while ! test -e {going}; do sleep 0.01; done"));
    let looking = lab.clone();
    let looks = std::thread::spawn(move || {
        eventually("the hook runs", || looking.diary() == "on-change 1\n");
        let later = SimulatedClock::at("2026-06-01T12:00:00Z");
        later.pass(Duration::from_secs(1800));
        let complaint = looking.0.status.complaint(&later);
        fs::write(looking.at("go"), "").unwrap();
        complaint
    });
    lab.run(3).with(|options| options.on_change = Some(hook)).go().unwrap();
    assert_eq!(looks.join().unwrap(), None);
}

#[test]
fn one_failure_is_not_called_failures() {
    let lab = Lab::new();
    let run = lab.run(20).before_poll(1, |lab| _ = lab.push("1"));
    run.with(|options| {
        options.on_change = Some(lab.hook("on-change", "false"));
        options.on_change_attempts = 1;
    })
    .go()
    .unwrap();
    for part in ["again, after 1 failure", "has failed 1 time,"] {
        let lines = lab.log().all();
        assert!(lines.iter().any(|line| line.contains(part) && !line.contains("1 failures")), "{lines:?}");
    }
}
