//! Entries that failed in one walk and are left out of the next.

use super::{LeftOutReason, Walk, WalkOptions};
use crate::error::{Error, Result};
use crate::tree::race::{Changed, MAX_ATTEMPTS, OnChange, Unreadable};
use crate::tree::source_spec::SourceSpec;
use crate::tree::{Content, TreePath};
use std::collections::BTreeMap;
use std::io::Read;

/// The paths that a walk leaves out because an earlier walk over the same tree failed to read them.
///
/// A large file may fail after its header is in the archive. Then the layer is built again, without that file.
#[derive(Clone, Debug, Default)]
pub struct SkipList(BTreeMap<TreePath, LeftOutReason>);

impl SkipList {
    /// Returns whether another walk may succeed after this error of a walk, or of reading an entry. Adds the entry that
    /// the error names, if the options say that it is left out. `attempts` is the number of walks that failed before.
    pub fn record_failure(&mut self, error: &Error, options: &WalkOptions, attempts: u32) -> bool {
        if let Some(Unreadable { path, errno }) = Unreadable::cause_of(error) {
            return options.skip_unreadable && self.add(path, LeftOutReason::Unreadable(*errno));
        }
        match (Changed::cause_of(error), options.on_change) {
            (None, _) | (_, OnChange::Fail) => false,
            (Some(_), OnChange::Retry) => attempts < MAX_ATTEMPTS,
            (Some(Changed { path, change }), OnChange::Skip) => {
                self.add(path, LeftOutReason::Changed(*change))
            }
        }
    }

    /// Reads the whole tree without keeping anything, and adds every entry that fails. Without this, each such entry would
    /// cost one more attempt at a layer.
    ///
    /// # Errors
    /// Those that any other walk would meet too.
    pub fn survey(&mut self, sources: &[SourceSpec], options: &WalkOptions) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        for found in Walk::skipping(sources, options, self)? {
            let found = found?;
            let Some(mut content) = found.file else { continue };
            let error = loop {
                content.skip_hole();
                match content.read(&mut buffer) {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => {
                        break Some(Error::io(format!("cannot read {}", found.entry.path), error));
                    }
                }
            };
            if let Some(error) = error
                && !self.record_failure(&error, options, 0)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Returns the reason for which a path is left out.
    pub(super) fn get(&self, path: &TreePath) -> Option<LeftOutReason> {
        self.0.get(path).copied()
    }

    /// The paths, in order.
    #[cfg(test)]
    pub(in crate::tree) fn paths(&self) -> impl Iterator<Item = &TreePath> {
        self.0.keys()
    }

    /// Adds a path; returns whether it is new.
    pub(crate) fn add(&mut self, path: &TreePath, reason: LeftOutReason) -> bool {
        self.0.insert(path.clone(), reason).is_none()
    }
}

impl WalkOptions {
    /// Returns whether the entry that this error names is left out from now on, so that a survey of the rest is worthwhile.
    pub fn leaves_out_cause_of(&self, error: &Error) -> bool {
        Unreadable::cause_of(error).is_some() || self.on_change == OnChange::Skip
    }
}
