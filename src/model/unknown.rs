//! Fields of documents that this release does not know: they are kept and written again.
//!
//! While two releases run side by side on one store, the older one rewrites documents of the newer. Dropping what it does
//! not know would undo what people asked the newer one for. Every part of a document that lives on when the document
//! changes keeps them; a part that a change replaces as a whole, such as a split that is set again, takes them along when
//! it goes, since nobody here can say what they would mean to its successor.
//!
//! Some parts are closed instead, and a field more makes the document unreadable, which is said by name: slices, of which
//! there are two in each of a million tenants, stages and counts of units. What a newer release has to add to those, it
//! adds beside them, or it raises the format. An author, which is a word and not a part, is not closed and keeps nothing.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

/// Fields that this release does not know, in their order. Costs a pointer while there are none, as nearly everywhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Unknown(Option<Box<Map<String, Value>>>);

impl Unknown {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn fields(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().flat_map(|fields| fields.iter())
    }
}

/// Only the names: what a newer release keeps there may be secret.
impl std::fmt::Debug for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fields().map(|(name, _)| name)).finish()
    }
}

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.fields().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Unknown;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unknown, A::Error> {
                let mut fields: Option<Box<Map<String, Value>>> = None;
                while let Some((name, value)) = map.next_entry()? {
                    fields.get_or_insert_default().insert(name, value);
                }
                Ok(Unknown(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
#[path = "unknown_tests.rs"]
mod tests;
