//! The contracts of places, kept by the ones that need no server.

use crate::contract::{Place, publish};
use std::path::PathBuf;
use tempfile::TempDir;
use volio::Result;
use volio::transport::layout::Layout;
use volio::transport::memory::Memory;
use volio::transport::oci_archive::{OciArchive, OciArchiveWriter};
use volio::transport::{Destination, Source};

mod memory_keeps_the_contract {
    crate::contract::suite!(volio::transport::memory::Memory::default());
}

mod memory_keeps_the_contract_of_tags {
    crate::contract::suite!(volio::transport::memory::Memory::default() => tags_are_listed_in_the_order_of_their_bytes a_tag_that_was_removed_means_nothing);
}

mod a_layout_keeps_the_contract_of_tags {
    crate::contract::suite!(tempfile::tempdir().unwrap() => tags_are_listed_in_the_order_of_their_bytes a_tag_that_was_removed_means_nothing);
}

mod an_oci_archive_keeps_the_contract_of_tags {
    crate::contract::suite!(super::ArchivePlace::new() => tags_are_listed_in_the_order_of_their_bytes);
}

mod a_layout_keeps_the_contract {
    crate::contract::suite!(tempfile::tempdir().unwrap());
}

mod an_oci_archive_keeps_the_contract {
    crate::contract::suite!(super::ArchivePlace::new());
}

impl Place for Memory {
    fn source(&self, tag: &str) -> Result<Box<dyn Source>> {
        Ok(Box::new(self.named(tag)))
    }

    fn destination(&self, tag: &str) -> Result<Box<dyn Destination>> {
        Ok(Box::new(self.named(tag)))
    }
}

/// A directory stands for the layout in it.
impl Place for TempDir {
    fn source(&self, tag: &str) -> Result<Box<dyn Source>> {
        Ok(Box::new(Layout::open(self.path(), Some(tag), None)?))
    }

    fn destination(&self, tag: &str) -> Result<Box<dyn Destination>> {
        Ok(Box::new(Layout::create(self.path(), Some(tag))?))
    }
}

/// A directory in which an archive will be.
pub struct ArchivePlace(TempDir);

impl ArchivePlace {
    /// In a directory of its own.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The archive.
    pub fn file(&self) -> PathBuf {
        self.0.path().join("images.tar")
    }
}

impl Place for ArchivePlace {
    fn source(&self, tag: &str) -> Result<Box<dyn Source>> {
        Ok(Box::new(OciArchive::open(&self.file(), Some(tag), None)?))
    }

    fn destination(&self, tag: &str) -> Result<Box<dyn Destination>> {
        Ok(Box::new(OciArchiveWriter::create(&self.file(), Some(tag))?))
    }

    fn settle(&self, destination: &dyn Destination) {
        publish(destination, "settled");
    }
}
