//! Documents that would take much more memory parsed than as text.

use super::runs::peak_of;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The memory limit of all commands, in bytes.
const MOST: u64 = 300 << 20;

fn volio(place: &Path, arguments: &[&str]) -> (i32, u64, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command.args(arguments).current_dir(place).env_clear();
    let (output, peak) = peak_of(command);
    (output.status.code().unwrap_or(-1), peak, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A layout with this text as `index.json`.
fn layout(place: &Path, index: &str) {
    fs::create_dir_all(place.join("layout/blobs/sha256")).unwrap();
    fs::write(place.join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(place.join("layout/index.json"), index).unwrap();
}

/// An index of about so many bytes whose entries are all alike.
fn index(size: usize, entry: impl Fn(usize) -> String) -> String {
    let mut text = String::from(r#"{"schemaVersion":2,"manifests":["#);
    for number in 0.. {
        let comma = if number > 0 { "," } else { "" };
        write!(text, "{comma}{}", entry(number)).unwrap();
        if text.len() >= size {
            break;
        }
    }
    text + "]}"
}

fn entry(number: usize, more: &str) -> String {
    format!(r#"{{"mediaType":"","digest":"sha256:{number:064x}","size":1{more}}}"#)
}

#[test]
fn an_index_takes_no_more_memory_than_its_limit_promises() {
    let annotations: String = (0..2000).map(|number| format!(r#""{number:x}":"","#)).collect();
    let members: String = (0..2000).map(|number| format!(r#","{number:x}":1"#)).collect();
    let list = format!(r#","x":[{}0]"#, "0,".repeat(3 << 20));
    for more in [
        r#","annotations":{"":""}"#.to_owned(),
        format!(r#","annotations":{{{annotations}"x":""}}"#),
        members,
        list,
    ] {
        let place = tempfile::tempdir().unwrap();
        layout(place.path(), &index((8 << 20) - (7 << 18), |number| entry(number, &more)));
        fs::create_dir(place.path().join("tree")).unwrap();
        for arguments in [
            &["tags", "oci:layout"][..],
            &["ls", "oci:layout:v1"],
            &["pack", "oci:layout:v1", "tree"],
            &["rm", "oci:layout:v1"],
        ] {
            let (code, peak, stderr) = volio(place.path(), arguments);
            let shown: String = stderr.chars().take(300).collect();
            assert!((0..=7).contains(&code) && peak < MOST, "{arguments:?} {code} {peak} {shown}");
        }
    }
}

#[test]
fn an_index_beyond_the_limit_is_refused_without_being_parsed() {
    let place = tempfile::tempdir().unwrap();
    layout(place.path(), &index(9 << 20, |number| entry(number, "")));
    let (code, peak, stderr) = volio(place.path(), &["tags", "oci:layout"]);
    assert!(code == 3 && peak < 60 << 20, "{code} {peak} {stderr}");
}

#[test]
fn the_list_of_a_docker_archive_takes_no_more_memory_than_its_limit_promises() {
    for (size, refused) in [(3 << 20, false), (5 << 20, true)] {
        let place = tempfile::tempdir().unwrap();
        let layers = r#""a","#.repeat(size / 4);
        let list = format!(r#"[{{"Config":"c","RepoTags":["x:1"],"Layers":[{layers}"b"]}}]"#);
        let mut archive = tar::Builder::new(fs::File::create(place.path().join("archive")).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(list.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "manifest.json", list.as_bytes()).unwrap();
        archive.into_inner().unwrap();
        let (code, peak, stderr) = volio(place.path(), &["ls", "docker-archive:archive"]);
        assert!(code == 3 && peak < MOST, "{code} {peak} {stderr}");
        assert_eq!(stderr.contains("is larger than"), refused, "{stderr}");
    }
}
