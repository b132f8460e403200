//! What reading one file needs and gathers: mistakes, warnings, and the files that it names.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use super::mistake::Mistake;
use super::tree::Node;

/// Gathers while the tree is being read. Interior mutability keeps the readers free to borrow the tree.
pub(super) struct Context<'a> {
    folder: PathBuf,
    read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<String>>,
    files: RefCell<Vec<Named>>,
}

/// A file that must be there before the proxy starts.
#[derive(Debug)]
pub(super) struct Named {
    /// Where it is.
    pub path: PathBuf,
    /// Line that names it.
    pub line: usize,
    /// Key that names it.
    pub key: String,
}

impl<'a> Context<'a> {
    /// Relative paths are joined to the folder of `file`.
    pub(super) fn new(file: &Path, mistakes: Vec<Mistake>, read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Self {
        Self {
            folder: file.parent().map(Path::to_path_buf).unwrap_or_default(),
            read,
            mistakes: RefCell::new(mistakes),
            warnings: RefCell::default(),
            files: RefCell::default(),
        }
    }

    /// Notes a mistake, unless there is one about this key already: the first is nearest to the cause.
    pub(super) fn mistake(&self, line: usize, key: &str, message: impl Into<String>) {
        let mut mistakes = self.mistakes.borrow_mut();
        if !mistakes.iter().any(|m| m.line == line && m.key == key) {
            mistakes.push(Mistake { line, key: key.to_owned(), message: message.into() });
        }
    }

    /// Notes a mistake about a value.
    pub(super) fn wrong(&self, node: &Node, message: impl Into<String>) {
        self.mistake(node.line, &node.path, message);
    }

    /// Notes something that is allowed but hardly meant.
    pub(super) fn warning(&self, key: &str, message: &str) {
        self.warnings.borrow_mut().push(format!("{key}: {message}"));
    }

    /// The place of a file.
    pub(super) fn place(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The place of a file that must be there before the proxy starts.
    pub(super) fn named(&self, node: &Node, file: &str) -> PathBuf {
        let path = self.place(file);
        self.files.borrow_mut().push(Named { path: path.clone(), line: node.line, key: node.path.clone() });
        path
    }

    /// What a file holds. A file that cannot be read is a mistake.
    pub(super) fn contents(&self, node: &Node, file: &str) -> Option<Vec<u8>> {
        let path = self.place(file);
        let read = (self.read)(&path);
        read.map_err(|e| self.wrong(node, unreadable(&path, &e))).ok()
    }

    /// Everything that was gathered: mistakes, warnings and files.
    pub(super) fn finish(self) -> (Vec<Mistake>, Vec<String>, Vec<Named>) {
        (self.mistakes.into_inner(), self.warnings.into_inner(), self.files.into_inner())
    }
}

/// The message about a file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("the file {} cannot be read: {error}", path.display())
}
