//! volmex's behaviour, by the rows of measurements of it. The names of tests say where volio does better.

use super::Service;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

impl Service {
    fn volmex(&self, call: &str, body: Value) -> (u16, Value) {
        self.ask("volmex", call, &body)
    }

    fn volmex_volume(&self, name: &str, command: &str) {
        let body = json!({"Name": name, "Opts": {"cmd": command}});
        assert_eq!(self.volmex("Create", body), (200, json!({"Err": ""})));
    }

    fn volmex_mount(&self, name: &str) -> (u16, Value) {
        self.volmex("Mount", json!({"Name": name, "ID": "id"}))
    }
}

/// A program that records its arguments, its environment and its directory.
fn witness(place: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let program = place.join("witness");
    let seen = place.join("seen");
    let script = format!(
        "#!/bin/sh\nfor word in \"$@\"; do printf '[%s]' \"$word\"; done >{0}.args\n/usr/bin/env >{0}.env\n\
         pwd >{0}.pwd\ncat >{0}.stdin\n",
        seen.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.to_str().unwrap().to_owned()
}

#[test]
fn volmex_storage_that_is_missing_is_an_error_and_not_made() {
    let mut service = Service::start();
    service.stop();
    fs::rename(service.storage(), service.path("elsewhere")).unwrap();
    let error = service.run().unwrap_err();
    assert_eq!(error.kind(), volio::error::Kind::NotFound);
    assert!(!service.path("storage").exists());
}

#[test]
fn volmex_socket_that_a_killed_plugin_left_does_not_block_the_next_one() {
    let mut service = Service::start();
    service.stop();
    let socket = service.socket("volmex");
    assert!(!socket.exists(), "it is gone after a stop");
    // Dropping the listener leaves what a kill -9 leaves.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    service.run().unwrap();
    assert_eq!(service.volmex("List", json!({})).0, 200);
}

#[test]
fn volmex_second_plugin_is_refused_while_the_first_one_runs() {
    let service = Service::start();
    let error = volio::plugin::Plugin::open(service.settings()).err().unwrap();
    assert_eq!(error.kind(), volio::error::Kind::Refused);
    let error =
        volio::plugin::Socket::make(&service.path("sockets"), volio::plugin::Driver::Volmex).err().unwrap();
    assert!(error.to_string().contains("another plugin answers"), "{error}");
    assert_eq!(service.volmex("List", json!({})).0, 200, "and the first one is not disturbed");
}

/// As go-plugins-helpers wrote it.
const LEFT_BY_VOLMEX: &str = r#"{"foo":{"Name":"foo","Mountpoint":"STORAGE/foo","Status":null,"Options":{"cmd":"false","o":"kept"}},"odd name":{"Name":"odd name","Mountpoint":"STORAGE/odd name","Status":null,"Options":{"cmd":"true"}}}"#;

fn with_volmexs_list() -> Service {
    Service::start_with(|storage| {
        fs::create_dir(storage.join("foo")).unwrap();
        fs::write(storage.join("foo/data"), "old").unwrap();
        let text = LEFT_BY_VOLMEX.replace("STORAGE", storage.to_str().unwrap());
        fs::write(storage.join("volumes.json"), text).unwrap();
    })
}

#[test]
fn volmex_volumes_json_is_read_and_kept_in_a_form_that_volmex_reads() {
    use std::os::unix::fs::PermissionsExt;
    let mut service = with_volmexs_list();
    let (_, list) = service.volmex("List", json!({}));
    let foo = service.volume("foo");
    assert_eq!(list["Volumes"], json!([{"Name": "foo", "Mountpoint": foo}]));
    let error = service.volmex_mount("foo").1["Err"].as_str().unwrap().to_owned();
    assert!(error.starts_with("error from volmex command: exit status 1"), "{error}");
    assert_eq!(fs::read_to_string(foo.join("data")).unwrap(), "old");
    service.volmex_volume("bar", "true");
    service.restart();

    let file = service.storage().join("volumes.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for name in ["foo", "bar", "odd name"] {
        let entry = &kept[name];
        assert_eq!(entry["Name"], name, "{kept}");
        assert_eq!(entry["Status"], Value::Null);
        assert!(entry["Mountpoint"].is_string() && entry["Options"]["cmd"].is_string(), "{entry}");
    }
    assert_eq!(kept["foo"]["Options"]["o"], "kept");
}

#[test]
fn volmex_volumes_are_served_by_volio_where_volmex_is_not_served() {
    let mut service = with_volmexs_list();
    assert_eq!(service.volio("List", json!({})).1["Volumes"], json!([]));
    service.stop();
    service.drivers = vec![volio::plugin::Driver::Volio];
    service.run().unwrap();
    let error = service.mount("foo", "1").unwrap_err();
    assert!(error.starts_with("error from volmex command"), "{error}");
}

#[test]
fn volmex_volumes_json_changed_by_hand_counts_at_once() {
    let service = with_volmexs_list();
    let file = service.storage().join("volumes.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"false\"", "\"true\"")).unwrap();
    assert_eq!(service.volmex_mount("foo").0, 200);
    let text = r#"{"new": {"name": "new", "options": {"cmd": "true"}}}"#;
    fs::write(&file, text).unwrap();
    let (_, list) = service.volmex("List", json!({}));
    assert_eq!(list["Volumes"], json!([{"Name": "new", "Mountpoint": service.volume("new")}]));
    fs::write(&file, "null").unwrap();
    assert_eq!(service.volmex("List", json!({})).1["Volumes"], json!([]));
    service.volmex_volume("after-null", "true");
}

