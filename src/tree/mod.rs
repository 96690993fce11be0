//! A directory on disk: what is in it, and how it comes into being again. It does not know that it will be an image.

mod activity;
mod change;
mod content;
mod descent;
mod entry;
mod extent;
mod extract;
mod file;
mod filter;
mod listed;
mod listing;
mod merge;
mod merged;
mod observe;
mod overlay;
mod owner;
mod path;
mod path_map;
mod record;
mod resolution;
mod source;
mod stored;
#[cfg(test)]
mod tests;
mod walk;
mod xattr;

pub use change::{Change, Changed, OnChange, Unreadable};
pub use content::Content;
pub use entry::{Entry, Kind, Metadata, Time};
pub use extent::Extent;
pub use extract::{ExtractOptions, Extracted, Extractor, Holes, SpoolPlace, Staged, Target};
pub use file::FileContent;
pub use filter::rule_lines;
pub use listed::Listed;
pub use merge::Walk;
pub use merged::MergedTree;
pub use observe::{Found, LeftOut, Reason, RuleFiles, Summary, WalkOptions};
pub use overlay::Overlay;
pub use owner::{IdMap, IdMaps, IdRange, Owner, Unmapped};
pub use path::TreePath;
pub(crate) use path_map::{NodeId, PathMap, too_much};
pub use record::Record;
pub(crate) use resolution::{Resolution, Step};
pub use source::SourceSpec;
pub use stored::StoredTree;
