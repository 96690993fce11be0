//! The options of a volume: the arguments of `-o`.

use super::{Driver, hooks};
use crate::error::{Error, Result};
use crate::oci::Platform;
use crate::transport::Location;
use crate::tree::TreePath;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The default time limit of a command: less than Docker waits.
const TIMEOUT: Duration = Duration::from_secs(100);
const LONGEST_TIMEOUT: u64 = 24 * 60 * 60;

const KNOWN: &[&str] = &[
    "image",
    "pull",
    "policy",
    "subpath",
    "platform",
    "verify-key",
    "uid",
    "gid",
    "mode",
    "export",
    "export-mode",
    "pre-mount",
    "post-unmount",
    "cmd",
    "timeout",
];

/// The options of a volume.
#[derive(Clone, Debug)]
pub(super) struct VolumeOptions {
    pub(super) fill: Option<FillOptions>,
    pub(super) owner: Ownership,
    pub(super) export: Option<ExportOptions>,
    /// The command of a volmex volume, which runs before each mount.
    pub(super) command: Option<String>,
    pub(super) pre_mount: Option<Vec<String>>,
    pub(super) post_unmount: Option<Vec<String>>,
    /// The time limit of each command.
    pub(super) timeout: Duration,
}

/// The image that a volume is filled from.
#[derive(Clone, Debug)]
pub(super) struct FillOptions {
    pub(super) image: Location,
    pub(super) pull: PullPolicy,
    pub(super) policy: FillPolicy,
    /// The part of the image that is taken: the content of a directory, or a file.
    pub(super) subpath: Option<TreePath>,
    pub(super) platform: Option<Platform>,
    /// The file with the public key that must have signed the image.
    pub(super) verify_key: Option<PathBuf>,
}

/// The image that a volume is exported to.
#[derive(Clone, Debug)]
pub(super) struct ExportOptions {
    pub(super) image: Location,
    pub(super) mode: ExportMode,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ExportMode {
    /// The whole volume is packed.
    #[default]
    Full,
    /// The changes are added to the layers of the image that the name means.
    Incremental,
}

/// The owner of the files, and the mode of the root directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    /// The mode of the volume's root directory.
    pub(super) mode: Option<u32>,
}

/// The condition for a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PullPolicy {
    /// The volume was never filled.
    #[default]
    Missing,
    /// The name refers to another image than the one in the volume.
    Newer,
    /// Always, before a first container gets the volume.
    Always,
}

/// The policy for existing content of a volume that has to be filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FillPolicy {
    /// Keep it: a volume is filled once.
    #[default]
    Once,
    /// Replace it.
    Replace,
    /// Make it what the image has, in place: only what differs is fetched and written.
    Sync,
}

impl VolumeOptions {
    /// Parses the options for a driver. Unknown options are kept for volmex, as volmex did.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::error::Kind::Usage) if they are invalid. No value is repeated in full, because users put
    /// passwords into wrong places.
    pub(super) fn parse(driver: Driver, options: &BTreeMap<String, String>) -> Result<Self> {
        match driver {
            Driver::Volmex => Self::volmex(options),
            Driver::Volio => Self::volio(options),
        }
    }

    fn volmex(options: &BTreeMap<String, String>) -> Result<Self> {
        let command = options
            .get("cmd")
            .filter(|command| !command.trim().is_empty())
            .ok_or_else(|| Error::usage(r#"no volmex mount command. specify with -o cmd="command""#))?;
        Ok(Self {
            fill: None,
            owner: Ownership::default(),
            export: None,
            command: Some(command.trim().to_owned()),
            pre_mount: None,
            post_unmount: None,
            timeout: given(options, "cmd-timeout", seconds)?.unwrap_or(TIMEOUT),
        })
    }

    fn volio(options: &BTreeMap<String, String>) -> Result<Self> {
        if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            let shown: String = unknown.chars().take(64).collect();
            return Err(Error::usage(format!("there is no option {shown:?}"))
                .with_hint(format!("the options are {}", KNOWN.join(", "))));
        }
        let spec = Self {
            fill: FillOptions::parse(options)?,
            owner: Ownership {
                uid: given(options, "uid", id)?,
                gid: given(options, "gid", id)?,
                mode: given(options, "mode", mode)?,
            },
            export: ExportOptions::parse(options)?,
            command: options.get("cmd").map(|command| command.trim().to_owned()).filter(|c| !c.is_empty()),
            pre_mount: given(options, "pre-mount", |text| hooks::words("pre-mount", text))?,
            post_unmount: given(options, "post-unmount", |text| hooks::words("post-unmount", text))?,
            timeout: given(options, "timeout", seconds)?.unwrap_or(TIMEOUT),
        };
        Ok(spec)
    }
}

impl FillOptions {
    fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let Some(image) = given(options, "image", location)? else {
            return match ["pull", "policy", "subpath", "platform", "verify-key"]
                .iter()
                .find(|key| options.contains_key(**key))
            {
                Some(key) => {
                    Err(Error::usage(format!("{key} needs an image")).with_hint("add -o image=REFERENCE"))
                }
                None => Ok(None),
            };
        };
        let fill = Self {
            image,
            pull: given(options, "pull", str::parse)?.unwrap_or_default(),
            policy: given(options, "policy", str::parse)?.unwrap_or_default(),
            subpath: given(options, "subpath", subpath)?,
            platform: given(options, "platform", str::parse)?,
            verify_key: given(options, "verify-key", absolute_path)?,
        };
        if fill.pull != PullPolicy::Missing && fill.policy == FillPolicy::Once {
            Err(Error::usage("pull=newer and pull=always replace what the volume holds").with_hint(
                "say so with -o policy=replace or policy=sync, or fill the volume once with pull=missing",
            ))
        } else {
            Ok(Some(fill))
        }
    }
}

