//! What is below everything else: removal of trees, mounts, locks, and files that are replaced at once.

pub(crate) mod atomic_file;
pub(crate) mod directory;
pub(crate) mod lock;
pub(crate) mod mountinfo;
pub(crate) mod remove;
#[cfg(test)]
pub(crate) mod tests;
