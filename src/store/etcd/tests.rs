//! What only etcd does: several processes, outages, writes without an answer, compaction, authentication, TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::conformance::{self, event, put};
use super::testing::{Etcd, commit_when_back, knows, many};
use super::*;
use crate::model::EventKind;

fn make() -> (Arc<dyn Store>, Etcd) {
    let etcd = Etcd::start();
    (Arc::new(etcd.store()), etcd)
}

conformance::suite!(make);

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
