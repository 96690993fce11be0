//! The command line: the program's own help and its commands.

use crate::color::ColorChoice;
use crate::commands::{
    cat, completions, copy, diff, doctor, inspect, login, ls, man, pack, plugin, prune, rm, sign, tags,
    unpack, verify,
};
use crate::exit::{self, Exit};
use crate::progress::ProgressMode;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use volio::Result;

const EXAMPLES: &str = "\
Examples:
  volio pack oci:backup:monday /srv/data       a directory into an image layout
  volio pack registry.example/data:v1 .        a directory into a registry, without a copy on disk
  volio unpack registry.example/data:v1 /data  and back into a directory
  volio copy oci:backup:monday registry.example/backup:monday

Locations:
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
  NO_COLOR            when set, no colours without --color; CLICOLOR and CLICOLOR_FORCE likewise
  VOLIO_OPTION        the value of --option of any command, such as VOLIO_AUTHFILE; or
  VOLIO_OPTION_FILE   a file with it
";

/// Move directories in and out of OCI registries, without Docker
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
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of the program and of each command.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output options")]
pub struct GlobalArgs {
    /// Colour the output: on a terminal, unless NO_COLOR is set; always; or never
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, display_order = 900)]
    pub color: ColorChoice,

    /// Show progress: bars on a terminal and lines elsewhere; bars; lines; JSON objects; or nothing
    #[arg(long, global = true, value_name = "FORM", value_enum, default_value_t, display_order = 901)]
    pub progress: ProgressMode,
}

impl Cli {
    /// Parses a command line. What was matched is returned too.
    ///
    /// # Errors
    /// Those of clap, which are also help and the version.
    pub fn parse_line(arguments: &[OsString]) -> std::result::Result<(Self, ArgMatches), clap::Error> {
        let mut program = Self::command();
        let matches = program.try_get_matches_from_mut(arguments)?;
        let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut program))?;
        let command = matches.subcommand().map(|(_, given)| given);
        let is_quiet = command.and_then(|given| given.try_get_one("quiet").ok().flatten()).copied();
        if is_quiet.unwrap_or(false) && cli.global.progress.wants_output() {
            let mode = cli.global.progress.to_possible_value();
            let mode = mode.as_ref().map_or("", |mode| mode.get_name());
            let message = format!("the argument '--quiet' cannot be used with '--progress {mode}'");
            return Err(program.error(ErrorKind::ArgumentConflict, message));
        }
        Ok((cli, matches))
    }
}

/// The commands of the program, one variant for each.
#[derive(Debug, Subcommand)]
pub enum Command {
    Pack(Box<pack::Pack>),
    Unpack(Box<unpack::Unpack>),
    Copy(copy::Copy),
    Push(copy::Push),
    Pull(copy::Pull),
    Ls(ls::Ls),
    Cat(cat::Cat),
    Diff(diff::Diff),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Sign(sign::Sign),
    Doctor(doctor::Doctor),
    Tags(tags::Tags),
    Rm(rm::Rm),
    Prune(prune::Prune),
    Login(login::Login),
    Logout(login::Logout),
    Plugin(plugin::PluginArgs),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// Runs the command.
    pub fn run(self) -> Result<Exit> {
        match self {
            Self::Diff(args) => return args.run(),
            Self::Doctor(args) => return args.run(),
            Self::Pack(args) => return args.run(),
            Self::Unpack(args) => return args.run(),
            Self::Copy(args) => args.run(),
            Self::Push(args) => args.run(),
            Self::Pull(args) => args.run(),
            Self::Ls(args) => args.run(),
            Self::Cat(args) => args.run(),
            Self::Inspect(args) => args.run(),
            Self::Verify(args) => args.run(),
            Self::Sign(args) => args.run(),
            Self::Tags(args) => args.run(),
            Self::Rm(args) => args.run(),
            Self::Prune(args) => args.run(),
            Self::Login(args) => args.run(),
            Self::Logout(args) => args.run(),
            Self::Plugin(args) => args.run(),
            Self::Completions(args) => args.run(Cli::command()),
            Self::Man(args) => args.run(Cli::command()),
        }?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        let mut program = Cli::command();
        program.build();
        for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  volio "), "{}", command.get_name());
        }
    }
}