impl ExportOptions {
    fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let mode = given(options, "export-mode", str::parse::<ExportMode>)?;
        match (given(options, "export", destination)?, mode.unwrap_or_default()) {
            (Some(Location::DockerArchive { .. }), ExportMode::Incremental) => {
                Err(Error::usage("an archive for docker load holds whole images only")
                    .with_hint("export to a registry, oci: or oci-archive:, or leave out export-mode"))
            }
            (Some(image), mode) => Ok(Some(Self { image, mode })),
            (None, _) if mode.is_some() => {
                Err(Error::usage("export-mode needs an export").with_hint("add -o export=REFERENCE"))
            }
            (None, _) => Ok(None),
        }
    }
}

impl FromStr for ExportMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "full" => Ok(Self::Full),
            "incremental" => Ok(Self::Incremental),
            _ => Err(Error::usage("export-mode is full or incremental")),
        }
    }
}

impl FromStr for PullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "missing" => Ok(Self::Missing),
            "newer" => Ok(Self::Newer),
            "always" => Ok(Self::Always),
            _ => Err(Error::usage("pull is missing, newer or always")),
        }
    }
}

impl FromStr for FillPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "once" => Ok(Self::Once),
            "replace" => Ok(Self::Replace),
            "sync" => Ok(Self::Sync),
            _ => Err(Error::usage("policy is once, replace or sync")),
        }
    }
}

/// Parses an option, if it is given.
fn given<T>(
    options: &BTreeMap<String, String>,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T>,
) -> Result<Option<T>> {
    options.get(key).map(|text| parse(text)).transpose()
}

/// Parses the name of an image. A user and a password in it are refused, because listings would show them.
fn location(text: &str) -> Result<Location> {
    let digest = |end: &str| end.starts_with("sha256:") || end.starts_with("sha512:");
    let is_file = ["oci:", "oci-archive:", "docker-archive:"].iter().any(|scheme| text.starts_with(scheme));
    if !is_file && text.rsplit_once('@').is_some_and(|(name, end)| name.contains('@') || !digest(end)) {
        return Err(Error::usage("the name of an image has no user and no password in it")
            .with_hint("log in with volio login, or name a file with volio plugin --authfile"));
    }
    let location = text.parse::<Location>()?;
    if location.path().is_some_and(|path| !path.is_absolute()) {
        Err(Error::usage(format!("{location} has a relative path"))
            .with_hint("the plugin runs in a directory of its own: begin the path with /"))
    } else {
        Ok(location)
    }
}

/// Parses the name of an image that is written.
fn destination(text: &str) -> Result<Location> {
    let location = location(text)?;
    if location.digest().is_some() {
        Err(Error::usage("export needs a tag: an image gets its digest by what it is"))
    } else {
        Ok(location)
    }
}

/// Parses a path inside an image.
fn absolute_path(text: &str) -> Result<PathBuf> {
    if Path::new(text).is_absolute() {
        return Ok(text.into());
    }
    Err(Error::usage("verify-key is not a file with a full path")
        .with_hint("write the path that the plugin sees, such as /etc/volio/release.pub"))
}

fn subpath(text: &str) -> Result<TreePath> {
    TreePath::parse(text).filter(|path| !path.is_root()).ok_or_else(|| {
        Error::usage("subpath is not a path inside the image").with_hint("write a path without '..'")
    })
}

/// Parses a numeric user or group id; names exist in the container only. The highest number means none.
fn id(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(id) if id != u32::MAX && text.bytes().all(|b| b.is_ascii_digit()) => Ok(id),
        _ => Err(Error::usage("uid and gid are numbers")),
    }
}

