//! A store that fails before or after it wrote, and other processes that write meanwhile.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::{Control, Parts, Receipt, SubmitError, start};
use crate::config;
use crate::model::{
    Author, BasisPoints, Change, ChangeRequest, Commit, Document, DocumentKey, Event, EventKind, EventQuery, Scope,
    Weights,
};
use crate::store::{Loaded, MemoryStore, Store, StoreError};
use crate::telemetry::{Metrics, Tallies};

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:0"]
[services.api]
match = [{ path = "/api" }]
baseline = "1"
versions = { "1" = { endpoints = ["127.0.0.1:1"] }, "2" = { endpoints = ["127.0.0.1:2"] } }
[services.shop]
match = [{ path = "/" }]
baseline = "1"
versions = { "1" = { endpoints = ["127.0.0.1:3"] }, "2" = { endpoints = ["127.0.0.1:4"] } }
"#;

/// What becomes of a write.
#[derive(Clone, Copy, PartialEq)]
enum Write {
    Fails,
    HappensAndFails,
}

#[derive(Default)]
struct Flaky {
    store: Arc<MemoryStore>,
    writes: Mutex<VecDeque<Write>>,
    loads_that_fail: Mutex<usize>,
}

impl Flaky {
    async fn write(&self, put: impl Future<Output = Result<u64, StoreError>>) -> Result<u64, StoreError> {
        let fate = self.writes.lock().unwrap().pop_front();
        if fate != Some(Write::Fails) {
            let answer = put.await;
            if fate.is_none() {
                return answer;
            }
        }
        Err(StoreError::Write { source: "as told".into() })
    }
}

