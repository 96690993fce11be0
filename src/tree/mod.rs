//! A directory tree: reading it from disk, merging and filtering it, and extracting it into a directory. Nothing here
//! knows about OCI.

mod activity;
mod compare;
mod content;
mod dir_stack;
mod entry;
mod extract;
mod file;
mod id_map;
mod merged;
mod overlay;
mod path;
mod path_map;
mod path_range;
mod path_set;
mod race;
mod resolution;
mod source_spec;
mod stored;
mod target_state;
mod target_walk;
#[cfg(test)]
mod tests;
mod walk;
mod xattr;

pub(crate) use activity::now;
pub use compare::{AtPath, Comparison, EntryPair, compare, pairs};
pub use content::Content;
pub use entry::{Entry, EntryKind, Metadata, Time};
pub use extract::{
    AtomicTarget, ExtractOptions, Extracted, Extractor, FileThreads, Holes, SpoolDirectory, Target,
};
pub(crate) use extract::{ExpectedAttributes, Place, SeenAs, SyncMount};
pub use file::FileContent;
pub use id_map::{IdMap, IdMaps, IdRange, Owner, Unmapped};
pub use merged::MergedTree;
pub use overlay::Overlay;
pub use path::TreePath;
pub(crate) use path_map::{NodeId, PathMap, memory_exceeded};
pub use path_range::PathRange;
pub use path_set::PathSet;
pub use race::{Changed, FileChange, OnChange, Unreadable};
pub(crate) use resolution::{Resolution, Step};
pub use source_spec::SourceSpec;
pub use stored::StoredTree;
pub use target_state::TargetState;
pub(crate) use target_state::{WATCH_DIRECTORY, is_reserved_name};
pub(crate) use target_walk::{ClosedDirectory, FileState, FoundEntry, TargetFile, TargetFiles, TargetWalk};
pub use walk::{
    LeftOut, LeftOutReason, ListedDirectories, RuleFiles, SkipList, Summary, Walk, WalkOptions, WalkedEntry,
    rule_lines,
};
