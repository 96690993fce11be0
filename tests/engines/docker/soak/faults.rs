//! Faults around the plugin: it and dockerd are killed, the disk is full, the network is slow, and an administrator
//! mounts directories in volumes.

use super::network::Weather;
use super::random::Random;
use super::tree::{self, MOUNT_POINT, Tree};
use super::world::World;
use crate::engines::volume_plugin::{OwnDocker, Plugin};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub struct Faults<'a> {
    pub world: &'a World,
    pub random: Random,
    pub plugin: Plugin,
    pub docker: OwnDocker,
    canary: Tree,
    /// The earliest time of the next kill of dockerd, which takes long to start.
    docker_after: Instant,
}

#[derive(Clone, Copy)]
enum Fault {
    Weather,
    KilledPlugin,
    StoppedPlugin,
    FullDisk,
    Mount,
    Docker,
    Calm,
}

/// The time after a kill without another one.
const DOCKER_LIVES: Duration = Duration::from_secs(50);

impl<'a> Faults<'a> {
    pub fn new(world: &'a World, random: Random, plugin: Plugin, docker: OwnDocker) -> Self {
        let directory = canary(world);
        fs::create_dir_all(directory.join("below/deeper")).unwrap();
        for file in ["alive", "below/alive", "below/deeper/alive"] {
            fs::write(directory.join(file), "not the plugin's\n").unwrap();
        }
        let canary = tree::read(&directory).unwrap();
        let docker_after = Instant::now() + DOCKER_LIVES / 4;
        Self { world, random, plugin, docker, canary, docker_after }
    }

    pub fn work(&mut self) {
        while !self.world.is_over() {
            let milliseconds = self.random.between(300, 4000);
            self.world.pause(milliseconds);
            self.look_at_canary();
            if self.world.is_over() {
                break;
            }
            match self.random.weighted(&[
                (30, Fault::Weather),
                (15, Fault::KilledPlugin),
                (5, Fault::StoppedPlugin),
                (12, Fault::FullDisk),
                (12, Fault::Mount),
                (10, Fault::Docker),
                (10, Fault::Calm),
            ]) {
                Fault::Weather => self.weather(),
                Fault::KilledPlugin => self.restart_plugin("-KILL"),
                Fault::StoppedPlugin => self.restart_plugin("-TERM"),
                Fault::FullDisk => self.fill_disk(),
                Fault::Mount => self.mount(),
                Fault::Docker if Instant::now() >= self.docker_after => self.restart_docker(),
                Fault::Docker => {}
                Fault::Calm => self.world.pause(6000),
            }
        }
        self.heal();
    }

    fn note(&self, what: &str) {
        self.world.note("FAULT", what);
    }

    fn weather(&mut self) {
        let slow = self.random.between(2_000, 200_000);
        let after = self.random.between(0, 100_000);
        let weather = self.random.weighted(&[
            (3, Weather::Slow(slow)),
            (2, Weather::Still),
            (2, Weather::Cutting(after)),
            (3, Weather::Down),
        ]);
        self.note(&format!("the network is {weather:?}"));
        let kind = format!("{weather:?}");
        self.world.count(&format!("network {}", kind.split('(').next().unwrap_or_default()));
        self.world.network.change(weather);
        let milliseconds = self.random.between(500, 9000);
        self.world.pause(milliseconds);
        if self.random.chance(70) {
            self.note("the network is fair");
            self.world.network.change(Weather::Fair);
        }
    }

    fn restart_plugin(&mut self, signal: &str) {
        self.note(&format!("the plugin gets {signal}"));
        self.world.count(&format!("plugin {signal}"));
        // A stop waits for exports, which a network that stands still would make wait for ever.
        if signal == "-TERM" {
            self.world.network.change(Weather::Fair);
        }
        self.plugin.end(signal);
        let milliseconds = self.random.weighted(&[(5, 0), (5, 1000), (2, 5000)]);
        self.world.pause(milliseconds);
        self.start_plugin();
    }

    fn start_plugin(&mut self) {
        for _ in 0..3 {
            if self.plugin.try_start() {
                self.note("the plugin serves again");
                return;
            }
            self.note("the plugin does not start");
            self.world.count("plugin does not start");
            self.empty_disk();
        }
        self.world.finding("FAULT", "the plugin does not start", &[]);
    }

    fn ballast(&self) -> PathBuf {
        self.world.storage.join("ballast")
    }

