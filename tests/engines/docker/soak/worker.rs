//! A user of Docker, with one container after the other and a set of volumes.

use super::containers::{Base, Container, Ending, Wrong, observe, operations};
use super::model::{By, Model};
use super::random::Random;
use super::tree::{Op, Tree};
use super::volume::{Profile, Volume};
use super::world::World;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// The file that a container writes at the end, after others have come and gone.
const LATE: &str = "late";

pub struct Worker {
    pub random: Random,
    /// Its volumes, which no other worker uses.
    pub volumes: Vec<Volume>,
    pub kind: Kind,
    /// The maximum wait of a volume's hook, in seconds.
    pub longest_wait: u64,
}

#[derive(Clone, Copy)]
pub enum Kind {
    /// One volume for each container.
    Single,
    /// Two volumes for each container.
    Two,
    /// A new volume for each container.
    New(Profile),
}

/// The life of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Run,
    RunRm,
    /// Two containers at the same time.
    Pair,
    /// It is stopped, killed and started again, also with dockerd.
    Held,
    Killed,
    /// It never starts.
    Created,
    /// It never starts, and a file is copied into its volume.
    Copied,
    /// It is created, and starts later.
    Started,
    /// It lives long and writes again in the end; others come and go meanwhile.
    Long,
}

impl Worker {
    pub fn work(&mut self, world: &World) {
        while !world.is_over() {
            let milliseconds = self.random.between(0, 1500);
            world.pause(milliseconds);
            match self.kind {
                Kind::Single => {
                    let volume = self.random.between(0, self.volumes.len() as u64 - 1) as usize;
                    match self.random.between(1, 100) {
                        1..=8 => self.volumes[volume].remove(world, &mut self.random),
                        9..=18 => self.volumes[volume].renew(world, &mut self.random),
                        _ => self.session(world, &[volume]),
                    }
                }
                Kind::Two => match self.random.between(1, 100) {
                    1..=10 => self.volumes[0].renew(world, &mut self.random),
                    _ => {
                        self.choose_wait(world);
                        self.session(world, &[0, 1]);
                    }
                },
                Kind::New(profile) if self.volumes.len() < 100 => {
                    let name = format!("{}-{}-{}", world.prefix, profile.name, self.volumes.len());
                    self.volumes.push(Volume::new(world, &mut self.random, &name, profile));
                    self.session(world, &[self.volumes.len() - 1]);
                    let (is_done, _) = world.docker(&["volume", "rm", &name]);
                    world.count(if is_done { "docker volume rm" } else { "docker volume rm, failed" });
                    world.pause(3000);
                }
                Kind::New(_) => world.pause(1000),
            }
        }
    }

    /// Sets the duration of the mounts of the next container.
    fn choose_wait(&mut self, world: &World) {
        let seconds = self.random.weighted(&[(50, 0), (40, 2), (10, self.longest_wait)]);
        fs::write(world.place.join("seconds"), seconds.to_string()).unwrap();
        if seconds > 60 {
            world.count("more than a minute between mount and start");
        }
    }

    fn session(&mut self, world: &World, numbers: &[usize]) {
        for number in numbers {
            if !self.volumes[*number].make(world) {
                world.count("docker volume create, failed");
                return;
            }
        }
        let shape = self.random.weighted(match self.kind {
            Kind::New(_) => &[(2, Shape::Created), (1, Shape::Run)][..],
            _ => &[
                (20, Shape::Run),
                (20, Shape::RunRm),
                (15, Shape::Pair),
                (10, Shape::Held),
                (15, Shape::Killed),
                (8, Shape::Created),
                (6, Shape::Copied),
                (6, Shape::Started),
                (5, Shape::Long),
            ],
        });
        let containers: Vec<Container> = (0..if shape == Shape::Pair { 2 } else { 1 })
            .map(|k| self.plan(world, numbers, shape, k))
            .collect();
        let names: Vec<String> = numbers.iter().map(|number| self.volumes[*number].name.clone()).collect();
        for name in &names {
            let ops: Vec<String> =
                containers.iter().flat_map(|c| c.ops.iter().map(|(_, op)| short(op))).collect();
            let what = format!("{shape:?} {} {:?} {ops:?}", containers[0].name, containers[0].base);
            world.note(name, &what);
        }
        world.count(&format!("session {shape:?}"));
        let copied = self.perform(world, &names, shape, &containers);
        for container in &containers {
            world.remove(&container.name);
        }
        let mut volumes: Vec<&mut Volume> = self
            .volumes
            .iter_mut()
            .enumerate()
            .filter(|(n, _)| numbers.contains(n))
            .map(|(_, v)| v)
            .collect();
        account(world, &mut volumes, &containers, copied);
    }

