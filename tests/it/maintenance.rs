//! Maintenance from outside: who is turned away, with what, and who passes.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Backend, Load, TestApp, until};

const TENANTS: &str = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n";
const SECRET: &str = "let-the-testers-in";

fn config(old: &Backend, new: &Backend, maintenance: &str) -> String {
    TENANTS.to_owned()
        + &crate::harness::two_versions(old, new, &format!("[services.shop.maintenance]\n{maintenance}\n"))
}

async fn start(maintenance: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&config(&old, &new, maintenance)).await;
    (old, new, app)
}

struct Got {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

async fn ask(app: &TestApp, method: Method, headers: &[(&str, &str)], body: &'static str) -> Got {
    let mut request = app.client.request(method, &app.proxy).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Got { status, headers, text: answer.text().await.unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_json_and_browsers_a_page_in_which_a_message_is_only_text() {
    let (old, new, app) = start("").await;
    let evil = "<script>alert(1)</script> & \"quotes\"";
    app.change("PUT", "/v1/services/shop/maintenance", json!({ "message": evil, "retry_after": "10m" })).await;
    let json = ask(&app, Method::GET, &[], "").await;
    assert_eq!((json.status, json.header("retry-after"), json.header("cache-control")), (503, "600", "no-store"));
    assert_eq!((json.header("content-type"), json.header("vary")), ("application/problem+json", "accept"));
    assert_eq!(json.header("proxy-status"), "switchback; error=http_request_denied");
    let document: Value = serde_json::from_str(&json.text).unwrap();
    assert_eq!(
        (&document["status"], &document["detail"], &document["retry_after"]),
        (&json!(503), &json!(evil), &json!(600))
    );
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = ask(&app, Method::GET, &[("accept", browser)], "").await;
    assert_eq!(
        (page.status, page.header("content-type"), page.header("retry-after")),
        (503, "text/html; charset=utf-8", "600")
    );
    assert!(page.text.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quotes&quot;"), "{}", page.text);
    assert!(!page.text.contains("<script") && page.text.contains("10 minutes"), "{}", page.text);
    let head = ask(&app, Method::HEAD, &[("accept", "text/html")], "").await;
    assert_eq!((head.status, head.text.as_str()), (503, ""));
    assert_eq!(head.header("content-length"), page.text.len().to_string());
    let post = ask(&app, Method::POST, &[], "a body that nobody reads").await;
    assert_eq!((post.status, post.header("connection")), (503, "close"));
    assert_eq!((old.script.requests(), new.script.requests()), (0, 0));
    assert_eq!(app.metric("switchback_refused_requests_total{reason=\"maintenance\"}").await, 4.0);
    let (_, stats) = app.api("GET", "/v1/services/shop/stats", None).await;
    assert!(stats["versions"].as_array().unwrap().iter().all(|v| v["requests"] == 0 && v["failures_total"] == 0));
    let (status, _) = app.api("DELETE", "/v1/services/shop/maintenance", None).await;
    assert_eq!((status, app.get("/", &[]).await.status), (200, 200));
    let (status, _) = app.api("DELETE", "/v1/services/shop/maintenance", None).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_is_turned_away_and_the_others_do_not_notice() {
    let (old, _new, app) = start("").await;
    let shape = Arc::new(|n: u64| ("/".to_owned(), vec![("x-tenant-id".to_owned(), format!("other-{}", n % 20))]));
    let load = Load::start(&app, 200, shape);
    until("traffic flows", Duration::from_secs(10), async || old.script.requests() > 20).await;
    app.change("PUT", "/v1/services/shop/tenants/acme/maintenance", json!({ "message": "yours", "retry_after": "1h" }))
        .await;
    let acme = ask(&app, Method::GET, &[("x-tenant-id", "acme")], "").await;
    assert_eq!((acme.status, acme.header("retry-after")), (503, "3600"));
    let before = old.script.requests();
    until("the others are served on", Duration::from_secs(10), async || old.script.requests() > before + 100).await;
    let seen = load.stop().await;
    assert_eq!(seen.failures, 0, "{seen:?}");
    let (_, service) = app.api("GET", "/v1/services/shop", None).await;
    assert_eq!((&service["maintenance"], &service["tenants_in_maintenance"]), (&Value::Null, &json!(1)));
    app.change("PUT", "/v1/services/shop/maintenance", json!({ "message": "all" })).await;
    let both = [
        ask(&app, Method::GET, &[("x-tenant-id", "acme")], "").await.text,
        ask(&app, Method::GET, &[("x-tenant-id", "globex")], "").await.text,
    ];
    assert!(both[0].contains("yours") && both[1].contains("\"all\""), "{both:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_secret_passes_and_no_endpoint_sees_it() {
    let (old, _new, app) = start(&format!("bypass_secret = \"{SECRET}\"")).await;
    app.change("PUT", "/v1/services/shop/maintenance", json!({})).await;
    assert_eq!(app.get("/", &[]).await.status, 503);
    assert_eq!(app.get("/", &[("x-switchback-bypass", "let-the-testers-on")]).await.status, 503);
    let answer = app.get("/", &[("x-switchback-bypass", SECRET), ("x-user-id", "u")]).await;
    assert_eq!((answer.status, answer.version.as_str()), (200, "1.0.0"));
    let seen = old.script.last();
    assert!(seen["headers"].get("x-switchback-bypass").is_none() && seen["headers"]["x-user-id"] == "u", "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_from_a_listed_network_passes() {
    let (old, new, app) = start("bypass = [\"127.0.0.0/8\"]").await;
    app.change("PUT", "/v1/services/shop/maintenance", json!({})).await;
    assert_eq!(app.get("/", &[]).await.status, 200);
    app.write_config(&config(&old, &new, "bypass = [\"10.0.0.0/8\"]"));
    app.change("POST", "/v1/reload", Value::Null).await;
    assert_eq!(app.get("/", &[]).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_and_the_operators_own_page_survive_a_restart() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let folder = Arc::new(tempfile::TempDir::new().unwrap());
    let page = "<html><body class=\"ours\"><p>{message}</p><i>{retry_after}</i></body></html>";
    std::fs::write(folder.path().join("closed.html"), page).unwrap();
    let text = config(&old, &new, "page = \"closed.html\"");
    let app = TestApp::start_in(folder, &text).await;
    app.change(
        "PUT",
        "/v1/services/shop/maintenance",
        json!({ "message": "<b>{retry_after}</b>", "retry_after": "2m" }),
    )
    .await;
    let expected = "<html><body class=\"ours\"><p>&lt;b&gt;{retry_after}&lt;/b&gt;</p><i>120</i></body></html>";
    let html = [("accept", "text/html")];
    assert_eq!(ask(&app, Method::GET, &html, "").await.text, expected);
    let app = TestApp::start_in(app.stop().await, &text).await;
    let again = ask(&app, Method::GET, &html, "").await;
    assert_eq!((again.status, again.text.as_str()), (503, expected));
    std::fs::write(app.folder.path().join("closed.html"), "<p>other</p>").unwrap();
    app.change("POST", "/v1/reload", Value::Null).await;
    assert_eq!(ask(&app, Method::GET, &html, "").await.text, "<p>other</p>");
    std::fs::remove_file(app.folder.path().join("closed.html")).unwrap();
    let (status, problem) = app.api("POST", "/v1/reload", None).await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(ask(&app, Method::GET, &html, "").await.text, "<p>other</p>", "a page that is gone changes nothing");
}