#[async_trait]
impl Store for Flaky {
    async fn load(&self) -> Result<Loaded, StoreError> {
        {
            let mut fail = self.loads_that_fail.lock().unwrap();
            if *fail > 0 {
                *fail -= 1;
                return Err(StoreError::Load { source: "as told".into() });
            }
        }
        self.store.load().await
    }
    async fn get(&self, key: &DocumentKey) -> Result<Option<Document>, StoreError> {
        self.store.get(key).await
    }
    async fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<(DocumentKey, u64)>, StoreError> {
        self.store.list(prefix, after, limit).await
    }
    async fn commit(&self, commit: Commit) -> Result<u64, StoreError> {
        self.write(self.store.commit(commit)).await
    }
    async fn append(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        self.write(self.store.append(events)).await
    }
    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, StoreError> {
        self.store.events(query).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
    fn watch(&self) -> watch::Receiver<u64> {
        self.store.watch()
    }
}

async fn room(store: Arc<dyn Store>) -> Control {
    let tallies = Arc::new(Tallies::new(10));
    let parts = Parts {
        settings: config::parse(FILE, Path::new("/etc/switchback.toml"), &|_| None).unwrap(),
        store,
        last_good: None,
        salvaged: None,
        returns: false,
        metrics: Arc::new(Metrics::new(tallies.clone(), 1)),
        tallies,
        fresh_secret: "s".repeat(32),
    };
    start(parts).await.unwrap().control
}

/// A room whose services are both half on the canary.
async fn begin() -> (Arc<Flaky>, Control) {
    let store = Arc::new(Flaky::default());
    let control = room(store.clone()).await;
    for service in ["api", "shop"] {
        ask(&control, service, half()).await.unwrap();
    }
    (store, control)
}

fn half() -> Change {
    let half = BasisPoints::new(5_000).unwrap();
    let weights = Weights::new([("1".parse().unwrap(), half), ("2".parse().unwrap(), half)]).unwrap();
    Change::SetSplit { scope: Scope::Service, weights }
}

fn back() -> Change {
    let (scope, canary) = (Scope::Service, Some("2".parse().unwrap()));
    Change::Rollback { scope, canary, cause: "errors".to_owned(), first_bad_ms: None }
}

/// The guard's changes are rollbacks, a person's are not; the guard's are fenced.
async fn ask(control: &Control, service: &str, change: Change) -> Result<Receipt, SubmitError> {
    let guard = matches!(change, Change::Rollback { .. });
    let attempt = control.view().state.service(service).map(|live| live.split.attempt);
    let request = ChangeRequest {
        service: service.parse().unwrap(),
        change,
        author: if guard { Author::Autopilot } else { Author::File },
        reason: format!("of {service}"),
        if_revision: None,
        if_attempt: attempt.filter(|_| guard),
        evidence: Value::Null,
    };
    control.submit(request, false).await
}

fn is_back(control: &Control, service: &str) -> bool {
    let view = control.view();
    let live = view.state.service(service).unwrap();
    live.weights_in_effect(&live.split).sole().is_some_and(|version| version.as_str() == "1")
}

async fn kinds(store: &Flaky, kind: EventKind) -> usize {
    let query = EventQuery { kind: Some(kind), limit: 100, ..EventQuery::default() };
    store.events(query).await.unwrap().len()
}

fn fate(store: &Flaky, fates: &[Write]) {
    store.writes.lock().unwrap().extend(fates);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_happened_in_spite_of_an_error_is_shown_soon() {
    let (store, control) = begin().await;
    fate(&store, &[Write::HappensAndFails]);
    let error = ask(&control, "api", Change::SetHold).await.unwrap_err();
    assert!(matches!(error, SubmitError::Store(StoreError::Write { .. })), "{error}");
    // The store tells of it, or it is looked for.
    sleep(Duration::from_secs(2)).await;
    assert!(control.view().state.service("api").unwrap().hold.is_some());
    assert_eq!(control.view().state.revision, store.load().await.unwrap().revision);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_wrote_is_shown_without_a_change_of_ones_own() {
    let (store, control) = begin().await;
    let other = room(store.store.clone()).await;
    ask(&other, "api", Change::SetHold).await.unwrap();
    sleep(Duration::from_secs(11)).await;
    assert!(control.view().state.service("api").unwrap().hold.is_some());
}

#[tokio::test(start_paused = true)]
async fn ones_own_commit_is_not_taken_for_somebody_elses() {
    let (store, control) = begin().await;
    fate(&store, &[Write::HappensAndFails]);
    assert!(ask(&control, "api", back()).await.unwrap().unconfirmed);
    assert!(ask(&control, "shop", back()).await.unwrap().unconfirmed);
    sleep(Duration::from_secs(3)).await;
    assert!(control.view().confirmed);
    assert!(is_back(&control, "api") && is_back(&control, "shop"));
    assert_eq!(kinds(&store, EventKind::Rollback).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_waits_goes_on_top_of_what_others_wrote() {
    let (store, control) = begin().await;
    let other = room(store.store.clone()).await;
    fate(&store, &[Write::Fails]);
    assert!(ask(&control, "api", back()).await.unwrap().unconfirmed);
    // As many changes as wait here: the revisions are the same, what they say is not.
    ask(&other, "shop", Change::SetHold).await.unwrap();
    *store.loads_that_fail.lock().unwrap() = 2;
    sleep(Duration::from_millis(2_500)).await;
    // As long as the other's change is not known, nothing is put on top of it.
    assert!(!control.view().confirmed && is_back(&control, "api"));
    let refused = ask(&control, "shop", half()).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Unconfirmed { waiting: 1 }), "{refused}");
    sleep(Duration::from_secs(2)).await;
    assert!(control.view().confirmed && is_back(&control, "api"));
    assert!(control.view().state.service("shop").unwrap().hold.is_some());
    assert_eq!(kinds(&store, EventKind::Rollback).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_waits_yields_to_whoever_set_the_split_again() {
    let (store, control) = begin().await;
    let other = room(store.store.clone()).await;
    fate(&store, &[Write::Fails]);
    assert!(ask(&control, "api", back()).await.unwrap().unconfirmed);
    ask(&other, "api", half()).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert!(control.view().confirmed && !is_back(&control, "api"));
    assert_eq!(kinds(&store, EventKind::Rollback).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_absent_store_is_tried_again_however_much_is_asked() {
    let (store, control) = begin().await;
    fate(&store, &[Write::Fails]);
    assert!(ask(&control, "api", back()).await.unwrap().unconfirmed);
    for _ in 0..10 {
        sleep(Duration::from_millis(300)).await;
        let _refused_at_first = ask(&control, "shop", Change::SetHold).await;
    }
    assert!(control.view().confirmed);
    assert!(control.view().state.service("shop").unwrap().hold.is_some());
}

#[tokio::test(start_paused = true)]
async fn events_have_the_numbers_that_the_store_gave_them() {
    let (store, control) = begin().await;
    let mut told = control.subscribe();
    let seen = store.events(EventQuery { limit: 1, ..EventQuery::default() }).await.unwrap().remove(0);
    fate(&store, &[Write::HappensAndFails]);
    control.note(seen);
    let receipt = ask(&control, "api", Change::SetHold).await.unwrap();
    let newest = EventQuery { limit: 1, newest_first: true, ..EventQuery::default() };
    let newest = store.events(newest).await.unwrap().remove(0);
    assert_eq!((newest.kind, receipt.event), (EventKind::HoldSet, Some(newest.id)));
    assert_eq!(told.recv().await.unwrap().id, newest.id);
    // Also when another process took a number of which nobody here can know.
    store.store.append(vec![newest.clone()]).await.unwrap();
    let receipt = ask(&control, "api", back()).await.unwrap();
    assert_eq!(receipt.event, Some(newest.id + 2));
}
