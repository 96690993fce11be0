//! Arguments that several commands share. Their types check themselves when they are parsed.

use crate::data_io::EnvConfig;
use crate::progress::Display;
use crate::{environment, output, signal, suggestion};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ValueEnum, ValueHint};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;
use volio::{
    Access, ClientOptions, CredentialSource, Error, Location, Result, Retry, Tls, TreePath, login_file,
    named_auth_file,
};

/// Options for the access to registries.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Registry options")]
pub struct RegistryArgs {
    /// Take credentials from this file only, like docker's config.json [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    authfile: Option<PathBuf>,

    /// Talk plain HTTP to every registry, not only to those on this machine
    #[arg(long, conflicts_with_all = ["tls_verify", "ca_file", "cert_dir"])]
    plain_http: bool,

    /// Encrypt also on this machine; with =false, accept any certificate, which is for tests only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,

    /// Trust also the authorities with certificates in this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca_file: Vec<PathBuf>,

    /// Take authorities (*.crt) and a client certificate (*.cert, *.key) from here, not from certs.d
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    cert_dir: Option<PathBuf>,

    /// Try again this many times when the network or a registry fails
    #[arg(long, value_name = "N", default_value_t = Retry::default().retries)]
    retry: u32,

    /// Wait this long before the first retry, and twice as long before each further one
    #[arg(long, value_name = "SECONDS", default_value_t = Retry::default().delay.as_secs_f64(), value_parser = seconds)]
    retry_delay: f64,

    /// Give up connecting to a server after this time
    #[arg(long, value_name = "SECONDS", default_value_t = ClientOptions::default().connect_timeout.as_secs_f64(), value_parser = timeout)]
    connect_timeout: f64,

    /// Give up a connection on which nothing at all has moved for this time
    #[arg(long, value_name = "SECONDS", default_value_t = ClientOptions::default().stall_timeout.as_secs_f64(), value_parser = timeout)]
    stall_timeout: f64,

    /// Give up a connection on which fewer bytes a second come for that time; 0 takes any number
    #[arg(long, value_name = "SIZE", default_value_t = ClientOptions::default().min_rate, value_parser = rate)]
    min_rate: u64,

    /// Copy this many blobs at once; fetch a large one over this many connections
    #[arg(long, value_name = "N", default_value_t = ClientOptions::default().concurrency, value_parser = connections)]
    concurrency: usize,

    /// Send blobs in chunks of this many bytes (4M, 1G); otherwise whole, until a registry wants chunks
    #[arg(long, value_name = "SIZE", value_parser = size)]
    chunk_size: Option<u64>,
}

impl RegistryArgs {
    fn client_options(&self, progress: &Display) -> ClientOptions {
        ClientOptions {
            retry: Retry { retries: self.retry, delay: Duration::from_secs_f64(self.retry_delay) },
            connect_timeout: Duration::from_secs_f64(self.connect_timeout),
            stall_timeout: Duration::from_secs_f64(self.stall_timeout),
            min_rate: self.min_rate,
            concurrency: self.concurrency,
            chunk_size: self.chunk_size,
            state: environment::state(environment::variable),
            cancel: signal::cancel_token(),
            progress: progress.shared(),
        }
    }

    /// Returns the access to registries, with credentials.
    ///
    /// # Errors
    /// When a file with credentials was named and does not exist.
    pub fn access(&self, progress: &Display) -> Result<Access> {
        let credentials = CredentialSource::discover(self.authfile.as_deref(), &environment::process())?;
        Ok(Access { credentials, ..self.access_without_credentials(progress) })
    }

    /// Returns the access for data-io's interface. The credentials of its variables come before all others.
    ///
    /// # Errors
    /// As [`access`](Self::access).
    pub fn access_for_data_io(&self, config: &EnvConfig, progress: &Display) -> Result<Access> {
        let usual = CredentialSource::discover(self.authfile.as_deref(), &config.environment())?;
        let credentials = config.login().into_iter().chain(usual).collect();
        Ok(Access { credentials, ..self.access_without_credentials(progress) })
    }

    /// Returns the access for a login. The file that was named need not exist yet.
    ///
    /// # Errors
    /// As [`access`](Self::access).
    pub fn access_for_login(&self, progress: &Display) -> Result<Access> {
        match named_auth_file(self.authfile.as_deref(), &environment::process()) {
            Some(file) if !file.exists() => Ok(self.access_without_credentials(progress)),
            _ => self.access(progress),
        }
    }

    fn access_without_credentials(&self, progress: &Display) -> Access {
        if self.tls_verify == Some(false) {
            // Once, although a watch does this for each poll.
            static WARNING: Once = Once::new();
            WARNING.call_once(|| {
                output::warning(
                    "any certificate is accepted: passwords and data can be read and changed on the way",
                );
            });
        }
        let found = Access::without_credentials(&environment::process());
        let tls = Tls {
            required: self.tls_verify == Some(true),
            accept_invalid_certs: self.tls_verify == Some(false),
            authorities: self.ca_file.clone(),
            directory: self.cert_dir.clone(),
            ..found.tls
        };
        Access { plain_http: self.plain_http, tls, client: self.client_options(progress), ..found }
    }

    /// Returns the file that `volio login` writes credentials to.
    ///
    /// # Errors
    /// When there is no home directory for it.
    pub fn login_file(&self) -> Result<PathBuf> {
        login_file(self.authfile.as_deref(), &environment::process())
    }
}

