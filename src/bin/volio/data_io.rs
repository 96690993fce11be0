//! data-io's interface: what `pack` and `unpack` do when no image is named. Everything is said by the environment and by
//! files in `/run/secrets`, which count before it.

mod secrets;

use crate::{environment, output};
use rustix::fs::statfs;
use secrets::Secrets;
use serde_json::json;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use volio::error::Kind;
use volio::oci::Reference;
use volio::transport::{Access, CredentialSource, Location, Secret};
use volio::{Error, Result};

/// What is packed.
const SOURCE: &str = "/source";
/// What is unpacked into: volumes are mounted where the programs that use them have them.
const TARGET: &str = "/";
/// Where images are that are not pushed, and those that are not pulled.
const STORE: &str = "/var/lib/volio/store";

/// `OVERLAYFS_SUPER_MAGIC` of statfs(2): the root of most containers, which goes with them.
const OVERLAY: i64 = 0x794c_7630;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
}

/// What the environment wants.
#[derive(Debug)]
pub struct Wish {
    way: Way,
    /// The image that `DATA_TAG` names.
    image: Reference,
    /// Where it is instead, with `NO_PUSH` or `NO_PULL`.
    store: Option<PathBuf>,
    /// Who we are to its registry.
    login: Option<CredentialSource>,
    /// What is packed.
    pub source: PathBuf,
    /// What is unpacked into.
    pub target: PathBuf,
    /// Whether a new version is refused once.
    pub announces: bool,
    variables: Variables,
}

/// The environment with the secrets before it.
#[derive(Debug)]
struct Variables {
    secrets: Secrets,
    environment: fn(&str) -> Option<OsString>,
}

impl Variables {
    /// A variable; an empty one is none, and an empty secret hides the variable.
    fn get(&self, name: &str) -> Option<OsString> {
        match self.secrets.get(name) {
            Some(secret) => Some(secret.to_owned()).filter(|secret| !secret.is_empty()),
            None => (self.environment)(name),
        }
    }

    /// A variable that is text.
    fn text(&self, name: &str) -> Result<Option<String>> {
        let text = self.get(name).map(OsString::into_string).transpose();
        text.map_err(|_| Error::usage(format!("{name} is not UTF-8")))
    }

    fn path(&self, name: &str, usual: &str) -> PathBuf {
        self.get(name).map_or_else(|| usual.into(), PathBuf::from)
    }
}

impl Wish {
    /// Reads it.
    ///
    /// # Errors
    /// [`Usage`](volio::error::Kind::Usage) when nothing is wanted, or something that makes no sense.
    pub fn read(way: Way) -> Result<Self> {
        let environment = environment::variable;
        let secrets =
            Secrets::read(&environment("VOLIO_SECRETS").map_or_else(|| secrets::PLACE.into(), PathBuf::from));
        Self::of(way, Variables { secrets, environment })
    }

    fn of(way: Way, variables: Variables) -> Result<Self> {
        let Some(tag) = variables.text("DATA_TAG")? else { return Err(no_tag(way, &variables)) };
        let name = match variables.text("REGISTRY")? {
            Some(registry) if registry.contains("://") || registry.contains('@') => {
                // It is not shown: there may be a password in it.
                return Err(Error::usage("REGISTRY is an address and no host").with_hint("write HOST[:PORT]"));
            }
            Some(registry) => format!("{}/{tag}", registry.trim_end_matches('/')),
            None => tag,
        };
        let image: Reference = name.parse().map_err(|error: Error| {
            Error::usage(format!("DATA_TAG, behind REGISTRY where that is set, is no image: {error}"))
                .with_hint("DATA_TAG=REPOSITORY:TAG with REGISTRY=HOST, or DATA_TAG=HOST/REPOSITORY:TAG")
        })?;
        let switch = if way == Way::Out { "NO_PUSH" } else { "NO_PULL" };
        let store = variables.get(switch).map(|_| variables.path("VOLIO_STORE", STORE));
        let login = match store {
            Some(_) => None,
            None => login(&image, &variables)?,
        };
        Ok(Self {
            way,
            source: variables.path("VOLIO_SOURCE", SOURCE),
            target: variables.path("VOLIO_TARGET", TARGET),
            announces: way == Way::In && store.is_none() && variables.get("NO_CHECK").is_none(),
            image,
            store,
            login,
            variables,
        })
    }

