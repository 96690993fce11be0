//! Volumes of `volio plugin` in podman, which has the plugin in its configuration.

use crate::engines::program::{Finished, finish, volio};
use crate::engines::services::repository;
use crate::engines::volume_plugin::{Plugin, busybox_tree, wait_until};
use crate::plugin::Gate;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Podman {
    configuration: PathBuf,
}

impl Podman {
    /// A podman with the configuration of `tests/run` and the plugin.
    fn with(plugin: &Plugin) -> Self {
        let given = env::var("CONTAINERS_CONF").expect("CONTAINERS_CONF is not set: run tests/run");
        let mut text = fs::read_to_string(given).unwrap();
        text += &format!("[engine.volume_plugins]\nvolio = \"{}\"\n", plugin.socket("volio").display());
        let configuration = plugin.path("containers.conf");
        fs::write(&configuration, text).unwrap();
        Self { configuration }
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(Command::new("podman").env("CONTAINERS_CONF", &self.configuration).args(arguments))
    }
}

/// Imports an image with busybox.
fn import_busybox(podman: &Podman, work: &Path, image: &str) {
    let busybox = busybox_tree();
    let root = busybox.path().join("root").display().to_string();
    let archive = work.join("tar").display().to_string();
    finish(Command::new("tar").args(["--create", "--file", &archive, "--directory", &root, "."])).succeeded();
    podman.run(&["import", "--quiet", &archive, image]).succeeded();
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn podman_times_out_after_five_seconds_and_the_next_mount_finds_the_fetched_volume() {
    let work = tempfile::tempdir().unwrap();
    let plugin = Plugin::beside(work.path(), &[]);
    let podman = Podman::with(&plugin);
    import_busybox(&podman, work.path(), "localhost/volumes-podman-slow:1");
    let image = repository("podman-slow:v1");
    fs::create_dir(work.path().join("tree")).unwrap();
    fs::write(work.path().join("tree/file"), "far away").unwrap();
    volio(&["pack", &image, work.path().join("tree").to_str().unwrap()]).succeeded();
    let (host, rest) = image.split_once('/').unwrap();
    let gate = Gate::shut(host);
    let option = format!("image={}/{rest}", gate.host());
    podman.run(&["volume", "create", "--driver", "volio", "-o", &option, "slow"]).succeeded();
    let run = || {
        let script = ["localhost/volumes-podman-slow:1", "/bin/busybox", "cat", "/data/file"];
        podman.run(&[&["run", "--rm", "--network=none", "-v", "slow:/data"][..], &script].concat())
    };
    let output = run().failed_with(126);
    assert!(output.contains("volume plugin volio endpoint /VolumeDriver.Mount"), "{output}");
    assert!(output.contains("Client.Timeout exceeded"), "{output}");
    gate.open();
    wait_until("the mount is taken back", || plugin.log().contains("hung up"));
    assert_eq!(run().succeeded(), "far away");
    // podman finds volumes of the plugin that are missing in its own list.
    podman.run(&["volume", "rm", "slow"]).succeeded();
    let body = format!(r#"{{"Name":"slow","Opts":{{"{}":"{}"}}}}"#, "image", option.replace("image=", ""));
    let post = format!("POST /VolumeDriver.Create HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut socket = std::os::unix::net::UnixStream::connect(plugin.socket("volio")).unwrap();
    std::io::Write::write_all(&mut socket, post.as_bytes()).unwrap();
    std::io::Read::read_exact(&mut socket, &mut [0; 15]).unwrap();
    podman.run(&["volume", "reload"]).succeeded();
    assert_eq!(run().succeeded(), "far away");
    podman.run(&["volume", "rm", "slow"]).succeeded();
    podman.run(&["rmi", "--force", "localhost/volumes-podman-slow:1"]).succeeded();
}

#[test]
#[ignore = "needs podman and root: run tests/run"]
fn a_volume_is_filled_shared_exported_and_removed() {
    let work = tempfile::tempdir().unwrap();
    let plugin = Plugin::beside(work.path(), &[]);
    let podman = Podman::with(&plugin);
    import_busybox(&podman, work.path(), "localhost/volumes-podman:1");
    let container = |options: &[&str], script: &str| {
        let image = ["localhost/volumes-podman:1", "/bin/busybox", "sh", "-c", script];
        podman.run(&[&["run", "--network=none"], options, &image].concat())
    };

    let image = plugin.pack("v1", &[("file", "from the image")]);
    let export = format!("oci:{}:v1", work.path().join("export").display());
    let (image, exports) = (format!("image={image}"), format!("export={export}"));
    podman.run(&["volume", "create", "--driver", "volio", "-o", &image, "-o", &exports, "data"]).succeeded();
    let volume = ["-v", "data:/data"];
    let first = container(&[&["-d"], &volume[..]].concat(), "exec /bin/busybox sleep 1000").succeeded();
    let output = container(&[&["--rm"], &volume[..]].concat(), "cat /data/file; echo new >/data/new");
    assert_eq!(output.succeeded(), "from the image");
    assert!(!work.path().join("export").exists(), "one container still has it");
    podman.run(&["rm", "--force", "--time", "0", &first]).succeeded();
    wait_until("it is exported", || plugin.log().contains(": exported "));

    // Without options, podman omits `Opts`.
    podman.run(&["volume", "create", "--driver", "volio", "plain"]).succeeded();
    let output = container(&["--rm", "-v", "plain:/data"], "echo x >/data/x; cat /data/x").succeeded();
    assert_eq!(output, "x");

    let output =
        podman.run(&["volume", "create", "--driver", "volio", "-o", "imgae=x", "wrong"]).failed_with(125);
    assert!(output.contains("there is no option"), "{output}");
    podman
        .run(&[
            "volume",
            "create",
            "--driver",
            "volio",
            "-o",
            "pre-mount=sh -c 'echo too bad; exit 1'",
            "fails",
        ])
        .succeeded();
    let output = container(&["--rm", "-v", "fails:/data"], "echo must not run").failed_with(126);
    assert!(output.contains("exit status 1: too bad") && !output.contains("must not run"), "{output}");

    podman.run(&["volume", "rm", "data", "plain", "fails"]).succeeded();
    assert!(plugin.volume("data").join("new").exists(), "the data stays");
    podman.run(&["rmi", "--force", "localhost/volumes-podman:1"]).succeeded();
}
