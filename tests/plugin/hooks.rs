//! Commands before a mount and after an unmount.

use super::Service;
use std::fs;
use std::process::Command;

/// A hook that writes a line for each time it runs.
fn diary(service: &Service) -> String {
    let file = service.path("diary");
    let variables = "$VOLIO_EVENT $VOLIO_NAME $VOLIO_ID $VOLIO_MOUNTS $VOLIO_MOUNTPOINT \"$VOLIO_DIGEST\"";
    format!("sh -c 'echo {variables} >>{}'", file.display())
}

#[test]
fn hooks_run_around_each_mount_and_know_which() {
    let service = Service::start();
    let hook = diary(&service);
    service.create("a", &[("pre-mount", &hook), ("post-unmount", &hook)]);
    for id in ["1", "2"] {
        service.mount("a", id).unwrap();
    }
    for id in ["1", "2"] {
        assert_eq!(service.unmount("a", id).0, 200);
    }
    let at = service.volume("a").display().to_string();
    let lines = fs::read_to_string(service.path("diary")).unwrap();
    let expected: String =
        [("pre-mount", 1, 0), ("pre-mount", 2, 1), ("post-unmount", 1, 1), ("post-unmount", 2, 0)]
            .map(|(event, id, mounts)| format!("{event} a {id} {mounts} {at}\n"))
            .concat();
    // Nothing has filled it, so there is no digest.
    assert_eq!(lines.replace(" \n", "\n"), expected);
}

#[test]
fn a_hook_is_quoted_as_in_a_shell_or_an_array_and_sees_nothing_of_the_plugins_environment() {
    let service = Service::start();
    let out = service.path("out");
    let script = format!("env >{}; printf %s \"$1\" >>{}", out.display(), out.display());
    let array = serde_json::to_string(&["sh", "-c", &script, "sh", "two words"]).unwrap();
    service.create("a", &[("pre-mount", &array)]);
    service.create("b", &[("pre-mount", &format!("sh -c '{script}' sh \"two words\""))]);
    for name in ["a", "b"] {
        service.mount(name, "1").unwrap();
        let seen = fs::read_to_string(&out).unwrap();
        assert!(seen.ends_with("two words"), "{seen}");
        let foreign: Vec<&str> = seen
            .lines()
            .filter(|line| line.contains('='))
            .filter(|line| {
                !["VOLIO_", "PATH=", "PWD=", "_=", "SHLVL="].iter().any(|own| line.starts_with(own))
            })
            .collect();
        assert_eq!(foreign, [""; 0]);
    }
}

#[test]
fn a_hook_that_fails_stops_the_container_with_its_last_words() {
    let service = Service::start();
    let noise =
        "sh -c 'i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo too bad >&2; exit 3'";
    service.create("a", &[("pre-mount", noise)]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.starts_with("pre-mount of the volume a: exit status 3: "), "{error}");
    assert!(error.ends_with("too bad") && error.len() < 5000 && !error.contains("line 1\n"), "{error}");
    let status = service.status("a");
    assert_eq!(status["mounts"], serde_json::json!({}));
    assert!(status["lastError"]["error"].as_str().unwrap().ends_with("too bad"), "{status}");
}

#[test]
fn a_hook_that_was_mended_is_no_last_error_any_more() {
    let service = Service::start();
    let hook = |event: &str| format!("test -e {}", service.path(event).display());
    service.create("a", &[("pre-mount", &hook("ready")), ("post-unmount", &hook("saved"))]);
    service.mount("a", "1").unwrap_err();
    assert_eq!(service.status("a")["lastError"]["doing"], "mounting it");
    std::fs::write(service.path("ready"), "").unwrap();
    service.mount("a", "1").unwrap();
    assert_eq!(service.status("a").get("lastError"), None);
    assert_eq!(service.unmount("a", "1").0, 500);
    service.mount("a", "2").unwrap();
    assert_eq!(service.status("a")["lastError"]["doing"], "unmounting it", "that is another matter");
    std::fs::write(service.path("saved"), "").unwrap();
    assert_eq!(service.unmount("a", "2").0, 200);
    assert_eq!(service.status("a").get("lastError"), None);
}

