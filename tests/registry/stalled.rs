//! A registry that stalls in the middle of a blob, while the client has a reason to stop.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use volio::image::Description;
use volio::layer::{Compression, Contents, Layer};
use volio::oci::{Descriptor, Digest, Document, Index, Manifest, media_type};
use volio::pack::{self, pack};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::memory::Memory;
use volio::transport::{Access, ClientOptions, Destination, Retry, Source, fetch, registry};
use volio::tree::SourceSpec;
use volio::unpack::{self, WriteMode, unpack};

/// Longer than the test waits, and shorter than a developer would.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A server of the blobs of one image, which stalls after some bytes of one of them.
struct StalledServer {
    root: Document,
    blobs: HashMap<String, (Vec<u8>, &'static str)>,
    stalled: Digest,
    /// The number of bytes before the stall.
    after: usize,
}

impl StalledServer {
    fn new(image: &Memory, stalled: &Descriptor, after: usize) -> Self {
        let root = image.resolve().unwrap();
        let mut blobs = HashMap::new();
        let mut add = |descriptor: &Descriptor, kind| {
            let mut bytes = Vec::new();
            image.open(descriptor).unwrap().verify(descriptor).read_to_end(&mut bytes).unwrap();
            blobs.insert(descriptor.digest.to_string(), (bytes, kind));
        };
        let index = Index::parse(&root).unwrap();
        for entry in &index.manifests {
            let manifest = Manifest::parse(&fetch(image, entry).unwrap()).unwrap();
            add(entry, media_type::MANIFEST);
            add(&manifest.config, "application/octet-stream");
            manifest.layers.iter().for_each(|layer| add(layer, "application/octet-stream"));
        }
        Self { root, blobs, stalled: stalled.digest.clone(), after }
    }

    /// Serves for as long as the test runs, and returns the address.
    fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server: &'static Self = Box::leak(Box::new(self));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || server.serve(connection));
            }
        });
        host
    }

    fn serve(&self, mut connection: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(connection.try_clone()?).lines();
        loop {
            let Some(Ok(request)) = lines.next() else { return Ok(()) };
            let head: Vec<String> =
                lines.by_ref().map_while(|line| line.ok().filter(|line| !line.is_empty())).collect();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default();
            let (bytes, kind) = match self.blobs.get(name) {
                Some((bytes, kind)) => (bytes.as_slice(), *kind),
                None => (self.root.bytes(), media_type::INDEX),
            };
            let range = head
                .iter()
                .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            let (status, start, end) = match range.as_deref().and_then(|range| range.split_once('-')) {
                Some((start, last)) => {
                    let (start, end) = (start.parse().unwrap(), last.parse::<usize>().unwrap() + 1);
                    (
                        format!(
                            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
                            end - 1,
                            bytes.len()
                        ),
                        start,
                        end,
                    )
                }
                None => ("200 OK".to_owned(), 0, bytes.len()),
            };
            let length = end - start;
            write!(
                connection,
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
            )?;
            if *name == self.stalled.to_string() && start < self.after {
                connection.write_all(&bytes[start..end.min(self.after)])?;
                thread::sleep(4 * STALL_TIMEOUT);
                return Ok(());
            }
            connection.write_all(&bytes[start..end])?;
        }
    }
}

/// Unpacks the image over `target`, which has to fail, and returns the error and the time that it took.
fn unpack_from(server: StalledServer, target: &Path) -> (volio::Error, Duration) {
    let host = server.start();
    let retry = Retry { retries: 0, delay: Duration::ZERO };
    let client = ClientOptions { stall_timeout: STALL_TIMEOUT, retry, ..ClientOptions::default() };
    let access = Access { client, ..Access::default() };
    let source = registry::Registry::source(&format!("{host}/a:t").parse().unwrap(), &access).unwrap();
    let options = unpack::Options {
        write: WriteMode::Merge { replace_directories: false },
        ..unpack::Options::default()
    };
    let begun = Instant::now();
    let error = unpack(&*source, target, &options, &Silent).unwrap_err();
    (error, begun.elapsed())
}

/// A layer of a plain archive in which a hard link leads nowhere, after so many files that the next layer is on its way when
/// that is found out.
fn with_broken_link(image: &Memory) -> Layer {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    for number in 0..3000 {
        archive.append_data(&mut header, format!("{number}"), io::empty()).unwrap();
    }
    header.set_entry_type(tar::EntryType::Link);
    archive.append_link(&mut header, "link", "missing").unwrap();
    of_archive(image, &archive.into_inner().unwrap())
}

fn of_archive(image: &Memory, archive: &[u8]) -> Layer {
    let written = image.upload(Body::new(io::Cursor::new(archive.to_vec()))).unwrap();
    let contents = Contents { diff_id: Digest::of(archive), size: written.size, entries: 0, bytes: 0 };
    Layer::new(Compression::None, &contents, written, None)
}

#[test]
fn an_error_of_extracting_ends_the_download_of_the_next_layer_at_once() {
    let image = Memory::default().named("a:t");
    let next = of_archive(&image, &vec![0; 1 << 20]);
    let built = Description::default().build(&[with_broken_link(&image), next.clone()]).unwrap();
    for document in built.configs.iter().chain(&built.manifests).chain([&built.root]) {
        image.put_manifest(document).unwrap();
    }
    image.commit(&built.root).unwrap();
    let target = tempfile::tempdir().unwrap();
    let server = StalledServer::new(&image, &next.descriptor, 1000);
    let (error, time) = unpack_from(server, target.path());
    assert!(error.to_string().contains("hard link"), "{error}");
    assert!(time < STALL_TIMEOUT / 2, "{time:?}");
}

#[test]
fn an_error_of_extracting_ends_the_download_of_the_same_layer_at_once() {
    let (tree, image) = (tempfile::tempdir().unwrap(), Memory::default().named("a:t"));
    fs::write(tree.path().join("a"), "content").unwrap();
    let mut noise = vec![0; 12 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(tree.path().join("b"), noise).unwrap();
    pack(&image, &[SourceSpec::new(tree.path())], &pack::Options::default(), &Silent).unwrap();
    let index = Index::parse(&image.resolve().unwrap()).unwrap();
    let manifest = Manifest::parse(&fetch(&image, &index.manifests[0]).unwrap()).unwrap();
    let target = tempfile::tempdir().unwrap();
    fs::create_dir_all(target.path().join("a/in-the-way")).unwrap();
    // The first frame has the first file, and the second one never comes.
    let server = StalledServer::new(&image, &manifest.layers[0], 4096);
    let (error, time) = unpack_from(server, target.path());
    assert!(error.to_string().contains("/a"), "{error}");
    assert!(time < STALL_TIMEOUT / 2, "{time:?}");
}
