//! What refers to an image goes with it: signatures, attestations, lists of what is in it, be they listed as its
//! referrers or under the tags that cosign makes of its digest.

use super::Copy;
use crate::error::{Error, Kind, Result, Side};
use crate::oci::{Digest, media_type};
use crate::transport;

/// How far referrers are followed: a signature of a list of contents is two, and more than a few are an attack.
const DEPTH: usize = 8;

impl Copy<'_> {
    /// Copies what refers to the documents that were copied, and what refers to that.
    pub(super) fn referrers(&mut self) -> Result<()> {
        for _ in 0..DEPTH {
            let subjects = std::mem::take(&mut self.documents);
            if subjects.is_empty() {
                return Ok(());
            }
            for subject in &subjects {
                self.referrers_of(subject)?;
                self.attachments_of(subject)?;
            }
        }
        match self.documents.is_empty() {
            true => Ok(()),
            false => Err(Error::integrity(format!("referrers refer to each other more than {DEPTH} deep"))
                .on(Side::Source)),
        }
    }

    /// Copies what cosign attached to a document, each with its tag.
    fn attachments_of(&mut self, subject: &Digest) -> Result<()> {
        for (tag, document) in self.from.attachments(subject).map_err(|error| error.on(Side::Source))? {
            if !self.seen.contains(&document.descriptor().digest) {
                self.document(&document, 0)?;
                self.done.referrers += 1;
            }
            self.to.attach(&tag, &document).map_err(|error| error.on(Side::Destination))?;
        }
        Ok(())
    }

    /// A list may be older than what it lists: what is not there, or is about something else, is left out aloud.
    fn referrers_of(&mut self, subject: &Digest) -> Result<()> {
        for entry in self.from.referrers(subject).map_err(|error| error.on(Side::Source))? {
            if self.seen.contains(&entry.digest) {
                continue;
            }
            let leave_out = |why: &str| {
                self.progress.warn(&format!("{} refers to {subject} and is not copied: {why}", entry.digest));
            };
            if !media_type::is_document(&entry.media_type) {
                leave_out("it is no manifest that volio knows");
                continue;
            }
            let document = match transport::fetch(self.from, &entry) {
                Err(error) if error.kind() == Kind::NotFound => {
                    leave_out("it is not there");
                    continue;
                }
                document => document.map_err(|error| error.on(Side::Source))?,
            };
            if document.as_referrer().is_none_or(|(its, _)| its != *subject) {
                leave_out("it says that it is about something else");
                continue;
            }
            self.document(&document, 0)?;
            self.done.referrers += 1;
        }
        Ok(())
    }
}
