//! The words in which the table of keys is written.
//!
//! One table says which keys exist, what they take, what they mean and what holds without them. The reader, the JSON
//! Schema for editors and the test of the reference file all follow it, so they cannot drift apart.

use std::time::Duration;

/// A table of the file.
#[derive(Debug)]
pub(super) struct Table {
    /// What it is about.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// When not empty: exactly one of these keys must be there.
    pub one_of: &'static [&'static str],
    /// When not empty: at least one of these keys must be there.
    pub any_of: &'static [&'static str],
}

impl Table {
    /// A table without rules between keys.
    pub(super) const fn new(doc: &'static str, keys: &'static [Key]) -> Self {
        Self { doc, keys, one_of: &[], any_of: &[] }
    }

    /// Exactly one of these keys must be there.
    pub(super) const fn one_of(mut self, keys: &'static [&'static str]) -> Self {
        self.one_of = keys;
        self
    }

    /// At least one of these keys must be there.
    pub(super) const fn any_of(mut self, keys: &'static [&'static str]) -> Self {
        self.any_of = keys;
        self
    }
}

/// A key of a table.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What it means.
    pub doc: &'static str,
    /// What holds without it.
    pub absent: Absent,
    /// The key of the same table without which this one means nothing; empty for none.
    pub with: &'static str,
}

/// What holds when a key is not there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Absent {
    /// It has to be there.
    Mistake,
    /// This value, written as in the file.
    Value(&'static str),
    /// Something that no value says, in words.
    Meaning(&'static str),
}

impl Key {
    /// A key that has to be there.
    pub(super) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, doc, absent: Absent::Mistake, with: "" }
    }

    /// A key with a default, written as in the file.
    pub(super) const fn default(name: &'static str, kind: Kind, value: &'static str, doc: &'static str) -> Self {
        Self { name, kind, doc, absent: Absent::Value(value), with: "" }
    }

    /// A key that may be left out, which then means what the words say.
    pub(super) const fn optional(name: &'static str, kind: Kind, without: &'static str, doc: &'static str) -> Self {
        Self { name, kind, doc, absent: Absent::Meaning(without), with: "" }
    }

    /// Only beside this key of the same table.
    pub(super) const fn with(mut self, key: &'static str) -> Self {
        self.with = key;
        self
    }
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// Text of a form.
    Text(&'static Format),
    /// `true` or `false`.
    Bool,
    /// `true` and nothing else: the key is a mark.
    Mark,
    /// A whole number within a range.
    Integer(i64, i64),
    /// A number within a range.
    Number(f64, f64),
    /// Percent with at most two decimals.
    Percent,
    /// A duration such as `"30s"` within a range.
    Duration(Duration, Duration),
    /// A date, or a time with its offset, of RFC 3339: as text, or as TOML writes it.
    Date,
    /// A size such as `"64KiB"`, or bytes, within a range.
    Size(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list with at least so many elements.
    List(&'static Kind, usize),
    /// A table whose keys are names of a form.
    Map(&'static Format, &'static Kind),
    /// A table with keys of its own.
    Table(&'static Table),
    /// Either of two.
    Either(&'static Kind, &'static Kind),
}

/// A form of text.
pub(super) struct Format {
    /// What is allowed, in words that end the sentence "allowed is …".
    pub allowed: &'static str,
    /// Says what is wrong, in words that follow the text.
    pub check: fn(&str) -> Result<(), String>,
    /// Whether the text must never be shown.
    pub secret: bool,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.allowed)
    }
}

/// Milliseconds, for the table.
pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Seconds, for the table.
pub(super) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Hours, for the table.
pub(super) const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}
