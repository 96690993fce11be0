//! The way to the registry: proxy, name, connection, encryption, protocol and clock.

use super::{Finding, RegistryOptions, now};
use crate::doctor::Severity;
use crate::error::Error;
use crate::transport::registry::{Answer, Probe};

const PROTOCOL: &str = "distribution-spec, \"Determining Support\": GET /v2/ answers 200 or 401";
const TOKENS: &str = "distribution, \"Token Authentication Specification\": tokens have issued_at and expires_in, 60 seconds by default; RFC 7519, section 4.1.4";
const DATE: &str = "RFC 9110, section 6.6.1: Date";
const SCHEME: &str = "distribution-spec, \"Endpoints\"; RFC 8446, section 5.1";
const TLS: &str = "RFC 9110, section 4.3.4: https Certificate Verification";
const LOOPBACK: &str = "docs/credentials.md, \"Plain HTTP on loopback addresses\"";
const PROXY: &str = "RFC 9110, section 9.3.6: CONNECT; curl(1), ENVIRONMENT";
const NAME: &str = "getaddrinfo(3)";
const CONNECTION: &str = "connect(2)";

/// The difference of clocks that is reported, in seconds: the default lifetime of a token.
const CLOCK_LIMIT: i64 = 60;

/// Returns the findings, and whether the registry answers.
pub(super) fn check(probe: &Probe, host: &str, options: &RegistryOptions) -> (Vec<Finding>, bool) {
    let mut findings = Vec::new();
    let proxy = match probe.proxy() {
        Ok(proxy) => proxy,
        Err(error) => return (vec![Finding::failure("proxy", host, &error).by(PROXY)], false),
    };
    let way = proxy.as_ref().map_or_else(
        || "it is reached without a proxy".to_owned(),
        |proxy| format!("it is reached through {proxy}"),
    );
    findings.push(Finding::ok("proxy", host, way).by(PROXY));
    match probe.look_up() {
        Ok((name, addresses)) => {
            let shown = addresses.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
            findings.push(Finding::ok("name", name, format!("its addresses are {shown}")).by(NAME));
        }
        Err(error) => {
            let finding = Finding::failure("name", host, &error).by(NAME);
            findings.push(finding.advise("is the name right, and is there a network and a name server?"));
            return (findings, false);
        }
    }
    if let Err(error) = probe.connect() {
        let (check, advice) = match proxy {
            Some(_) => ("proxy", format!("does the proxy run? NO_PROXY={host} goes around it")),
            None => ("connection", format!("is the registry running at {host}, and is the port right?")),
        };
        findings.push(Finding::failure(check, host, &error).by(CONNECTION).advise(advice));
        return (findings, false);
    }
    match probe.ping() {
        Ok(answer) => {
            findings.extend(protocol(probe, host, &answer));
            let is_registry = findings.iter().all(|finding| finding.severity != Severity::Error);
            findings.extend(clock(host, &answer, now(options)));
            (findings, is_registry)
        }
        Err(error) => {
            findings.push(unreachable(probe, host, &error));
            (findings, false)
        }
    }
}

/// Explains a connection that was made and did not lead to an answer.
fn unreachable(probe: &Probe, host: &str, error: &Error) -> Finding {
    if probe.answers_otherwise() {
        return wrong_scheme(probe, host);
    }
    let check = if probe.is_encrypted() { "tls" } else { "connection" };
    Finding::failure(check, host, error).by(if probe.is_encrypted() { TLS } else { SCHEME })
}

fn wrong_scheme(probe: &Probe, host: &str) -> Finding {
    let (what, advice) = if probe.is_encrypted() {
        (
            "it speaks plain HTTP, and was contacted with TLS",
            "--plain-http contacts it without encryption, if that is meant",
        )
    } else {
        (
            "it speaks TLS, and was contacted with plain HTTP",
            "--tls-verify encrypts also on this machine; leave out --plain-http",
        )
    };
    Finding::error("scheme", host, what).by(SCHEME).advise(advice)
}

fn protocol(probe: &Probe, host: &str, answer: &Answer) -> Vec<Finding> {
    let encrypted = if !probe.is_encrypted() && probe.is_loopback() {
        Finding::ok("tls", host, "it is on this machine, and contacted without encryption").by(LOOPBACK)
    } else if probe.is_encrypted() {
        Finding::ok("tls", host, "its certificate is trusted, for its name, and not expired").by(TLS)
    } else {
        Finding::warning(
            "tls",
            host,
            "the connection is not encrypted: passwords and data can be read on the way",
        )
        .by(SCHEME)
        .advise("fine on one machine; elsewhere the registry needs a certificate")
    };
    let status = answer.status;
    let spoken = match status {
        200 | 401 => Finding::ok("protocol", host, format!("it answers {status} to /v2/")).by(PROTOCOL),
        // Go's servers answer so to plain HTTP.
        400 if !probe.is_encrypted() => wrong_scheme(probe, host),
        429 => Finding::error("protocol", host, "it limits how often it is asked: 429")
            .by("RFC 6585, section 4")
            .advise("wait, or log in: limits are higher with credentials"),
        _ => {
            Finding::error("protocol", host, format!("it answers {status} to /v2/, so it is not a registry"))
                .by(PROTOCOL)
                .advise("is the host name right? Some registries have a port of their own")
        }
    };
    vec![encrypted, spoken]
}

fn clock(host: &str, answer: &Answer, now: i64) -> Option<Finding> {
    let difference = answer.date()?.saturating_sub(now);
    let what =
        format!("its clock and the one of this machine differ by {} seconds", difference.unsigned_abs());
    Some(if difference.abs() > CLOCK_LIMIT {
        let side = if difference > 0 { "behind" } else { "ahead" };
        Finding::warning(
            "clock",
            host,
            format!(
                "{what}: this machine is {side}; tokens and certificates may seem expired or not valid yet"
            ),
        )
        .by(TOKENS)
        .advise("set both clocks by NTP")
    } else {
        Finding::ok("clock", host, what).by(DATE)
    })
}
