//! Where the state and its history are kept: one trait, an embedded store and etcd behind it, and a copy for when that one fails.
//!
//! The rest of the program sees [`Store`] only. A commit is documents, events and the new revision together or not at
//! all, it is made against the revision that the writer knew, and it is answered when it is durable. Everything the
//! proxy promises about changes (nothing acknowledged is lost, stale writes lose) rests on those three sentences, so
//! one suite of tests holds every implementation to them.

#[cfg(test)]
mod conformance;
mod embedded;
mod error;
mod etcd;
mod last_good;
mod membership;
#[cfg(test)]
mod membership_suite;
mod memory;
mod memory_fleet;
mod memory_seats;
mod schema;
mod tables;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

pub use embedded::{EmbeddedStore, Options};
pub use error::{BoxError, StoreError};
pub use etcd::{Access, EtcdStore, KEEP_EVENTS};
pub use last_good::{LastGood, Saved};
pub use membership::{Heard, Member, MemberId, Membership, Note, Role, Standing};
pub use memory::MemoryStore;
pub use memory_fleet::{MemberStore, MemoryFleet};

use crate::model::{Commit, Document, DocumentKey, Event, EventQuery};

/// Most events that one query returns.
pub const MAX_EVENTS: usize = 1000;

/// Most keys that one listing returns.
pub const MAX_LISTED: usize = 10_000;

/// Events that are kept unless the operator says otherwise: years of changes, about 1 GiB.
pub const DEFAULT_KEEP_EVENTS: u64 = 1_000_000;

/// Everything that a process needs to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Revision of the state; 0 in a store that was never written to.
    pub revision: u64,
    /// Id that the next event will get; the first one ever is 1.
    pub next_event: u64,
    /// Every document but those of the archive, ordered by the text of its key.
    pub documents: Vec<Document>,
}

/// What happened to the state since a revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Revision of the state.
    pub revision: u64,
    /// Id that the next event will get.
    pub next_event: u64,
    /// Documents that were written since, as they are now; none of the archive.
    pub puts: Vec<Document>,
    /// Documents that were written or removed since and are not there now.
    pub deletes: Vec<DocumentKey>,
}

/// A place that keeps the state.
///
/// A caller that stops waiting for an answer does not know whether the write happened; neither does one that got
/// [`StoreError::Write`]. Both find out by loading: the revision tells.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads everything at one revision. The archive is left out: it may be large, and no request depends on it.
    ///
    /// # Errors
    /// [`StoreError`] says what kept the store from being read.
    async fn load(&self) -> Result<Loaded, StoreError>;

    /// What changed since a revision, when the store can tell without reading everything; otherwise nothing, and the
    /// caller loads.
    ///
    /// # Errors
    /// [`StoreError`] says what kept the store from being read.
    async fn since(&self, _revision: u64) -> Result<Option<News>, StoreError> {
        Ok(None)
    }

    /// One document, of the archive or of the state; nothing if there is none.
    ///
    /// # Errors
    /// [`StoreError`] says what kept the store from being read.
    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError>;

    /// The documents whose keys begin with this text, such as `archive/snapshot/`, without their bodies: each key with
    /// the revision that wrote it, ordered by the text of the key, at most `limit` and never more than [`MAX_LISTED`].
    /// To resume, ask again with `after` the last key's text.
    ///
    /// # Errors
    /// [`StoreError`] says what kept the store from being read.
    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError>;

    /// Writes a change, all of it or nothing, and answers once it is durable.
    ///
    /// Deletes come before puts, so a key in both is written. The store numbers the events; the answer is the id of
    /// the first one, or the id that the next event will get when the commit has none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the store is at another revision than `commit.expected`;
    /// [`StoreError::NotLeading`] when the commit is for the leader of the fleet only and this process does not lead;
    /// [`StoreError::Invalid`] when the commit's revision is not larger than that; otherwise what kept it from writing.
    async fn commit(&self, commit: Commit) -> Result<u64, StoreError>;

    /// Appends events that change no document. Answers like [`Store::commit`].
    ///
    /// # Errors
    /// [`StoreError`] says what kept the store from writing.
    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError>;

    /// The events that the query wants, at most [`MAX_EVENTS`] of them. To resume, ask again after the last id.
    ///
    /// # Errors
    /// [`StoreError`] says what kept the store from being read.
    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError>;

    /// Whether a commit could be taken now, without writing anything.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The latest committed revision that this process knows of.
    ///
    /// Commits of other processes show up when the store tells of them, at the latest with the next call of
    /// [`Store::ping`], [`Store::load`] or a [`Store::commit`] that conflicts.
    fn watch(&self) -> watch::Receiver<u64>;

    /// The fleet of the processes that share the store; none when only one process may use it.
    fn membership(&self) -> Option<Arc<dyn Membership>> {
        None
    }

    /// Finishes what is being written and lets go of the store; everything later answers [`StoreError::Closed`].
    async fn close(&self) {}
}

/// How many keys a listing gets, whatever it asks for.
fn list_limit(limit: usize) -> usize {
    limit.clamp(1, MAX_LISTED)
}

/// How many events a query gets, whatever it asks for.
fn event_limit(query: &EventQuery) -> usize {
    query.limit.clamp(1, MAX_EVENTS)
}

/// The databases that we know have signed integers.
const LARGEST_NUMBER: u64 = i64::MAX as u64;

/// Refuses a commit that no store could keep.
fn check_commit(commit: &Commit) -> Result<(), StoreError> {
    if commit.revision <= commit.expected || commit.revision > LARGEST_NUMBER {
        let detail = format!("a commit against revision {} cannot have revision {}", commit.expected, commit.revision);
        return Err(StoreError::Invalid { detail });
    }
    check_events(&commit.events)
}

/// Refuses events that no store could keep.
fn check_events(events: &[Event]) -> Result<(), StoreError> {
    match events.iter().find(|e| e.revision.max(e.at_ms) > LARGEST_NUMBER) {
        Some(event) => {
            let detail = format!("an event has revision {} and time {}", event.revision, event.at_ms);
            Err(StoreError::Invalid { detail })
        }
        None => Ok(()),
    }
}

/// Tells watchers of a revision, unless they know of a later one.
fn publish(sender: &watch::Sender<u64>, revision: u64) {
    sender.send_if_modified(|known| {
        let newer = revision > *known;
        *known = revision.max(*known);
        newer
    });
}
