//! data-io's interface: `pack` and `unpack` without arguments, configured by environment variables and by files in
//! `/run/secrets`, which take precedence.

mod secrets;

use crate::{environment, output};
use rustix::fs::statfs;
use secrets::Secrets;
use serde_json::json;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use volio::error::Kind;
use volio::{Access, CredentialSource, Environment, Error, Location, Reference, Result, Secret};

/// The directory that is packed by default.
const SOURCE: &str = "/source";
/// The default target of an unpack: volumes are mounted at the paths at which programs use them.
const TARGET: &str = "/";
/// The default layout for images that are not pushed or not pulled.
const STORE: &str = "/var/lib/volio/store";

/// `OVERLAYFS_SUPER_MAGIC` of statfs(2): the root of most containers, which is removed with them.
const OVERLAY: i64 = 0x794c_7630;

/// The direction in which data moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From `/source` into an image.
    Pack,
    /// From an image into volumes.
    Unpack,
}

/// The configuration of a run, read from the environment.
#[derive(Debug)]
pub struct EnvConfig {
    direction: Direction,
    /// The image that `DATA_TAG` names.
    image: Reference,
    /// The layout that takes the place of the registry, with `NO_PUSH` or `NO_PULL`.
    store: Option<PathBuf>,
    /// The credentials for the registry.
    login: Option<CredentialSource>,
    /// The directory to pack.
    pub source: PathBuf,
    /// The directory to unpack into.
    pub target: PathBuf,
    /// Refuse each new version once.
    pub announces: bool,
    /// Transfer only what changed.
    pub incremental: bool,
    variables: Variables,
}

/// The environment, and the secrets, which take precedence.
#[derive(Debug)]
struct Variables {
    secrets: Secrets,
    environment: fn(&str) -> Option<OsString>,
}

impl Variables {
    /// Returns a variable. An empty one does not count, and an empty secret hides the variable.
    fn get(&self, name: &str) -> Option<OsString> {
        match self.secrets.get(name) {
            Some(secret) => Some(secret.to_owned()).filter(|secret| !secret.is_empty()),
            None => (self.environment)(name),
        }
    }

    /// Returns a variable, which must be UTF-8.
    fn text(&self, name: &str) -> Result<Option<String>> {
        let text = self.get(name).map(OsString::into_string).transpose();
        text.map_err(|_| Error::usage(format!("{name} is not UTF-8")))
    }

    fn path(&self, name: &str, usual: &str) -> PathBuf {
        self.get(name).map_or_else(|| usual.into(), PathBuf::from)
    }
}

impl EnvConfig {
    /// Reads the environment and the secrets.
    ///
    /// # Errors
    /// [`Usage`](volio::error::Kind::Usage) when `DATA_TAG` is missing or a variable is invalid.
    pub fn read(direction: Direction) -> Result<Self> {
        let environment = environment::variable;
        let directory = environment("VOLIO_SECRETS").map_or_else(|| secrets::DIRECTORY.into(), PathBuf::from);
        Self::from_variables(direction, Variables { secrets: Secrets::read(&directory), environment })
    }

    fn from_variables(direction: Direction, variables: Variables) -> Result<Self> {
        let Some(tag) = variables.text("DATA_TAG")? else { return Err(no_tag(direction, &variables)) };
        let name = match variables.text("REGISTRY")? {
            Some(registry) if registry.contains("://") || registry.contains('@') => {
                // It is not shown, because it may contain a password.
                return Err(
                    Error::usage("REGISTRY is an address and not a host").with_hint("write HOST[:PORT]")
                );
            }
            Some(registry) => format!("{}/{tag}", registry.trim_end_matches('/')),
            None => tag,
        };
        let image: Reference = name.parse().map_err(|error: Error| {
            Error::usage(format!("DATA_TAG, after REGISTRY if that is set, is not an image: {error}"))
                .with_hint("DATA_TAG=REPOSITORY:TAG with REGISTRY=HOST, or DATA_TAG=HOST/REPOSITORY:TAG")
        })?;
        let (switch, unpacks) = match direction {
            Direction::Pack => ("NO_PUSH", false),
            Direction::Unpack => ("NO_PULL", true),
        };
        let store = variables.get(switch).map(|_| variables.path("VOLIO_STORE", STORE));
        let login = match store {
            Some(_) => None,
            None => login(&image, &variables)?,
        };
        Ok(Self {
            direction,
            source: variables.path("VOLIO_SOURCE", SOURCE),
            target: variables.path("VOLIO_TARGET", TARGET),
            incremental: variables.get("INCREMENTAL").is_some(),
            announces: unpacks && store.is_none() && variables.get("NO_CHECK").is_none(),
            image,
            store,
            login,
            variables,
        })
    }

