//! What every store must do, tested once for all of them: `suite!` makes a test of each function for one store.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Loaded, MAX_EVENTS, MAX_LISTED, MemoryStore, News, Store, StoreError};
use crate::model::{
    Author, Commit, Document, DocumentKey, Event, EventKind, EventQuery, GroupName, ServiceName, TenantName,
    VersionName,
};

/// Tests the stores that `$make` makes; it returns a store and whatever must live as long.
macro_rules! suite {
    ($make:path) => {
        conformance::suite!($make:
            a_new_store_is_empty what_was_committed_is_loaded stale_commits_lose_and_change_nothing
            nonsense_is_refused one_of_many_wins events_are_numbered_by_the_store every_filter_in_both_orders
            limits_are_clamped_and_listing_resumes watchers_see_every_commit a_closed_store_says_so
            the_archive_is_kept_aside keys_are_listed_by_what_they_begin_with
            texts_survive what_changed_since_is_all_that_changed);
    };
    ($make:path: $($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            let (store, _keep) = $make();
            conformance::$name(store).await;
        })*
    };
}
pub(super) use suite;

pub fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub fn key(name: &str) -> DocumentKey {
    DocumentKey::Service(service(name))
}

/// A commit that writes one document and one event.
pub fn put(expected: u64, revision: u64, name: &str) -> Commit {
    let puts = vec![(key(name), format!("{{\"revision\":{revision}}}"))];
    let events = vec![event(revision, EventKind::SplitSet, Some(name), None)];
    Commit { expected, revision, puts, deletes: vec![], events, leads: false }
}

pub fn event(revision: u64, kind: EventKind, service_name: Option<&str>, tenant: Option<&str>) -> Event {
    Event {
        id: 999_999,
        revision,
        at_ms: 1_700_000_000_000 + revision,
        kind,
        service: service_name.map(service),
        tenant: tenant.map(|t| TenantName::new(t).unwrap()),
        group: Some(GroupName::new("gold").unwrap()),
        rollout: None,
        version: Some(VersionName::new("2.0.0").unwrap()),
        author: Author::Person { name: "ci".to_owned() },
        reason: "because".to_owned(),
        cause: None,
        before: serde_json::json!({ "b": 1, "a": 2 }),
        after: serde_json::Value::Null,
        evidence: serde_json::Value::Null,
        first_bad_to_rollback_ms: Some(7),
    }
}

async fn ids(store: &Arc<dyn Store>, query: EventQuery) -> Vec<u64> {
    store.events(query).await.unwrap().iter().map(|e| e.id).collect()
}

fn all() -> EventQuery {
    EventQuery { limit: MAX_EVENTS, ..EventQuery::default() }
}

pub async fn a_new_store_is_empty(store: Arc<dyn Store>) {
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.next_event, loaded.documents.len()), (0, 1, 0));
    assert_eq!(ids(&store, all()).await, [0; 0]);
    assert_eq!(store.append(vec![]).await.unwrap(), 1);
    assert_eq!(*store.watch().borrow(), 0);
    store.ping().await.unwrap();
}

pub async fn what_was_committed_is_loaded(store: Arc<dyn Store>) {
    let tenant = DocumentKey::Tenant(service("a"), TenantName::new("eu/acme").unwrap());
    let secret = DocumentKey::Secret("cookie".to_owned());
    let puts = vec![(tenant.clone(), "t".to_owned()), (secret.clone(), "s".to_owned()), (key("a"), "1".to_owned())];
    store.commit(Commit { expected: 0, revision: 5, puts, ..Commit::default() }).await.unwrap();
    // Deletes come first, so the second document of the same key stays.
    let puts = vec![(key("a"), "2".to_owned()), (key("a"), "3".to_owned())];
    let deletes = vec![secret, key("a"), key("never-there")];
    store.commit(Commit { expected: 5, revision: 6, puts, deletes, ..Commit::default() }).await.unwrap();
    let loaded = store.load().await.unwrap();
    let found: Vec<_> = loaded.documents.iter().map(|d| (&d.key, d.revision, d.body.as_str())).collect();
    assert_eq!(found, [(&key("a"), 6, "3"), (&tenant, 5, "t")]);
    assert_eq!((loaded.revision, loaded.next_event), (6, 1));
}

