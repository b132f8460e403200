//! A store that holds every commit until it is let go, in virtual time.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::config;
use crate::control::{Control, Parts, SubmitError, start};
use crate::model::{
    Author, BasisPoints, Change, ChangeRequest, Document, DocumentKey, EventKind, EventQuery, Scope, ServiceName,
    Weights,
};
use crate::store::MemoryStore;
use crate::telemetry::{Metrics, Tallies};

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:0"]
[services.api]
match = [{ path = "/" }]
baseline = "1"
split = { 1 = 90, 2 = 10 }
[services.api.versions.1]
endpoints = ["127.0.0.1:7001"]
[services.api.versions.2]
endpoints = ["127.0.0.1:7002"]
"#;

struct Held {
    inner: MemoryStore,
    held: watch::Sender<bool>,
}

impl Held {
    async fn gate(&self) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
    }
}

#[async_trait]
impl Store for Held {
    async fn load(&self) -> Result<Loaded, StoreError> {
        self.inner.load().await
    }
    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }
    async fn commit(&self, commit: Commit) -> Result<u64, StoreError> {
        self.gate().await;
        self.inner.commit(commit).await
    }
    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        self.gate().await;
        self.inner.append(events).await
    }
    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        self.inner.events(query).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.gate().await;
        self.inner.ping().await
    }
    fn watch(&self) -> watch::Receiver<u64> {
        self.inner.watch()
    }
}

async fn begin() -> (Control, Arc<Held>) {
    let store = Arc::new(Held { inner: MemoryStore::new(), held: watch::Sender::new(false) });
    let tallies = Arc::new(Tallies::new(10));
    let parts = Parts {
        settings: config::parse(FILE, Path::new("/etc/switchback.toml"), &|_| None).unwrap(),
        store: store.clone(),
        last_good: None,
        salvaged: None,
        returns: false,
        tallies: tallies.clone(),
        metrics: Arc::new(Metrics::new(tallies, 5)),
        fresh_secret: "s".repeat(32),
    };
    (start(parts).await.unwrap().control, store)
}

fn request(change: Change, author: Author, if_attempt: Option<u64>) -> ChangeRequest {
    let service = ServiceName::new("api").unwrap();
    let reason = "because".to_owned();
    ChangeRequest { service, change, author, reason, if_revision: None, if_attempt, evidence: Value::Null }
}

fn rollback(if_attempt: Option<u64>) -> ChangeRequest {
    let change = Change::Rollback { scope: Scope::Service, canary: None, cause: "errors".into(), first_bad_ms: None };
    request(change, Author::Autopilot, if_attempt)
}

fn half() -> ChangeRequest {
    let half = BasisPoints::from_percent(50.0).unwrap();
    let weights = Weights::new(["1", "2"].map(|v| (v.parse().unwrap(), half))).unwrap();
    request(Change::SetSplit { scope: Scope::Service, weights }, Author::Person { name: "ann".into() }, None)
}

/// The share of the new version, in percent.
fn share(control: &Control) -> f64 {
    let view = control.view();
    let live = view.state.service("api").unwrap();
    f64::from(live.weights_in_effect(&live.split).share("2").points()) / 100.0
}

async fn kinds(store: &Held) -> Vec<EventKind> {
    let events = store.inner.events(EventQuery { limit: 100, ..EventQuery::default() }).await.unwrap();
    events.iter().map(|e| e.kind).filter(|k| *k != EventKind::ServiceAdded).collect()
}

async fn settled(control: &Control, store: &Held) {
    // Nothing waits for the store that long, once it answers.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let agree = async || {
        let loaded = store.inner.load().await.unwrap();
        let view = control.view();
        view.confirmed && loaded.revision == view.state.revision
    };
    let end = Instant::now() + Duration::from_secs(30);
    while !agree().await {
        assert!(Instant::now() < end, "the store and the state do not agree");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_back_is_soon_in_effect_and_is_confirmed_once() {
    let (control, store) = begin().await;
    store.held.send_replace(true);
    let begun = Instant::now();
    let receipt = control.submit(rollback(None), false).await.unwrap();
    assert!(receipt.unconfirmed && begun.elapsed() <= SHORT + Duration::from_millis(10), "{:?}", begun.elapsed());
    assert_eq!((share(&control), control.view().confirmed), (0.0, false));
    let refused = control.submit(half(), false).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Unconfirmed { waiting: 1 }), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(kinds(&store).await, []);
    store.held.send_replace(false);
    settled(&control, &store).await;
    assert_eq!((share(&control), kinds(&store).await), (0.0, vec![EventKind::Rollback]));
    control.submit(half(), false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_late_is_given_up_and_counts_when_it_was_made() {
    let (control, store) = begin().await;
    store.held.send_replace(true);
    let begun = Instant::now();
    let late = control.submit(half(), false).await.unwrap_err();
    assert!(format!("{:?}", std::error::Error::source(&late)).contains("may still make the change"), "{late:?}");
    assert!((PATIENCE..PATIENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let refused = control.submit(half(), false).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Store(StoreError::Away { .. })), "{refused:?}");
    assert_eq!((share(&control), begun.elapsed()), (10.0, Duration::ZERO), "nobody else waits");
    store.held.send_replace(false);
    settled(&control, &store).await;
    assert_eq!((share(&control), kinds(&store).await), (50.0, vec![EventKind::SplitSet]));
}

#[tokio::test(start_paused = true)]
async fn a_way_back_while_a_change_is_late_is_made_on_top_of_it() {
    let (control, store) = begin().await;
    store.held.send_replace(true);
    control.submit(half(), false).await.unwrap_err();
    let begun = Instant::now();
    assert!(control.submit(rollback(None), false).await.unwrap().unconfirmed);
    assert_eq!((share(&control), begun.elapsed()), (0.0, Duration::ZERO));
    store.held.send_replace(false);
    settled(&control, &store).await;
    assert_eq!((share(&control), kinds(&store).await), (0.0, vec![EventKind::SplitSet, EventKind::Rollback]));
}

#[tokio::test(start_paused = true)]
async fn evidence_of_the_attempt_before_does_not_undo_what_a_person_has_set() {
    let (control, store) = begin().await;
    let attempt = control.view().state.service("api").unwrap().split.attempt;
    store.held.send_replace(true);
    control.submit(half(), false).await.unwrap_err();
    assert!(control.submit(rollback(Some(attempt)), false).await.unwrap().unconfirmed);
    store.held.send_replace(false);
    settled(&control, &store).await;
    assert_eq!((share(&control), kinds(&store).await), (50.0, vec![EventKind::SplitSet]), "the guard judges it anew");
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_ever() {
    let (control, store) = begin().await;
    store.held.send_replace(true);
    assert!(control.submit(rollback(None), false).await.unwrap().unconfirmed);
    let begun = Instant::now();
    control.close().await;
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_first_change_after_a_late_event_waits_for_it() {
    let (control, store) = begin().await;
    store.held.send_replace(true);
    control.note(Event::of_proxy(EventKind::Started, 0, 0));
    let held = store.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        held.held.send_replace(false);
    });
    control.submit(half(), false).await.unwrap();
    assert_eq!((share(&control), kinds(&store).await), (50.0, vec![EventKind::Started, EventKind::SplitSet]));
}
