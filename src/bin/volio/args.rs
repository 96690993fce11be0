//! What was typed: the commands, and the arguments that several of them share.
//!
//! Values have types that check themselves when they are read, so that nothing begins with a word that cannot
//! work. The arguments of one command stand in its own file.

use crate::commands::{
    cat, completions, copy, diff, inspect, login, ls, man, pack, plugin, rm, tags, unpack, verify,
};
use crate::data_io::Wish;
use crate::{environment, exit, interrupt, output, progress};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use volio::transport::{Access, Location, Retry, Tls, Told, Transfer};
use volio::tree::TreePath;
use volio::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  volio pack oci:backup:monday /srv/data       a directory into an image layout
  volio pack registry.example/data:v1 .        a directory into a registry, without a copy on disk
  volio unpack registry.example/data:v1 /data  and back into a directory
  volio copy oci:backup:monday registry.example/backup:monday

Places:
  HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]  an image in a registry; docker:// or oci:// may stand before it
  oci:DIR[:TAG], oci:DIR@DIGEST          an image in an OCI image layout, a directory
  oci-archive:FILE[:TAG]                 an image in such a layout in a tar file
  docker-archive:FILE[:REF]              an image in a tar file for docker load, called REF there

Environment:
  REGISTRY_AUTH_FILE  a file with credentials, as --authfile
  DOCKER_AUTH_CONFIG  credentials themselves: JSON like Docker's config.json
  DOCKER_CONFIG       a directory with Docker's config.json
  CONTAINERS_REGISTRIES_CONF  a file with mirrors, in place of registries.conf
  SSL_CERT_FILE       certificates of authorities, in place of the machine's; SSL_CERT_DIR likewise
  HTTPS_PROXY         a proxy for encrypted connections; HTTP_PROXY, NO_PROXY and ALL_PROXY likewise
  SOURCE_DATE_EPOCH   seconds since 1970: no time in an image is later
  NO_COLOR            when set, no colour
";

/// Move data in and out of OCI registries without Docker
///
/// A directory becomes an image whose layers hold its files, and comes back as it was. The image is an ordinary
/// one: Kubernetes mounts it as an image volume; docker, podman and containerd pull it. No daemon, no socket, no
/// root.
#[derive(Debug, Parser)]
#[command(
    name = "volio",
    version,
    max_term_width = 110,
    arg_required_else_help = true,
    after_long_help = format!("{EXAMPLES}\n{}", exit::TABLE)
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Pack(pack::Pack),
    Unpack(unpack::Unpack),
    Copy(copy::Copy),
    Push(copy::Push),
    Pull(copy::Pull),
    Ls(ls::Ls),
    Cat(cat::Cat),
    Diff(diff::Diff),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Tags(tags::Tags),
    Rm(rm::Rm),
    Login(login::Login),
    Logout(login::Logout),
    Plugin(plugin::PluginArgs),
    Completions(completions::Completions),
    Man(man::Man),
}

/// How registries are reached.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registry options")]
pub struct Registries {
    /// Take credentials from this file only, like docker's config.json [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    authfile: Option<PathBuf>,

    /// Talk plain HTTP to every registry, not only to those on this machine
    #[arg(long, conflicts_with_all = ["tls_verify", "ca_file", "cert_dir"])]
    plain_http: bool,

    /// Encrypt also on this machine; with =false, trust whoever answers, which is for tests only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,

    /// Trust also the authorities whose certificates are in this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca_file: Vec<PathBuf>,

    /// Take authorities (*.crt) and a certificate of ours (*.cert, *.key) from here, not from certs.d
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    cert_dir: Option<PathBuf>,

    /// Try again this many times when the network or a registry fails
    #[arg(long, value_name = "N", default_value_t = Retry::default().retries)]
    retry: u32,

    /// Wait this long before the first retry, and twice as long before each further one
    #[arg(long, value_name = "SECONDS", default_value_t = Retry::default().delay.as_secs_f64(), value_parser = seconds)]
    retry_delay: f64,

    /// Give up connecting to a server after this time
    #[arg(long, value_name = "SECONDS", default_value_t = Transfer::default().connect_timeout.as_secs_f64(), value_parser = patience)]
    connect_timeout: f64,

    /// Give up a connection on which nothing at all has moved for this time
    #[arg(long, value_name = "SECONDS", default_value_t = Transfer::default().stall_timeout.as_secs_f64(), value_parser = patience)]
    stall_timeout: f64,

    /// Give up a connection on which fewer bytes a second come for that time; 0 takes any number
    #[arg(long, value_name = "SIZE", default_value_t = Transfer::default().min_rate, value_parser = rate)]
    min_rate: u64,

    /// Copy this many blobs at once; fetch a large one over this many connections
    #[arg(long, value_name = "N", default_value_t = Transfer::default().concurrency, value_parser = connections)]
    concurrency: usize,

    /// Send blobs in chunks of this many bytes (4M, 1G); otherwise whole, until a registry wants chunks
    #[arg(long, value_name = "SIZE", value_parser = size)]
    chunk_size: Option<u64>,
}

impl Registries {
    fn transfer(&self) -> Transfer {
        Transfer {
            retry: Retry { retries: self.retry, delay: Duration::from_secs_f64(self.retry_delay) },
            connect_timeout: Duration::from_secs_f64(self.connect_timeout),
            stall_timeout: Duration::from_secs_f64(self.stall_timeout),
            min_rate: self.min_rate,
            concurrency: self.concurrency,
            chunk_size: self.chunk_size,
            state: environment::state(environment::variable),
            cancel: interrupt::cancel_token(),
            told: Told::new(progress::tell),
        }
    }

