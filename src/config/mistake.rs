//! Mistakes in a configuration: every one of them with file, line and key, because whoever repairs a file wants to do it
//! in one go.

use std::fmt;
use std::path::PathBuf;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Dotted key, such as `services.accounting.versions."2.0.0".endpoints[0]`; empty for mistakes of syntax.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.key, self.message) }
    }
}

/// All mistakes of one file, by line. Displayed as one `FILE:LINE: key: what is wrong, what is allowed` per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    file: PathBuf,
    list: Vec<Mistake>,
}

impl Mistakes {
    /// Sorts the list by line; mistakes on the same line stay in the order in which they were found.
    pub(super) fn new(file: PathBuf, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|m| m.line);
        Self { file, list }
    }

    /// The file, as it was given.
    pub fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// The mistakes by line; never empty.
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.list.iter().enumerate() {
            let gap = if i == 0 { "" } else { "\n" };
            let file = self.file.display();
            match mistake.line {
                0 => write!(f, "{gap}{file}: {mistake}")?,
                line => write!(f, "{gap}{file}:{line}: {mistake}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// A mistake in a version that came through the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMistake {
    /// Dotted field, such as `endpoints[0]`; empty when the whole body is meant.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}
