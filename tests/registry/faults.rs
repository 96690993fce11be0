//! Registries and networks that fail or send wrong data.

use super::{Damage, Refusal, Registry, patient};
use axum::http::Method;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::thread;
use volio::error::Kind;
use volio::oci::{DOCUMENT_LIMIT, Descriptor, Document, media_type};
use volio::stream::{Body, Unverified};
use volio::transport::{Access, Destination, Source, registry};
use volio::{Error, Result};

const BLOB: &str = "application/octet-stream";
const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

fn upload(client: &dyn Destination, bytes: &[u8]) -> Result<Descriptor> {
    client.upload(Body::new(io::Cursor::new(bytes.to_vec())))?;
    Ok(Descriptor::of(BLOB, bytes))
}

/// Returns the bytes before the end or the error, and the result.
fn read(source: &dyn Source, descriptor: &Descriptor) -> (Vec<u8>, Result<()>) {
    let mut bytes = Vec::new();
    let read = source.open(descriptor).and_then(|body| {
        let mut body = body.verify(descriptor);
        body.read_to_end(&mut bytes).map_err(|error| Error::io("cannot read", error))?;
        body.finish().map(drop)
    });
    (bytes, read)
}

#[test]
fn a_damaged_blob_is_never_accepted() {
    for damage in [Damage::Flip, Damage::Truncate, Damage::Extend] {
        for size in [1, 1_000_000] {
            let registry = Registry::start();
            let client = registry.client("a", "t");
            let descriptor = upload(&client, &vec![7; size]).unwrap();
            registry.damage(&descriptor.digest, damage);
            let error = read(&client, &descriptor).1.unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity, "{damage:?} {error}");
        }
    }
}

#[test]
fn a_damaged_manifest_is_never_accepted() {
    for damage in [Damage::Flip, Damage::Truncate, Damage::Extend] {
        let registry = Registry::start();
        registry.plant("a", "t", media_type::MANIFEST, MANIFEST);
        let descriptor = Descriptor::of(media_type::MANIFEST, MANIFEST);
        registry.damage(&descriptor.digest, damage);
        let client = registry.client("a", "t");
        // By its tag, by its digest, and from an index.
        assert_eq!(client.resolve().unwrap_err().kind(), Kind::Integrity, "{damage:?}");
        let name = format!("{}/a@{}", registry.host(), descriptor.digest);
        let by_digest = registry::Registry::new(name.parse().unwrap(), &Access::default()).unwrap();
        assert_eq!(by_digest.resolve().unwrap_err().kind(), Kind::Integrity, "{damage:?}");
        assert_eq!(read(&client, &descriptor).1.unwrap_err().kind(), Kind::Integrity, "{damage:?}");
    }
}

#[test]
fn a_registry_that_names_another_digest_is_an_integrity_error() {
    let registry = Registry::start();
    registry.plant("a", "t", media_type::MANIFEST, MANIFEST);
    registry.behave(|behaviour| behaviour.lies_about_digests = true);
    assert_eq!(registry.client("a", "t").resolve().unwrap_err().kind(), Kind::Integrity);
}

#[test]
fn a_document_with_another_media_type_than_the_header_is_rejected() {
    let registry = Registry::start();
    let index = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media_type::INDEX);
    registry.plant("a", "t", media_type::MANIFEST, index);
    assert_eq!(registry.client("a", "t").resolve().unwrap_err().kind(), Kind::Integrity);
}

#[test]
fn an_oversized_manifest_is_rejected() {
    let registry = Registry::start();
    let limit = DOCUMENT_LIMIT as usize;
    let padded = |size: usize| [MANIFEST, &vec![b' '; size - MANIFEST.len()]].concat();
    for (tag, size, allowed) in
        [("limit", limit, true), ("over", limit + 1, false), ("far", 3 * limit, false)]
    {
        registry.plant("a", tag, media_type::MANIFEST, padded(size));
        match registry.client("a", tag).resolve() {
            Ok(document) => assert!(allowed && document.bytes().len() == size, "{tag}"),
            Err(error) => {
                assert!(!allowed && error.kind() == Kind::Integrity, "{tag}: {error}");
                assert!(error.to_string().contains("larger than"), "{error}");
            }
        }
    }
}

