//! The state in etcd: the same for all proxies, and traffic flows without it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::etcd_server::Etcd;
use super::harness::{Backend, TestApp, two_versions, until};

#[tokio::test(flavor = "multi_thread")]
async fn two_proxies_change_one_state_and_serve_on_without_etcd() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let mut etcd = Etcd::start();
    let text = format!("[store]\netcd = [\"{}\"]\n{}", etcd.url("http"), two_versions(&old, &new, ""));
    let one = TestApp::start(&text).await;
    let two = TestApp::start(&text).await;
    let (_, status) = two.api("GET", "/v1/status", None).await;
    assert_eq!(status["store"]["kind"], "etcd", "{status}");
    one.split("shop", 100.0).await;
    assert_eq!(one.version_of("u").await, "2.0.0");
    // The other one's change is made on top of it, although it may not have heard of it.
    two.change("PUT", "/v1/services/shop/hold", json!({ "reason": "a look at it" })).await;
    assert_eq!(two.version_of("u").await, "2.0.0");
    let events = two.events("service=shop&limit=100").await;
    let kinds: Vec<_> = events.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"split_set"), "one history: {kinds:?}");

    // A process of its own that starts later knows what was changed, and one that starts without etcd serves the copy.
    let folder = two.stop().await;
    let two = TestApp::start_in(folder, &text).await;
    assert_eq!(two.version_of("u").await, "2.0.0");
    let folder = two.stop().await;
    etcd.kill();
    let two = TestApp::start_in(folder, &text).await;
    assert_eq!((one.version_of("u").await, two.version_of("u").await), ("2.0.0".to_owned(), "2.0.0".to_owned()));
    let back = json!({ "weights": { "1.0.0": 100 } });
    for app in [&one, &two] {
        let (status, answer) = app.api("PUT", "/v1/services/shop/split", Some(back.clone())).await;
        assert_eq!(status, 503, "{answer}");
    }
    etcd.restart();
    until("changes are taken again", Duration::from_secs(20), async || {
        one.api("PUT", "/v1/services/shop/split", Some(back.clone())).await.0 == 200
    })
    .await;
    assert_eq!(one.version_of("u").await, "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_and_without_a_copy_nothing_starts() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let mut etcd = Etcd::start();
    etcd.kill();
    let folder = Arc::new(TempDir::new().unwrap());
    let file = folder.path().join("switchback.toml");
    let text = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"off\"\n";
    let store = format!("[store]\netcd = [\"{}\"]\n{}", etcd.url("http"), two_versions(&old, &new, ""));
    std::fs::write(&file, format!("{text}{store}")).unwrap();
    let error = switchback::app::App::start(switchback::config::load(&file).unwrap()).await.err().unwrap();
    let mut shown = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        shown = format!("{shown}: {inner}");
        cause = inner.source();
    }
    assert!(shown.contains("the store cannot be reached"), "{shown}");
}
