//! What only etcd does: several processes, outages, large commits in parts, compaction, authentication.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::conformance::{self, event, key, put};
use super::testing::{Etcd, knows};
use super::*;
use crate::model::{EventKind, ServiceName, TenantName};

fn make() -> (Arc<dyn Store>, Etcd) {
    let etcd = Etcd::start();
    (Arc::new(etcd.store()), etcd)
}

conformance::suite!(make);

/// A commit of that many documents of tenants, each with an event, that begins at this one.
fn many(expected: u64, revision: u64, tenants: std::ops::Range<usize>, text: &str) -> Commit {
    let tenant = |n: usize| TenantName::new(&format!("t{n:06}")).unwrap();
    let service = || ServiceName::new("a").unwrap();
    let puts = tenants.clone().map(|n| (DocumentKey::Tenant(service(), tenant(n)), format!("{text} {n}"))).collect();
    let events = tenants.map(|_| event(revision, EventKind::Rollback, Some("a"), None)).collect();
    Commit { expected, revision, puts, deletes: vec![], events }
}

fn tenant(n: usize) -> DocumentKey {
    DocumentKey::Tenant(ServiceName::new("a").unwrap(), TenantName::new(&format!("t{n:06}")).unwrap())
}

/// Commits as soon as etcd answers again.
async fn commit_when_back(store: &EtcdStore, commit: Commit) {
    let began = Instant::now();
    while let Err(error) = store.commit(commit.clone()).await {
        assert!(error.is_temporary() && began.elapsed() < Duration::from_secs(15), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("etcd takes changes again after {:?}", began.elapsed());
}

async fn keys_of(etcd: &Etcd, kind: &str) -> usize {
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    etcd.client().await.get(format!("/switchback/{kind}/"), Some(options)).await.unwrap().count() as usize
}

#[tokio::test]
async fn two_stores_see_each_other_and_cannot_both_win() {
    let etcd = Etcd::start();
    let (one, two) = (etcd.store(), etcd.store());
    one.commit(put(0, 1, "a")).await.unwrap();
    knows(&two, 1).await;
    assert!(matches!(two.commit(put(0, 1, "b")).await, Err(StoreError::Conflict { expected: 0, found: 1 })));
    let mut delays = Vec::new();
    for revision in 2..40 {
        let (writer, reader) = if revision % 2 == 0 { (&two, &one) } else { (&one, &two) };
        let began = Instant::now();
        writer.commit(put(revision - 1, revision, "b")).await.unwrap();
        let committed = Instant::now();
        knows(reader, revision).await;
        delays.push((committed - began, committed.elapsed()));
    }
    delays.sort_by_key(|(_, seen)| *seen);
    let slowest = delays[delays.len() - 1].1;
    println!("commit and then seen by the other: median {:?}, slowest {slowest:?}", delays[delays.len() / 2]);
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    assert_eq!(one.load().await.unwrap(), two.load().await.unwrap());
    assert_eq!(two.append(vec![event(1, EventKind::Brake, None, None)]).await.unwrap(), 40, "ids go on");
}

#[tokio::test]
async fn both_append_at_once_and_no_id_is_lost_or_twice() {
    let etcd = Etcd::start();
    let stores = [Arc::new(etcd.store()), Arc::new(etcd.store())];
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let store = stores[n % 2].clone();
            tokio::spawn(
                async move { store.append(vec![event(n as u64, EventKind::Brake, None, None)]).await.unwrap() },
            )
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=40).collect::<Vec<_>>());
    let query = EventQuery { limit: 100, ..EventQuery::default() };
    assert_eq!(stores[0].events(query).await.unwrap().len(), 40);
}

#[tokio::test]
async fn after_a_kill_everything_is_there_and_the_watch_goes_on() {
    let mut etcd = Etcd::start();
    let (one, two) = (etcd.store(), etcd.store());
    one.commit(put(0, 1, "a")).await.unwrap();
    knows(&two, 1).await;
    etcd.kill();
    let began = Instant::now();
    assert!(one.load().await.unwrap_err().is_temporary());
    let refused = one.commit(put(1, 2, "a")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Away { .. }), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    etcd.restart();
    commit_when_back(&one, put(1, 2, "a")).await;
    knows(&two, 2).await;
    assert_eq!(two.load().await.unwrap().revision, 2);
}