/// Parses a number of connections, 1 to 64.
fn connections(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number @ 1..=64) => Ok(number),
        _ => Err(Error::usage(format!("{text:?} is not a number of connections")).with_hint("write 1 to 64")),
    }
}

/// Parses a time of up to an hour, in seconds.
fn seconds(text: &str) -> Result<f64> {
    match text.parse() {
        Ok(seconds @ 0.0..=3600.0) => Ok(seconds),
        _ => Err(Error::usage(format!("{text:?} is not a time")).with_hint("write seconds, for example 0.5")),
    }
}

/// Parses a time of at least a millisecond, in seconds.
fn timeout(text: &str) -> Result<f64> {
    match seconds(text) {
        Ok(seconds) if seconds >= 0.001 => Ok(seconds),
        Ok(_) => {
            Err(Error::usage(format!("{text:?} is too short")).with_hint("write seconds, for example 30"))
        }
        error => error,
    }
}

/// Parses a rate in bytes per second; 0 means no limit.
fn rate(text: &str) -> Result<u64> {
    if text == "0" { Ok(0) } else { size(text) }
}

/// Parses a number of bytes, with dd's suffixes.
pub fn size(text: &str) -> Result<u64> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let shift = match unit {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    number.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift)).ok_or_else(|| {
        Error::usage(format!("{text:?} is not a size")).with_hint("write bytes, or 64K, 16M, 1G")
    })
}

/// Fails if the location is one image. `purpose` says what the command does with all images of a place.
pub fn ensure_repository(location: &Location, command: &str, purpose: &str) -> Result<()> {
    if location.is_repository() {
        return Ok(());
    }
    Err(Error::usage(format!("{location} is one image, and volio {command} {purpose}"))
        .with_hint(format!("write volio {command} {}", location.without_name())))
}

/// Parses a location. Paths in it are bytes and need not be UTF-8.
pub fn location() -> impl TypedValueParser<Value = Location> {
    OsStringValueParser::new()
        .try_map(|text| Location::parse(&text).map_err(|error| suggestion::after_parsing(error, &text)))
}

/// Parses a path in an image. Names are bytes and need not be UTF-8.
pub fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| {
        TreePath::parse(text.as_encoded_bytes()).ok_or_else(|| {
            Error::usage(format!("{text:?} leads out of the image")).with_hint("write a path without `..`")
        })
    })
}

/// Options for the output.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output options")]
pub struct OutputArgs {
    /// Print the result for people, or as one JSON document
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: Format,

    /// Print nothing on stderr but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// The form of a result. The variants have no help texts, because those would double the length of every help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// `KEY=VALUE`; the value may be empty and may contain more equals signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
}

impl FromStr for KeyValue {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(Error::usage(format!("{text:?} is not KEY=VALUE"))
                .with_hint("write a name, an equals sign and a value, for example stage=test")),
        }
    }
}

/// A command in a Dockerfile's two forms: a JSON array of words, or one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl FromStr for Words {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // "[" is the name of a program.
        if !text.starts_with('[') || text == "[" {
            return Ok(Self(vec![text.to_owned()]));
        }
        serde_json::from_str(text).map(Self).map_err(|error| {
            Error::usage(format!("{text:?} is not a JSON array of words: {error}"))
                .with_hint(r#"write one word, or an array such as '["/bin/app", "--serve"]'"#)
        })
    }
}

/// An absolute path in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsolutePath(pub String);

impl FromStr for AbsolutePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.starts_with('/') {
            return Err(Error::usage(format!("{text:?} does not begin with /"))
                .with_hint("a container starts in a directory named from the root, for example /data"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_contain_equals_signs() {
        let pair = "a=b=c".parse::<KeyValue>().unwrap();
        assert_eq!((pair.key.as_str(), pair.value.as_str()), ("a", "b=c"));
        assert_eq!("a=".parse::<KeyValue>().unwrap().value, "");
        assert!("=b".parse::<KeyValue>().is_err() && "a".parse::<KeyValue>().is_err());
    }

    #[test]
    fn a_size_has_a_unit_or_none() {
        for (text, bytes) in [("1", 1), ("64K", 64 << 10), ("16M", 16 << 20), ("2G", 2 << 30)] {
            assert_eq!(size(text).unwrap(), bytes);
        }
        for bad in ["0", "", "M", "1T", "-1", "1 M", "1MM", "99999999999999999999", "18446744073709551615K"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_and_numbers_of_connections_have_limits() {
        assert_eq!((seconds("0").unwrap(), seconds("0.5").unwrap()), (0.0, 0.5));
        assert!(["-1", "NaN", "inf", "1s", "3601", ""].iter().all(|bad| seconds(bad).is_err()));
        assert_eq!((timeout("0.5").unwrap(), timeout("3600").unwrap()), (0.5, 3600.0));
        assert!(["0", "0.0", "-1", "NaN", "1s", ""].iter().all(|bad| timeout(bad).is_err()));
        assert_eq!(connections("1").unwrap(), 1);
        assert!(["0", "65", "-1", "x"].iter().all(|bad| connections(bad).is_err()));
    }

    #[test]
    fn a_command_is_an_array_or_one_word() {
        let words = |text: &str| text.parse::<Words>().unwrap().0;
        assert_eq!(words("/bin/a b"), ["/bin/a b"]);
        assert_eq!(words(r#"["/bin/a", "b"]"#), ["/bin/a", "b"]);
        assert_eq!(words("["), ["["]);
        assert!("[1]".parse::<Words>().is_err() && "[\"a\"".parse::<Words>().is_err());
    }
}
