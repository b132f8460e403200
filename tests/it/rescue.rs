//! Requests that fail on the canary: who answers them, how often they are sent, and what that may cost the baseline.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use xxhash_rust::xxh3::xxh3_64;

use crate::harness::{Answer, Backend, Load, TestApp, many_users, two_versions, until};

/// A canary that breaks in one way, below HTTP.
struct Trap {
    address: SocketAddr,
    /// Ends with the trap.
    _task: Option<tokio::task::JoinHandle<()>>,
    _fillers: Vec<TcpStream>,
}

impl Drop for Trap {
    fn drop(&mut self) {
        if let Some(task) = &self._task {
            task.abort();
        }
    }
}

impl Trap {
    /// Nobody listens.
    async fn refused() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self { address, _task: None, _fillers: Vec::new() }
    }

    /// Somebody listens, and the queue is full: connecting takes for ever.
    async fn full() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut fillers = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            fillers.push(stream);
            assert!(fillers.len() < 64, "the queue never fills");
        }
        let task = tokio::spawn(async move {
            let _listener = listener;
            std::future::pending::<()>().await;
        });
        Self { address, _task: Some(task), _fillers: fillers }
    }

    /// Takes what comes first, says this, and closes. Nothing to say: a reset.
    async fn says(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 1024]).await;
                    if answer.is_empty() {
                        stream.set_zero_linger().unwrap();
                        return;
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    // What is still coming is read, so that the answer is not lost in a reset.
                    let _ = tokio::time::timeout(
                        Duration::from_secs(1),
                        tokio::io::copy(&mut stream, &mut tokio::io::sink()),
                    )
                    .await;
                });
            }
        });
        Self { address, _task: Some(task), _fillers: Vec::new() }
    }
}

/// Everything goes to the canary, and nothing takes it away.
const ALL_NEW: &str = "split = { \"2.0.0\" = 100 }\nguard = { enabled = false }\n";

fn config(old: SocketAddr, new: SocketAddr, service: &str, canary: &str) -> String {
    format!(
        "[services.shop]\nmatch = [{{ path = \"/\" }}]\nsticky = [{{ header = \"x-user-id\" }}]\nbaseline = \"1.0.0\"\n{service}\n\
         [services.shop.versions.\"1.0.0\"]\nendpoints = [\"{old}\"]\n\
         [services.shop.versions.\"2.0.0\"]\nendpoints = [\"{new}\"]\n{canary}\n"
    )
}

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

/// Both protocols that clients speak on a plain listener.
fn clients() -> [reqwest::Client; 2] {
    let builder = || reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
    [builder().build().unwrap(), builder().http2_prior_knowledge().build().unwrap()]
}

async fn post(client: &reqwest::Client, app: &TestApp, size: usize, key: bool) -> Answer {
    let mut request = client.post(format!("{}/orders", app.proxy)).body(body(size));
    if key {
        request = request.header("idempotency-key", "k-1");
    }
    Answer::of(request.send().await.unwrap()).await
}

async fn rescues(app: &TestApp, result: &str) -> f64 {
    let labels = format!("service=\"shop\",from=\"2.0.0\",to=\"1.0.0\",result=\"{result}\"");
    app.metric(&format!("switchback_rescues_total{{{labels}}}")).await
}

async fn failures(app: &TestApp) -> f64 {
    let mut sum = 0.0;
    for kind in ["status", "grpc", "connect", "timeout", "reset"] {
        let series = format!("switchback_request_failures_total{{service=\"shop\",version=\"2.0.0\",kind=\"{kind}\"}}");
        sum += app.metric(&series).await;
    }
    sum
}

