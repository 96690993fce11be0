//! Containers of the soak test: a script that does some operations, and writes a journal outside of the volumes with
//! its findings at the start and its progress.

use super::model::{By, Model};
use super::random::Random;
use super::tree::{self, LIST, Op, Tree};
use super::world::World;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// The mount points of volumes in containers. Some images have the first directory, and then dockerd mounts the volume
/// also when a container is created.
pub const DESTINATIONS: [&str; 2] = ["/data", "/other"];

/// The image of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Plain,
    /// With an empty directory at the mount point, which has an owner.
    Directory,
    /// With a file in that directory.
    Copying,
}

pub const COPIED: (&str, &[u8]) = ("copied", b"from the image of the container\n");

impl Base {
    pub fn image(self) -> &'static str {
        match self {
            Self::Plain => "localhost/soak-plain:1",
            Self::Directory => "localhost/soak-directory:1",
            Self::Copying => "localhost/soak-copying:1",
        }
    }

    /// Returns the entries that dockerd copies into an empty volume.
    pub fn copied(self) -> Tree {
        match self {
            Self::Copying => super::volume::content(&vec![(COPIED.0.to_owned(), COPIED.1.to_vec())]),
            _ => Tree::new(),
        }
    }
}

/// The end of a script.
#[derive(Clone, Copy)]
pub enum Ending {
    /// It ends by itself.
    Ends,
    /// It runs until it is ended.
    Holds,
    /// It waits for [`Container::go`] before the operations from this number on.
    Waits(usize),
}

pub struct Container {
    pub name: String,
    pub base: Base,
    pub directory: PathBuf,
    /// Each with the number of the volume that it is in.
    pub ops: Vec<(usize, Op)>,
    mounts: Vec<String>,
}

impl Container {
    /// Writes a script.
    pub fn new(world: &World, volumes: &[&str], base: Base, ops: Vec<(usize, Op)>, ending: Ending) -> Self {
        let name = world.container();
        let directory = world.place.join(&name);
        fs::create_dir(&directory).unwrap();
        let mut script = format!(
            "umask 022\nrun=$(cat /ack/runs 2>/dev/null | wc -l)\necho run >>/ack/runs\necho r $run >>/ack/log\n{LIST}"
        );
        for (number, at) in DESTINATIONS.iter().enumerate().take(volumes.len()) {
            let seen = format!("/ack/seen.$run.{number}");
            writeln!(script, "(list {at}) >{seen}.part && mv {seen}.part {seen}").unwrap();
        }
        for (number, (volume, op)) in ops.iter().enumerate() {
            if let Some(content) = op.content() {
                fs::write(directory.join(format!("in.{number}")), content).unwrap();
            }
            if matches!(ending, Ending::Waits(first) if first == number) {
                script.push_str("echo end >>/ack/log\nwhile [ ! -e /ack/go ]; do sleep 0.2; done\n");
            }
            let command = op.command(DESTINATIONS[*volume], &format!("/ack/in.{number}"));
            writeln!(
                script,
                "echo b {number} >>/ack/log\nif {command}; then echo e {number}; else echo x {number}; fi >>/ack/log\nsleep 0.1"
            )
            .unwrap();
        }
        script.push_str("echo end >>/ack/log\n");
        if let Ending::Holds = ending {
            script.push_str("while :; do sleep 1; done\n");
        }
        fs::write(directory.join("script"), script).unwrap();
        let mounts = volumes.iter().zip(DESTINATIONS).map(|(name, at)| format!("{name}:{at}")).collect();
        Self { name, base, directory, ops, mounts }
    }

