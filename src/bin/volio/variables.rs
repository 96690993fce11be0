//! Options from the environment: `VOLIO_OPTION` for `--option` of every command, and `VOLIO_OPTION_FILE` for a file with its
//! value. The variables of options that are not given, and do not conflict with those that are, are put on the command line.

use crate::cli::Cli;
use crate::exit::Exit;
use crate::output;
use crate::progress::ProgressMode;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, parser::ValueSource};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;
use volio::{Environment, Error, Result, service};

/// The prefix of all variables.
const PREFIX: &str = "VOLIO_";
/// The suffix of a variable that names a file.
const FILE: &str = "_FILE";
/// The maximum size of such a file in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Variables that are not options: of data-io's interface, and those that hooks of volumes get.
const OTHERS: &[&str] = &[
    "VOLIO_SECRETS",
    "VOLIO_SOURCE",
    "VOLIO_STORE",
    "VOLIO_TARGET",
    "VOLIO_NAME",
    "VOLIO_MOUNTPOINT",
    "VOLIO_ID",
    "VOLIO_MOUNTS",
    "VOLIO_DRIVER",
];
/// Options whose value is the name of a file with a key or a policy. Their variable with the suffix has that name too, and
/// not a file with the name: a mounted secret is the key itself.
const NAMES_OF_FILES: &[&str] = &["sign-key", "verify-key", "key", "policy"];
/// Prefixes of variables of others: the tests, and Kubernetes for a Service that is called volio.
const FOREIGN: &[&str] = &["VOLIO_TEST_", "VOLIO_SERVICE_", "VOLIO_PORT"];
/// Options that are not set by variables, because they are commands of their own.
const EXCLUDED: &[&str] = &["help", "version"];

/// A command line with the options of the environment.
pub struct CommandLine {
    /// The arguments, with the name of the program.
    pub arguments: Vec<OsString>,
    /// The variables that were put there.
    used: Vec<Used>,
}

/// A variable that was put on the command line.
struct Used {
    /// The name of the variable.
    variable: String,
    /// The option, with its dashes.
    option: String,
    /// Set if the value is the content of a file, which may be secret.
    from_file: bool,
}

impl CommandLine {
    /// Prints clap's answer to the command line, and the variables that it is about. The content of a file is not shown.
    pub fn usage_error(&self, error: &clap::Error) -> ExitCode {
        let text = error.to_string();
        let about: Vec<&Used> = self.used.iter().filter(|used| text.contains(&used.option)).collect();
        match about.iter().find(|used| used.from_file) {
            Some(used) => {
                let what = format!("the value in the file that {} names is not accepted", used.variable);
                output::error(&Error::usage(what).with_hint(format!("it is the value of {}", used.option)));
                Exit::Usage.into()
            }
            None => {
                let exit = output::usage_error(error, &self.arguments);
                let names: Vec<&str> = about.iter().map(|used| used.variable.as_str()).collect();
                if error.use_stderr() && !names.is_empty() {
                    output::line(&format!("set in the environment: {}", names.join(", ")));
                }
                exit
            }
        }
    }
}

/// Puts the variables of the environment on a command line.
///
/// # Errors
/// [`Usage`](volio::error::Kind::Usage) if a variable of the command is not understood, or its file cannot be read.
pub fn apply(arguments: Vec<OsString>, environment: &Environment) -> Result<CommandLine> {
    let unchanged = |arguments| Ok(CommandLine { arguments, used: Vec::new() });
    if !environment.iter().any(|(name, _)| name.as_bytes().starts_with(PREFIX.as_bytes())) {
        return unchanged(arguments);
    }
    let mut program = Cli::command();
    program.build();
    let Ok(matches) = program.clone().ignore_errors(true).try_get_matches_from(&arguments) else {
        return unchanged(arguments);
    };
    let Some((name, given)) = matches.subcommand() else { return unchanged(arguments) };
    let at = arguments.iter().position(|argument| argument == name);
    let (Some(command), Some(at)) = (program.find_subcommand(name), at) else { return unchanged(arguments) };
    let (mut values, mut used) = (Vec::new(), Vec::new());
    for option in options(command) {
        if is_given(given, option)
            || conflicts(command, given, option)
            || contradicts_quiet(given, &values, option)
        {
            continue;
        }
        let Some(value) = find(option, environment)? else { continue };
        let before = values.len();
        values.extend(value.arguments(option)?);
        if values.len() > before {
            used.push(Used { variable: value.variable, option: dashed(option), from_file: value.from_file });
        }
    }
    if !has_flag(given, &values, "quiet") {
        warn_of_unknown(&program, environment);
    }
    let mut arguments = arguments;
    arguments.splice(at + 1..at + 1, values);
    Ok(CommandLine { arguments, used })
}

