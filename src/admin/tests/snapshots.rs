//! Snapshots: taken, listed, compared, restored and deleted, and what is refused.

use super::*;
use crate::model::{DocumentKey, SnapshotName};
use crate::store::Store as _;

const ALL: &str = "/v1/snapshots";
const SPLIT: &str = "/v1/services/accounting/split";
const MONDAY: &str = "/v1/snapshots/monday";
const RESTORE: &str = "/v1/snapshots/monday/restore";

impl Api {
    async fn set(&self, path: &str, weights: Value) {
        let answer = self.put(path, json!({ "weights": weights })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn weights(&self, path: &str) -> Value {
        self.get(path).await.body["weights"].clone()
    }

    async fn take(&self, name: &str) -> Answer {
        self.post(ALL, json!({ "name": name, "reason": "before the sale" })).await
    }

    async fn archived(&self) -> usize {
        self.store.list(DocumentKey::ARCHIVE, "", 1_000).await.unwrap().len()
    }
}

#[tokio::test]
async fn a_snapshot_is_taken_listed_shown_and_deleted() {
    let api = Api::new().await;
    assert_eq!(api.get(ALL).await.body, json!({ "snapshots": [], "most": 100 }));
    api.set("/v1/services/accounting/tenants/acme/split", json!({ "2.0.0": 100 })).await;
    api.set("/v1/services/accounting/groups/beta/split", json!({ "1.0.0": 50, "2.0.0": 50 })).await;
    api.put("/v1/services/accounting/hold", json!({ "reason": "a look" })).await;
    let revision = api.control.view().state.revision;
    let dry = api.post(&format!("{ALL}?dry_run=true"), json!({ "name": "monday" })).await;
    assert_eq!((dry.status, api.get(MONDAY).await.status, api.archived().await), (200, 404, 0));
    let taken = api.take("monday").await;
    assert_eq!((taken.status, &taken.body["after"]["snapshot"]), (200, &json!("monday")), "{taken:?}");
    assert_eq!(api.archived().await, 2, "one document for each service");

    let listed = api.get(ALL).await.body["snapshots"][0].clone();
    assert_eq!(
        (&listed["name"], &listed["reason"], &listed["revision"]),
        (&json!("monday"), &json!("before the sale"), &json!(revision))
    );
    assert_eq!(listed["services"]["accounting"], json!({ "groups": 1, "tenants": 1, "pins": 0, "held": true }));
    let shown = api.get(MONDAY).await.body;
    let accounting = &shown["services"]["accounting"];
    assert_eq!(
        (&accounting["baseline"], &accounting["weights"]),
        (&json!("1.0.0"), &json!({ "1.0.0": 90, "2.0.0": 10 }))
    );
    assert_eq!(
        (&accounting["tenants"], &accounting["hold"]["reason"]),
        (&json!({ "acme": { "2.0.0": 100 } }), &json!("a look"))
    );
    assert_eq!(accounting["groups"], json!({ "beta": { "1.0.0": 50, "2.0.0": 50 } }));

    let again = api.take("monday").await;
    assert_eq!((again.status, again.detail().contains("already")), (422, true), "{again:?}");
    let unnamed = api.post(ALL, json!({ "services": ["billing"] })).await;
    let name = unnamed.body["after"]["snapshot"].as_str().unwrap().to_owned();
    assert!(name.starts_with("20") && SnapshotName::allows(&name), "{name}");
    let newest = &api.get(ALL).await.body["snapshots"][0];
    assert_eq!((&newest["name"], newest["services"].as_object().unwrap().len()), (&json!(name), 1));

    assert_eq!(api.delete(&format!("{MONDAY}?reason=old")).await.status, 200);
    assert_eq!((api.get(MONDAY).await.status, api.delete(MONDAY).await.status, api.archived().await), (404, 404, 1));
    assert!(api.get(MONDAY).await.detail().contains(&name), "it says what there is");
    for (kind, at, reason) in [("snapshot_taken", "after", "before the sale"), ("snapshot_deleted", "before", "old")] {
        let event = api.get(&format!("/v1/events?kind={kind}")).await.body["events"][0].clone();
        assert_eq!((&event[at]["snapshot"], &event["reason"]), (&json!("monday"), &json!(reason)));
    }
}

#[tokio::test]
async fn what_a_restore_would_change_is_told_and_then_done() {
    let api = Api::new().await;
    api.set("/v1/services/accounting/tenants/acme/split", json!({ "2.0.0": 100 })).await;
    api.put("/v1/services/accounting/pins/user/u", json!({ "version": "2.0.0" })).await;
    api.take("monday").await;
    let same = api.get(&format!("{MONDAY}/diff")).await;
    assert_eq!((same.status, &same.body["same"]), (200, &json!(true)), "{same:?}");

    api.set(SPLIT, json!({ "1.0.0": 40, "2.0.0": 60 })).await;
    api.delete("/v1/services/accounting/tenants/acme/split").await;
    api.set("/v1/services/accounting/tenants/globex/split", json!({ "2.0.0": 100 })).await;
    api.delete("/v1/services/accounting/pins/user/u").await;
    api.put("/v1/services/accounting/hold", json!({})).await;
    let diff = api.get(&format!("{MONDAY}/diff")).await.body;
    let accounting = &diff["services"]["accounting"];
    assert_eq!((&diff["same"], &diff["services"]["billing"]["same"]), (&json!(false), &json!(true)));
    let split = json!({ "scope": "service", "before": { "1.0.0": 40, "2.0.0": 60 }, "after": { "1.0.0": 90, "2.0.0": 10 }, "moved_percent": 50.0 });
    assert_eq!((&accounting["splits"][0], &accounting["tenants"]), (&split, &json!(2)));
    assert_eq!(
        accounting["splits"][2],
        json!({ "scope": "tenant globex", "before": { "2.0.0": 100 }, "after": null, "moved_percent": null })
    );
    assert_eq!(accounting["pins"], json!([{ "target": "user u", "before": null, "after": { "version": "2.0.0" } }]));
    assert!(accounting["hold"]["before"].is_object() && accounting["hold"]["after"].is_null());
    let few = api.get(&format!("{MONDAY}/diff?limit=1&service=accounting")).await.body;
    assert_eq!(
        (few["services"]["accounting"]["splits"].as_array().unwrap().len(), few["services"].as_object().unwrap().len()),
        (1, 1)
    );

    let before = api.control.view().state.revision;
    let dry = api.post(&format!("{RESTORE}?dry_run=true"), json!({ "reason": "x" })).await;
    assert_eq!(
        (dry.status, &dry.body["after"]["services"]["accounting"]["changed"]["tenants"]),
        (200, &json!(2)),
        "{dry:?}"
    );
    assert_eq!(api.control.view().state.revision, before);
    let done = api.post(RESTORE, json!({ "reason": "the sale is over" })).await;
    assert_eq!((done.status, done.body["revision"].as_u64()), (200, Some(before + 1)), "one commit: {done:?}");
    assert_eq!(api.weights(SPLIT).await, json!({ "1.0.0": 90, "2.0.0": 10 }));
    assert_eq!(api.get("/v1/services/accounting/tenants/globex/split").await.body["source"], "service");
    assert_eq!(api.weights("/v1/services/accounting/tenants/acme/split").await, json!({ "2.0.0": 100 }));
    let stored = crate::model::State::from_documents(9, &api.store.load().await.unwrap().documents).unwrap();
    assert_eq!(stored.service("accounting"), api.control.view().state.service("accounting"), "and durable");
    let events = api.get("/v1/events?kind=snapshot_restored").await.body["events"].clone();
    assert_eq!(
        (events.as_array().unwrap().len(), &events[0]["service"], &events[0]["id"]),
        (1, &json!("accounting"), &done.body["event"])
    );
    assert_eq!(api.get(&format!("{MONDAY}/diff")).await.body["same"], true);
    let split = api.put(SPLIT, body_for("/split")).await;
    assert_eq!(split.body["event"].as_u64(), done.body["event"].as_u64().map(|e| e + 1), "events are numbered on");
}

#[tokio::test]
async fn rolled_back_and_disabled_versions_stay_away() {
    let api = Api::new().await;
    api.take("monday").await;
    api.post("/v1/services/accounting/rollback", json!({ "reason": "bad" })).await;
    let diff = api.get(&format!("{MONDAY}/diff")).await.body["services"]["accounting"].clone();
    assert_eq!(diff["withheld"], json!([{ "whose": "service", "version": "2.0.0", "why": "rolled_back" }]));
    assert_eq!(api.get(&format!("{MONDAY}/diff?force=true")).await.body["services"]["accounting"]["withheld_total"], 0);
    let done = api.post(RESTORE, json!({ "reason": "x" })).await;
    assert_eq!(done.body["after"]["services"]["accounting"]["withheld_versions"], json!(["2.0.0"]));
    assert_eq!(api.weights(SPLIT).await, json!({ "1.0.0": 100 }));
    api.post(RESTORE, json!({ "reason": "x", "force": true })).await;
    assert_eq!(api.weights(SPLIT).await, json!({ "1.0.0": 90, "2.0.0": 10 }));
    api.put("/v1/services/accounting/versions/2.0.0/disabled", json!({})).await;
    let done = api.post(RESTORE, json!({ "reason": "x", "force": true })).await;
    assert_eq!((done.status, api.weights(SPLIT).await), (200, json!({ "1.0.0": 100 })));
}

#[tokio::test]
async fn several_services_go_back_with_an_event_each() {
    let api = Api::new().await;
    api.take("monday").await;
    api.put("/v1/services/billing/hold", json!({})).await;
    api.put("/v1/services/accounting/hold", json!({})).await;
    let mut events = api.control.subscribe();
    let done = api.post(RESTORE, json!({ "reason": "x" })).await;
    assert_eq!(done.body["before"]["billing"]["baseline"], "1", "{done:?}");
    let first = done.body["event"].as_u64().unwrap();
    for (n, service) in ["accounting", "billing"].into_iter().enumerate() {
        let told = events.recv().await.unwrap();
        assert_eq!((told.id, told.service.as_ref().unwrap().as_str()), (first + n as u64, service));
    }
    assert_eq!(api.get("/v1/services/billing").await.body["hold"], Value::Null);
    let next = api.put(SPLIT, body_for("/split")).await;
    assert_eq!(next.body["event"], first + 2);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let api = Api::new().await;
    for (path, body, field) in [
        (ALL, json!({ "name": "a/b" }), "name"),
        (ALL, json!({ "services": ["acounting"] }), "services"),
        (ALL, json!({ "services": [] }), "services"),
        (ALL, json!({ "reason": "x".repeat(1_001) }), "reason"),
        (RESTORE, json!({ "reason": "" }), "reason"),
        (RESTORE, json!({ "reason": "x", "services": [] }), "services"),
        (RESTORE, json!({ "reason": "x", "forc": true }), "forc"),
    ] {
        let answer = api.post(path, body.clone()).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (422, &json!(field)), "{body}: {answer:?}");
    }
    assert_eq!(api.post(RESTORE, json!({ "reason": "x" })).await.status, 404);
    api.put("/v1/services/accounting/versions/3.0.0", json!({ "endpoints": ["10.0.0.1:7301"] })).await;
    api.set(SPLIT, json!({ "1.0.0": 50, "3.0.0": 50 })).await;
    api.take("monday").await;
    let unknown = api.post(RESTORE, json!({ "reason": "x", "services": ["payroll"] })).await;
    assert_eq!(
        (unknown.status, unknown.detail().contains("no service \"payroll\"; it has: accounting, billing")),
        (422, true)
    );
    api.set(SPLIT, json!({ "1.0.0": 100 })).await;
    assert_eq!(api.delete("/v1/services/accounting/versions/3.0.0").await.status, 200);
    for answer in
        [api.post(RESTORE, json!({ "reason": "x", "force": true })).await, api.get(&format!("{MONDAY}/diff")).await]
    {
        assert_eq!((answer.status, answer.detail().contains("version 3.0.0 of accounting")), (422, true), "{answer:?}");
    }
    assert_eq!(api.post(RESTORE, json!({ "reason": "x", "services": ["billing"] })).await.status, 200);
}

#[tokio::test]
async fn a_baseline_goes_back_by_the_word_of_an_administrator() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let asked = async |method: &str, role: &str, path: &str, body: Value| {
        let token = format!("Bearer {role}-token");
        api.send(method, path, &[("authorization", token.as_str())], body).await
    };
    assert_eq!(asked("POST", "operator", ALL, json!({ "name": "monday" })).await.status, 200);
    let restore = async |role: &str| asked("POST", role, RESTORE, json!({ "reason": "x" })).await;
    assert_eq!(restore("operator").await.status, 200);
    let path = "/v1/services/accounting/baseline";
    assert_eq!(asked("PUT", "admin", path, json!({ "version": "2.0.0" })).await.status, 200);
    let refused = restore("operator").await;
    assert_eq!((refused.status, refused.detail().contains("needs the role admin")), (403, true), "{refused:?}");
    assert_eq!(restore("admin").await.status, 200);
    assert_eq!(api.control.view().state.service("accounting").unwrap().baseline.as_str(), "1.0.0");
}