#[test]
fn volmex_volumes_json_that_is_corrupt_or_gone_drops_connections_instead_of_forgetting_volumes() {
    let mut service = with_volmexs_list();
    let file = service.storage().join("volumes.json");
    let good = fs::read(&file).unwrap();
    for bad in [Some(&good[..good.len() / 2]), Some(b""), Some(b"[]"), Some(b"{\"a\":1}"), None] {
        match bad {
            Some(bad) => fs::write(&file, bad).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        for call in ["Get", "Create", "Mount", "List", "Remove", "Path", "Unmount"] {
            let mut stream = service.connect("volmex");
            super::send(&mut stream, call, r#"{"Name":"foo","ID":"1","Opts":{"cmd":"true"}}"#);
            assert_eq!(super::receive(&mut stream), None, "{call}");
            // And as Docker tries again.
            let mut stream = service.connect("volmex");
            super::send(&mut stream, call, "{}");
            assert!(call == "List" || super::receive(&mut stream).is_none(), "{call}");
        }
        assert!(service.has_said("volumes.json"), "and the log says why");
    }
    service.stop();
    assert_eq!(service.run().unwrap_err().kind(), volio::error::Kind::Integrity, "nor does it start");
    fs::write(&file, good).unwrap();
    service.run().unwrap();
    assert_eq!(service.volmex("Get", json!({"Name": "foo"})).0, 200, "mended, all is well");
}

#[test]
fn volmex_create_needs_a_command() {
    let service = Service::start();
    for options in
        [json!(null), json!({}), json!({"cmd": ""}), json!({"cmd": " "}), json!({"image": "h.io/a"})]
    {
        let (status, answer) = service.volmex("Create", json!({"Name": "a", "Opts": options}));
        let expected = json!({"Err": r#"no volmex mount command. specify with -o cmd="command""#});
        assert_eq!((status, answer), (500, expected));
    }
}

#[test]
fn volmex_create_keeps_other_options_makes_the_directory_and_runs_nothing() {
    let service = Service::start();
    let ran = service.path("ran");
    let command = format!("touch {}", ran.display());
    let options = json!({"cmd": command, "image": "?", "whatever": "x"});
    assert_eq!(service.volmex("Create", json!({"Name": "a", "Opts": options})).0, 200);
    assert!(service.volume("a").is_dir() && !ran.exists());
    let kept: Value =
        serde_json::from_slice(&fs::read(service.storage().join("volumes.json")).unwrap()).unwrap();
    assert_eq!(kept["a"]["Options"], options);
}

#[test]
fn volmex_create_of_a_volume_that_is_there_is_refused_unless_it_is_the_same() {
    let service = Service::start();
    service.volmex_volume("a", "true");
    service.volmex_volume("a", "true");
    let (status, answer) = service.volmex("Create", json!({"Name": "a", "Opts": {"cmd": "false"}}));
    assert!(status == 500 && answer["Err"].as_str().unwrap().contains("other options"), "{answer}");
    let (status, _) = service.volio("Create", json!({"Name": "a", "Opts": null}));
    assert_eq!(status, 500, "a directory is one driver's");
    assert_eq!(service.volmex_mount("a").0, 200);
}

#[test]
fn volmex_get_and_list_show_volumes_without_more() {
    let service = Service::start();
    service.volmex_volume("b", "true");
    service.volmex_volume("a", "true");
    let (_, answer) = service.volmex("Get", json!({"Name": "a"}));
    assert_eq!(answer["Volume"]["Name"], "a");
    assert_eq!(answer["Volume"]["Mountpoint"], json!(service.volume("a")));
    let (_, list) = service.volmex("List", json!({}));
    assert_eq!(list["Volumes"].as_array().unwrap().len(), 2);
    assert_eq!(service.volmex("Get", json!({"Name": "c"})), (500, json!({"Err": "volume not found"})));
}

#[test]
fn volmex_path_and_mount_of_an_unknown_volume_say_volume_unknown() {
    let service = Service::start();
    for call in ["Path", "Mount"] {
        let answer = service.volmex(call, json!({"Name": "a", "ID": "1"}));
        assert_eq!(answer, (500, json!({"Err": "volume unknown"})));
    }
}

#[test]
fn volmex_remove_never_fails_and_data_stays_for_a_volume_of_the_same_name() {
    let service = Service::start();
    assert_eq!(service.volmex("Remove", json!({"Name": "never-was"})), (200, json!({"Err": ""})));
    service.volmex_volume("a", "true");
    fs::write(service.volume("a").join("data"), "kept").unwrap();
    assert_eq!(service.volmex("Remove", json!({"Name": "a"})), (200, json!({"Err": ""})));
    assert_eq!(service.volmex("Get", json!({"Name": "a"})).0, 500);
    service.volmex_volume("a", "cat data");
    assert_eq!(fs::read_to_string(service.volume("a").join("data")).unwrap(), "kept");
}

#[test]
fn volmex_mount_runs_the_command_every_time_and_unmount_does_nothing() {
    let service = Service::start();
    let log = service.path("log");
    service.volmex_volume("a", &format!("/bin/mktemp -p {} run.XXXXXX", service.place.path().display()));
    for _ in 0..3 {
        assert_eq!(service.volmex_mount("a"), (200, json!({"Mountpoint": service.volume("a"), "Err": ""})));
    }
    let runs = || {
        let entries = fs::read_dir(service.place.path()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with("run.")).count()
    };
    assert_eq!(runs(), 3);
    for _ in 0..4 {
        assert_eq!(service.volmex("Unmount", json!({"Name": "a", "ID": "id"})), (200, json!({"Err": ""})));
    }
    let unknown = service.volmex("Unmount", json!({"Name": "never-was", "ID": "id"}));
    assert_eq!(unknown, (200, json!({"Err": ""})));
    assert!(runs() == 3 && !log.exists());
}

#[test]
fn volmex_command_is_split_at_each_space_and_nowhere_else() {
    let service = Service::start();
    let program = witness(service.place.path());
    for (number, (arguments, seen)) in [
        ("a  b", "[a][][b]"),
        ("-c 'echo hi'", "[-c]['echo][hi']"),
        ("a\tb $HOME \"x y\" \\", "[a\tb][$HOME][\"x][y\"][\\]"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("v{number}");
        service.volmex_volume(&name, &format!("  {program} {arguments}\n"));
        assert_eq!(service.volmex_mount(&name).0, 200);
        assert_eq!(fs::read_to_string(service.path("seen.args")).unwrap(), seen);
    }
}

#[test]
fn volmex_command_has_exactly_three_variables_and_the_daemons_directory() {
    let service = Service::start();
    let program = witness(service.place.path());
    service.volmex_volume("a", &format!(" {program} x "));
    assert_eq!(service.volmex_mount("a").0, 200);
    let read = |name: &str| fs::read_to_string(service.path(name)).unwrap();
    let environment = read("seen.env");
    // The shell of the witness adds these.
    let mut lines: Vec<&str> = environment
        .lines()
        .filter(|line| !["PWD=", "_=", "SHLVL=", "OLDPWD="].iter().any(|own| line.starts_with(own)))
        .collect();
    lines.sort_unstable();
    let expected = [
        format!("VOLMEX_CMD={program} x"),
        format!("VOLMEX_MOUNTPOINT={}", service.volume("a").display()),
        "VOLMEX_NAME=a".to_owned(),
    ];
    assert_eq!(lines, expected);
    assert_eq!(Path::new(read("seen.pwd").trim()), std::env::current_dir().unwrap());
    assert_eq!(read("seen.stdin"), "");
}

#[test]
fn volmex_command_is_looked_up_in_the_daemons_path() {
    let service = Service::start();
    service.volmex_volume("a", "true");
    assert_eq!(service.volmex_mount("a").0, 200);
    service.volmex_volume("b", "no-such-program");
    let error = service.volmex_mount("b").1["Err"].as_str().unwrap().to_owned();
    assert!(error.starts_with("error from volmex command: \"no-such-program\" was not found"), "{error}");
}

#[test]
fn volmex_command_that_fails_stops_the_container_and_says_why() {
    let service = Service::start();
    service.volmex_volume("a", "ls /no-such-directory");
    let (status, answer) = service.volmex_mount("a");
    let error = answer["Err"].as_str().unwrap();
    assert!(status == 500 && error.starts_with("error from volmex command: exit status 2: "), "{error}");
    assert!(error.contains("/no-such-directory") && answer.get("Mountpoint").is_none(), "{answer}");
}

#[test]
fn volmex_directory_that_vanished_is_made_again_before_the_command_runs() {
    let service = Service::start();
    service.volmex_volume("a", "true");
    fs::remove_dir(service.volume("a")).unwrap();
    assert_eq!(service.volmex_mount("a").0, 200);
    assert!(service.volume("a").is_dir());
}

#[test]
fn volmex_command_that_hangs_is_ended_with_all_that_it_started() {
    let service = Service::start();
    let options = json!({"cmd": "sleep 1000", "cmd-timeout": "1"});
    assert_eq!(service.volmex("Create", json!({"Name": "a", "Opts": options})).0, 200);
    let error = service.volmex_mount("a").1["Err"].as_str().unwrap().to_owned();
    assert!(error.contains("did not end within 1 seconds"), "{error}");
}
