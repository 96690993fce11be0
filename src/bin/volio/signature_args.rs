//! Arguments for signatures: the key that signs.

use crate::environment;
use clap::{Args, ValueHint};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use volio::{Error, Location, Result, Signer, SigningKey};

/// The maximum size of a key on standard input, in bytes.
const KEY_LIMIT: u64 = 64 << 10;

/// Options for signing an image that is written.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Signature options")]
pub struct SigningArgs {
    /// Sign the image with this private key, PKCS#8 in PEM; - reads standard input [env: VOLIO_SIGN_KEY]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    sign_key: Option<PathBuf>,

    /// Sign for this name; may be given several times [default: IMAGE, if it is in a registry]
    #[arg(long, value_name = "HOST/REPOSITORY:TAG")]
    sign_identity: Vec<String>,
}

impl SigningArgs {
    /// Returns arguments with this key.
    pub fn of_key(sign_key: Option<PathBuf>, sign_identity: Vec<String>) -> Self {
        Self { sign_key, sign_identity }
    }

    /// Returns whether the key is read from standard input.
    pub fn reads_standard_input(&self) -> bool {
        self.sign_key.as_deref() == Some(Path::new("-"))
    }

    /// Returns the signer; `None` if there is no key.
    ///
    /// # Errors
    /// When the key cannot be read, or the image is in a place without signatures.
    pub fn signer(&self, image: &Location) -> Result<Option<Signer>> {
        let named = self.sign_key.clone();
        let Some(file) = named.or_else(|| environment::variable("VOLIO_SIGN_KEY").map(PathBuf::from)) else {
            if self.sign_identity.is_empty() {
                return Ok(None);
            }
            return Err(Error::usage("--sign-identity needs a key").with_hint("give --sign-key too"));
        };
        if matches!(image, Location::DockerArchive { .. }) {
            return Err(Error::usage(format!(
                "{image} cannot be signed: such an archive holds no signatures"
            ))
            .with_hint("use an oci-archive, a layout or a registry"));
        }
        let key = if self.reads_standard_input() { read_standard_input()? } else { SigningKey::read(&file)? };
        Signer::new(key, self.references(image)?).map(Some)
    }

    /// Returns the names to sign for.
    fn references(&self, image: &Location) -> Result<Vec<String>> {
        match image {
            _ if !self.sign_identity.is_empty() => Ok(self.sign_identity.clone()),
            Location::Registry(reference) => Ok(vec![match reference.tag() {
                Some(tag) => reference.with_tag(tag)?.to_string(),
                // The signature of an image that is named by its digest is for all tags of the repository.
                None => reference.name(),
            }]),
            _ => Ok(Vec::new()),
        }
    }
}

/// Reads a private key from standard input.
fn read_standard_input() -> Result<SigningKey> {
    if io::stdin().is_terminal() {
        return Err(Error::usage("standard input is a terminal and not a key")
            .with_hint("`volio sign --key - IMAGE < KEY.pem`"));
    }
    let mut pem = String::new();
    io::stdin()
        .take(KEY_LIMIT)
        .read_to_string(&mut pem)
        .map_err(|error| Error::io("cannot read the key from standard input", error))?;
    SigningKey::from_pem(&pem).map_err(|error| error.context("cannot use the key on standard input"))
}
