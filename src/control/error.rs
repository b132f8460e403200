//! Why a change or a start failed.

use super::seal::SealError;
use crate::model::{ChangeError, DocumentError};
use crate::routing::CompileError;
use crate::store::StoreError;

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The change is refused.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// The state after the change would not compile.
    #[error("the change does not fit: {0}")]
    DoesNotFit(#[from] CompileError),
    /// The store has a document that this release does not understand.
    #[error("the store's state cannot be read here: {0}")]
    NotUnderstood(#[from] DocumentError),
    /// The store did not take it.
    #[error(
        "the store did not confirm the change, so it is not in effect here; read the state again before you repeat it"
    )]
    Store(#[from] StoreError),
    /// The keys that sign cookies cannot be read with these settings.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The process runs on the last good copy of its state.
    #[error(
        "the store could not be opened, so the last good copy is served and changes are refused until the store is mended and the process restarted"
    )]
    ReadOnly,
    /// The store is away and the guard's own changes wait for it.
    #[error(
        "the store is away; {waiting} changes of the guard wait to be confirmed, and until then no other change is taken"
    )]
    Unconfirmed {
        /// How many wait.
        waiting: usize,
    },
    /// Another process has taken over and is the writer now.
    #[error("another process has taken over; ask again, and it will answer")]
    HandedOver,
    /// The process is shutting down.
    #[error("the process is shutting down")]
    Closed,
}

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read and there is no good copy.
    #[error("the state cannot be read")]
    Store(#[from] StoreError),
    /// A stored document is not understood.
    #[error("the state cannot be read")]
    Document(#[from] DocumentError),
    /// State and configuration do not fit together.
    #[error("configuration and state do not fit together")]
    Compile(#[from] CompileError),
    /// A service of the file cannot begin.
    #[error("a service of the configuration cannot begin")]
    Begin(#[from] ChangeError),
    /// The keys that sign cookies cannot be read with these settings.
    #[error(transparent)]
    Sealed(#[from] SealError),
}