    fn plan(&mut self, world: &World, numbers: &[usize], shape: Shape, k: usize) -> Container {
        let base = self.random.weighted(match self.kind {
            Kind::New(_) => &[(2, Base::Directory), (1, Base::Copying), (1, Base::Plain)][..],
            _ => &[(6, Base::Plain), (2, Base::Directory), (1, Base::Copying)],
        });
        let mut ops = vec![];
        let write = |random: &mut Random, volume, path: &str| {
            (volume, Op::Write { path: path.to_owned(), content: random.bytes(3000).into() })
        };
        if shape == Shape::Copied {
            ops.push(write(&mut self.random, 0, "copied-in"));
        }
        let does_nothing = matches!(self.kind, Kind::New(_)) || shape == Shape::Copied;
        for (volume, number) in numbers.iter().enumerate() {
            let known: &Tree = &self.volumes[*number].model.known.tree;
            let prefix = if shape == Shape::Pair { format!("p{k}") } else { String::new() };
            if !does_nothing && self.random.chance(85) {
                ops.extend(operations(&mut self.random, known, &prefix).into_iter().map(|op| (volume, op)));
            }
        }
        let ending = match shape {
            Shape::Held => Ending::Holds,
            Shape::Long if k == 0 => Ending::Waits(ops.len()),
            _ => Ending::Ends,
        };
        if let Ending::Waits(_) = ending {
            ops.extend((0..numbers.len()).map(|volume| write(&mut self.random, volume, LATE)));
        }
        let names: Vec<&str> = numbers.iter().map(|number| self.volumes[*number].name.as_str()).collect();
        Container::new(world, &names, base, ops, ending)
    }

    /// Runs docker commands for containers. Returns `true` for a copied file if docker has copied it.
    fn perform(
        &mut self,
        world: &World,
        names: &[String],
        shape: Shape,
        containers: &[Container],
    ) -> Option<bool> {
        let docker = |what: &str, arguments: &[&str]| {
            let begun = Instant::now();
            let (is_done, said) = world.docker(arguments);
            world.count(&if is_done {
                what.to_owned()
            } else {
                format!("{what}, failed: {}", reason(&said))
            });
            let took = begun.elapsed().as_secs_f32();
            let said: String = said.chars().take(300).collect();
            for name in names {
                world.note(name, &format!("{what}: {is_done} after {took:.1} s: {said}"));
            }
            is_done
        };
        let container = &containers[0];
        let ack = container.ack();
        let run = |options: &[&str]| docker("docker run", &container.command("run", options, &ack));
        match shape {
            Shape::Run => _ = run(&[]),
            Shape::RunRm => _ = run(&["--rm"]),
            Shape::Pair => {
                std::thread::scope(|scope| {
                    for container in containers {
                        scope.spawn(|| {
                            let ack = container.ack();
                            docker("docker run", &container.command("run", &["--detach"], &ack))
                        });
                    }
                });
                wait(world, containers);
            }
            Shape::Killed => {
                run(&["--detach"]);
                world.pause(self.random.between(0, 1500));
                docker("docker kill", &["kill", &container.name]);
            }
            Shape::Held => {
                run(&["--detach", "--restart=always"]);
                for _ in 0..self.random.between(1, 3) {
                    world.pause(self.random.between(200, 4000));
                    let name = container.name.as_str();
                    match self.random.between(0, 3) {
                        0 => docker("docker restart", &["restart", "--time=0", name]),
                        1 => docker("docker stop", &["stop", "--time=0", name]),
                        2 => docker("docker kill", &["kill", name]),
                        _ => docker("docker start", &["start", name]),
                    };
                }
            }
            Shape::Long => {
                run(&["--detach"]);
                wait(world, &containers[..1]);
                if !container.has_ended() {
                    return None;
                }
                let until = Instant::now() + Duration::from_secs(self.longest_wait);
                for other in &containers[1..] {
                    docker("docker run", &other.command("run", &["--rm"], &other.ack()));
                    world.pause(self.random.between(0, 5000));
                }
                while Instant::now() < until && !world.is_over() {
                    world.pause(500);
                }
                container.go();
                world.pause(1000);
            }
            Shape::Created | Shape::Started => {
                docker("docker create", &container.command("create", &[], &ack));
                world.pause(self.random.between(0, 2000));
                if shape == Shape::Started {
                    docker("docker start", &["start", "--attach", &container.name]);
                }
            }
            Shape::Copied => {
                docker("docker create", &container.command("create", &[], &ack));
                let from = container.directory.join("in.0").display().to_string();
                let to = format!("{}:{}/copied-in", container.name, super::containers::DESTINATIONS[0]);
                return Some(docker("docker cp", &["cp", &from, &to]));
            }
        }
        None
    }
}