    /// Returns the location of the image, and warns about a store that is removed with the container.
    ///
    /// # Errors
    /// When a store cannot hold the image under its name; [`NotFound`](volio::error::Kind::NotFound) when an unpack reads
    /// from a store without it.
    pub fn location(&self, access: &Access) -> Result<Location> {
        let location = self.image_location()?;
        match (self.direction, &self.store) {
            (Direction::Unpack, Some(store)) => {
                let resolved = location.source(access).and_then(|source| source.resolve());
                resolved.map(drop).map_err(|error| match error.kind() {
                    Kind::NotFound => Error::not_found(format!(
                        "NO_PULL is set, and {} has no {}",
                        store.display(),
                        self.image
                    ))
                    .with_hint(
                        "pack it with NO_PUSH and the same volume there, or unset NO_PULL to fetch it",
                    ),
                    _ => error,
                })?;
            }
            (Direction::Pack, Some(store)) if is_on_overlay(store) => {
                let store = store.display();
                output::warning(&format!("{store} is not on a volume: the image is lost with the container"));
            }
            _ => {}
        }
        Ok(location)
    }

    /// Adds a hint about data-io's variables to an error of the registry.
    pub fn explain(error: Error) -> Error {
        match (error.kind(), error.status()) {
            (Kind::Denied, Some(_)) => error.with_hint("REGISTRY_USERNAME and REGISTRY_PASSWORD log in"),
            _ => error,
        }
    }

    fn image_location(&self) -> Result<Location> {
        let Some(store) = &self.store else { return Ok(Location::Registry(self.image.clone())) };
        let digest = self.image.digest().cloned();
        let location = Location::Layout { directory: store.clone(), tag: None, digest: digest.clone() };
        match digest {
            Some(_) => Ok(location),
            // A store holds images of several repositories, so that their tags are their whole names.
            None => location.with_tag(&self.image.to_string()),
        }
    }

    /// Returns a variable of the environment or of the secrets.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        self.variables.get(name)
    }

    /// Fails if there is a secret with the name of one of these variables. Those name a file, and are not read from secrets:
    /// an image would be unpacked without the signature that the secret seems to require.
    ///
    /// # Errors
    /// [`Usage`](volio::error::Kind::Usage).
    pub fn ensure_no_secrets(&self, variables: &[&str]) -> Result<()> {
        match variables.iter().find(|name| self.variables.secrets.get(name).is_some()) {
            Some(name) => {
                Err(Error::usage(format!("the secret {name} is not used: the variable names a file"))
                    .with_hint(format!("set {name} in the environment to the path of the secret")))
            }
            None => Ok(()),
        }
    }

    /// Returns the environment with the secrets.
    pub fn environment(&self) -> Environment {
        let variables = environment::process();
        let variables = variables.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        variables.chain(self.variables.secrets.iter()).collect()
    }

    /// Returns the credentials that take precedence over all others.
    pub fn login(&self) -> Option<CredentialSource> {
        self.login.clone()
    }

    /// Checks that the source exists.
    ///
    /// # Errors
    /// [`NotFound`](volio::error::Kind::NotFound).
    pub fn check_source(&self) -> Result<()> {
        match fs::metadata(&self.source) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::io(format!("cannot pack {}", self.source.display()), error)
                .with_hint("mount the volumes below it: -v VOLUME:/source/var/lib/mysql:ro")),
        }
    }
}

