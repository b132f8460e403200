//! Two bodies, field by field.
//!
//! Fields are known by their path in JSONPath, with positions in arrays as `[*]`. Names that look like data rather than
//! like names (ids, addresses, numbers as keys of an object) become `*`: they would fill the table of paths, and they
//! may be somebody's. An array of another length is one difference, at the array; which of its elements belong together
//! cannot be told then, so they are not looked at.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::body::Body;
use crate::model::{JsonPath, PathSegment};

/// Paths of one pair of answers that are told apart.
const PATHS_MAX: usize = 1_000;
/// The longest name of a field that is shown.
const NAME_MAX: usize = 40;
/// The most digits in a name of a field that is shown.
const DIGITS_MAX: usize = 4;

/// What differs between two answers, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The first difference at each path.
    pub fields: BTreeMap<String, Difference>,
    /// Whether there are more paths than are told apart.
    pub more: bool,
}

impl Differences {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// A difference at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// In which way.
    pub kind: Kind,
    /// What the baseline has there.
    pub baseline: Shape,
    /// What the shadow has there.
    pub shadow: Shape,
}

/// In which way two answers differ at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Another value of the same type.
    Changed,
    /// Another type.
    Type,
    /// The shadow lacks the field.
    Missing,
    /// Only the shadow has the field.
    Added,
    /// An array of another length.
    Length,
}

impl Kind {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Type => "type",
            Self::Missing => "missing",
            Self::Added => "added",
            Self::Length => "length",
        }
    }
}

/// What may be told of a value: its type and how long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `null`, `boolean`, `number`, `string`, `array`, `object`, `absent`, or a content type.
    pub kind: String,
    /// Characters of a string, digits and signs of a number, elements, fields or bytes.
    pub length: Option<u64>,
}

impl Shape {
    fn new(kind: &str, length: Option<usize>) -> Self {
        Self { kind: kind.to_owned(), length: length.map(|n| n as u64) }
    }

    fn absent() -> Self {
        Self::new("absent", None)
    }

    fn of(value: &Value) -> Self {
        let length = match value {
            Value::Null | Value::Bool(_) => None,
            Value::Number(number) => Some(number.to_string().len()),
            Value::String(text) => Some(text.chars().count()),
            Value::Array(list) => Some(list.len()),
            Value::Object(map) => Some(map.len()),
        };
        Self::new(type_of(value), length)
    }

    fn of_body(body: &Body) -> Self {
        match body {
            Body::Json(value) => Self::of(value),
            Body::Opaque { kind, length, .. } => Self { kind: kind.clone(), length: Some(*length) },
            Body::Unreadable => Self::absent(),
        }
    }
}

/// What differs between the baseline's and the shadow's body, without what is ignored. None when one of them cannot be
/// read.
pub fn differences(baseline: &Body, shadow: &Body, ignore: &[JsonPath]) -> Option<Differences> {
    let mut walk = Walk { path: String::from("$"), found: Differences::default() };
    match (baseline, shadow) {
        (Body::Unreadable, _) | (_, Body::Unreadable) => return None,
        (Body::Json(a), Body::Json(b)) => {
            let ignore: Vec<_> = ignore.iter().map(JsonPath::segments).collect();
            walk.values(a, b, &ignore);
        }
        (Body::Opaque { kind, hash, .. }, Body::Opaque { kind: other, hash: hash_b, .. }) if kind == other => {
            // By content type: what changes by itself in pages must not hide what changes in style sheets.
            walk.path = if kind.is_empty() { "body".to_owned() } else { format!("body {kind}") };
            if hash != hash_b {
                walk.note(Kind::Changed, Shape::of_body(baseline), Shape::of_body(shadow));
            }
        }
        _ => {
            walk.path = "body".to_owned();
            walk.note(Kind::Type, Shape::of_body(baseline), Shape::of_body(shadow));
        }
    }
    Some(walk.found)
}

struct Walk {
    path: String,
    found: Differences,
}

impl Walk {
    fn values(&mut self, a: &Value, b: &Value, ignore: &[&[PathSegment]]) {
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => self.objects(a, b, ignore),
            (Value::Array(a), Value::Array(b)) => self.arrays(a, b, ignore),
            _ if type_of(a) != type_of(b) => self.note(Kind::Type, Shape::of(a), Shape::of(b)),
            (Value::Number(x), Value::Number(y)) if same_number(x, y) => {}
            _ if a == b => {}
            _ => self.note(Kind::Changed, Shape::of(a), Shape::of(b)),
        }
    }

    fn objects(&mut self, a: &Map<String, Value>, b: &Map<String, Value>, ignore: &[&[PathSegment]]) {
        for (name, value) in a {
            self.field(name, Some(value), b.get(name), ignore);
        }
        for (name, value) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
            self.field(name, None, Some(value), ignore);
        }
    }

    fn field(&mut self, name: &str, a: Option<&Value>, b: Option<&Value>, ignore: &[&[PathSegment]]) {
        let fits = |segment: &PathSegment| match segment {
            PathSegment::Field(wanted) => wanted == name,
            PathSegment::AnyField => true,
            PathSegment::Element => false,
        };
        let Some(ignore) = below(ignore, fits) else { return };
        let end = self.path.len();
        self.path.push('.');
        self.path.push_str(if is_name(name) { name } else { "*" });
        match (a, b) {
            (Some(a), Some(b)) => self.values(a, b, &ignore),
            (Some(a), None) => self.note(Kind::Missing, Shape::of(a), Shape::absent()),
            (None, Some(b)) => self.note(Kind::Added, Shape::absent(), Shape::of(b)),
            (None, None) => {}
        }
        self.path.truncate(end);
    }

    fn arrays(&mut self, a: &[Value], b: &[Value], ignore: &[&[PathSegment]]) {
        let Some(ignore) = below(ignore, |segment| matches!(segment, PathSegment::Element)) else { return };
        if a.len() != b.len() {
            let shape = |list: &[Value]| Shape::new("array", Some(list.len()));
            return self.note(Kind::Length, shape(a), shape(b));
        }
        let end = self.path.len();
        self.path.push_str("[*]");
        a.iter().zip(b).for_each(|(a, b)| self.values(a, b, &ignore));
        self.path.truncate(end);
    }

    fn note(&mut self, kind: Kind, baseline: Shape, shadow: Shape) {
        if self.found.fields.contains_key(&self.path) {
            return;
        }
        if self.found.fields.len() >= PATHS_MAX {
            self.found.more = true;
            return;
        }
        self.found.fields.insert(self.path.clone(), Difference { kind, baseline, shadow });
    }
}

/// What remains of the ignored paths one step below; none when one of them ends there.
fn below<'p>(ignore: &[&'p [PathSegment]], fits: impl Fn(&PathSegment) -> bool) -> Option<Vec<&'p [PathSegment]>> {
    let mut rest = Vec::new();
    for path in ignore {
        match path.split_first() {
            Some((first, [])) if fits(first) => return None,
            Some((first, more)) if fits(first) => rest.push(more),
            _ => {}
        }
    }
    Some(rest)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `1` and `1.0` are the same number in JSON; whole numbers are compared without rounding.
fn same_number(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
}

/// Whether the key of an object reads like the name of a field.
fn is_name(key: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$');
    let begins = key.bytes().next().is_some_and(|b| !b.is_ascii_digit() && b != b'-');
    let digits = key.bytes().filter(u8::is_ascii_digit).count();
    begins && key.len() <= NAME_MAX && digits <= DIGITS_MAX && key.bytes().all(fine)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
