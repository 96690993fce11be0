//! `volio inspect`: shows what an image is made of.

mod attached;
mod card;
mod layers;

use crate::args::{Format, OutputArgs, RegistryArgs, location};
use crate::documents::InspectDocument;
use crate::output;
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use card::Card;
use clap::Args;
use volio::inspect::{attached, contents, inspect};
use volio::{Location, Result, SignedPart};

const EXAMPLES: &str = "\
Examples:
  volio inspect registry.example/data:v1
  volio inspect --format json oci:backup:monday | jq -r .digest

No layer is read: the manifests and the configuration are, the tables of contents of layers that have one if they are \
small, and the list of what is attached to the image. JSON has what the manifests and the configuration say, and nothing else.

Signatures are shown as they are stored, not verified: volio verify --key does that.";

/// Show what an image is made of: platforms, layers, base, history, signatures
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Inspect {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    #[arg(value_parser = location())]
    image: Location,

    #[command(flatten)]
    signatures: VerificationArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Inspect {
    /// Prints the summary.
    pub fn run(self) -> Result<()> {
        let access = self.registries.access(&Display::warnings())?;
        let source = self.signatures.source(&self.image, &access, SignedPart::Whole)?;
        let inspected = inspect(source.as_ref())?;
        let address = super::address(&self.image, &inspected.digest);
        match self.output.format {
            Format::Text => {
                let progress = Display::warnings_unless(self.output.quiet);
                let contents = contents(source.as_ref(), &inspected, progress.as_ref());
                let attached = attached(source.as_ref(), &inspected);
                let image = self.image.to_string();
                let card =
                    Card { image: &image, inspected: &inspected, contents: &contents, attached: &attached };
                output::results(|out| {
                    card.write(out)?;
                    writeln!(out, "\n{address}")
                })
            }
            Format::Json => output::json(&InspectDocument::new(&address, &inspected)),
        }
    }
}
