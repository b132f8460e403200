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

/// Everything in etcd under the key of this document.
async fn raw(etcd: &Etcd, document: &str) -> Vec<u8> {
    let mut client = etcd_client::Client::connect([etcd.url("http")], None).await.unwrap();
    let answer = client.get(format!("/switchback/document/{document}"), None).await.unwrap();
    answer.kvs().first().unwrap_or_else(|| panic!("no {document}")).value().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_with_one_secret_share_keys_that_etcd_does_not_know() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let etcd = Etcd::start();
    let services = two_versions(&old, &new, "").replace("\"x-user-id\" }", "\"x-user-id\", session = true }");
    let shop = |secret: &str| format!("[store]\netcd = [\"{}\"]\n{secret}{services}", etcd.url("http"));
    let sealed = shop(&format!("secret = \"{}\"\n", "s".repeat(32)));
    let one = TestApp::start(&sealed).await;
    let two = TestApp::start(&sealed).await;
    one.split("shop", 100.0).await;
    let answer = one.get("/", &[("x-user-id", "alice")]).await;
    assert_eq!(answer.version, "2.0.0");
    let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    one.split("shop", 0.0).await;
    let kept = async || two.get("/", &[("x-user-id", "alice"), ("cookie", &cookie)]).await;
    until("the other one knows the split", Duration::from_secs(10), async || two.version_of("bob").await == "1.0.0")
        .await;
    let answer = kept().await;
    assert_eq!((answer.version.as_str(), answer.headers.contains_key("set-cookie")), ("2.0.0", false));
    let value = String::from_utf8(raw(&etcd, "secret/cookie").await).unwrap();
    assert!(value.contains("sealed 1 "), "{value}");
    // A key that the other one makes is one that this one signs and accepts with.
    one.change("POST", "/v1/keys/rotate", json!({})).await;
    assert_eq!(kept().await.version, "2.0.0");
    let value = String::from_utf8(raw(&etcd, "secret/cookie").await).unwrap();
    assert!(value.contains("sealed 1 "), "{value}");

    let folder = Arc::new(TempDir::new().unwrap());
    let file = folder.path().join("switchback.toml");
    let process = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"off\"\n";
    std::fs::write(&file, format!("{process}{}", shop(&format!("secret = \"{}\"\n", "t".repeat(32))))).unwrap();
    let error = switchback::app::App::start(switchback::config::load(&file).unwrap()).await.err().unwrap();
    assert!(error.to_string().contains("no secret of store.secret opens the document secret/cookie"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_starts_on_an_empty_etcd_at_once() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let etcd = Etcd::start();
    let text = format!("[store]\netcd = [\"{}\"]\n{}", etcd.url("http"), two_versions(&old, &new, ""));
    let (one, two, three) = tokio::join!(TestApp::start(&text), TestApp::start(&text), TestApp::start(&text));
    let added = one.events("kind=service_added&limit=100").await;
    assert_eq!(added.len(), 1, "the service begins once: {added:?}");
    one.split("shop", 100.0).await;
    for app in [&two, &three] {
        until("all follow", Duration::from_secs(10), async || app.version_of("u").await == "2.0.0").await;
    }
}
