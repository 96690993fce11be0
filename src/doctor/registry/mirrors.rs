//! Mirrors: those that `registries.conf` names, and whether they answer.

use super::Finding;
use crate::transport::Access;
use crate::transport::registry::Probe;

const MIRRORS: &str = "containers-registries.conf(5), \"Remapping and mirroring registries\"";

pub(super) fn check(probe: &Probe, access: &Access) -> Vec<Finding> {
    let mirrors = match probe.mirrors() {
        Ok(mirrors) => mirrors,
        Err(error) => return vec![Finding::failure("mirror", "registries.conf", &error).by(MIRRORS)],
    };
    let check = |mirror: crate::oci::Reference| {
        let answer =
            Probe::new(mirror.registry(), Some(mirror.repository()), access).and_then(|mirror| mirror.ping());
        match answer {
            Ok(answer) => {
                let what = format!("this mirror is read first; it answers {} to /v2/", answer.status);
                Finding::ok("mirror", mirror.name(), what).by(MIRRORS)
            }
            Err(error) => Finding::warning(
                "mirror",
                mirror.name(),
                format!("this mirror is read first, and fails: {error}"),
            )
            .by(MIRRORS)
            .advise("it is passed over, which takes time: correct or remove it in registries.conf"),
        }
    };
    mirrors.into_iter().map(check).collect()
}
