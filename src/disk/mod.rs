//! Operations on disk that every other module may use: removal of trees, mounts, locks, atomic replacement of files, and
//! working directories of threads.

pub(crate) mod atomic_file;
pub(crate) mod directory;
pub(crate) mod lock;
pub(crate) mod mountinfo;
pub(crate) mod remove;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod working_directory;