/// Returns the options of a command that variables can set.
fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|option| option.get_long().is_some_and(|long| !EXCLUDED.contains(&long)))
}

/// Returns the variable of an option.
fn variable(option: &Arg) -> String {
    format!("{PREFIX}{}", option.get_long().unwrap_or_default().to_uppercase().replace('-', "_"))
}

fn dashed(option: &Arg) -> String {
    format!("--{}", option.get_long().unwrap_or_default())
}

fn is_given(given: &ArgMatches, option: &Arg) -> bool {
    given.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine)
}

fn has_flag(given: &ArgMatches, values: &[OsString], flag: &str) -> bool {
    given.try_get_one::<bool>(flag).ok().flatten().copied().unwrap_or_default()
        || values.iter().any(|value| value.to_str() == Some(format!("--{flag}").as_str()))
}

/// Returns whether an option cannot be used with one on the command line, which counts more.
fn conflicts(command: &Command, given: &ArgMatches, option: &Arg) -> bool {
    let excludes = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|conflict| conflict.get_id() == other.get_id())
    };
    let share_group = |one: &Arg, other: &Arg| {
        command.get_groups().any(|group| {
            let members: Vec<_> = group.get_args().collect();
            !group.clone().is_multiple()
                && members.contains(&one.get_id())
                && members.contains(&other.get_id())
        })
    };
    command.get_arguments().filter(|other| is_given(given, other)).any(|other| {
        other.get_id() != option.get_id()
            && (excludes(option, other) || excludes(other, option) || share_group(option, other))
    })
}

/// Returns whether an option is `--progress` beside `--quiet`, which has the same purpose and counts more, or `--quiet`
/// beside a `--progress` on the command line that wants output.
fn contradicts_quiet(given: &ArgMatches, values: &[OsString], option: &Arg) -> bool {
    match option.get_long() {
        Some("progress") => has_flag(given, values, "quiet"),
        Some("quiet") => {
            let progress = given.try_get_one::<ProgressMode>("progress").ok().flatten();
            progress.is_some_and(|progress| progress.wants_output())
        }
        _ => false,
    }
}

/// A value from the environment.
struct Value {
    variable: String,
    text: OsString,
    from_file: bool,
}

/// Returns the value of an option. An empty variable counts as unset.
fn find(option: &Arg, environment: &Environment) -> Result<Option<Value>> {
    let (name, file_name) = (variable(option), variable(option) + FILE);
    match (environment.get(&name), environment.get(&file_name)) {
        (Some(_), Some(_)) => {
            Err(Error::usage(format!("{name} and {file_name} are both set")).with_hint("unset one of them"))
        }
        (Some(value), None) => Ok(Some(Value { variable: name, text: value.to_owned(), from_file: false })),
        (None, Some(file)) if option.get_long().is_some_and(|long| NAMES_OF_FILES.contains(&long)) => {
            Ok(Some(Value { variable: file_name, text: file.to_owned(), from_file: false }))
        }
        (None, Some(file)) => {
            let text = read(Path::new(file))
                .map_err(|error| Error::usage(format!("{file_name}: cannot read {file:?}: {error}")))?;
            Ok(Some(Value { variable: file_name, text, from_file: true }))
        }
        (None, None) => Ok(None),
    }
}