    /// Where the image is.
    ///
    /// # Errors
    /// When the store cannot have it; [`NotFound`](volio::error::Kind::NotFound) when it shall be read and has not.
    pub fn location(&self, access: &Access) -> Result<Location> {
        let location = self.place()?;
        if let (Way::In, Some(store)) = (self.way, &self.store) {
            location.source(access).and_then(|source| source.resolve()).map_err(|error| {
                match error.kind() {
                    Kind::NotFound => Error::not_found(format!(
                        "NO_PULL is set, and {} has no {}",
                        store.display(),
                        self.image
                    ))
                    .with_hint(
                        "pack it with NO_PUSH and the same volume there, or unset NO_PULL to fetch it",
                    ),
                    _ => error,
                }
            })?;
        }
        if let (Way::Out, Some(store)) = (self.way, &self.store)
            && store.ancestors().find_map(|place| statfs(place).ok()).is_some_and(|fs| fs.f_type == OVERLAY)
        {
            let store = store.display();
            output::warning(&format!("{store} is on no volume: the image goes when the container goes"));
        }
        Ok(location)
    }

    /// The same error with what can be done about it here.
    pub fn explain(error: Error) -> Error {
        match (error.kind(), error.status()) {
            (Kind::Denied, Some(_)) => error.with_hint("REGISTRY_USERNAME and REGISTRY_PASSWORD log in"),
            _ => error,
        }
    }

    fn place(&self) -> Result<Location> {
        let Some(store) = &self.store else { return Ok(Location::Registry(self.image.clone())) };
        let digest = self.image.digest().cloned();
        let place = Location::Layout { directory: store.clone(), tag: None, digest: digest.clone() };
        match digest {
            Some(_) => Ok(place),
            // One store has images of several repositories: there they have their whole names.
            None => place.with_tag(&self.image.to_string()),
        }
    }

    /// A variable of this interface, for who reads the usual ones.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        self.variables.get(name)
    }

    /// Where credentials are looked for before any other place.
    pub fn login(&self) -> Option<CredentialSource> {
        self.login.clone()
    }

    /// Insists that there is something to pack.
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

/// The credentials for the registry of the image. The library reads them like a file of docker's, so that they are for
/// this one registry, and travel in what cannot be printed.
fn login(image: &Reference, variables: &Variables) -> Result<Option<CredentialSource>> {
    let names = ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"];
    let (username, password) = (variables.text(names[0])?, variables.text(names[1])?);
    let (username, password) = match (username, password) {
        (Some(username), Some(password)) => (username, password),
        (None, None) => return Ok(None),
        (username, _) => {
            let [set, missing] = if username.is_some() { names } else { [names[1], names[0]] };
            return Err(Error::usage(format!("{set} is set, and {missing} is not"))
                .with_hint("set both, or neither of them for a registry that asks nobody; a file in /run/secrets counts too"));
        }
    };
    let entry = json!({ "username": username, "password": password });
    let text = json!({ "auths": { image.registry(): entry } }).to_string();
    Ok(Some(CredentialSource::Text { name: names.join(" and "), text: Secret::new(text) }))
}