pub async fn the_archive_is_kept_aside(store: Arc<dyn Store>) {
    let archived = DocumentKey::Archive("snapshot/monday".to_owned());
    assert_eq!(store.get(&archived).await.unwrap(), None);
    let puts = vec![(archived.clone(), "old".to_owned()), (key("a"), "1".to_owned())];
    store.commit(Commit { expected: 0, revision: 3, puts, ..Commit::default() }).await.unwrap();
    let puts = vec![(archived.clone(), "new".to_owned())];
    store.commit(Commit { expected: 3, revision: 4, puts, ..Commit::default() }).await.unwrap();

    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.documents.iter().map(|d| d.key.to_string()).collect::<Vec<_>>(), ["service/a"]);
    assert_eq!(loaded.revision, 4);
    let wanted =
        |key: &DocumentKey, revision, body: &str| Document { key: key.clone(), revision, body: body.to_owned() };
    assert_eq!(store.get(&archived).await.unwrap(), Some(wanted(&archived, 4, "new")));
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(wanted(&key("a"), 3, "1")), "the state's own too");

    let deletes = vec![archived.clone()];
    store.commit(Commit { expected: 4, revision: 5, deletes, ..Commit::default() }).await.unwrap();
    assert_eq!(store.get(&archived).await.unwrap(), None);
    store.close().await;
    assert!(matches!(store.get(&archived).await, Err(StoreError::Closed)));
}

pub async fn keys_are_listed_by_what_they_begin_with(store: Arc<dyn Store>) {
    let archive = |name: &str| DocumentKey::Archive(name.to_owned());
    let keys =
        [archive("a/2"), key("a"), archive("a/1"), archive("a%/1"), archive("b/1"), archive("a"), archive("a/1/x")];
    for (revision, key) in keys.into_iter().enumerate() {
        let (expected, revision) = (revision as u64, revision as u64 + 1);
        let puts = vec![(key, "x".to_owned())];
        store.commit(Commit { expected, revision, puts, ..Commit::default() }).await.unwrap();
    }
    let listed = async |prefix: &str, after: &str, limit| -> Vec<(String, u64)> {
        let found = store.list(prefix, after, limit).await.unwrap();
        found.into_iter().map(|(key, revision)| (key.to_string(), revision)).collect()
    };
    let [one, inner, two] =
        [("archive/a/1", 3), ("archive/a/1/x", 7), ("archive/a/2", 1)].map(|(k, r)| (k.to_owned(), r));
    let all = [one.clone(), inner.clone(), two.clone()];
    assert_eq!(listed("archive/a/", "", MAX_LISTED).await, all);
    assert_eq!(listed("archive/a/", "", usize::MAX).await, all);
    assert_eq!(listed("archive/a/", "", 2).await, all[..2]);
    assert_eq!(listed("archive/a/", "", 0).await, all[..1], "one at least");
    assert_eq!(listed("archive/a/", "archive/a/1", 9).await, all[1..]);
    assert_eq!(listed("archive/a/", "archive/a/2", 9).await, []);
    assert_eq!(listed("archive/a/3", "", 9).await, []);
    assert_eq!(listed(DocumentKey::ARCHIVE, "", 9).await.len(), 6);
    assert_eq!(listed("", "", 9).await.len(), 7);
}

pub async fn stale_commits_lose_and_change_nothing(store: Arc<dyn Store>) {
    store.commit(put(0, 1, "a")).await.unwrap();
    store.commit(put(1, 2, "b")).await.unwrap();
    let before = store.load().await.unwrap();
    for stale in [0, 1, 3] {
        let error = store.commit(put(stale, 9, "c")).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { expected, found: 2 } if expected == stale), "{error}");
        assert!(!error.is_temporary());
    }
    assert_eq!(store.load().await.unwrap(), before);
    assert_eq!(ids(&store, all()).await, [1, 2]);
}

