//! Writing to a store that may take long, or hang. Nobody waits for it longer than a little: the guard's way back least of
//! all. A write that was waited for in vain may still be made; until that is known no other one begins, since each is made
//! against the revision before it.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::writer::Writer;
use crate::model::{Commit, Event};
use crate::store::{Loaded, Store, StoreError};

/// How long people's changes wait for the store: longer than another process may keep it locked, so that it tells whether a
/// change was made, and no longer, since rollbacks wait behind it.
const PATIENCE: Duration = Duration::from_secs(2);
/// What each document of a large change adds; ten times what it takes on a good disk.
const PATIENCE_EACH: Duration = Duration::from_micros(200);
/// How long a whole state may take to be read: a million tenants take a second or two on a good disk. It is read only when
/// the store has just answered something else, so this is no time in which it hangs.
const READING: Duration = Duration::from_secs(20);
/// How long a rollback waits before it is published: users suffer meanwhile.
pub(super) const SHORT: Duration = Duration::from_millis(300);

/// A write that is on its way.
pub(super) struct Late {
    answer: JoinHandle<Result<u64, StoreError>>,
    what: What,
    /// Whether a change has waited for it already.
    waited_for: bool,
}

/// What is written.
enum What {
    /// The first of the changes that are in effect already.
    InEffect,
    /// A change that was given up.
    GivenUp,
    /// An event that belongs to no change.
    Event(Box<Event>),
}

/// The answer to a write that is late; never when there is none.
pub(super) async fn answered(late: &mut Option<Late>) -> Result<u64, StoreError> {
    match late {
        Some(late) => (&mut late.answer).await.unwrap_or(Err(StoreError::Closed)),
        None => std::future::pending().await,
    }
}

/// The answer to the question whether the store takes changes; never when it was not asked.
pub(super) async fn heard(asked: &mut Option<JoinHandle<Result<(), StoreError>>>) -> Result<(), StoreError> {
    match asked {
        Some(asked) => asked.await.unwrap_or(Err(StoreError::Closed)),
        None => std::future::pending().await,
    }
}

/// How long this change waits for the store.
pub(super) fn patience_for(commit: &Commit) -> Duration {
    PATIENCE + PATIENCE_EACH * u32::try_from(commit.puts.len() + commit.deletes.len()).unwrap_or(u32::MAX)
}

/// What the store answers, if it does.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    within(PATIENCE, answer).await
}

/// The whole state, if the store gives it.
pub(super) async fn load(store: &dyn Store) -> Result<Loaded, StoreError> {
    within(READING, store.load()).await
}

async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let silent = || StoreError::Away { detail: format!("it has not answered for {patience:?}") };
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| Err(silent()))
}

/// Why nothing can be written while a write is late.
pub(super) fn unanswered() -> StoreError {
    StoreError::Away { detail: "an earlier change is not answered yet".to_owned() }
}

impl Writer {
    /// Writes a commit. When the store does not answer in time, [`StoreError::Away`] says so, and it may still be made.
    /// `in_effect`: whether it is the first of those that are in effect already, or will be then.
    pub(super) async fn write(
        &mut self,
        commit: Commit,
        patience: Duration,
        in_effect: bool,
    ) -> Result<u64, StoreError> {
        if self.late.is_some() {
            return Err(unanswered());
        }
        let store = self.store.clone();
        let mut answer = tokio::spawn(async move { store.commit(commit).await });
        if let Ok(answered) = tokio::time::timeout(patience, &mut answer).await {
            return answered.unwrap_or(Err(StoreError::Closed));
        }
        let what = if in_effect { What::InEffect } else { What::GivenUp };
        self.late = Some(Late { answer, what, waited_for: true });
        Err(StoreError::Away { detail: format!("it has not answered for {patience:?}, and may still make the change") })
    }

    /// Nobody has waited for an event to be written, so the first change after it does. One only: rollbacks wait behind.
    pub(super) async fn wait_for_late(&mut self) {
        let Some(late) = &mut self.late else { return };
        if std::mem::replace(&mut late.waited_for, true) {
            return;
        }
        if let Ok(answer) = tokio::time::timeout(PATIENCE, answered(&mut self.late)).await {
            self.settle(answer).await;
        }
    }

    /// Takes the answer to the write that was late.
    pub(super) async fn settle(&mut self, answer: Result<u64, StoreError>) {
        let Some(late) = self.late.take() else { return };
        match (answer, late.what) {
            (Ok(first), What::Event(event)) => self.tell(*event, first),
            (Ok(first), What::InEffect) => self.confirmed(first),
            // Whoever asked for it was told that it may still be made.
            (Ok(_), What::GivenUp) | (Err(StoreError::Conflict { .. }), _) => {
                if let Err(error) = self.reconcile().await {
                    tracing::warn!(%error, "the store's state cannot be taken over");
                    self.doubt();
                }
            }
            (Err(error), _) => {
                tracing::warn!(%error, "what the store had not answered in time was not written");
                self.doubt();
            }
        }
        self.confirm().await;
    }

    /// Writes an event that belongs to no change, and tells those who listen.
    pub(super) async fn note(&mut self, mut event: Event) {
        if self.view.load().read_only {
            return;
        }
        event.id = self.next_event;
        if self.late.is_some() {
            return tracing::warn!(kind = %event.kind, "the store is away: an event is missing in the history");
        }
        let (store, written) = (self.store.clone(), event.clone());
        let mut answer = tokio::spawn(async move { store.append(vec![written]).await });
        match tokio::time::timeout(SHORT, &mut answer).await {
            Ok(Ok(Ok(first))) => self.tell(event, first),
            Ok(Ok(Err(error))) => {
                // It may stand there all the same.
                self.numbered = false;
                tracing::warn!(%error, kind = %event.kind, "an event could not be written to the history");
            }
            Ok(Err(error)) => tracing::error!(%error, "an event could not be written to the history"),
            Err(_) => {
                let what = What::Event(Box::new(event));
                self.late = Some(Late { answer, what, waited_for: false });
            }
        }
    }

    fn tell(&mut self, mut event: Event, id: u64) {
        event.id = id;
        self.next_event = id + 1;
        self.tell_of_ours(vec![event]);
    }

    /// Asks whether the store takes changes. Nothing waits for the answer.
    pub(super) fn ask(&mut self) {
        if self.view.load().read_only || self.asked.is_some() {
            return;
        }
        match self.late {
            Some(_) => self.metrics.set_store_up(false),
            None => {
                let store = self.store.clone();
                self.asked = Some(tokio::spawn(async move { in_time(store.ping()).await }));
            }
        }
    }

    /// Takes the answer to that, and what another process committed meanwhile.
    pub(super) async fn hear(&mut self, answer: Result<(), StoreError>) {
        self.asked = None;
        self.metrics.set_store_up(answer.is_ok());
        match answer {
            Ok(()) if self.adrift => self.land().await,
            Ok(()) => self.catch_up_if_behind().await,
            Err(error) => {
                tracing::warn!(%error, "the store does not take changes");
                self.doubt();
            }
        }
    }
}

#[cfg(test)]
#[path = "late_tests.rs"]
mod tests;
