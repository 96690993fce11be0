//! Volumes of `volio plugin` in the real dockerd.

use crate::engines::program::{finish, volio};
use crate::engines::services::repository;
use crate::engines::volume_plugin::{Docker, Plugin, wait_until};
use crate::plugin::Gate;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// A unique name for each test: the engine is shared.
fn name(test: &str) -> String {
    format!("vol-{test}-{}", std::process::id())
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn a_volume_is_created_listed_inspected_and_removed_and_its_data_stays() {
    let plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    let (name, image) = (name("life"), plugin.pack("v1", &[("file", "from the image")]));
    let option = format!("image={image}");
    docker
        .run(&["volume", "create", "--driver", "volio", "--opt", &option, "--label", "a=b", &name])
        .succeeded();
    let list = docker.run(&["volume", "ls"]).succeeded();
    assert!(list.lines().any(|line| line.starts_with("volio ") && line.ends_with(&name)), "{list}");
    assert_eq!(docker.inspect(&name, "{{.Driver}} {{.Scope}}"), "volio local");
    assert_eq!(docker.inspect(&name, "{{.Mountpoint}}"), plugin.volume(&name).display().to_string());
    assert_eq!(docker.inspect(&name, "{{.Status.image}} {{.Status.pull}}"), format!("{image} missing"));
    let mount = format!("{name}:/data");
    let said =
        docker.container(&["--rm", "--volume", &mount], "cat /data/file; echo new >/data/new").succeeded();
    assert_eq!(said, "from the image");
    assert!(docker.inspect(&name, "{{.Status.digest}}").starts_with("sha256:"));
    assert_eq!(docker.inspect(&name, "{{.Status.mounts}}"), "map[]");
    docker.run(&["volume", "rm", &name]).succeeded();
    assert!(!docker.run(&["volume", "ls"]).succeeded().contains(&name));
    assert_eq!(fs::read_to_string(plugin.volume(&name).join("new")).unwrap(), "new\n");
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn two_containers_share_a_volume_and_the_last_one_has_it_exported() {
    let plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    let name = name("two");
    let export = format!("oci:{}:v1", plugin.path("export").display());
    docker.run(&["volume", "create", "-d", "volio", "-o", &format!("export={export}"), &name]).succeeded();
    let mount = format!("{name}:/data");
    let containers: Vec<String> = std::thread::scope(|scope| {
        let started: Vec<_> = ["one", "two"]
            .map(|file| {
                let (docker, mount) = (&docker, &mount);
                scope.spawn(move || {
                    let script = format!("echo {file} >/data/{file}; exec /bin/busybox sleep 1000");
                    docker.container(&["--detach", "--volume", mount], &script).succeeded()
                })
            })
            .into_iter()
            .collect();
        started.into_iter().map(|started| started.join().unwrap()).collect()
    });
    wait_until("both have written", || {
        ["one", "two"].iter().all(|file| plugin.volume(&name).join(file).exists())
    });
    assert_eq!(docker.inspect(&name, "{{len .Status.mounts}}"), "2");
    // docker cp mounts and unmounts with the id of the container.
    let from = format!("{}:/data/two", containers[0]);
    docker.run(&["cp", &from, plugin.path("copied").to_str().unwrap()]).succeeded();
    let to = format!("{}:/data/copied", containers[0]);
    docker.run(&["cp", plugin.path("copied").to_str().unwrap(), &to]).succeeded();
    assert_eq!(docker.inspect(&name, "{{len .Status.mounts}}"), "2");
    docker.run(&["kill", &containers[0]]).succeeded();
    wait_until("one has let go", || docker.inspect(&name, "{{len .Status.mounts}}") == "1");
    assert!(!plugin.path("export").exists());
    docker.run(&["kill", &containers[1]]).succeeded();
    wait_until("it is exported", || docker.inspect(&name, "{{.Status.lastExport}}").contains("sha256:"));
    let target = tempfile::tempdir().unwrap();
    volio(&["unpack", &export, target.path().to_str().unwrap()]).succeeded();
    assert_eq!(fs::read_to_string(target.path().join("copied")).unwrap(), "two\n");
    for container in &containers {
        docker.run(&["rm", "-f", container]).succeeded();
    }
    docker.run(&["volume", "rm", &name]).succeeded();
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn what_goes_wrong_is_what_docker_run_prints() {
    let plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    let create = |volume: &str, options: &[&str]| {
        let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
        docker.run(&[&["volume", "create", "-d", "volio"], options.as_slice(), &[volume]].concat())
    };
    let run =
        |volume: &str| docker.container(&["--rm", "-v", &format!("{volume}:/data")], "echo must not run");
    let fails = name("fails");
    create(&fails, &["pre-mount=sh -c 'echo the key is missing >&2; exit 4'"]).succeeded();
    let said = run(&fails).failed_with(125);
    assert!(
        said.contains("pre-mount of the volume") && said.contains("exit status 4: the key is missing"),
        "{said}"
    );
    assert!(!said.contains("must not run"));

    let hangs = name("hangs");
    create(&hangs, &["pre-mount=sleep 1000", "timeout=1"]).succeeded();
    assert!(run(&hangs).failed_with(125).contains("did not end within 1 seconds"));

    let nowhere = name("nowhere");
    create(&nowhere, &[&format!("image={}", repository("volumes-nowhere:v1"))]).succeeded();
    let said = run(&nowhere).failed_with(125);
    assert!(said.contains("volumes-nowhere"), "{said}");

    let holds = name("holds");
    fs::create_dir(plugin.volume(&holds)).unwrap();
    fs::write(plugin.volume(&holds).join("mine"), "precious").unwrap();
    create(&holds, &[&format!("image={}", plugin.pack("v1", &[("file", "x")]))]).succeeded();
    assert!(run(&holds).failed_with(125).contains("holds data that is not from"));
    assert_eq!(fs::read_to_string(plugin.volume(&holds).join("mine")).unwrap(), "precious");

    let said = create(&name("bad"), &["imgae=x"]).failed_with(1);
    assert!(said.contains("there is no option \"imgae\""), "{said}");
    let said = create(&name("bad"), &["image=me:hunter2@h.io/a"]).failed_with(1);
    assert!(said.contains("no user and no password") && !said.contains("hunter2"), "{said}");
    for volume in [&fails, &hangs, &nowhere, &holds] {
        docker.run(&["volume", "rm", volume]).succeeded();
    }
    assert!(!plugin.log().contains("hunter2"));
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn hostile_names_reach_the_plugin_and_go_no_further() {
    let plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    for hostile in ["../../../../tmp/evil", ".", "a b;c$x", "x/y", ".volio", "volumes.json"] {
        let said = docker.run(&["volume", "create", "-d", "volio", hostile]).failed_with(1);
        assert!(said.contains("cannot be the name of a volume"), "{said}");
    }
    let mount = "type=volume,src=../evil2,dst=/data,volume-driver=volio";
    let said = docker.container(&["--rm", "--mount", mount], "true").failed_with(125);
    assert!(said.contains("cannot be the name of a volume"), "{said}");
    assert!(!plugin.path("evil2").exists());
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn a_fetch_that_takes_longer_than_the_engine_waits_is_found_by_the_next_run() {
    let plugin = Plugin::for_docker(&["--patience", "1"]);
    let docker = Docker::shared();
    let (gate, image) = slow_image("volumes-slow:v1");
    let name = name("slow");
    docker.run(&["volume", "create", "-d", "volio", "-o", &format!("image={image}"), &name]).succeeded();
    let mount = format!("{name}:/data");
    let said = docker.container(&["--rm", "-v", &mount], "cat /data/file").failed_with(125);
    assert!(said.contains("it is being filled from"), "{said}");
    assert!(docker.inspect(&name, "{{.Status.doing}}").contains("it is being filled from"));
    gate.open();
    wait_until("it is fetched", || docker.inspect(&name, "{{.Status.digest}}").starts_with("sha256:"));
    assert_eq!(docker.container(&["--rm", "-v", &mount], "cat /data/file").succeeded(), "far away");
    docker.run(&["volume", "rm", &name]).succeeded();
    drop(plugin);
}

/// Two minutes long: `VOLIO_TEST_SLOW=1 tests/run longer_than_docker_itself`.
#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn a_fetch_that_takes_longer_than_docker_itself_waits_goes_on() {
    if std::env::var_os("VOLIO_TEST_SLOW").is_none() {
        return;
    }
    let plugin = Plugin::for_docker(&["--patience", "3600"]);
    let docker = Docker::shared();
    let (gate, image) = slow_image("volumes-very-slow:v1");
    let name = name("very-slow");
    docker.run(&["volume", "create", "-d", "volio", "-o", &format!("image={image}"), &name]).succeeded();
    let mount = format!("{name}:/data");
    let begun = Instant::now();
    let said = docker.container(&["--rm", "-v", &mount], "cat /data/file").failed_with(125);
    assert!(said.contains("context deadline exceeded"), "{said}");
    assert!(begun.elapsed() >= Duration::from_secs(119), "{:?}", begun.elapsed());
    gate.open();
    wait_until("the mount is taken back", || plugin.log().contains("hung up"));
    assert_eq!(docker.inspect(&name, "{{.Status.mounts}}"), "map[]");
    assert_eq!(docker.container(&["--rm", "-v", &mount], "cat /data/file").succeeded(), "far away");
    docker.run(&["volume", "rm", &name]).succeeded();
}

/// Makes an image in the registry, with a shut gate before it.
fn slow_image(image: &str) -> (Gate, String) {
    let image = repository(image);
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "far away").unwrap();
    volio(&["pack", &image, tree.path().to_str().unwrap()]).succeeded();
    let (host, rest) = image.split_once('/').unwrap();
    let gate = Gate::shut(host);
    let image = format!("{}/{rest}", gate.host());
    (gate, image)
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn a_plugin_that_is_killed_under_a_container_comes_back_as_if_nothing_were() {
    let mut plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    let name = name("killed");
    let export = format!("oci:{}:v1", plugin.path("export").display());
    docker.run(&["volume", "create", "-d", "volio", "-o", &format!("export={export}"), &name]).succeeded();
    let script = "echo x >/data/x; exec /bin/busybox sleep 1000";
    let container = docker.container(&["-d", "-v", &format!("{name}:/data")], script).succeeded();
    wait_until("it has written", || plugin.volume(&name).join("x").exists());
    plugin.end("-KILL");
    assert!(plugin.socket("volio").exists(), "a kill leaves the socket");
    plugin.start();
    let begun = Instant::now();
    assert!(docker.run(&["volume", "ls"]).succeeded().contains(&name));
    assert!(begun.elapsed() < Duration::from_secs(10), "docker did not wait for a dead socket");
    assert_eq!(docker.inspect(&name, "{{len .Status.mounts}}"), "1");
    let said = docker.run(&["exec", &container, "/bin/busybox", "cat", "/data/x"]).succeeded();
    assert_eq!(said, "x");
    docker.run(&["kill", &container]).succeeded();
    wait_until("it is exported", || docker.inspect(&name, "{{.Status.lastExport}}").contains("sha256:"));
    docker.run(&["rm", "-f", &container]).succeeded();
    docker.run(&["volume", "rm", &name]).succeeded();
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn a_corrupt_list_of_volumes_makes_docker_forget_nothing() {
    let plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    let name = name("corrupt");
    docker.run(&["volume", "create", "-d", "volio", "-o", "mode=0750", "--label", "a=b", &name]).succeeded();
    let file = plugin.path("storage/volumes.json");
    let good = fs::read(&file).unwrap();
    fs::write(&file, "{").unwrap();
    let run = docker.container(&["--rm", "-v", &format!("{name}:/data")], "true").failed_with(125);
    assert!(run.contains(&name), "{run}");
    fs::write(&file, good).unwrap();
    assert_eq!(docker.inspect(&name, "{{.Labels.a}} {{.Options.mode}}"), "b 0750");
    docker.container(&["--rm", "-v", &format!("{name}:/data")], "true").succeeded();
    docker.run(&["volume", "rm", &name]).succeeded();
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn a_managed_plugin_is_built_by_the_example_and_fills_a_volume() {
    let plugin = tempfile::tempdir().unwrap();
    let docker = Docker::shared();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "managed").unwrap();
    let image = repository("volumes-managed:v1");
    volio(&["pack", &image, tree.path().to_str().unwrap()]).succeeded();
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/plugin/build");
    let managed = format!("volio-managed-{}:1", std::process::id());
    finish(
        Command::new(build).args([&managed, env!("CARGO_BIN_EXE_volio")]).env("DOCKER_HOST", &docker.host),
    )
    .succeeded();
    let name = name("managed");
    docker.run(&["volume", "create", "-d", &managed, "-o", &format!("image={image}"), &name]).succeeded();
    let said = docker.container(&["--rm", "-v", &format!("{name}:/data")], "cat /data/file").succeeded();
    assert_eq!(said, "managed");
    docker.run(&["volume", "rm", &name]).succeeded();
    docker.run(&["plugin", "disable", "-f", &managed]).succeeded();
    docker.run(&["plugin", "rm", &managed]).succeeded();
    drop(plugin);
}
