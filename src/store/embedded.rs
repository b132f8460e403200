//! The embedded store: one SQLite file, one thread that writes to it and one that reads.
//!
//! Two threads, because SQLite's calls block and because a long listing must never hold up a rollback: in WAL mode
//! readers and the writer do not wait for each other. The queues in front of them are bounded; a caller waits its turn.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::error::{BoxError, StoreError};
use super::schema::{self, Identity};
use super::tables::{self, Failure};
use super::{DEFAULT_KEEP_EVENTS, Loaded, Store, check_commit, check_events, publish};
use crate::model::{Commit, Document, DocumentKey, Event, EventQuery};

/// Requests that may wait for a thread. More than this means that the disk is far too slow, and callers should feel it.
const QUEUE: usize = 256;

/// How long a write waits for another process. Those of an upgrade take milliseconds; the writer of the control room waits
/// a little longer than this, so that it learns that nothing was changed.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1_500);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// How an embedded store behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many events stay in the history; at least one does. The oldest go first, a few with each write.
    pub keep_events: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep_events: DEFAULT_KEEP_EVENTS }
    }
}

/// A store in one file on a local disk.
///
/// Processes may overlap on the same file, as they do during an upgrade: each commit names the revision it was made
/// against, so of two only one wins.
#[derive(Debug)]
pub struct EmbeddedStore {
    writes: mpsc::Sender<Write>,
    reads: mpsc::Sender<Read>,
    revision: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
enum Write {
    Commit(Commit, Reply<u64>),
    Append(Vec<Event>, Reply<u64>),
    Ping(Reply<()>),
    Close(Reply<()>),
}

#[derive(Debug)]
enum Read {
    Load(Reply<Loaded>),
    Get(DocumentKey, Reply<Option<Document>>),
    List { prefix: String, after: String, limit: usize, reply: Reply<Vec<(DocumentKey, u64)>> },
    Events(EventQuery, Reply<Vec<Event>>),
    Close(Reply<()>),
}

impl EmbeddedStore {
    /// Opens the store, or makes it if there is no file. Blocks while the file is checked.
    ///
    /// # Errors
    /// [`StoreError::Create`] and [`StoreError::Open`] when the file system is in the way; [`StoreError::Damaged`],
    /// [`StoreError::Newer`] and [`StoreError::Foreign`] when the file is not what this release can use. It is left
    /// as it is in all these cases.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let open = |source: BoxError| StoreError::Open { path: path.to_owned(), source };
        // An absolute path cannot be one of the names that mean something else to SQLite, such as `:memory:`.
        let path = std::path::absolute(path).map_err(|e| open(e.into()))?;
        schema::prepare(&path)?;
        let writing = schema::open_writer(&path)?;
        writing.busy_timeout(BUSY_TIMEOUT).map_err(|e| open(e.into()))?;
        let reading = schema::open_reader(&path)?;
        let identity = Identity::of(&path).map_err(|e| open(e.into()))?;
        let found = tables::counters(&writing).map_err(|e| judge(&path, e, open))?;
        let revision = Arc::new(watch::Sender::new(found.revision));

        let side = |connection| Side { connection, path: path.clone(), identity, revision: revision.clone() };
        let (writes, write_queue) = mpsc::channel(QUEUE);
        let (reads, read_queue) = mpsc::channel(QUEUE);
        let (writer, reader) = (side(writing), side(reading));
        start("store-write", move || writer.write(write_queue, options.keep_events)).map_err(open)?;
        start("store-read", move || reader.read(read_queue)).map_err(open)?;
        Ok(Self { writes, reads, revision })
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        ask(&self.reads, Read::Load).await
    }

    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        ask(&self.reads, |reply| Read::Get(key.clone(), reply)).await
    }

    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        ask(&self.reads, |reply| Read::List { prefix, after, limit, reply }).await
    }

    async fn commit(&self, commit: Commit) -> Result<u64, StoreError> {
        check_commit(&commit)?;
        ask(&self.writes, |reply| Write::Commit(commit, reply)).await
    }

    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        check_events(&events)?;
        ask(&self.writes, |reply| Write::Append(events, reply)).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        ask(&self.reads, |reply| Read::Events(query, reply)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        ask(&self.writes, Write::Ping).await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    async fn close(&self) {
        // The reader goes first: the last connection to go puts the log into the file and removes it.
        // Being closed already is as good.
        let _ = ask(&self.reads, Read::Close).await;
        let _ = ask(&self.writes, Write::Close).await;
    }
}

