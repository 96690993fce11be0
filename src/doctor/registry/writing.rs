//! Writing to a repository, on request. Uploads are begun and cancelled; no blob and no manifest is stored or deleted.

use super::{Finding, RegistryOptions};
use crate::error::Kind;
use crate::oci::{Digest, Document, media_type};
use crate::transport::registry::{Answer, Probe, Sample, UploadSession};

const UPLOADS: &str = "distribution-spec, \"Pushing blobs\"";
const CHUNKS: &str = "distribution-spec, \"Pushing a blob in chunks\"; https://github.com/dotnet/sdk-container-builds/issues/287";
const MOUNT: &str = "distribution-spec, \"Mounting a blob from another repository\"";
const DELETE: &str = "distribution-spec, \"Content Management\": 405 if deletion is disabled";
const CANCEL: &str = "distribution-spec, \"Cancel a blob upload\"";

/// The bytes that are sent, which are never stored.
const BYTES: &[u8] = b"volio doctor has sent this; it is not stored";

pub(super) fn check(
    probe: &Probe,
    place: &str,
    sample: Option<&Sample>,
    options: &RegistryOptions,
) -> Vec<Finding> {
    if !options.write_test {
        let what =
            "uploads, mounts and deletion were not tried: --write-test begins uploads and cancels them";
        return vec![Finding::ok("push", place, what).by(UPLOADS)];
    }
    let mut session = match begin(probe, place) {
        Ok(session) => session,
        Err(finding) => return vec![*finding],
    };
    let mut findings = vec![Finding::ok("push", place, "uploads can be begun").by(UPLOADS)];
    findings.push(chunks(probe, place, &mut session));
    findings.extend(cancel(probe, place, session));
    findings.extend(whole(probe, place));
    findings.extend(sample.map(|sample| mount(probe, place, sample)));
    findings.push(delete(probe, place));
    findings
}

/// Begins an upload.
fn begin(probe: &Probe, place: &str) -> Result<UploadSession, Box<Finding>> {
    let refused = |status: u16| match status {
        401 | 403 => Finding::error(
            "push",
            place,
            format!("the credentials allow to read only: an upload is answered with {status}"),
        )
        .advise("credentials or a token with the right to push to this repository are needed"),
        405 => Finding::error("push", place, "the registry is read-only: an upload is answered with 405")
            .advise(
                "push to the registry itself and not to a mirror, or wait for the end of its maintenance",
            ),
        _ => Finding::error("push", place, format!("an upload cannot be begun: {status}"))
            .advise("ask its operator"),
    };
    let finding = match probe.begin_upload(None) {
        Ok((_, Some(session))) => return Ok(session),
        Ok((answer, None)) => refused(answer.status),
        Err(error) if error.kind() == Kind::Denied => refused(error.status().unwrap_or(401)),
        Err(error) => Finding::failure("push", place, &error),
    };
    Err(Box::new(finding.by(UPLOADS)))
}

fn chunks(probe: &Probe, place: &str, session: &mut UploadSession) -> Finding {
    let finding = match probe.send_chunk(session, BYTES) {
        Ok(answer) if answer.is_success() => Finding::ok("chunks", place, "it takes blobs in chunks"),
        Ok(answer) => Finding::warning(
            "chunks",
            place,
            format!("it takes no chunks ({}): an upload that breaks begins again", answer.status),
        )
        .advise("keep layers small with --layer-size"),
        Err(error) => Finding::failure("chunks", place, &error),
    };
    finding.by(CHUNKS)
}

fn cancel(probe: &Probe, place: &str, session: UploadSession) -> Option<Finding> {
    let failed = match probe.cancel_upload(session) {
        // An upload that failed may be gone already.
        Ok(answer) if answer.is_success() || answer.status == 404 => return None,
        Ok(answer) => answer.status.to_string(),
        Err(error) => error.to_string(),
    };
    Some(
        Finding::warning(
            "cancel",
            place,
            format!("it does not cancel uploads ({failed}): it deletes the one of this test itself"),
        )
        .by(CANCEL)
        .advise("nothing: registries delete unfinished uploads after about a week"),
    )
}

/// Sends a whole blob with a wrong digest, which the registry must reject after it has read it.
fn whole(probe: &Probe, place: &str) -> Vec<Finding> {
    let session = match begin(probe, place) {
        Ok(session) => session,
        Err(finding) => return vec![*finding],
    };
    let sent = probe.send_wrong_blob(&session, BYTES, &Digest::of(b"something else"));
    let finding = match sent {
        Ok(answer) if answer.status == 400 => {
            Finding::ok("whole-blobs", place, "it reads whole blobs, and rejects a wrong digest")
        }
        Ok(answer) if answer.is_success() => {
            Finding::error("whole-blobs", place, "it has stored a blob under a digest that it does not have")
                .advise("do not use this registry: what it stores is not what its digest says")
        }
        Ok(Answer { status: 413, .. }) => Finding::error(
            "whole-blobs",
            place,
            "it, or a proxy in front of it, limits the size of requests: 413",
        )
        .advise("--chunk-size sends smaller requests"),
        Ok(answer) => {
            Finding::warning("whole-blobs", place, format!("it answers {} to a whole blob", answer.status))
                .advise("try --chunk-size 4M")
        }
        Err(error) => Finding::failure("whole-blobs", place, &error),
    };
    std::iter::once(finding.by(UPLOADS)).chain(cancel(probe, place, session)).collect()
}

/// Mounts a blob of the repository into the repository itself.
fn mount(probe: &Probe, place: &str, sample: &Sample) -> Finding {
    let finding = match probe.begin_upload(Some(&sample.blob.digest)) {
        Ok((answer, None)) if answer.status == 201 => {
            Finding::ok("mount-blob", place, "it mounts blobs between repositories")
        }
        Ok((answer, session)) => {
            // The finding is about the mount; cancelling was tried before.
            session.map(|session| cancel(probe, place, session));
            Finding::warning(
                "mount-blob",
                place,
                format!(
                    "it does not mount blobs ({}): copies between repositories send them again",
                    answer.status
                ),
            )
            .advise("some registries have a setting for it; nothing else is needed")
        }
        Err(error) => Finding::failure("mount-blob", place, &error),
    };
    finding.by(MOUNT)
}

/// Asks for the deletion of a manifest that does not exist.
fn delete(probe: &Probe, place: &str) -> Finding {
    let nothing = Document::new(media_type::MANIFEST, BYTES.to_vec());
    let finding = match probe.delete_nothing(&nothing) {
        Ok(answer) if answer.status == 404 || answer.is_success() => {
            Finding::ok("delete", place, "it deletes images")
        }
        Ok(answer) if answer.is_denied() => Finding::warning(
            "delete",
            place,
            format!("the credentials do not allow to delete: {}", answer.status),
        )
        .advise("volio rm and prune need credentials with that right"),
        Ok(answer) => Finding::warning(
            "delete",
            place,
            format!("deletion is disabled: {}; volio rm and prune do not work", answer.status),
        )
        .advise(
            "distribution: REGISTRY_STORAGE_DELETE_ENABLED=true; others have rules of retention of their own",
        ),
        Err(error) if error.kind() == Kind::Denied => {
            Finding::warning("delete", place, "the credentials do not allow to delete")
                .advise("volio rm and prune need credentials with that right")
        }
        Err(error) => Finding::failure("delete", place, &error),
    };
    finding.by(DELETE)
}
