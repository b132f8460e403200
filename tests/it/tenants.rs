//! Tenants found in requests, and splits of their own.

use serde_json::json;

use crate::harness::{Backend, TestApp, two_versions};

async fn start(tenants: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&format!("{tenants}\n{}", two_versions(&old, &new, ""))).await;
    (old, new, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_split_wins() {
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\ngroups = { beta = [\"acme\", \"globex\"] }";
    let (_old, _new, app) = start(tenants).await;
    let version = |tenant: &'static str| {
        let app = &app;
        async move { app.get("/", &[("x-tenant-id", tenant), ("x-user-id", "u")]).await.version }
    };
    app.change("PUT", "/v1/services/shop/groups/beta/split", json!({ "weights": { "2.0.0": 100 } })).await;
    assert_eq!([version("acme").await, version("globex").await, version("initech").await], ["2.0.0", "2.0.0", "1.0.0"]);
    app.change("PUT", "/v1/services/shop/tenants/acme/split", json!({ "weights": { "1.0.0": 100 } })).await;
    assert_eq!([version("acme").await, version("globex").await], ["1.0.0", "2.0.0"]);
    let (status, _) = app.api("DELETE", "/v1/services/shop/tenants/acme/split", None).await;
    assert_eq!(status, 200);
    assert_eq!(version("acme").await, "2.0.0");
    let rolled = app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "back" })).await;
    assert_eq!(rolled["dry_run"], false);
    assert_eq!([version("acme").await, version("globex").await], ["1.0.0", "1.0.0"], "groups go back with the service");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_is_told_the_tenant_and_strangers_cannot_forge_it() {
    let tenants =
        "[tenants]\nidentify = [{ host = \"{tenant}.api.test\" }, { header = \"x-tenant-id\", trusted = true }]";
    let (old, _new, app) = start(tenants).await;
    let answer =
        app.get("/", &[("host", "acme.api.test"), ("x-switchback-tenant", "globex"), ("x-tenant-id", "globex")]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(old.script.last()["headers"]["x-switchback-tenant"], "acme");
    app.get("/", &[("x-tenant-id", "globex")]).await;
    assert!(old.script.last()["headers"].get("x-switchback-tenant").is_none(), "this address is not trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_tenants_are_refused_when_so_configured() {
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\nunknown = \"reject\"";
    let (old, _new, app) = start(tenants).await;
    assert_eq!(app.get("/", &[]).await.status, 404);
    assert_eq!(app.get("/", &[("x-tenant-id", "bad name")]).await.status, 400);
    assert_eq!(app.get("/", &[("x-tenant-id", "acme")]).await.status, 200);
    assert_eq!(old.script.requests(), 1);
    assert_eq!(app.metric("switchback_refused_requests_total{reason=\"unknown_tenant\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn path_tenants_are_stripped_when_so_configured() {
    let tenants = "[tenants]\nidentify = [{ path = \"/t/{tenant}\", strip = true }]";
    let (old, _new, app) = start(tenants).await;
    assert_eq!(app.get("/t/acme/orders?x=1", &[]).await.status, 200);
    let seen = old.script.last();
    assert_eq!(
        (seen["path"].as_str(), seen["headers"]["x-switchback-tenant"].as_str()),
        (Some("/orders?x=1"), Some("acme"))
    );
    app.get("/t/acme", &[]).await;
    assert_eq!(old.script.last()["path"], "/");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_can_have_an_instance_of_its_own() {
    let (acme, globex) = (Backend::start("acme").await, Backend::start("globex").await);
    let port = acme.address.port();
    // The same port on another loopback address: names below localhost are this machine, so one port serves both.
    drop(globex);
    let text = format!(
        r#"
[tenants]
identify = [{{ header = "x-tenant-id" }}]
[services.shop]
match = [{{ path = "/" }}]
baseline = "1.0.0"
[services.shop.versions."1.0.0"]
endpoints = ["{{tenant}}.localhost:{port}"]
"#
    );
    let app = TestApp::start(&text).await;
    assert_eq!(app.get("/", &[("x-tenant-id", "acme")]).await.status, 200);
    assert_eq!(app.get("/", &[("x-tenant-id", "globex")]).await.status, 200);
    assert_eq!(app.get("/", &[("x-tenant-id", "evil.example")]).await.status, 404, "a dot would name another host");
    assert_eq!(app.get("/", &[]).await.status, 404, "no tenant, no instance");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_names_the_tenant_and_a_forged_one_does_not() {
    let tenants = "[tenants]\nidentify = [{ jwt = { claim = \"tenant\", keys = [{ algorithm = \"HS256\", secret = \"a-secret-of-thirty-two-characters\" }] } }]\nunknown = \"reject\"";
    let (old, _new, app) = start(tenants).await;
    let token = |secret: &str| {
        let claims = json!({ "tenant": "acme" });
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let token =
            jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), &claims, &key).unwrap();
        format!("Bearer {token}")
    };
    let good = app.get("/", &[("authorization", &token("a-secret-of-thirty-two-characters"))]).await;
    assert_eq!(good.status, 200);
    assert_eq!(old.script.last()["headers"]["x-switchback-tenant"], "acme");
    assert_eq!(app.get("/", &[("authorization", &token("another-secret-of-the-same-length"))]).await.status, 404);
}
