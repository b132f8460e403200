//! Paths into JSON documents, as people write them in the configuration: the part of JSONPath (RFC 9535) that names
//! fields, such as `$.items[*].updated_at`. Positions in arrays are not told apart, since answers come in any length.

use std::fmt;
use std::str::FromStr;

/// The longest path in bytes.
const LENGTH_MAX: usize = 512;

/// A path from the root of a document, with at least one segment. It stands for the value there and all below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonPath {
    segments: Vec<PathSegment>,
}

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathSegment {
    /// The field of an object with this name: `.name` or `['name']`.
    Field(String),
    /// Every field of an object: `.*`.
    AnyField,
    /// Every element of an array: `[*]`.
    Element,
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// It does not begin at the root.
    #[error("does not begin with \"$\"")]
    NoRoot,
    /// It is the root itself.
    #[error("names no field")]
    Empty,
    /// One position of an array.
    #[error("names one element of an array; positions are not told apart, so write [*]")]
    Position,
    /// Something else cannot be read.
    #[error("cannot be read from {rest:?} on")]
    Syntax {
        /// What stands from there on.
        rest: String,
    },
    /// It is too long.
    #[error("has {len} bytes")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

impl JsonPath {
    /// Its steps; never empty.
    pub fn segments(&self) -> &[PathSegment] {
        &self.segments
    }
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        if text.len() > LENGTH_MAX {
            return Err(JsonPathError::TooLong { len: text.len() });
        }
        let mut rest = text.strip_prefix('$').ok_or(JsonPathError::NoRoot)?;
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let (segment, after) = segment(rest)?;
            segments.push(segment);
            rest = after;
        }
        if segments.is_empty() { Err(JsonPathError::Empty) } else { Ok(Self { segments }) }
    }
}

/// The segment that the text begins with, and what follows it.
fn segment(text: &str) -> Result<(PathSegment, &str), JsonPathError> {
    let syntax = || JsonPathError::Syntax { rest: text.to_owned() };
    if let Some(after) = text.strip_prefix(".*") {
        return Ok((PathSegment::AnyField, after));
    }
    if let Some(after) = text.strip_prefix("[*]") {
        return Ok((PathSegment::Element, after));
    }
    if let Some(quoted) = text.strip_prefix("['") {
        let (name, after) = quoted.split_once("']").ok_or_else(syntax)?;
        return Ok((PathSegment::Field(name.to_owned()), after));
    }
    if let Some(inner) = text.strip_prefix('[') {
        let position = inner.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        return Err(if position { JsonPathError::Position } else { syntax() });
    }
    let name = text.strip_prefix('.').ok_or_else(syntax)?;
    let end = name.find(|c| !is_plain(c)).unwrap_or(name.len());
    if end == 0 {
        return Err(syntax());
    }
    Ok((PathSegment::Field(name[..end].to_owned()), &name[end..]))
}

/// Whether a character can stand in a name without quotes.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '@')
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.segments.iter().try_for_each(|segment| match segment {
            PathSegment::Field(name) if !name.is_empty() && name.chars().all(is_plain) => write!(f, ".{name}"),
            PathSegment::Field(name) => write!(f, "['{name}']"),
            PathSegment::AnyField => f.write_str(".*"),
            PathSegment::Element => f.write_str("[*]"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written_back() {
        for text in ["$.a", "$.items[*].updated_at", "$[*]", "$.users.*.name", "$['a b'].x-y", "$.a[*][*]", "$['']"] {
            assert_eq!(text.parse::<JsonPath>().unwrap().to_string(), text);
        }
        let quoted: JsonPath = "$['plain']".parse().unwrap();
        assert_eq!(quoted.to_string(), "$.plain");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert_eq!("a.b".parse::<JsonPath>(), Err(JsonPathError::NoRoot));
        assert_eq!("$".parse::<JsonPath>(), Err(JsonPathError::Empty));
        assert_eq!("$.a[0]".parse::<JsonPath>(), Err(JsonPathError::Position));
        for text in ["$a", "$.", "$..a", "$.a b", "$[a]", "$['a", "$.a[", "$.a]"] {
            assert!(matches!(text.parse::<JsonPath>(), Err(JsonPathError::Syntax { .. })), "{text}");
        }
        assert!(matches!(format!("$.{}", "a".repeat(512)).parse::<JsonPath>(), Err(JsonPathError::TooLong { .. })));
    }
}
