//! The kill switch from outside: every way to the version ends at the baseline, at once, and no request fails by it.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Backend, Load, TestApp, two_versions, until};

const SECRET: &str = "0123456789abcdef";
const SWITCH: &str = "/v1/services/shop/versions/2.0.0/disabled";

fn config(old: &Backend, new: &Backend) -> String {
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\ngroups = { beta = [\"globex\"] }\n";
    let choose = format!("choose = {{ header = \"x-version\", secret = \"{SECRET}\" }}");
    format!("{tenants}{}path = \"/v2\"\n", two_versions(old, new, &choose))
}

/// What it is, a path, and headers.
type Way = (&'static str, &'static str, Vec<(&'static str, &'static str)>);

/// Every way to the new version: what the request looks like.
fn ways() -> [Way; 6] {
    [
        ("the service's split", "/", vec![("x-user-id", "u1")]),
        ("a group's split", "/", vec![("x-user-id", "u1"), ("x-tenant-id", "globex")]),
        ("a tenant's split", "/", vec![("x-user-id", "u1"), ("x-tenant-id", "initech")]),
        ("a pin", "/", vec![("x-user-id", "u1"), ("x-tenant-id", "acme")]),
        ("a choice", "/", vec![("x-user-id", "u1"), ("x-version", "2.0.0:0123456789abcdef"), ("x-tenant-id", "hooli")]),
        ("a path", "/v2/x", vec![("x-user-id", "u1"), ("x-tenant-id", "hooli")]),
    ]
}

async fn versions(app: &TestApp) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (way, path, headers) in ways() {
        found.push((way, app.get(path, &headers).await.version));
    }
    found
}

fn all_on(version: &str) -> Vec<(&'static str, String)> {
    ways().into_iter().map(|(way, ..)| (way, version.to_owned())).collect()
}

async fn start() -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&config(&old, &new)).await;
    let all = json!({ "weights": { "2.0.0": 100 } });
    for scope in ["", "/groups/beta", "/tenants/initech"] {
        app.change("PUT", &format!("/v1/services/shop{scope}/split"), all.clone()).await;
    }
    app.change("PUT", "/v1/services/shop/pins/tenant/acme", json!({ "version": "2.0.0" })).await;
    assert_eq!(versions(&app).await, all_on("2.0.0"));
    (old, new, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_a_disabled_version_ends_at_the_baseline_and_no_request_fails() {
    let (old, new, app) = start().await;
    let shape = Arc::new(|n: u64| {
        let (_, path, headers) = ways()[(n % 6) as usize].clone();
        (path.to_owned(), headers.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
    });
    let load = Load::start(&app, 300, shape);
    until("traffic flows", Duration::from_secs(10), async || new.script.requests() > 100).await;
    let done = app.change("PUT", SWITCH, json!({ "reason": "a CVE" })).await;
    assert_eq!((&done["after"]["weights"], &done["after"]["pins_suspended"]), (&json!({ "1.0.0": 100 }), &json!(1)));
    assert_eq!(versions(&app).await, all_on("1.0.0"));
    let before = old.script.requests();
    until("the baseline serves", Duration::from_secs(10), async || old.script.requests() > before + 100).await;
    // Whatever was decided before the change has arrived by now.
    let last = new.script.requests();
    let before = old.script.requests();
    until("the baseline serves on", Duration::from_secs(10), async || old.script.requests() > before + 200).await;
    assert_eq!(new.script.requests(), last, "nothing reaches a disabled version");
    let seen = load.stop().await;
    assert_eq!(seen.failures, 0, "{seen:?}");
    let (_, explained) = app.api("GET", "/v1/services/shop/explain?tenant=initech&key=u1", None).await;
    assert!(explained.to_string().contains("2.0.0, which is disabled; 1.0.0 has its share"), "{explained}");
    let event = &app.events("kind=version_disabled").await[0];
    assert_eq!(
        (&event["version"], &event["reason"], &event["author"]["name"]),
        (&json!("2.0.0"), &json!("a CVE"), &json!("local"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_may_lead_to_a_disabled_version_and_the_baseline_cannot_be_one() {
    let (_old, _new, app) = start().await;
    app.change("PUT", SWITCH, json!({ "reason": "a CVE" })).await;
    let some = json!({ "weights": { "1.0.0": 90, "2.0.0": 10 } });
    let pin = json!({ "version": "2.0.0" });
    for (path, body) in [
        ("split", &some),
        ("groups/beta/split", &some),
        ("tenants/initech/split", &some),
        ("pins/tenant/acme", &pin),
        ("pins/user/u1", &pin),
        ("baseline", &pin),
    ] {
        let (status, problem) = app.api("PUT", &format!("/v1/services/shop/{path}"), Some(body.clone())).await;
        assert_eq!((status, &problem["type"]), (409, &json!("urn:switchback:disabled")), "{path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("2.0.0") && detail.contains("by local") && detail.contains("versions enable shop 2.0.0"),
            "{detail}"
        );
    }
    let (status, problem) = app.api("PUT", "/v1/services/shop/versions/1.0.0/disabled", Some(json!({}))).await;
    assert_eq!(status, 422);
    assert!(problem["detail"].as_str().unwrap().contains("1.0.0 is the baseline of shop"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn enabling_brings_nothing_back_by_itself_and_all_of_it_survives_a_restart() {
    let (old, new, app) = start().await;
    app.change("PUT", SWITCH, json!({ "reason": "a CVE" })).await;
    let app = TestApp::start_in(app.stop().await, &config(&old, &new)).await;
    assert_eq!(versions(&app).await, all_on("1.0.0"), "after a restart");
    let (status, receipt) = app.api("DELETE", &format!("{SWITCH}?reason=mended"), None).await;
    assert_eq!(status, 200, "{receipt}");
    // Whoever asks for the version by name or path gets it; nobody else does.
    let stays = |found: Vec<(&'static str, String)>| {
        found.into_iter().filter(|(way, _)| !matches!(*way, "a choice" | "a path")).all(|(_, v)| v == "1.0.0")
    };
    assert!(stays(versions(&app).await));
    let app = TestApp::start_in(app.stop().await, &config(&old, &new)).await;
    assert!(stays(versions(&app).await), "after another restart");
    app.change("PUT", "/v1/services/shop/split", json!({ "weights": { "2.0.0": 100 } })).await;
    app.change("PUT", "/v1/services/shop/pins/tenant/acme", json!({ "version": "2.0.0" })).await;
    let found = versions(&app).await;
    assert_eq!((found[0].1.as_str(), found[3].1.as_str()), ("2.0.0", "2.0.0"), "until somebody sets them again");
    let (status, _) = app.api("DELETE", SWITCH, None).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_makes_nothing_of_a_version_that_was_disabled() {
    let (_old, new, app) = start().await;
    app.split("shop", 50.0).await;
    let load = Load::start(&app, 200, crate::harness::many_users(500));
    until("evidence gathers", Duration::from_secs(10), async || {
        let (_, stats) = app.api("GET", "/v1/services/shop/stats", None).await;
        !stats["comparisons"].as_array().unwrap().is_empty()
    })
    .await;
    app.change("PUT", SWITCH, json!({})).await;
    new.script.status.store(500, SeqCst);
    until("the comparison is over", Duration::from_secs(10), async || {
        let (_, stats) = app.api("GET", "/v1/services/shop/stats", None).await;
        stats["comparisons"] == json!([])
    })
    .await;
    let seen = load.stop().await;
    assert_eq!(seen.failures, 0, "{seen:?}");
    assert_eq!(app.events("kind=rollback").await, Vec::<Value>::new());
}
