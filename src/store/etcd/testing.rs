//! What the tests of the store share: stores on an etcd of their own, commits of any size, and conditions to wait for.

use std::time::{Duration, Instant};

use super::super::Store;
use super::super::conformance::event;
pub use super::server::Etcd;
use super::{Access, EtcdStore, KEEP_EVENTS};
use crate::model::{Commit, DocumentKey, EventKind, ServiceName, TenantName};

impl Etcd {
    /// How it is reached without TLS and authentication.
    pub fn access(&self) -> Access {
        let endpoints = vec![self.url("http")];
        Access { endpoints, prefix: "/switchback".to_owned(), user: None, ca: None, identity: None, compact: false }
    }

    /// How it is reached over TLS.
    pub fn access_tls(&self, ca: String, identity: Option<(String, String)>) -> Access {
        Access { endpoints: vec![self.url("https")], ca: Some(ca), identity, ..self.access() }
    }

    /// A store on it.
    pub fn store(&self) -> EtcdStore {
        EtcdStore::open(self.access(), KEEP_EVENTS)
    }

    /// A client for what stores do not do.
    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.url("http")], None).await.unwrap()
    }
}

/// Waits until a store knows of a revision.
pub async fn knows(store: &EtcdStore, revision: u64) {
    let mut watch = store.watch();
    let known = watch.wait_for(|known| *known >= revision);
    let in_time = tokio::time::timeout(Duration::from_secs(15), known).await;
    assert_eq!(*in_time.expect("the watch should tell").unwrap(), revision);
}

/// A commit of that many documents of tenants, each with an event, that begins at this one.
pub fn many(expected: u64, revision: u64, tenants: std::ops::Range<usize>, text: &str) -> Commit {
    let tenant = |n: usize| TenantName::new(&format!("t{n:06}")).unwrap();
    let service = || ServiceName::new("a").unwrap();
    let puts = tenants.clone().map(|n| (DocumentKey::Tenant(service(), tenant(n)), format!("{text} {n}"))).collect();
    let events = tenants.map(|_| event(revision, EventKind::Rollback, Some("a"), None)).collect();
    Commit { expected, revision, puts, deletes: vec![], events, leads: false }
}

/// A tenant's document.
pub fn tenant(n: usize) -> DocumentKey {
    DocumentKey::Tenant(ServiceName::new("a").unwrap(), TenantName::new(&format!("t{n:06}")).unwrap())
}

/// Commits as soon as etcd answers again.
pub async fn commit_when_back(store: &EtcdStore, commit: Commit) {
    let began = Instant::now();
    while let Err(error) = store.commit(commit.clone()).await {
        assert!(error.is_temporary() && began.elapsed() < Duration::from_secs(15), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("etcd takes changes again after {:?}", began.elapsed());
}

/// How many keys of a kind there are.
pub async fn keys_of(etcd: &Etcd, kind: &str) -> usize {
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    etcd.client().await.get(format!("/switchback/{kind}/"), Some(options)).await.unwrap().count() as usize
}
