//! Reading a repository: tags, ranges, referrers and rate limits.

use super::Finding;
use crate::oci::Digest;
use crate::transport::registry::{Answer, Probe, Sample};

const TAGS: &str = "distribution-spec, \"Listing Tags\"";
const RANGES: &str = "distribution-spec, \"Pulling blobs\"; RFC 9110, section 14";
const REFERRERS: &str = "distribution-spec, \"Listing Referrers\" and \"Referrers Tag Schema\"";
const RATE: &str = "https://docs.docker.com/docker-hub/usage/pulls/ (ratelimit-limit, ratelimit-remaining)";

/// Returns the findings, and an image of the repository.
pub(super) fn check(probe: &Probe, place: &str) -> (Vec<Finding>, Option<Sample>) {
    let (finding, tags) = tags(probe, place);
    let mut findings = vec![finding];
    // Tags of signatures are not images.
    let tag = tags.iter().find(|tag| !tag.starts_with("sha256-"));
    let sample = match tag.map(|tag| probe.sample(tag)) {
        None => None,
        Some(Ok(sample)) => Some(sample),
        Some(Err(error)) => {
            findings
                .push(Finding::failure("pull", place, &error).by("distribution-spec, \"Pulling manifests\""));
            None
        }
    };
    if let Some(sample) = &sample {
        findings.push(ranges(probe, place, sample));
        findings.extend(rate(probe, place, sample));
    }
    let subject = sample.as_ref().map_or_else(|| Digest::of(b"volio doctor"), |sample| sample.digest.clone());
    findings.extend(referrers(probe, place, &subject));
    (findings, sample)
}

fn tags(probe: &Probe, place: &str) -> (Finding, Vec<String>) {
    let (finding, tags) = match probe.tags() {
        Err(error) => (Finding::failure("tags", place, &error), Vec::new()),
        Ok((answer, tags)) if answer.is_success() => (
            Finding::ok(
                "tags",
                place,
                format!("it can be read, and has {} tag(s) on the first page", tags.len()),
            ),
            tags,
        ),
        Ok((answer, _)) => (refused(place, &answer), Vec::new()),
    };
    (finding.by(TAGS), tags)
}

fn refused(place: &str, answer: &Answer) -> Finding {
    match answer.status {
        404 => Finding::warning(
            "tags",
            place,
            "the repository does not exist, or is hidden without other credentials: 404",
        )
        .advise("the first push creates it in most registries; is the name right?"),
        _ if answer.is_denied() => Finding::error(
            "pull",
            place,
            format!("the credentials do not allow to read it: {}", answer.status),
        )
        .advise("credentials with the right to pull from this repository are needed"),
        429 => Finding::error("rate-limit", place, "it limits how often it is asked: 429")
            .advise("wait, or log in: limits are higher with credentials"),
        status => Finding::warning("tags", place, format!("its tags cannot be listed: {status}"))
            .advise("volio tags, prune and copy --all-tags do not work there"),
    }
}

fn ranges(probe: &Probe, place: &str, sample: &Sample) -> Finding {
    let finding = match probe.sends_ranges(sample) {
        Ok(true) => Finding::ok("ranges", place, "it sends parts of blobs"),
        Ok(false) => Finding::warning(
            "ranges",
            place,
            "it sends whole blobs when it is asked for a part: ls, cat, diff and --sync read whole layers, and a broken \
             download begins again",
        )
        .advise("a cache or proxy in front of the registry may drop the Range header: ask its operator"),
        Err(error) => Finding::failure("ranges", place, &error),
    };
    finding.by(RANGES)
}

fn rate(probe: &Probe, place: &str, sample: &Sample) -> Option<Finding> {
    let answer = probe.manifest_headers(&sample.tag).ok()?;
    let remaining = answer.header("ratelimit-remaining")?;
    let limit = answer.header("ratelimit-limit").unwrap_or_else(|| "unknown".to_owned());
    let left = remaining.split(';').next().and_then(|number| number.trim().parse::<u64>().ok());
    let what = format!("{remaining} pulls are left of {limit}");
    Some(
        match left {
            Some(left) if left < 10 => Finding::warning("rate-limit", place, what)
                .advise("wait, or log in: limits are higher with credentials"),
            _ => Finding::ok("rate-limit", place, what),
        }
        .by(RATE),
    )
}

fn referrers(probe: &Probe, place: &str, subject: &Digest) -> Option<Finding> {
    let finding = match probe.referrers(subject) {
        Ok((_, true)) => Finding::ok("referrers", place, "it lists referrers itself"),
        Ok((answer, false)) if answer.is_denied() => return None,
        Ok((answer, false)) => Finding::warning(
            "referrers",
            place,
            format!(
                "it has no referrers API ({}): clients keep lists of signatures under tags sha256-…, and two that write at \
                 once may lose an entry",
                answer.status
            ),
        )
        .advise("nothing for one writer; several that sign should take turns"),
        Err(error) => Finding::failure("referrers", place, &error),
    };
    Some(finding.by(REFERRERS))
}
