//! The requirements of a policy, as containers-policy.json(5) writes them.

use super::identity::Identity;
use super::json::{Object, Value};
use crate::error::{Error, Result};
use crate::trust::PublicKey;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::path::Path;

/// The maximum number of keys in a policy. Each signature of an image is tried with all keys of a requirement.
const KEY_LIMIT: usize = 1000;

/// The members with keys, of which a requirement has exactly one.
const KEY_MEMBERS: [&str; 4] = ["keyPath", "keyPaths", "keyData", "keyDatas"];

/// Members and types of containers/image that volio does not evaluate, and what they ask for.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("fulcio", "a certificate of Fulcio"),
    ("pki", "a certificate"),
    ("rekorPublicKeyPath", "an entry in a transparency log"),
    ("rekorPublicKeyPaths", "an entry in a transparency log"),
    ("rekorPublicKeyData", "an entry in a transparency log"),
    ("rekorPublicKeyDatas", "an entry in a transparency log"),
    ("signedBy", "a signature by GnuPG"),
    ("signedBaseLayer", "a signed base image"),
    ("keyType", "a key of GnuPG"),
];

/// A condition that an image has to satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `insecureAcceptAnything`: every image satisfies it.
    AcceptAnything,
    /// `reject`: no image satisfies it.
    Reject,
    /// `sigstoreSigned`: the image has a signature by one of the keys that claims one of the names.
    Signed {
        /// The keys, any one of which is enough.
        keys: Vec<PublicKey>,
        /// The accepted names.
        identity: Identity,
    },
}

/// A reader of the requirements of one policy.
pub(super) struct Reader<'a> {
    read_key: &'a dyn Fn(&Path) -> Result<PublicKey>,
    keys: usize,
}

impl<'a> Reader<'a> {
    /// Creates a reader that reads the files of `keyPath` with this function.
    pub(super) fn new(read_key: &'a dyn Fn(&Path) -> Result<PublicKey>) -> Self {
        Self { read_key, keys: 0 }
    }

    /// Reads a list of requirements, all of which must be satisfied.
    pub(super) fn requirements(&mut self, value: &Value) -> Result<Vec<Requirement>> {
        let requirements: Vec<_> =
            value.elements()?.map(|element| self.requirement(&element)).collect::<Result<_>>()?;
        if requirements.is_empty() {
            return Err(value.error("the list has no requirement")
                .with_hint("[{\"type\":\"insecureAcceptAnything\"}] accepts every image, and [{\"type\":\"reject\"}] none"));
        }
        Ok(requirements)
    }

    fn requirement(&mut self, value: &Value) -> Result<Requirement> {
        let mut object = value.object()?;
        let kind = object.required("type")?;
        let requirement = match kind.string()?.as_str() {
            "insecureAcceptAnything" => Requirement::AcceptAnything,
            "reject" => Requirement::Reject,
            "sigstoreSigned" => self.signed(&mut object)?,
            other => return Err(unsupported(&kind, other)),
        };
        object.finish()?;
        Ok(requirement)
    }

    fn signed(&mut self, object: &mut Object) -> Result<Requirement> {
        for (name, _) in UNSUPPORTED {
            if let Some(value) = object.optional(name) {
                return Err(unsupported(&value, name));
            }
        }
        let mut sources = KEY_MEMBERS.into_iter().filter_map(|name| Some((name, object.optional(name)?)));
        let (Some((name, value)), None) = (sources.next(), sources.next()) else {
            return Err(object.error(format!("exactly one of {} is needed", KEY_MEMBERS.join(", "))));
        };
        let keys = match name {
            "keyPath" => vec![self.key_in_file(&value)?],
            "keyData" => vec![self.key_in_base64(&value)?],
            "keyPaths" => self.keys(&value, Self::key_in_file)?,
            _ => self.keys(&value, Self::key_in_base64)?,
        };
        let identity = match object.optional("signedIdentity") {
            Some(value) => Identity::parse(&value)?,
            None => Identity::RepositoryOfDigestOrExact,
        };
        Ok(Requirement::Signed { keys, identity })
    }

    fn keys(
        &mut self,
        value: &Value,
        read: impl Fn(&mut Self, &Value) -> Result<PublicKey>,
    ) -> Result<Vec<PublicKey>> {
        let keys: Vec<_> = value.elements()?.map(|element| read(self, &element)).collect::<Result<_>>()?;
        if keys.is_empty() {
            return Err(value.error("the list has no key"));
        }
        Ok(keys)
    }

    fn key_in_file(&mut self, value: &Value) -> Result<PublicKey> {
        let path = value.string()?;
        if path.is_empty() {
            return Err(value.error("the path is empty"));
        }
        self.count(value)?;
        let read_key = self.read_key;
        read_key(Path::new(&path)).map_err(|error| in_value(value, error))
    }

    /// Reads a key in base64 that is broken into lines or not, as Go does.
    fn key_in_base64(&mut self, value: &Value) -> Result<PublicKey> {
        self.count(value)?;
        let text = value.string()?.replace(['\r', '\n'], "");
        let bytes =
            BASE64_STANDARD.decode(text).map_err(|error| value.error(format!("not base64: {error}")))?;
        let pem = str::from_utf8(&bytes).map_err(|_| value.error("the key is not text in PEM"))?;
        PublicKey::from_pem(pem).map_err(|error| in_value(value, error))
    }

    fn count(&mut self, value: &Value) -> Result<()> {
        self.keys += 1;
        if self.keys > KEY_LIMIT {
            return Err(value.error(format!("the policy has more than {KEY_LIMIT} keys")));
        }
        Ok(())
    }
}

/// Adds the place to an error of a key, and keeps its kind and its hint.
fn in_value(value: &Value, error: Error) -> Error {
    error.context(value.error("cannot use the key").to_string())
}

fn unsupported(value: &Value, name: &str) -> Error {
    match UNSUPPORTED.iter().find(|(known, _)| *known == name) {
        Some((name, asked)) => value
            .error(format!("volio does not support {name}, which asks for {asked}"))
            .with_hint("give volio a policy of its own, with keys: sigstoreSigned with keyPath or keyData"),
        None => value.error(format!("{name:?} is not a requirement that volio knows")).with_hint(
            "volio knows sigstoreSigned with keyPath, keyPaths, keyData or keyDatas, reject and insecureAcceptAnything",
        ),
    }
}
