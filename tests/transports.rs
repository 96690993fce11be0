//! The contract of the transports that need no server.

use crate::contract::{TestTransport, publish};
use std::path::PathBuf;
use tempfile::TempDir;
use volio::Result;
use volio::transport::layout::Layout;
use volio::transport::memory::Memory;
use volio::transport::oci_archive::{OciArchive, OciArchiveWriter};
use volio::transport::{Destination, Removal, Source};

mod memory_fulfils_the_contract {
    crate::contract::suite!(volio::transport::memory::Memory::default());
}

mod memory_has_tags {
    crate::contract::suite!(volio::transport::memory::Memory::default() => tags_are_sorted_by_their_bytes a_removed_tag_is_not_found);
}

mod a_layout_has_tags {
    crate::contract::suite!(tempfile::tempdir().unwrap() => tags_are_sorted_by_their_bytes a_removed_tag_is_not_found);
}

mod an_oci_archive_has_tags {
    crate::contract::suite!(super::TemporaryArchive::new() => tags_are_sorted_by_their_bytes);
}

mod a_layout_fulfils_the_contract {
    crate::contract::suite!(tempfile::tempdir().unwrap());
}

mod an_oci_archive_fulfils_the_contract {
    crate::contract::suite!(super::TemporaryArchive::new());
}

impl TestTransport for Memory {
    fn source(&self, tag: &str) -> Result<Box<dyn Source>> {
        Ok(Box::new(self.named(tag)))
    }

    fn destination(&self, tag: &str) -> Result<Box<dyn Destination>> {
        Ok(Box::new(self.named(tag)))
    }

    fn removal(&self, tag: &str) -> Result<Box<dyn Removal>> {
        Ok(Box::new(self.named(tag)))
    }
}

/// A layout in a temporary directory.
impl TestTransport for TempDir {
    fn source(&self, tag: &str) -> Result<Box<dyn Source>> {
        Ok(Box::new(Layout::open(self.path(), Some(tag), None)?))
    }

    fn destination(&self, tag: &str) -> Result<Box<dyn Destination>> {
        Ok(Box::new(Layout::create(self.path(), Some(tag))?))
    }

    fn removal(&self, tag: &str) -> Result<Box<dyn Removal>> {
        Ok(Box::new(Layout::open(self.path(), Some(tag), None)?))
    }
}

/// An archive in a temporary directory.
pub struct TemporaryArchive(TempDir);

impl TemporaryArchive {
    /// An archive that does not exist yet.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns the path of the archive.
    pub fn file(&self) -> PathBuf {
        self.0.path().join("images.tar")
    }
}

impl TestTransport for TemporaryArchive {
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
