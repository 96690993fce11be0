//! Copying what refers to an image: signatures, attestations and SBOMs, which are listed as its referrers, or have the tags
//! that cosign makes of its digest.

use super::Copy;
use crate::error::{Error, Kind, Result, Side};
use crate::oci::{Digest, Document, Manifest, attachment_tags, media_type};
use crate::transport;

/// The longest chain of referrers that is followed. A signature of an SBOM has length two.
const DEPTH_LIMIT: usize = 8;
/// The largest number of referrers and attachments of one image. A registry can make up any number of them.
const COUNT_LIMIT: u64 = 20_000;
/// The suffix of the tag of an SBOM, which a newer one replaces.
const SBOM: &str = ".sbom";

impl Copy<'_> {
    /// Copies the referrers of the copied documents, and their referrers.
    pub(super) fn copy_referrers(&mut self) -> Result<()> {
        for _ in 0..DEPTH_LIMIT {
            let subjects = std::mem::take(&mut self.documents);
            if subjects.is_empty() {
                return Ok(());
            }
            for subject in subjects {
                // Tags share images, and images share platforms.
                if self.known.followed.contains(&subject) {
                    continue;
                }
                self.copy_referrers_of(&subject)?;
                self.copy_attachments_of(&subject)?;
                self.known.followed.insert(subject);
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
            if self.has_other_signatures(&tag, &document)? {
                self.progress.warn(&format!(
                    "{tag} has signatures at the destination that the source lacks, and is not replaced: remove the tag \
                     there, if the source is right"
                ));
                continue;
            }
            let digest = &document.descriptor().digest;
            if self.known.present.contains(digest) {
                self.follow(digest);
            } else {
                self.copy_document(&document, 0)?;
                self.count_referrer()?;
            }
            self.to.attach(&tag, &document).map_err(|error| error.on(Side::Destination))?;
        }
        Ok(())
    }

    /// Returns whether the destination has signatures or attestations under this tag that the document lacks. They are the
    /// layers of the document, which another site may have added to.
    fn has_other_signatures(&self, tag: &str, document: &Document) -> Result<bool> {
        if tag.ends_with(SBOM) {
            return Ok(false);
        }
        let there = self.to.tagged(tag).map_err(|error| error.on(Side::Destination));
        // One that cannot be read is replaced.
        let there = match there {
            Err(error) if matches!(error.kind(), Kind::Integrity | Kind::NotFound) => return Ok(false),
            there => there?,
        };
        let Some(Ok(there)) = there.as_ref().map(Manifest::parse) else { return Ok(false) };
        let layers = Manifest::parse(document).map(|manifest| manifest.layers).unwrap_or_default();
        Ok(there.layers.iter().any(|layer| !layers.contains(layer)))
    }

    /// Follows the referrers of a document that the destination has, because another image has it too.
    fn follow(&mut self, document: &Digest) {
        if !self.known.followed.contains(document) {
            self.documents.push(document.clone());
        }
    }

    fn count_referrer(&mut self) -> Result<()> {
        self.report.referrers += 1;
        if self.report.referrers <= COUNT_LIMIT {
            return Ok(());
        }
        let what = format!("the image has more than {COUNT_LIMIT} referrers and attachments");
        Err(Error::integrity(what).on(Side::Source))
    }

    /// Copies the referrers of a document. The list of referrers may be outdated: one that does not exist, or has another
    /// subject, is left out with a warning.
    fn copy_referrers_of(&mut self, subject: &Digest) -> Result<()> {
        for entry in self.from.referrers(subject).map_err(|error| error.on(Side::Source))? {
            if self.known.present.contains(&entry.digest) {
                self.follow(&entry.digest);
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
            self.count_referrer()?;
        }
        Ok(())
    }
}