    fn fill_disk(&mut self) {
        self.note("the disk is full");
        self.world.count("disk full");
        let of = format!("of={}", self.ballast().display());
        run("dd", &["if=/dev/zero", &of, "bs=64k"]);
        run("dd", &["if=/dev/zero", &of, "bs=512", "oflag=append", "conv=notrunc"]);
        let milliseconds = self.random.between(500, 9000);
        self.world.pause(milliseconds);
        if self.random.chance(20) {
            self.restart_plugin("-KILL");
        }
        self.empty_disk();
        self.note("the disk has room");
    }

    fn empty_disk(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    /// Mounts a directory in a volume, as an administrator may.
    fn mount(&mut self) {
        let directories = fs::read_dir(&self.world.storage).unwrap().flatten();
        let mut places: Vec<PathBuf> = directories.map(|entry| entry.path().join(MOUNT_POINT)).collect();
        places.retain(|place| place.is_dir());
        places.sort();
        if places.is_empty() {
            return;
        }
        let place = &places[self.random.between(0, places.len() as u64 - 1) as usize];
        self.note(&format!("mount --bind at {}", place.display()));
        self.world.count("mount in a volume");
        run("mount", &["--bind", &canary(self.world).display().to_string(), &place.display().to_string()]);
        let milliseconds = self.random.between(500, 9000);
        self.world.pause(milliseconds);
        if self.random.chance(70) {
            self.unmount();
        }
    }

    /// Unmounts everything that is mounted in volumes.
    fn unmount(&self) {
        self.note("umount of all below volumes");
        let below = format!("{}/", self.world.storage.display());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        for at in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if at.starts_with(&below) {
                run("umount", &["--lazy", at]);
            }
        }
    }

    fn restart_docker(&mut self) {
        let signal = self.random.weighted(&[(3, "-KILL"), (1, "-TERM")]);
        let ends_containers = self.random.chance(50);
        self.note(&format!("dockerd gets {signal}, its containers too: {ends_containers}"));
        self.world.count(&format!("dockerd {signal}"));
        self.docker.end(signal);
        if ends_containers {
            kill_containers(self.world);
        }
        let milliseconds = self.random.between(0, 4000);
        self.world.pause(milliseconds);
        self.docker.run();
        self.note("dockerd answers again");
        self.docker_after = Instant::now() + DOCKER_LIVES;
    }

    fn look_at_canary(&self) {
        let directory = canary(self.world);
        let found = tree::read(&directory).unwrap();
        if found != self.canary {
            let found = format!("{:?}", found.keys());
            self.world.finding("FAULT", "something was changed outside of the storage; left is:", &[found]);
            for file in ["alive", "below/alive", "below/deeper/alive"] {
                fs::create_dir_all(directory.join("below/deeper")).unwrap();
                fs::write(directory.join(file), "not the plugin's\n").unwrap();
            }
        }
    }

    /// Ends processes of containers that dockerd was creating when it was killed, and that it does not know any more.
    /// As long as such a process sees a volume, the volume is in use.
    pub fn end_forgotten(&self) {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let mounts = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
            if command == b"runc\0init\0" && mounts.contains(&format!("/{}-", self.world.prefix)) {
                self.world.count("container that dockerd forgot");
                run("kill", &["-KILL", &process.file_name().to_string_lossy()]);
            }
        }
    }

    /// Removes all faults.
    fn heal(&mut self) {
        self.note("no more faults");
        self.world.network.change(Weather::Fair);
        self.empty_disk();
        self.unmount();
        self.look_at_canary();
    }
}

pub fn canary(world: &World) -> PathBuf {
    world.place.join("canary")
}

/// Kills processes of containers of this test, as the kernel may.
fn kill_containers(world: &World) {
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        let words: Vec<&str> = command.split('\0').collect();
        let is_ours = words.get(3).is_some_and(|name| name.starts_with(&format!("{}-", world.prefix)));
        if is_ours && words[0] == "/bin/busybox" && words[2] == "/ack/script" {
            run("kill", &["-KILL", &process.file_name().to_string_lossy()]);
        }
    }
    thread::sleep(Duration::from_millis(100));
}

/// Runs a program, which may fail.
fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap();
}

/// Makes a small file system in a file, and mounts it.
pub fn small_disk(file: &Path, at: &Path) {
    let (file, at) = (file.display().to_string(), at.display().to_string());
    crate::engines::program::tool("truncate", &["--size=96M", &file]);
    crate::engines::program::tool("mkfs.ext4", &["-q", "-m", "0", &file]);
    crate::engines::program::tool("mount", &["-o", "loop", &file, &at]);
}
