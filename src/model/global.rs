//! What concerns the whole proxy rather than one service: the freeze, and changes that write more than one service.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::DocumentKey;
use super::event::Author;
use super::names::{ServiceName, SnapshotName};
use super::snapshot::{Snapshot, SnapshotSummary};
use super::unknown::Unknown;

/// A person's word that no automation may advance any rollout of any service. Shifting back goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Format of the document.
    pub format: u32,
    /// Revision that last changed this document; its ETag.
    #[serde(skip)]
    pub revision: u64,
    /// Who said so.
    pub author: Author,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it ends by itself, in milliseconds since the Unix epoch; without it, when somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Freeze {
    /// The longest time that a freeze may be set for, in milliseconds: 366 days.
    pub const MAX_MS: u64 = 366 * 24 * 3_600_000;

    /// Whether it still stands at this time, in milliseconds since the Unix epoch.
    pub fn stands(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until)
    }
}

/// What shall change in the whole proxy.
#[derive(Debug, Clone, PartialEq)]
pub enum GlobalChange {
    /// Stops all automatic advancing, or changes until when.
    SetFreeze {
        /// When it ends by itself, in milliseconds since the Unix epoch.
        until_ms: Option<u64>,
    },
    /// Lets automation advance again.
    ClearFreeze,
    /// Keeps a snapshot that was made of a state.
    TakeSnapshot {
        /// Its name; no other has it.
        name: SnapshotName,
        /// What stands in the list of snapshots.
        summary: Box<SnapshotSummary>,
        /// What goes to the archive.
        documents: Arc<Vec<(DocumentKey, String)>>,
    },
    /// Makes splits, pins, holds and baselines what they were.
    RestoreSnapshot {
        /// The name it has.
        name: SnapshotName,
        /// The snapshot.
        snapshot: Arc<Snapshot>,
        /// Only these services; none: all that the snapshot has.
        services: Option<Vec<ServiceName>>,
        /// Whether versions that were rolled back since get their traffic again.
        force: bool,
    },
    /// Forgets a snapshot.
    DeleteSnapshot(SnapshotName),
}

/// A change of the whole proxy with everything that decides whether it may happen.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalRequest {
    /// What shall change.
    pub change: GlobalChange,
    /// Who asks.
    pub author: Author,
    /// Why, in sentences.
    pub reason: String,
    /// The revision the author saw of the document concerned; another one refuses the change.
    pub if_revision: Option<u64>,
}
