//! Two versions side by side by route: the one route that a new version broke, and a table that junk does not fill.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::harness::{TestApp, until};

/// A small application with routes of its own: everything else is 404. One of them can be broken.
async fn application(broken: bool) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(move |request: Request| respond(request, broken));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn respond(request: Request, broken: bool) -> Response {
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = path.split('/').filter(|s| !s.is_empty()).collect();
    match parts[..] {
        ["v1", "orders", _] if broken => {
            tokio::time::sleep(Duration::from_millis(40)).await;
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        ["v1", "reports", _] if broken => {
            tokio::time::sleep(Duration::from_millis(40)).await;
            "a report".into_response()
        }
        ["v1", "orders" | "reports" | "users" | "files", ..] => path.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Both versions get requests by the header, so that counts are exact.
async fn start(more: &str, tenants: &str) -> TestApp {
    let (old, new) = (application(false).await, application(true).await);
    let text = format!(
        r#"
{tenants}
[services.shop]
match = [{{ path = "/" }}]
choose = {{ header = "x-want", secret = "0123456789abcdef" }}
baseline = "1.0.0"
{more}
[services.shop.versions."1.0.0"]
endpoints = ["{old}"]
[services.shop.versions."2.0.0"]
endpoints = ["{new}"]
"#
    );
    TestApp::start(&text).await
}

async fn ask(app: &TestApp, version: &str, path: &str) -> u16 {
    app.get(path, &[("x-want", &format!("{version}:0123456789abcdef"))]).await.status
}

async fn compare(app: &TestApp, query: &str) -> Vec<Value> {
    let path = format!("/v1/services/shop/compare?a=1.0.0&b=2.0.0&{query}");
    let (status, body) = app.api("GET", &path, None).await;
    assert_eq!(status, 200, "{body}");
    body["routes"].as_array().unwrap().clone()
}

async fn known(app: &TestApp) -> Vec<String> {
    let (_, stats) = app.api("GET", "/v1/services/shop/stats", None).await;
    stats["routes"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()).collect()
}

/// A request is counted when it has ended, which may be a moment after its client has the answer.
async fn counted(app: &TestApp, requests: u64) {
    until("every request is counted", Duration::from_secs(10), || async {
        let routes = compare(app, "routes=100").await;
        let of = |side: &str| routes.iter().map(|r| r[side]["requests"].as_u64().unwrap()).sum::<u64>();
        of("a") + of("b") == requests
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broken_route_is_on_top_and_the_others_are_fine() {
    let app = start("", "").await;
    for i in 0..30 {
        for version in ["1.0.0", "2.0.0"] {
            ask(&app, version, &format!("/v1/orders/{}?page=2", 1_000 + i)).await;
            ask(&app, version, &format!("/v1/reports/0b5f6c9e-3d0a-4c1e-9a67-0f1d2c3b4a{i:02}")).await;
            ask(&app, version, &format!("/v1/users/{i}/settings/")).await;
        }
    }
    counted(&app, 180).await;
    for query in ["since=5m", ""] {
        let routes = compare(&app, query).await;
        let names: Vec<_> = routes.iter().map(|r| r["route"].as_str().unwrap()).collect();
        let expected = ["GET /v1/orders/{id}", "GET /v1/reports/{id}", "GET /v1/users/{id}/settings"];
        assert_eq!(names, expected, "failing, then slow, then the rest");
        let excess = |key| routes.iter().map(|r| r[key].as_f64().unwrap() > 0.0).collect::<Vec<_>>();
        assert_eq!(excess("excess_failures"), [true, false, false], "{routes:?}");
        assert_eq!(excess("excess_slow"), [true, true, false], "{routes:?}");
        let broken = &routes[0];
        assert_eq!((broken["a"]["requests"].as_u64(), broken["b"]["requests"].as_u64()), (Some(30), Some(30)));
        assert_eq!(
            (broken["a"]["failures_total"].as_u64(), broken["b"]["failures"]["status"].as_u64()),
            (Some(0), Some(30))
        );
        assert_eq!(broken["b"]["error_rate"], 1.0);
        let p90 = |side: &str| broken[side]["latency"]["p90"].as_f64().unwrap();
        assert!(p90("b") > 0.039 && p90("a") < p90("b"), "{broken}");
        assert_eq!(routes[1]["b"]["failures_total"], 0);
    }
    let query = "/v1/services/shop/stats?window=5m&route=GET%20/v1/orders/%7Bid%7D";
    let (_, stats) = app.api("GET", query, None).await;
    assert_eq!(
        (stats["versions"][1]["failures_total"].as_u64(), stats["route"].as_str()),
        (Some(30), Some("GET /v1/orders/{id}"))
    );
    assert_eq!(compare(&app, "routes=1").await.len(), 1);
    let (status, problem) = app.api("GET", "/v1/services/shop/stats?route=GET%20/v1/order/%7Bid%7D", None).await;
    assert!(status == 404 && problem["detail"].as_str().unwrap().contains("did you mean"), "{problem}");
    assert_eq!(app.api("GET", "/v1/services/shop/compare?a=1.0.0&b=2.0.0&routes=101", None).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_does_not_fill_the_table() {
    let app = std::sync::Arc::new(start("", "").await);
    let junk = (0..20).map(|worker| {
        let app = app.clone();
        tokio::spawn(async move {
            for i in 0..500 {
                let letters: String =
                    (0..3).map(|n| char::from(b'a' + ((worker * 500 + i) / 20_usize.pow(n) % 20) as u8)).collect();
                assert_eq!(ask(&app, "1.0.0", &format!("/wp-{letters}/admin.php")).await, 404);
            }
        })
    });
    for task in junk.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(ask(&app, "1.0.0", "/v1/orders/7").await, 200);
    assert_eq!(ask(&app, "2.0.0", "/v1/users/7/settings").await, 200);
    counted(&app, 10_002).await;
    assert_eq!(known(&app).await, ["GET /v1/orders/{id}", "GET /v1/users/{id}/settings", "_other"]);
    let routes = compare(&app, "").await;
    assert_eq!((routes[0]["route"].as_str(), routes[0]["a"]["requests"].as_u64()), (Some("_other"), Some(10_000)));
    // Names that the version does know are bounded all the same.
    for first in b'a'..=b'p' {
        for second in b'a'..=b'p' {
            ask(&app, "1.0.0", &format!("/v1/files/{}{}", char::from(first), char::from(second))).await;
        }
    }
    until("the table is full", Duration::from_secs(10), || async { known(&app).await.len() == 101 }).await;
    let names = known(&app).await;
    assert!(names.contains(&"GET /v1/orders/{id}".to_owned()) && names[100] == "_other", "{names:?}");
    let metrics = app.metrics().await;
    assert!(!metrics.contains("/v1/orders"), "routes are no labels");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_names_routes_and_may_switch_them_off() {
    let routes = r#"routes = ["GET /v1/users/{name}", "/v1/files/*", "GET /v1/files/index"]"#;
    let app = start(routes, "").await;
    for path in ["users/alice", "users/bob", "files/a/b/c", "files/index", "files", "orders/7"] {
        ask(&app, "1.0.0", &format!("/v1/{path}")).await;
    }
    let posted = app.client.post(format!("{}/v1/files/index", app.proxy)).send().await.unwrap();
    assert_eq!(posted.status(), 200);
    counted(&app, 7).await;
    let mut seen: Vec<_> = compare(&app, "")
        .await
        .iter()
        .map(|r| (r["route"].clone(), r["configured"] == true, r["a"]["requests"].as_u64().unwrap()))
        .collect();
    seen.sort_by_key(|(name, ..)| name.to_string());
    let expected = [
        ("/v1/files/*", true, 3),
        ("GET /v1/files/index", true, 1),
        ("GET /v1/orders/{id}", false, 1),
        ("GET /v1/users/{name}", true, 2),
    ];
    assert_eq!(seen, expected.map(|(n, c, r)| (Value::from(n), c, r)));
    let text = std::fs::read_to_string(app.folder.path().join("switchback.toml")).unwrap();
    app.write_config(&text.replace(routes, "route_stats = false"));
    app.change("POST", "/v1/reload", Value::Null).await;
    ask(&app, "1.0.0", "/v1/orders/8").await;
    until("the routes are forgotten", Duration::from_secs(10), || async { known(&app).await.is_empty() }).await;
    ask(&app, "1.0.0", "/v1/orders/9").await;
    let (_, stats) = app.api("GET", "/v1/services/shop/stats", None).await;
    assert!(
        stats["versions"][0]["requests"].as_u64().unwrap() >= 8 && stats["routes"] == serde_json::json!([]),
        "{stats}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_in_paths_are_one_route() {
    for strip in [true, false] {
        let app =
            start("", &format!("[tenants]\nidentify = [{{ path = \"/v1/users/{{tenant}}\", strip = {strip} }}]")).await;
        for tenant in ["acme", "globex", "initech"] {
            let path = format!("/v1/users/{tenant}{}/orders/12", if strip { "/v1" } else { "" });
            assert_eq!(ask(&app, "1.0.0", &path).await, 200);
        }
        counted(&app, 3).await;
        let expected = if strip { "GET /v1/orders/{id}" } else { "GET /v1/users/{tenant}/orders/{id}" };
        assert_eq!(known(&app).await, [expected]);
        assert!(compare(&app, "tenant=acme").await.is_empty(), "routes are counted over all tenants");
        let (status, problem) = app.api("GET", "/v1/services/shop/stats?tenant=acme&route=x", None).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains("over all tenants"), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_go_with_their_version() {
    let app = start("", "").await;
    let extra = application(false).await;
    app.change("PUT", "/v1/services/shop/versions/3.0.0", serde_json::json!({ "endpoints": [extra.to_string()] }))
        .await;
    ask(&app, "1.0.0", "/v1/users/1/a").await;
    ask(&app, "3.0.0", "/v1/users/1/b").await;
    counted(&app, 1).await;
    until("both routes", Duration::from_secs(10), || async { known(&app).await.len() == 2 }).await;
    assert_eq!(app.api("DELETE", "/v1/services/shop/versions/3.0.0", None).await.0, 200);
    assert_eq!(known(&app).await, ["GET /v1/users/{id}/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rescued_is_the_canarys_failure_here_too() {
    let app = start("rescue = true\nguard = { enabled = false }", "").await;
    app.split("shop", 100.0).await;
    for i in 0..10 {
        assert_eq!(app.get(&format!("/v1/orders/{i}"), &[]).await.status, 200, "the baseline answers");
    }
    counted(&app, 10).await;
    let routes = compare(&app, "").await;
    assert_eq!((routes.len(), routes[0]["b"]["failures_total"].as_u64()), (1, Some(10)), "{routes:?}");
    assert_eq!(routes[0]["a"]["requests"], 0, "as in the totals, a rescue is not the baseline's request");
}