pub async fn nonsense_is_refused(store: Arc<dyn Store>) {
    for (expected, revision) in [(0, 0), (1, 1), (2, 1), (0, u64::MAX)] {
        let error = store.commit(Commit { expected, revision, ..Commit::default() }).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
    let endless = Event { at_ms: u64::MAX, ..event(1, EventKind::Brake, None, None) };
    let mixed = vec![event(1, EventKind::Brake, None, None), endless];
    assert!(matches!(store.append(mixed.clone()).await, Err(StoreError::Invalid { .. })));
    let commit = Commit { events: mixed, ..put(0, 1, "a") };
    assert!(matches!(store.commit(commit).await, Err(StoreError::Invalid { .. })));
    assert_eq!(store.load().await.unwrap().next_event, 1);
}

pub async fn one_of_many_wins(store: Arc<dyn Store>) {
    for round in 0..20 {
        let racers = (0..8).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(put(round, round + 1, &format!("racer{n}"))).await })
        });
        let mut won = 0;
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                Ok(_) => won += 1,
                Err(StoreError::Conflict { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(won, 1, "round {round}");
    }
    assert_eq!(ids(&store, all()).await, (1..=20).collect::<Vec<_>>(), "losers leave no events");
}

pub async fn events_are_numbered_by_the_store(store: Arc<dyn Store>) {
    let three = || (0..3).map(|_| event(1, EventKind::Brake, Some("a"), None)).collect::<Vec<_>>();
    assert_eq!(store.append(three()).await.unwrap(), 1);
    assert_eq!(store.commit(Commit { events: three(), ..put(0, 1, "a") }).await.unwrap(), 4);
    assert_eq!(store.commit(Commit { events: vec![], ..put(1, 2, "a") }).await.unwrap(), 7);
    assert_eq!(store.append(vec![]).await.unwrap(), 7);
    assert_eq!(store.append(three()).await.unwrap(), 7);
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.next_event), (2, 10), "events alone do not move the revision");
    let found = store.events(all()).await.unwrap();
    let wanted: Vec<_> = three().into_iter().cycle().zip(1..=9).map(|(e, id)| Event { id, ..e }).collect();
    assert_eq!(found, wanted);
}

pub async fn every_filter_in_both_orders(store: Arc<dyn Store>) {
    let kinds = [EventKind::SplitSet, EventKind::Rollback, EventKind::PinSet];
    let mut events = Vec::new();
    for n in 0..120usize {
        let service = [None, Some("a"), Some("b")][n % 3];
        let tenant = [None, Some("acme"), Some("globex"), Some("eu/x")][n / 3 % 4];
        events.push(event(n as u64, kinds[n / 12 % 3], service, tenant));
    }
    store.append(events).await.unwrap();
    let stored = store.events(all()).await.unwrap();
    assert_eq!(stored.len(), 120);
    for bits in 0..128u32 {
        let on = |bit: u32| bits & (1 << bit) != 0;
        let query = EventQuery {
            after: if on(0) { 50 } else { 0 },
            before: on(6).then_some(101),
            service: on(1).then(|| service("a")),
            tenant: on(2).then(|| TenantName::new("acme").unwrap()),
            kind: on(3).then_some(EventKind::Rollback),
            limit: if on(4) { 2 } else { 500 },
            newest_first: on(5),
        };
        let mut wanted: Vec<_> = stored.iter().filter(|e| query.wants(e)).cloned().collect();
        assert!(!wanted.is_empty(), "{query:?}");
        if query.newest_first {
            wanted.reverse();
        }
        wanted.truncate(query.limit);
        assert_eq!(store.events(query.clone()).await.unwrap(), wanted, "{query:?}");
    }
    let nobody = EventQuery { service: Some(service("nobody")), ..all() };
    assert_eq!(ids(&store, nobody).await, [0; 0]);
    for after in [120, u64::MAX] {
        assert_eq!(ids(&store, EventQuery { after, ..all() }).await, [0; 0]);
    }
    let back = |before| EventQuery { before: Some(before), newest_first: true, limit: 2, ..EventQuery::default() };
    for (before, wanted) in [(0, vec![]), (1, vec![]), (2, vec![1]), (120, vec![119, 118]), (u64::MAX, vec![120, 119])]
    {
        assert_eq!(ids(&store, back(before)).await, wanted, "before {before}");
    }
}

