//! Copying what refers to an image: signatures, attestations and SBOMs, which are listed as its referrers, or have the tags
//! that cosign makes of its digest.

use super::{BlobToCopy, Copy};
use crate::error::{Error, Kind, Result, Side};
use crate::oci::{Digest, Document, Manifest, attachment_tags, media_type};
use crate::transport;
use crate::trust::{MergedManifest, MergedSignatures, merge_signatures};

/// The longest chain of referrers that is followed. A signature of an SBOM has length two.
const DEPTH_LIMIT: usize = 8;
/// The largest number of referrers and attachments of one image. A registry can make up any number of them.
const COUNT_LIMIT: u64 = 20_000;
/// The suffix of the tag of an SBOM, which a newer one replaces.
const SBOM: &str = ".sbom";
/// The most times that signatures are added to a tag that other writers change at the same time.
const MAX_ATTEMPTS: u32 = 20;

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
            self.copy_attachment(&tag, &document)?;
        }
        Ok(())
    }

    /// Copies an attachment. Signatures and attestations are added to those that the destination has: they are the layers of
    /// one document, and another site may have added its own.
    fn copy_attachment(&mut self, tag: &str, document: &Document) -> Result<()> {
        for _ in 0..MAX_ATTEMPTS {
            let there = if tag.ends_with(SBOM) { None } else { self.attached_manifest(tag)? };
            let Some(there) = there.filter(|there| lacks_layers(document, there)) else {
                return self.replace_attachment(tag, document);
            };
            let merged = match merge_signatures(&there, document) {
                MergedSignatures::Unchanged => return Ok(()),
                MergedSignatures::Merged(merged) => merged,
                MergedSignatures::Impossible(why) => {
                    self.progress.warn(&format!(
                        "{tag} has signatures at the destination that the source lacks, and is not replaced: {why}; \
                         remove the tag there, if the source is right"
                    ));
                    return Ok(());
                }
            };
            if self.attach_merged(tag, document, &there, &merged)? {
                return self.count_referrer();
            }
        }
        Err(Error::refused(format!("other writers change the tag {tag} again and again"))
            .with_hint("nothing is lost; copy the image again")
            .on(Side::Destination))
    }

    /// Copies an attachment, and gives it its tag in place of what had the tag.
    fn replace_attachment(&mut self, tag: &str, document: &Document) -> Result<()> {
        let digest = &document.descriptor().digest;
        if self.known.present.contains(digest) {
            self.follow(digest);
        } else {
            self.copy_document(document, 0)?;
            self.count_referrer()?;
        }
        self.to.attach(tag, document).map_err(|error| error.on(Side::Destination))
    }

    /// Attaches the manifest that has the signatures of `there` and those of `document`. Returns `false` if another writer has
    /// changed the tag meanwhile.
    fn attach_merged(
        &mut self,
        tag: &str,
        document: &Document,
        there: &Document,
        MergedManifest { config, manifest }: &MergedManifest,
    ) -> Result<bool> {
        let added = Manifest::parse(document).map_err(|error| error.on(Side::Source))?.layers;
        self.copy_blobs(added.iter().map(|descriptor| BlobToCopy { descriptor, is_in_base: false }))?;
        let attach = || {
            // Those that are kept are needed: no removal may delete them meanwhile.
            for kept in Manifest::parse(there)?.layers {
                self.to.contains(&kept)?;
            }
            self.to.put_documents(std::slice::from_ref(config), &[manifest])?;
            self.to.attach_unless_moved(tag, manifest, Some(&there.descriptor().digest))
        };
        attach().map_err(|error| error.on(Side::Destination))
    }

    /// Returns the manifest with this tag at the destination. One that cannot be read is replaced.
    fn attached_manifest(&self, tag: &str) -> Result<Option<Document>> {
        match self.to.tagged(tag) {
            Err(error) if matches!(error.kind(), Kind::Integrity | Kind::NotFound) => Ok(None),
            there => there.map_err(|error| error.on(Side::Destination)),
        }
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

/// Returns whether a document lacks layers that another one has.
fn lacks_layers(document: &Document, other: &Document) -> bool {
    let layers = |document| Manifest::parse(document).map(|manifest| manifest.layers).unwrap_or_default();
    let has = layers(document);
    layers(other).iter().any(|layer| !has.contains(layer))
}
