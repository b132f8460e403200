//! Maintenance, the kill switch, and who still uses a version.

use super::*;

const SERVICE: &str = "/v1/services/accounting/maintenance";
const ACME: &str = "/v1/services/accounting/tenants/acme/maintenance";
const SWITCH: &str = "/v1/services/accounting/versions/2.0.0/disabled";

#[tokio::test]
async fn maintenance_is_begun_shown_changed_and_ended() {
    let api = Api::new().await;
    assert_eq!(api.get(SERVICE).await.body["maintenance"], Value::Null);
    assert_eq!(api.delete(SERVICE).await.status, 404);
    let dry = api.put(&format!("{SERVICE}?dry_run=true"), body_for(SERVICE)).await;
    assert_eq!((dry.status, dry.body["after"]["retry_after"].as_str()), (200, Some("5m")));
    assert_eq!(api.get(SERVICE).await.body["maintenance"], Value::Null, "a dry run changes nothing");
    let begun =
        api.put(SERVICE, json!({ "message": "moving\u{7}\nsoon", "retry_after": "90s", "reason": "disks" })).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let shown = api.get(SERVICE).await;
    assert_eq!(shown.etag(), begun.etag());
    let on = &shown.body["maintenance"];
    assert_eq!((on["message"].as_str(), on["retry_after"].as_str()), (Some("moving \nsoon"), Some("90s")));
    assert_eq!((on["author"]["name"].as_str(), on["since"].is_string()), (Some("local"), true));
    let stale = api.send("PUT", SERVICE, &[("if-match", "\"1\"")], json!({})).await;
    assert_eq!(stale.status, 412);
    assert_eq!(api.put(SERVICE, json!({})).await.body["after"]["retry_after"], "10m", "the default");
    assert_eq!(api.put(ACME, json!({ "message": "yours" })).await.status, 200);
    let service = api.get("/v1/services/accounting").await.body;
    assert_eq!((&service["maintenance"]["message"], &service["tenants_in_maintenance"]), (&json!(""), &json!(1)));
    let summary = &api.get("/v1/status").await.body["services"][0];
    assert_eq!(
        (&summary["maintenance"]["retry_after"], &summary["tenants_in_maintenance"]),
        (&json!("10m"), &json!(1))
    );
    assert_eq!(api.get(SERVICE).await.body["tenants"][0]["tenant"], "acme");
    let of_globex = api.get("/v1/services/accounting/tenants/globex/maintenance").await.body;
    assert_eq!((&of_globex["maintenance"], &of_globex["inherited"]["message"]), (&Value::Null, &json!("")));
    assert_eq!(api.delete(SERVICE).await.status, 200);
    assert_eq!(api.get(ACME).await.body["maintenance"]["message"], "yours");
    assert_eq!(api.delete(ACME).await.status, 200);
    assert_eq!(api.delete(ACME).await.status, 404);
    let events = api.get("/v1/events?kind=maintenance_on").await.body["events"].as_array().unwrap().clone();
    assert_eq!(
        (events.len(), events[0]["reason"].as_str(), events[2]["tenant"].as_str()),
        (3, Some("disks"), Some("acme"))
    );
    assert_eq!(events[0]["after"]["retry_after"], "90s");
    assert_eq!(
        api.get("/v1/events?kind=maintenance_off&tenant=acme").await.body["events"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn maintenance_that_makes_no_sense_is_refused() {
    let api = Api::new().await;
    for (body, field) in [
        (json!({ "retry_after": "soon" }), "retry_after"),
        (json!({ "retry_after": "0s" }), "retry_after"),
        (json!({ "retry_after": "31d" }), "retry_after"),
        (json!({ "message": "x".repeat(1_001) }), "message"),
        (json!({ "mesage": "x" }), "mesage"),
    ] {
        let answer = api.put(SERVICE, body.clone()).await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        assert_eq!(answer.body["errors"][0]["field"], field, "{answer:?}");
    }
    assert_eq!(api.get(SERVICE).await.body["maintenance"], Value::Null);
}

#[tokio::test]
async fn a_version_is_disabled_and_enabled() {
    let api = Api::new().await;
    assert_eq!(api.delete(SWITCH).await.status, 404);
    let done = api.put(SWITCH, json!({ "reason": "a CVE" })).await;
    assert_eq!((done.status, &done.body["after"]["weights"]), (200, &json!({ "1.0.0": 100 })), "{done:?}");
    let version = api.get("/v1/services/accounting").await.body["versions"][1].clone();
    assert_eq!((&version["role"], &version["share"]), (&json!("disabled"), &json!(0)));
    assert_eq!(
        (&version["disabled"]["reason"], &version["disabled"]["author"]["name"]),
        (&json!("a CVE"), &json!("local"))
    );
    assert_eq!(api.get("/v1/services").await.body["services"][0]["disabled_versions"], json!(["2.0.0"]));
    let refused = api.put("/v1/services/accounting/split", body_for("/split")).await;
    assert_eq!((refused.status, refused.body["type"].as_str()), (409, Some("urn:switchback:disabled")));
    assert!(refused.detail().contains("disabled by local (\"a CVE\")"), "{refused:?}");
    assert!(refused.detail().contains("switchback versions enable accounting 2.0.0"), "{refused:?}");
    let baseline = api.put("/v1/services/accounting/versions/1.0.0/disabled", json!({})).await;
    assert_eq!((baseline.status, baseline.detail().contains("1.0.0 is the baseline")), (422, true), "{baseline:?}");
    assert_eq!(api.put("/v1/services/accounting/versions/9/disabled", json!({})).await.status, 422);
    assert_eq!(api.delete(&format!("{SWITCH}?reason=mended")).await.status, 200);
    assert_eq!(api.get("/v1/services/accounting/split").await.body["weights"], json!({ "1.0.0": 100 }));
    assert_eq!(api.put("/v1/services/accounting/split", body_for("/split")).await.status, 200);
    for (kind, reason) in [("version_disabled", "a CVE"), ("version_enabled", "mended")] {
        let event = api.get(&format!("/v1/events?kind={kind}")).await.body["events"][0].clone();
        assert_eq!((&event["version"], &event["reason"]), (&json!("2.0.0"), &json!(reason)));
    }
}

#[tokio::test]
async fn tenants_that_use_a_version_are_listed_by_requests() {
    let api = Api::new().await;
    let path = "/v1/services/accounting/versions/2.0.0/tenants";
    let none = api.get(path).await;
    assert_eq!((none.status, &none.body["tenants"], &none.body["deprecated"]), (200, &json!([]), &Value::Null));
    api.put("/v1/services/accounting/pins/tenant/acme", json!({ "version": "2.0.0" })).await;
    api.put("/v1/services/accounting/groups/beta/split", json!({ "weights": { "2.0.0": 100 } })).await;
    api.put("/v1/services/accounting/tenants/umbrella/split", json!({ "weights": { "2.0.0": 100 } })).await;
    let service = crate::model::ServiceName::new("accounting").unwrap();
    let tally = api.tallies.service(&service);
    let version = crate::model::VersionName::new("2.0.0").unwrap();
    let now_us = api.now.load(Relaxed) * 1_000;
    let serve = |tenant: Option<&str>, requests: u64| {
        for _ in 0..requests {
            let draw = crate::telemetry::Draw::Chosen;
            let start = crate::telemetry::Start { tenant, version: &version, now_us, draw, split: None, pooled: false };
            tally.begin(&start).finish(crate::telemetry::Outcome::served(200), now_us);
        }
    };
    for (tenant, requests) in [("initech", 3), ("acme", 5), ("globex", 4), ("umbrella", 9)] {
        serve(Some(tenant), requests);
    }
    serve(None, 2);
    let report = api.get(path).await.body;
    let rows: Vec<_> = report["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["tenant"].as_str().unwrap(), t["requests"].as_u64().unwrap(), t["by"].as_str().unwrap()))
        .collect();
    let expected = [("umbrella", 9, "tenant"), ("acme", 5, "pin"), ("globex", 4, "group"), ("initech", 3, "service")];
    assert_eq!(rows, expected);
    assert_eq!(
        (&report["own_splits"], &report["pinned_tenants"], &report["more"]),
        (&json!(1), &json!(1), &json!(false))
    );
    assert_eq!(report["requests_without_tenant"], 2);
    let short = api.get(&format!("{path}?limit=1")).await.body;
    assert_eq!((short["tenants"].as_array().unwrap().len(), &short["more"]), (1, &json!(true)));
    assert_eq!(api.get("/v1/services/accounting/versions/9/tenants").await.status, 404);
    assert_eq!(api.get(&format!("{path}?window=1d")).await.status, 400);
}
