//! Following: what another process committed is taken over here, and those who listen here hear of it.
//!
//! A state that does not fit this process, because its configuration lacks a version or its release a word, is refused
//! whole: the last one that fits goes on, and everybody can see that and why.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keys::signer;
use super::late::{in_time, load};
use super::start::secrets_of;
use super::writer::Writer;
use super::{SubmitError, View};
use crate::model::{DocumentKey, Event, EventQuery, Updated};
use crate::routing::{Context, Routes};
use crate::store::{MAX_EVENTS, News};

/// A state that does not fit this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Revision of the state that the store has.
    pub revision: u64,
    /// Why it does not fit.
    pub why: String,
}

/// Which events those who listen have heard of.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Every event below this number.
    below: u64,
    /// Events above it: the first and the one after the last of each run.
    runs: Vec<(u64, u64)>,
}

impl Heard {
    pub fn new(next_event: u64) -> Self {
        Self { below: next_event, runs: Vec::new() }
    }

    /// So many events from this number on.
    pub fn add(&mut self, first: u64, count: u64) {
        match first == self.below {
            true => self.below = first + count,
            false if first > self.below && count > 0 => self.runs.push((first, first + count)),
            false => {}
        }
    }

    /// Whether an event is new to them.
    fn lacks(&self, id: u64) -> bool {
        id >= self.below && !self.runs.iter().any(|(from, to)| (*from..*to).contains(&id))
    }

    /// Everything up to and with this one.
    fn up_to(&mut self, id: u64) {
        self.below = self.below.max(id + 1);
        let below = self.below;
        self.runs.retain(|(_, to)| *to > below);
    }
}

impl Writer {
    /// Takes over what another process committed.
    pub(super) async fn catch_up(&mut self, view: &View) -> Result<(), SubmitError> {
        // What is shown is what the store had at that revision, so what changed since is enough.
        let exact = self.unconfirmed.is_empty() && !self.adrift;
        if exact && let Some(news) = in_time(self.store.since(view.state.revision)).await? {
            let (revision, next_event) = (news.revision, news.next_event);
            let taken = self.take_over_news(view, news);
            self.refuse(view, revision, taken)?;
            self.tell_of_others(next_event).await;
            return Ok(());
        }
        let loaded = load(&*self.store).await?;
        let (revision, next_event) = (loaded.revision, loaded.next_event);
        let taken = self.take_over(view, loaded);
        self.refuse(view, revision, taken)?;
        self.tell_of_others(next_event).await;
        Ok(())
    }

    /// The same as [`Self::take_over`], at a cost by what changed. All that can fail comes first.
    fn take_over_news(&mut self, view: &View, news: News) -> Result<(), SubmitError> {
        let News { revision, next_event, puts, deletes } = news;
        let Updated { state, services, secrets } = view.state.updated(revision, &puts, &deletes)?;
        let structure = &view.settings.structure;
        let routes = if secrets {
            let gone = |key: &DocumentKey| deletes.contains(key) || puts.iter().any(|document| document.key == *key);
            let mut all: Vec<_> = self.secrets.iter().filter(|document| !gone(&document.key)).cloned().collect();
            all.extend(secrets_of(puts));
            let context = Context { signer: Arc::new(signer(&view.settings, &all)?), ..self.context.clone() };
            let routes = Routes::compile(structure, &state, &context, Some(&view.routes))?;
            (self.context, self.secrets) = (context, all);
            routes
        } else {
            let touched: Vec<_> = services.iter().collect();
            view.routes.with_services_of_others(&touched, &state, &self.context)?
        };
        self.adopt(view, state, routes, next_event);
        Ok(())
    }