#[tokio::test]
async fn an_etcd_that_hangs_is_noticed_in_time_and_the_watch_resumes() {
    let etcd = Etcd::start();
    let (one, two) = (etcd.store(), etcd.store());
    one.commit(put(0, 1, "a")).await.unwrap();
    knows(&two, 1).await;
    etcd.stop();
    let began = Instant::now();
    let errors = [
        one.load().await.unwrap_err(),
        one.commit(put(1, 2, "a")).await.unwrap_err(),
        one.append(vec![event(1, EventKind::Brake, None, None)]).await.unwrap_err(),
        one.ping().await.unwrap_err(),
    ];
    assert!(errors.iter().all(StoreError::is_temporary), "{errors:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    etcd.go_on();
    commit_when_back(&one, put(1, 2, "a")).await;
    knows(&two, 2).await;
}

#[tokio::test]
async fn a_write_without_an_answer_is_found_out_and_cannot_happen_later() {
    let etcd = Etcd::start();
    let store = Arc::new(etcd.store());
    store.commit(put(0, 1, "a")).await.unwrap();
    // The next write is sent to an etcd that hangs: what it did before is read, so the transaction itself gets no answer.
    let inner = &store.inner;
    let seen = inner.see().await.unwrap();
    let manifest = layout::Manifest { revision: 2, ..seen.manifest.clone() };
    etcd.stop();
    let sent = inner.replace(&seen, manifest.clone(), Vec::new(), Vec::new(), true).await;
    assert!(matches!(sent, Err(Trouble::Away(_))), "{sent:?}");
    assert!(inner.pending.lock().is_some());
    etcd.go_on();
    // Either it happened before the load or it never does.
    let loading = async {
        loop {
            match store.load().await {
                Ok(loaded) => break loaded.revision,
                Err(error) => assert!(error.is_temporary(), "{error}"),
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(15), loading).await.unwrap();
    assert!(inner.pending.lock().is_none());
    assert!(found == 1 || found == 2);
    store.commit(put(found, 9, "b")).await.unwrap();
    assert_eq!(store.load().await.unwrap().revision, 9);
    // The same transaction once more, as if a queue had kept it: its condition cannot hold any more.
    assert!(!inner.replace(&seen, manifest, Vec::new(), Vec::new(), false).await.unwrap());
    assert_eq!(store.load().await.unwrap().revision, 9);
}

#[tokio::test]
async fn a_write_that_happened_without_an_answer_is_known_to_have_happened() {
    let etcd = Etcd::start();
    let store = etcd.store();
    store.commit(put(0, 1, "a")).await.unwrap();
    let inner = &store.inner;
    let seen = inner.see().await.unwrap();
    let manifest = layout::Manifest { revision: 2, ..seen.manifest.clone() };
    assert!(inner.replace(&seen, manifest.clone(), Vec::new(), Vec::new(), true).await.unwrap());
    let after = inner.see().await.unwrap();
    let writer = after.manifest.writer_of(after.manifest.writes).unwrap().to_owned();
    let pending = |writer: &str| Pending::new(writer, after.manifest.writes, seen.mod_revision);
    *inner.pending.lock() = Some(pending(&writer));
    assert_eq!(inner.settle().await.unwrap(), Some(write::Fate::Happened));
    *inner.pending.lock() = Some(pending("somebody"));
    assert_eq!(inner.settle().await.unwrap(), Some(write::Fate::Not));
    for revision in 3..40 {
        store.commit(put(revision - 1, revision, "a")).await.unwrap();
    }
    *inner.pending.lock() = Some(pending(&writer));
    assert_eq!(inner.settle().await.unwrap(), Some(write::Fate::Lost));
    assert_eq!(inner.settle().await.unwrap(), None);
}

#[tokio::test]
async fn compaction_under_the_watch_and_under_readers_loses_nothing() {
    let etcd = Etcd::start();
    let (one, two) = (etcd.store(), etcd.store());
    one.commit(put(0, 1, "a")).await.unwrap();
    knows(&two, 1).await;
    let old = two.inner.see().await.unwrap().at;
    for revision in 2..20 {
        one.commit(put(revision - 1, revision, "a")).await.unwrap();
    }
    let mut client = etcd.client().await;
    let now = one.inner.see().await.unwrap().at;
    client.compact(now, None).await.unwrap();
    // A watch that would go on at a revision that is gone.
    let late = etcd.store();
    let mut after = Some(old);
    let trouble = tokio::time::timeout(Duration::from_secs(10), late.inner.watch_on(&mut after)).await.unwrap();
    assert_eq!(trouble, Trouble::Compacted);
    let mut pages = read::Pages::new("/switchback/".to_owned(), "/switchback0".to_owned(), old);
    assert_eq!(pages.next(&one.inner.link).await.unwrap_err(), Trouble::Compacted);
    one.commit(put(19, 20, "a")).await.unwrap();
    knows(&two, 20).await;
    knows(&late, 20).await;
    assert_eq!(late.load().await.unwrap().revision, 20);
}

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
        let listed: Vec<_> = listed.into_iter().map(|(key, revision)| (key, revision)).collect();
        assert_eq!(listed, [(tenant(101), 3), (tenant(102), 2), (tenant(103), 2)], "{when}");
        assert_eq!(two.list("", "", 10_000).await.unwrap().len(), 399, "{when}");
        let archived = two.get(&DocumentKey::Archive("x".to_owned())).await.unwrap().unwrap();
        assert_eq!((archived.revision, archived.body.len()), (2, 100_000), "{when}");
    };
    check("hidden").await;
    // Two fold at once.
    let folding = tokio::join!(one.inner.fold(), two.inner.fold(), check("folding"));
    folding.0.unwrap();
    folding.1.unwrap();
    check("folded").await;
    assert!(one.inner.see().await.unwrap().manifest.overlays.is_empty());
    assert_eq!(keys_of(&etcd, "document").await, 399, "no marks are left");
    // The archive's text in one part, and nothing of the overlay.
    let events = 1;
    assert_eq!(keys_of(&etcd, "blob").await, 1 + 2 * events, "what is needed stays, the rest is gone");
    // A small commit removes the blob of what it replaces.
    let puts = vec![(DocumentKey::Archive("x".to_owned()), "short".to_owned())];
    two.commit(Commit { expected: 3, revision: 4, puts, ..Commit::default() }).await.unwrap();
    assert_eq!(keys_of(&etcd, "blob").await, 2 * events);
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
async fn users_need_their_password_and_a_restart_needs_no_new_login() {
    let mut etcd = Etcd::start();
    let mut client = etcd.client().await;
    for (user, password) in [("root", "r"), ("proxy", "secret"), ("other", "o")] {
        client.user_add(user, password, None).await.unwrap();
    }
    client.role_add("prefix").await.unwrap();
    let permission = etcd_client::Permission::read_write("/switchback/").with_prefix();
    client.role_grant_permission("prefix", permission).await.unwrap();
    client.user_grant_role("proxy", "prefix").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();

    let with = |user: Option<(&str, &str)>| {
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
        EtcdStore::open(Access { user, ..etcd.access() }, KEEP_EVENTS)
    };
    let store = with(Some(("proxy", "secret")));
    store.commit(put(0, 1, "a")).await.unwrap();
    store.commit(many(1, 2, 0..200, "x")).await.unwrap();
    assert_eq!(store.load().await.unwrap().documents.len(), 201);
    for wrong in [None, Some(("proxy", "guess")), Some(("other", "o"))] {
        let error = with(wrong).load().await.unwrap_err();
        assert!(matches!(&error, StoreError::Denied { .. }), "{wrong:?}: {error}");
        assert!(error.to_string().contains("check username and password"), "{error}");
    }
    etcd.kill();
    etcd.restart();
    commit_when_back(&store, put(2, 3, "a")).await;
    knows(&store, 3).await;
}

#[tokio::test]
async fn tls_is_checked_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, rcgen::Issuer::new(params, key))
    };
    let leaf = |issuer: &rcgen::Issuer<'_, rcgen::KeyPair>| {
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
    };
    let (ca, issuer) = authority("ours");
    let (other_ca, other_issuer) = authority("another");
    let (cert, key) = leaf(&issuer);
    let arguments = [
        format!("--cert-file={}", write("cert.pem", &cert)),
        format!("--key-file={}", write("key.pem", &key)),
        format!("--trusted-ca-file={}", write("ca.pem", &ca)),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Etcd::start_with(&arguments.each_ref().map(String::as_str));
    let open = |ca: &str, identity| EtcdStore::open(etcd.access_tls(ca.to_owned(), identity), KEEP_EVENTS);
    let store = open(&ca, Some(leaf(&issuer)));
    store.commit(put(0, 1, "a")).await.unwrap();
    assert_eq!(store.load().await.unwrap().revision, 1);
    for (why, store) in [
        ("an authority that we do not know", open(&other_ca, Some(leaf(&issuer)))),
        ("no certificate of ours", open(&ca, None)),
        ("a certificate that etcd does not know", open(&ca, Some(leaf(&other_issuer)))),
    ] {
        let error = store.load().await.unwrap_err();
        assert!(matches!(error, StoreError::Away { .. }), "{why}: {error}");
        println!("{why}: {error}");
    }
}

