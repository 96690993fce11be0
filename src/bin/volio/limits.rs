//! The options that move the limits on what an image may make us remember.

use crate::args::size;
use clap::Args;
use volio::layer::Limits;

/// Limits that no honest image meets.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits against hostile images")]
pub struct Bounds {
    /// Refuse an image with more entries than this in all its layers together
    #[arg(long, value_name = "N", default_value_t = Limits::default().entries)]
    max_entries: u64,

    /// Refuse more names, links and extended attributes than this in all layers together
    #[arg(long, value_name = "SIZE", default_value_t = Limits::default().names, value_parser = size)]
    max_names: u64,

    /// Refuse an entry with larger headers and extended attributes than this
    #[arg(long, value_name = "SIZE", default_value_t = Limits::default().metadata, value_parser = size)]
    max_metadata: u64,

    /// Refuse a longer path than this
    #[arg(long, value_name = "SIZE", default_value_t = Limits::default().path, value_parser = size)]
    max_path: u64,

    /// Refuse a path through more directories than this
    #[arg(long, value_name = "N", default_value_t = Limits::default().depth)]
    max_depth: u64,
}

impl Bounds {
    /// The limits as the library knows them.
    pub fn limits(&self) -> Limits {
        Limits {
            metadata: self.max_metadata,
            path: self.max_path,
            depth: self.max_depth,
            entries: self.max_entries,
            names: self.max_names,
        }
    }
}