/// The error when there is no `DATA_TAG`.
fn no_tag(way: Way, variables: &Variables) -> Error {
    let Some(place) = variables.get("DATA_S3_DST") else {
        let (command, places) = match way {
            Way::Out => ("pack", "SOURCE"),
            Way::In => ("unpack", "DIR"),
        };
        return Error::usage("no image is named: neither as an argument nor by DATA_TAG")
            .with_hint(format!("volio {command} IMAGE {places}, or as data-io had it: DATA_TAG=HOST/REPOSITORY:TAG volio {command}"));
    };
    let place = place.to_string_lossy();
    // It is shown in a command for a shell.
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "/:._-".contains(c);
    let place = if place.chars().all(is_harmless) { &*place } else { "s3://BUCKET/PATH.tar.gz" };
    let pipeline = match way {
        Way::In => format!("aws s3 cp {place} - | tar -xz -C /"),
        // The name that data-io gave it, with its dot before the dash.
        Way::Out => {
            let name = place.strip_suffix("gz").unwrap_or(place);
            format!("tar -cz -C /source . | aws s3 cp - \"{name}-$(date -u +%Y-%m-%d_%H-%M-%S).gz\"")
        }
    };
    Error::usage("DATA_S3_DST is set and DATA_TAG is not: volio knows registries and no buckets")
        .with_hint(format!("use {pipeline}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(way: Way, variables: &[(&str, &str)]) -> Result<Wish> {
        let secrets = Secrets::with(variables);
        Wish::of(way, Variables { secrets, environment: |_| None })
    }

    fn place(way: Way, variables: &[(&str, &str)]) -> String {
        wish(way, variables).unwrap().place().unwrap().to_string()
    }

    #[test]
    fn an_image_is_named_by_its_tag_behind_its_registry() {
        assert_eq!(place(Way::In, &[("DATA_TAG", "h.io/a:1")]), "h.io/a:1");
        assert_eq!(place(Way::In, &[("DATA_TAG", "a:1"), ("REGISTRY", "h.io")]), "h.io/a:1");
        assert_eq!(place(Way::In, &[("DATA_TAG", "a:1"), ("REGISTRY", "h.io/b/")]), "h.io/b/a:1");
        assert_eq!(place(Way::Out, &[("DATA_TAG", "me/a")]), "docker.io/me/a:latest");
        assert!(wish(Way::In, &[("DATA_TAG", "oci:/a b")]).is_err());
    }

    #[test]
    fn what_is_not_pushed_and_not_pulled_is_in_the_store() {
        let tag = ("DATA_TAG", "h.io:5000/a:1");
        for any in ["1", "0", "no"] {
            let stored = "oci:/var/lib/volio/store:h.io:5000/a:1";
            assert_eq!(place(Way::Out, &[tag, ("NO_PUSH", any)]), stored);
            assert_eq!(place(Way::In, &[tag, ("NO_PULL", any)]), stored);
            assert_eq!(place(Way::In, &[tag, ("NO_PUSH", any)]), "h.io:5000/a:1");
        }
        assert_eq!(place(Way::Out, &[tag, ("NO_PUSH", "1"), ("VOLIO_STORE", "/s")]), "oci:/s:h.io:5000/a:1");
    }

    #[test]
    fn a_new_version_is_announced_unless_somebody_wants_it_otherwise() {
        let tag = ("DATA_TAG", "h.io/a:1");
        assert!(wish(Way::In, &[tag]).unwrap().announces);
        for other in ["NO_CHECK", "NO_PULL"] {
            assert!(!wish(Way::In, &[tag, (other, "1")]).unwrap().announces);
        }
    }

    #[test]
    fn credentials_are_for_the_registry_of_the_image_and_never_printed() {
        let both =
            [("DATA_TAG", "h.io/a:1"), ("REGISTRY_USERNAME", "me"), ("REGISTRY_PASSWORD", "hunter\"2")];
        let wish = wish(Way::In, &both).unwrap();
        let Some(CredentialSource::Text { text, .. }) = wish.login() else { panic!("no login") };
        assert_eq!(text.reveal(), r#"{"auths":{"h.io":{"password":"hunter\"2","username":"me"}}}"#);
        assert!(!format!("{wish:?}").contains("hunter"));
    }

    #[test]
    fn the_pipeline_for_a_bucket_is_one_that_a_shell_can_be_given() {
        let hint =
            |way, place: &str| wish(way, &[("DATA_S3_DST", place)]).unwrap_err().hint().unwrap().to_owned();
        assert_eq!(hint(Way::In, "s3://b/p/f.tar.gz"), "use aws s3 cp s3://b/p/f.tar.gz - | tar -xz -C /");
        assert!(
            hint(Way::Out, "s3://b/p/f.tar.gz")
                .ends_with("\"s3://b/p/f.tar.-$(date -u +%Y-%m-%d_%H-%M-%S).gz\"")
        );
        assert_eq!(hint(Way::In, "$(reboot)"), "use aws s3 cp s3://BUCKET/PATH.tar.gz - | tar -xz -C /");
    }
}
