//! Allowed days and hours: a rollout waits for those of its service, and tenants come when their own allow it.

use serde_json::{Value, json};

use crate::harness::{Backend, TestApp, two_versions};

const HOUR_MS: i64 = 3_600_000;

/// A window that is closed now and opens in an hour, with that moment, to the minute.
fn opens_in_an_hour() -> (String, jiff::Timestamp) {
    let clock = |ms: i64| {
        let at = jiff::Timestamp::from_millisecond(jiff::Timestamp::now().as_millisecond() + ms).unwrap();
        let minute = at.as_second() / 60 * 60;
        jiff::Timestamp::from_second(minute).unwrap()
    };
    let (from, to) = (clock(HOUR_MS), clock(2 * HOUR_MS));
    let text = |at: jiff::Timestamp| at.strftime("%H:%M").to_string();
    (format!("{{ from = \"{}\", to = \"{}\", timezone = \"UTC\" }}", text(from), text(to)), from)
}

/// A plan that advances without proof.
fn plan(more: Value) -> Value {
    let mut plan = json!({
        "service": "shop", "to": "2.0.0", "steps": [100], "bake": "100ms", "max_bake": "200ms",
        "on_insufficient": "advance", "min_requests": 0,
    });
    plan.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_waits_for_the_windows_of_its_service() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let (window, opens) = opens_in_an_hour();
    let config = |windows: &str| two_versions(&old, &new, &format!("windows = [{windows}]"));
    let app = TestApp::start(&config(&window)).await;
    let (_, service) = app.api("GET", "/v1/services/shop", None).await;
    assert_eq!(service["windows"][0]["timezone"], "UTC", "{service}");
    let (_, report) = app.api("POST", "/v1/rollouts?dry_run=true", Some(plan(json!({})))).await;
    assert!(report["risks"].to_string().contains("outside its windows until"), "{report}");
    let id = app.rollout(plan(json!({}))).await;
    let waits = app.rollout_until(&id, "waiting", 5, |r| r["waiting"]["on"] == "window").await;
    let until: jiff::Timestamp = waits["waiting"]["until"].as_str().unwrap().parse().unwrap();
    assert_eq!(until, opens, "{waits}");
    assert_eq!(waits["phase"], "pending");
    // The windows follow a reload.
    let all_day = "{ from = \"00:00\", to = \"24:00\", timezone = \"Europe/Berlin\" }";
    app.write_config(&config(&format!("{window}, {all_day}")));
    app.change("POST", "/v1/reload", Value::Null).await;
    app.rollout_until(&id, "complete", 10, |r| r["phase"] == "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_comes_when_its_own_window_opens_and_the_others_do_not_wait() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let (window, opens) = opens_in_an_hour();
    let config = |windows: &str| {
        let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]";
        format!("{tenants}\nwindows = {{ acme = [{windows}] }}\n{}", two_versions(&old, &new, ""))
    };
    let app = TestApp::start(&config(&window)).await;
    let tenants = plan(json!({ "tenants": ["acme", "globex"] }));
    let (_, report) = app.api("POST", "/v1/rollouts?dry_run=true", Some(tenants.clone())).await;
    assert!(report["risks"].to_string().contains("1 tenants are outside their own windows"), "{report}");
    let id = app.rollout(tenants).await;
    let waits = app.rollout_until(&id, "waiting", 5, |r| r["waiting"]["on"] == "window").await;
    assert_eq!((&waits["counts"]["in_progress"], &waits["counts"]["pending"]), (&json!(1), &json!(1)), "{waits}");
    let until: jiff::Timestamp = waits["waiting"]["until"].as_str().unwrap().parse().unwrap();
    assert_eq!(until, opens, "{waits}");
    let (_, split) = app.api("GET", "/v1/services/shop/tenants/globex/split", None).await;
    assert_eq!(split["weights"]["2.0.0"], 95, "{split}");
    app.write_config(&config(""));
    app.change("POST", "/v1/reload", Value::Null).await;
    app.rollout_until(&id, "complete", 10, |r| r["counts"]["completed"] == 2).await;
}
