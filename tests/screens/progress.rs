//! `--progress` in each of its forms.

use super::streams::on_terminal;
use super::{Workspace, assert_screen};
use serde_json::Value;
use snapbox::str;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

/// The screen of a command without the times of phases, and without sizes: those of layers depend on the times in the tree.
fn stable(place: &Workspace, arguments: &str) -> String {
    let screen = place.screen(arguments);
    let lines = screen.split_inclusive('\n').map(|line| match line.rsplit_once(" in ") {
        Some((what, time)) if time.ends_with(" s\n") => format!("{what} in [TIME]\n"),
        _ => line.to_owned(),
    });
    let words: Vec<String> = lines.collect::<String>().split(' ').map(str::to_owned).collect();
    let mut stable: Vec<&str> = Vec::new();
    for (number, word) in words.iter().enumerate() {
        let next = words.get(number + 1).and_then(|next| next.split([',', ')', '\n']).next());
        let is_size = next.is_some_and(|unit| ["B", "KiB"].contains(&unit)) && word.parse::<f64>().is_ok();
        stable.push(if is_size { "[SIZE]" } else { word });
    }
    stable.join(" ").replace("[SIZE] KiB", "[SIZE] B")
}

/// The lines of a command on stderr, which must all be JSON, without times.
fn events(place: &Workspace, arguments: &str) -> Vec<Value> {
    let output = place.run(place.volio(arguments));
    let stderr = String::from_utf8(output.stderr).unwrap();
    stderr.lines().map(event).collect()
}

