//! The way back stays open for a while after a rollout: the old version cannot be removed before.

use serde_json::{Value, json};

use crate::harness::{Backend, TestApp, two_versions};

/// A plan that advances without proof.
fn plan(to: &str, keep_warm: &str) -> Value {
    json!({
        "service": "shop", "to": to, "steps": [100], "bake": "100ms", "max_bake": "200ms", "on_insufficient": "advance",
        "min_requests": 0, "keep_warm": keep_warm,
    })
}

fn told(answer: &Value) -> &str {
    answer["detail"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_version_is_in_use_until_it_is_no_longer_kept_warm() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, "")).await;
    let version = "/v1/services/shop/versions/3.0.0";
    app.change("PUT", version, json!({ "endpoints": [new.address.to_string()] })).await;
    let first = app.rollout(plan("3.0.0", "1m")).await;
    app.rollout_until(&first, "complete", 10, |r| r["phase"] == "completed").await;
    // Back from the registered version, so that it is the one that is kept.
    let second = app.rollout(plan("2.0.0", "1h")).await;
    let done = app.rollout_until(&second, "complete", 10, |r| r["phase"] == "completed").await;
    let (status, refused) = app.api("DELETE", version, None).await;
    assert_eq!((status, &refused["type"]), (409, &json!("urn:switchback:in_use")), "{refused}");
    let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let warm_until = time(done["warm_until"].as_str().unwrap());
    assert_eq!(warm_until.duration_since(time(done["ended"].as_str().unwrap())).as_hours(), 1);
    let shown = jiff::Timestamp::from_second(warm_until.as_second()).unwrap();
    assert!(told(&refused).contains(&format!("kept warm until {shown} by rollout {second}")), "{refused}");
    // The same holds for a version that is left out of the file.
    let config = two_versions(&old, &new, "");
    let without = config.replace("baseline = \"1.0.0\"", "baseline = \"2.0.0\"");
    let table = format!("[services.shop.versions.\"1.0.0\"]\nendpoints = [\"{}\"]", old.address);
    app.write_config(&without.replace(&table, ""));
    let (status, refused) = app.api("POST", "/v1/reload", Some(json!({}))).await;
    assert_eq!(status, 409, "{refused}");
    assert!(told(&refused).contains(&format!("by rollout {first}")), "{refused}");
    // What was undone needs no way back.
    assert_eq!(app.lead(&second, "undo", json!({ "reason": "no" })).await.0, 200);
    assert_eq!(app.rollout_of(&second).await["warm_until"], Value::Null);
}
