//! The signatures that are stored beside an image, and the tools that read them. No signature is verified.

use super::{Documents, Finding};
use crate::oci::Digest;
use crate::transport::Source;
use crate::trust::{Form, find_signatures};

/// podman, skopeo, buildah, CRI-O and bootc read only the old form.
const OLD_FORM_ONLY: &str = "https://github.com/containers/container-libs/issues/388";
/// cosign 4 reads only bundles.
const BUNDLES_ONLY: &str = "https://github.com/sigstore/cosign/issues/4696";
/// A policy of containers/image is checked on the manifest of the platform.
const PLATFORM_MANIFEST: &str = "https://github.com/containers/image/issues/1953";

/// The number of manifests whose signatures are looked for.
const LIMIT: usize = 8;

/// The forms of the signatures of one document.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Forms {
    simple: bool,
    bundle: bool,
}

pub(super) fn check(documents: &Documents, source: &dyn Source) -> Vec<Finding> {
    let root = &documents.root.descriptor().digest;
    let manifests = documents.images.iter().map(|image| &image.document.descriptor().digest);
    let manifests: Vec<_> = manifests.filter(|digest| *digest != root).take(LIMIT).collect();
    let found = forms(source, root).and_then(|own| {
        Ok((own, manifests.iter().map(|digest| forms(source, digest)).collect::<Result<Vec<_>, _>>()?))
    });
    match found {
        Ok((root, manifests)) => explain(root, &manifests),
        Err(error) => vec![Finding::failure("signatures", "image", &error).by(OLD_FORM_ONLY)],
    }
}

fn forms(source: &dyn Source, subject: &Digest) -> crate::error::Result<Forms> {
    let mut forms = Forms::default();
    find_signatures(source, subject, |signature| {
        match signature.form() {
            Form::Simple => forms.simple = true,
            Form::Bundle => forms.bundle = true,
        }
        false
    })?;
    Ok(forms)
}

fn explain(root: Forms, manifests: &[Forms]) -> Vec<Finding> {
    let all = || std::iter::once(&root).chain(manifests);
    let (simple, bundle) = (all().any(|forms| forms.simple), all().any(|forms| forms.bundle));
    let sign = "volio sign writes both forms, for the index and every platform: docs/trust.md";
    let mut findings = match (simple, bundle) {
        (false, false) => vec![
            Finding::warning("signatures", "image", "it is not signed: engines with a policy that requires signatures refuse it")
                .by("containers-policy.json(5), sigstoreSigned")
                .advise(sign),
        ],
        (true, false) => vec![
            Finding::warning(
                "signatures",
                "image",
                "it has signatures in the .sig tag only, for podman, skopeo, CRI-O and bootc: cosign 4 will read only bundles",
            )
            .by(BUNDLES_ONLY)
            .advise(sign),
        ],
        (false, true) => vec![
            Finding::warning(
                "signatures",
                "image",
                "it has signatures as bundles only, for cosign: podman, skopeo, CRI-O and bootc read only those in the .sig tag",
            )
            .by(OLD_FORM_ONLY)
            .advise(sign),
        ],
        (true, true) => vec![
            Finding::ok(
                "signatures",
                "image",
                "it has signatures for podman, skopeo, CRI-O and bootc (.sig tag) and for cosign 3 and later (bundle); they were not verified",
            )
            .by(OLD_FORM_ONLY),
        ],
    };
    if simple && manifests.iter().any(|forms| !forms.simple) {
        findings.push(
            Finding::warning(
                "signed-platforms",
                "image",
                "not every platform is signed: podman, skopeo and CRI-O look at the manifest of the platform, not at the index",
            )
            .by(PLATFORM_MANIFEST)
            .advise(sign),
        );
    }
    findings
}
