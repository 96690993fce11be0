//! The protocol: requests of engines, wrong requests, and hostile ones.

use super::{Service, receive, send};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

/// Sends bytes unchanged, and reads the complete response.
fn raw(service: &Service, bytes: &[u8]) -> String {
    let mut stream = service.connect("volio");
    stream.write_all(bytes).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn docker_finds_a_local_volume_driver_as_volio_and_as_volmex() {
    let service = Service::start();
    for driver in ["volio", "volmex"] {
        let mut stream = service.connect(driver);
        // One connection for all, and no body for the first call.
        send(&mut stream, "Plugin.Activate", "");
        assert_eq!(receive(&mut stream), Some((200, json!({"Implements": ["VolumeDriver"], "Err": ""}))));
        send(&mut stream, "Capabilities", "{}\n");
        assert_eq!(receive(&mut stream), Some((200, json!({"Capabilities": {"Scope": "local"}, "Err": ""}))));
        send(&mut stream, "List", "{}\n");
        assert_eq!(receive(&mut stream), Some((200, json!({"Volumes": [], "Err": ""}))));
    }
}

#[test]
fn a_volume_is_made_shown_mounted_and_removed() {
    let service = Service::start();
    // As Docker asks without -o; podman leaves the key out.
    for (name, body) in
        [("a", json!({"Name": "a", "Opts": null})), ("b", json!({"Name": "b", "Unknown": [1]}))]
    {
        assert_eq!(service.volio("Create", body), (200, json!({"Err": ""})));
        let path = service.volume(name);
        let (status, answer) = service.volio("Get", json!({"Name": name}));
        assert_eq!((status, &answer["Err"]), (200, &json!("")));
        let volume = &answer["Volume"];
        assert_eq!(volume["Mountpoint"], json!(path));
        let created = volume["CreatedAt"].as_str().unwrap();
        assert!(created.len() == 20 && created.ends_with('Z'), "Go needs RFC 3339: {created}");
        assert_eq!(volume["Status"]["mounts"], json!({}));
        assert_eq!(
            service.volio("Path", json!({"Name": name})),
            (200, json!({"Mountpoint": path, "Err": ""}))
        );
        assert_eq!(service.mount(name, "1").unwrap(), path);
        assert!(path.is_dir());
        assert_eq!(service.status(name)["mounts"], json!({"1": 1}));
        assert_eq!(service.unmount(name, "1"), (200, json!({"Err": ""})));
    }
    let (_, list) = service.volio("List", json!({}));
    let names: Vec<&Value> = list["Volumes"].as_array().unwrap().iter().map(|v| &v["Name"]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(service.volio("Remove", json!({"Name": "a"})), (200, json!({"Err": ""})));
    assert_eq!(service.volio("Get", json!({"Name": "a"})), (500, json!({"Err": "volume not found"})));
    assert!(service.volume("a").is_dir(), "the data stays");
}

#[test]
fn hostile_names_are_refused_by_every_call_and_touch_nothing() {
    let service = Service::start();
    let long = "x".repeat(256);
    for name in [
        "",
        ".",
        "..",
        "../evil",
        "../../../../tmp/x",
        "/etc",
        "x/y",
        "a b;c$x",
        "-rf",
        "_x",
        ".volio",
        "é",
        "a\0b",
        "a\nb",
        "volumes.json",
        "volumes.json.new",
        &long,
    ] {
        for call in ["Create", "Get", "Path", "Mount", "Unmount", "Remove"] {
            let (status, answer) = service.volio(call, json!({"Name": name, "ID": "1", "Opts": {}}));
            assert_eq!(status, 500, "{call} {name:?}");
            assert!(answer["Err"].as_str().unwrap().contains("cannot be the name of a volume"), "{answer}");
            assert_eq!(answer.get("Mountpoint"), None);
        }
    }
    let mut left: Vec<String> = std::fs::read_dir(service.storage())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".volio", "volumes.json"]);
    service.create(&"y".repeat(255), &[]);
    assert!(service.mount(&"y".repeat(255), "1").is_ok(), "the longest name");
}

#[test]
fn the_empty_body_that_docker_sends_after_a_lost_connection_is_not_answered_and_others_are_errors() {
    let service = Service::start();
    for call in ["Create", "Get", "Path", "Mount", "Unmount", "Remove"] {
        // An error would make Docker forget the volume that it asked for before.
        let mut stream = service.connect("volio");
        send(&mut stream, call, "");
        assert_eq!(receive(&mut stream), None, "{call}");
        for body in ["{}", "null", "[]", "{\"Name\":", "{\"Name\":1}", "\u{feff}{}"] {
            let mut stream = service.connect("volio");
            send(&mut stream, call, body);
            let (status, answer) = receive(&mut stream).unwrap();
            assert!(status == 500 && answer["Err"] != "", "{call} {body:?}: {answer}");
        }
    }
    for id in [Value::Null, json!(""), json!("a b"), json!("x".repeat(257))] {
        service.create("v", &[]);
        assert_eq!(service.volio("Mount", json!({"Name": "v", "ID": id})).0, 500, "{id}");
    }
}

