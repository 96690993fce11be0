//! A volume of the soak test: its options, and its model.

use super::model::{Export, Model};
use super::random::Random;
use super::tree::{self, Entry, MOUNT_POINT, Tree};
use super::world::World;
use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

/// The options in which volumes differ.
#[derive(Clone, Copy)]
pub struct Profile {
    pub name: &'static str,
    /// `pull` and `policy`, for a volume with an image.
    pub image: Option<(&'static str, &'static str)>,
    pub export: Target,
    pub hook: Hook,
    /// Set if the name of the export has an image already.
    pub yesterday: bool,
}

/// The destination of exports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Nowhere,
    Itself,
    /// The name of the image that it is filled from.
    Image,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    None,
    /// Mounts a directory of the host in the volume, and unmounts it again.
    Mounts,
    /// Waits, as long as a file says.
    Waits,
}

pub struct Volume {
    pub name: String,
    pub profile: Profile,
    pub model: Model,
    /// The number of its tags for exports.
    tags: u32,
    versions: u32,
}

/// The file in an image with the number of its version.
pub const VERSION: &str = "version";

type Files = Vec<(String, Vec<u8>)>;

impl Volume {
    pub fn new(world: &World, random: &mut Random, name: &str, profile: Profile) -> Self {
        let mut versions = vec![];
        if profile.image.is_some() {
            let files = version(random, 1);
            world.publish(&format!("{name}:in"), &files);
            versions.push(content(&files));
        }
        let mut allowed = vec![None];
        if profile.yesterday {
            let files = vec![("yesterday".to_owned(), random.bytes(100))];
            world.publish(&format!("{name}:out-1"), &files);
            allowed = vec![Some(content(&files))];
        }
        let exports = match profile.export {
            Target::Nowhere => vec![],
            Target::Itself => vec![Export { image: format!("{name}:out-1"), allowed }],
            Target::Image => {
                vec![Export { image: format!("{name}:in"), allowed: vec![Some(versions[0].clone())] }]
            }
        };
        let is_replaced = profile.image.is_some_and(|(_, policy)| policy == "replace");
        let model = Model::new(versions, is_replaced, exports);
        Self { name: name.to_owned(), profile, model, tags: 1, versions: 1 }
    }

    /// Makes the volume; this may be asked for again and again.
    pub fn make(&self, world: &World) -> bool {
        let mut options = vec![];
        if let Some((pull, policy)) = self.profile.image {
            let image = world.distant(&format!("{}:in", self.name));
            options.extend([format!("image={image}"), format!("pull={pull}"), format!("policy={policy}")]);
        }
        if let Some(export) = self.model.exports.last() {
            options.push(format!("export={}", world.distant(&export.image)));
        }
        let hook = |name: &str| world.place.join(name).display().to_string();
        match self.profile.hook {
            Hook::None => {}
            Hook::Mounts => {
                options.push(format!("pre-mount={}", hook("mounting")));
                options.push(format!("post-unmount={}", hook("unmounting")));
            }
            Hook::Waits => options.push(format!("pre-mount={}", hook("waiting"))),
        }
        let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
        let create = [&["volume", "create", "-d", "volio"], &options[..], &[&self.name]].concat();
        let (is_done, said) = world.docker(&create);
        if !is_done {
            world.note(&self.name, &format!("volume create failed: {said}"));
        }
        is_done
    }

    /// Removes the volume, so that it is created again later, perhaps with another export.
    pub fn remove(&mut self, world: &World, random: &mut Random) {
        let (is_done, said) = world.docker(&["volume", "rm", &self.name]);
        world.count(if is_done { "docker volume rm" } else { "docker volume rm, failed" });
        world.note(&self.name, &format!("docker volume rm: {said}"));
        if is_done && self.profile.export == Target::Itself && random.chance(50) {
            self.tags += 1;
            self.model.export_to(format!("{}:out-{}", self.name, self.tags));
            world.note(&self.name, &format!("will be exported to out-{}", self.tags));
        }
    }

    /// Puts a new version of its image into the registry.
    pub fn renew(&mut self, world: &World, random: &mut Random) {
        if self.profile.image.is_none() || self.profile.export == Target::Image {
            return;
        }
        self.versions += 1;
        let files = version(random, self.versions);
        self.model.push_version(content(&files));
        world.publish(&format!("{}:in", self.name), &files);
        world.note(&self.name, &format!("its image is version {} now", self.versions));
        world.count("new version of an image");
    }

    /// Reads the directory and compares it with the model.
    pub fn read(&self, world: &World, model: &Model) -> Result<Tree, String> {
        let directory = world.storage.join(&self.name);
        let mut found = Ok(Tree::new());
        for _ in 0..5 {
            // A fetch may go on after the engine gave up, and replace the directory while it is read.
            found = tree::read(&directory);
            match &found {
                Ok(found) if model.known.accepts(found) => break,
                Err(error) if error.kind() == ErrorKind::NotFound && !directory.exists() => {
                    return Ok(Tree::new());
                }
                _ => thread::sleep(Duration::from_millis(200)),
            }
        }
        found.map_err(|error| error.to_string())
    }
}

/// The files of a version of an image.
fn version(random: &mut Random, number: u32) -> Files {
    let mut files = vec![
        (VERSION.to_owned(), format!("{number}\n").into_bytes()),
        (format!("{MOUNT_POINT}/below"), b"what is mounted here covers it\n".to_vec()),
        ("image/nested".to_owned(), random.bytes(1000)),
    ];
    for file in 0..random.between(1, 4) {
        let length = random.weighted(&[(6, 2_000), (2, 60_000), (1, 1_500_000)]);
        files.push((format!("image-{file}"), random.bytes(length)));
    }
    files
}

/// The tree that files make.
pub fn content(files: &Files) -> Tree {
    let mut tree = Tree::new();
    for (path, content) in files {
        if path.starts_with(MOUNT_POINT) {
            continue;
        }
        if let Some((directory, _)) = path.split_once('/') {
            tree.insert(directory.to_owned(), Entry::directory());
        }
        tree.insert(path.clone(), Entry::file(content));
    }
    tree
}