#[tokio::test]
async fn a_store_that_is_away_or_was_written_by_another_process() {
    let api = Api::new().await;
    api.take("monday").await;
    api.store.set_down(true);
    assert_eq!((api.take("tuesday").await.status, api.get(MONDAY).await.status), (503, 503));
    assert_eq!(api.post(RESTORE, json!({ "reason": "x" })).await.status, 503);
    assert_eq!(api.get(ALL).await.body["snapshots"].as_array().unwrap().len(), 1, "the list is known");
    api.store.set_down(false);

    // Somebody else's commit makes ours conflict; it is taken over and the restore tried again.
    let view = api.control.view();
    let mut live = (**view.state.service("billing").unwrap()).clone();
    live.hold = Some(crate::model::Hold {
        author: crate::model::Author::File,
        reason: "theirs".to_owned(),
        since_ms: 1,
        unknown: Default::default(),
    });
    let key = DocumentKey::Service(crate::model::ServiceName::new("billing").unwrap());
    let (expected, revision) = (view.state.revision, view.state.revision + 1);
    let puts = vec![(key, serde_json::to_string(&live).unwrap())];
    api.store.commit(crate::model::Commit { expected, revision, puts, ..Default::default() }).await.unwrap();
    let done = api.post(RESTORE, json!({ "reason": "x" })).await;
    assert_eq!((done.status, done.body["revision"].as_u64()), (200, Some(revision + 1)), "{done:?}");
    assert_eq!(done.body["after"]["services"]["billing"]["changed"]["hold"], true, "{done:?}");

    let gone = api.store.list(DocumentKey::ARCHIVE, "", 9).await.unwrap().remove(0).0;
    let (expected, revision) = (revision + 1, revision + 2);
    let deletes = vec![gone];
    api.store.commit(crate::model::Commit { expected, revision, deletes, ..Default::default() }).await.unwrap();
    let damaged = api.get(MONDAY).await;
    assert_eq!(
        (damaged.status, damaged.detail().contains("archive/snapshot/monday/accounting/0 is missing")),
        (500, true),
        "{damaged:?}"
    );
}