    /// `docker run` or `docker create` for it.
    pub fn command<'a>(&'a self, verb: &'a str, options: &[&'a str], ack: &'a str) -> Vec<&'a str> {
        let mut command = vec![verb, "--name", &self.name, "--network=none", "--volume", ack];
        command.extend(options);
        command.extend(self.mounts.iter().flat_map(|mount| ["--volume", mount]));
        command.extend([self.base.image(), "/bin/busybox", "sh", "/ack/script", &self.name]);
        command
    }

    pub fn ack(&self) -> String {
        format!("{}:/ack", self.directory.display())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Lets it continue.
    pub fn go(&self) {
        fs::write(self.directory.join("go"), "").unwrap();
    }

    /// Returns `true` if it has done everything before its pause.
    pub fn has_ended(&self) -> bool {
        self.log().ends_with("end\n")
    }

    fn seen(&self, run: usize, volume: usize) -> Option<Tree> {
        tree::parse(&fs::read_to_string(self.directory.join(format!("seen.{run}.{volume}"))).ok()?)
    }

    /// Returns the operations of each run, and if they were done.
    fn runs(&self) -> Vec<Vec<(usize, bool)>> {
        let mut runs: Vec<Vec<(usize, bool)>> = vec![];
        for line in self.log().lines() {
            match line.split_once(' ') {
                Some(("r", _)) => runs.push(vec![]),
                Some(("b", op)) => runs.last_mut().unwrap().push((op.parse().unwrap(), false)),
                Some(("e", _)) => runs.last_mut().unwrap().last_mut().unwrap().1 = true,
                _ => {}
            }
        }
        runs
    }

    /// Passes the findings and operations of a removed container to the models. Returns errors, with the volume of
    /// each.
    pub fn account(&self, world: &World, models: &mut [Model], others: &BTreeSet<String>) -> Vec<Wrong> {
        let mut wrong = vec![];
        for (run, ops) in self.runs().into_iter().enumerate() {
            for (number, model) in models.iter_mut().enumerate() {
                if let Some(seen) = self.seen(run, number) {
                    let told = observe(world, model, &seen, By::Container, others, &self.base.copied());
                    wrong.extend(told.map(|told| Wrong { volume: number, told }));
                }
            }
            for (op, is_done) in ops {
                let (volume, op) = &self.ops[op];
                models[*volume].apply(op, run, is_done);
            }
        }
        wrong
    }

    /// Counts its operations.
    pub fn count(&self, world: &World) {
        for run in self.runs() {
            world.count("container started");
            for (_, is_done) in run {
                world.count(if is_done { "operation done" } else { "operation interrupted or failed" });
            }
        }
    }
}

/// An error that a model has found in a volume.
pub struct Wrong {
    pub volume: usize,
    pub told: Vec<String>,
}

/// Compares a listing with a model and, if needed, with the registry.
pub fn observe(
    world: &World,
    model: &mut Model,
    found: &Tree,
    by: By,
    apart_from: &BTreeSet<String>,
    copied: &Tree,
) -> Option<Vec<String>> {
    let images: Vec<String> = model.exports.iter().map(|export| export.image.clone()).collect();
    let is_saved = |known: &tree::Known| {
        images.iter().any(|image| world.history(image).iter().any(|tree| known.accepts(tree)))
    };
    let mut wrong = model.observe(found, by, apart_from, copied, is_saved);
    if wrong.is_empty() {
        return None;
    }
    wrong.insert(
        0,
        match by {
            By::Container => "a container sees something else in it".to_owned(),
            By::Host => "it holds something else after the containers".to_owned(),
        },
    );
    Some(wrong)
}

/// Returns some operations on a volume, with names for this container only if several containers use the volume at the
/// same time.
pub fn operations(random: &mut Random, known: &Tree, prefix: &str) -> Vec<Op> {
    let mut ops = vec![];
    if prefix.is_empty() {
        ops.push(Op::Stamp { path: "run".to_owned() });
    }
    for _ in 0..random.between(1, 5) {
        let path = |kind: &str, n: u64| format!("{prefix}{kind}{n}");
        let length = random.weighted(&[(60, 300), (30, 20_000), (8, 100_000), (2, 1_500_000)]);
        let length = random.between(0, length);
        let n = random.between(0, 5);
        let content = random.bytes(length).into();
        let removes = if known.len() > 4 { 20 } else { 0 };
        ops.push(match random.weighted(&[(50, 0), (removes, 1), (15, 2), (5, 3), (5, 4), (5, 5)]) {
            0 => Op::Write { path: path("f", n), content },
            1 => Op::Remove { path: path("f", n) },
            2 => Op::Nested { directory: path("d", n % 2), name: format!("n{n}"), content },
            3 => Op::Link { path: path("l", n), target: format!("to-{n}-{length}") },
            4 => Op::Chmod { path: path("x", n), mode: [0o600, 0o755, 0o640, 0o4755][n as usize % 4] },
            _ => Op::MountPoint,
        });
    }
    ops
}
