//! A store without a disk, for tests: the same answers as the embedded one, and failures when a test asks for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::error::StoreError;
use super::{DEFAULT_KEEP_EVENTS, Loaded, News, Store, check_commit, check_events, event_limit, list_limit, publish};
use crate::model::{Commit, Document, DocumentKey, Event, EventQuery};

/// How many removed documents are remembered.
const REMOVED: usize = 10_000;

/// A store that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    revision: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    revision: u64,
    next_event: u64,
    /// By the text of the key, which is the order in which every store loads.
    documents: BTreeMap<String, Document>,
    /// Keys of the state that were removed, and at which revision.
    removed: BTreeMap<String, (DocumentKey, u64)>,
    /// Nobody knows what was removed up to this revision.
    forgotten: u64,
    events: VecDeque<Event>,
    failures: usize,
    down: bool,
    closed: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let inner = Inner {
            revision: 0,
            next_event: 1,
            documents: BTreeMap::new(),
            removed: BTreeMap::new(),
            forgotten: 0,
            events: VecDeque::new(),
            failures: 0,
            down: false,
            closed: false,
        };
        Self { inner: Mutex::new(inner), revision: watch::Sender::new(0) }
    }

    /// Lets the next `count` requests of any kind fail with [`StoreError::Away`] and do nothing.
    pub fn fail_next(&self, count: usize) {
        self.lock().failures = count;
    }

    /// Takes the store away, or brings it back with everything it had.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half done by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(StoreError::Closed);
        }
        if inner.down {
            return Err(StoreError::Away { detail: "it was taken down".to_owned() });
        }
        if inner.failures > 0 {
            inner.failures -= 1;
            return Err(StoreError::Away { detail: "it was told to fail".to_owned() });
        }
        Ok(inner)
    }
}

impl Inner {
    fn remove(&mut self, key: &DocumentKey, revision: u64) {
        let text = key.to_string();
        if self.documents.remove(&text).is_none() || key.is_archived() {
            return;
        }
        if self.removed.len() >= REMOVED {
            self.removed.clear();
            self.forgotten = revision;
        }
        self.removed.insert(text, (key.clone(), revision));
    }

    fn append(&mut self, events: Vec<Event>) -> u64 {
        let first = self.next_event;
        for mut event in events {
            event.id = self.next_event;
            self.next_event += 1;
            self.events.push_back(event);
        }
        let keep = usize::try_from(DEFAULT_KEEP_EVENTS).unwrap_or(usize::MAX);
        let extra = self.events.len().saturating_sub(keep);
        self.events.drain(..extra);
        first
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        let inner = self.reach()?;
        let documents = inner.documents.values().filter(|d| !d.key.is_archived()).cloned().collect();
        Ok(Loaded { revision: inner.revision, next_event: inner.next_event, documents })
    }

    async fn since(&self, revision: u64) -> Result<Option<News>, StoreError> {
        let inner = self.reach()?;
        if !(inner.forgotten..=inner.revision).contains(&revision) {
            return Ok(None);
        }
        let written = inner.documents.values().filter(|d| d.revision > revision && !d.key.is_archived());
        let removed = inner.removed.values().filter(|(_, at)| *at > revision);
        Ok(Some(News {
            revision: inner.revision,
            next_event: inner.next_event,
            puts: written.cloned().collect(),
            deletes: removed.map(|(key, _)| key.clone()).collect(),
        }))
    }

    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        Ok(self.reach()?.documents.get(&key.to_string()).cloned())
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError> {
        let inner = self.reach()?;
        let found = inner.documents.iter().filter(|(text, _)| text.starts_with(prefix) && text.as_str() > after);
        Ok(found.map(|(_, d)| (d.key.clone(), d.revision)).take(list_limit(limit)).collect())
    }

    async fn commit(&self, commit: Commit) -> Result<u64, StoreError> {
        check_commit(&commit)?;
        let mut inner = self.reach()?;
        if inner.revision != commit.expected {
            return Err(StoreError::Conflict { expected: commit.expected, found: inner.revision });
        }
        for key in &commit.deletes {
            inner.remove(key, commit.revision);
        }
        for (key, body) in commit.puts {
            inner.removed.remove(&key.to_string());
            inner.documents.insert(key.to_string(), Document { key, revision: commit.revision, body });
        }
        inner.revision = commit.revision;
        let first = inner.append(commit.events);
        publish(&self.revision, commit.revision);
        Ok(first)
    }

    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        check_events(&events)?;
        Ok(self.reach()?.append(events))
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        let inner = self.reach()?;
        let wanted = inner.events.iter().filter(|event| query.wants(event));
        let limit = event_limit(&query);
        Ok(if query.newest_first {
            wanted.rev().take(limit).cloned().collect()
        } else {
            wanted.take(limit).cloned().collect()
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reach().map(drop)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    async fn close(&self) {
        self.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::conformance::{self, put};
    use super::*;

    fn make() -> (Arc<dyn Store>, ()) {
        (Arc::new(MemoryStore::new()), ())
    }

    conformance::suite!(make);

    #[tokio::test]
    async fn failures_do_nothing_and_pass() {
        let store = MemoryStore::new();
        store.fail_next(2);
        assert!(matches!(store.commit(put(0, 1, "a")).await, Err(StoreError::Away { .. })));
        assert!(matches!(store.ping().await, Err(StoreError::Away { .. })));
        assert_eq!(store.load().await.unwrap().revision, 0);
        store.commit(put(0, 1, "a")).await.unwrap();

        store.set_down(true);
        assert!(matches!(store.load().await, Err(StoreError::Away { .. })));
        assert!(matches!(store.append(vec![]).await, Err(StoreError::Away { .. })));
        store.set_down(false);
        assert_eq!(store.load().await.unwrap().documents.len(), 1);
    }
}