fn event(line: &str) -> Value {
    let mut event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let time = event["time"].take();
    assert!(time.as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    if let Some(seconds) = event.get_mut("seconds") {
        assert!(seconds.take().is_number(), "{line}");
    }
    if let Some(message) = event.get_mut("message") {
        *message = super::without_times(message.as_str().unwrap()).into();
    }
    event
}

fn shown(events: &[Value]) -> String {
    events.iter().map(|event| super::without_digests(&format!("{event}\n"))).collect()
}

#[test]
fn plain_progress_has_a_line_at_the_end_of_each_phase() {
    let place = Workspace::with_own_image();
    assert_screen(
        stable(&place, "pack --progress plain oci:layout:v2 tree"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
pack: packing: [SIZE] B, 4 entries in [TIME]
packed 4 entries, [SIZE] B into 1 layer of [SIZE] B in [TIME]
-- exit 0

"#]],
    );
    fs::write(place.path().join("tree/new"), "new\n").unwrap();
    assert_screen(
        stable(
            &place,
            "pack --progress plain --checksum --max-dead 100 --base oci:layout:v1 oci:layout:v3 tree",
        ),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
pack: reading contents: [SIZE] B in [TIME]
pack: comparing: 5 entries in [TIME]
pack: comparing contents: [SIZE] B, 2 entries in [TIME]
pack: packing: [SIZE] B, 2 entries in [TIME]
packed 2 of 5 entries into 1 layer of [SIZE] B in [TIME]
base: oci:layout@sha256:[DIGEST] (the image that oci:layout:v1 names); 1 added, 1 changed, 0 removed; read [SIZE] B, sent [SIZE] B (a full pack would have sent about [SIZE] B)
-- exit 0

"#]],
    );
    assert_screen(
        stable(&place, "unpack --progress plain oci:layout:v1 target"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpack: extracting: [SIZE] B, 4 entries in [TIME]
unpacked 4 entries, [SIZE] B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        stable(&place, "copy --progress plain oci:layout:v1 oci:other:v1"),
        str![[r#"
oci:other@sha256:[DIGEST]
-- stderr
copy: copying: [SIZE] B in [TIME]
copied 3 blobs, [SIZE] B in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        stable(&place, "copy --progress plain oci:nowhere:v1 oci:other:v1"),
        str![[r#"
-- stderr
error: nowhere is not an image layout: there is no such directory
hint: write oci:DIRECTORY[:TAG] with a directory that volio, skopeo or buildah wrote
-- exit 4

"#]],
    );
}

#[test]
fn without_progress_there_are_warnings_and_the_summary() {
    let place = Workspace::with_image();
    let none = place.screen("copy --progress none oci:layout:v1 oci:other:v1");
    assert_screen(
        none,
        str![[r#"
oci:other@sha256:[DIGEST]
-- stderr
copied 3 blobs, 1.0 KiB in [TIME]
-- exit 0

"#]],
    );
    // Neither does the default print lines about work that is done at once.
    let auto = place.screen("copy oci:layout:v1 oci:third:v1");
    assert!(!auto.contains("copying"), "{auto}");
}

#[test]
fn progress_for_programs_is_one_json_object_a_line() {
    let place = Workspace::with_image();
    assert_screen(
        shown(&events(&place, "copy --progress json oci:layout:v1 oci:other:v1")),
        str![[r#"
{"command":"copy","event":"start","time":null}
{"command":"copy","event":"phase","phase":"copying","time":null}
{"command":"copy","event":"finish","phases":[{"bytes":1042,"bytesTotal":1042,"entries":0,"phase":"copying","tasks":3,"tasksDone":3,"tasksSkipped":0}],"seconds":null,"time":null}
{"level":"info","message":"copied 3 blobs, 1.0 KiB in [TIME]","time":null}

"#]],
    );
    assert_screen(
        shown(&events(&place, "copy --progress json oci:layout:v1 oci:other:v1")),
        str![[r#"
{"command":"copy","event":"start","time":null}
{"command":"copy","event":"phase","phase":"copying","time":null}
{"command":"copy","event":"finish","phases":[{"bytes":0,"bytesTotal":0,"entries":0,"phase":"copying","tasks":3,"tasksDone":3,"tasksSkipped":3}],"seconds":null,"time":null}
{"level":"info","message":"copied 0 blobs, 0 B in [TIME]; 3 there already","time":null}

"#]],
    );
    assert_screen(
        shown(&events(&place, "pack --normalize --progress json oci:layout:v2 tree")),
        str![[r#"
{"command":"pack","event":"start","time":null}
{"command":"pack","event":"phase","phase":"packing","time":null}
{"command":"pack","event":"finish","phases":[{"bytes":26,"bytesTotal":26,"entries":4,"phase":"packing","tasks":1,"tasksDone":1,"tasksSkipped":0}],"seconds":null,"time":null}
{"level":"info","message":"packed 4 entries, 26 B into 1 layer of 462 B in [TIME]","time":null}

"#]],
    );
    assert_screen(
        shown(&events(&place, "--progress json unpack oci:layout:v7 target")),
        str![[r#"
{"command":"unpack","event":"start","time":null}
{"command":"unpack","event":"finish","phases":[],"seconds":null,"time":null}
{"hint":"its tags are v1, v2","level":"error","message":"there is no image with the tag \"v7\" in the layout layout","time":null}

"#]],
    );
}

#[test]
fn progress_for_programs_comes_while_the_work_goes_on() {
    let place = Workspace::with_tree();
    let tar =
        std::process::Command::new("tar").args(["-c", "tree"]).current_dir(place.path()).output().unwrap();
    let mut volio = place.volio("pack --progress json oci:layout:v1 -");
    let mut child = volio.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| event(&line.unwrap()));
    // The end of the archive comes after the event.
    let (first, rest) = tar.stdout.split_at(tar.stdout.len() / 2);
    stdin.write_all(first).unwrap();
    let reading = lines.find(|event| event["event"] == "progress" && event["entries"] == 4).unwrap();
    assert_screen(
        shown(&[reading]),
        str![[r#"
{"bytes":26,"command":"pack","entries":4,"event":"progress","phase":"reading","running":[{"bytes":26,"entries":4,"subject":"the archive"}],"tasks":1,"tasksDone":0,"tasksSkipped":0,"time":null}

"#]],
    );
    stdin.write_all(rest).unwrap();
    drop(stdin);
    assert!(lines.any(|event| event["event"] == "finish"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn progress_and_the_log_of_a_service_are_json_together() {
    let place = Workspace::with_tree();
    for arguments in ["--progress json --before true", "--progress json --log text --before true"] {
        let events = events(&place, &format!("pack {arguments} oci:layout:v1 tree"));
        assert!(events.iter().any(|event| event["event"] == "finish"), "{events:?}");
        assert!(events.iter().any(|event| event["level"] == "info"), "{events:?}");
    }
}

#[test]
fn quiet_and_progress_contradict_each_other() {
    let place = Workspace::with_image();
    assert_screen(
        place.screen("copy --quiet --progress plain oci:layout:v1 oci:other:v1"),
        str![[r#"
-- stderr
error: the argument '--quiet' cannot be used with '--progress plain'

Usage: volio [OPTIONS] <COMMAND>

For more information, try '--help'.
-- exit 2

"#]],
    );
    let output = place.run(place.volio("copy --quiet --progress none oci:layout:v1 oci:other:v1"));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let mut volio = place.volio("copy --quiet oci:layout:v1 oci:other:v1");
    let output = place.run(volio.env("VOLIO_PROGRESS", "json"));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn bars_are_for_terminals() {
    let place = Workspace::with_image();
    // The sequence that hides or clears what indicatif has drawn.
    let has_bars =
        |shown: &str| shown.contains("\x1b[2K") || shown.contains("\x1b[1A") || shown.contains("\x1b[J");
    for (options, expected) in
        [("", true), ("--progress tty", true), ("--progress plain", false), ("--progress none", false)]
    {
        let command = format!("copy {options} oci:layout:v1 oci:other{}:v1", options.replace(' ', ""));
        let shown = on_terminal(&place, &command, &[]);
        assert!(shown.contains("copied 3 blobs"), "{shown}");
        assert_eq!(has_bars(&shown), expected, "{options}: {shown:?}");
    }
    let dumb = on_terminal(&place, "copy oci:layout:v1 oci:dumb:v1", &[("TERM", "dumb")]);
    assert!(!has_bars(&dumb), "{dumb:?}");
    // Without a terminal, there are lines.
    let screen = place.screen("copy --progress tty oci:layout:v1 oci:pipe:v1");
    assert!(screen.contains("copy: copying: ") && !screen.contains('\x1b'), "{screen}");
}