/// GET and a 10 KB POST over both protocols: always the baseline's answer, once, with the body intact.
async fn all_are_saved(new: SocketAddr, canary: &str) {
    let old = Backend::start("1.0.0").await;
    let app = TestApp::start(&config(old.address, new, &format!("{ALL_NEW}rescue = true\n"), canary)).await;
    let mut sent = 0;
    for client in clients() {
        let get = Answer::of(client.get(format!("{}/x", app.proxy)).send().await.unwrap()).await;
        assert_eq!((get.status, get.version.as_str()), (200, "1.0.0"), "{get:?}");
        assert_eq!((get.seen["version"].as_str(), get.seen["path"].as_str()), (Some("1.0.0"), Some("/x")));
        let post = post(&client, &app, 10_240, true).await;
        assert_eq!((post.status, post.version.as_str()), (200, "1.0.0"), "{post:?}");
        assert_eq!(post.seen["body_len"], 10_240);
        assert_eq!(post.seen["body_hash"], format!("{:016x}", xxh3_64(&body(10_240))));
        assert_eq!(post.seen["headers"]["x-switchback-version"], "1.0.0");
        sent += 2;
        assert_eq!(old.script.requests(), sent, "each is sent to the baseline once");
    }
    until("the rescues to be counted", Duration::from_secs(5), || async { rescues(&app, "saved").await == 4.0 }).await;
    assert_eq!(failures(&app).await, 4.0, "they are the canary's failures all the same");
    let own = app.metric("switchback_requests_total{service=\"shop\",version=\"1.0.0\",code=\"2xx\"}").await;
    assert_eq!(own, 0.0, "nobody drew the baseline");
    let (_, stats) = app.api("GET", "/v1/services/shop/stats", None).await;
    let detour = &stats["detours"][0];
    assert_eq!(
        (&detour["from"], &detour["to"], &detour["rescues"]["saved"]),
        (&json!("2.0.0"), &json!("1.0.0"), &json!(4))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_503_are_rescued() {
    let new = Backend::start("2.0.0").await;
    new.script.status.store(503, SeqCst);
    all_are_saved(new.address, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_hang_are_rescued() {
    let new = Backend::start("2.0.0").await;
    new.script.hang.store(true, SeqCst);
    all_are_saved(new.address, "timeouts = { response = \"300ms\" }").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_a_canary_that_speaks_http2_are_rescued() {
    let new = Backend::start("2.0.0").await;
    new.script.status.store(503, SeqCst);
    all_are_saved(new.address, "http2 = true").await;
    new.script.hang.store(true, SeqCst);
    all_are_saved(new.address, "http2 = true\ntimeouts = { response = \"300ms\" }").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_before_the_body_was_read_is_rescued() {
    let new = Trap::says("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    all_are_saved(new.address, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_are_rescued() {
    all_are_saved(Trap::refused().await.address, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_time_out_are_rescued() {
    let new = Trap::full().await;
    all_are_saved(new.address, "timeouts = { connect = \"200ms\" }").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_are_rescued() {
    all_are_saved(Trap::says("").await.address, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_tls_handshakes_are_rescued() {
    let plain = Backend::start("2.0.0").await;
    all_are_saved(plain.address, "tls = {}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_unavailable_in_the_header_is_rescued() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n";
    all_are_saved(Trap::says(answer).await.address, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_safe_is_never_sent_twice() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let service = format!("{ALL_NEW}rescue = true\n");
    let app = TestApp::start(&config(old.address, new.address, &service, "timeouts = { response = \"300ms\" }")).await;
    new.script.status.store(503, SeqCst);
    for client in clients() {
        let answer = post(&client, &app, 10, false).await;
        assert_eq!((answer.status, answer.version.as_str()), (503, "2.0.0"), "the canary's own answer");
        assert_eq!(answer.headers["x-backend"], "2.0.0");
    }
    new.script.hang.store(true, SeqCst);
    assert_eq!(post(&app.client, &app, 10, false).await.status, 504);
    until("the results to be counted", Duration::from_secs(5), || async { rescues(&app, "not_safe").await == 3.0 })
        .await;
    assert_eq!((old.script.requests(), new.script.requests()), (0, 3));
    // More of the body than is kept.
    new.script.hang.store(false, SeqCst);
    assert_eq!(post(&app.client, &app, 100_000, true).await.status, 503);
    until("the result to be counted", Duration::from_secs(5), || async { rescues(&app, "too_large").await == 1.0 })
        .await;
    assert_eq!(old.script.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_sent_is_rescued_whatever_it_is() {
    let old = Backend::start("1.0.0").await;
    let trap = Trap::refused().await;
    let app = TestApp::start(&config(old.address, trap.address, &format!("{ALL_NEW}rescue = true\n"), "")).await;
    for client in clients() {
        let answer = post(&client, &app, 1 << 20, false).await;
        assert_eq!((answer.status, answer.version.as_str()), (200, "1.0.0"));
        assert_eq!(answer.seen["body_hash"], format!("{:016x}", xxh3_64(&body(1 << 20))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_may_say_that_its_posts_are_safe() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    new.script.status.store(502, SeqCst);
    let service = format!("{ALL_NEW}rescue = {{ methods = [\"POST\"], statuses = [502] }}\n");
    let app = TestApp::start(&config(old.address, new.address, &service, "")).await;
    assert_eq!(post(&app.client, &app, 10, false).await.version, "1.0.0");
    assert_eq!(app.get("/", &[]).await.status, 502, "GET is not in the list");
    new.script.status.store(503, SeqCst);
    assert_eq!(post(&app.client, &app, 10, false).await.status, 503, "503 is not in the list");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_endpoint_of_the_same_version_comes_first() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let dead = Trap::refused().await;
    let text = config(old.address, new.address, &format!("{ALL_NEW}rescue = true\n"), "")
        .replace(&format!("[\"{}\"]", new.address), &format!("[\"{}\", \"{}\"]", dead.address, new.address));
    let app = TestApp::start(&text).await;
    for _ in 0..20 {
        assert_eq!(app.get("/", &[]).await.version, "2.0.0");
    }
    assert_eq!((failures(&app).await, rescues(&app, "saved").await), (0.0, 0.0));
    assert_eq!(old.script.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_the_canary_sees_the_canary() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    new.script.status.store(503, SeqCst);
    let more = "rescue = true\nchoose = { header = \"x-version\", secret = \"0123456789abcdef\" }\n";
    let app = TestApp::start(&two_versions(&old, &new, more)).await;
    let answer = app.get("/", &[("x-version", "2.0.0:0123456789abcdef")]).await;
    assert_eq!((answer.status, answer.version.as_str()), (503, "2.0.0"));
    app.change("PUT", "/v1/services/shop/pins/user/u1", json!({ "version": "2.0.0" })).await;
    let pinned = app.get("/", &[("x-user-id", "u1")]).await;
    assert_eq!((pinned.status, pinned.version.as_str()), (200, "1.0.0"), "an operator's pin is no wish of the user");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_holds_for_all_attempts_together() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    old.script.hang.store(true, SeqCst);
    new.script.hang.store(true, SeqCst);
    let service = format!("{ALL_NEW}rescue = true\ndeadline = \"1s\"\n");
    let app = TestApp::start(&config(old.address, new.address, &service, "timeouts = { response = \"600ms\" }")).await;
    let begun = std::time::Instant::now();
    let answer = app.get("/", &[]).await;
    let took = begun.elapsed();
    assert_eq!((answer.status, old.script.requests()), (504, 1));
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&took), "{took:?}");
    until("the result to be counted", Duration::from_secs(5), || async { rescues(&app, "failed").await == 1.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_canary_costs_no_user_anything_and_goes_back_all_the_same() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, "rescue = true")).await;
    new.script.fail(100.0);
    app.split("shop", 10.0).await;
    let load = Load::start(&app, 400, many_users(100_000));
    let back = || async { !app.events("kind=rollback").await.is_empty() };
    until("a rollback", Duration::from_secs(15), back).await;
    until("2,000 requests", Duration::from_secs(15), || async { old.script.requests() >= 2_000 }).await;
    let seen = load.stop().await;
    assert_eq!(seen.failures, 0, "of {}", seen.requests);
    assert!(seen.requests >= 2_000);
    let counted = || async { rescues(&app, "saved").await == failures(&app).await };
    until("every rescue to be counted", Duration::from_secs(5), counted).await;
    let saved = rescues(&app, "saved").await;
    assert!(saved >= 10.0, "{saved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_protects_the_baseline() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    new.script.status.store(503, SeqCst);
    let more = "guard = { enabled = false }\nrescue = { budget = 10, reserve = 1 }\n";
    let app = TestApp::start(&two_versions(&old, &new, more)).await;
    app.split("shop", 50.0).await;
    let load = Load::start(&app, 200, many_users(100_000));
    let enough = || async { old.script.requests() + new.script.requests() >= 1_200 };
    until("1,200 requests", Duration::from_secs(30), enough).await;
    let seen = load.stop().await;
    let series = "switchback_requests_total{service=\"shop\",version=\"1.0.0\",code=\"2xx\"}";
    // A request is counted a moment after its client has the answer.
    until("every request to be counted", Duration::from_secs(5), || async {
        app.metric(series).await + rescues(&app, "saved").await == old.script.requests() as f64
    })
    .await;
    let own = app.metric(series).await;
    let (saved, over) = (rescues(&app, "saved").await, rescues(&app, "over_budget").await);
    assert!(saved >= 10.0 && saved <= own * 0.1 + 10.0, "{saved} rescues beside {own} requests of its own");
    assert_eq!(over, seen.failures as f64, "what is over the budget is the canary's error for the client");
    assert_eq!(seen.by_version["2.0.0"], seen.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rescue_the_client_gets_the_canarys_error() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    new.script.status.store(503, SeqCst);
    let app = TestApp::start(&config(old.address, new.address, ALL_NEW, "")).await;
    assert_eq!(app.get("/", &[]).await.status, 503);
    assert!(!app.metrics().await.contains("switchback_rescues_total{"));
}
