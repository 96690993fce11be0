//! The findings of a diagnosis.

use crate::error::Error;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The check has found nothing wrong.
    Ok,
    /// Something does not work for everybody, or is probably not intended.
    Warning,
    /// Something does not work.
    Error,
}

/// A result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The name of the check, such as `parent-directories`. It does not change between versions.
    pub check: &'static str,
    /// The part that it is about, such as `layer 2 of linux/amd64`.
    pub place: String,
    /// A description in one sentence, with the reason.
    pub what: String,
    /// The source of what is claimed about another program or a registry: a URL or a section of a specification.
    pub source: Option<&'static str>,
    /// Advice: what to do.
    pub advice: Option<String>,
}

/// The findings about an image or a registry, in the order of the checks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The image or the registry.
    pub subject: String,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Returns the number of findings with a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        check: &'static str,
        place: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self { severity, check, place: place.into(), what: what.into(), source: None, advice: None }
    }

    pub(super) fn ok(check: &'static str, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Severity::Ok, check, place, what)
    }

    pub(super) fn warning(check: &'static str, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Severity::Warning, check, place, what)
    }

    pub(super) fn error(check: &'static str, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Severity::Error, check, place, what)
    }

    /// Returns the finding that something failed. Its hint is the advice.
    pub(super) fn failure(check: &'static str, place: impl Into<String>, error: &Error) -> Self {
        let finding = Self::error(check, place, error.to_string());
        match error.hint() {
            Some(hint) => finding.advise(hint),
            None => finding,
        }
    }

    /// Adds the source of a claim.
    pub(super) fn by(mut self, source: &'static str) -> Self {
        self.source = Some(source);
        self
    }

    /// Adds advice.
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}
