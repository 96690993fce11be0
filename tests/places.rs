//! The contracts of places, kept by the ones that need no server.

use crate::contract::Place;
use tempfile::TempDir;
use volio::Result;
use volio::transport::layout::Layout;
use volio::transport::memory::Memory;
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

mod a_layout_keeps_the_contract {
    crate::contract::suite!(tempfile::tempdir().unwrap());
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
