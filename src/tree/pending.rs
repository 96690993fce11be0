//! Stand-ins until walking and extracting have landed.
#![allow(missing_docs, clippy::unused_self)]
use super::{Entry, Time, TreePath};
use crate::error::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};
#[derive(Clone, Debug)]
pub struct SourceSpec {
    pub path: PathBuf,
    pub at: Option<TreePath>,
}
impl std::str::FromStr for SourceSpec {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(Self { path: text.into(), at: None })
    }
}
#[derive(Clone, Debug, Default)]
pub struct WalkOptions {
    pub exclude: Vec<String>,
    pub one_file_system: bool,
    pub normalize: bool,
    pub clamp_mtime: Option<Time>,
}
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub sockets: u64,
    pub excluded: u64,
    pub newest: Time,
}
pub struct Found {
    pub entry: Entry,
    pub file: Option<std::fs::File>,
}
pub struct Walk;
impl Walk {
    pub fn new(_: &[SourceSpec], _: &WalkOptions) -> Result<Self> {
        Err(Error::failed("not yet"))
    }
    pub fn summary(&self) -> Summary {
        Summary::default()
    }
}
impl Iterator for Walk {
    type Item = Result<Found>;
    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Extracted {
    pub entries: u64,
    pub bytes: u64,
}
pub struct Extractor;
impl Extractor {
    pub fn new(_: &Path) -> Result<Self> {
        Err(Error::failed("not yet"))
    }
    pub fn refuse_unless_empty(&self) -> Result<()> {
        Ok(())
    }
    pub fn begin_layer(&mut self) {}
    pub fn put(&mut self, _: &Entry, _: &mut dyn Read) -> Result<()> {
        Ok(())
    }
    pub fn whiteout(&mut self, _: &TreePath) -> Result<()> {
        Ok(())
    }
    pub fn opaque(&mut self, _: &TreePath) -> Result<()> {
        Ok(())
    }
    pub fn finish(self) -> Result<Extracted> {
        Ok(Extracted::default())
    }
    pub fn abandon(self) {}
}
