//! Options for the limits on an image's metadata and content.

use crate::args::size;
use clap::Args;
use volio::Limits;

/// Limits on the metadata that an image makes volio hold in memory.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits against hostile images")]
pub struct LimitArgs {
    /// Refuse an image with more entries than this in all its layers together
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_entries)]
    max_entries: u64,

    /// Refuse an image whose names, links and extended attributes take more memory than this
    #[arg(long, value_name = "SIZE", default_value_t = Limits::default().max_names, value_parser = size)]
    max_names: u64,

    /// Refuse an entry with larger headers and extended attributes than this
    #[arg(long, value_name = "SIZE", default_value_t = Limits::default().max_metadata, value_parser = size)]
    max_metadata: u64,

    /// Refuse a longer path than this
    #[arg(long, value_name = "SIZE", default_value_t = Limits::default().max_path, value_parser = size)]
    max_path: u64,

    /// Refuse a path through more directories than this
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_depth)]
    max_depth: u64,
}

impl LimitArgs {
    /// Returns the limits in the library's form.
    pub fn limits(&self) -> Limits {
        let Self { max_metadata, max_path, max_depth, max_entries, max_names } = *self;
        Limits { max_metadata, max_path, max_depth, max_entries, max_names }
    }
}

/// The limit on content that a command reads without writing it to a disk.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits against hostile images")]
pub struct ContentLimitArg {
    /// Refuse more content than this, plain, in all layers together [default: 1G, and 1000 times what is stored]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_content: Option<u64>,
}
