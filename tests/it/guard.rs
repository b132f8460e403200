//! The guard on real requests: what must go back goes back in time, what must stay stays.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Backend, Load, Seen, TestApp, many_users, two_versions, until};

const RATE: u64 = 200;

async fn start(more: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, more)).await;
    (old, new, app)
}

async fn rollbacks(app: &TestApp) -> Vec<Value> {
    app.events("kind=rollback").await
}

/// Waits for the first rollback and tells how long it took.
async fn rolled_back(app: &TestApp, within: Duration) -> (Value, Duration) {
    let begun = Instant::now();
    until("a rollback", within, || async { !rollbacks(app).await.is_empty() }).await;
    (rollbacks(app).await.remove(0), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_entirely_is_back_within_six_seconds() {
    let (_old, new, app) = start("").await;
    let load = Load::start(&app, RATE, many_users(100_000));
    tokio::time::sleep(Duration::from_secs(2)).await;
    new.script.fail(100.0);
    app.split("shop", 10.0).await;
    let (event, _) = rolled_back(&app, Duration::from_secs(15)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen: Seen = load.stop().await;
    let took = seen.last_failure.unwrap() - seen.first_failure.unwrap();
    println!("{} failures in {took:?}", seen.failures);
    assert!(took < Duration::from_secs(6), "{took:?} from the first to the last failure: {event}");
    assert!(seen.failures <= 30, "{} failures", seen.failures);
    assert_eq!(event["author"]["kind"], "autopilot");
    assert_eq!(event["cause"], "errors");
    let reason = event["reason"].as_str().unwrap();
    assert!(reason.contains("2.0.0") && reason.contains("Traffic was therefore returned to 1.0.0"), "{reason}");
    let recorded = event["first_bad_to_rollback_ms"].as_u64().unwrap();
    assert!((500..6_000).contains(&recorded), "{recorded} ms");
    assert_eq!(app.metric("switchback_rollbacks_total{service=\"shop\",reason=\"errors\"}").await, 1.0);
    let failures =
        app.metric("switchback_request_failures_total{service=\"shop\",version=\"2.0.0\",kind=\"status\"}").await;
    assert_eq!(failures, seen.failures as f64, "every failed request is counted");
    let (_, split) = app.api("GET", "/v1/services/shop/split", None).await;
    assert_eq!(split["weights"], json!({ "1.0.0": 100 }), "and there it stays: {split}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_percent_against_one_percent_is_found() {
    let (old, new, app) = start("").await;
    old.script.fail(1.0);
    new.script.fail(5.0);
    app.split("shop", 50.0).await;
    let load = Load::start(&app, 400, many_users(10_000_000));
    let (event, _) = rolled_back(&app, Duration::from_secs(90)).await;
    load.stop().await;
    assert_eq!(event["cause"], "errors");
}

#[tokio::test(flavor = "multi_thread")]
async fn doubled_latency_is_found() {
    let (old, new, app) = start("").await;
    old.script.delay_us.store(10_000, SeqCst);
    new.script.delay_us.store(20_000, SeqCst);
    let load = Load::start(&app, RATE, many_users(10_000_000));
    tokio::time::sleep(Duration::from_secs(3)).await;
    app.split("shop", 20.0).await;
    let (event, _) = rolled_back(&app, Duration::from_secs(40)).await;
    let seen = load.stop().await;
    assert_eq!(seen.failures, 0);
    assert!(["slow", "very_slow"].contains(&event["cause"].as_str().unwrap()), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_hangs_is_found_long_before_its_timeout() {
    let (_old, new, app) = start("").await;
    let load = Load::start(&app, RATE, many_users(10_000_000));
    tokio::time::sleep(Duration::from_secs(3)).await;
    new.script.hang.store(true, SeqCst);
    app.split("shop", 20.0).await;
    let (event, took) = rolled_back(&app, Duration::from_secs(20)).await;
    assert!(took < Duration::from_secs(8), "{took:?}, while the timeout is 30 s");
    assert!(["slow", "very_slow"].contains(&event["cause"].as_str().unwrap()), "{event}");
    drop(load);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_tenant_among_many_goes_back_alone() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n";
    let app = TestApp::start(&format!("{tenants}{}", two_versions(&old, &new, ""))).await;
    *new.script.fail_tenant.lock().unwrap() = Some("tenant-7".to_owned());
    app.split("shop", 50.0).await;
    // The bad tenant has a tenth of the traffic, a thousand others share the rest.
    let shape = Arc::new(|n: u64| {
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let tenant = if mixed.is_multiple_of(10) { 7 } else { mixed % 1_000 };
        (
            "/".to_owned(),
            vec![("x-tenant-id".to_owned(), format!("tenant-{tenant}")), ("x-user-id".to_owned(), format!("u{n}"))],
        )
    });
    let load = Load::start(&app, 300, shape);
    let (event, _) = rolled_back(&app, Duration::from_secs(20)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.stop().await;
    assert_eq!(event["tenant"], "tenant-7");
    assert_eq!(rollbacks(&app).await.len(), 1, "only that tenant");
    let (_, split) = app.api("GET", "/v1/services/shop/split", None).await;
    assert_eq!(split["weights"]["2.0.0"], 50, "the service goes on");
    let (_, own) = app.api("GET", "/v1/services/shop/tenants/tenant-7/split", None).await;
    assert_eq!(own["weights"], json!({ "1.0.0": 100 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tenants_at_a_trickle_take_the_version_back_together() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n";
    let app = TestApp::start(&format!("{tenants}{}", two_versions(&old, &new, ""))).await;
    new.script.fail(100.0);
    app.split("shop", 10.0).await;
    // A thousand tenants with a request in many seconds each: none can prove anything alone.
    let shape = Arc::new(|n: u64| {
        let headers = vec![
            ("x-tenant-id".to_owned(), format!("tenant-{}", n % 1_000)),
            ("x-user-id".to_owned(), format!("u{n}")),
        ];
        ("/".to_owned(), headers)
    });
    let load = Load::start(&app, 100, shape);
    let (event, _) = rolled_back(&app, Duration::from_secs(30)).await;
    let seen = load.stop().await;
    assert_eq!(event["cause"], "fleet", "{event}");
    assert!(event["tenant"].is_null());
    assert!(seen.failures < 150, "{}", seen.failures);
    let (_, split) = app.api("GET", "/v1/services/shop/split", None).await;
    assert_eq!(split["weights"], json!({ "1.0.0": 100 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_version_stays_through_hammering_and_a_shared_outage() {
    let (old, new, app) = start("").await;
    for backend in [&old, &new] {
        backend.script.fail(1.0);
        backend.script.delay_us.store(2_000, SeqCst);
    }
    app.split("shop", 30.0).await;
    // One client sends a fifth of all requests under one key; the rest are many users who come again.
    let shape = Arc::new(|n: u64| {
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let user = if mixed.is_multiple_of(5) { "hammer".to_owned() } else { format!("user-{}", mixed % 5_000) };
        ("/".to_owned(), vec![("x-user-id".to_owned(), user)])
    });
    let load = Load::start(&app, RATE, shape);
    tokio::time::sleep(Duration::from_secs(10)).await;
    for backend in [&old, &new] {
        backend.script.fail(100.0);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    for backend in [&old, &new] {
        backend.script.fail(1.0);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let seen = load.stop().await;
    assert!(seen.failures > 5_000, "the outage was real");
    assert_eq!(rollbacks(&app).await, Vec::<Value>::new());
    assert_eq!(app.events("kind=hold_slo").await.len(), 1, "but it was reported, once");
    let (_, split) = app.api("GET", "/v1/services/shop/split", None).await;
    assert_eq!(split["weights"]["2.0.0"], 30, "{split}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_health_checks_take_a_version_back_without_traffic() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let health = "health = { path = \"/healthz\", interval = \"100ms\", unhealthy_after = 2 }";
    let text = two_versions(&old, &new, "split = { \"1.0.0\" = 90, \"2.0.0\" = 10 }") + health;
    let app = TestApp::start(&text).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rollbacks(&app).await.is_empty());
    new.script.status.store(503, SeqCst);
    let (event, _) = rolled_back(&app, Duration::from_secs(10)).await;
    assert_eq!(event["cause"], "health");
    assert!(event["reason"].as_str().unwrap().contains("health check"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_limit_trips_with_its_own_reason() {
    let guard = "[services.shop.guard]\nmax_error_rate = 10\nmin_requests = 50\nwindow = \"10s\"\nerror_probability = 0.000000001\n";
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&format!("{}{guard}", two_versions(&old, &new, "split = { \"2.0.0\" = 100 }"))).await;
    // Everything is on the canary, so there is nothing to compare with: only the limit can tell.
    new.script.fail(15.0);
    let load = Load::start(&app, RATE, many_users(100_000));
    let (event, _) = rolled_back(&app, Duration::from_secs(15)).await;
    load.stop().await;
    assert_eq!(event["cause"], "max_error_rate");
    assert!(event["reason"].as_str().unwrap().contains("guard.max_error_rate allows 10 %"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rollback_a_person_may_try_again() {
    let (_old, new, app) = start("").await;
    new.script.fail(100.0);
    app.split("shop", 20.0).await;
    let load = Load::start(&app, RATE, many_users(1_000_000));
    rolled_back(&app, Duration::from_secs(15)).await;
    new.script.fail(0.0);
    app.split("shop", 20.0).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(rollbacks(&app).await.len(), 1, "what the first attempt did is not the second's fault");
    load.stop().await;
    let (_, split) = app.api("GET", "/v1/services/shop/split", None).await;
    assert_eq!(split["weights"]["2.0.0"], 20, "{split}");
}
