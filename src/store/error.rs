//! What can go wrong with a store, in words that tell the operator what to do about it.
//!
//! The cause is kept as `source()` and left out of the message, because the chain is printed once where it is logged.

use std::path::{Path, PathBuf};

/// The cause of an error, whichever database or file system it came from.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A new store could not be made.
    #[error("cannot create the store {path}: check that its directory exists, is on a local disk and that this user may write to it", path = .path.display())]
    Create {
        /// File that was to be made.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
    /// An existing store could not be opened.
    #[error("cannot open the store {path}: check that it is on a local disk and that this user may read and write it and its directory", path = .path.display())]
    Open {
        /// File that was to be opened.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
    /// The file is a database, but not one of ours.
    #[error("{path} belongs to another program and was left as it is: set [store] path to a file of Switchback's own", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The store was written by a newer release.
    #[error(
        "the store has format {found_format} and this release reads formats up to {supported}; it was left as it is: start the newer release again, or restore a backup from before the upgrade"
    )]
    Newer {
        /// Format that was found.
        found_format: u64,
        /// Newest format that this release reads.
        supported: u32,
    },
    /// What is stored cannot be trusted.
    #[error("{path} is damaged and was left as it is ({detail}): move it away for inspection and restore a backup; without one, Switchback starts from its configuration file", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file that was opened is no longer the one under its path.
    #[error("{path} was removed or replaced while Switchback was using it, so nothing was changed: restart Switchback to go on with the file that is there now", path = .path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else committed first.
    #[error(
        "the change was made against revision {expected} but the store is at revision {found}: read the state again and repeat the change"
    )]
    Conflict {
        /// Revision that the commit was made against.
        expected: u64,
        /// Revision of the store.
        found: u64,
    },
    /// Only the leader of the fleet may do that.
    #[error("another process leads the fleet, and only the leader may do that: nothing was changed")]
    NotLeading,
    /// The request makes no sense, whatever the store contains.
    #[error(
        "the store refused a request that is wrong in itself ({detail}): this is a fault of Switchback, please report it"
    )]
    Invalid {
        /// What is wrong with it.
        detail: String,
    },
    /// No space is left.
    #[error("no space is left for the store {path} and nothing was changed: free space on its disk or raise the quota", path = .path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another process held the store for longer than we wait.
    #[error("another process keeps the store {path} locked and nothing was changed: find it with `fuser {path}`; a backup should use `sqlite3 … .backup`", path = .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The store cannot be reached.
    #[error("the store cannot be reached ({detail}): traffic goes on with the last state, changes have to wait")]
    Away {
        /// What is known about it.
        detail: String,
    },
    /// The store does not let us in.
    #[error("{store} refuses us ({detail}): check username and password in [store], the certificate, and that the user's role may read and write the prefix", store = .store.display())]
    Denied {
        /// The store.
        store: PathBuf,
        /// What it says.
        detail: String,
    },
    /// Reading the state failed.
    #[error("cannot read the state from the store: look at the disk and the system's log")]
    Load {
        /// The cause.
        source: BoxError,
    },
    /// Reading the history failed.
    #[error("cannot read the history from the store: look at the disk and the system's log")]
    Query {
        /// The cause.
        source: BoxError,
    },
    /// Writing failed; whether the change was kept shows when the state is read again.
    #[error("cannot write to the store: look at the disk and the system's log")]
    Write {
        /// The cause.
        source: BoxError,
    },
    /// The last-good copy could not be written; the copy from before is still there.
    #[error("cannot save the last-good copy {path}: check the space on its disk and that this user may write to its directory", path = .path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
    /// The store was closed, or its thread ended.
    #[error("the store is closed: Switchback is shutting down, or its log says why it stopped")]
    Closed,
}

impl StoreError {
    /// Whether the same request may succeed later without anybody reading the state again or repairing anything by
    /// hand in the store itself.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Full { .. }
            | Self::Busy { .. }
            | Self::NotLeading
            | Self::Away { .. }
            | Self::Load { .. }
            | Self::Query { .. }
            | Self::Write { .. }
            | Self::Save { .. } => true,
            Self::Create { .. }
            | Self::Open { .. }
            | Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Damaged { .. }
            | Self::Replaced { .. }
            | Self::Conflict { .. }
            | Self::Invalid { .. }
            | Self::Denied { .. }
            | Self::Closed => false,
        }
    }

    /// Sorts an error of SQLite: what it tells by itself gets its own variant, the rest becomes what was attempted.
    pub(super) fn from_sqlite(
        path: &Path,
        error: rusqlite::Error,
        attempted: impl FnOnce(BoxError) -> StoreError,
    ) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Damaged { path, detail: error.to_string() },
            Some(Code::DiskFull) => Self::Full { path },
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Busy { path },
            _ => attempted(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_errors_are_sorted_by_what_the_operator_can_do() {
        let sorted = |code: i32| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            StoreError::from_sqlite(Path::new("/data/x.db"), error, |source| StoreError::Write { source })
        };
        assert!(matches!(sorted(rusqlite::ffi::SQLITE_FULL), StoreError::Full { .. }));
        assert!(matches!(sorted(rusqlite::ffi::SQLITE_BUSY), StoreError::Busy { .. }));
        assert!(matches!(sorted(rusqlite::ffi::SQLITE_NOTADB), StoreError::Damaged { .. }));
        assert!(matches!(sorted(rusqlite::ffi::SQLITE_CORRUPT), StoreError::Damaged { .. }));
        let write = sorted(rusqlite::ffi::SQLITE_IOERR);
        assert!(matches!(write, StoreError::Write { .. }) && write.is_temporary());
        assert!(std::error::Error::source(&write).is_some());
    }

    #[test]
    fn messages_name_the_file_and_what_to_do() {
        let message = StoreError::Damaged { path: "/data/x.db".into(), detail: "row 3".to_owned() }.to_string();
        assert!(message.starts_with("/data/x.db is damaged"), "{message}");
        assert!(message.contains("restore a backup"), "{message}");
        let message = StoreError::Newer { found_format: 7, supported: 1 }.to_string();
        assert!(message.contains("format 7") && message.contains("up to 1"), "{message}");
    }
}
