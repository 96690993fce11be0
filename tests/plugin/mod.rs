//! Tests of the volume plugin, over its socket as engines use it. Tests with real engines are in
//! `engines/docker/volumes.rs`.

mod exports;
mod fills;
mod gate;
mod hooks;
mod kept;
mod protocol;
mod removal;
mod signed;
mod state;
mod storage;
mod synced;
mod volmex;

pub use gate::Gate;

use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use volio::plugin::{Driver, MinSpeed, Plugin, Settings, Socket, serve};
use volio::stream::CancelToken;
use volio::transport::{Access, ClientOptions, Retry};

/// The time that a test waits for an expected event: only a broken one takes that long. An export that found an engine still
/// counting a mount is tried again after half a minute.
const SOON: Duration = Duration::from_secs(90);

/// A plugin in this process, with its storage and its sockets.
struct Service {
    place: TempDir,
    journal: Arc<Mutex<Vec<String>>>,
    running: Option<(CancelToken, JoinHandle<()>)>,
    patience: Duration,
    drivers: Vec<Driver>,
    /// Changes to the usual settings.
    adjust: Box<dyn Fn(&mut Settings) + Send + Sync>,
}

impl Service {
    /// Serves both drivers, with the time limit of an engine.
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same after the storage was prepared.
    fn start_with(prepare: impl FnOnce(&Path)) -> Self {
        Self::patient(SOON, prepare)
    }

    /// The same with other settings.
    fn adjusted(adjust: impl Fn(&mut Settings) + Send + Sync + 'static) -> Self {
        let mut service = Self::start();
        service.stop();
        service.adjust = Box::new(adjust);
        service.run().unwrap();
        service
    }