#[test]
fn what_is_not_the_protocol_is_answered_and_ends_the_connection() {
    let service = Service::start();
    let fields = "X: y\r\n".repeat(100);
    let long = "y".repeat(20 << 10);
    for (request, status) in [
        ("GET /VolumeDriver.List HTTP/1.1\r\n\r\n".to_owned(), 405),
        ("PUT /VolumeDriver.Create HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}".to_owned(), 405),
        ("POST /VolumeDriver.Nothing HTTP/1.1\r\n\r\n".to_owned(), 404),
        ("POST / HTTP/1.1\r\n\r\n".to_owned(), 404),
        ("POST /VolumeDriver.List HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 411),
        ("POST /VolumeDriver.Get HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n".to_owned(), 413),
        ("POST /VolumeDriver.Get HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_owned(), 413),
        ("POST /VolumeDriver.Get HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(), 400),
        (
            "POST /VolumeDriver.Get HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}".to_owned(),
            400,
        ),
        (format!("POST /VolumeDriver.List HTTP/1.1\r\n{fields}\r\n"), 431),
        (format!("POST /VolumeDriver.List HTTP/1.1\r\nX: {long}"), 431),
        ("\u{1}\u{2}\u{3} hello\r\n\r\n".to_owned(), 400),
    ] {
        let answer = raw(&service, request.as_bytes());
        let shown: String = request.chars().take(80).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
        assert!(answer.contains("\"Err\":\""), "{answer}");
    }
    // And it still works.
    assert_eq!(service.volio("List", json!({})).0, 200);
}

#[test]
fn half_a_request_is_none() {
    let service = Service::start();
    for half in [
        "POST /VolumeDriver.Cre",
        "POST /VolumeDriver.Create HTTP/1.1\r\nContent-Length: 12\r\n\r\n{\"Name\":",
    ] {
        assert_eq!(raw(&service, half.as_bytes()), "");
    }
    assert_eq!(service.volio("List", json!({})).1["Volumes"], json!([]));
}

#[test]
fn requests_may_follow_each_other_without_waiting() {
    let service = Service::start();
    let body = r#"{"Name":"a"}"#;
    let create =
        format!("POST /VolumeDriver.Create HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let list = "POST /VolumeDriver.List HTTP/1.0\r\nContent-Type: x\r\n\r\n";
    let answers = raw(&service, format!("{create}{create}{list}ignored").as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    assert!(answers.ends_with(r#""Err":""}"#) && answers.contains(r#""Name":"a""#), "{answers}");
}

#[test]
fn a_large_body_within_the_limit_is_read_as_it_trickles_in() {
    let service = Service::start();
    let mut stream = service.connect("volio");
    let body = json!({"Name": "a", "Opts": {"cmd": "x".repeat(900 << 10)}}).to_string();
    write!(stream, "POST /VolumeDriver.Create HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    for part in body.as_bytes().chunks(100 << 10) {
        stream.write_all(part).unwrap();
        thread::yield_now();
    }
    assert_eq!(receive(&mut stream).unwrap().0, 200);
}

#[test]
fn clients_that_say_nothing_keep_nobody_else_out() {
    let service = Service::start();
    let silent: Vec<_> = (0..100)
        .map(|n| {
            let mut stream = service.connect("volio");
            // Some have begun a request.
            stream.write_all(if n % 2 == 0 { b"" } else { b"POST /Vol" }).unwrap();
            stream
        })
        .collect();
    assert_eq!(service.volio("List", json!({})).0, 200);
    drop(silent);
    // More than are allowed at once: some are turned away, and afterwards the plugin works.
    drop((0..200).map(|_| service.connect("volio")).collect::<Vec<_>>());
    let mut stream = service.connect("volio");
    send(&mut stream, "List", "{}");
    while receive(&mut stream).is_none() {
        thread::yield_now();
        stream = service.connect("volio");
        send(&mut stream, "List", "{}");
    }
}

#[test]
fn unknown_options_are_named_and_their_values_are_not() {
    let service = Service::start();
    let (status, answer) = service.volio("Create", json!({"Name": "a", "Opts": {"password": "hunter2"}}));
    let error = answer["Err"].as_str().unwrap();
    assert!(status == 500 && error.contains("\"password\"") && error.contains("pre-mount"), "{error}");
    let (_, answer) = service.volio("Create", json!({"Name": "a", "Opts": {"image": "me:hunter2@h.io/a"}}));
    let error = answer["Err"].as_str().unwrap().to_owned();
    assert!(error.contains("no user and no password"), "{error}");
    assert!(!service.journal.lock().unwrap().concat().contains("hunter2"));
    assert_eq!(service.volio("List", json!({})).1["Volumes"], json!([]));
}
