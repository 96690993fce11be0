//! `volio sign`: signs an image.

use crate::args::{Format, OutputArgs, RegistryArgs, location};
use crate::documents::SignaturesDocument;
use crate::output;
use crate::progress::Display;
use crate::signature_args::{SigningArgs, summary};
use clap::{Args, ValueHint};
use serde::Serialize;
use std::path::PathBuf;
use volio::sign::{SignedImage, sign};
use volio::{Digest, Error, Location, PublicKey, Result};

const EXAMPLES: &str = "\
Examples:
  volio sign --key release.pem registry.example/data:v1
  volio sign --key release.pem --sign-identity inside.example/data:v1 oci:/media/stick:v1
  vault kv get -field=key secret/release | volio sign --key - registry.example/data:v1

A key pair is made by openssl:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out release.pem
  openssl pkey -in release.pem -pubout -out release.pub

The index of the image and the manifest of each platform are signed in two forms: in the .sig tags that podman, skopeo and \
CRI-O read, and as sigstore bundles, which cosign reads. Signatures by other keys stay, and signing twice with one key \
adds nothing.

The last line of the output is the image with its digest: REPOSITORY@DIGEST.";

/// Sign an image
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Sign {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG] or oci-archive:FILE[:TAG]
    #[arg(value_parser = location())]
    image: Location,

    /// The private key, PKCS#8 in PEM; - reads standard input [env: VOLIO_SIGN_KEY]
    #[arg(long, visible_alias = "sign-key", value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,

    /// Sign for this name; may be given several times [default: IMAGE, if it is in a registry]
    #[arg(long, value_name = "HOST/REPOSITORY:TAG")]
    sign_identity: Vec<String>,

    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Sign {
    /// Signs, and prints the result.
    pub fn run(self) -> Result<()> {
        let progress = Display::start("sign", self.output.quiet);
        let signing = SigningArgs::of_key(self.key, self.sign_identity);
        let signer = signing.signer(&self.image, progress.as_ref())?.ok_or_else(|| {
            Error::usage("a key is needed").with_hint("give --key FILE, or set VOLIO_SIGN_KEY")
        })?;
        let access = self.registries.access(&progress)?;
        let source = self.image.source_without_mirrors(&access)?;
        let place = self.image.attachment_destination(&access)?;
        let signed = sign(source.as_ref(), place.as_ref(), &signer, progress.as_ref())?;
        drop(progress);

        let address = super::address(&self.image, &signed.digest);
        if !self.output.quiet {
            output::line(&summary(&signed.signatures));
        }
        match self.output.format {
            Format::Json => output::json(&SignDocument::new(&address, &signed, signer.key().public())),
            Format::Text => output::results(|out| writeln!(out, "{address}")),
        }
    }
}

/// The result as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignDocument<'a> {
    address: &'a str,
    digest: &'a Digest,
    signatures: SignaturesDocument,
    key_hint: &'a str,
}

impl<'a> SignDocument<'a> {
    fn new(address: &'a str, signed: &'a SignedImage, key: &'a PublicKey) -> Self {
        let SignedImage { digest, signatures, .. } = signed;
        Self { address, digest, signatures: SignaturesDocument::from(signatures), key_hint: key.hint() }
    }
}
