//! Random users of Docker with volumes of the plugin, while everything around it fails; afterwards nothing may be lost.
//!
//! `VOLIO_TEST_SOAK_SECONDS` is the duration (40), and `VOLIO_TEST_SOAK_SEED` repeats the choices of an earlier run.
//! The timing still depends on the machine.

mod containers;
mod faults;
mod model;
mod network;
mod random;
mod tree;
mod volume;
mod worker;
mod world;

use crate::engines::program::tool;
use crate::engines::volume_plugin::{OwnDocker, Plugin, busybox_tree};
use containers::{Base, COPIED, Container, Ending};
use faults::{Faults, canary, small_disk};
use random::Random;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{Duration, Instant, SystemTime};
use volume::{Hook, Profile, Target, Volume};
use worker::{Kind, Worker};
use world::World;

/// The time for an export after the last fault. After many failures a retry may be 15 minutes away, so the plugin is
/// restarted after a while, and tries at once.
const PATIENCE: Duration = Duration::from_secs(300);
const RESTART_AFTER: Duration = Duration::from_secs(120);

const PLAIN: Profile =
    Profile { name: "plain", image: None, export: Target::Itself, hook: Hook::None, yesterday: true };
const REFILLED: Profile =
    Profile { name: "refilled", image: Some(("always", "replace")), yesterday: false, ..PLAIN };
const NEWER: Profile = Profile { name: "newer", image: Some(("newer", "replace")), ..REFILLED };
const CIRCLE: Profile = Profile { name: "circle", export: Target::Image, ..NEWER };
const ONCE: Profile = Profile { name: "once", image: Some(("missing", "once")), ..REFILLED };
const HOOKED: Profile = Profile { name: "hooked", hook: Hook::Mounts, ..REFILLED };
const INPUT: Profile = Profile { name: "input", export: Target::Nowhere, ..NEWER };
const WAITING: Profile = Profile { name: "waiting", hook: Hook::Waits, ..REFILLED };
const PATIENT: Profile = Profile { name: "patient", hook: Hook::Waits, ..PLAIN };
const NEW: Profile = Profile { name: "new", ..PLAIN };

#[test]
#[ignore = "needs docker-registry, dockerd, skopeo and root: run tests/run"]
fn nothing_is_lost_by_random_mounts_kills_full_disks_and_slow_registries() {
    let given = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seconds = given("VOLIO_TEST_SOAK_SECONDS").unwrap_or(40);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = given("VOLIO_TEST_SOAK_SEED").unwrap_or(now.as_millis() as u64);
    eprintln!("soak test of {seconds} seconds: VOLIO_TEST_SOAK_SEED={seed}");
    let mut random = Random::new(seed);

    let place = tempfile::tempdir().unwrap();
    let mut plugin = Plugin::for_docker(&["--patience", "25"]);
    plugin.end("-TERM");
    small_disk(&place.path().join("disk"), &plugin.path("storage"));
    plugin.start();
    // Containers either outlive a dockerd that is killed, and belong to the next one, or the next one ends them.
    let lives_on = random.chance(50);
    let docker = OwnDocker::start_with(&format!(r#"{{"live-restore": {lives_on}}}"#));
    let host = docker.docker.host.clone();
    let world = World::new(host, plugin.path("storage"), place.path().to_owned(), plugin.path("log"));
    import_images(&world);
    write_hooks(&world);

    let longest_wait = if seconds >= 300 { 66 } else { 4 };
    let mut workers: Vec<Worker> = [
        (Kind::Single, &[PLAIN, INPUT][..]),
        (Kind::Single, &[REFILLED, NEWER]),
        (Kind::Single, &[CIRCLE, ONCE]),
        (Kind::Single, &[HOOKED]),
        (Kind::Two, &[WAITING, PATIENT]),
        (Kind::New(NEW), &[]),
    ]
    .into_iter()
    .map(|(kind, profiles)| {
        let mut random = random.fork();
        let new = |profile: &Profile| {
            let name = format!("{}-{}", world.prefix, profile.name);
            Volume::new(&world, &mut random, &name, *profile)
        };
        let volumes = profiles.iter().map(new).collect();
        Worker { random, volumes, kind, longest_wait }
    })
    .collect();
    let mut faults = Faults::new(&world, random.fork(), plugin, docker);
    std::thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(|| worker.work(&world));
        }
        scope.spawn(|| {
            world.pause(seconds * 1000);
            world.stop();
        });
        faults.work();
    });
    let mut volumes: Vec<Volume> = workers.into_iter().flat_map(|worker| worker.volumes).collect();
    faults.end_forgotten();
    fs::write(world.place.join("seconds"), "0").unwrap();
    let mut told = BTreeSet::new();
    check_exports(&world, &mut faults, &volumes, &mut told);
    check_volumes(&world, &mut volumes);
    check_exports(&world, &mut faults, &volumes, &mut told);
    let log = fs::read_to_string(&world.plugin_log).unwrap();
    if log.contains("panicked") {
        world.finding("FAULT", "the plugin panicked", &[log]);
    }
    if lives_on {
        world.count("live-restore");
    }
    let counts = world.counts();
    eprintln!("soak test of {seconds} seconds, VOLIO_TEST_SOAK_SEED={seed}:\n{counts}");
    let findings = world.findings();
    drop(faults);
    assert!(findings.is_empty(), "{} findings, VOLIO_TEST_SOAK_SEED={seed}", findings.len());
}

