//! Credentials: where they were found, and whether the registry accepts them. No secret is shown.

use super::{Finding, RegistryOptions, now};
use crate::error::Kind;
use crate::transport::registry::{CredentialKind, CredentialReport, Probe};

const FILES: &str = "containers-auth.json(5); docker login, \"Credential stores\"";
const HELPERS: &str = "https://github.com/docker/docker-credential-helpers";
const EXPIRY: &str = "RFC 7519, section 4.1.4: exp";
const CHALLENGE: &str = "RFC 9110, section 11.6.1; distribution, \"Token Authentication Specification\"";

/// Returns the findings, and whether requests to a repository make sense.
pub(super) fn check(probe: &Probe, host: &str, options: &RegistryOptions) -> (Vec<Finding>, bool) {
    let report = probe.credentials();
    let mut findings = vec![found(&report, host)];
    findings.extend(report.problem.as_ref().map(|problem| broken(problem, &report, host)));
    findings.extend(expired(&report, host, now(options)));
    let (accepted, is_accepted) = accepted(probe, &report, host);
    findings.push(accepted);
    (findings, is_accepted)
}

fn found(report: &CredentialReport, host: &str) -> Finding {
    let what = match &report.found {
        None => "there are no credentials for it".to_owned(),
        Some((origin, kind)) => {
            let kind = match kind {
                CredentialKind::Password => "a user name and a password",
                CredentialKind::Identity => "an identity token",
                CredentialKind::Registry => "a token of the registry",
            };
            format!("{kind} was found in {origin}")
        }
    };
    Finding::ok("credentials", host, what).by(FILES)
}

fn broken(problem: &str, report: &CredentialReport, host: &str) -> Finding {
    let (advice, source) = if problem.contains("docker-credential-") {
        ("install the helper, or remove it from credsStore and credHelpers of the file", HELPERS)
    } else {
        ("correct the file, or remove it and use volio login", FILES)
    };
    let finding = match report.found {
        Some(_) => Finding::warning("credential-store", host, problem),
        None => Finding::error("credential-store", host, problem),
    };
    finding.by(source).advise(advice)
}

fn expired(report: &CredentialReport, host: &str, now: i64) -> Option<Finding> {
    let (expires, (origin, _)) = report.expires.zip(report.found.as_ref())?;
    let day = jiff::Timestamp::from_second(expires).ok()?.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Some(if expires <= now {
        Finding::error("token-expiry", host, format!("the token in {origin} expired at {day}"))
            .by(EXPIRY)
            .advise(format!(
                "log in again: volio login {host}, or the tool of your cloud that made the token"
            ))
    } else {
        Finding::ok("token-expiry", host, format!("the token in {origin} is valid until {day}")).by(EXPIRY)
    })
}

fn accepted(probe: &Probe, report: &CredentialReport, host: &str) -> (Finding, bool) {
    let has_credentials = report.found.is_some();
    let (finding, is_accepted) = match probe.log_in() {
        Ok(answer) if answer.is_success() && has_credentials => {
            (Finding::ok("login", host, "it takes requests with these credentials"), true)
        }
        Ok(answer) if answer.is_success() => {
            (Finding::ok("login", host, "it takes requests without credentials"), true)
        }
        Ok(answer) if answer.is_denied() => (denied(report, host, answer.status), !has_credentials),
        Ok(answer) => {
            let what = format!("it answers {} to a login", answer.status);
            (Finding::warning("login", host, what).advise("ask its operator"), true)
        }
        Err(error) if error.kind() == Kind::Denied => {
            (denied(report, host, error.status().unwrap_or(401)), !has_credentials)
        }
        Err(error) => (Finding::failure("login", host, &error), false),
    };
    (finding.by(CHALLENGE), is_accepted)
}

fn denied(report: &CredentialReport, host: &str, status: u16) -> Finding {
    match &report.found {
        Some((origin, _)) => {
            Finding::error("login", host, format!("it rejects the credentials in {origin}: {status}"))
                .advise(format!("volio login {host} checks and stores others; some registries want a token in the password's place"))
        }
        None => Finding::warning("login", host, format!("it wants credentials: {status}"))
            .advise(format!("volio login {host}; public repositories may be readable without")),
    }
}
