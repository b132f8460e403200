//! Names of services, versions, tenants and groups: checked once, then cheap to share and compare.
//!
//! A name arrives from a file, from the admin API or from a stranger's request. Whoever holds one of these types
//! knows that the text is bounded, visible ASCII and therefore safe in headers, labels, keys of the store and logs.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("is empty; allowed are 1 to {max} characters")]
    Empty {
        /// Longest allowed text in bytes.
        max: usize,
    },
    /// The text is too long.
    #[error("has {len} characters; allowed are 1 to {max}")]
    TooLong {
        /// Length of the text in bytes.
        len: usize,
        /// Longest allowed text in bytes.
        max: usize,
    },
    /// The text has a character that is not allowed.
    #[error("has the character {found:?}; allowed are {allowed}")]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// What is allowed, in words.
        allowed: &'static str,
    },
}

/// Service, version and group names appear in paths, metric labels and file keys.
fn check_label(text: &str) -> Result<(), NameError> {
    const MAX: usize = 63;
    check(text, MAX, "letters, digits, '.', '_', '-' and '+'", |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+')
    })
}

/// Tenant and user names belong to the operator's customers, so any visible ASCII but separators of headers is taken.
fn check_identity(text: &str) -> Result<(), NameError> {
    const MAX: usize = 128;
    check(text, MAX, "visible ASCII characters except '\"', '\\', ',' and ';'", |c| {
        c.is_ascii_graphic() && !matches!(c, '"' | '\\' | ',' | ';')
    })
}

fn check(text: &str, max: usize, allowed: &'static str, ok: impl Fn(char) -> bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { max });
    }
    if text.len() > max {
        return Err(NameError::TooLong { len: text.len(), max });
    }
    match text.chars().find(|&c| !ok(c)) {
        Some(found) => Err(NameError::Character { found, allowed }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and keeps it.
            ///
            /// # Errors
            /// [`NameError`] says which character or length is not allowed.
            pub fn new(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// Whether the text would be a name.
            pub fn allows(text: &str) -> bool {
                $check(text).is_ok()
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(|e| serde::de::Error::custom(format!("{text:?} {e}")))
            }
        }
    };
}

name!(
    /// An API, app or module behind the proxy. 1 to 63 letters, digits, `.`, `_`, `-`, `+`.
    ServiceName,
    check_label
);
name!(
    /// One release of a service. 1 to 63 letters, digits, `.`, `_`, `-`, `+`.
    VersionName,
    check_label
);
name!(
    /// A named set of tenants. 1 to 63 letters, digits, `.`, `_`, `-`, `+`.
    GroupName,
    check_label
);
name!(
    /// A snapshot of the state. 1 to 63 letters, digits, `.`, `_`, `-`, `+`.
    SnapshotName,
    check_label
);
name!(
    /// A customer of the operator. 1 to 128 visible ASCII characters except `"`, `\`, `,` and `;`.
    TenantName,
    check_identity
);
name!(
    /// A user as the sticky key names it. 1 to 128 visible ASCII characters except `"`, `\`, `,` and `;`.
    UserName,
    check_identity
);
name!(
    /// A rollout. 1 to 63 letters, digits, `.`, `_`, `-`, `+`.
    RolloutId,
    check_label
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_visible() {
        assert!(VersionName::new("2.0.0-rc.1+build_7").is_ok());
        assert_eq!(ServiceName::new(""), Err(NameError::Empty { max: 63 }));
        assert!(matches!(ServiceName::new("a b"), Err(NameError::Character { found: ' ', .. })));
        assert!(matches!(TenantName::new(&"x".repeat(129)), Err(NameError::TooLong { len: 129, max: 128 })));
        assert!(TenantName::new("acme/eu:1@x").is_ok());
        for hostile in ["a\r\nb", "a\"b", "a;b", "ü", "a\u{0}"] {
            assert!(TenantName::new(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn a_name_from_json_is_checked() {
        let error = serde_json::from_str::<VersionName>("\"a/b\"").unwrap_err().to_string();
        assert!(error.contains("\"a/b\" has the character '/'"), "{error}");
    }
}
