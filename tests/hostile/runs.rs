//! Runs of volio on hostile images, in a directory with files that must not change, as root and as an ordinary user.

use super::Case;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use volio::data_io::{archive_image, docker_layer};
use volio::image::Description;
use volio::layer::{Compression, Contents, Layer};
use volio::oci::Digest;
use volio::stream::Body;
use volio::transport::Destination;
use volio::transport::layout::Layout;

/// The user `nobody`.
const NOBODY: u32 = 65534;
/// More than any case takes on a busy machine.
const SECONDS: &str = "60";
/// Address space in KiB, most of which is the stacks of threads that are never used.
const MEMORY: &str = "1048576";

/// As whom volio runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Myself,
    Nobody,
}

impl User {
    pub fn all() -> Vec<Self> {
        if rustix::process::geteuid().is_root() {
            vec![Self::Myself, Self::Nobody]
        } else {
            vec![Self::Myself]
        }
    }

    pub fn is_root(self) -> bool {
        self == Self::Myself && rustix::process::geteuid().is_root()
    }
}

/// A directory with a layout, a target that is not there yet, and what must not change beside it.
pub struct Sandbox<'a> {
    program: &'a Program,
    directory: TempDir,
    user: User,
}

/// The result of a run.
pub struct Outcome {
    arguments: String,
    pub code: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// An entry of the target.
pub struct Found {
    pub path: String,
    /// True for a file with setuid or setgid of another user.
    pub is_special: bool,
}

/// The program where everybody can run it: an ordinary user may not be allowed to enter the directory it was built in.
pub struct Program(TempDir);

impl Program {
    pub fn new() -> Self {
        let place =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let (built, program) = (env!("CARGO_BIN_EXE_volio"), place.path().join("volio"));
        if fs::hard_link(built, &program).is_err() {
            // By another process: a file that is open for writing in this one cannot be run while any thread forks.
            assert!(Command::new("cp").arg(built).arg(&program).status().unwrap().success());
        }
        Self(place)
    }
}

impl<'a> Sandbox<'a> {
    pub fn new(program: &'a Program, user: User) -> Self {
        // In memory nothing waits for a disk.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let place = Self { program, directory: directory.unwrap(), user };
        fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(place.path("outside")).unwrap();
        fs::write(place.path("outside/precious"), "data").unwrap();
        if user == User::Nobody {
            for path in ["", "outside", "outside/precious"] {
                chown(place.path(path), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes `layout` of the case: its own, or one honest in everything but the layers.
    pub fn fill(&self, case: &Case) {
        let contents = case.contents();
        if case.kind == "layouts" {
            tar::Archive::new(contents[0].as_slice()).unpack(self.path("layout")).unwrap();
            return;
        }
        let layout = Layout::create(&self.path("layout"), Some("v1")).unwrap();
        let layers = contents.into_iter().map(|blob| {
            let size = blob.len() as u64;
            let diff_id = plain_digest(&blob);
            let written = layout.upload(Body::new(std::io::Cursor::new(blob))).unwrap();
            Layer::new(Compression::None, &Contents { diff_id, size, entries: 0, bytes: 0 }, written, None)
        });
        let built = Description::default().build(&layers.collect::<Vec<_>>()).unwrap();
        for document in built.configs.iter().chain(&built.manifests).chain([&built.root]) {
            layout.put_manifest(document).unwrap();
        }
        layout.commit(&built.root).unwrap();
    }

    /// Makes `layout` an image that data-io could have made, with the case as its data.
    pub fn fill_as_data_io(&self, case: &Case) {
        let data = case.contents().swap_remove(0);
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, "data.tar.gz", data.as_slice()).unwrap();
        let blob = archive.into_inner().unwrap();
        let layout = Layout::create(&self.path("layout"), Some("v1")).unwrap();
        let contents = Contents { diff_id: Digest::of(&blob), size: blob.len() as u64, entries: 1, bytes: 0 };
        let written = layout.upload(Body::new(std::io::Cursor::new(blob))).unwrap();
        let layer = Layer::new(Compression::None, &contents, written, None);
        let description =
            Description { platforms: vec![volio::oci::Platform::host()], ..Description::default() };
        let built = archive_image(&description, &docker_layer(layer), true).unwrap();
        layout.upload(Body::new(std::io::Cursor::new(built.configs[0].bytes().to_vec()))).unwrap();
        layout.put_manifest(&built.root).unwrap();
        layout.commit(&built.root).unwrap();
    }

    pub fn volio(&self, arguments: &[&str]) -> Outcome {
        self.volio_within(&format!("ulimit -v {MEMORY}"), arguments)
    }

    /// Runs volio after this command of a shell.
    pub fn volio_within(&self, limit: &str, arguments: &[&str]) -> Outcome {
        let limited = format!("{limit} && exec \"$@\"");
        let mut command = Command::new("timeout");
        command
            .args([SECONDS, "sh", "-c", &limited, "sh"])
            .arg(self.program.0.path().join("volio"))
            .args(arguments);
        command.current_dir(self.path("")).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        if self.user == User::Nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().unwrap();
        Outcome {
            arguments: arguments.join(" "),
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        }
    }

    /// All that is beside the target, and what it is.
    pub fn surroundings(&self) -> Vec<(PathBuf, u32, u64, i64, i64, Vec<u8>)> {
        let mut paths = vec![self.path("outside"), self.path("outside/precious"), self.path("layout")];
        let beside = fs::read_dir(self.path("")).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(beside.filter(|path| !path.ends_with("target") && !path.ends_with("copy")));
        paths.extend(fs::read_dir(self.path("outside")).unwrap().map(|entry| entry.unwrap().path()));
        paths.push("/outside-volio-evil".into());
        paths.sort();
        let see = |path: PathBuf| {
            let metadata = fs::symlink_metadata(&path).ok()?;
            let content =
                if metadata.is_file() && path.ends_with("precious") { fs::read(&path).ok()? } else { vec![] };
            // A lock may change the times of the layout.
            let (seconds, nanoseconds) =
                if path.ends_with("layout") { (0, 0) } else { (metadata.ctime(), metadata.ctime_nsec()) };
            // The program itself has more names in other places.
            let (seconds, nanoseconds) =
                if path.ends_with("volio") { (0, 0) } else { (seconds, nanoseconds) };
            Some((path, metadata.mode(), metadata.len(), seconds, nanoseconds, content))
        };
        paths.into_iter().filter_map(see).collect()
    }

    /// Returns the entries of the target, by paths in which everything is escaped that is not ASCII.
    pub fn target(&self) -> Vec<Found> {
        let root = self.path("target");
        let mut found = Vec::new();
        collect(&root, &mut found);
        found.sort_by(|a: &Found, b: &Found| a.path.cmp(&b.path));
        found
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        // Paths beyond what one call takes, which the standard library cannot remove.
        let _ = Command::new("rm").arg("-rf").arg(self.path("target")).status();
    }
}

/// Lists a directory by `find`, which survives any depth.
fn collect(root: &Path, found: &mut Vec<Found>) {
    if !root.exists() {
        return;
    }
    let arguments = [".", "-mindepth", "1", "-printf", "%P\\0%y%m\\0"];
    let output = Command::new("find").args(arguments).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut parts = output.stdout.split(|byte| *byte == 0);
    while let (Some(path), Some(mode)) = (parts.next(), parts.next()) {
        let bits = u32::from_str_radix(std::str::from_utf8(&mode[1..]).unwrap(), 8).unwrap();
        found.push(Found { path: escaped(path), is_special: mode[0] == b'f' && bits & 0o6000 != 0 });
    }
}

/// A path as `cases.txt` has it.
fn escaped(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

impl Outcome {
    /// Checks what no image may make volio do, with any outcome.
    pub fn terrible(&self) -> Option<String> {
        let screen = [self.stdout.as_slice(), &self.stderr].concat();
        let text = String::from_utf8_lossy(&screen);
        let obeyed = text.chars().find(|c| volio::error::is_harmful(*c) && *c != '\n');
        let what = match self.code {
            124 => format!("takes more than {SECONDS} seconds"),
            0..=7 => match obeyed {
                Some(c) => format!("prints {c:?}"),
                None if text.contains("panicked") => "panics".to_owned(),
                None => return None,
            },
            code => format!("ends with {code}"),
        };
        Some(format!("{} {what}: {}", self.arguments, self.screen()))
    }

    /// Returns the output, up to a length that a person would read.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.stderr).chars().take(400).collect::<String>().escape_debug().to_string()
    }

    /// The paths of a listing in JSON, without the root.
    pub fn paths(&self) -> Vec<String> {
        use base64::Engine as _;
        let listing: serde_json::Value = serde_json::from_slice(&self.stdout).unwrap_or_default();
        let raw = |row: &serde_json::Value| match row["pathRaw"].as_str() {
            Some(raw) => base64::engine::general_purpose::STANDARD.decode(raw).unwrap(),
            None => row["path"].as_str().unwrap().as_bytes().to_vec(),
        };
        let rows = listing["entries"].as_array().cloned().unwrap_or_default();
        let mut paths: Vec<String> = rows.iter().map(|row| escaped(&raw(row)[1..])).collect();
        paths.retain(|path| !path.is_empty());
        paths.sort();
        paths
    }
}

/// Runs a program to its end, and says how much memory it took at most, in bytes; it is ended when it takes too long.
pub fn peak_of(mut command: Command) -> (Output, u64) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut stderr, &mut text).map(|_| text)
    });
    let status = format!("/proc/{}/status", child.id());
    let begun = Instant::now();
    let mut peak = 0;
    // The kernel remembers the most, so that only what is taken in the last moment can be missed.
    let status = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        peak = peak.max(kibibytes.unwrap_or_default() << 10);
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > Duration::from_secs(60) => _ = child.kill(),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let stderr = reader.join().unwrap().unwrap();
    (Output { status, stdout: Vec::new(), stderr }, peak)
}

/// The digest of what a blob becomes when it is decompressed, as far as that goes.
fn plain_digest(blob: &[u8]) -> Digest {
    let mut plain = Vec::new();
    if let Ok(mut reader) = volio::layer::decompress(blob) {
        let mut limited = std::io::Read::take(&mut reader, 1 << 30);
        let _ = std::io::copy(&mut limited, &mut plain);
    }
    Digest::of(&plain)
}