    fn patient(patience: Duration, prepare: impl FnOnce(&Path)) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("storage")).unwrap();
        let drivers = vec![Driver::Volio, Driver::Volmex];
        let adjust = Box::new(|_: &mut Settings| {});
        let mut service = Self { place, journal: Arc::default(), running: None, patience, drivers, adjust };
        prepare(&service.storage());
        service.run().unwrap();
        service
    }

    fn settings(&self) -> Settings {
        let journal = Arc::clone(&self.journal);
        // An error of a registry has to be seen at once.
        let retry = Retry { retries: 0, delay: Duration::ZERO };
        let access =
            Access { client: ClientOptions { retry, ..ClientOptions::default() }, ..Access::default() };
        let mut settings = Settings {
            storage: self.storage(),
            drivers: self.drivers.clone(),
            answer_timeout: self.patience,
            check_interval: Duration::from_millis(50),
            mount_grace: SOON * 2,
            min_speed: MinSpeed::default(),
            access: Box::new(move || Ok(access.clone())),
            signatures: None,
            log: Box::new(move |line| journal.lock().unwrap().push(line.to_owned())),
            clock: SystemTime::now,
            search_path: "/usr/local/bin:/usr/bin:/bin".into(),
        };
        (self.adjust)(&mut settings);
        settings
    }

    /// Changes the stored state of a volume while no plugin runs.
    fn with_record(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let file = self.storage().join(".volio").join(name).join("record.json");
        let mut record = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut record);
        fs::write(&file, record.to_string()).unwrap();
    }

    fn run(&mut self) -> volio::Result<()> {
        let deadline = Instant::now() + SOON;
        let plugin = loop {
            match Plugin::open(self.settings()) {
                // Within one process, the previous plugin ends only with its last connection.
                Err(error) if error.to_string().contains("another plugin") && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                opened => break opened?,
            }
        };
        let make = |driver: &Driver| Socket::make(&self.place.path().join("sockets"), *driver);
        let sockets = self.drivers.iter().map(make).collect::<volio::Result<Vec<_>>>()?;
        let cancel = CancelToken::default();
        let token = cancel.clone();
        let thread = thread::spawn(move || serve(&plugin, sockets, &token).unwrap());
        self.running = Some((cancel, thread));
        Ok(())
    }

    fn stop(&mut self) {
        if let Some((cancel, thread)) = self.running.take() {
            cancel.cancel();
            thread.join().unwrap();
        }
    }

    fn restart(&mut self) {
        self.stop();
        self.run().unwrap();
    }

    fn storage(&self) -> PathBuf {
        // The path as the plugin names it.
        self.place.path().canonicalize().unwrap().join("storage")
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.storage().join(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn socket(&self, driver: &str) -> PathBuf {
        self.place.path().join(format!("sockets/{driver}.sock"))
    }

    fn connect(&self, driver: &str) -> UnixStream {
        let stream = UnixStream::connect(self.socket(driver)).unwrap();
        stream.set_read_timeout(Some(SOON * 2)).unwrap();
        stream
    }

    /// Calls the plugin as Docker does. Returns the status and the response.
    fn ask(&self, driver: &str, call: &str, body: &Value) -> (u16, Value) {
        let mut stream = self.connect(driver);
        send(&mut stream, call, &format!("{body}\n"));
        receive(&mut stream).expect("an answer")
    }

    fn volio(&self, call: &str, body: Value) -> (u16, Value) {
        self.ask("volio", call, &body)
    }

    fn create(&self, name: &str, options: &[(&str, &str)]) {
        let options: Value = options.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        assert_eq!(self.volio("Create", json!({"Name": name, "Opts": options})), (200, json!({"Err": ""})));
    }

    fn mount(&self, name: &str, id: &str) -> Result<PathBuf, String> {
        match self.volio("Mount", json!({"Name": name, "ID": id})) {
            (200, answer) => Ok(answer["Mountpoint"].as_str().unwrap().into()),
            (500, answer) => Err(answer["Err"].as_str().unwrap().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn unmount(&self, name: &str, id: &str) -> (u16, Value) {
        self.volio("Unmount", json!({"Name": name, "ID": id}))
    }

    fn status(&self, name: &str) -> Value {
        let (status, answer) = self.volio("Get", json!({"Name": name}));
        assert_eq!(status, 200, "{answer}");
        answer["Volume"]["Status"].clone()
    }

    /// Waits for a status of a volume.
    #[track_caller]
    fn wait_for_status(&self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.status(name);
            if is_it(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status} {:?}", self.journal.lock().unwrap());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Packs a tree of files into a layout beside the storage. Returns the name of the image.
    fn pack(&self, tag: &str, files: &[(&str, &str)]) -> String {
        let tree = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = tree.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let image = format!("oci:{}:{tag}", self.path("layout").display());
        pack(&image, tree.path());
        image
    }

    /// Unpacks an image.
    fn unpack(&self, image: &str) -> TempDir {
        let target = tempfile::tempdir().unwrap();
        let source = image.parse::<volio::transport::Location>().unwrap().source(&Access::default()).unwrap();
        let options = volio::unpack::Options::default();
        volio::unpack::unpack(source.as_ref(), target.path(), &options, &volio::progress::Silent).unwrap();
        target
    }

    fn has_said(&self, words: &str) -> bool {
        self.journal.lock().unwrap().iter().any(|line| line.contains(words))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn pack(image: &str, tree: &Path) {
    let destination =
        image.parse::<volio::transport::Location>().unwrap().destination(&Access::default()).unwrap();
    let sources = [volio::tree::SourceSpec::new(tree)];
    volio::pack::pack(destination.as_ref(), &sources, &Default::default(), &volio::progress::Silent).unwrap();
}

/// Nests directories.
fn nest(root: &Path, depth: usize) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut here = openat(CWD, root, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&here, "directory", Mode::RWXU).unwrap();
        here = openat(&here, "directory", flags, Mode::empty()).unwrap();
    }
}

/// Sends what Docker 20.10 sends.
fn send(stream: &mut UnixStream, call: &str, body: &str) {
    let path = if call.contains('.') { format!("/{call}") } else { format!("/VolumeDriver.{call}") };
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\n\
         Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

/// Reads one response; `None` if the connection ends without one.
fn receive(stream: &mut UnixStream) -> Option<(u16, Value)> {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => read.push(byte[0]),
            Ok(_) => return None,
            // A client that is turned away before all was read gets this error instead of an end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no answer: {error}"),
        }
    }
    let head = String::from_utf8(read).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some((status, serde_json::from_slice(&body).unwrap()))
}
