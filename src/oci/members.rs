//! Members of a JSON object: those that volio knows, and those that it only keeps.

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Members of an object that volio does not know. They are kept as text, because they could take a hundred times as much
/// memory if they were parsed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Unknown {
    /// A JSON object with its members in the order of their names; `None` if there are no members.
    text: Option<Box<str>>,
}

impl Unknown {
    /// Returns whether there is a member with this name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.members().contains_key(name)
    }

    /// Returns the value of a member.
    pub fn get(&self, name: &str) -> Option<Value> {
        let members = self.members();
        serde_json::from_str(members.get(name)?.get()).ok()
    }

    /// Sets the value of a member.
    pub fn insert(&mut self, name: impl Into<String>, value: &Value) {
        let mut members = self.members();
        if let Ok(value) = serde_json::value::to_raw_value(value) {
            members.insert(name.into(), value);
        }
        self.text = text(&members);
    }

    fn members(&self) -> BTreeMap<String, Box<RawValue>> {
        let text = self.text.as_deref();
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// Returns the members as text, if there are any.
fn text(members: &BTreeMap<String, Box<RawValue>>) -> Option<Box<str>> {
    let text = (!members.is_empty()).then(|| serde_json::to_string(members).ok()).flatten();
    text.map(String::into_boxed_str)
}

impl fmt::Debug for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.as_deref().unwrap_or("{}"))
    }
}

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.members())
    }
}

/// Reads `null` as the default: Go programs write it for an empty list or map.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The members of an object. They are taken one by one.
#[derive(Default)]
pub(crate) struct Members {
    members: BTreeMap<String, Box<RawValue>>,
    /// Names that occur more than once. Parsers differ about which member counts.
    repeated: BTreeSet<String>,
}

impl Members {
    /// Takes a member; `None` if it is missing or `null`.
    pub fn optional<T: for<'de> Deserialize<'de>, E: Error>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, E> {
        if self.repeated.contains(name) {
            return Err(E::duplicate_field(name));
        }
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|error| E::custom(format!("{name}: {error}")))
    }

    /// Takes a member that is required.
    pub fn required<T: for<'de> Deserialize<'de>, E: Error>(&mut self, name: &'static str) -> Result<T, E> {
        self.optional(name)?.ok_or_else(|| E::missing_field(name))
    }

    /// Takes a member, or the default if it is missing or `null`: Go programs write `null` for an empty list or map.
    pub fn or_default<T: for<'de> Deserialize<'de> + Default, E: Error>(
        &mut self,
        name: &'static str,
    ) -> Result<T, E> {
        self.optional(name).map(Option::unwrap_or_default)
    }

    /// Returns the members that were not taken. They are checked to be valid, because they may be written again.
    pub fn rest<E: Error>(self) -> Result<Unknown, E> {
        for (name, value) in &self.members {
            serde_json::from_str::<Value>(value.get())
                .map_err(|error| E::custom(format!("{}: {error}", name.escape_debug())))?;
        }
        Ok(Unknown { text: text(&self.members) })
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut object = Members::default();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    match object.members.entry(name) {
                        Entry::Vacant(entry) => _ = entry.insert(value),
                        Entry::Occupied(entry) => _ = object.repeated.insert(entry.key().clone()),
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use crate::oci::{Descriptor, Document, Index, media_type};

    fn index(json: &str) -> crate::Result<Index> {
        Index::parse(&Document::new(media_type::INDEX, json.as_bytes().to_vec()))
    }

    #[test]
    fn unknown_members_are_kept_as_text_and_can_be_read() {
        let mut index = index(r#"{"schemaVersion":2,"manifests":[],"b":[1, {"x":null}],"a":"t"}"#).unwrap();
        assert_eq!(format!("{:?}", index.extra), r#"{"a":"t","b":[1, {"x":null}]}"#);
        assert_eq!(index.extra.get("a"), Some("t".into()));
        index.extra.insert("a", &2.into());
        assert!(index.extra.contains_key("b") && !index.extra.contains_key("c"));
        let written = Document::write(media_type::INDEX, &index);
        assert_eq!(written.bytes(), br#"{"a":2,"b":[1,{"x":null}],"manifests":[],"schemaVersion":2}"#);
    }

    #[test]
    fn members_that_cannot_be_written_again_are_refused() {
        for bad in [format!("{}{}", "[".repeat(1000), "]".repeat(1000)), "1e999".to_owned()] {
            assert!(index(&format!(r#"{{"schemaVersion":2,"manifests":[],"x":{bad}}}"#)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_member_that_occurs_twice_is_refused() {
        let twice = r#"{"mediaType":"a","mediaType":"b","digest":"","size":0}"#;
        let error = serde_json::from_str::<Descriptor>(twice).unwrap_err().to_string();
        assert!(error.contains("duplicate field `mediaType`"), "{error}");
    }
}
