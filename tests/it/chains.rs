//! Ways through intermediate versions: one rollout after the other, by the same plan.

use serde_json::{Value, json};

use crate::harness::{Backend, TestApp, two_versions};

/// A plan that advances without proof.
fn plan(more: Value) -> Value {
    let mut plan = json!({
        "service": "shop", "to": "2.0.0", "steps": [50, 100], "bake": "100ms", "max_bake": "200ms",
        "on_insufficient": "advance", "min_requests": 0, "reason": "release 2",
    });
    plan.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    plan
}

/// Version 2.0.0 may follow 1.5.0 only.
async fn start() -> (Vec<Backend>, TestApp) {
    let mut backends = Vec::new();
    for version in ["1.0.0", "2.0.0", "1.5.0"] {
        backends.push(Backend::start(version).await);
    }
    let config = two_versions(&backends[0], &backends[1], "") + "upgrade_from = [\"1.5.0\"]\n";
    let app = TestApp::start(&config).await;
    let between = json!({ "endpoints": [backends[2].address.to_string()], "upgrade_from": ["1.0.0"] });
    app.change("PUT", "/v1/services/shop/versions/1.5.0", between).await;
    (backends, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_reached_by_way_of_the_one_that_it_may_follow() {
    let (_backends, app) = start().await;
    let (status, report) = app.api("POST", "/v1/rollouts?dry_run=true", Some(plan(json!({})))).await;
    assert_eq!((status, &report["path"]), (200, &json!(["1.0.0", "1.5.0", "2.0.0"])), "{report}");
    let checks = report["checks"].as_array().unwrap();
    let catalogue = checks.iter().find(|check| check["check"] == "catalogue").unwrap();
    assert!(catalogue["message"].as_str().unwrap().contains("by way of 1.5.0"), "{report}");
    let first = app.rollout(plan(json!({}))).await;
    let begun = app.rollout_of(&first).await;
    assert_eq!((&begun["to"], &begun["then"]), (&json!("1.5.0"), &json!(["2.0.0"])), "{begun}");
    let done = app.rollout_until(&first, "complete", 15, |r| r["phase"] == "completed").await;
    let second = done["followed_by"].as_str().unwrap().to_owned();
    let followed = app.rollout_until(&second, "complete", 15, |r| r["phase"] == "completed").await;
    assert_eq!((&followed["from"], &followed["to"]), (&json!("1.5.0"), &json!("2.0.0")), "{followed}");
    assert_eq!((&followed["follows"], &followed["then"]), (&json!(first), &json!([])), "{followed}");
    assert_eq!(followed["author"], begun["author"]);
    let (_, service) = app.api("GET", "/v1/services/shop", None).await;
    assert_eq!(service["baseline"], "2.0.0");
    // Both starts are in the history, numbered like everything else, and each rollout has its own.
    let started = app.events("kind=rollout_started").await;
    let of: Vec<_> = started.iter().map(|e| e["rollout"].as_str().unwrap()).collect();
    assert!(of.len() == 2 && of.contains(&first.as_str()) && of.contains(&second.as_str()), "{started:?}");
    let (_, logs) = app.api("GET", &format!("/v1/rollouts/{second}/logs"), None).await;
    assert_eq!(logs["events"][0]["kind"], "rollout_started", "{logs}");
    let (_, logs) = app.api("GET", &format!("/v1/rollouts/{first}/logs"), None).await;
    assert_eq!(logs["units"][0]["status"], "completed", "{logs}");
    // Only the last leg can be taken back.
    let (status, refused) = app.lead(&first, "undo", json!({ "reason": "no" })).await;
    assert_eq!(status, 409, "{refused}");
    assert_eq!(app.lead(&second, "undo", json!({ "reason": "no" })).await.0, 200);
    assert_eq!(app.api("GET", "/v1/services/shop", None).await.1["baseline"], "1.5.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_way_it_is_said_what_each_version_allows() {
    let (backends, app) = start().await;
    let refused = async |more: Value, part: &str| {
        let (status, answer) = app.api("POST", "/v1/rollouts", Some(plan(more))).await;
        assert!(status == 422 && answer["detail"].as_str().unwrap().contains(part), "{status} {answer}");
    };
    refused(json!({ "tenants": ["acme"] }), "only the whole service can go there first").await;
    let other = json!({ "endpoints": [backends[2].address.to_string()] });
    app.change("PUT", "/v1/services/shop/versions/1.6.0", other).await;
    refused(json!({ "to": "1.6.0", "then": ["2.0.0"] }), "2.0.0 cannot follow 1.6.0").await;
    let between = json!({ "endpoints": [backends[2].address.to_string()], "upgrade_from": ["1.4.0"] });
    app.change("PUT", "/v1/services/shop/versions/1.5.0", between).await;
    refused(json!({}), "1.5.0 may follow 1.4.0 only, 2.0.0 may follow 1.5.0 only").await;
    assert_eq!(app.api("GET", "/v1/rollouts", None).await.1["rollouts"], json!([]));
}
