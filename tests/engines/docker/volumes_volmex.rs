//! volmex's volumes in the real dockerd, by the rows of measurements of volmex.

use crate::engines::volume_plugin::{Docker, Plugin};
use std::fs;

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn volmex_volumes_work_in_docker_as_they_did() {
    let plugin = Plugin::for_docker(&["--volmex"]);
    let docker = Docker::shared();
    let name = format!("volmex-{}", std::process::id());
    let create = |options: &[&str]| {
        docker.run(&[&["volume", "create", "-d", "volmex"], options, &[name.as_str()]].concat())
    };
    // Create: without a command.
    let said = create(&[]).failed_with(1);
    assert!(said.contains(r#"no volmex mount command. specify with -o cmd="command""#), "{said}");
    // A command that fails stops the container.
    create(&["-o", "cmd=ls /no-such-directory"]).succeeded();
    let mount = format!("{name}:/data");
    let said = docker.container(&["--rm", "-v", &mount], "echo must not run").failed_with(125);
    assert!(
        said.contains("error from volmex command: exit status 2") && !said.contains("must not run"),
        "{said}"
    );
    // Scope, list, inspect.
    assert_eq!(docker.inspect(&name, "{{.Driver}} {{.Scope}}"), "volmex local");
    assert_eq!(docker.inspect(&name, "{{.Mountpoint}}"), plugin.volume(&name).display().to_string());
    assert!(docker.run(&["volume", "ls"]).succeeded().contains(&name));
    // Remove: the data stays, and a volume of the same name has it.
    fs::write(plugin.volume(&name).join("old"), "old data").unwrap();
    docker.run(&["volume", "rm", &name]).succeeded();
    assert!(plugin.volume(&name).join("old").exists());

    // Split, environment, directory.
    let script = plugin.path("fill");
    let text = "#!/bin/sh\necho run >>$VOLMEX_MOUNTPOINT/runs\n\
                    printf '%s|' \"$@\" >$VOLMEX_MOUNTPOINT/arguments\n/usr/bin/env >$VOLMEX_MOUNTPOINT/environment\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let command = format!("{} a  'b c'", script.display());
    create(&["-o", &format!("cmd={command} ")]).succeeded();
    let seen =
        docker.container(&["--rm", "-v", &mount], "cat /data/old /data/arguments; cat /data/environment");
    let seen = seen.succeeded();
    assert!(seen.starts_with("old dataa||'b|c'|"), "{seen}");
    for variable in [
        format!("VOLMEX_NAME={name}"),
        format!("VOLMEX_CMD={command}"),
        format!("VOLMEX_MOUNTPOINT={}", plugin.volume(&name).display()),
    ] {
        assert!(seen.contains(&variable), "{variable}: {seen}");
    }
    assert!(!seen.contains("HOME=") && !seen.contains("VOLIO_"), "{seen}");

    // It runs before each start, for a second container, and for docker cp.
    let runs = || fs::read_to_string(plugin.volume(&name).join("runs")).unwrap().lines().count();
    assert_eq!(runs(), 1);
    let script = "exec /bin/busybox sleep 1000";
    let container = docker.container(&["-d", "-v", &mount], script).succeeded();
    assert_eq!(runs(), 2);
    let from = format!("{container}:/data/old");
    docker.run(&["cp", &from, plugin.path("copied").to_str().unwrap()]).succeeded();
    assert!(runs() > 2);
    docker.run(&["rm", "-f", &container]).succeeded();
    docker.run(&["volume", "rm", &name]).succeeded();
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn volmex_storage_is_taken_over_with_its_volumes_and_their_data() {
    let mut plugin = Plugin::for_docker(&["--volmex"]);
    let docker = Docker::shared();
    plugin.end("-TERM");
    let name = format!("left-{}", std::process::id());
    fs::create_dir(plugin.volume(&name)).unwrap();
    fs::write(plugin.volume(&name).join("old"), "old data").unwrap();
    let entry = format!(
        r#"{{"{name}":{{"Name":"{name}","Mountpoint":"{}","Status":null,"Options":{{"cmd":"true"}}}}}}"#,
        plugin.volume(&name).display()
    );
    fs::write(plugin.path("storage/volumes.json"), entry).unwrap();
    plugin.start();
    assert!(docker.run(&["volume", "ls"]).succeeded().contains(&name));
    let mount = format!("{name}:/data");
    let options = ["--rm", "--volume-driver", "volmex", "-v", &mount];
    assert_eq!(docker.container(&options, "cat /data/old").succeeded(), "old data");
    docker.run(&["volume", "rm", &name]).succeeded();
}