fn mode(text: &str) -> Result<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(mode),
        _ => Err(Error::usage("mode is a number in octal, such as 0750")),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    match text.parse() {
        Ok(seconds @ 1..=LONGEST_TIMEOUT) => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::usage("a timeout is a number of seconds, at most a day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<VolumeOptions> {
        let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        VolumeOptions::parse(Driver::Volio, &options)
    }

    #[test]
    fn what_makes_no_sense_is_refused_when_the_volume_is_made() {
        for bad in [
            &[("imgae", "h.io/a")][..],
            &[("image", "A B")],
            &[("image", "oci:relative:v1")],
            &[("image", "h.io/a"), ("pull", "sometimes")],
            &[("image", "h.io/a"), ("pull", "newer")],
            &[("image", "h.io/a"), ("pull", "always"), ("policy", "once")],
            &[("image", "h.io/a"), ("subpath", "a/../..")],
            &[("image", "h.io/a"), ("subpath", "/")],
            &[("pull", "missing")],
            &[("uid", "root")],
            &[("uid", "4294967295")],
            &[("gid", "+1")],
            &[("mode", "0999")],
            &[("mode", "17777")],
            &[("export", &format!("h.io/a@sha256:{}", "a".repeat(64)))],
            &[("export-mode", "incremental")],
            &[("export", "h.io/a"), ("export-mode", "sometimes")],
            &[("export", "docker-archive:/a.tar"), ("export-mode", "incremental")],
            &[("pre-mount", "echo 'open")],
            &[("pre-mount", "")],
            &[("post-unmount", "[1]")],
            &[("timeout", "0")],
        ] {
            let error = parse(bad).err().unwrap_or_else(|| panic!("{bad:?}"));
            assert_eq!(error.kind(), crate::error::Kind::Usage, "{bad:?}");
        }
    }

    #[test]
    fn a_password_in_a_name_or_an_option_is_not_repeated() {
        for bad in [
            &[("image", "user:hunter2@h.io/a:v1")][..],
            &[("image", "docker://user:hunter2@h.io/a:v1")],
            &[("export", "user:hunter2@h.io/a")],
            &[("image", "https://user:hunter2@h.io/a")],
            &[("password", "hunter2")],
        ] {
            let error = parse(bad).unwrap_err();
            let all = format!("{error} {:?}", error.hint());
            assert!(!all.contains("hunter2"), "{all}");
        }
    }

    #[test]
    fn options_become_what_they_mean() {
        let spec = parse(&[
            ("image", "oci:/a@b:v1"),
            ("pull", "newer"),
            ("policy", "replace"),
            ("subpath", "/var//lib/./x/"),
            ("uid", "70"),
            ("mode", "2750"),
            ("export", "h.io/b:v1"),
            ("export-mode", "incremental"),
            ("pre-mount", r#"sh -c 'echo "$VOLIO_NAME"'"#),
            ("post-unmount", r#"["a b", "c"]"#),
            ("timeout", "5"),
        ])
        .unwrap();
        let fill = spec.fill.unwrap();
        assert_eq!((fill.pull, fill.policy), (PullPolicy::Newer, FillPolicy::Replace));
        let synced = parse(&[("image", "h.io/a"), ("pull", "newer"), ("policy", "sync")]).unwrap();
        assert_eq!(synced.fill.unwrap().policy, FillPolicy::Sync);
        assert_eq!(fill.subpath, TreePath::parse("var/lib/x"));
        assert_eq!(spec.owner, Ownership { uid: Some(70), gid: None, mode: Some(0o2750) });
        assert_eq!(spec.export.unwrap().mode, ExportMode::Incremental);
        assert_eq!(parse(&[("export", "h.io/b:v1")]).unwrap().export.unwrap().mode, ExportMode::Full);
        assert_eq!(spec.pre_mount.unwrap(), ["sh", "-c", r#"echo "$VOLIO_NAME""#]);
        assert_eq!(spec.post_unmount.unwrap(), ["a b", "c"]);
        assert_eq!(spec.timeout, Duration::from_secs(5));
    }

    #[test]
    fn volmex_needs_a_command_and_keeps_options_that_it_does_not_know() {
        let options = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        for none in [&[][..], &[("cmd", "")], &[("cmd", "  ")]] {
            let error = VolumeOptions::parse(Driver::Volmex, &options(none)).unwrap_err();
            assert_eq!(error.to_string(), r#"no volmex mount command. specify with -o cmd="command""#);
        }
        let spec =
            VolumeOptions::parse(Driver::Volmex, &options(&[("cmd", " a  b "), ("image", "?"), ("x", "y")]))
                .unwrap();
        assert_eq!(spec.command.as_deref(), Some("a  b"));
        assert!(spec.fill.is_none());
    }
}