#[test]
fn a_cut_connection_is_an_error_and_not_an_end() {
    let registry = Registry::start();
    let client = registry.client("a", "t");
    let bytes = vec![7; 3_000_000];
    let descriptor = upload(&client, &bytes).unwrap();
    for count in [0, 1, 1_500_000, 2_999_999] {
        registry.behave(|behaviour| behaviour.cuts_blobs_after = Some(count));
        let once = registry.client_by("a", |client| client.retry.retries = 0);
        let (bytes, end) = read(&once, &descriptor);
        let error = end.unwrap_err();
        // A short end of file would be an integrity error.
        assert_eq!(error.kind(), Kind::Failed, "{error}");
        assert!(error.to_string().contains(registry.host()), "{error}");
        assert!(bytes.len() <= count);
    }
}

#[test]
fn error_responses_are_reported_with_the_host_the_operation_and_the_reason() {
    let body = r#"{"errors":[{"code":"TEAPOT","message":"short\u001b[31m and stout"}]}"#;
    for (status, kind) in [
        (400, Kind::Failed),
        (403, Kind::Denied),
        (404, Kind::NotFound),
        (413, Kind::Failed),
        (429, Kind::Failed),
        (500, Kind::Failed),
        (503, Kind::Failed),
    ] {
        for (method, path) in
            [(Method::GET, "/manifests/"), (Method::POST, "/uploads/"), (Method::GET, "/blobs/")]
        {
            let registry = Registry::start();
            registry.behave(|behaviour| {
                behaviour.refusals.push(Refusal {
                    method: method.clone(),
                    path,
                    status,
                    body: body.to_owned(),
                    ..Refusal::default()
                });
            });
            let client = registry.client_by("a", |client| client.retry.retries = 0);
            let error = match (method.as_str(), path) {
                ("POST", _) => upload(&client, b"data").unwrap_err(),
                (_, "/blobs/") => client.open(&Descriptor::of(BLOB, b"data")).err().unwrap(),
                _ => client.resolve().unwrap_err(),
            };
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            assert!(text.contains(registry.host()) && text.contains(&status.to_string()), "{text}");
            assert!(text.contains(r"TEAPOT: short\u{1b}[31m and stout"), "{text}");
        }
    }
}

#[test]
fn a_rejection_in_the_middle_of_an_upload_is_reported_and_the_upload_aborted() {
    for (method, known) in [(Method::PATCH, false), (Method::PUT, false), (Method::PUT, true)] {
        let registry = Registry::start();
        registry.behave(|behaviour| {
            let body = r#"{"errors":[{"code":"SIZE_INVALID","message":"no"}]}"#.to_owned();
            behaviour.refusals.push(Refusal {
                method: method.clone(),
                path: "/uploads/",
                status: 400,
                body,
                ..Refusal::default()
            });
        });
        let client = registry.client("a", "t");
        let bytes = vec![7; 20 << 20];
        let descriptor = Descriptor::of(BLOB, &bytes);
        let body = if known {
            Unverified::new(io::Cursor::new(bytes)).verify(&descriptor)
        } else {
            Body::new(io::Cursor::new(bytes))
        };
        let error = client.upload(body).unwrap_err();
        assert!(error.to_string().contains("400"), "{method} {known}: {error}");
        assert_eq!(registry.open_uploads(), 0);
        assert_eq!(registry.blob("a", &descriptor.digest), None);
    }
}

#[test]
fn a_body_that_fails_aborts_the_upload() {
    let registry = Registry::start();
    let client = registry.client("a", "t");
    let dying = io::Cursor::new(vec![7; 1_000_000]).chain(FailingReader);
    let error = client.upload(Body::new(dying)).unwrap_err();
    // The error is that of the body and not of the request.
    assert!(error.to_string().contains("the disk has burnt"), "{error}");
    assert_eq!(registry.open_uploads(), 0);
    assert_eq!(registry.paths(Method::DELETE).len(), 1);
}