    /// Keeps in view whether the store's state was refused.
    pub(super) fn refuse(&self, view: &View, revision: u64, taken: Result<(), SubmitError>) -> Result<(), SubmitError> {
        let Err(error) = taken else { return Ok(()) };
        let mut why = error.to_string();
        if let Some(source) = std::error::Error::source(&error).map(ToString::to_string)
            && !why.contains(&source)
        {
            why = format!("{why}: {source}");
        }
        tracing::error!(revision, why, "the store's state does not fit this process; the last one that fits goes on");
        if view.refused.as_ref().is_none_or(|before| before.revision != revision) {
            self.metrics.refused_state();
        }
        let refused = Some(Arc::new(Refused { revision, why }));
        self.show(View { refused, ..view.clone() });
        Err(error)
    }

    /// The same as [`Self::catch_up`], when the store is known to have more than is shown.
    pub(super) async fn catch_up_if_behind(&mut self) {
        let view = self.view.load_full();
        let known = *self.store.watch().borrow();
        let refused = view.refused.as_ref().is_some_and(|refused| refused.revision == known);
        if known > view.state.revision
            && !refused
            && self.unconfirmed.is_empty()
            && let Err(error) = self.catch_up(&view).await
        {
            tracing::warn!(%error, "what another process changed cannot be taken over");
            self.doubt();
        }
    }

    /// The store is there after this process began without it.
    pub(super) async fn land(&mut self) {
        let view = self.view.load_full();
        if !self.adrift || !self.unconfirmed.is_empty() {
            return;
        }
        if let Err(error) = self.catch_up(&view).await {
            tracing::warn!(%error, "the store is there, and its state cannot be taken over");
            return self.doubt();
        }
        self.adrift = false;
        let view = self.view.load_full();
        tracing::info!(revision = view.state.revision, "the store is there; its state is in effect");
        // Services that are new in the file could not begin without the store.
        let settings = &view.settings;
        if settings.structure.services.keys().any(|name| view.state.service(name.as_str()).is_none())
            && let Err(error) = self.reload((**settings).clone()).await
        {
            tracing::error!(%error, "services of the configuration file cannot begin");
        }
    }

    /// Tells those who listen what is in the history up to this number and was not made here.
    pub(super) async fn tell_of_others(&mut self, next_event: u64) {
        // Whoever began without the store does not know where the history was; all of it is no news.
        if self.adrift {
            return self.heard.up_to(next_event.saturating_sub(1));
        }
        while self.heard.below < next_event {
            let after = self.heard.below.saturating_sub(1);
            let query = EventQuery { after, limit: MAX_EVENTS, ..EventQuery::default() };
            let events = match in_time(self.store.events(query)).await {
                Ok(events) => events,
                Err(error) => return tracing::warn!(%error, "what others did is not told to those who listen here"),
            };
            let Some(last) = events.last().map(|event| event.id) else { return self.heard.up_to(next_event - 1) };
            for event in events {
                if self.heard.lacks(event.id) {
                    self.tell_of_other(event);
                }
            }
            self.heard.up_to(last);
        }
    }

    fn tell_of_other(&self, event: Event) {
        tracing::info!(kind = %event.kind, service = ?event.service, tenant = ?event.tenant, author = %event.author,
            revision = event.revision, reason = %event.reason, "another process changed");
        let _nobody_listens = self.events.send(Arc::new(event));
    }

    /// Tells those who listen of events that were made here; their first number is known.
    pub(super) fn tell_of_ours(&mut self, events: Vec<Event>) {
        if let Some(first) = events.first().filter(|_| self.unconfirmed.is_empty()) {
            self.heard.add(first.id, events.len() as u64);
        }
        for event in events.into_iter().map(Arc::new) {
            let _nobody_listens = (self.events.send(event.clone()), self.made.send(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_new_once() {
        let mut heard = Heard::new(5);
        assert!(heard.lacks(5) && !heard.lacks(4));
        heard.add(5, 2);
        heard.add(9, 3);
        assert_eq!((4..14).filter(|id| heard.lacks(*id)).collect::<Vec<_>>(), [7, 8, 12, 13]);
        heard.up_to(8);
        assert_eq!((4..14).filter(|id| heard.lacks(*id)).collect::<Vec<_>>(), [12, 13]);
        heard.up_to(20);
        assert!(heard.lacks(21) && heard.runs.is_empty());
    }
}
