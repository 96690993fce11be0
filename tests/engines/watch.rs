//! `volio unpack --watch` with Debian's docker-registry (CNCF distribution).

use super::fixture::Directory;
use super::program::volio;
use super::services::{repository, requests_below};
use crate::service::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, Command, Stdio};

/// A watch, which ends with the test.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn versions_are_followed_with_one_conditional_request_each_time_and_a_deleted_tag_keeps_the_data() {
    for (name, how, published) in
        [("watch-link", &["--link", "current"][..], "target/current"), ("watch-sync", &["--sync"], "target")]
    {
        let (source, work) = (Directory::empty(), Directory::empty());
        let image = repository(&format!("{name}:v1"));
        let push = |content: &str| {
            fs::write(source.path().join("file"), content).expect("write");
            volio(&["pack", &image, source.text()]).digest()
        };
        let file = work.path().join(published).join("file");
        let is = |content: &str| fs::read_to_string(&file).is_ok_and(|found| found == content);
        let log = work.path().join("log");
        let log_text = || fs::read_to_string(&log).expect("the log");
        let lines = || requests_below(&format!("/v2/{name}/"));

        push("the first");
        let mut watch = Command::new(env!("CARGO_BIN_EXE_volio"));
        watch.args(["unpack", "--no-sync", "--watch", "1s"]).args(how).arg(&image).arg(work.join("target"));
        watch.env("XDG_STATE_HOME", work.join("state")).stdin(Stdio::null()).stdout(Stdio::null());
        let log_file = fs::File::create(&log).expect("a log");
        let _watching = Watching(watch.stderr(log_file).spawn().expect("volio"));
        eventually("the first version", || is("the first"));

        let is_unchanged =
            |line: &String| line.contains(&format!("\"GET /v2/{name}/manifests/v1 HTTP/1.1\" 304"));
        eventually("polls that find nothing new", || {
            lines().iter().rev().take_while(|line| is_unchanged(line)).count() >= 3
        });

        push("the second version");
        eventually("the second version", || is("the second version"));
        eventually("a poll that finds nothing new", || lines().last().is_some_and(is_unchanged));

        volio(&["rm", &image]).succeeded();
        eventually("the error", || log_text().contains("404"));
        assert!(is("the second version"), "{}", log_text());
        push("the third");
        eventually("the third version", || is("the third"));
        eventually("a line about it", || log_text().contains("can be followed again"));
    }
}
