//! The options of `volio pack` for a pack of what changed.

use crate::args::location;
use crate::limit_args::LimitArgs;
use crate::signature_args::VerificationArgs;
use clap::Args;
use std::path::PathBuf;
use volio::pack::{Base, ContentCheck, Effect, IncrementalOptions, Predecessor, ShrinkRule};
use volio::service::TreeSize;
use volio::{Access, Location, Result};

/// The limit on what a source may lose if nobody looks at it.
const UNATTENDED_SHRINK: u8 = 90;
/// The limit for a base that the user names: only a source without files is refused.
const ATTENDED_SHRINK: u8 = 100;

/// Options for a pack of what changed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Incremental options")]
pub struct IncrementalArgs {
    /// Add only what changed to the image that IMAGE names now; without one, pack everything
    #[arg(long, group = "comparison")]
    incremental: bool,

    /// Add only what changed to this image
    #[arg(long, value_name = "IMAGE", group = "comparison", value_parser = location())]
    base: Option<Location>,

    /// Compare the contents of all files, not only of those whose times prove nothing
    #[arg(long, requires = "comparison")]
    checksum: bool,

    /// Pack everything if the image would have more layers
    #[arg(long, value_name = "N", requires = "comparison", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_layers: u16,

    /// Pack everything if more of the image's bytes would belong to files that are gone or replaced
    #[arg(long, value_name = "PERCENT", requires = "comparison", default_value_t = 50, value_parser = clap::value_parser!(u8).range(..=100))]
    max_dead: u8,

    /// Refuse a source that lost more of the files or bytes of the base, or of the last run by the schedule [default: 90, and 100, which refuses an empty source only, with --base]
    #[arg(long, value_name = "PERCENT", requires = "guarded", conflicts_with = "allow_shrink", value_parser = clap::value_parser!(u8).range(..=100))]
    max_shrink: Option<u8>,

    /// Pack a source whatever it lost, also an empty one
    #[arg(long, requires = "guarded")]
    allow_shrink: bool,

    /// Say what would be packed and sent, and write nothing
    #[arg(long, requires = "comparison")]
    pub dry_run: bool,

    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    signatures: VerificationArgs,
}

impl IncrementalArgs {
    /// Adds only what changed, as `--incremental` says, unless `--base` is given.
    pub fn enable(&mut self) {
        self.incremental = self.base.is_none();
    }

    /// Returns the base of an image that is packed to `image`; `None` if everything is to be packed.
    ///
    /// # Errors
    /// When the keys that must have signed it cannot be read.
    pub fn base(&self, image: &Location, access: &Access) -> Result<Option<Base>> {
        let base = match &self.base {
            Some(base) => Base::image(base.clone(), access.clone()),
            None if self.incremental => Base::current(image.clone(), access.clone()),
            None => return Ok(None),
        };
        Ok(Some(match self.signatures.policy()? {
            Some(policy) => base.signed_as(policy),
            None => base,
        }))
    }

    fn shrink_rule(&self) -> ShrinkRule {
        let default = if self.base.is_some() { ATTENDED_SHRINK } else { UNATTENDED_SHRINK };
        let limit = Some(self.max_shrink.unwrap_or(default)).filter(|_| !self.allow_shrink);
        limit.map_or(ShrinkRule::Any, ShrinkRule::AtMost)
    }

    /// Returns the tree of the last run, and what the next one may lose of it.
    pub fn predecessor(&self, TreeSize { files, bytes }: TreeSize) -> Predecessor {
        Predecessor { files, bytes, rule: self.shrink_rule() }
    }

    /// Returns the options of the library. `temporary` is a directory for unnamed files.
    pub fn options(&self, temporary: PathBuf) -> IncrementalOptions {
        IncrementalOptions {
            content_check: if self.checksum { ContentCheck::Always } else { ContentCheck::WhereUncertain },
            max_layers: self.max_layers.into(),
            max_dead: self.max_dead,
            shrink_rule: self.shrink_rule(),
            effect: if self.dry_run { Effect::DryRun } else { Effect::Write },
            temporary: Some(temporary),
            limits: self.limits.limits(),
        }
    }
}
