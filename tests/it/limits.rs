//! Limits of each tenant: who is over them is told when to come back, and nobody else notices.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Answer, Backend, Load, TestApp, two_versions, until};

const TENANTS: &str = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n";
const RATE: &str = "switchback_refused_requests_total{reason=\"rate\"}";
const CONCURRENCY: &str = "switchback_refused_requests_total{reason=\"concurrency\"}";

fn config(old: &Backend, new: &Backend, limits: &str) -> String {
    TENANTS.to_owned() + &two_versions(old, new, &format!("[services.shop.limits]\n{limits}\n"))
}

async fn start(limits: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&config(&old, &new, limits)).await;
    (old, new, app)
}

async fn ask(app: &TestApp, tenant: &str) -> Answer {
    app.get("/", &[("x-tenant-id", tenant)]).await
}

/// How many of `n` requests at once are served; the others must be 429.
async fn served(app: &TestApp, tenant: &str, n: usize) -> usize {
    let answers = futures::future::join_all((0..n).map(|_| ask(app, tenant))).await;
    let count = |status| answers.iter().filter(|a| a.status == status).count();
    assert_eq!(count(200) + count(429), n, "{answers:?}");
    count(200)
}

/// Requests and failures of all versions, as the guard counts them.
async fn counted(app: &TestApp) -> (u64, u64) {
    let (_, stats) = app.api("GET", "/v1/services/shop/stats", None).await;
    let versions = stats["versions"].as_array().unwrap();
    let sum = |key: &str| versions.iter().map(|v| v[key].as_u64().unwrap()).sum();
    (sum("requests"), sum("failures_total"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_much_is_told_when_to_come_back() {
    let (old, new, app) = start("rate = 0.5\nburst = 3").await;
    for _ in 0..3 {
        assert_eq!(ask(&app, "acme").await.status, 200);
    }
    let at = Instant::now();
    let refused = app.client.get(&app.proxy).header("x-tenant-id", "acme").send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let header = |name: &str| refused.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    assert_eq!((header("retry-after"), header("content-type")), ("2".into(), "application/problem+json".into()));
    assert_eq!(header("proxy-status"), "switchback; error=http_request_denied");
    assert_eq!((header("cache-control"), header("x-switchback-version")), ("no-store".into(), String::new()));
    let document: Value = refused.json().await.unwrap();
    assert_eq!((&document["status"], &document["retry_after"]), (&json!(429), &json!(2)));
    assert_eq!(document["type"], "urn:switchback:rate");
    tokio::time::sleep(Duration::from_millis(1_200).saturating_sub(at.elapsed())).await;
    if at.elapsed() < Duration::from_millis(1_700) {
        assert_eq!(ask(&app, "acme").await.status, 429, "not yet");
    }
    tokio::time::sleep(Duration::from_secs(2).saturating_sub(at.elapsed())).await;
    assert_eq!(ask(&app, "acme").await.status, 200, "as it was told");
    assert!(app.metric(RATE).await >= 1.0);
    assert_eq!(old.script.requests() + new.script.requests(), 4, "no version saw the others");
    until("the others are counted", Duration::from_secs(5), async || counted(&app).await == (4, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_has_its_own_limits_in_each_service() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let other = format!(
        "[services.files]\nmatch = [{{ path = \"/files\" }}]\nbaseline = \"1\"\nlimits = {{ rate = 0.01, burst = 2 }}\n\
         [services.files.versions.1]\nendpoints = [\"{}\"]\n",
        old.address
    );
    let limits = "rate = 0.01\nburst = 2\n\
                  groups = { gold = { rate = 0.01, burst = 5 } }\n\
                  tenants = { initech = { rate = \"none\" }, hooli = { rate = 0.01, burst = 3 } }";
    let tenants = TENANTS.to_owned() + "groups = { gold = [\"globex\", \"hooli\"] }\n";
    let text = config(&old, &new, limits).replace(TENANTS, &tenants) + &other;
    let app = TestApp::start(&text).await;
    for (tenant, most) in [("acme", 2), ("umbrella", 2), ("globex", 5), ("hooli", 3), ("initech", 20)] {
        assert_eq!(served(&app, tenant, 20).await, most, "{tenant}");
    }
    let files = app.get("/files", &[("x-tenant-id", "acme")]).await;
    assert_eq!(files.status, 200, "another service has another limit");
    assert_eq!(ask(&app, "acme").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_tenant_count_by_address_or_together() {
    let (old, new, app) = start("rate = 0.01\nburst = 2").await;
    let from = |last: u8| {
        let address = IpAddr::from([127, 0, 0, last]);
        let client = reqwest::Client::builder().no_proxy().local_address(address).build().unwrap();
        let url = app.proxy.clone();
        async move {
            let mut served = 0;
            for _ in 0..4 {
                served += u32::from(client.get(&url).send().await.unwrap().status() == 200);
            }
            served
        }
    };
    assert_eq!((from(2).await, from(3).await, from(2).await), (2, 2, 0));
    app.write_config(&config(&old, &new, "rate = 0.01\nburst = 2\nwithout_tenant = \"together\""));
    app.change("POST", "/v1/reload", Value::Null).await;
    assert_eq!((from(4).await, from(5).await), (2, 0));
    app.write_config(&config(&old, &new, "rate = 0.01\nburst = 2\nwithout_tenant = \"unlimited\""));
    app.change("POST", "/v1/reload", Value::Null).await;
    assert_eq!((from(4).await, from(5).await), (4, 4));
    assert_eq!(served(&app, "acme", 5).await, 2, "tenants are limited all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_follow_a_reload_and_forget_nothing() {
    let (old, new, app) = start("rate = 0.01\nburst = 4").await;
    assert_eq!(served(&app, "acme", 10).await, 4);
    let reload = async |limits: &str| {
        app.write_config(&config(&old, &new, limits));
        app.change("POST", "/v1/reload", Value::Null).await;
    };
    reload("rate = 0.01\nburst = 6").await;
    assert_eq!(served(&app, "acme", 10).await, 2, "four of the six were used");
    reload("rate = 1000").await;
    until("the new rate", Duration::from_secs(2), async || ask(&app, "acme").await.status == 200).await;
    reload("").await;
    assert_eq!(served(&app, "acme", 100).await, 100);
    reload("concurrency = 1").await;
    old.script.delay_us.store(300_000, SeqCst);
    assert_eq!(served(&app, "acme", 5).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_a_time_are_limited_and_those_that_end_make_room() {
    let (old, _new, app) = start("concurrency = 2").await;
    old.script.hang.store(true, SeqCst);
    // Over HTTP/2 a client that leaves is noticed at once.
    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let slow = |client: &reqwest::Client, tenant: &'static str| {
        let request = client.get(&app.proxy).header("x-tenant-id", tenant);
        tokio::spawn(async move { request.send().await.map(|r| r.status().as_u16()) })
    };
    let held = [slow(&h2, "acme"), slow(&h2, "acme")];
    until("both are there", Duration::from_secs(5), async || old.script.requests() == 2).await;
    let refused = ask(&app, "acme").await;
    assert_eq!((refused.status, refused.headers["retry-after"].to_str().unwrap()), (429, "1"));
    let others = slow(&h2, "globex");
    until("another tenant is served", Duration::from_secs(5), async || old.script.requests() == 3).await;
    assert_eq!(app.metric(CONCURRENCY).await, 1.0);
    held.iter().chain([&others]).for_each(tokio::task::JoinHandle::abort);
    old.script.hang.store(false, SeqCst);
    until("there is room for one", Duration::from_secs(5), async || ask(&app, "acme").await.status == 200).await;
    until("and for two", Duration::from_secs(5), async || served(&app, "acme", 2).await == 2).await;
    // And over HTTP/1, where closing means leaving for limited tenants.
    old.script.hang.store(true, SeqCst);
    let before = old.script.requests();
    let held = [slow(&app.client, "acme"), slow(&app.client, "acme")];
    until("both are there", Duration::from_secs(5), async || old.script.requests() == before + 2).await;
    held.iter().for_each(tokio::task::JoinHandle::abort);
    old.script.hang.store(false, SeqCst);
    until("there is room again", Duration::from_secs(5), async || served(&app, "acme", 2).await == 2).await;
}

/// Answers an upgrade with 101 and anything else with an event stream, and keeps the connection open.
async fn stream_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_head(&mut stream).await;
                let answer = if head.contains("upgrade: websocket") {
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
                } else {
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n"
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _until_closed = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8_lossy(&head).to_ascii_lowercase()
}

/// Opens a stream; gives the status and the connection.
async fn open(app: &TestApp, more: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(app.proxy.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx-tenant-id: acme\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    (head.split(' ').nth(1).unwrap().to_owned(), stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_count_as_long_as_they_are_open() {
    const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                           sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let backend = stream_backend().await;
    let app = TestApp::start(&format!(
        "{TENANTS}[services.live]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\nlimits = {{ concurrency = 2 }}\n\
         [services.live.versions.1]\nendpoints = [\"{backend}\"]\n"
    ))
    .await;
    let (socket, events) = (open(&app, UPGRADE).await, open(&app, "accept: text/event-stream\r\n").await);
    assert_eq!((socket.0.as_str(), events.0.as_str()), ("101", "200"));
    for _ in 0..5 {
        assert_eq!(open(&app, UPGRADE).await.0, "429");
    }
    drop(socket);
    until("the closed one makes room", Duration::from_secs(5), async || open(&app, UPGRADE).await.0 == "101").await;
    drop(events);
}

/// A version that serves one request after the other, as one that is worn out does.
async fn narrow_backend(each: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    let router = axum::Router::new().fallback(move || {
        let turn = turn.clone();
        async move {
            let _mine = turn.lock().await;
            tokio::time::sleep(each).await;
            "served"
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// The 99th percentile of a quiet tenant's latency over `n` requests, all of which must be served.
async fn quiet_p99(app: &TestApp, n: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..n {
        let begin = Instant::now();
        assert_eq!(ask(app, "quiet").await.status, 200);
        times.push(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    times.sort_unstable();
    times[n * 99 / 100]
}

fn hammer(app: &TestApp) -> Load {
    Load::start(app, 600, Arc::new(|_| ("/".to_owned(), vec![("x-tenant-id".to_owned(), "loud".to_owned())])))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_does_not_wear_out_the_others() {
    // 4 ms each: 250 requests per second are all that the version can do.
    let backend = narrow_backend(Duration::from_millis(4)).await;
    let text = |limits: &str| {
        format!(
            "{TENANTS}[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\n{limits}\n\
             [services.shop.versions.1]\nendpoints = [\"{backend}\"]\n"
        )
    };
    let app = TestApp::start(&text("limits = { rate = 50, burst = 10, concurrency = 1 }")).await;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        alone.push(quiet_p99(&app, 40).await);
        let load = hammer(&app);
        beside.push(quiet_p99(&app, 40).await);
        let seen = load.stop().await;
        assert_eq!(seen.failures, 0, "429 is no 5xx: {seen:?}");
    }
    assert!(app.metric(RATE).await > 100.0);
    alone.sort_unstable();
    beside.sort_unstable();
    // One request of the loud tenant may be in front; what else there is comes from the processors that all share.
    let (alone, beside) = (alone[1], beside[0]);
    assert!(beside <= 2 * alone + Duration::from_millis(10), "{beside:?} beside a loud tenant, {alone:?} alone");
    // Without limits the same load does wear the version out: what the limits are worth, and that this test sees it.
    app.write_config(&text(""));
    app.change("POST", "/v1/reload", Value::Null).await;
    let load = hammer(&app);
    let worn = || async {
        let begin = Instant::now();
        ask(&app, "quiet").await;
        begin.elapsed() > 20 * alone
    };
    until("the version is worn out", Duration::from_secs(20), worn).await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_tenants_take_no_places_from_those_who_are_busy() {
    let metrics = "[metrics]\ntracked_tenants = 100\n";
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    // So slow that each invented tenant is remembered for a while: some 20 000 at the end.
    let limits = "rate = 0.1\nburst = 2\ntenants = { acme = { rate = 0.01, burst = 3 } }";
    let app = TestApp::start(&(metrics.to_owned() + &config(&old, &new, limits))).await;
    let invent = async |from: usize, n: usize| {
        let workers = (0..16).map(|w| {
            let app = &app;
            async move {
                for i in (from + w..from + n).step_by(16) {
                    let answer = ask(app, &format!("made-up-{i}")).await;
                    assert_eq!(answer.status, 200);
                }
            }
        });
        futures::future::join_all(workers).await;
    };
    assert_eq!(served(&app, "acme", 5).await, 3);
    invent(0, 20_000).await;
    assert_eq!(served(&app, "acme", 5).await, 0, "who is busy is not forgotten, however many others come");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_sees_nothing_of_what_was_refused() {
    let (_old, _new, app) = start("rate = 20\nburst = 20").await;
    app.split("shop", 50.0).await;
    let load = Load::start(
        &app,
        400,
        Arc::new(|n| {
            let user = ("x-user-id".to_owned(), format!("u{}", n % 500));
            ("/".to_owned(), vec![("x-tenant-id".to_owned(), "loud".to_owned()), user])
        }),
    );
    until("many were refused", Duration::from_secs(20), async || app.metric(RATE).await > 600.0).await;
    let seen = load.stop().await;
    let answered: u64 = seen.by_version.iter().filter(|(v, _)| !v.is_empty()).map(|(_, n)| n).sum();
    until("those served are counted", Duration::from_secs(5), async || counted(&app).await == (answered, 0)).await;
    assert!(app.events("kind=rollback").await.is_empty());
    let (_, service) = app.api("GET", "/v1/services/shop", None).await;
    assert_eq!(service["split"]["weights"]["2.0.0"], 50.0, "{service}");
}
