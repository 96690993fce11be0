//! `volio login` and `volio logout`: store and remove credentials in Docker's files.

use crate::args::RegistryArgs;
use crate::progress::Display;
use crate::{output, terminal};
use clap::Args;
use std::io::{self, IsTerminal, Read};
use volio::{Error, Result, Secret, StoredIn, parse_registry_host};

const LOGIN_EXAMPLES: &str = "\
Examples:
  volio login registry.example
  volio login -u me --password-stdin registry.example < password
  volio login --authfile ci.json -u ci --password-stdin registry.example

The credentials are stored after the registry has accepted them, in Docker's config.json or the file of --authfile. If \
that file names a credential helper, the helper stores the password. There is no option for the password itself: all \
users of the machine could read it on the command line.";

const LOGOUT_EXAMPLES: &str = "\
Examples:
  volio logout registry.example

The file is Docker's config.json, or the one that --authfile names. The exit code is 4 if it has no credentials for the registry.";

/// The maximum size of a password or token, in bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// Store a user name and a password for a registry, after checking them
#[derive(Debug, Args)]
#[command(after_long_help = LOGIN_EXAMPLES)]
pub struct Login {
    /// The registry, as it stands in the names of images
    #[arg(value_name = "HOST[:PORT]", value_parser = parse_registry_host)]
    registry: String,

    /// The name; asked for when it is not given
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,

    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,

    #[command(flatten)]
    registries: RegistryArgs,
}

/// Remove the user name and the password for a registry
#[derive(Debug, Args)]
#[command(after_long_help = LOGOUT_EXAMPLES)]
pub struct Logout {
    /// The registry, as it stands in the names of images
    #[arg(value_name = "HOST[:PORT]", value_parser = parse_registry_host)]
    registry: String,

    #[command(flatten)]
    registries: RegistryArgs,
}

impl Login {
    /// Logs in, and prints where the password is stored.
    pub fn run(self) -> Result<()> {
        let file = self.registries.login_file()?;
        let access = self.registries.access_for_login(&Display::warnings())?;
        let (username, password) = credentials(self.username, self.password_stdin)?;
        let done = volio::login(&self.registry, &username, &password, &file, &access)?;
        if !done.verified {
            output::warning(&format!("{} lets everybody in, so the password was not checked", self.registry));
        }
        if !done.encrypted {
            output::warning(&format!(
                "the password goes to {} without encryption, whatever program answers there; --tls-verify encrypts",
                self.registry
            ));
        }
        if let Some(other) = done.hidden_by {
            output::warning(&format!("{other} also knows {} and is asked first", self.registry));
        }
        let registry = &self.registry;
        output::line(&match done.stored_in {
            StoredIn::File(path) => format!("logged in to {registry}; the password is in {}", path.display()),
            StoredIn::Helper(name) => {
                format!("logged in to {registry}; docker-credential-{name} keeps the password")
            }
        });
        Ok(())
    }
}

impl Logout {
    /// Logs out, and prints where the password was removed.
    pub fn run(self) -> Result<()> {
        let file = self.registries.login_file()?;
        let access = self.registries.access_for_login(&Display::warnings())?;
        let registry = &self.registry;
        output::line(&match volio::logout(registry, &file, &access)? {
            StoredIn::File(path) => format!("logged out of {registry}; {} has forgotten it", path.display()),
            StoredIn::Helper(name) => {
                format!("logged out of {registry}; docker-credential-{name} has forgotten it")
            }
        });
        Ok(())
    }
}

/// Returns the name and the password. Those that are not given are asked for on the terminal.
fn credentials(username: Option<String>, from_stdin: bool) -> Result<(String, Secret)> {
    if !from_stdin && !io::stdin().is_terminal() {
        return Err(Error::usage("there is no terminal to ask for a password")
            .with_hint("give the name with --username, and the password with --password-stdin"));
    }
    let username = match username {
        Some(username) => username,
        None if from_stdin => {
            return Err(Error::usage("--password-stdin needs --username")
                .with_hint("standard input holds the password and nothing else"));
        }
        None => terminal::prompt("Username: ")?,
    };
    let password = if from_stdin { read_password()? } else { terminal::prompt_secret("Password: ")? };
    if username.is_empty() {
        return Err(Error::usage("the name is empty"));
    }
    // HTTP basic authentication separates name and password by a colon (RFC 7617).
    if username.contains(':') {
        return Err(Error::usage("the name has a colon, which no registry understands"));
    }
    if password.reveal().is_empty() {
        let empty = if from_stdin { "standard input holds no password" } else { "the password is empty" };
        return Err(Error::usage(empty));
    }
    Ok((username, password))
}

/// Reads the password from standard input, without the end of its line.
fn read_password() -> Result<Secret> {
    let mut text = String::new();
    io::stdin()
        .take(MAX_PASSWORD)
        .read_to_string(&mut text)
        .map_err(|error| Error::io("cannot read the password from standard input", error))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}
