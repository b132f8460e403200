//! Every change: what it does, what it answers, and when it is refused.

use super::*;
use crate::model::{Author, Change, ChangeRequest, Scope, ServiceName};

#[tokio::test]
async fn a_split_is_set_and_read() {
    let api = Api::new().await;
    let before = api.get("/v1/services/accounting/split").await;
    assert_eq!(before.body["weights"], json!({ "1.0.0": 90, "2.0.0": 10 }));
    assert_eq!((before.body["source"].as_str(), before.etag()), (Some("service"), "\"1\""));
    let body = json!({ "weights": { "1.0.0": 74.99, "2.0.0": 25.01 }, "reason": "step two" });
    let answer = api.put("/v1/services/accounting/split?reason=ignored", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["before"]["weights"], json!({ "1.0.0": 90, "2.0.0": 10 }));
    assert_eq!(answer.body["after"]["weights"], json!({ "1.0.0": 74.99, "2.0.0": 25.01 }));
    let now = api.get("/v1/services/accounting/split").await;
    assert_eq!(now.body["weights"]["2.0.0"], 25.01);
    assert_eq!((now.etag(), now.body["revision"].as_u64()), (answer.etag(), answer.body["revision"].as_u64()));
    let event =
        api.get(&format!("/v1/events?kind=split_set&after={}", answer.body["event"].as_u64().unwrap() - 1)).await;
    assert_eq!(event.body["events"][0]["reason"], "step two");
    assert!(event.body["events"][0]["at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn tenants_and_groups_have_splits_of_their_own() {
    let api = Api::new().await;
    let (group, tenant) = ("/v1/services/accounting/groups/beta/split", "/v1/services/accounting/tenants/acme/split");
    assert_eq!(api.get(tenant).await.body["source"], "service");
    assert_eq!(api.put(group, json!({ "weights": { "2.0.0": 100 } })).await.status, 200);
    let inherited = api.get(tenant).await;
    assert_eq!((inherited.body["source"].as_str(), inherited.etag()), (Some("group beta"), "\"0\""));
    let answer = api.send("PUT", tenant, &[("if-match", "\"0\"")], json!({ "weights": { "1.0.0": 100 } })).await;
    assert_eq!(answer.status, 200, "no document yet is revision 0: {answer:?}");
    assert_eq!(api.get(tenant).await.body["source"], "tenant acme");
    assert_eq!(api.get("/v1/services/accounting/tenants").await.body["tenants"][0]["name"], "acme");
    let gone = api.delete(&format!("{tenant}?reason=done")).await;
    assert_eq!((gone.status, gone.etag(), gone.body["after"].is_null()), (200, "\"0\"", true));
    assert_eq!(api.delete(tenant).await.status, 404);
    assert_eq!(api.put(tenant, json!({ "weights": { "1.0.0": 100 } })).await.status, 200);
    let wrong = api.delete("/v1/services/accounting/tenants/acne/split").await;
    let told = "a split of tenant acne does not exist; did you mean \"acme\"?";
    assert_eq!((wrong.status, wrong.detail(), &wrong.body["suggestion"]), (404, told, &json!("acme")));
    assert_eq!(api.delete(group).await.status, 200);
    assert_eq!(api.delete(tenant).await.status, 200);
    assert_eq!(api.delete(group).await.status, 404);
    assert_eq!(api.get(tenant).await.body["source"], "service");
    let unknown = "/v1/services/accounting/groups/betta/split";
    let answer = api.put(unknown, json!({ "weights": { "2.0.0": 100 } })).await;
    assert_eq!((answer.status, answer.detail().contains("did you mean \"beta\"?")), (422, true), "{answer:?}");
    assert_eq!(api.get(unknown).await.status, 404);
}

#[tokio::test]
async fn unknown_names_are_refused_with_a_guess() {
    let api = Api::new().await;
    let answer = api.get("/v1/services/acounting").await;
    assert_eq!((answer.status, answer.body["type"].as_str()), (404, Some("urn:switchback:not_found")));
    assert_eq!(answer.detail(), "there is no service \"acounting\"; did you mean \"accounting\"?");
    assert_eq!(answer.body["suggestion"], "accounting");
    let answer = api.put("/v1/services/accounting/split", json!({ "weights": { "2.0.1": 100 } })).await;
    assert_eq!((answer.status, answer.body["type"].as_str()), (422, Some("urn:switchback:unknown_version")));
    assert!(answer.detail().contains("did you mean \"2.0.0\"?"), "{answer:?}");
    assert_eq!(answer.body["suggestion"], "2.0.0");
    let answer = api.get("/v1/services/accounting/compare?a=1.0.0&b=2.0.1").await;
    assert_eq!((answer.status, &answer.body["suggestion"]), (422, &json!("2.0.0")), "{answer:?}");
}

#[tokio::test]
async fn stale_changes_lose() {
    let api = Api::new().await;
    let path = "/v1/services/accounting/split";
    let put = async |value: &str| api.send("PUT", path, &[("if-match", value)], body_for(path)).await;
    let first = put("\"1\"").await;
    assert_eq!(first.status, 200, "{first:?}");
    let stale = put("\"1\"").await;
    assert_eq!((stale.status, stale.body["current_revision"].as_u64()), (412, first.body["revision"].as_u64()));
    assert_eq!(put(&format!("\"1\", {}", first.etag())).await.status, 200, "one of several");
    let weak = format!("W/{}", api.get(path).await.etag());
    assert_eq!(put(&weak).await.status, 200);
    assert_eq!(put("*").await.status, 200);
    assert_eq!(put("\"something\"").await.status, 412);
    assert_eq!(put("17").await.status, 400);
    let tenant = "/v1/services/accounting/tenants/acme/split";
    let none = api.send("PUT", tenant, &[("if-match", "*")], body_for(path)).await;
    assert_eq!((none.status, none.body["current_revision"].as_u64()), (412, Some(0)));
    let only_new = [("if-none-match", "*")];
    assert_eq!(api.send("PUT", tenant, &only_new, body_for(path)).await.status, 200);
    assert_eq!(api.send("PUT", tenant, &only_new, body_for(path)).await.status, 412);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_writers_one_wins_each_revision() {
    let api = Arc::new(Api::new().await);
    let path = "/v1/services/accounting/split";
    for _ in 0..10 {
        let tag = api.get(path).await.etag().to_owned();
        let writers = (1..=16).map(|i| {
            let (api, tag) = (api.clone(), tag.clone());
            let body = json!({ "weights": { "1.0.0": 100 - i, "2.0.0": i } });
            tokio::spawn(async move { api.send("PUT", path, &[("if-match", &tag)], body).await.status })
        });
        let results: Vec<_> = futures::future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(results.iter().filter(|s| **s == 200).count(), 1, "{results:?}");
        assert!(results.iter().all(|s| matches!(s, 200 | 412)));
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let api = Api::new().await;
    api.put("/v1/services/accounting/tenants/acme/split", body_for("/split")).await;
    api.put("/v1/services/accounting/groups/beta/split", body_for("/split")).await;
    api.put("/v1/services/accounting/pins/tenant/acme", json!({ "exclude": "2.0.0" })).await;
    api.put("/v1/services/accounting/hold", json!({})).await;
    api.put("/v1/services/accounting/maintenance", json!({})).await;
    api.put("/v1/services/accounting/tenants/acme/maintenance", json!({})).await;
    let (revision, newest) = (api.control.view().state.revision, api.get("/v1/events?order=desc&limit=1").await);
    for route in routes::api().into_iter().filter(|r| !r.method.is_safe() && r.path.contains("{service}")) {
        let path = format!("{}?dry_run=true", filled(route.path));
        let answer = api.send(route.method.as_str(), &path, &[], body_for(route.path)).await;
        let refused = route.path.ends_with("{version}") && route.method == Method::DELETE
            || route.path.ends_with("/baseline")
            || route.path.ends_with("/disabled");
        assert!(answer.status == 200 || refused, "{path}: {answer:?}");
        if answer.status == 200 {
            assert_eq!((answer.body["dry_run"].as_bool(), answer.body["event"].is_null()), (Some(true), true));
            assert_eq!(answer.body["revision"].as_u64(), Some(revision));
            assert!(!answer.headers.contains_key("etag"));
        }
        assert_eq!(api.control.view().state.revision, revision, "{path}");
    }
    assert_eq!(api.get("/v1/events?order=desc&limit=1").await.body, newest.body);
    let refused = api.put("/v1/services/accounting/split?dry_run=true", json!({ "weights": { "9": 100 } })).await;
    assert_eq!(refused.status, 422, "a dry run refuses what the change would");
}

#[tokio::test]
async fn pins_are_set_and_removed() {
    let api = Api::new().await;
    for (kind, name) in [("tenant", "acme"), ("user", "alice@x"), ("group", "gold")] {
        let path = format!("/v1/services/accounting/pins/{kind}/{name}");
        assert_eq!(api.put(&path, json!({ "version": "2.0.0", "reason": "tester" })).await.status, 200);
        let pins = api.get("/v1/services/accounting").await.body["pins"].clone();
        assert_eq!(pins, json!([{ "kind": kind, "name": name, "pin": { "version": "2.0.0" } }]));
        assert_eq!(api.put(&path, json!({ "exclude": "2.0.0" })).await.status, 200);
        assert_eq!(api.put(&path, json!({ "exclude": "1.0.0" })).await.status, 422, "the baseline");
        assert_eq!(api.delete(&path).await.status, 200);
        assert_eq!(api.delete(&path).await.status, 404);
        for bad in [json!({}), json!({ "version": "1.0.0", "exclude": "2.0.0" })] {
            assert_eq!(api.put(&path, bad).await.status, 422);
        }
    }
    let answer = api.put("/v1/services/accounting/pins/tenants/acme", json!({ "version": "2.0.0" })).await;
    assert_eq!((answer.status, answer.detail().contains("did you mean \"tenant\"?")), (400, true));
    assert_eq!(api.put("/v1/services/accounting/pins/group/none", json!({ "version": "2.0.0" })).await.status, 422);
}

#[tokio::test]
async fn holds_come_and_go() {
    let api = Api::new().await;
    let path = "/v1/services/accounting/hold";
    let request = Api::request("PUT", &format!("{path}?reason=freeze")).body(Body::empty()).unwrap();
    let answer = api.call(request).await;
    assert_eq!((answer.status, answer.body["after"]["reason"].as_str()), (200, Some("freeze")), "a hold needs no body");
    assert!(answer.body["after"]["since"].as_str().unwrap().ends_with('Z') && answer.body["before"].is_null());
    assert_eq!(api.get("/v1/services").await.body["services"][0]["hold"]["reason"], "freeze");
    let gone = api.delete(path).await;
    assert!(gone.body["before"]["since"].is_string() && gone.body["after"].is_null(), "{gone:?}");
    assert_eq!(api.delete(path).await.status, 404);
    assert_eq!(api.put(path, json!({ "why": "x" })).await.status, 422);
}

#[tokio::test]
async fn rollbacks_need_a_reason_and_reach_everyone() {
    let api = Api::new().await;
    let (all, acme) = ("/v1/services/accounting/rollback", "/v1/services/accounting/tenants/acme/rollback");
    for bad in [json!({}), json!({ "reason": " " }), json!({ "reason": null })] {
        assert_eq!(api.post(all, bad.clone()).await.status, 422);
        assert_eq!(api.post(acme, bad).await.status, 422);
    }
    let one = api.post(acme, json!({ "reason": "acme complains" })).await;
    assert_eq!(one.body["after"]["weights"], json!({ "1.0.0": 100 }), "{one:?}");
    let tenant = api.get("/v1/services/accounting/tenants/acme/split").await.body;
    assert_eq!(tenant["rolled_back"]["version"], "2.0.0");
    assert_eq!(tenant["rolled_back"]["event"], one.body["event"]);
    api.put("/v1/services/accounting/tenants/globex/split", json!({ "weights": { "2.0.0": 100 } })).await;
    let answer = api.post(all, json!({ "reason": "checkout fails", "version": "2.0.0" })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let globex = api.get("/v1/services/accounting/tenants/globex/split").await.body;
    assert_eq!(globex["weights"], json!({ "1.0.0": 100 }), "splits of tenants go back too");
    assert_eq!(globex["rolled_back"]["version"], "2.0.0");
    let service = api.get("/v1/services/accounting").await.body;
    assert_eq!(service["last_rollback"]["reason"], "checkout fails");
    assert_eq!(service["last_rollback"]["cause"], "person");
    assert_eq!(api.get("/v1/services").await.body["services"][0]["rolled_back"]["version"], "2.0.0");
    assert_eq!(api.post(all, json!({ "reason": "x", "version": "1.0.0" })).await.status, 422, "the baseline");
    assert_eq!(api.post(all, json!({ "reason": "x", "version": "9" })).await.status, 422);
}

#[tokio::test]
async fn versions_come_and_go() {
    let api = Api::new().await;
    let path = "/v1/services/accounting/versions/3.0.0";
    let body =
        json!({ "endpoints": ["10.0.0.1:7301"], "timeouts": { "connect": "250ms" }, "health": { "path": "/up" } });
    let answer = api.put(path, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["after"]["timeouts"]["connect"], "250ms", "as in the file");
    let versions = api.get("/v1/services/accounting").await.body["versions"].clone();
    assert_eq!((versions[2]["source"].as_str(), versions[2]["role"].as_str()), (Some("api"), Some("idle")));
    assert_eq!(versions[2]["spec"], answer.body["after"]);
    let again = api.put(path, json!({ "endpoints": ["10.0.0.1:7302"] })).await;
    assert_eq!(again.body["before"], answer.body["after"]);
    api.put("/v1/services/accounting/split", json!({ "weights": { "1.0.0": 95, "3.0.0": 5 } })).await;
    let used = api.delete(path).await;
    assert_eq!((used.status, used.body["type"].as_str()), (409, Some("urn:switchback:in_use")), "{used:?}");
    assert_eq!(api.put("/v1/services/accounting/baseline", json!({ "version": "3.0.0" })).await.status, 200);
    assert_eq!(api.put("/v1/services/accounting/baseline", json!({ "version": "1.0.0" })).await.status, 200);
    api.put("/v1/services/accounting/split", json!({ "weights": { "1.0.0": 100 } })).await;
    assert_eq!(api.delete(path).await.status, 200);
    assert_eq!(api.delete(path).await.status, 404);
    assert_eq!(api.delete("/v1/services/accounting/versions/1.0.0").await.status, 422, "of the file");
    assert_eq!(api.put("/v1/services/accounting/baseline", json!({ "version": "3.0.0" })).await.status, 422);
}

#[tokio::test]
async fn versions_that_make_no_sense_are_refused_by_field() {
    let api = Api::new().await;
    let path = "/v1/services/accounting/versions/3.0.0";
    let body = json!({ "endpoints": ["nowhere"], "tiemouts": {}, "http2": "yes" });
    let answer = api.put(path, body).await;
    let fields: Vec<_> =
        answer.body["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    assert_eq!(answer.status, 422);
    for field in ["endpoints[0]", "tiemouts", "http2"] {
        assert!(fields.contains(&field), "{fields:?}");
    }
    assert_eq!(api.put(path, json!([])).await.status, 422);
    let per_tenant = json!({ "endpoints": ["{tenant}.internal:80"] });
    assert_eq!(api.put(path, per_tenant.clone()).await.status, 200);
    let without = FILE.replace("identify = [{ header = \"x-tenant-id\" }]", "");
    let without = Api::with(&without, "127.0.0.1:9900").await;
    assert_eq!(without.put(path, per_tenant).await.body["errors"][0]["field"], "endpoints");
}

#[tokio::test]
async fn a_store_that_is_away_refuses_and_says_when_to_come_back() {
    let api = Api::new().await;
    api.store.set_down(true);
    let answer = api.put("/v1/services/accounting/split", body_for("/split")).await;
    assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert!(answer.detail().contains("it was taken down"), "{answer:?}");
    assert_eq!(api.get("/v1/events").await.status, 503);
    assert_eq!(api.get("/v1/services/accounting").await.status, 200, "reading goes on");
    assert_eq!(api.get("/v1/status").await.body["store"]["up"], false);
    let request = ChangeRequest {
        service: ServiceName::new("accounting").unwrap(),
        change: Change::Rollback { scope: Scope::Service, canary: None, cause: "errors".into(), first_bad_ms: None },
        author: Author::Autopilot,
        reason: "it fails".to_owned(),
        if_revision: None,
        if_attempt: None,
        evidence: Value::Null,
    };
    assert!(api.control.submit(request, false).await.unwrap().unconfirmed);
    let answer = api.put("/v1/services/accounting/split", body_for("/split")).await;
    assert_eq!(answer.body["type"], "urn:switchback:unconfirmed");
    assert!(api.get("/v1/status").await.body["warnings"][0].as_str().unwrap().contains("wait to be written"));
    api.store.set_down(false);
    api.control.close().await;
    assert_eq!(
        api.put("/v1/services/accounting/split", body_for("/split")).await.body["type"],
        "urn:switchback:closed"
    );
}
