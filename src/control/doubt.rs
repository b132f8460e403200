//! Doubt: what this process shows and what the store has may differ after a write that failed, while the store is away, and
//! when another process wrote. Here the two are brought together again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::keys::signer;
use super::late::{SHORT, in_time, load};
use super::start::{now_ms, secrets_of};
use super::writer::Writer;
use super::{SubmitError, View};
use crate::model::{ChangeRequest, Commit, DocumentKey, Event, EventQuery, State};
use crate::routing::{Context, Routes};
use crate::store::{Loaded, StoreError};

/// How often an absent store is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A change of the guard that is in effect and waits for the store.
#[derive(Debug, Clone)]
pub(super) struct Unconfirmed {
    /// What was asked for, in case the store has moved on meanwhile.
    pub request: ChangeRequest,
    /// What came of it here.
    pub commit: Commit,
}

impl Writer {
    /// The store may have something else than what is shown here: it is looked at again soon.
    pub(super) fn doubt(&mut self) {
        self.numbered = false;
        self.retry_at.get_or_insert_with(|| Instant::now() + RETRY_EVERY);
    }

    /// A commit of a person's failed.
    pub(super) fn not_taken(&mut self, error: &StoreError) {
        let answered = matches!(error, StoreError::Conflict { .. } | StoreError::NotLeading);
        self.metrics.set_store_up(answered);
        if !answered {
            self.doubt();
        }
    }

    /// Looks at the store again. While a write is late its answer is what tells.
    pub(super) async fn retry(&mut self) {
        self.retry_at = None;
        match (self.late.is_some(), self.unconfirmed.is_empty()) {
            (true, _) => {}
            (false, true) => self.ask(),
            (false, false) => self.confirm().await,
        }
    }

    /// Commits what is in effect already, in its order.
    pub(super) async fn confirm(&mut self) {
        while self.late.is_none()
            && let Some(waiting) = self.unconfirmed.front()
        {
            let committed = match self.write(waiting.commit.clone(), SHORT, true).await {
                Ok(first) => {
                    self.confirmed(first);
                    Ok(())
                }
                Err(StoreError::Conflict { .. }) => self.reconcile().await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = committed {
                tracing::warn!(%error, "the store is still away");
                return self.doubt();
            }
        }
        if self.late.is_some() || !self.unconfirmed.is_empty() {
            return;
        }
        self.metrics.set_store_up(true);
        let view = self.view.load_full();
        if !view.confirmed {
            self.show(View { confirmed: true, ..(*view).clone() });
        }
    }

    /// The first of the changes that are in effect is in the store, with this number for its first event.
    pub(super) fn confirmed(&mut self, first: u64) {
        if let Some(Unconfirmed { commit, .. }) = self.unconfirmed.pop_front() {
            self.heard.add(first, commit.events.len() as u64);
        }
        self.numbered = false;
    }

    /// The store is elsewhere than the first unconfirmed change needs it: either it has taken that change although it said
    /// otherwise, or somebody else was there. Then their word counts, and the guard's is said again on top of it; what it
    /// had against an attempt that is over is refused like all old evidence.
    pub(super) async fn reconcile(&mut self) -> Result<(), SubmitError> {
        let loaded = load(&*self.store).await?;
        self.doubt();
        if self.unconfirmed.front().is_some_and(|waiting| is_in(&waiting.commit, &loaded)) {
            self.unconfirmed.pop_front();
            return Ok(());
        }
        tracing::warn!(found = loaded.revision, "the store has moved on; its state is taken over");
        let view = self.view.load_full();
        let (revision, next_event) = (loaded.revision, loaded.next_event);
        let taken = self.take_over(&view, loaded);
        self.refuse(&view, revision, taken)?;
        self.tell_of_others(next_event).await;
        Ok(())
    }

    /// Shows what the store has, and what the guard did on top of it. All that can fail comes first.
    pub(super) fn take_over(&mut self, view: &View, loaded: Loaded) -> Result<(), SubmitError> {
        let mut state = State::from_documents(loaded.revision, &loaded.documents)?;
        let mut next_event = loaded.next_event;
        let mut unconfirmed = VecDeque::new();
        for Unconfirmed { request, .. } in &self.unconfirmed {
            match state.apply(&view.settings.structure, request, next_event, now_ms()) {
                Ok(applied) => {
                    next_event += applied.commit.events.len() as u64;
                    state = applied.state;
                    unconfirmed.push_back(Unconfirmed { request: request.clone(), commit: applied.commit });
                }
                Err(refused) => {
                    tracing::warn!(service = %request.service, %refused, "a change of the guard came too late, or is overruled");
                }
            }
        }
        // The other process may have made new keys.
        let secrets = secrets_of(loaded.documents);
        let context = Context { signer: Arc::new(signer(&view.settings, &secrets)?), ..self.context.clone() };
        let routes = Routes::compile(&view.settings.structure, &state, &context, Some(&view.routes))?;
        (self.context, self.secrets, self.unconfirmed) = (context, secrets, unconfirmed);
        self.adopt(view, state, routes, next_event);
        Ok(())
    }

    /// Shows a state of the store, which fits. Nothing here can fail.
    pub(super) fn adopt(&mut self, view: &View, state: State, routes: Routes, next_event: u64) {
        (self.next_event, self.numbered) = (next_event, true);
        let routes = Arc::new(routes);
        self.published.store(routes.clone());
        self.forget_gone(&view.routes, &routes);
        for (name, live) in &state.services {
            self.metrics.set_split(name, &live.weights_in_effect(&live.split));
            routes
                .service(name.as_str())
                .iter()
                .for_each(|route| self.metrics.set_baseline(name, &route.baseline().name));
        }
        let confirmed = self.unconfirmed.is_empty();
        self.show(View { state, routes, confirmed, refused: None, ..view.clone() });
        self.copy_soon();
    }

    /// Finds out which number the next event will get, after a write that failed may have taken one.
    pub(super) async fn number(&mut self) {
        if self.numbered || self.late.is_some() || !self.unconfirmed.is_empty() {
            return;
        }
        let newest = EventQuery { limit: 1, newest_first: true, ..EventQuery::default() };
        match in_time(self.store.events(newest)).await {
            Ok(events) => {
                let next = events.first().map_or(0, |event| event.id + 1);
                (self.next_event, self.numbered) = (self.next_event.max(next), true);
            }
            Err(error) => tracing::warn!(%error, "the number of the next event is not known"),
        }
    }

    /// The numbers that the store gave to events, the first of which is the answer.
    pub(super) fn numbers(&mut self, first: u64, events: &mut [Event]) -> u64 {
        for (id, event) in (first..).zip(&mut *events) {
            event.id = id;
        }
        self.next_event = first + events.len() as u64;
        first
    }
}

/// Whether the store has taken a commit. Documents tell when they were written, so nobody else's look the same.
fn is_in(commit: &Commit, loaded: &Loaded) -> bool {
    let mut puts = commit.puts.iter().filter(|(key, _)| !key.is_archived()).peekable();
    let has = |key: &DocumentKey, body: &str| {
        loaded.documents.iter().any(|d| d.key == *key && d.revision == commit.revision && d.body == body)
    };
    puts.peek().is_some() && puts.all(|(key, body)| has(key, body))
}

#[cfg(test)]
#[path = "doubt_tests.rs"]
mod tests;
