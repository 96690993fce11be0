//! Following a tag: each version of an image is published in a directory.
//!
//! A poll is one request for the manifest. It is compared with what the directory itself records, so that nothing depends on
//! what this process remembers: after a restart, a version that was published meanwhile is found at once.
//!
//! For a new version, in this order:
//!
//! 1. `--before`, and the version is fetched.
//! 2. `--before-publish` in the new tree. If it fails, the version is removed again, and not fetched again until the tag
//!    means another one.
//! 3. The version is published, and `--after` runs.
//! 4. `--on-change`, until it has succeeded for the version or was tried often enough.
//! 5. Old versions are removed.
//!
//! Whatever fails, the last version that was published stays.

mod backoff;
mod follower;
mod publishing;

use super::hook::Hook;
use super::publish::{Publication, Publisher};
use super::run::Runner;
use super::state::JobState;
use super::status::Status;
use crate::error::Result;
use crate::progress::Progress;
use crate::stream::CancelToken;
use crate::transport::Source;
use crate::unpack;
use follower::Follower;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The purpose for which an image is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To look which version it is. It fails at once, without retries and warnings, because it will be done again.
    Poll,
    /// To fetch it.
    Fetch,
}

/// Opens the image, with the credentials that are valid by now.
pub type OpenSource = dyn Fn(Purpose) -> Result<Box<dyn Source>> + Send + Sync;

/// The options of a watch.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// The time from the end of a poll to the next one.
    pub period: Duration,
    /// The way in which versions are published.
    pub publication: Publication,
    /// The way in which a version is unpacked. Its write mode is that of a sync.
    pub unpack: unpack::Options,
    /// The hook that decides about a version before it is published. In place there can be none.
    pub before_publish: Option<Hook>,
    /// The hook that is run when a version was published.
    pub on_change: Option<Hook>,
    /// The number of attempts of that hook for one version.
    pub on_change_attempts: u32,
    /// The number of failures in a row, before the first version is published, after which the watch ends; `None` if it
    /// never does.
    pub init_failures: Option<u32>,
    /// The same number for failures after that.
    pub max_failures: Option<u32>,
    /// Set if the name of the image is a digest, which always means the same image.
    pub is_pinned: bool,
}

/// A tag, and the directory in which its versions are published.
pub struct Watch {
    /// The directory.
    pub target: PathBuf,
    /// The options.
    pub options: WatchOptions,
    /// Opens the image.
    pub open: Arc<OpenSource>,
    /// The hooks around each unpack, and the surroundings of all hooks.
    pub runner: Runner,
    /// The receiver of the progress of unpacks.
    pub progress: Arc<dyn Progress>,
    /// The note about runs that were killed.
    pub state: Option<JobState>,
    /// The state that others look at.
    pub status: Arc<Status>,
}

impl Watch {
    /// Follows the tag until it is cancelled.
    ///
    /// # Errors
    /// At once, if the directory cannot be used for it: [`Refused`](crate::error::Kind::Refused) if the name of the link is
    /// occupied, another run is at work there, or a sync is refused there. Later, the last error when there were more
    /// failures than are accepted.
    pub fn run(self, cancel: &CancelToken) -> Result<()> {
        let WatchOptions { publication, unpack, .. } = &self.options;
        let publisher = Publisher::open(&self.target, publication.clone(), unpack.clone(), cancel.clone())?;
        let mut follower = Follower::new(self, publisher);
        follower.recover();
        while !cancel.is_cancelled() {
            let pause = follower.turn(cancel)?;
            if follower.wait(pause, cancel).is_err() {
                break;
            }
        }
        Ok(())
    }
}