/// Passes the findings and actions of removed containers to the models, and compares the models with the volumes.
pub fn account(world: &World, volumes: &mut [&mut Volume], containers: &[Container], copied: Option<bool>) {
    let name = &volumes[0].name;
    for container in containers {
        container.count(world);
        world.note(name, &format!("{} wrote {:?}", container.name, container.log().replace('\n', ",")));
    }
    // Two containers ran at the same time, or one after the other.
    let order: Vec<&Container> = containers.iter().collect();
    let others: BTreeSet<String> =
        containers.iter().flat_map(|c| c.ops.iter().flat_map(|(_, op)| op.paths())).collect();
    let late = BTreeSet::from([LATE.to_owned()]);
    let nothing = BTreeSet::new();
    let ways = if containers.len() > 1 {
        vec![
            (order.clone(), &late),
            (order.clone(), &others),
            (order.iter().rev().copied().collect(), &nothing),
        ]
    } else {
        vec![(order, &nothing)]
    };
    let mut first = None;
    for (order, others) in ways {
        let mut models: Vec<Model> = volumes.iter().map(|volume| volume.model.clone()).collect();
        let mut wrong = vec![];
        for container in &order {
            wrong.extend(container.account(world, &mut models, others));
        }
        if let Some(is_done) = copied {
            // The image may have come before it.
            let op = &order[0].ops[0].1;
            let apart_from = op.paths().into_iter().collect();
            let found = volumes[0].read(world, &models[0]).unwrap_or_default();
            let brought = order[0].base.copied();
            let told = observe(world, &mut models[0], &found, By::Host, &apart_from, &brought);
            wrong.extend(told.map(|told| Wrong { volume: 0, told }));
            models[0].apply(op, 0, is_done);
        }
        for (number, (volume, model)) in volumes.iter().zip(&mut models).enumerate() {
            // A container that never started may have brought what its image has.
            let brought = order[0].base.copied();
            let told = match volume.read(world, model) {
                Ok(found) => observe(world, model, &found, By::Host, &nothing, &brought),
                Err(error) => Some(vec![format!("it cannot be read: {error}")]),
            };
            wrong.extend(told.map(|told| Wrong { volume: number, told }));
        }
        let is_right = wrong.is_empty();
        if is_right || first.is_none() {
            first = Some((models, wrong));
        }
        if is_right {
            break;
        }
    }
    let (models, wrong) = first.expect("there is a way");
    for Wrong { volume, told } in wrong {
        world.finding(&volumes[volume].name, "the content is wrong", &told);
    }
    for (volume, model) in volumes.iter_mut().zip(models) {
        volume.model = model;
    }
    for container in containers {
        let _ = fs::remove_dir_all(&container.directory);
    }
}

/// Waits for containers to end, but not for ever: dockerd may have ended them.
fn wait(world: &World, containers: &[Container]) {
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until && !containers.iter().all(Container::has_ended) {
        world.pause(100);
        if world.is_over() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The kind of a failure.
fn reason(said: &str) -> &'static str {
    let kinds = [
        ("Cannot connect to the Docker daemon", "no dockerd"),
        ("error during connect", "no dockerd"),
        ("No space left", "no space"),
        ("was not exported yet", "not exported yet"),
        ("something is mounted", "something is mounted in it"),
        ("is busy", "busy"),
        ("registry", "registry"),
        ("127.0.0.1", "registry"),
        ("volio.sock", "no plugin"),
        ("is not running", "not running"),
        ("No such container", "no container"),
    ];
    kinds.iter().find(|(words, _)| said.contains(words)).map_or("else", |(_, kind)| kind)
}

fn short(op: &Op) -> String {
    match op {
        Op::Write { path, content } => format!("write {path} {}", content.len()),
        Op::Nested { directory, name, content } => format!("write {directory}/{name} {}", content.len()),
        other => format!("{other:?}"),
    }
}
