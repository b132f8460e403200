//! Copies to a version that users do not see: what is copied, what is compared, and that no client waits for it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use serde_json::{Value, json};

use crate::harness::{TestApp, until};

const LONG: Duration = Duration::from_secs(20);

/// A request as a version saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    fn is_copy(&self) -> bool {
        self.headers.contains_key("x-switchback-shadow")
    }
}

type Script = dyn Fn(&Seen) -> Response + Send + Sync;

/// A version that answers by a script that can be replaced.
struct Version {
    address: SocketAddr,
    script: Arc<Mutex<Arc<Script>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    hang: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Version {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Version {
    async fn start(script: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let (seen, hang) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let shared = (script.clone(), seen.clone(), hang.clone());
        let router = Router::new().fallback(move |request: Request| {
            let (script, seen, hang) = shared.clone();
            async move {
                let (head, _) = request.into_parts();
                let one = Seen { method: head.method, path: head.uri.to_string(), headers: head.headers };
                seen.lock().unwrap().push(one.clone());
                if hang.load(SeqCst) {
                    std::future::pending::<()>().await;
                }
                let script = script.lock().unwrap().clone();
                script(&one)
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, script, seen, hang, task }
    }

    async fn with(document: Value) -> Self {
        Self::start(move |_| answer(200, &document)).await
    }

    fn now_does(&self, script: impl Fn(&Seen) -> Response + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(status: u16, document: &Value) -> Response {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(Body::from(document.to_string())).unwrap()
}

/// A service whose baseline is `old`, with these keys in its shadow's table.
fn service(name: &str, path: &str, old: &Version, new: &Version, shadow: &str, more: &str) -> String {
    format!(
        r#"
[services.{name}]
match = [{{ path = "{path}" }}]
sticky = [{{ header = "x-user-id" }}]
baseline = "1.0.0"
{more}
[services.{name}.shadow]
version = "2.0.0"
{shadow}
[services.{name}.versions."1.0.0"]
endpoints = ["{}"]
[services.{name}.versions."2.0.0"]
endpoints = ["{}"]
"#,
        old.address, new.address
    )
}

fn shop(old: &Version, new: &Version, shadow: &str) -> String {
    service("shop", "/", old, new, shadow, "")
}

async fn report(app: &TestApp) -> Value {
    report_of(app, "shop").await
}

async fn report_of(app: &TestApp, service: &str) -> Value {
    let (status, report) = app.api("GET", &format!("/v1/services/{service}/shadow"), None).await;
    assert_eq!(status, 200, "{report}");
    report
}

fn count(report: &Value, key: &str) -> u64 {
    report["requests"][key].as_u64().unwrap_or_else(|| panic!("{key}: {report}"))
}

/// Copies that came to an end, whatever it was.
fn ended(report: &Value) -> u64 {
    ["same", "different", "failed", "timeout", "dropped", "unjudged"].map(|key| count(report, key)).iter().sum()
}

async fn until_ended(app: &TestApp, copies: u64) -> Value {
    until("the copies to end", LONG, || async { ended(&report(app).await) >= copies }).await;
    let report = report(app).await;
    assert_eq!(ended(&report), copies, "{report}");
    report
}

/// `n` requests, never more at a time than the default queue holds.
async fn send(app: &TestApp, n: u64) {
    for _ in 0..n {
        assert_eq!(app.get("/x", &[]).await.status, 200);
        if report_is_behind(app).await {
            until("the copies to go on", LONG, || async { !report_is_behind(app).await }).await;
        }
    }
}

async fn report_is_behind(app: &TestApp) -> bool {
    count(&report(app).await, "waiting") > 50
}

fn fields(report: &Value) -> Vec<(String, u64)> {
    let list = report["fields"].as_array().unwrap().iter();
    list.map(|f| (f["path"].as_str().unwrap().to_owned(), f["requests"].as_u64().unwrap())).collect()
}

/// Differs in every answer: times fine and coarse, ids, a counter, the order of nothing.
fn lively(number: &AtomicU64, price: Value) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let id = number.fetch_add(1, SeqCst).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    json!({
        "id": format!("{id:016x}"),
        "at": now.as_nanos().to_string(),
        "second": now.as_secs(),
        "served": number.load(SeqCst),
        "items": [{ "name": "tea", "price": price, "seen": now.as_micros() as u64 }, { "name": "rice", "price": 5 }],
        "links": { "self": format!("/orders/{id}"), "more": null },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_by_itself_is_no_difference_and_one_changed_field_is_found() {
    // One counter each, begun apart, so that even the counters differ between the versions.
    let (a, b) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1_000_000)));
    let (of_old, of_new) = (a.clone(), b.clone());
    let old = Version::start(move |_| answer(200, &lively(&of_old, json!(10)))).await;
    let new = Version::start(move |_| answer(200, &lively(&of_new, json!(10)))).await;
    let app = TestApp::start(&shop(&old, &new, "share = 100")).await;
    send(&app, 600).await;
    let same = until_ended(&app, 600).await;
    assert_eq!((count(&same, "same"), count(&same, "different")), (600, 0), "{same}");
    assert_eq!((fields(&same).len(), same["verdict"].as_str()), (0, Some("healthy")), "{same}");
    assert!(same["noise"]["samples"].as_u64().unwrap() >= 60, "{same}");
    let noise: Vec<_> = same["noise"]["fields"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    for field in ["$.at", "$.id", "$.items[*].seen", "$.links.self", "$.served"] {
        assert!(noise.contains(&field), "{field} in {noise:?}");
    }
    assert!(!noise.contains(&"$.items[*].price"), "{noise:?}");
    let asked = old.seen().len() as u64;
    assert!((660..=700).contains(&asked), "the first 20, those beside them and a tenth are asked twice: {asked}");

    new.now_does(move |_| answer(200, &lively(&b, json!("4111-1111-1111-1111"))));
    send(&app, 100).await;
    let found = until_ended(&app, 700).await;
    assert_eq!(fields(&found), [("$.items[*].price".to_owned(), 100)], "{found}");
    assert_eq!((count(&found, "same"), count(&found, "different")), (600, 100));
    assert_eq!(found["verdict"], "breach");
    let field = &found["fields"][0];
    assert_eq!(field["kind"], "type");
    let example =
        json!({ "baseline": { "type": "number", "length": 2 }, "shadow": { "type": "string", "length": 19 } });
    assert_eq!(field["example"], example);
    assert!(!found.to_string().contains("4111"), "values are not shown: {found}");
    assert!(found["latency"]["baseline"]["p99"].is_f64() && found["latency"]["shadow"]["p50"].is_f64());

    let (_, compared) = app.api("GET", "/v1/services/shop/compare?a=1.0.0&b=2.0.0", None).await;
    assert_eq!(compared["shadow"]["verdict"], "breach");
    assert_eq!(compared["shadow"]["fields"][0]["path"], "$.items[*].price");
    assert_eq!(compared["b"]["requests"], 0, "copies are no requests: {compared}");
    let of = |result: &str| {
        format!("switchback_shadow_requests_total{{service=\"shop\",version=\"2.0.0\",result=\"{result}\"}}")
    };
    assert_eq!((app.metric(&of("different")).await, app.metric(&of("same")).await), (100.0, 600.0));
    let users = "switchback_requests_total{service=\"shop\",version=\"2.0.0\",code=\"2xx\"}";
    assert_eq!(app.metric(users).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_hangs_costs_the_client_nothing() {
    let document = json!({ "a": 1 });
    let (old, new, idle) =
        (Version::with(document.clone()).await, Version::with(document.clone()).await, Version::with(document).await);
    new.hang.store(true, SeqCst);
    let shadow = "share = 100\ntimeout = \"200ms\"\nconcurrency = 4\nqueue = 8";
    let text =
        service("shop", "/shop", &old, &new, shadow, "") + &service("plain", "/plain", &old, &idle, "share = 0", "");
    let app = TestApp::start(&text).await;
    let mut best = f64::MAX;
    let mut sent = 0;
    // The machine has other work too: the best of some rounds tells what the shadow adds, the worst what the others do.
    for _ in 0..5 {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..500 {
            for (path, times) in ["/plain", "/shop"].iter().zip(&mut times) {
                let begun = Instant::now();
                assert_eq!(app.get(path, &[]).await.status, 200);
                times.push(begun.elapsed());
            }
            sent += 1;
        }
        let [plain, shadowed] = times.map(|mut times| {
            times.sort();
            times[times.len() * 99 / 100].as_secs_f64()
        });
        best = best.min(shadowed - plain * 1.25);
        if best < 0.001 {
            break;
        }
    }
    assert!(best < 0.001, "the 99th percentile is {best} s above that without a shadow");
    until("the last copies to run out", LONG, || async { ended(&report(&app).await) == sent }).await;
    let report = report(&app).await;
    assert!(count(&report, "dropped") > 0 && count(&report, "timeout") >= 12, "{report}");
    assert_eq!(count(&report, "dropped") + count(&report, "timeout"), sent, "{report}");
    assert_eq!(report["verdict"], "breach", "no answer is worse than another: {report}");
    let copies = new.seen().len() as u64;
    assert_eq!(copies, count(&report, "timeout"), "what is dropped is not sent");
    assert!(idle.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_and_the_end_does_not_wait() {
    let (old, new) = (Version::with(json!({})).await, Version::with(json!({})).await);
    new.hang.store(true, SeqCst);
    let app = TestApp::start(&shop(&old, &new, "share = 100\ntimeout = \"1m\"\nconcurrency = 2\nqueue = 3")).await;
    for _ in 0..2 {
        app.get("/", &[]).await;
    }
    until("both turns to be taken", LONG, || async { new.seen().len() == 2 }).await;
    for _ in 0..10 {
        app.get("/", &[]).await;
    }
    until("the rest to be dropped", LONG, || async { count(&report(&app).await, "dropped") == 7 }).await;
    assert_eq!(count(&report(&app).await, "waiting"), 3);
    assert_eq!(new.seen().len(), 2);
    let begun = Instant::now();
    app.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

const CREDENTIALS: [(&str, &str); 4] =
    [("authorization", "Bearer t"), ("cookie", "sid=1"), ("x-api-key", "k"), ("x-csrf-token", "c")];

#[tokio::test(flavor = "multi_thread")]
async fn copies_say_what_the_request_said_without_credentials_unless_allowed() {
    for allowed in [false, true] {
        let (old, new) = (Version::with(json!({})).await, Version::with(json!({})).await);
        let app = TestApp::start(&shop(&old, &new, &format!("share = 100\ncredentials = {allowed}"))).await;
        let mut headers = CREDENTIALS.to_vec();
        headers.extend([
            ("x-user-id", "u"),
            ("accept", "application/json"),
            ("x-switchback-shadow", "0"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("proxy-authorization", "Basic p"),
        ]);
        app.get("/orders?page=2", &headers).await;
        until("copy and repetition", LONG, || async { new.seen().len() == 1 && old.seen().len() == 2 }).await;
        let (copy, first, again) = (new.seen()[0].clone(), old.seen()[0].clone(), old.seen()[1].clone());
        assert!(!first.is_copy(), "a client cannot pass for a copy");
        for (name, value) in CREDENTIALS {
            assert_eq!(copy.header(name), allowed.then_some(value), "{name}");
            assert_eq!(again.header(name), first.header(name), "the baseline has seen it anyway");
        }
        for seen in [&copy, &again] {
            assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/orders?page=2"));
            assert_eq!(seen.header("x-switchback-shadow"), Some("1"));
            assert!(seen.header("x-hop").is_none() && seen.header("proxy-authorization").is_none());
            for name in ["x-user-id", "accept", "x-request-id", "traceparent", "x-forwarded-for", "host"] {
                assert!(first.header(name).is_some(), "{name}");
                assert_eq!(seen.header(name), first.header(name), "{name}");
            }
        }
        assert_eq!(copy.header("x-switchback-version"), Some("2.0.0"));
        assert_eq!(again.header("x-switchback-version"), Some("1.0.0"));
        let report = until_ended(&app, 1).await;
        assert_eq!(report["without_credentials"], u64::from(!allowed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_safe_requests_that_the_baseline_serves_are_copied() {
    let (old, new) = (Version::with(json!({})).await, Version::with(json!({})).await);
    let text = service("shop", "/", &old, &new, "share = 100\nnoise_share = 0", "skew = [\"/assets\"]");
    let app = TestApp::start(&text).await;
    let url = |path: &str| format!("{}{path}", app.proxy);
    app.change("PUT", "/v1/services/shop/pins/user/tester", json!({ "version": "2.0.0" })).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(app.client.request(method, url("/change")).send().await.unwrap().status(), 200);
    }
    assert_eq!(app.client.get(url("/body")).body("x").send().await.unwrap().status(), 200);
    app.get("/condition", &[("if-none-match", "\"1\"")]).await;
    app.get("/stream", &[("accept", "text/event-stream")]).await;
    app.get("/canary", &[("x-user-id", "tester")]).await;
    old.now_does(|_| answer(503, &json!({})));
    assert_eq!(app.get("/broken", &[]).await.status, 503);
    old.now_does(|_| answer(404, &json!({})));
    assert_eq!(app.get("/assets/app.js", &[]).await.status, 200, "the other version's answer, which is no reference");
    assert_eq!(app.client.head(url("/head")).send().await.unwrap().status(), 404);
    assert_eq!(app.get("/get", &[]).await.status, 404, "what the client did wrong is an answer as well");
    let report = until_ended(&app, 2).await;
    let copies: Vec<_> =
        new.seen().into_iter().filter(Seen::is_copy).map(|s| format!("{} {}", s.method, s.path)).collect();
    assert_eq!(copies.len(), 2, "{copies:?}");
    assert!(copies.contains(&"HEAD /head".to_owned()) && copies.contains(&"GET /get".to_owned()), "{copies:?}");
    assert_eq!(count(&report, "different"), 2);
    assert_eq!(report["statuses"], json!([{ "baseline": 404, "shadow": 200, "requests": 2 }]));
    assert_eq!(old.seen().iter().filter(|s| s.is_copy()).count(), 0, "the baseline is not asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_share_is_kept() {
    let (old, new) = (Version::with(json!({})).await, Version::with(json!({})).await);
    let app = TestApp::start(&shop(&old, &new, "share = 2.5\nnoise_share = 0")).await;
    for _ in 0..800 {
        assert_eq!(app.get("/", &[]).await.version, "1.0.0");
    }
    until("the copies to end", LONG, || async { ended(&report(&app).await) == new.seen().len() as u64 }).await;
    let copies = new.seen().len();
    assert!((17..=23).contains(&copies), "{copies} of 800 at 2.5 %");
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_fields_large_and_packed_answers() {
    let packed = |document: Value, level: u32| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(document.to_string().as_bytes()).unwrap();
        let answer = Response::builder().header("content-type", "application/json").header("content-encoding", "gzip");
        answer.body(Body::from(encoder.finish().unwrap())).unwrap()
    };
    let script = move |build: u8| {
        move |seen: &Seen| match seen.path.as_str() {
            "/packed" => packed(json!({ "build": build, "text": "x".repeat(2_000), "n": 1 }), u32::from(build)),
            "/large" => answer(200, &json!("x".repeat(5_000 + usize::from(build)))),
            _ => answer(200, &json!({ "build": build, "deep": [{ "build": build }] })),
        }
    };
    let (old, new) = (Version::start(script(1)).await, Version::start(script(9)).await);
    let keys = "share = 100\nbody = \"4KiB\"\nignore = [\"$.build\", \"$.deep[*].build\"]";
    let app = TestApp::start(&shop(&old, &new, keys)).await;
    for path in ["/plain", "/packed", "/large"] {
        app.get(path, &[("accept-encoding", "gzip")]).await;
    }
    let report = until_ended(&app, 3).await;
    assert_eq!((count(&report, "same"), count(&report, "unjudged")), (2, 1), "{report}");
    assert_eq!(report["settings"]["ignore"], json!(["$.build", "$.deep[*].build"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_shadow_fails_and_stays_in_use() {
    let (old, new) = (Version::with(json!({})).await, Version::with(json!({})).await);
    let text = shop(&old, &new, "share = 100");
    drop(new);
    let app = TestApp::start(&text).await;
    send(&app, 30).await;
    let report = until_ended(&app, 30).await;
    assert_eq!((count(&report, "failed"), report["verdict"].as_str()), (30, Some("breach")));
    let (_, service) = app.api("GET", "/v1/services/shop", None).await;
    let shadow = service["versions"].as_array().unwrap().iter().find(|v| v["name"] == "2.0.0").unwrap();
    assert_eq!(shadow["endpoints"][0]["ejected"], false, "copies are evidence against nobody: {service}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_hosts_and_protocols_are_the_shadows_own() {
    let (old, new) = (Version::with(json!({ "a": 1 })).await, Version::with(json!({ "a": 1 })).await);
    let more = "http2 = true\nhost = \"two.internal\"\nrewrite = { from = \"/api\", to = \"/v2\" }\n";
    let tenants = "[tenants]\nidentify = [{ path = \"/t/{tenant}\", strip = true }]\n";
    let text = tenants.to_owned() + &service("shop", "/api", &old, &new, "share = 100", "") + more;
    let app = TestApp::start(&text).await;
    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for client in [&app.client, &h2] {
        let response = client.get(format!("{}/t/acme/api/x?y=1", app.proxy)).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let report = until_ended(&app, 2).await;
    assert_eq!((count(&report, "same"), report["noise"]["samples"].as_u64()), (2, Some(2)), "{report}");
    for seen in new.seen() {
        assert!(seen.path.ends_with("/v2/x?y=1") && seen.path.contains("two.internal"), "{seen:?}");
        assert_eq!(seen.header("x-switchback-tenant"), Some("acme"));
    }
    assert!(old.seen().iter().all(|s| s.path == "/api/x?y=1"), "{:?}", old.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_lives_as_long_as_the_same_is_compared() {
    let (old, new) = (Version::with(json!({})).await, Version::with(json!({})).await);
    let text = shop(&old, &new, "share = 100");
    let app = TestApp::start(&text).await;
    send(&app, 5).await;
    until_ended(&app, 5).await;
    let reload = async |text: &str| {
        app.write_config(text);
        app.change("POST", "/v1/reload", json!({})).await;
        ended(&report(&app).await)
    };
    app.split("shop", 10.0).await;
    assert_eq!(reload(&text.replace("[services.shop.shadow]", "retries = 2\n[services.shop.shadow]")).await, 5);
    assert_eq!(reload(&text.replace("share = 100", "share = 50")).await, 0, "other settings begin anew");
    app.change("PUT", "/v1/services/shop/baseline", json!({ "version": "2.0.0" })).await;
    let report = report(&app).await;
    assert_eq!((report["active"].as_bool(), report["baseline"].as_str()), (Some(false), Some("2.0.0")));
    let before = new.seen().iter().filter(|s| s.is_copy()).count();
    app.split("shop", 100.0).await;
    for _ in 0..10 {
        assert_eq!(app.get("/", &[]).await.version, "2.0.0");
    }
    assert_eq!(new.seen().iter().filter(|s| s.is_copy()).count(), before, "the baseline is not its own shadow");
    let without = text.split("[services.shop.shadow]").next().unwrap().to_owned()
        + &text[text.find("[services.shop.versions").unwrap()..];
    app.write_config(&without);
    app.change("POST", "/v1/reload", json!({})).await;
    assert_eq!(app.api("GET", "/v1/services/shop/shadow", None).await.0, 404);
}
