//! Assets that only one version has, asked of the other.

use std::time::Duration;

use crate::harness::{Backend, TestApp, two_versions, until};

async fn start() -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    *old.script.missing.lock().unwrap() =
        vec!["/assets/new".to_owned(), "/assets/none".to_owned(), "/api/none".to_owned()];
    *new.script.missing.lock().unwrap() =
        vec!["/assets/old".to_owned(), "/assets/none".to_owned(), "/api/none".to_owned()];
    let app = TestApp::start(&two_versions(&old, &new, "skew = [\"/assets\"]\n")).await;
    (old, new, app)
}

async fn skewed(app: &TestApp, from: &str, to: &str, result: &str) -> f64 {
    let labels = format!("service=\"shop\",from=\"{from}\",to=\"{to}\",result=\"{result}\"");
    app.metric(&format!("switchback_skewed_requests_total{{{labels}}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_version_has_an_asset_gives_it() {
    let (_old, _new, app) = start().await;
    app.split("shop", 50.0).await;
    for user in 0..20 {
        let user = format!("u{user}");
        for (path, holder) in [("/assets/new.js", "2.0.0"), ("/assets/old.js", "1.0.0")] {
            let answer = app.get(path, &[("x-user-id", &user)]).await;
            assert_eq!((answer.status, answer.version.as_str()), (200, holder), "{user} {path}");
        }
    }
    let found = skewed(&app, "1.0.0", "2.0.0", "found").await + skewed(&app, "2.0.0", "1.0.0", "found").await;
    assert_eq!(found, 20.0, "each user has one asset on the other side");
    // A page that is still open after a rollback.
    let (status, _) =
        app.api("POST", "/v1/services/shop/rollback", Some(serde_json::json!({ "reason": "test" }))).await;
    assert_eq!(status, 200);
    let answer = app.get("/assets/new.js", &[("x-user-id", "u1")]).await;
    assert_eq!((answer.status, answer.version.as_str()), (200, "2.0.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_not_remembered() {
    let (old, new, app) = start().await;
    let answer = app.get("/assets/none.js", &[]).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!((old.script.requests(), new.script.requests()), (1, 1));
    until("it to be counted", Duration::from_secs(5), || async {
        skewed(&app, "1.0.0", "2.0.0", "missing").await == 1.0
    })
    .await;
    // The other version is gone altogether.
    drop(new);
    let answer = app.get("/assets/none.js", &[]).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let failures = "switchback_request_failures_total{service=\"shop\",version=\"1.0.0\",kind=\"connect\"}";
    assert_eq!(app.metric(failures).await, 0.0, "the assigned version did not fail");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_stay_where_they_are() {
    let (old, new, app) = start().await;
    let answer = app.get("/api/none", &[]).await;
    assert_eq!((answer.status, answer.headers.get("cache-control")), (404, None));
    let url = format!("{}/assets/new.js", app.proxy);
    assert_eq!(app.client.post(url).send().await.unwrap().status(), 404);
    assert_eq!((old.script.requests(), new.script.requests()), (2, 0));
}
