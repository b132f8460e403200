//! Features that meet: what one of them promises must hold while another is at work.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Backend, TestApp, two_versions, until};

const DISABLED: &str = "/v1/services/shop/versions/2.0.0/disabled";

async fn start(more: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, more)).await;
    (old, new, app)
}

/// The version that answers, and the session cookie that came with it.
async fn visit(app: &TestApp, cookie: Option<&str>) -> (String, Option<String>) {
    let headers: Vec<_> = [("x-user-id", "u1")].into_iter().chain(cookie.map(|c| ("cookie", c))).collect();
    let answer = app.get("/", &headers).await;
    assert_eq!(answer.status, 200);
    let set = answer.headers.get("set-cookie").map(|v| v.to_str().unwrap().split(';').next().unwrap().to_owned());
    (answer.version, set)
}

fn with_sessions(text: &str) -> String {
    text.replace("{ header = \"x-user-id\" }", "{ header = \"x-user-id\", session = true }")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kill_switch_ends_sessions_and_enabling_does_not_bring_them_back() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&with_sessions(&two_versions(&old, &new, ""))).await;
    app.split("shop", 100.0).await;
    let (version, cookie) = visit(&app, None).await;
    assert_eq!(version, "2.0.0");
    let cookie = cookie.unwrap();
    app.change("PUT", DISABLED, json!({ "reason": "broken" })).await;
    let (version, fresh) = visit(&app, Some(&cookie)).await;
    assert_eq!(version, "1.0.0");
    assert!(fresh.is_some(), "a session of the version that serves now");
    app.change("DELETE", DISABLED, json!({})).await;
    assert_eq!(visit(&app, Some(&cookie)).await.0, "1.0.0", "nor for a client that kept its old cookie");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_version_gets_no_copies_and_no_assets_are_fetched_from_it() {
    let shadow = "skew = [\"/assets\"]\nshadow = { version = \"2.0.0\", share = 100 }\n";
    let (old, new, app) = start(shadow).await;
    app.get("/", &[]).await;
    until("the first copy", Duration::from_secs(10), || async { new.script.requests() == 1 }).await;
    app.change("PUT", DISABLED, json!({ "reason": "it overloads the database" })).await;
    *old.script.missing.lock().unwrap() = vec!["/assets".to_owned()];
    let before = new.script.requests();
    for _ in 0..20 {
        assert_eq!(app.get("/", &[]).await.version, "1.0.0");
        assert_eq!(app.get("/assets/x.js", &[]).await.status, 404);
    }
    // Switched on again, the next copy comes: so those before would have been here by now.
    app.change("DELETE", DISABLED, json!({})).await;
    app.get("/", &[]).await;
    until("a copy", Duration::from_secs(10), || async { new.script.requests() > before }).await;
    assert_eq!(new.script.requests(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescued_user_of_a_session_is_counted_on_the_route_and_keeps_the_session() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&with_sessions(&two_versions(&old, &new, "rescue = true"))).await;
    app.split("shop", 100.0).await;
    let (version, cookie) = visit(&app, None).await;
    assert_eq!(version, "2.0.0");
    let cookie = cookie.unwrap();
    new.script.status.store(503, SeqCst);
    assert_eq!(visit(&app, Some(&cookie)).await.0, "1.0.0", "rescued");
    new.script.status.store(200, SeqCst);
    assert_eq!(visit(&app, Some(&cookie)).await.0, "2.0.0", "the session goes on");
    let compare = "/v1/services/shop/compare?a=1.0.0&b=2.0.0";
    until("the requests to be counted", Duration::from_secs(5), || async {
        let (_, answer) = app.api("GET", compare, None).await;
        answer["routes"][0]["b"]["requests"] == 3
    })
    .await;
    let (_, answer) = app.api("GET", compare, None).await;
    assert_eq!(answer["routes"][0]["route"], "GET /");
    assert_eq!(answer["routes"][0]["b"]["failures_total"], 1, "{answer}");
    assert_eq!(answer["routes"][0]["a"]["requests"], 0, "the rescue is no request of the baseline's");
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_closes_for_sessions_and_copies_too() {
    let more = "shadow = { version = \"2.0.0\", share = 100 }\nrescue = true\n";
    let (old, new, app) = start(more).await;
    app.change("PUT", "/v1/services/shop/maintenance", json!({ "retry_after": "1m" })).await;
    for _ in 0..5 {
        let answer = app.get("/", &[("x-user-id", "u1")]).await;
        assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (503, "60"));
    }
    assert_eq!((old.script.requests(), new.script.requests()), (0, 0));
    app.change("DELETE", "/v1/services/shop/maintenance", json!({})).await;
    assert_eq!(app.get("/", &[]).await.status, 200);
}
