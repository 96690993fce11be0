//! Arguments for signatures: the key that signs, and the keys or the policy that an image must satisfy.

use crate::environment;
use crate::human::count;
use clap::{Args, ValueHint};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use volio::progress::Progress;
use volio::{
    Access, Error, Location, PublicKey, Result, SignaturePolicy, Signed, SignedPart, SignedSource, Signer,
    SigningKey, Source, VerificationCache,
};

/// The maximum size of a key on standard input, in bytes.
const KEY_LIMIT: u64 = 64 << 10;

/// Options for the signatures that an image must have.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Signature options")]
pub struct VerificationArgs {
    /// Read images only if this public key has signed them; of several, any one [env: VOLIO_VERIFY_KEY]
    #[arg(long = "verify-key", value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "policy")]
    keys: Vec<PathBuf>,

    /// Read images only if they satisfy this policy, as in containers-policy.json(5)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    policy: Option<PathBuf>,
}

impl VerificationArgs {
    /// Returns arguments with these keys.
    pub fn of_keys(keys: Vec<PathBuf>, policy: Option<PathBuf>) -> Self {
        Self { keys, policy }
    }

    /// Returns whether a key or a policy was given.
    pub fn is_given(&self) -> bool {
        !self.keys.is_empty() || self.policy.is_some()
    }

    /// Returns the policy that images must satisfy; `None` if nothing is required.
    ///
    /// # Errors
    /// When a key or the policy cannot be read.
    pub fn policy(&self) -> Result<Option<Arc<SignaturePolicy>>> {
        if let Some(file) = &self.policy {
            return SignaturePolicy::read(file).map(|policy| Some(Arc::new(policy)));
        }
        let mut files = self.keys.clone();
        if files.is_empty() {
            files.extend(key_file("VOLIO_VERIFY_KEY"));
        }
        if files.is_empty() {
            return Ok(None);
        }
        let keys = files.iter().map(|file| PublicKey::read(file)).collect::<Result<Vec<_>>>()?;
        Ok(Some(Arc::new(SignaturePolicy::from_keys(keys))))
    }

    /// Opens an image for reading. If signatures are required, only a signed one can be read.
    ///
    /// # Errors
    /// As [`policy`](Self::policy) and [`Location::source`].
    pub fn source(&self, image: &Location, access: &Access, part: SignedPart) -> Result<Box<dyn Source>> {
        self.source_with_cache(image, access, part, &Arc::default())
    }

    /// Opens an image that was opened before with this cache. What was verified then is not verified again by
    /// [`Source::resolve_again`].
    ///
    /// # Errors
    /// As [`source`](Self::source).
    pub fn source_with_cache(
        &self,
        image: &Location,
        access: &Access,
        part: SignedPart,
        cache: &Arc<VerificationCache>,
    ) -> Result<Box<dyn Source>> {
        let policy = self.policy()?;
        let source = image.source(access)?;
        match policy {
            None => Ok(source),
            Some(policy) => Ok(Box::new(SignedSource::new(source, image, &policy, part)?.with_cache(cache))),
        }
    }
}

/// Options for signing an image that is written.
#[derive(Clone, Debug, Default, Args)]
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

    /// Returns whether a key was given.
    pub fn is_given(&self) -> bool {
        self.sign_key.is_some()
    }

    /// Returns whether the key is read from standard input.
    pub fn reads_standard_input(&self) -> bool {
        self.sign_key.as_deref() == Some(Path::new("-"))
    }

    /// Returns the signer; `None` if there is no key. It warns if no name is known to sign for.
    ///
    /// # Errors
    /// When the key cannot be read, or the image is in a place without signatures.
    pub fn signer(&self, image: &Location, progress: &dyn Progress) -> Result<Option<Signer>> {
        let named = self.sign_key.clone();
        let Some(file) = named.or_else(|| key_file("VOLIO_SIGN_KEY")) else {
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
        let references = self.references(image)?;
        if references.is_empty() {
            progress.warn(
                "it is signed by bundles only: the signatures that podman and skopeo read need the name that the image has in \
                 a registry, which --sign-identity gives",
            );
        }
        Signer::new(key, references).map(Some)
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

/// Returns the file with a key that a variable names, or the variable with the suffix `_FILE`. Commands whose option has
/// another name, such as `verify --key`, have both too.
fn key_file(variable: &str) -> Option<PathBuf> {
    let named =
        environment::variable(variable).or_else(|| environment::variable(&format!("{variable}_FILE")));
    named.map(PathBuf::from)
}

/// Formats the signatures of an image in one line.
pub fn summary(signed: &Signed) -> String {
    let documents = count(signed.documents, "manifest or index", "manifests and indexes");
    let present = match signed.present {
        0 => String::new(),
        present => format!("; {present} by this key were there already"),
    };
    format!("signed {documents}: {} added{present}", count(signed.added, "signature", "signatures"))
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