/// One of the two connections, on its thread.
struct Side {
    connection: Connection,
    path: PathBuf,
    identity: Identity,
    revision: Arc<watch::Sender<u64>>,
}

impl Side {
    fn write(mut self, mut queue: mpsc::Receiver<Write>, keep_events: u64) {
        while let Some(request) = queue.blocking_recv() {
            // A caller that has gone away needs no answer, hence the results that nobody looks at.
            match request {
                Write::Commit(commit, reply) => drop(reply.send(self.commit(commit, keep_events))),
                Write::Append(events, reply) => {
                    drop(reply.send(self.attempt(write_error, |c| tables::append(c, events, keep_events))));
                }
                Write::Ping(reply) => {
                    let found = self.attempt(write_error, tables::ping);
                    drop(reply.send(found.map(|revision| publish(&self.revision, revision))));
                }
                Write::Close(reply) => return self.close(reply),
            }
        }
    }

    fn read(mut self, mut queue: mpsc::Receiver<Read>) {
        while let Some(request) = queue.blocking_recv() {
            match request {
                Read::Load(reply) => {
                    let loaded = self.attempt(load_error, tables::load);
                    if let Ok(loaded) = &loaded {
                        publish(&self.revision, loaded.revision);
                    }
                    drop(reply.send(loaded));
                }
                Read::Get(key, reply) => drop(reply.send(self.attempt(load_error, |c| tables::get(c, &key)))),
                Read::List { prefix, after, limit, reply } => {
                    drop(reply.send(self.attempt(load_error, |c| tables::list(c, &prefix, &after, limit))));
                }
                Read::Events(query, reply) => {
                    let attempted = |source| StoreError::Query { source };
                    drop(reply.send(self.attempt(attempted, |c| tables::events(c, &query))));
                }
                Read::Close(reply) => return self.close(reply),
            }
        }
    }

    fn commit(&mut self, commit: Commit, keep_events: u64) -> Result<u64, StoreError> {
        let revision = commit.revision;
        let result = self.attempt(write_error, |c| tables::commit(c, commit, keep_events));
        match &result {
            Ok(_) => publish(&self.revision, revision),
            // Another process was faster; whoever watches learns of its revision here.
            Err(StoreError::Conflict { found, .. }) => publish(&self.revision, *found),
            Err(_) => {}
        }
        result
    }

    fn attempt<T>(
        &mut self,
        attempted: impl FnOnce(BoxError) -> StoreError,
        request: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        // What goes into a file that was unlinked is gone with the process, so it must not be acknowledged.
        if Identity::of(&self.path).ok() != Some(self.identity) {
            return Err(StoreError::Replaced { path: self.path.clone() });
        }
        request(&mut self.connection).map_err(|failure| judge(&self.path, failure, attempted))
    }

    fn close(self, reply: Reply<()>) {
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(path = %self.path.display(), %error, "the store did not close cleanly; nothing is lost");
        }
        drop(reply.send(Ok(())));
    }
}

fn load_error(source: BoxError) -> StoreError {
    StoreError::Load { source }
}

fn write_error(source: BoxError) -> StoreError {
    StoreError::Write { source }
}

fn judge(path: &Path, failure: Failure, attempted: impl FnOnce(BoxError) -> StoreError) -> StoreError {
    match failure {
        Failure::Sqlite(error) => StoreError::from_sqlite(path, error, attempted),
        Failure::Damaged(detail) => StoreError::Damaged { path: path.to_owned(), detail },
        Failure::Answer(error) => error,
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), BoxError> {
    thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(())
}

async fn ask<R, T>(queue: &mpsc::Sender<R>, request: impl FnOnce(Reply<T>) -> R) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    queue.send(request(reply)).await.map_err(|_| StoreError::Closed)?;
    answer.await.map_err(|_| StoreError::Closed)?
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