    /// What is needed to get at a place.
    ///
    /// # Errors
    /// When a file with credentials was named and is not there.
    pub fn access(&self) -> Result<Access> {
        let credentials = environment::credentials(self.authfile.as_deref(), environment::variable)?;
        Ok(Access { credentials, ..self.access_without_credentials() })
    }

    /// The same where the environment says what is wanted: its own credentials come first.
    ///
    /// # Errors
    /// As [`access`](Self::access).
    pub fn access_of(&self, wish: &Wish) -> Result<Access> {
        let usual = environment::credentials(self.authfile.as_deref(), |name| wish.variable(name))?;
        let credentials = wish.login().into_iter().chain(usual).collect();
        Ok(Access { credentials, ..self.access_without_credentials() })
    }

    /// The same for a login: the file that was named may be yet to be written.
    ///
    /// # Errors
    /// As [`access`](Self::access).
    pub fn access_for_login(&self) -> Result<Access> {
        match environment::named_file(self.authfile.as_deref(), environment::variable) {
            Some(file) if !file.exists() => Ok(self.access_without_credentials()),
            _ => self.access(),
        }
    }

    fn access_without_credentials(&self) -> Access {
        if self.tls_verify == Some(false) {
            output::warning(
                "whoever answers is trusted: passwords and data can be read and changed on the way",
            );
        }
        let tls = Tls {
            wanted: self.tls_verify == Some(true),
            anybody: self.tls_verify == Some(false),
            authorities: self.ca_file.clone(),
            directory: self.cert_dir.clone(),
            directories: environment::certificates(environment::variable),
        };
        Access {
            credentials: Vec::new(),
            plain_http: self.plain_http,
            tls,
            registries_conf: environment::registries_conf(environment::variable),
            proxies: environment::proxies(environment::variable),
            transfer: self.transfer(),
        }
    }

    /// The file that credentials are kept in.
    ///
    /// # Errors
    /// When there is no home directory to keep it in.
    pub fn login_file(&self) -> Result<PathBuf> {
        environment::login_file(self.authfile.as_deref(), environment::variable)
    }
}

/// A number of connections; none would bring nothing.
fn connections(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number @ 1..=64) => Ok(number),
        _ => Err(Error::usage(format!("{text:?} is not a number of connections")).with_hint("write 1 to 64")),
    }
}

/// A time in seconds.
fn seconds(text: &str) -> Result<f64> {
    match text.parse() {
        Ok(seconds @ 0.0..=3600.0) => Ok(seconds),
        _ => Err(Error::usage(format!("{text:?} is not a time")).with_hint("write seconds, for example 0.5")),
    }
}

/// A time in seconds that is not over before it has begun.
fn patience(text: &str) -> Result<f64> {
    match seconds(text) {
        Ok(seconds) if seconds >= 0.001 => Ok(seconds),
        Ok(_) => {
            Err(Error::usage(format!("{text:?} is too short")).with_hint("write seconds, for example 30"))
        }
        error => error,
    }
}

/// A number of bytes a second; none is no limit.
fn rate(text: &str) -> Result<u64> {
    if text == "0" { Ok(0) } else { size(text) }
}

/// A number of bytes, with the suffixes that dd has.
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

/// Reads the name of an image or a place as it is typed: paths are bytes and need not be text.
pub fn location() -> impl TypedValueParser<Value = Location> {
    OsStringValueParser::new().try_map(|text| Location::parse(&text))
}

/// Reads a path in an image as it is typed: names are bytes and need not be text.
pub fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| {
        TreePath::parse(text.as_encoded_bytes()).ok_or_else(|| {
            Error::usage(format!("{text:?} leads out of the image")).with_hint("write a path without `..`")
        })
    })
}

/// How much is said, and in what form.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output options")]
pub struct Report {
    /// Print the result for people, or as one JSON document
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: Format,

    /// Print nothing on stderr but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// The form of a result. The variants have no words of their own: they would double the length of every help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// `KEY=VALUE`; the value may be empty and may hold more equals signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub key: String,
    pub value: String,
}

impl FromStr for Pair {
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

/// A command in Dockerfile's two forms: a JSON array of words, or one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl FromStr for Words {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // "[" is a program too, and the only one that begins like an array.
        if !text.starts_with('[') || text == "[" {
            return Ok(Self(vec![text.to_owned()]));
        }
        serde_json::from_str(text).map(Self).map_err(|error| {
            Error::usage(format!("{text:?} is not a JSON array of words: {error}"))
                .with_hint(r#"write one word, or an array such as '["/bin/app", "--serve"]'"#)
        })
    }
}

/// A directory inside the image, from its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsolutePath(pub String);

impl FromStr for AbsolutePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.starts_with('/') {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::usage(format!("{text:?} does not begin with /"))
                .with_hint("a container starts in a directory named from the root, for example /data")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_contradict_nowhere() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        let mut program = Args::command();
        program.build();
        for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  volio "), "{}", command.get_name());
        }
    }

    #[test]
    fn a_value_may_hold_equals_signs() {
        let pair = "a=b=c".parse::<Pair>().unwrap();
        assert_eq!((pair.key.as_str(), pair.value.as_str()), ("a", "b=c"));
        assert_eq!("a=".parse::<Pair>().unwrap().value, "");
        assert!("=b".parse::<Pair>().is_err() && "a".parse::<Pair>().is_err());
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
        assert_eq!((patience("0.5").unwrap(), patience("3600").unwrap()), (0.5, 3600.0));
        assert!(["0", "0.0", "-1", "NaN", "1s", ""].iter().all(|bad| patience(bad).is_err()));
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
