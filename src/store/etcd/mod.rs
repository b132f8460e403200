//! The etcd store: one state for all proxies of a fleet.
//!
//! Under the prefix stand a `manifest` (our revision, the next event's id, what is still to be put into its place), each
//! document under `document/` and the text of its key, the history in pages under `event/`, and large texts in parts
//! under `blob/`. What the members of the fleet tell each other stands under `member/` (see `members`). `write` has the argument why a write of any size is all or nothing; `layout` has the bytes.

mod blob;
mod compact;
mod events;
mod fold;
mod follow;
mod layout;
mod lease;
mod link;
mod members;
mod notes;
mod read;
mod recent;
mod stream;

mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use self::layout::Keys;
use self::link::{Link, Trouble};
use self::members::{Fleet, Me};
use self::read::Hidden;
use self::write::{Draft, Pending};
use super::error::StoreError;
use super::membership::Membership;
use super::{Loaded, News, Store, check_commit, check_events, publish};
use crate::model::{Commit, Document, DocumentKey, Event, EventQuery};

/// Events that are kept in etcd unless somebody says otherwise: weeks of changes, about 30 MB of its 2 GiB.
pub const KEEP_EVENTS: u64 = 50_000;

/// How etcd is reached.
#[derive(Clone)]
pub struct Access {
    /// Addresses of its members, `http://` or `https://`, all of one kind.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// PEM text of the authorities that its certificates come from.
    pub ca: Option<String>,
    /// PEM texts of our own certificate and its key.
    pub identity: Option<(String, String)>,
    /// Whether old versions are removed from etcd, for all who use it.
    pub compact: bool,
}

/// The store in etcd.
///
/// Any number of processes may use the same prefix. Each learns of the others' commits by a watch.
pub struct EtcdStore {
    inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
    fleet: Arc<Fleet>,
    fleet_tasks: Vec<AbortHandle>,
}

struct Inner {
    link: Link,
    keys: Keys,
    keep_events: u64,
    revision: watch::Sender<u64>,
    closed: AtomicBool,
    /// Whether etcd refused the last write of any kind for want of space; reading goes on all the same.
    full: AtomicBool,
    /// One write at a time: two of one process could only conflict.
    writing: tokio::sync::Mutex<()>,
    /// The write that got no answer.
    pending: Mutex<Option<Pending>>,
    /// Documents of overlays by the name of their blob.
    overlays: Mutex<HashMap<String, Arc<Hidden>>>,
    folding: Notify,
    me: Arc<Me>,
}

impl EtcdStore {
    /// Begins to use the store; must be called within a tokio runtime. It connects by itself, now or when etcd is there.
    pub fn open(access: Access, keep_events: u64) -> Self {
        let inner = Arc::new(Inner {
            keys: Keys::new(&access.prefix),
            link: Link::new(access.clone()),
            keep_events,
            revision: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            full: AtomicBool::new(false),
            writing: tokio::sync::Mutex::new(()),
            pending: Mutex::new(None),
            overlays: Mutex::new(HashMap::new()),
            folding: Notify::new(),
            me: Arc::new(Me::new()),
        });
        let (following, chores) = (inner.clone(), inner.clone());
        let mut tasks = vec![
            tokio::spawn(async move { following.follow().await }).abort_handle(),
            tokio::spawn(async move { chores.chores().await }).abort_handle(),
        ];
        if access.compact {
            let compacting = inner.clone();
            tasks.push(tokio::spawn(async move { compacting.keep_compact(compact::EVERY).await }).abort_handle());
        }
        let (fleet, fleet_tasks) = Fleet::start(&inner, access);
        Self { inner, tasks, fleet, fleet_tasks }
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.tasks.iter().chain(&self.fleet_tasks).for_each(AbortHandle::abort);
        // Whoever still follows hears the end.
        self.inner.me.leaving.send_replace(true);
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn error(&self, trouble: Trouble) -> StoreError {
        if trouble == Trouble::Full {
            self.full.store(true, Ordering::Release);
        }
        self.link.error(trouble)
    }

    fn answer<T>(&self, result: Result<T, Trouble>) -> Result<T, StoreError> {
        self.check_open()?;
        result.map_err(|trouble| self.error(trouble))
    }

    /// Settles a write that got no answer, once whoever writes now has finished.
    async fn settled(&self) -> Result<(), Trouble> {
        if self.pending.lock().is_some() {
            let _turn = self.writing.lock().await;
            self.settle().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        let inner = &self.inner;
        inner.check_open()?;
        inner.answer(inner.settled().await)?;
        let loaded = inner.answer(inner.load().await)?;
        publish(&inner.revision, loaded.revision);
        Ok(loaded)
    }

    async fn since(&self, revision: u64) -> Result<Option<News>, StoreError> {
        let inner = &self.inner;
        inner.check_open()?;
        inner.answer(inner.settled().await)?;
        let news = inner.answer(inner.since(revision).await)?;
        if let Some(news) = &news {
            publish(&inner.revision, news.revision);
        }
        Ok(news)
    }

    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        self.inner.check_open()?;
        self.inner.answer(self.inner.get(key).await)
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError> {
        self.inner.check_open()?;
        self.inner.answer(self.inner.list(prefix, after, limit).await)
    }

    async fn commit(&self, commit: Commit) -> Result<u64, StoreError> {
        check_commit(&commit)?;
        self.inner.write(commit.into()).await
    }

    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        check_events(&events)?;
        self.inner.write(Draft { commit: None, documents: Default::default(), events, leads: false }).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        self.inner.check_open()?;
        self.inner.answer(self.inner.query(&query).await)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        inner.check_open()?;
        // A member that is cut off from the others cannot answer this, as it could not take a commit either.
        let seen = inner.answer(inner.see().await)?;
        publish(&inner.revision, seen.manifest.revision);
        match inner.full.load(Ordering::Acquire) {
            true => Err(inner.error(Trouble::Full)),
            false => Ok(()),
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.inner.revision.subscribe()
    }

    fn membership(&self) -> Option<Arc<dyn Membership>> {
        Some(self.fleet.clone())
    }

    async fn close(&self) {
        let _last_write = self.inner.writing.lock().await;
        self.inner.closed.store(true, Ordering::Release);
        // Not before that: the last write may be one that only the leader may make.
        self.fleet.leave().await;
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[cfg(test)]
mod cable;
#[cfg(test)]
mod server;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_cluster;
#[cfg(test)]
mod tests_fleet;
#[cfg(test)]
mod tests_large;
