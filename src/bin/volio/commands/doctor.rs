//! `volio doctor`: examines an image or a registry.

use crate::args::{Format, OutputArgs, RegistryArgs};
use crate::color::{self, Stream, paint};
use crate::environment;
use crate::exit::Exit;
use crate::human::count;
use crate::output::{self, printable};
use crate::progress::Display;
use clap::builder::styling::Style;
use clap::{Args, ValueHint};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::time::SystemTime;
use volio::doctor::{
    Diagnosis, Engine, Finding, ImageOptions, RegistryOptions, Severity, diagnose_image, diagnose_registry,
};
use volio::{Error, Location, Result, parse_registry_host};

const EXAMPLES: &str = "\
Examples:
  volio doctor registry.example/data:v1
  volio doctor registry.example
  volio doctor --write-test registry.example/data
  volio doctor --engine docker=20.10 --engine kubernetes=1.34 registry.example/data:v1
  volio doctor --format json oci:backup:monday | jq '.findings[] | select(.severity == \"error\")'

A name with a tag or a digest, and a layout or an archive, is an image. HOST and HOST/REPOSITORY without a tag are a \
registry; --registry says so of a host without a dot, such as myhost:5000, which would be an image of Docker Hub.

Each finding says what does not work, where, why, and what to do. Without --verbose, checks that passed are only \
counted. Of an image, the documents, the tables of contents and one byte of each layer are read; --deep and volio verify read all \
content. Of a registry, only answers to GET and HEAD requests are read unless --write-test is given.

The exit code is 0 if there are no errors, also with warnings, and 1 if there are errors.";

/// Examine an image or a registry: what will not work, why, and what to do
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Doctor {
    /// An image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]; or a registry: HOST[:PORT][/REPOSITORY]
    #[arg(value_name = "IMAGE|HOST[/REPOSITORY]", value_hint = ValueHint::Other)]
    subject: OsString,

    /// Examine a registry, also if the name could be that of an image
    #[arg(long)]
    registry: bool,

    /// Begin uploads and cancel them, mount a blob where it is, delete an image that does not exist:
    /// nothing is stored or deleted
    #[arg(long)]
    write_test: bool,

    /// An engine that will use the image, such as docker=20.10; the names are kubernetes,
    /// containerd, cri-o, docker, podman and composefs-rs
    #[arg(long, value_name = "NAME=VERSION")]
    engine: Vec<Engine>,

    /// Read all layers of the image, also those without a table of contents
    #[arg(long)]
    deep: bool,

    /// Show also the checks that passed, and the sources of all claims
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// An image or a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Image(Location),
    Registry { host: String, repository: Option<String> },
}

impl Subject {
    /// Parses a subject. `is_registry` is set if the user says that it is a registry.
    fn parse(text: &OsStr, is_registry: bool) -> Result<Self> {
        let name = text.to_string_lossy();
        if is_registry || names_host(&name) {
            let (host, repository) = match name.split_once('/') {
                Some((host, repository)) => (host, Some(repository.to_owned())),
                None => (name.as_ref(), None),
            };
            return Ok(Self::Registry { host: parse_registry_host(host)?, repository });
        }
        match Location::parse(text)? {
            Location::Registry(reference) if reference.is_repository() => Ok(Self::Registry {
                host: reference.registry().to_owned(),
                repository: Some(reference.repository().to_owned()),
            }),
            location => Ok(Self::Image(location)),
        }
    }
}

/// Returns whether a name without a slash is that of a host: it has a dot before the port, or is `localhost`.
fn names_host(name: &str) -> bool {
    let host = name.split(':').next().unwrap_or_default();
    !name.contains(['/', '@']) && (host.contains('.') || host == "localhost" || name.starts_with('['))
}