/// Reads a file without the end of its last line.
fn read(file: &Path) -> std::io::Result<OsString> {
    let mut text = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    if text.contains(&0) {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it contains a zero byte"));
    }
    while text.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        text.pop();
    }
    Ok(OsString::from_vec(text))
}

impl Value {
    /// Returns the arguments for this value: one for each line if the option can be given several times.
    fn arguments(&self, option: &Arg) -> Result<Vec<OsString>> {
        let flag = dashed(option);
        let with = |value: &OsStr| {
            let mut argument = OsString::from(format!("{flag}="));
            argument.push(value);
            argument
        };
        match option.get_action() {
            ArgAction::SetTrue => {
                let text = self.text.to_string_lossy().to_ascii_lowercase();
                match text.as_str() {
                    "1" | "true" | "yes" | "on" => Ok(vec![flag.into()]),
                    "0" | "false" | "no" | "off" => Ok(Vec::new()),
                    _ => Err(Error::usage(format!("{} is neither true nor false", self.variable))
                        .with_hint(format!("{flag} has no value: write true or false"))),
                }
            }
            ArgAction::Append => {
                let lines = self.text.as_bytes().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                Ok(lines.map(|line| with(OsStr::from_bytes(line))).collect())
            }
            _ => Ok(vec![with(&self.text)]),
        }
    }
}