#[test]
fn nothing_in_an_error_is_obeyed_by_the_terminal_of_who_reads_it() {
    let service = Service::start();
    service.create("b", &[("pre-mount", r#"["sh", "-c", "printf '\\033[2Jone\\n\\ttwo'; exit 1"]"#)]);
    let error = service.mount("b", "1").unwrap_err();
    assert!(error.contains("\\u{1b}[2Jone\n\ttwo") && !error.contains('\u{1b}'), "{error:?}");
    let (_, answer) =
        service.volio("Create", serde_json::json!({"Name": "c", "Opts": {"\u{1b}[2J\u{202e}": "x"}}));
    let error = answer["Err"].as_str().unwrap();
    assert!(!error.contains('\u{1b}') && !error.contains('\u{202e}'), "{error:?}");
}

#[test]
fn a_hook_that_hangs_is_ended_with_its_children_and_a_second_mount_waits_its_turn() {
    let service = Service::start();
    let mark = format!("volio-test-{}", std::process::id());
    let hook = format!("sh -c 'sleep 1000 & sleep 1000 # {mark}'");
    service.create("a", &[("pre-mount", &hook), ("timeout", "1")]);
    let errors: Vec<String> = std::thread::scope(|scope| {
        let mounts: Vec<_> = ["1", "2"]
            .into_iter()
            .map(|id| {
                scope.spawn({
                    let service = &service;
                    move || service.mount("a", id).unwrap_err()
                })
            })
            .collect();
        mounts.into_iter().map(|mount| mount.join().unwrap()).collect()
    });
    for error in errors {
        assert!(error.contains("did not end within 1 seconds"), "{error}");
    }
    let running = Command::new("pgrep").args(["-f", &format!("# {mark}")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&running.stdout), "", "nothing of it is left");
}

#[test]
fn what_a_hook_leaves_running_holds_nobody_up() {
    let service = Service::start();
    let file = service.path("pid");
    let hook = format!("sh -c 'sleep 60 & echo $! >{}'", file.display());
    service.create("a", &[("pre-mount", &hook)]);
    let begun = std::time::Instant::now();
    service.mount("a", "1").unwrap();
    assert!(begun.elapsed() < super::SOON);
    let pid = fs::read_to_string(file).unwrap();
    assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
}

#[test]
fn a_failing_post_unmount_keeps_the_volume_from_being_exported() {
    let service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("post-unmount", "sh -c 'echo no; exit 1'"), ("export", &export)]);
    fs::write(service.mount("a", "1").unwrap().join("x"), "x").unwrap();
    let (status, answer) = service.unmount("a", "1");
    assert!(status == 500 && answer["Err"].as_str().unwrap().contains("exit status 1: no"), "{answer}");
    assert_eq!(service.status("a")["mounts"], serde_json::json!({}), "the count is right all the same");
    assert!(service.has_said("not exported"));
    assert!(!service.path("export").exists());
}

#[test]
fn a_post_unmount_that_fails_for_one_container_keeps_not_what_the_next_one_leaves_from_being_exported() {
    let service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    let hook = format!("test -e {}", service.path("saved").display());
    service.create("a", &[("export", &export), ("post-unmount", &hook)]);
    let path = service.mount("a", "1").unwrap();
    service.mount("a", "2").unwrap();
    std::fs::write(path.join("file"), "data").unwrap();
    assert_eq!(service.unmount("a", "1").0, 500);
    std::fs::write(service.path("saved"), "").unwrap();
    // An engine that says it twice, or never had it, begins nothing.
    assert_eq!(service.unmount("a", "3").0, 200);
    assert!(!service.path("export").exists());
    assert_eq!(service.unmount("a", "2").0, 200);
    assert_eq!(std::fs::read_to_string(service.unpack(&export).path().join("file")).unwrap(), "data");
}
