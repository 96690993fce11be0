//! Volumes in a dockerd that is killed and restarted. The test has a separate dockerd.

use crate::engines::volume_plugin::{OwnDocker, Plugin, wait_until};
use std::fs;

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn volumes_survive_a_dockerd_that_is_stopped_and_one_that_is_killed() {
    let plugin = Plugin::for_docker(&[]);
    let mut own = OwnDocker::start();
    let export = format!("oci:{}:v1", plugin.path("export").display());
    own.docker
        .run(&["volume", "create", "-d", "volio", "-o", &format!("export={export}"), "data"])
        .succeeded();
    let mounts = |own: &OwnDocker| own.docker.inspect("data", "{{len .Status.mounts}}");
    let script = "echo x >>/data/x; exec /bin/busybox sleep 1000";
    // docker would wait for a first process that does not end by a signal.
    let always = ["-d", "--stop-signal=KILL", "--restart=always", "--name", "always", "-v", "data:/data"];
    own.docker.container(&always, script).succeeded();
    let lines = || fs::read_to_string(plugin.volume("data").join("x")).unwrap_or_default().lines().count();
    wait_until("it has written", || lines() == 1);

    // After a stop docker unmounts and mounts again.
    own.end("-TERM");
    own.run();
    wait_until("it runs again", || lines() == 2);
    assert_eq!(mounts(&own), "1");

    // After a kill it unmounts nothing, and mounts again with the known id.
    own.end("-KILL");
    own.run();
    wait_until("it runs again", || lines() == 3);
    assert!(own.docker.run(&["volume", "ls"]).succeeded().contains("data"));
    own.docker.run(&["rm", "-f", "always"]).succeeded();
    fs::write(plugin.volume("data").join("last"), "x").unwrap();
    // One mount too many is counted, and is never unmounted; the kernel shows that after a minute.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(90);
    let is_exported =
        || own.docker.inspect("data", "{{.Status.exportDue}}{{len .Status.mounts}}") == "<no value>0";
    while !is_exported() {
        assert!(std::time::Instant::now() < deadline, "{}", plugin.log());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    own.docker.run(&["volume", "rm", "data"]).succeeded();
    assert!(plugin.volume("data").join("last").exists());
}