/// Checks that all exports reach the registry after the last fault. `told` are the images that do not.
fn check_exports(world: &World, faults: &mut Faults, volumes: &[Volume], told: &mut BTreeSet<String>) {
    let mut pending: Vec<(&Volume, &model::Export, u32)> = volumes
        .iter()
        .flat_map(|volume| volume.model.exports.iter().map(move |export| (volume, export, 0)))
        .filter(|(_, export, _)| !told.contains(&export.image))
        .collect();
    let begun = Instant::now();
    let mut is_restarted = false;
    loop {
        pending.retain_mut(|(volume, export, idle)| {
            let Some(wrong) = export.judge(world.fetch(&export.image).as_ref()) else { return false };
            let status = world.status(&volume.name);
            let is_due = status.contains("exportDue") || status.contains("doing");
            *idle = if is_due { 0 } else { *idle + 1 };
            // An export that is reported as due gets all the time; earlier ones are not reported.
            if *idle > 5 || begun.elapsed() > PATIENCE {
                let what = if is_due {
                    "it is still not exported, and due"
                } else {
                    "it is not exported, and not due"
                };
                world.finding(&volume.name, what, &wrong);
                told.insert(export.image.clone());
                return false;
            }
            true
        });
        if pending.is_empty() {
            break;
        }
        if !is_restarted && begun.elapsed() > RESTART_AFTER {
            world.count("restart for the sake of a retry");
            is_restarted = true;
            faults.plugin.end("-TERM");
            faults.plugin.start();
        }
        std::thread::sleep(Duration::from_secs(3));
    }
    world.note("check", &format!("all was exported after {:.1} s", begun.elapsed().as_secs_f32()));
}

/// Checks that a container can get every volume with its content, and that it can be removed.
fn check_volumes(world: &World, volumes: &mut [Volume]) {
    for volume in volumes.iter_mut().filter(|volume| volume.profile.name != NEW.name) {
        // The content of an unsuccessful fetch may be used by the first mount.
        for _ in 0..2 {
            let container = Container::new(world, &[&volume.name], Base::Plain, vec![], Ending::Ends);
            check_mount(world, volume, &container);
            worker::account(world, &mut [volume], &[container], None);
        }
        let is_renewed = volume.profile.export != Target::Image
            && volume.profile.image.is_some_and(|(pull, _)| pull != "missing");
        if is_renewed && !volume.model.is_newest() {
            // The plugin was killed while dockerd unmounted the volume. dockerd does that only once, so it takes long
            // to be noticed.
            let is_counted = !world.status(&volume.name).contains(r#""mounts":{}"#);
            if is_counted {
                world.count("kept from the newest image by a lost unmount");
            } else {
                let what = "a container does not get the newest version of the image";
                world.finding(&volume.name, what, &[]);
            }
        }
        let (is_done, said) = world.docker(&["volume", "rm", &volume.name]);
        if !is_done {
            world.finding(&volume.name, "it cannot be removed", &[said]);
        }
    }
}

fn check_mount(world: &World, volume: &Volume, container: &Container) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let is_made = volume.make(world);
        let (is_done, said) = world.docker(&container.command("run", &[], &container.ack()));
        world.remove(&container.name);
        if is_made && is_done {
            return;
        }
        if Instant::now() > deadline {
            return world.finding(&volume.name, "no container gets it", &[said]);
        }
    }
}

/// Makes the images of the containers.
fn import_images(world: &World) {
    let place = busybox_tree();
    let root = place.path().join("root");
    let archive = place.path().join("tar").display().to_string();
    for base in [Base::Plain, Base::Directory, Base::Copying] {
        let data = root.join("data");
        if base == Base::Directory {
            fs::create_dir(&data).unwrap();
            chown(&data, Some(1000), Some(1000)).unwrap();
            fs::set_permissions(&data, fs::Permissions::from_mode(0o770)).unwrap();
        }
        if base == Base::Copying {
            fs::write(data.join(COPIED.0), COPIED.1).unwrap();
        }
        tool("tar", &["--create", "--file", &archive, "--directory", root.to_str().unwrap(), "."]);
        let (is_done, said) = world.docker(&["import", &archive, base.image()]);
        assert!(is_done, "{said}");
    }
}

/// Writes the commands of volumes.
fn write_hooks(world: &World) {
    let canary = canary(world).display().to_string();
    let seconds = world.place.join("seconds").display().to_string();
    fs::write(&seconds, "0").unwrap();
    let mounting = format!(
        "at=$VOLIO_MOUNTPOINT/mnt\nmkdir -p $at\ngrep -q \" $at \" /proc/self/mounts || mount --bind {canary} $at\n"
    );
    let unmounting =
        "[ \"$VOLIO_MOUNTS\" != 0 ] || umount --lazy $VOLIO_MOUNTPOINT/mnt 2>/dev/null || true\n".to_owned();
    let waiting = format!("sleep $(cat {seconds})\n");
    for (name, text) in [("mounting", mounting), ("unmounting", unmounting), ("waiting", waiting)] {
        let path = world.place.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