/// Returns the credentials for the registry of the image, as a text in the form of Docker's `config.json`. So they are used
/// for this registry only, and are held in a type that cannot be printed.
fn login(image: &Reference, variables: &Variables) -> Result<Option<CredentialSource>> {
    let names = ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"];
    let (username, password) = (variables.text(names[0])?, variables.text(names[1])?);
    let (username, password) = match (username, password) {
        (Some(username), Some(password)) => (username, password),
        (None, None) => return Ok(None),
        (username, _) => {
            let [set, missing] = if username.is_some() { names } else { [names[1], names[0]] };
            return Err(Error::usage(format!("{set} is set, and {missing} is not")).with_hint(
                "set both, or neither for a registry without a login; a file in /run/secrets counts too",
            ));
        }
    };
    let entry = json!({ "username": username, "password": password });
    let text = json!({ "auths": { image.registry(): entry } }).to_string();
    Ok(Some(CredentialSource::Text { name: names.join(" and "), text: Secret::new(text) }))
}

/// Returns `true` if the nearest existing ancestor of a path is on overlayfs.
fn is_on_overlay(path: &Path) -> bool {
    path.ancestors().find_map(|ancestor| statfs(ancestor).ok()).is_some_and(|fs| fs.f_type == OVERLAY)
}

/// Returns the error for a missing `DATA_TAG`.
fn no_tag(direction: Direction, variables: &Variables) -> Error {
    let Some(bucket) = variables.get("DATA_S3_DST") else {
        let (command, arguments) = match direction {
            Direction::Pack => ("pack", "SOURCE"),
            Direction::Unpack => ("unpack", "DIR"),
        };
        return Error::usage(format!(
            "arguments are missing: volio {command} IMAGE {arguments}"
        ))
        .with_hint(format!("without arguments, it needs data-io's variables: DATA_TAG=HOST/REPOSITORY:TAG volio {command}"));
    };
    let bucket = bucket.to_string_lossy();
    // The hint is a command for a shell.
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "/:._-".contains(c);
    let bucket = if bucket.chars().all(is_harmless) { &*bucket } else { "s3://BUCKET/PATH.tar.gz" };
    let pipeline = match direction {
        Direction::Unpack => format!("aws s3 cp {bucket} - | tar -xz -C /"),
        // data-io's own name for the file, with its dot before the dash.
        Direction::Pack => {
            let name = bucket.strip_suffix("gz").unwrap_or(bucket);
            format!("tar -cz -C /source . | aws s3 cp - \"{name}-$(date -u +%Y-%m-%d_%H-%M-%S).gz\"")
        }
    };
    Error::usage("DATA_S3_DST is set and DATA_TAG is not: volio knows registries and no buckets")
        .with_hint(format!("use {pipeline}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(direction: Direction, variables: &[(&str, &str)]) -> Result<EnvConfig> {
        let secrets = Secrets::with(variables);
        EnvConfig::from_variables(direction, Variables { secrets, environment: |_| None })
    }

    fn location(direction: Direction, variables: &[(&str, &str)]) -> String {
        config(direction, variables).unwrap().image_location().unwrap().to_string()
    }

    #[test]
    fn an_image_is_named_by_its_registry_and_its_tag() {
        assert_eq!(location(Direction::Unpack, &[("DATA_TAG", "h.io/a:1")]), "h.io/a:1");
        assert_eq!(location(Direction::Unpack, &[("DATA_TAG", "a:1"), ("REGISTRY", "h.io")]), "h.io/a:1");
        assert_eq!(
            location(Direction::Unpack, &[("DATA_TAG", "a:1"), ("REGISTRY", "h.io/b/")]),
            "h.io/b/a:1"
        );
        assert_eq!(location(Direction::Pack, &[("DATA_TAG", "me/a")]), "docker.io/me/a:latest");
        assert!(config(Direction::Unpack, &[("DATA_TAG", "oci:/a b")]).is_err());
    }

    #[test]
    fn images_that_are_not_pushed_or_pulled_are_in_the_store() {
        let tag = ("DATA_TAG", "h.io:5000/a:1");
        for any in ["1", "0", "no"] {
            let stored = "oci:/var/lib/volio/store:h.io:5000/a:1";
            assert_eq!(location(Direction::Pack, &[tag, ("NO_PUSH", any)]), stored);
            assert_eq!(location(Direction::Unpack, &[tag, ("NO_PULL", any)]), stored);
            assert_eq!(location(Direction::Unpack, &[tag, ("NO_PUSH", any)]), "h.io:5000/a:1");
        }
        assert_eq!(
            location(Direction::Pack, &[tag, ("NO_PUSH", "1"), ("VOLIO_STORE", "/s")]),
            "oci:/s:h.io:5000/a:1"
        );
    }

    #[test]
    fn a_new_version_is_announced_unless_a_variable_forbids_it() {
        let tag = ("DATA_TAG", "h.io/a:1");
        assert!(config(Direction::Unpack, &[tag]).unwrap().announces);
        for other in ["NO_CHECK", "NO_PULL"] {
            assert!(!config(Direction::Unpack, &[tag, (other, "1")]).unwrap().announces);
        }
    }

    #[test]
    fn secrets_with_the_name_of_an_option_for_signatures_are_refused() {
        let config =
            config(Direction::Unpack, &[("DATA_TAG", "h.io/a:1"), ("VOLIO_VERIFY_KEY", "PEM")]).unwrap();
        assert!(config.ensure_no_secrets(&["VOLIO_POLICY", "VOLIO_VERIFY_KEY"]).is_err());
        assert!(config.ensure_no_secrets(&["VOLIO_SIGN_KEY"]).is_ok());
    }

    #[test]
    fn any_value_asks_for_what_changed_only() {
        let tag = ("DATA_TAG", "h.io/a:1");
        for (value, expected) in [("1", true), ("0", true), ("", false)] {
            let config = config(Direction::Pack, &[tag, ("INCREMENTAL", value)]).unwrap();
            assert_eq!(config.incremental, expected, "{value}");
        }
        assert!(!config(Direction::Pack, &[tag]).unwrap().incremental);
    }

    #[test]
    fn credentials_are_for_the_registry_of_the_image_and_never_printed() {
        let both =
            [("DATA_TAG", "h.io/a:1"), ("REGISTRY_USERNAME", "me"), ("REGISTRY_PASSWORD", "hunter\"2")];
        let config = config(Direction::Unpack, &both).unwrap();
        let Some(CredentialSource::Text { text, .. }) = config.login() else { panic!("no login") };
        assert_eq!(text.reveal(), r#"{"auths":{"h.io":{"password":"hunter\"2","username":"me"}}}"#);
        assert!(!format!("{config:?}").contains("hunter"));
    }

    #[test]
    fn the_pipeline_for_a_bucket_is_safe_for_a_shell() {
        let hint = |direction, bucket: &str| {
            config(direction, &[("DATA_S3_DST", bucket)]).unwrap_err().hint().unwrap().to_owned()
        };
        assert_eq!(
            hint(Direction::Unpack, "s3://b/p/f.tar.gz"),
            "use aws s3 cp s3://b/p/f.tar.gz - | tar -xz -C /"
        );
        assert!(
            hint(Direction::Pack, "s3://b/p/f.tar.gz")
                .ends_with("\"s3://b/p/f.tar.-$(date -u +%Y-%m-%d_%H-%M-%S).gz\"")
        );
        assert_eq!(
            hint(Direction::Unpack, "$(reboot)"),
            "use aws s3 cp s3://BUCKET/PATH.tar.gz - | tar -xz -C /"
        );
    }
}
