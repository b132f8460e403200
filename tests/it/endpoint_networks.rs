//! Endpoints of registered versions are looked at again when they are connected to, not only when they are registered.

use serde_json::{Value, json};

use crate::harness::{Backend, TestApp, until};
use crate::receiver::Receiver;
use std::time::Duration;

const PATH: &str = "/v1/services/shop/versions/3.0.0";

fn config(file: &Backend, admin: &str) -> String {
    format!(
        "[tenants]\nidentify = [{{ header = \"x-tenant-id\" }}]\n[admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n\
         [services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1.0.0\"\n\
         [services.shop.versions.\"1.0.0\"]\nendpoints = [\"{}\"]\n",
        file.address
    )
}

const OPEN: &str = "endpoint_networks = [\"127.0.0.0/8\"]";

async fn status(app: &TestApp, tenant: &str) -> u16 {
    app.get("/", &[("x-tenant-id", tenant)]).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_may_name_any_address_and_the_api_may_not() {
    let (file, api) = (Backend::start("file").await, Backend::start("api").await);
    let app = TestApp::start(&config(&file, "")).await;
    assert_eq!(status(&app, "acme").await, 200, "what the file says is the operator's own word");
    let port = api.address.port();
    for endpoint in [api.address.to_string(), format!("localhost:{port}"), format!("x.localhost:{port}")] {
        let (status, problem) = app.api("PUT", PATH, Some(json!({ "endpoints": [endpoint] }))).await;
        assert_eq!((status, &problem["type"]), (422, &json!("urn:switchback:invalid")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("loopback"), "{problem}");
    }
    assert_eq!(api.script.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_allowed_is_not_connected_to() {
    let (file, api) = (Backend::start("file").await, Backend::start("api").await);
    let port = api.address.port();
    for endpoint in [api.address.to_string(), format!("x.localhost:{port}"), format!("{{tenant}}.localhost:{port}")] {
        let app = TestApp::start(&config(&file, OPEN)).await;
        app.change("PUT", PATH, json!({ "endpoints": [endpoint] })).await;
        app.change("PUT", "/v1/services/shop/split", json!({ "weights": { "3.0.0": 100 } })).await;
        until("it is served", Duration::from_secs(5), async || status(&app, "acme").await == 200).await;
        app.write_config(&config(&file, ""));
        app.change("POST", "/v1/reload", Value::Null).await;
        let before = api.script.requests();
        for _ in 0..5 {
            assert_eq!(status(&app, "acme").await, 502, "{endpoint}");
        }
        // The state brings it back after a restart, and it is still not connected to.
        let app = TestApp::start_in(app.stop().await, &config(&file, "")).await;
        assert_eq!(status(&app, "acme").await, 502, "{endpoint}");
        assert_eq!(api.script.requests(), before, "{endpoint}");
        app.write_config(&config(&file, OPEN));
        app.change("POST", "/v1/reload", Value::Null).await;
        until("it is served again", Duration::from_secs(5), async || status(&app, "acme").await == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_lie_where_registered_endpoints_may() {
    let (file, receiver) = (Backend::start("file").await, Receiver::start().await);
    let with = |admin: &str| {
        config(&file, admin) + &format!("[services.shop.versions.\"2.0.0\"]\nendpoints = [\"{}\"]\n", file.address)
    };
    let app = TestApp::start(&with("")).await;
    let plan = |url: &str| {
        let gates = json!([{ "name": "migrate", "at": "start", "url": url }]);
        json!({ "service": "shop", "to": "2.0.0", "gates": gates })
    };
    for url in [receiver.url("/?key=hidden"), "http://localhost:1/".to_owned(), "http://0xa9fea9fe/".to_owned()] {
        let (status, refused) = app.api("POST", "/v1/rollouts", Some(plan(&url))).await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(status == 422 && detail.starts_with("gates[0].url: "), "{refused}");
        assert!(detail.contains("admin.endpoint_networks") && !detail.contains("hidden"), "{refused}");
    }
    app.write_config(&with(OPEN));
    app.change("POST", "/v1/reload", Value::Null).await;
    app.change("PUT", "/v1/services/shop/hold", json!({ "reason": "not yet" })).await;
    let id = app.rollout(plan(&receiver.url("/"))).await;
    // What is no longer allowed is not called.
    app.write_config(&with(""));
    app.change("POST", "/v1/reload", Value::Null).await;
    app.change("DELETE", "/v1/services/shop/hold", json!({})).await;
    let refused = |r: &Value| r["waiting"]["message"].to_string().contains("the address may not be called: 127.0.0.1");
    app.rollout_until(&id, "refused", 5, refused).await;
    assert_eq!(receiver.calls().len(), 0);
    app.write_config(&with(OPEN));
    app.change("POST", "/v1/reload", Value::Null).await;
    app.rollout_until(&id, "on its way", 10, |r| r["phase"] == "progressing").await;
    assert_eq!(receiver.calls().len(), 1);
}
