//! A directory to work in, with a random tree and the program.

use super::tree::RandomTree;
use crate::engines::program::{Finished, finish};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        // Not in memory: a tmpfs does not have all attributes.
        let parent = Path::new("/var/tmp");
        Self(if parent.is_dir() { TempDir::new_in(parent) } else { TempDir::new() }.unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a random tree in the directory `tree`.
    pub fn tree(&self, seed: u64, entries: usize, large_files: usize) -> RandomTree {
        RandomTree::make(&self.path("tree"), seed, entries, large_files)
    }

    /// A command of the program, in this directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env_remove("SOURCE_DATE_EPOCH");
        command
    }

    pub fn volio(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments))
    }
}