pub async fn limits_are_clamped_and_listing_resumes(store: Arc<dyn Store>) {
    store.append((0..2_500).map(|n| event(n, EventKind::Brake, Some("a"), None)).collect()).await.unwrap();
    let none = EventQuery { limit: 0, ..EventQuery::default() };
    assert_eq!(ids(&store, none).await, [1]);
    let endless = EventQuery { limit: usize::MAX, newest_first: true, ..EventQuery::default() };
    assert_eq!(ids(&store, endless).await, (1_501..=2_500).rev().collect::<Vec<_>>());
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = ids(&store, EventQuery { after, limit: 999, ..EventQuery::default() }).await;
        let Some(&last) = page.last() else { break };
        after = last;
        seen.extend(page);
    }
    assert_eq!(seen, (1..=2_500).collect::<Vec<_>>());
}

pub async fn watchers_see_every_commit(store: Arc<dyn Store>) {
    let mut watch = store.watch();
    store.commit(put(0, 3, "a")).await.unwrap();
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), 3);
    store.append(vec![event(3, EventKind::Brake, None, None)]).await.unwrap();
    store.commit(put(0, 4, "a")).await.unwrap_err();
    store.ping().await.unwrap();
    assert!(!watch.has_changed().unwrap(), "nothing new was committed");
    let waiting = tokio::spawn(async move { watch.wait_for(|r| *r == 4).await.map(|r| *r) });
    store.commit(put(3, 4, "a")).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 4);
    assert_eq!(*store.watch().borrow(), 4, "a late watcher knows it at once");
}

pub async fn a_closed_store_says_so(store: Arc<dyn Store>) {
    store.commit(put(0, 1, "a")).await.unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(store.commit(put(1, 2, "a")).await, Err(StoreError::Closed)));
    assert!(matches!(store.load().await, Err(StoreError::Closed)));
    assert!(matches!(store.ping().await, Err(StoreError::Closed)));
    assert_eq!(*store.watch().borrow(), 1);
}

pub async fn texts_survive(store: Arc<dyn Store>) {
    let long = "ü".repeat(1 << 20);
    let bodies = ["", "{\"a\":\"'; DROP TABLE events; --\"}", "line\nline\0zero", &long];
    let puts = bodies.iter().enumerate().map(|(n, b)| (key(&format!("s{n}")), (*b).to_owned())).collect();
    store.commit(Commit { expected: 0, revision: 1, puts, ..Commit::default() }).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.documents.iter().map(|d| d.body.as_str()).collect::<Vec<_>>(), bodies);
}

/// Asks what changed since a reading, and applies the answer: it must come to what is loaded now.
pub async fn catch_up(store: &dyn Store, before: &Loaded) {
    let now = store.load().await.unwrap();
    let Some(news) = store.since(before.revision).await.unwrap() else { return };
    assert_eq!((news.revision, news.next_event), (now.revision, now.next_event));
    let text = |key: &DocumentKey| key.to_string();
    let mut documents: BTreeMap<_, _> = before.documents.iter().map(|d| (text(&d.key), d.clone())).collect();
    assert!(news.puts.iter().all(|put| put.revision > before.revision && !put.key.is_archived()));
    assert!(news.deletes.iter().all(|key| !news.puts.iter().any(|put| put.key == *key) && !key.is_archived()));
    for key in &news.deletes {
        documents.remove(&text(key));
    }
    documents.extend(news.puts.into_iter().map(|put| (text(&put.key), put)));
    assert_eq!(documents.into_values().collect::<Vec<_>>(), now.documents, "since {}", before.revision);
}