#[tokio::test]
async fn a_newer_layout_and_nonsense_are_left_alone() {
    let etcd = Etcd::start();
    let store = etcd.store();
    let mut client = etcd.client().await;
    client.put("/switchback/manifest", "{\"layout\": 2, \"more\": true}", None).await.unwrap();
    let error = store.commit(put(0, 1, "a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found_format: 2, supported: 1 }), "{error}");
    client.put("/switchback/manifest", "nonsense", None).await.unwrap();
    assert!(matches!(store.load().await.unwrap_err(), StoreError::Damaged { .. }));
    client.delete("/switchback/manifest", None).await.unwrap();
    client.put("/switchback/document/what/is/this", "{\"revision\":1}\n{}", None).await.unwrap();
    let error = store.load().await.unwrap_err();
    assert!(error.to_string().contains("what/is/this"), "{error}");
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
            for (n, step) in steps.iter().enumerate() {
                let revision = *memory.watch().borrow();
                let found = conformance::run(&store, revision, step).await;
                assert_eq!(found, conformance::run(&memory, revision, step).await, "{step:?}");
                assert_eq!(*store.watch().borrow(), *memory.watch().borrow());
                if n % fold_every == 0 {
                    store.inner.fold().await.unwrap();
                }
            }
            assert_eq!(store.load().await.unwrap(), memory.load().await.unwrap());
        });
    }
}
