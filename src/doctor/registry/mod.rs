//! The checks of a registry, and of a repository in it. Without `write_test`, only GET and HEAD requests are sent.

mod connection;
mod login;
mod mirrors;
mod repository;
mod writing;

use super::finding::{Diagnosis, Finding};
use crate::error::Result;
use crate::transport::Access;
use crate::transport::registry::Probe;
use std::time::SystemTime;

/// The options of [`diagnose_registry`].
#[derive(Clone, Copy, Debug)]
pub struct RegistryOptions {
    /// The clock of this machine, which the library does not read itself.
    pub clock: fn() -> SystemTime,
    /// Begin and cancel uploads, and delete a manifest that does not exist.
    pub write_test: bool,
}

/// Diagnoses a registry, or with `repository` also the access to that.
///
/// # Errors
/// When a file with credentials, certificates or mirrors cannot be read. A registry that cannot be reached is a finding.
pub fn diagnose_registry(
    host: &str,
    repository: Option<&str>,
    access: &Access,
    options: &RegistryOptions,
) -> Result<Diagnosis> {
    let probe = Probe::new(host, repository, access)?;
    let subject = repository.map_or_else(|| host.to_owned(), |repository| format!("{host}/{repository}"));
    let (mut findings, is_reachable) = connection::check(&probe, host, options);
    findings.extend(mirrors::check(&probe, access));
    if is_reachable {
        let (login, is_accepted) = login::check(&probe, host, options);
        findings.extend(login);
        if repository.is_none() {
            findings.push(Finding::ok(
                "repository",
                host,
                "no repository was named: tags, ranges, referrers and rights are examined with HOST/REPOSITORY",
            ));
        } else if is_accepted {
            let (found, sample) = repository::check(&probe, &subject);
            findings.extend(found);
            findings.extend(writing::check(&probe, &subject, sample.as_ref(), options));
        }
    }
    Ok(Diagnosis { subject, findings })
}

/// Returns the seconds since 1970 of this machine's clock.
fn now(options: &RegistryOptions) -> i64 {
    let since = (options.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
