//! Follows the history and puts every event on every desk. Who lags behind the live events reads the history instead, so
//! that nothing is missed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::desk::Desk;
use super::incidents::Incidents;
use super::severity::severity_of;
use super::story::{Story, worst_routes, worst_tenants};
use super::{Notifier, NotifyParts};
use crate::config::Settings;
use crate::model::{Event, EventQuery, Severity, VersionName};

/// Events that are read from the history at a time: as many as it gives.
const PAGE: usize = 1_000;
/// How often is looked whether the settings are others; a reload tells so itself, unless the store is away.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For how long what suffers most is taken as known: many tenants may roll back at the same moment.
const FRESH_MS: u64 = 1_000;

/// Who follows the history.
pub(super) struct Feed {
    parts: NotifyParts,
    notifier: Notifier,
    settings: Option<Arc<Settings>>,
    incidents: Incidents,
    clerks: JoinSet<()>,
    /// The last event that was taken in.
    last: u64,
    /// Events up to this one were read from the history and may come again.
    resumed: u64,
    known: Option<Sufferers>,
}

/// Who suffers most from a version.
#[derive(Clone)]
struct Sufferers {
    event: (Option<crate::model::ServiceName>, Option<VersionName>),
    at_ms: u64,
    routes: Vec<(String, u64)>,
    tenants: Vec<(String, u64, u64)>,
}

impl Feed {
    pub(super) fn new(parts: NotifyParts, notifier: Notifier) -> Self {
        let mut feed = Self {
            parts,
            notifier,
            settings: None,
            incidents: Incidents::default(),
            clerks: JoinSet::new(),
            last: 0,
            resumed: 0,
            known: None,
        };
        feed.follow_settings();
        feed
    }

    pub(super) async fn run(mut self) {
        self.remember().await;
        let mut events = self.parts.control.subscribe_to_ours();
        // What happened between the two.
        self.resume().await;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) if event.id <= self.resumed => {}
                    Ok(event) => self.take((*event).clone()).await,
                    Err(RecvError::Lagged(missed)) => {
                        let read = self.resume().await;
                        tracing::info!(missed, read, "notifications lagged behind and read the history");
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = look.tick() => self.follow_settings(),
                Some(_) = self.clerks.join_next() => {}
            }
        }
    }

    /// What went wrong before this process began and is not over yet: known so that it can be said when it is.
    pub(super) async fn remember(&mut self) {
        let query = EventQuery { limit: PAGE, newest_first: true, ..EventQuery::default() };
        match self.parts.control.events(query).await {
            Ok(newest) => {
                self.last = newest.first().map_or(0, |e| e.id);
                for event in newest.iter().rev() {
                    self.incidents.note(event);
                }
            }
            Err(error) => {
                // Nothing is after that; the first live event tells where the history is.
                self.last = u64::MAX;
                tracing::warn!(%error, "notifications begin without the history");
            }
        }
    }

    /// Takes in what the history has after the last event; answers how many events that were.
    pub(super) async fn resume(&mut self) -> u64 {
        let mut read = 0;
        loop {
            let query = EventQuery { after: self.last, limit: PAGE, ..EventQuery::default() };
            let page = match self.parts.control.events(query).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, after = self.last, "events could not be read and nobody is told of them");
                    return read;
                }
            };
            let whole = page.len() == PAGE;
            for event in page {
                self.resumed = event.id;
                self.take(event).await;
                read += 1;
            }
            if !whole {
                return read;
            }
        }
    }

    async fn take(&mut self, event: Event) {
        self.last = event.id;
        self.follow_settings();
        let over = self.incidents.note(&event);
        let desks = self.notifier.desks();
        if desks.is_empty() {
            return;
        }
        let service = event.service.as_ref();
        let view = self.parts.control.view();
        let baseline = service.and_then(|s| view.routes.service(s.as_str())).map(|r| r.baseline().name.clone());
        let (routes, tenants) = match &baseline {
            Some(baseline) if severity_of(event.kind) == Severity::Critical => self.sufferers(&event, baseline).await,
            _ => Default::default(),
        };
        let story = Arc::new(Story { event, baseline, routes, tenants, over });
        for desk in desks {
            desk.put(&story);
        }
    }

    async fn sufferers(
        &mut self,
        event: &Event,
        baseline: &VersionName,
    ) -> (Vec<(String, u64)>, Vec<(String, u64, u64)>) {
        let key = (event.service.clone(), event.version.clone());
        let now_ms = self.parts.clock.now_ms();
        if let Some(known) = self.known.as_ref().filter(|k| k.event == key && now_ms - k.at_ms < FRESH_MS) {
            return (known.routes.clone(), known.tenants.clone());
        }
        let (Some(service), Some(canary)) = key.clone() else { return Default::default() };
        let (windows, tallies) = (self.parts.windows.clone(), self.parts.tallies.clone());
        let baseline = baseline.clone();
        // Reads many tenants: milliseconds that others of this thread should not wait.
        let found = tokio::task::spawn_blocking(move || {
            let routes = worst_routes(&windows, &tallies, &service, (&baseline, &canary), now_ms);
            (routes, worst_tenants(&windows, &tallies, &service, &canary, now_ms))
        });
        let (routes, tenants) = found.await.unwrap_or_default();
        self.known = Some(Sufferers { event: key, at_ms: now_ms, routes: routes.clone(), tenants: tenants.clone() });
        (routes, tenants)
    }

    /// Opens desks for targets that are new or others than before, and closes those that are gone.
    fn follow_settings(&mut self) {
        let settings = self.parts.control.settings();
        if self.settings.as_ref().is_some_and(|known| Arc::ptr_eq(known, &settings)) {
            return;
        }
        let public_url = settings.admin.public_url.clone();
        let before = self.notifier.desks();
        let mut clerks: Vec<BoxFuture<'static, ()>> = Vec::new();
        let mut open = |target: &crate::config::NotifyTarget| {
            let same = before.iter().find(|desk| desk.target == *target && desk.public_url == public_url);
            same.cloned().unwrap_or_else(|| {
                let source = format!("/switchback/{}", self.parts.instance);
                let (desk, clerk) = Desk::open(target, public_url.clone(), source, self.parts.metrics.clone());
                clerks.push(clerk);
                desk
            })
        };
        let desks: Vec<_> = settings.notify.iter().map(&mut open).collect();
        for gone in before.iter().filter(|old| desks.iter().all(|new| new.target.name != old.target.name)) {
            self.parts.metrics.forget_notifications(&gone.target.name);
        }
        *self.notifier.lock() = desks;
        for clerk in clerks {
            self.clerks.spawn(clerk);
        }
        self.settings = Some(settings);
    }
}
