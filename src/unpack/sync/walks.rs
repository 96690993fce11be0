//! The entries of a target in order, with those of mount points that are entered, and names for new ones.

use crate::error::Result;
use crate::tree::{FoundEntry, TargetWalk};
use std::collections::HashSet;

/// The entries of the target and of what is mounted in it, in the order of paths.
pub(super) struct Walks<I> {
    main: I,
    /// The walks over mount points that were entered, the innermost last.
    pub mounts: Vec<TargetWalk>,
    next: Option<FoundEntry>,
}

impl<I: Iterator<Item = Result<FoundEntry>>> Walks<I> {
    /// Creates a walk over the target.
    pub fn of(main: I) -> Self {
        Self { main, mounts: Vec::new(), next: None }
    }

    /// Returns the next entry.
    ///
    /// # Errors
    /// Those of the walks.
    pub fn peek(&mut self) -> Result<Option<&FoundEntry>> {
        while self.next.is_none() {
            self.next = match self.mounts.last_mut() {
                None => match self.main.next() {
                    None => return Ok(None),
                    found => found.transpose()?,
                },
                Some(mount) => match mount.next().transpose()? {
                    None => {
                        self.mounts.pop();
                        continue;
                    }
                    found => found,
                },
            };
        }
        Ok(self.next.as_ref())
    }

    /// Takes the entry that was returned last.
    pub fn take(&mut self) -> Option<FoundEntry> {
        self.next.take()
    }
}

/// A name for temporary entries that no entry of the image or of the target has.
#[derive(Default)]
pub(super) struct TemporaryName(HashSet<Vec<u8>>);

impl TemporaryName {
    const NAME: &'static [u8] = b".volio.new";

    /// Notes a name.
    pub fn exclude(&mut self, name: &[u8]) {
        if name.starts_with(Self::NAME) {
            self.0.insert(name.to_vec());
        }
    }

    /// Returns a name that was not noted.
    pub fn choose(&self) -> Vec<u8> {
        let names = (0u64..).map(|number| [Self::NAME, number.to_string().as_bytes()].concat());
        // There are more numbers than names.
        names.into_iter().find(|name| !self.0.contains(name)).unwrap_or_default()
    }
}