impl Doctor {
    /// Prints the findings.
    pub fn run(self) -> Result<Exit> {
        let progress = Display::start("doctor", self.output.quiet);
        let access = self.registries.access(&Display::warnings_unless(true))?;
        let diagnosis = match Subject::parse(&self.subject, self.registry)? {
            Subject::Image(location) => {
                if self.write_test {
                    return Err(Error::usage("--write-test is for a registry")
                        .with_hint("name a repository without a tag: HOST/REPOSITORY"));
                }
                let temporary = Some(environment::temporary(environment::variable));
                let options = ImageOptions {
                    engines: self.engine,
                    deep: self.deep,
                    temporary,
                    ..ImageOptions::default()
                };
                diagnose_image(&location, &access, &options, progress.as_ref())?
            }
            Subject::Registry { host, repository } => {
                let options = RegistryOptions { clock: SystemTime::now, write_test: self.write_test };
                if self.write_test && repository.is_none() {
                    return Err(
                        Error::usage("--write-test needs a repository").with_hint("write HOST/REPOSITORY")
                    );
                }
                diagnose_registry(&host, repository.as_deref(), &access, &options)?
            }
        };
        drop(progress);
        match self.output.format {
            Format::Text => output::results(|out| text(out, &diagnosis, self.verbose))?,
            Format::Json => output::json(&DiagnosisDocument::new(&diagnosis))?,
        }
        if !self.output.quiet {
            output::line(&summary(&diagnosis));
        }
        Ok(if diagnosis.count(Severity::Error) > 0 { Exit::Failed } else { Exit::Done })
    }
}

fn summary(diagnosis: &Diagnosis) -> String {
    let of = |severity| diagnosis.count(severity) as u64;
    format!(
        "{}, {}; {} passed",
        count(of(Severity::Error), "error", "errors"),
        count(of(Severity::Warning), "warning", "warnings"),
        count(of(Severity::Ok), "check", "checks"),
    )
}

fn text(out: &mut dyn Write, diagnosis: &Diagnosis, verbose: bool) -> io::Result<()> {
    let shown = diagnosis.findings.iter().filter(|finding| verbose || finding.severity != Severity::Ok);
    for finding in shown {
        let Finding { check, place, what, .. } = finding;
        let severity = format!("{:7}", word(finding.severity));
        let severity = paint(Stream::Stdout, style(finding.severity), &severity);
        writeln!(out, "{severity}  {check}: {}: {}", printable(place), printable(what))?;
        if let Some(advice) = &finding.advice {
            writeln!(out, "         do: {}", printable(advice))?;
        }
        if let Some(source) = finding.source.filter(|_| verbose) {
            writeln!(out, "         source: {source}")?;
        }
    }
    writeln!(out, "{}", printable(&diagnosis.subject))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Ok => color::GOOD,
        Severity::Warning => color::WARNING,
        Severity::Error => color::ERROR,
    }
}

/// The result of `volio doctor`.
#[derive(Serialize)]
struct DiagnosisDocument<'a> {
    subject: &'a str,
    errors: usize,
    warnings: usize,
    findings: Vec<FindingDocument<'a>>,
}

#[derive(Serialize)]
struct FindingDocument<'a> {
    severity: &'static str,
    check: &'a str,
    place: &'a str,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'a str>,
}

impl<'a> DiagnosisDocument<'a> {
    fn new(diagnosis: &'a Diagnosis) -> Self {
        let findings = diagnosis.findings.iter().map(|finding| FindingDocument {
            severity: word(finding.severity),
            check: finding.check,
            place: &finding.place,
            what: &finding.what,
            source: finding.source,
            advice: finding.advice.as_deref(),
        });
        Self {
            subject: &diagnosis.subject,
            errors: diagnosis.count(Severity::Error),
            warnings: diagnosis.count(Severity::Warning),
            findings: findings.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_is_a_registry_or_a_repository() {
        let registry = |host: &str, repository: Option<&str>| Subject::Registry {
            host: host.to_owned(),
            repository: repository.map(str::to_owned),
        };
        let parse = |text: &str, is_registry| Subject::parse(OsStr::new(text), is_registry).unwrap();
        for (text, expected) in [
            ("registry.example", registry("registry.example", None)),
            ("registry.example:5000", registry("registry.example:5000", None)),
            ("localhost:5000", registry("localhost:5000", None)),
            ("registry.example/a/b", registry("registry.example", Some("a/b"))),
            ("myhost:5000/a", registry("myhost:5000", Some("a"))),
        ] {
            assert_eq!(parse(text, false), expected, "{text}");
        }
        assert_eq!(parse("myhost:5000", true), registry("myhost:5000", None));
        for image in
            ["registry.example/a:v1", "oci:layout", "alpine:3.20", "myhost:5000", "oci-archive:a.tar"]
        {
            assert!(matches!(parse(image, false), Subject::Image(_)), "{image}");
        }
    }
}