/// Warns of variables that no option of any command has: they are probably spelt wrong.
fn warn_of_unknown(program: &Command, environment: &Environment) {
    let options = program.get_subcommands().flat_map(options).map(variable);
    let others = OTHERS.iter().map(|name| (*name).to_owned());
    let hooks = service::VARIABLES.iter().map(|(name, _)| (*name).to_owned());
    let known: BTreeSet<String> = options.chain(others).chain(hooks).collect();
    for (name, _) in environment.iter() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let base = name.strip_suffix(FILE).unwrap_or(name);
        if known.contains(name)
            || known.contains(base)
            || FOREIGN.iter().any(|foreign| name.starts_with(foreign))
        {
            continue;
        }
        let nearest = known.iter().map(|known| (strsim::damerau_levenshtein(base, known), known)).min();
        let hint = match nearest {
            Some((distance, known)) if distance <= 2 => format!("; is it {known}?"),
            _ => String::new(),
        };
        output::warning(&format!("{name} is not the variable of an option{hint}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply_to(arguments: &str, variables: &[(&str, &str)]) -> Result<Vec<String>> {
        let arguments = arguments.split(' ').map(OsString::from).collect();
        let line = apply(arguments, &variables.iter().copied().collect())?;
        Ok(line.arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect())
    }

    #[test]
    fn a_variable_is_an_option_unless_the_option_is_given() {
        let set = [("VOLIO_COMPRESSION", "gzip"), ("VOLIO_RETRY", "7")];
        let line = apply_to("volio pack oci:a b", &set).unwrap();
        assert_eq!(line, ["volio", "pack", "--compression=gzip", "--retry=7", "oci:a", "b"]);
        let line = apply_to("volio pack --compression none oci:a b --retry=1", &set).unwrap();
        assert_eq!(line, ["volio", "pack", "--compression", "none", "oci:a", "b", "--retry=1"]);
        // It is no option of this command.
        assert_eq!(apply_to("volio ls oci:a", &[("VOLIO_EVERY", "1h")]).unwrap(), ["volio", "ls", "oci:a"]);
    }

    #[test]
    fn a_flag_is_true_or_false() {
        let flag = |value| apply_to("volio pack oci:a b", &[("VOLIO_NORMALIZE", value)]);
        assert!(flag("1").unwrap().contains(&"--normalize".to_owned()));
        assert!(flag("TRUE").unwrap().contains(&"--normalize".to_owned()));
        for unset in ["false", "0", ""] {
            assert_eq!(flag(unset).unwrap().len(), 4, "{unset:?}");
        }
        assert!(flag("maybe").is_err());
    }

    #[test]
    fn an_option_on_the_command_line_counts_more_than_a_variable_that_conflicts_with_it() {
        for (line, variable) in [
            ("volio pack --cron @daily oci:a b", "VOLIO_EVERY"),
            ("volio pack --base oci:c oci:a b", "VOLIO_INCREMENTAL"),
            ("volio pack --normalize oci:a b", "VOLIO_UID_MAP"),
            ("volio pack --uid-map 0:1:1 oci:a b", "VOLIO_NORMALIZE"),
        ] {
            assert_eq!(apply_to(line, &[(variable, "1")]).unwrap().join(" "), line);
        }
    }

    #[test]
    fn a_variable_never_makes_quiet_and_progress_contradict_each_other() {
        let (quiet, plain) = (("VOLIO_QUIET", "1"), ("VOLIO_PROGRESS", "plain"));
        for (line, variables, expected) in [
            ("volio ls oci:a", vec![plain], "volio ls --progress=plain oci:a"),
            ("volio ls -q oci:a", vec![plain], "volio ls -q oci:a"),
            ("volio ls oci:a", vec![quiet, plain], "volio ls --quiet oci:a"),
            ("volio --progress plain ls oci:a", vec![quiet], "volio --progress plain ls oci:a"),
            ("volio ls --progress none oci:a", vec![quiet], "volio ls --quiet --progress none oci:a"),
        ] {
            assert_eq!(apply_to(line, &variables).unwrap().join(" "), expected);
        }
    }

    #[test]
    fn an_option_that_can_be_repeated_has_one_value_a_line() {
        let line = apply_to("volio pack oci:a b", &[("VOLIO_EXCLUDE", "*.log\n\n/tmp, x\n")]).unwrap();
        assert_eq!(line[2..4], ["--exclude=*.log", "--exclude=/tmp, x"]);
    }

    #[test]
    fn a_file_has_the_value_and_must_be_readable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "gzip\n").unwrap();
        let name = file.path().to_str().unwrap();
        let line = apply_to("volio pack oci:a b", &[("VOLIO_COMPRESSION_FILE", name)]).unwrap();
        assert_eq!(line[2], "--compression=gzip");
        let both = [("VOLIO_COMPRESSION_FILE", name), ("VOLIO_COMPRESSION", "none")];
        assert!(apply_to("volio pack oci:a b", &both).unwrap_err().to_string().contains("both set"));
        let missing = [("VOLIO_COMPRESSION_FILE", "/does/not/exist")];
        let error = apply_to("volio pack oci:a b", &missing).unwrap_err();
        assert!(
            error.to_string().contains("VOLIO_COMPRESSION_FILE: cannot read \"/does/not/exist\""),
            "{error}"
        );
    }

    #[test]
    fn the_file_of_a_key_or_a_policy_is_its_value() {
        for (variable, line, option) in [
            ("VOLIO_SIGN_KEY_FILE", "volio pack oci:a b", "--sign-key=/run/secrets/key"),
            ("VOLIO_VERIFY_KEY_FILE", "volio ls oci:a", "--verify-key=/run/secrets/key"),
            ("VOLIO_POLICY_FILE", "volio ls oci:a", "--policy=/run/secrets/key"),
            ("VOLIO_KEY_FILE", "volio sign oci:a", "--key=/run/secrets/key"),
        ] {
            assert_eq!(apply_to(line, &[(variable, "/run/secrets/key")]).unwrap()[2], option);
        }
    }

    #[test]
    fn each_variable_has_one_meaning() {
        let mut program = Cli::command();
        program.build();
        let options: BTreeSet<String> = program.get_subcommands().flat_map(options).map(variable).collect();
        let hooks = service::VARIABLES.iter().map(|(name, _)| *name);
        for other in OTHERS.iter().copied().chain(hooks) {
            assert!(!options.contains(other), "{other} is an option, and something else");
        }
        for option in &options {
            let base = option.strip_suffix(FILE).unwrap_or("");
            assert!(!options.contains(base), "{option} is an option, and the file of another");
            assert!(FOREIGN.iter().all(|foreign| !option.starts_with(foreign)), "{option}");
        }
    }
}
