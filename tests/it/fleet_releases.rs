//! Two releases of Switchback in one fleet: an upgrade passes through one proxy after the other, so for a while a newer
//! release and this one write the same documents.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchback::model::{Commit, DocumentKey};
use switchback::store::{Access, EtcdStore, KEEP_EVENTS, Note, Store};

use super::etcd_server::Etcd;
use crate::fleet::{Trio, get};
use crate::harness::{client, until};

/// A member of the fleet whose release knows more than this one: it writes words that nobody here has heard of.
struct Newer {
    store: EtcdStore,
}

impl Newer {
    async fn join(etcd: &Etcd) -> Self {
        let (endpoints, prefix) = (vec![etcd.url("http")], "/switchback".to_owned());
        let access = Access { endpoints, prefix, user: None, ca: None, identity: None, compact: false };
        let newer = Self { store: EtcdStore::open(access, KEEP_EVENTS) };
        let began = Instant::now();
        while newer.store.load().await.is_err() || newer.tell("card", json!({})).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not join");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        newer
    }

    async fn tell(&self, name: &str, body: Value) -> Result<u64, switchback::store::StoreError> {
        let body = Some(body.to_string().into_bytes());
        self.store.membership().expect("etcd has members").write(vec![Note { name: name.to_owned(), body }]).await
    }

    /// A document as it stands in the store.
    async fn document(&self, key: &str) -> Value {
        let loaded = self.store.load().await.unwrap();
        let document = loaded.documents.iter().find(|document| document.key.to_string() == key);
        serde_json::from_str(&document.unwrap_or_else(|| panic!("there is no {key}")).body).unwrap()
    }

    /// Writes a document after a change.
    async fn write(&self, key: &str, change: impl FnOnce(&mut Value)) -> u64 {
        let mut document = self.document(key).await;
        change(&mut document);
        let expected = self.store.load().await.unwrap().revision;
        let puts = vec![(DocumentKey::parse(key).unwrap(), document.to_string())];
        let commit = Commit { expected, revision: expected + 1, puts, ..Commit::default() };
        self.store.commit(commit).await.unwrap();
        expected + 1
    }
}

async fn follow(trio: &Trio, revision: u64) {
    for process in &trio.processes {
        until("all to follow", Duration::from_secs(5), async || {
            get(process, "/v1/status").await["revision"].as_u64() >= Some(revision)
        })
        .await;
    }
}

async fn put(trio: &Trio, number: usize, path: &str, body: Value) {
    let url = format!("{}{path}", trio.processes[number].admin);
    let answer = client().put(url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_release_wrote_survives_what_this_one_changes() {
    let trio = Trio::start("").await;
    trio.split(0, 10).await;
    put(&trio, 1, "/v1/services/shop/tenants/acme/split", json!({ "weights": { "1.0.0": 80, "2.0.0": 20 } })).await;
    let newer = Newer::join(&trio.etcds[0]).await;
    let new_words = |document: &mut Value| {
        document["regions"] = json!({ "eu": ["1.0.0"] });
        document["split"]["curve"] = json!("smooth");
    };
    newer.write("service/shop", new_words).await;
    let revision = newer.write("tenant/shop/acme", new_words).await;
    follow(&trio, revision).await;
    // Everything that this release does with both documents, each at another proxy.
    put(&trio, 1, "/v1/services/shop/tenants/acme/split", json!({ "weights": { "1.0.0": 70, "2.0.0": 30 } })).await;
    put(&trio, 2, "/v1/services/shop/hold", json!({ "reason": "to see" })).await;
    trio.split(0, 25).await;
    for key in ["service/shop", "tenant/shop/acme"] {
        let document = newer.document(key).await;
        assert_eq!(document["regions"], json!({ "eu": ["1.0.0"] }), "{key}: {document}");
    }
    assert_eq!(newer.document("service/shop").await["split"]["curve"], Value::Null, "it was said of another split");
    assert_eq!(trio.weights(1).await, json!({ "1.0.0": 75, "2.0.0": 25 }));
    // And in the other direction: the newer one changes what this one wrote.
    let revision = newer.write("service/shop", |shop| shop["hold"] = Value::Null).await;
    follow(&trio, revision).await;
    for process in &trio.processes {
        let shop = get(process, "/v1/services/shop").await;
        assert_eq!((&shop["hold"], &shop["baseline"]), (&Value::Null, &json!("1.0.0")), "{shop}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_release_is_listed_and_what_it_counts_in_other_words_harms_nobody() {
    let trio = Trio::start("").await;
    let newer = Newer::join(&trio.etcds[0]).await;
    let card = json!({ "instance": "next:8080", "release": "99.1.0", "revision": 1, "refused": null, "confirmed": true,
        "phase": "ready", "started_ms": 1, "at_ms": 1, "load": { "cpu": 0.2 } });
    newer.tell("card", card).await.unwrap();
    newer.tell("counts/000", json!({ "format": 99, "shop": "by other means" })).await.unwrap();
    newer.tell("moods/000", json!(["of a kind that nobody knows"])).await.unwrap();
    for process in &trio.processes {
        until("the newer one to be listed", Duration::from_secs(5), async || {
            let members = get(process, "/v1/status").await["fleet"]["members"].clone();
            members.as_array().is_some_and(|m| m.len() == 4 && m.iter().any(|m| m["version"] == "99.1.0"))
        })
        .await;
    }
    trio.split(1, 20).await;
    let all: Vec<_> = trio.processes.iter().collect();
    let traffic = crate::fleet::Traffic::start(&all, 150);
    trio.new.script.fail(100.0);
    trio.are_back(&[0, 1, 2], Duration::from_secs(10)).await;
    traffic.stop().await;
    assert_eq!(trio.rollbacks(0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused_seen_everywhere_and_costs_no_user() {
    let trio = Trio::start("").await;
    trio.split(0, 20).await;
    let newer = Newer::join(&trio.etcds[0]).await;
    let before = get(&trio.processes[0], "/v1/status").await["revision"].clone();
    newer.write("service/shop", |shop| shop["format"] = json!(2)).await;
    for process in &trio.processes {
        until("all to say so", Duration::from_secs(6), async || {
            let members = get(process, "/v1/status").await["fleet"]["members"].clone();
            let says = |m: &&Value| {
                let reason = m["refused"]["reason"].as_str().unwrap_or_default();
                m["health"] == "refused" && m["revision"] == before && reason.matches("its format is 2").count() == 1
            };
            members.as_array().is_some_and(|members| members.iter().filter(says).count() == 3)
        })
        .await;
        // Each goes on with what it understood, and none writes over what it does not understand.
        assert_eq!(client().get(&process.proxy).send().await.unwrap().status(), 200);
        let url = format!("{}/v1/services/shop/split", process.admin);
        let body = json!({ "weights": { "1.0.0": 50, "2.0.0": 50 } });
        let answer = client().put(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{answer:?}");
    }
    assert_eq!(newer.document("service/shop").await["format"], 2);
    // The upgrade is taken back.
    let revision = newer.write("service/shop", |shop| shop["format"] = json!(1)).await;
    follow(&trio, revision).await;
    trio.split(2, 30).await;
    assert_eq!(trio.weights(0).await, json!({ "1.0.0": 70, "2.0.0": 30 }));
}
