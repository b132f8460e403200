//! Commits that are larger than a request of etcd, what they leave behind, many documents, and a bounded history.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::conformance::{self, event, key, put};
use super::testing::{Etcd, commit_when_back, keys_of, many, tenant};
use super::*;
use crate::model::EventKind;

#[tokio::test]
async fn a_large_commit_is_there_at_once_or_not_at_all() {
    let etcd = Etcd::start();
    let (one, two) = (etcd.store(), etcd.store());
    assert_eq!(one.commit(many(0, 1, 0..5_000, "old")).await.unwrap(), 1);
    assert_eq!(two.load().await.unwrap().documents.len(), 5_000);
    one.inner.fold().await.unwrap();
    assert_eq!((keys_of(&etcd, "document").await, keys_of(&etcd, "staging").await), (5_000, 0));

    // The writer dies when everything is staged: nobody sees any of it.
    let before = two.load().await.unwrap();
    let ready = one.inner.prepare(&many(1, 2, 0..5_000, "lost").into()).await.unwrap();
    assert_eq!(keys_of(&etcd, "staging").await, 1);
    assert_eq!(two.load().await.unwrap(), before);
    let events = two.events(EventQuery { limit: 1, newest_first: true, ..EventQuery::default() }).await.unwrap();
    assert_eq!(events[0].id, 5_000);
    // Others go on, and sweep what was left.
    two.commit(put(1, 2, "b")).await.unwrap();
    let mut seen = HashMap::new();
    two.inner.sweep_dead(&mut seen, Duration::from_secs(600)).await.unwrap();
    assert_eq!(keys_of(&etcd, "staging").await, 1, "it may still be alive");
    two.inner.sweep_dead(&mut seen, Duration::ZERO).await.unwrap();
    assert_eq!(keys_of(&etcd, "staging").await, 0);
    let blobs = keys_of(&etcd, "blob").await;
    let mut stage = one.inner.open_stage().await.unwrap();
    one.inner.sweep(stage.name()).await.unwrap();
    assert!(one.inner.write_blob(&mut stage, b"late").await.is_err(), "a part that comes late stays nowhere");
    assert_eq!(keys_of(&etcd, "blob").await, blobs);
    // The writer was only slow: without its stage the write does not become true.
    let (manifest, conditions, operations) = {
        let seen = one.inner.see().await.unwrap();
        let draft = many(2, 3, 0..0, "lost").into();
        one.inner.transaction(&draft, &ready, &seen, &[]).await.unwrap()
    };
    let seen = one.inner.see().await.unwrap();
    assert!(!one.inner.replace(&seen, manifest, conditions, operations, true).await.unwrap());
    assert_eq!(two.load().await.unwrap().documents.len(), 5_001);
}

#[tokio::test]
async fn what_an_overlay_hides_reads_the_same_before_within_and_after_folding() {
    let etcd = Etcd::start();
    let (one, two) = (etcd.store(), etcd.store());
    // Without tasks that fold by themselves.
    one.tasks.iter().chain(&two.tasks).for_each(AbortHandle::abort);
    one.commit(many(0, 1, 0..300, "old")).await.unwrap();
    one.inner.fold().await.unwrap();
    let mut large = many(1, 2, 100..400, "new");
    large.deletes = vec![tenant(0), tenant(1)];
    large.puts.push((DocumentKey::Archive("x".to_owned()), "y".repeat(100_000)));
    one.commit(large).await.unwrap();
    // Small changes on top: one removed that the overlay has, one changed, one put that it removes, one beside it.
    let small = Commit {
        expected: 2,
        revision: 3,
        puts: vec![(tenant(101), "newest".to_owned()), (tenant(1), "again".to_owned()), (key("b"), "b".to_owned())],
        deletes: vec![tenant(100), tenant(2)],
        events: vec![],
        leads: false,
    };
    two.commit(small).await.unwrap();
    let check = async |when: &str| {
        let loaded = two.load().await.unwrap();
        let text = |key: DocumentKey| loaded.documents.iter().find(|d| d.key == key).map(|d| d.body.clone());
        let found = [0, 1, 2, 3, 100, 101, 102, 399].map(|n| text(tenant(n)));
        let wanted = [None, Some("again"), None, Some("old 3"), None, Some("newest"), Some("new 102"), Some("new 399")];
        assert_eq!(found.each_ref().map(Option::as_deref), wanted, "{when}");
        assert_eq!(loaded.documents.len(), 400 - 3 + 1, "{when}");
        assert_eq!(two.get(&tenant(100)).await.unwrap(), None, "{when}");
        assert_eq!(two.get(&tenant(102)).await.unwrap().unwrap().revision, 2, "{when}");
        let listed = two.list("tenant/a/t0001", "", 3).await.unwrap();
        assert_eq!(listed, [(tenant(101), 3), (tenant(102), 2), (tenant(103), 2)], "{when}");
        assert_eq!(two.list("", "", 10_000).await.unwrap().len(), 399, "{when}");
        let archived = two.get(&DocumentKey::Archive("x".to_owned())).await.unwrap().unwrap();
        assert_eq!((archived.revision, archived.body.len()), (2, 100_000), "{when}");
    };
    let news = two.since(2).await.unwrap().unwrap();
    let texts: Vec<_> = news.puts.iter().map(|d| d.body.as_str()).collect();
    assert_eq!((texts, news.deletes), (vec!["b", "again", "newest"], vec![tenant(2), tenant(100)]));
    assert_eq!(two.since(1).await.unwrap(), None, "a large commit names nothing");
    check("hidden").await;
    // Two fold at once.
    let folding = tokio::join!(one.inner.fold(), two.inner.fold(), check("folding"));
    folding.0.unwrap();
    folding.1.unwrap();
    check("folded").await;
    assert_eq!(two.since(2).await.unwrap().map(|news| news.puts.len()), Some(3));
    assert!(one.inner.see().await.unwrap().manifest.overlays.is_empty());
    assert_eq!(keys_of(&etcd, "document").await, 399, "no marks are left");
    // The archive's text, two pages of events that are large, and nothing of the overlays.
    assert_eq!(keys_of(&etcd, "blob").await, 1 + 2, "what is needed stays, the rest is gone");
    // A small commit removes the blob of what it replaces.
    let puts = vec![(DocumentKey::Archive("x".to_owned()), "short".to_owned())];
    two.commit(Commit { expected: 3, revision: 4, puts, ..Commit::default() }).await.unwrap();
    assert_eq!(keys_of(&etcd, "blob").await, 2);
}

