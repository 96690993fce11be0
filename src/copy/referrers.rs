//! Copying what refers to an image: signatures, attestations and SBOMs, which are listed as its referrers, or have the tags
//! that cosign makes of its digest.

use super::Copy;
use crate::error::{Error, Kind, Result, Side};
use crate::oci::{Digest, attachment_tags, media_type};
use crate::transport;

/// The longest chain of referrers that is followed. A signature of an SBOM has length two.
const DEPTH_LIMIT: usize = 8;

impl Copy<'_> {
    /// Copies the referrers of the copied documents, and their referrers.
    pub(super) fn copy_referrers(&mut self) -> Result<()> {
        for _ in 0..DEPTH_LIMIT {
            let subjects = std::mem::take(&mut self.documents);
            if subjects.is_empty() {
                return Ok(());
            }
            for subject in &subjects {
                self.copy_referrers_of(subject)?;
                self.copy_attachments_of(subject)?;
            }
        }
        if self.documents.is_empty() {
            return Ok(());
        }
        let what = format!("referrers refer to each other more than {DEPTH_LIMIT} deep");
        Err(Error::integrity(what).on(Side::Source))
    }

    /// Copies the attachments of a document, with their tags.
    fn copy_attachments_of(&mut self, subject: &Digest) -> Result<()> {
        for tag in attachment_tags(subject) {
            let attachment = self.from.tagged(&tag).map_err(|error| error.on(Side::Source))?;
            let Some(document) = attachment else { continue };
            if !self.present.contains(&document.descriptor().digest) {
                self.copy_document(&document, 0)?;
                self.report.referrers += 1;
            }
            self.to.attach(&tag, &document).map_err(|error| error.on(Side::Destination))?;
        }
        Ok(())
    }

    /// Copies the referrers of a document. The list of referrers may be outdated: one that does not exist, or has another
    /// subject, is left out with a warning.
    fn copy_referrers_of(&mut self, subject: &Digest) -> Result<()> {
        for entry in self.from.referrers(subject).map_err(|error| error.on(Side::Source))? {
            if self.present.contains(&entry.digest) {
                continue;
            }
            let leave_out = |why: &str| {
                self.progress.warn(&format!("{} refers to {subject} and is not copied: {why}", entry.digest));
            };
            if !media_type::is_document(&entry.media_type) {
                leave_out("it is not a manifest that volio knows");
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
            self.copy_document(&document, 0)?;
            self.report.referrers += 1;
        }
        Ok(())
    }
}