struct FailingReader;

impl Read for FailingReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the disk has burnt"))
    }
}

#[test]
fn a_registry_that_checks_nothing_never_gets_a_complete_wrong_blob() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.believes_digests = true);
    let client = registry.client("a", "t");
    // The last bytes may fill a chunk, so that the end is seen later.
    for size in [0, 1, 1 << 18, 1 << 20, 1_000_000] {
        let (promised, lie) = (vec![7; size.max(1)], vec![8; size]);
        let mut descriptor = Descriptor::of(BLOB, &promised);
        descriptor.size = size as u64;
        let error = client.upload(Unverified::new(io::Cursor::new(lie)).verify(&descriptor)).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
        assert_eq!(registry.blob("a", &descriptor.digest), None, "{size}");
    }
}

#[test]
fn a_manifest_without_its_blobs_is_rejected() {
    let registry = Registry::start();
    let absent = serde_json::to_string(&Descriptor::of(media_type::CONFIG, b"absent")).unwrap();
    let json = format!(r#"{{"schemaVersion":2,"config":{absent},"layers":[]}}"#);
    let document = Document::new(media_type::MANIFEST, json.into_bytes());
    let error = registry.client("a", "t").put_manifest(&document).unwrap_err();
    assert!(error.to_string().contains("MANIFEST_BLOB_UNKNOWN"), "{error}");
}

#[test]
fn a_registry_that_is_not_running_is_reported_with_a_hint() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let name = format!("localhost:{port}/a:t");
    let error =
        registry::Registry::new(name.parse().unwrap(), &Access::default()).unwrap().resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(error.hint(), Some(&*format!("is the registry running at localhost:{port}?")));
}

/// Starts a server that sends the same response to every request.
fn fixed_server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    // The thread runs until the process of the tests ends.
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(answer);
        }
    });
    host
}

#[test]
fn malformed_responses_are_errors() {
    let answers: [&[u8]; 14] = [
        b"",
        b"\x16\x03\x01\x02\x00\x01",
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        b"HTTP/1.1 999 \xff\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: /v2/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 307 Moved\r\nLocation: http://[::1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 307 Moved\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"\\\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"http://169.254.169.254/\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\n\xff\x1b{",
    ];
    for answer in answers {
        let name = format!("{}/a:t", fixed_server(answer));
        let client = registry::Registry::new(
            name.parse().unwrap(),
            &Access { client: patient(), ..Access::default() },
        )
        .unwrap();
        let answer = String::from_utf8_lossy(answer);
        assert!(client.resolve().is_err(), "{answer:?}");
        assert!(upload(&client, b"data").is_err(), "{answer:?}");
        let (_, end) = read(&client, &Descriptor::of(BLOB, b"data"));
        assert!(end.is_err(), "{answer:?}");
    }
}

#[test]
fn a_manifest_of_a_hundred_megabytes_is_rejected_before_it_is_read() {
    let registry = Registry::start();
    registry.plant("a", "t", media_type::MANIFEST, vec![b' '; 100 << 20]);
    assert_eq!(registry.client("a", "t").resolve().unwrap_err().kind(), Kind::Integrity);
}

#[test]
fn endless_manifests_and_blobs_are_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for connection in listener.incoming() {
            thread::spawn(move || {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4096]);
                let head =
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n";
                // This fails when the client closes the connection.
                let _ = connection.write_all(head);
                while connection.write_all(&[b' '; 65536]).is_ok() {}
            });
        }
    });
    let access = Access { client: patient(), ..Access::default() };
    let client = registry::Registry::new(format!("{host}/a:t").parse().unwrap(), &access).unwrap();
    assert_eq!(client.resolve().unwrap_err().kind(), Kind::Integrity);
    let (bytes, read) = read(&client, &Descriptor::of(BLOB, &[b' '; 100]));
    assert_eq!((bytes.len() <= 100, read.unwrap_err().kind()), (true, Kind::Integrity));
}