#[tokio::test]
async fn the_history_is_bounded() {
    let etcd = Etcd::start();
    let store = EtcdStore::open(etcd.access(), 500);
    for n in 0..40 {
        let events = (0..50).map(|_| event(n, EventKind::Brake, None, None)).collect();
        store.append(events).await.unwrap();
    }
    let query = |after| EventQuery { after, limit: 1_000, ..EventQuery::default() };
    let ids: Vec<_> = store.events(query(0)).await.unwrap().iter().map(|e| e.id).collect();
    assert_eq!(ids, (1_501..=2_000).collect::<Vec<_>>());
    assert!(keys_of(&etcd, "event").await <= 13, "old pages are gone");
}

#[tokio::test]
async fn ten_thousand_documents_are_read_in_pages() {
    load_many(10_000).await;
}

/// `cargo test --release store::etcd -- --ignored --nocapture` measures what a fleet of that size needs.
#[tokio::test]
#[ignore = "takes a minute and measures"]
async fn a_hundred_thousand_documents() {
    load_many(100_000).await;
}

async fn load_many(count: usize) {
    let etcd = Etcd::start();
    let store = etcd.store();
    store.tasks.iter().for_each(AbortHandle::abort);
    let text = "x".repeat(300);
    let began = Instant::now();
    store.commit(many(0, 1, 0..count, &text)).await.unwrap();
    let committed = began.elapsed();
    assert_eq!(etcd.store().load().await.unwrap().documents.len(), count);
    let hidden = began.elapsed() - committed;
    store.inner.fold().await.unwrap();
    let folded = began.elapsed() - hidden - committed;
    let began = Instant::now();
    let loaded = etcd.store().load().await.unwrap();
    println!("{count}: commit {committed:?}, load {hidden:?}, fold {folded:?}, load {:?}", began.elapsed());
    assert_eq!(loaded.documents.len(), count);
    assert!(loaded.documents.is_sorted_by_key(|d| d.key.to_string()));
    let began = Instant::now();
    store.commit(put(1, 2, "a")).await.unwrap();
    println!("a small commit after it: {:?}", began.elapsed());
}

#[tokio::test]
async fn etcd_dies_within_a_large_commit_and_all_or_nothing_is_there() {
    let mut etcd = Etcd::start();
    let (store, other) = (Arc::new(etcd.store()), etcd.store());
    store.commit(put(0, 1, "a")).await.unwrap();
    let writer = store.clone();
    let commit = many(1, 2, 0..20_000, &"x".repeat(300));
    let writing = tokio::spawn({
        let commit = commit.clone();
        async move { writer.commit(commit).await }
    });
    let mut parts = 0;
    while parts < 2 {
        parts = keys_of(&etcd, "blob").await;
    }
    etcd.kill();
    let answer = writing.await.unwrap();
    assert!(answer.as_ref().is_err_and(StoreError::is_temporary), "{answer:?}");
    etcd.restart();
    commit_when_back(&other, put(1, 3, "b")).await;
    let loaded = other.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.documents.len(), loaded.next_event), (3, 2, 3), "nothing of it");
    assert!(keys_of(&etcd, "blob").await >= parts, "though a part is there");
    // What is left is swept, and the same commit on top of what is there now is made.
    other.inner.sweep_dead(&mut HashMap::new(), Duration::ZERO).await.unwrap();
    assert_eq!((keys_of(&etcd, "blob").await, keys_of(&etcd, "staging").await), (0, 0));
    commit_when_back(&store, Commit { expected: 3, revision: 4, ..commit }).await;
    assert_eq!(other.load().await.unwrap().documents.len(), 20_002);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 12, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn it_cannot_be_told_from_the_store_in_memory(
        steps in proptest::collection::vec(conformance::step(), 1..30),
        // A store that was folded at any time is no other one.
        fold_every in 1usize..8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let etcd = Etcd::start();
            let (store, memory) = (etcd.store(), super::super::MemoryStore::new());
            // Something large to begin with, so that an overlay hides the places.
            let large = many(0, 1, 0..50, "large");
            assert_eq!(store.commit(large.clone()).await.unwrap(), memory.commit(large).await.unwrap());
            let mut readings = vec![memory.load().await.unwrap()];
            for (n, step) in steps.iter().enumerate() {
                let revision = *memory.watch().borrow();
                let found = conformance::run(&store, revision, step).await;
                assert_eq!(found, conformance::run(&memory, revision, step).await, "{step:?}");
                assert_eq!(*store.watch().borrow(), *memory.watch().borrow());
                if n % fold_every == 0 {
                    store.inner.fold().await.unwrap();
                }
                readings.push(memory.load().await.unwrap());
                conformance::catch_up(&store, &readings[n * 7 % readings.len()]).await;
                conformance::catch_up(&store, &readings[n]).await;
            }
            assert_eq!(store.load().await.unwrap(), memory.load().await.unwrap());
        });
    }
}