pub async fn what_changed_since_is_all_that_changed(store: Arc<dyn Store>) {
    let mut readings = vec![store.load().await.unwrap()];
    let archived = DocumentKey::Archive("x".to_owned());
    let long = "x".repeat(50_000);
    for (revision, puts, deletes) in [
        (3, vec![(key("a"), "1"), (key("b"), "1"), (archived.clone(), "1")], vec![]),
        (4, vec![(key("c"), "2")], vec![key("a"), key("never-there")]),
        (9, vec![(key("a"), "3"), (key("c"), &long)], vec![key("a"), archived]),
        (10, vec![], vec![key("a"), key("b")]),
    ] {
        let puts = puts.into_iter().map(|(key, body)| (key, body.to_owned())).collect();
        let expected = readings.last().unwrap().revision;
        store.commit(Commit { expected, revision, puts, deletes, ..Commit::default() }).await.unwrap();
        readings.push(store.load().await.unwrap());
        for reading in &readings {
            catch_up(&*store, reading).await;
        }
    }
    if let Some(nothing) = store.since(10).await.unwrap() {
        assert_eq!(nothing, News { revision: 10, next_event: 1, ..News::default() });
    }
    assert_eq!(store.since(11).await.unwrap(), None, "that was never");
}

/// One request of a random history.
#[derive(Debug, Clone)]
pub enum Step {
    Commit { behind: u64, ahead: u64, puts: Vec<u8>, deletes: Vec<u8>, events: u8 },
    Append(u8),
    List { after: u64, limit: usize, newest_first: bool },
}

pub fn step() -> impl Strategy<Value = Step> {
    let names = || proptest::collection::vec(0u8..6, 0..4);
    prop_oneof![
        4 => (prop_oneof![4 => Just(0), 1 => 0u64..3], 0u64..3, names(), names(), 0u8..4).prop_map(
            |(behind, ahead, puts, deletes, events)| Step::Commit { behind, ahead, puts, deletes, events }
        ),
        1 => (0u8..4).prop_map(Step::Append),
        1 => (0u64..20, 0usize..8, any::<bool>())
            .prop_map(|(after, limit, newest_first)| Step::List { after, limit, newest_first }),
    ]
}

pub async fn run(store: &dyn Store, revision: u64, step: &Step) -> String {
    let named = |n: &u8| key(&format!("s{n}"));
    let brakes = |count: u8| (0..count).map(|_| event(revision, EventKind::Brake, Some("a"), None)).collect::<Vec<_>>();
    match step.clone() {
        Step::Commit { behind, ahead, puts, deletes, events } => {
            let commit = Commit {
                expected: revision.saturating_sub(behind),
                revision: revision + ahead,
                puts: puts.iter().map(|n| (named(n), format!("{n} at {revision}"))).collect(),
                deletes: deletes.iter().map(named).collect(),
                events: brakes(events),
                leads: false,
            };
            format!("{:?}", store.commit(commit).await)
        }
        Step::Append(count) => format!("{:?}", store.append(brakes(count)).await),
        Step::List { after, limit, newest_first } => {
            let query = EventQuery { after, limit, newest_first, ..EventQuery::default() };
            format!("{:?}", store.events(query).await)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_stores_cannot_be_told_apart(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let options = super::Options::default();
            let embedded = super::EmbeddedStore::open(&directory.path().join("s.db"), options).unwrap();
            let memory = MemoryStore::new();
            let mut readings = vec![memory.load().await.unwrap()];
            for step in &steps {
                let revision = *memory.watch().borrow();
                assert_eq!(run(&embedded, revision, step).await, run(&memory, revision, step).await, "{step:?}");
                assert_eq!(*embedded.watch().borrow(), *memory.watch().borrow());
                readings.push(memory.load().await.unwrap());
                for reading in &readings {
                    catch_up(&memory, reading).await;
                }
            }
            assert_eq!(embedded.load().await.unwrap(), memory.load().await.unwrap());
        });
    }
}
