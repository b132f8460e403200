//! A table seen through the types of its keys. What the table of keys forbids was noted before; a getter gives `None` for it.

use std::path::PathBuf;
use std::time::Duration;

use super::context::Context;
use super::tree::{Node, Value, join};
use super::{formats, shape};
use crate::model::BasisPoints;

/// A table, or its absence: then every key is absent too.
#[derive(Clone)]
pub(super) struct View<'a> {
    /// What is gathered.
    pub cx: &'a Context<'a>,
    node: Option<&'a Node>,
    line: usize,
    path: String,
}

impl<'a> View<'a> {
    /// The view of a node.
    pub(super) fn new(node: &'a Node, cx: &'a Context<'a>) -> Self {
        Self { cx, node: Some(node), line: node.line, path: node.path.clone() }
    }

    /// Whether the table is there.
    pub(super) fn exists(&self) -> bool {
        self.node.is_some()
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.node.and_then(|node| node.get(key))
    }

    /// Notes a mistake about the table.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.cx.mistake(self.line, &self.path, message);
    }

    /// Notes a mistake about a key, there or not.
    pub(super) fn wrong_at(&self, key: &str, message: impl Into<String>) {
        let line = self.get(key).map_or(self.line, |node| node.line);
        self.cx.mistake(line, &join(&self.path, key), message);
    }

    /// Notes a warning about a key.
    pub(super) fn warn_at(&self, key: &str, message: &str) {
        self.cx.warning(&join(&self.path, key), message);
    }

    /// The line of a key, or of the table when it is not there.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.get(key).map_or(self.line, |node| node.line)
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &str) -> Self {
        let path = join(&self.path, key);
        Self { cx: self.cx, node: self.get(key), line: self.line_of(key), path }
    }

    /// The tables of a list.
    pub(super) fn tables(&self, key: &str) -> Vec<Self> {
        self.list(key).iter().map(|node| Self::new(node, self.cx)).collect()
    }

    /// The elements of a list.
    pub(super) fn list(&self, key: &str) -> &'a [Node] {
        match self.get(key).map(|node| &node.value) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Names and values of a map, in the order of the file.
    pub(super) fn entries(&self, key: &str) -> &'a [(String, Node)] {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Table(entries)) => entries,
            _ => &[],
        }
    }

    /// Text of a form.
    pub(super) fn read<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        read_text(self.get(key)?, &read, self.cx)
    }

    /// A list of texts of a form.
    pub(super) fn read_list<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.list(key).iter().filter_map(|node| read_text(node, &read, self.cx)).collect()
    }

    /// Text as it stands.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.text()
    }

    /// A file that is made when it is not there.
    pub(super) fn file(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(|text| self.cx.place(text))
    }

    /// A file that must be there.
    pub(super) fn existing_file(&self, key: &str) -> Option<PathBuf> {
        Some(self.cx.named(self.get(key)?, self.text(key)?))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)?.value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// A whole number. One that does not fit counts as absent: its range was checked before.
    pub(super) fn integer<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        match self.get(key)?.value {
            Value::Integer(number) => T::try_from(number).ok(),
            _ => None,
        }
    }

    /// A list of whole numbers; what does not fit is left out: its range was checked before.
    pub(super) fn integers<T: TryFrom<i64>>(&self, key: &str) -> Vec<T> {
        let number = |node: &Node| match node.value {
            Value::Integer(number) => T::try_from(number).ok(),
            _ => None,
        };
        self.list(key).iter().filter_map(number).collect()
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)?.value {
            Value::Integer(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => None,
        }
    }

    /// Percent.
    pub(super) fn share(&self, key: &str) -> Option<BasisPoints> {
        shape::percent(self.get(key)?).ok()
    }

    /// A duration.
    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        self.read(key, formats::duration)
    }

    /// A date or time as seconds since the Unix epoch.
    pub(super) fn date(&self, key: &str) -> Option<i64> {
        match &self.get(key)?.value {
            Value::Text(text) | Value::Date(text) => formats::date(text).ok(),
            _ => None,
        }
    }

    /// A size in bytes.
    pub(super) fn size(&self, key: &str) -> Option<u64> {
        match self.get(key)?.value {
            Value::Integer(_) => self.integer(key),
            _ => self.read(key, formats::size),
        }
    }
}

/// Text of a form. Text of another form is a mistake, which the table of keys will have noted already.
pub(super) fn read_text<T>(node: &Node, read: &impl Fn(&str) -> Result<T, String>, cx: &Context<'_>) -> Option<T> {
    match &node.value {
        // The text is not shown: it may be a secret.
        Value::Text(text) => read(text).map_err(|wrong| cx.wrong(node, wrong)).ok(),
        _ => None,
    }
}
