//! JSON that is read as strictly as containers/image reads a policy: an object without unknown, missing or repeated
//! members, and no `null`. Each value knows its place in the document, for errors.

use crate::error::{Error, Result};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// A value and its place in the document, such as `transports.docker["registry.example"][0].type`.
#[derive(Clone, Debug)]
pub(super) struct Value<'a> {
    place: String,
    text: &'a str,
}

/// An object. Its members are taken one by one.
#[derive(Debug)]
pub(super) struct Object<'a> {
    place: String,
    members: Members<'a>,
}

impl<'a> Value<'a> {
    /// Returns the value of a whole document.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if it is not JSON.
    pub(super) fn document(json: &'a [u8]) -> Result<Self> {
        let text: &RawValue =
            serde_json::from_slice(json).map_err(|error| Error::usage(format!("it is not JSON: {error}")))?;
        Ok(Self { place: String::new(), text: text.get() })
    }

    /// Returns the value as an object.
    pub(super) fn object(&self) -> Result<Object<'a>> {
        Ok(Object { place: self.place.clone(), members: self.parse("an object")? })
    }

    /// Returns the elements of an array.
    pub(super) fn elements(&self) -> Result<impl Iterator<Item = Self>> {
        let elements: Vec<&'a RawValue> = self.parse("an array")?;
        let place = self.place.clone();
        Ok(elements
            .into_iter()
            .enumerate()
            .map(move |(number, element)| Self { place: format!("{place}[{number}]"), text: element.get() }))
    }

    /// Returns the value as a string.
    pub(super) fn string(&self) -> Result<String> {
        self.parse("a string")
    }

    /// Returns the error for a value that is not as it should be.
    pub(super) fn error(&self, why: impl fmt::Display) -> Error {
        at(&self.place, why)
    }

    fn parse<T: Deserialize<'a>>(&self, kind: &str) -> Result<T> {
        serde_json::from_str(self.text).map_err(|error| {
            let text = error.to_string();
            // Where a value has another type, serde describes the Rust type that it expected.
            let is_type = text.starts_with("invalid type");
            self.error(if is_type { format!("it is not {kind}") } else { without_position(&text).to_owned() })
        })
    }
}

impl<'a> Object<'a> {
    /// Takes a member; `None` if it is missing.
    pub(super) fn optional(&mut self, name: &str) -> Option<Value<'a>> {
        let text = self.members.0.remove(name)?;
        Some(Value { place: member_place(&self.place, name), text })
    }

    /// Takes a member that is required.
    pub(super) fn required(&mut self, name: &str) -> Result<Value<'a>> {
        self.optional(name).ok_or_else(|| self.error(format!("the member {name:?} is missing")))
    }

    /// Returns all members that were not taken, with their names.
    pub(super) fn members(self) -> impl Iterator<Item = (String, Value<'a>)> {
        let place = self.place;
        self.members.0.into_iter().map(move |(name, text)| {
            let place = member_place(&place, &name);
            (name, Value { place, text })
        })
    }

    /// Checks that all members were taken.
    pub(super) fn finish(self) -> Result<()> {
        match self.members.0.keys().next() {
            Some(name) => Err(self.error(format!("the member {name:?} is unknown"))),
            None => Ok(()),
        }
    }

    /// Returns the error for an object that is not as it should be.
    pub(super) fn error(&self, why: impl fmt::Display) -> Error {
        at(&self.place, why)
    }
}

fn at(place: &str, why: impl fmt::Display) -> Error {
    let place = if place.is_empty() { "the document" } else { place };
    Error::usage(format!("{place}: {why}"))
}

/// Returns the place of a member. Names that are not simple are quoted.
fn member_place(object: &str, name: &str) -> String {
    let is_simple = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_simple {
        return format!("{object}[{name:?}]");
    }
    let dot = if object.is_empty() { "" } else { "." };
    format!("{object}{dot}{name}")
}

/// Returns the message without the line and the column, which would count from the start of the value.
fn without_position(message: &str) -> &str {
    message.split_once(" at line ").map_or(message, |(message, _)| message)
}

/// The members of an object, none of which is repeated.
#[derive(Debug)]
struct Members<'a>(BTreeMap<String, &'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    match members.entry(name) {
                        Entry::Vacant(entry) => _ = entry.insert(value.get()),
                        Entry::Occupied(entry) => {
                            let name = entry.key();
                            return Err(A::Error::custom(format_args!("the member {name:?} occurs twice")));
                        }
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Visit)
    }
}
