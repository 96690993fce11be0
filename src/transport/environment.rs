//! Environment variables as a value. The library does not read those of the process; the program passes them in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;

/// A set of environment variables, such as `std::env::vars_os().collect()`.
#[derive(Clone, Default)]
pub struct Environment(Arc<BTreeMap<OsString, OsString>>);

impl Environment {
    /// Returns a variable. An empty variable counts as one that is not set: Compose files and CI jobs pass variables on
    /// without knowing whether they are set.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Returns all variables, also empty ones.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(Arc::new(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }
}

/// Shows the names only, because values may be passwords.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset_and_no_value_is_shown() {
        let environment: Environment = [("A", "hunter2"), ("B", "")].into_iter().collect();
        assert_eq!(environment.get("A"), Some(OsStr::new("hunter2")));
        assert_eq!((environment.get("B"), environment.get("C")), (None, None));
        assert_eq!(environment.iter().count(), 2);
        assert_eq!(format!("{environment:?}"), r#"{"A", "B"}"#);
    }
}
