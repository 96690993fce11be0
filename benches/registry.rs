//! A registry that is not the bottleneck: `benches/compare` measures against it what tools cost by themselves.
//!
//! Blobs lie in the directory that is given as the only argument, which should be a tmpfs. They are taken as they come
//! and sent by `sendfile`; nothing is hashed but manifests, so that neither way costs more than the copying. Whether
//! what came is right is for the bench to find out. Cross-repository mounts are refused and blobs belong to one
//! repository, so that every run sends everything.
//!
//! It needs nothing but the standard library and is built by rustc alone; as a bench target it is checked with the rest.
//! The first line on stdout is its address. `GET /-/traffic` returns the bytes that were transferred so far, in both
//! directions and with all headers, without those of such questions themselves; `DELETE /-/blobs` forgets everything.
//! `POST /-/rewind` forgets what came after `POST /-/mark`, so that a change can be sent once more to the same image.

// Where the system gives no more threads, there is nothing to measure.
#![allow(clippy::disallowed_methods)]

#[path = "registry/http.rs"]
mod http;
#[path = "registry/store.rs"]
mod store;

use http::{Answer, Connection, Request};
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use store::Store;

fn main() -> io::Result<()> {
    let Some(directory) = std::env::args_os().skip(1).find(|word| word != "--bench") else {
        return Ok(()); // run by `cargo bench`: there is nothing to measure here
    };
    let store = Arc::new(Store::new(PathBuf::from(directory))?);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    for stream in listener.incoming() {
        let (stream, store) = (stream?, Arc::clone(&store));
        thread::spawn(move || match serve(stream, &store) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => eprintln!("{error}"),
            // A client that went away in the middle is its own business.
            _ => {}
        });
    }
    Ok(())
}

/// Answers the requests of a connection, one after the other.
fn serve(stream: TcpStream, store: &Store) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(request) = connection.request()? {
        let answer = match request.path.strip_prefix("/-/") {
            Some(question) => own(question, &request, store)?,
            None => route(&request, &mut connection, store)?,
        };
        connection.drain()?;
        connection.answer(&request, answer)?;
        let traffic = connection.take_traffic();
        if !request.path.starts_with("/-/") {
            store.count(traffic);
        }
    }
    Ok(())
}

/// A request of the benchmark itself.
fn own(question: &str, request: &Request, store: &Store) -> io::Result<Answer> {
    match (request.method.as_str(), question) {
        ("GET", "traffic") => {
            let (received, sent) = store.traffic();
            Ok(Answer::new(200).text(format!("{{\"received\": {received}, \"sent\": {sent}}}\n")))
        }
        ("DELETE", "blobs") => store.clear().map(|()| Answer::new(204)),
        ("POST", "mark") => {
            store.mark();
            Ok(Answer::new(204))
        }
        ("POST", "rewind") => store.rewind().map(|()| Answer::new(204)),
        _ => Ok(Answer::new(404)),
    }
}

/// The distribution API, as far as it takes to push and to pull.
fn route(request: &Request, connection: &mut Connection, store: &Store) -> io::Result<Answer> {
    let Some(path) = request.path.strip_prefix("/v2/") else { return Ok(Answer::new(404)) };
    if path.is_empty() {
        return Ok(Answer::new(200).text("{}".to_owned()));
    }
    let split = |word: &str| path.split_once(word).filter(|(name, _)| !name.is_empty());
    if let Some((name, upload)) = split("/blobs/uploads") {
        upload_blob(request, connection, store, name, upload.trim_start_matches('/'))
    } else if let Some((name, digest)) = split("/blobs/") {
        Ok(match store.blob(name, digest) {
            Some(path) => request.ranged(&path)?.header("docker-content-digest", digest),
            None => Answer::new(404),
        })
    } else if let Some((name, reference)) = split("/manifests/") {
        manifest(request, connection, store, name, reference)
    } else {
        Ok(Answer::new(404))
    }
}

fn manifest(
    request: &Request,
    connection: &mut Connection,
    store: &Store,
    name: &str,
    reference: &str,
) -> io::Result<Answer> {
    if request.method == "PUT" {
        let mut bytes = Vec::new();
        connection.body(&mut bytes)?;
        let media_type = request.header("content-type").unwrap_or_default().to_owned();
        let digest = store.put_manifest(name, reference, media_type, bytes)?;
        let location = format!("/v2/{name}/manifests/{digest}");
        return Ok(Answer::new(201)
            .header("location", &location)
            .header("docker-content-digest", &digest)
            .text(String::new()));
    }
    Ok(match store.manifest(name, reference) {
        Some(manifest) => Answer::new(200)
            .header("content-type", &manifest.media_type)
            .header("docker-content-digest", &manifest.digest)
            .bytes(manifest.bytes.clone()),
        None => Answer::new(404),
    })
}

/// An upload, by whichever of the ways the client knows: `POST`, `PATCH`es, `PUT`.
fn upload_blob(
    request: &Request,
    connection: &mut Connection,
    store: &Store,
    name: &str,
    upload: &str,
) -> io::Result<Answer> {
    let upload = match (request.method.as_str(), upload) {
        ("POST", "") => store.begin()?,
        ("PATCH" | "PUT" | "GET", upload) => upload.to_owned(),
        ("DELETE", upload) => {
            store.abandon(upload);
            return Ok(Answer::new(204));
        }
        _ => return Ok(Answer::new(405)),
    };
    let Some(mut file) = store.upload(&upload)? else { return Ok(Answer::new(404)) };
    if request.method != "GET" {
        connection.body(&mut file)?;
    }
    let length = file.metadata()?.len();
    if let Some(digest) = request.query("digest").filter(|_| request.method != "PATCH") {
        store.seal(&upload, name, &digest);
        let location = format!("/v2/{name}/blobs/{digest}");
        return Ok(Answer::new(201)
            .header("location", &location)
            .header("docker-content-digest", &digest)
            .text(String::new()));
    }
    let location = format!("/v2/{name}/blobs/uploads/{upload}");
    Ok(Answer::new(if request.method == "GET" { 204 } else { 202 })
        .header("location", &location)
        .header("docker-upload-uuid", &upload)
        .header("range", &format!("0-{}", length.saturating_sub(1))))
}
