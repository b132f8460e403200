//! Weighted, sticky splits on real requests.

use std::collections::HashMap;

use serde_json::json;

use crate::harness::{Backend, TestApp, two_versions};

async fn start(more: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, more)).await;
    (old, new, app)
}

async fn assignment(app: &TestApp, users: usize) -> HashMap<String, String> {
    let mut seen = HashMap::new();
    for i in 0..users {
        let key = format!("user-{i}");
        seen.insert(key.clone(), app.version_of(&key).await);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn users_stay_and_move_only_towards_the_version_that_grows() {
    let (_old, _new, app) = start("").await;
    let mut before = assignment(&app, 400).await;
    assert!(before.values().all(|v| v == "1.0.0"), "100 % on the baseline at first");
    for percent in [10.0, 25.0, 50.0, 100.0] {
        app.split("shop", percent).await;
        let after = assignment(&app, 400).await;
        let on_new = after.values().filter(|v| *v == "2.0.0").count() as f64;
        let (mean, error) = (4.0 * percent, (4.0 * percent * (1.0 - percent / 100.0)).sqrt());
        assert!((on_new - mean).abs() <= 5.0 * error + 0.5, "{on_new} of 400 at {percent} %");
        for (key, version) in &after {
            assert!(version == "2.0.0" || before[key] == "1.0.0", "{key} moved back while the share grew");
        }
        assert_eq!(after, assignment(&app, 400).await, "sticky on both sides");
        before = after;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backend_and_client_are_told_the_version() {
    let (_old, new, app) = start("").await;
    app.split("shop", 100.0).await;
    let answer = app
        .get("/x?y=1", &[("x-user-id", "u"), ("x-switchback-version", "forged"), ("x-switchback-tenant", "forged")])
        .await;
    assert_eq!((answer.status, answer.version.as_str()), (200, "2.0.0"));
    let seen = new.script.last();
    assert_eq!(seen["headers"]["x-switchback-version"], "2.0.0");
    assert!(seen["headers"].get("x-switchback-tenant").is_none());
    assert_eq!(seen["path"], "/x?y=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_nothing_gets_a_signed_cookie_and_stays() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = two_versions(&old, &new, "split = { \"1.0.0\" = 50, \"2.0.0\" = 50 }")
        .replace("sticky = [{ header = \"x-user-id\" }]", "sticky = [{ cookie = \"sb\", issue = true }]");
    let app = TestApp::start(&text).await;
    let mut versions = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let first = app.get("/", &[]).await;
        let cookie = first.headers.get("set-cookie").unwrap().to_str().unwrap().to_owned();
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains("Secure"),
            "{cookie}"
        );
        let value = cookie.split(';').next().unwrap().to_owned();
        for _ in 0..3 {
            let again = app.get("/", &[("cookie", &value)]).await;
            assert_eq!(again.version, first.version);
            assert!(again.headers.get("set-cookie").is_none(), "issued once");
        }
        let forged = app.get("/", &[("cookie", &format!("{value}x"))]).await;
        assert!(forged.headers.get("set-cookie").is_some(), "a forged cookie is a new visitor");
        versions.insert(first.version);
    }
    assert_eq!(versions.len(), 2, "both versions get new visitors");
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_go_before_weights_and_exclusions_before_pins() {
    let (_old, _new, app) = start("").await;
    app.change("PUT", "/v1/services/shop/pins/user/alice", json!({ "version": "2.0.0" })).await;
    assert_eq!(app.version_of("alice").await, "2.0.0");
    assert_eq!(app.version_of("bob").await, "1.0.0");
    app.split("shop", 100.0).await;
    app.change("PUT", "/v1/services/shop/pins/user/bob", json!({ "exclude": "2.0.0" })).await;
    assert_eq!(app.version_of("bob").await, "1.0.0");
    let (status, _) = app.api("DELETE", "/v1/services/shop/pins/user/bob", None).await;
    assert_eq!(status, 200);
    assert_eq!(app.version_of("bob").await, "2.0.0");
    let (status, answer) = app.api("PUT", "/v1/services/shop/pins/user/bob", Some(json!({ "exclude": "1.0.0" }))).await;
    assert_eq!(status, 422, "the baseline cannot be excluded: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versioned_paths_are_versions_and_are_rewritten() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let text = format!(
        r#"
[services.shop]
match = [{{ path = "/api" }}]
baseline = "1.0.0"
[services.shop.versions."1.0.0"]
endpoints = ["{}"]
path = "/api/v1"
rewrite = {{ from = "/api/v1", to = "/" }}
[services.shop.versions."2.0.0"]
endpoints = ["{}"]
path = "/api/v2"
rewrite = {{ from = "/api/v2", to = "/new" }}
"#,
        old.address, new.address
    );
    let app = TestApp::start(&text).await;
    let one = app.get("/api/v1/orders?id=7", &[]).await;
    assert_eq!((one.version.as_str(), one.seen["path"].as_str().unwrap()), ("1.0.0", "/orders?id=7"));
    let two = app.get("/api/v2/orders?id=7", &[]).await;
    assert_eq!((two.version.as_str(), two.seen["path"].as_str().unwrap()), ("2.0.0", "/new/orders?id=7"));
    assert_eq!(app.get("/api/v22", &[]).await.version, "1.0.0");
    assert_eq!(app.get("/other", &[]).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn testers_choose_with_the_secret_only() {
    let (_old, _new, app) = start("choose = { header = \"x-version\", secret = \"a-long-secret-for-testers\" }").await;
    let ask = |value: &'static str| {
        let app = &app;
        async move { app.get("/", &[("x-user-id", "u"), ("x-version", value)]).await }
    };
    assert_eq!(ask("2.0.0").await.version, "1.0.0");
    assert_eq!(ask("2.0.0:wrong").await.version, "1.0.0");
    assert_eq!(ask("2.0.0:a-long-secret-for-testers").await.version, "2.0.0");
    assert_eq!(ask("9.9.9:a-long-secret-for-testers").await.version, "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_the_same_as_the_request() {
    let (_old, _new, app) = start("").await;
    app.split("shop", 30.0).await;
    for i in 0..50 {
        let key = format!("user-{i}");
        let (status, answer) = app.api("GET", &format!("/v1/services/shop/explain?key={key}&path=/x"), None).await;
        assert_eq!(status, 200);
        assert_eq!(answer["version"], app.version_of(&key).await, "{answer}");
        assert!(answer["steps"].as_array().unwrap().iter().any(|s| s["step"] == "bucket"), "{answer}");
    }
}
