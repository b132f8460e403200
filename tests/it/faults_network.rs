//! Names that resolve no more, endpoints that come and go, and versions of which nothing is left: traffic goes on wherever it
//! can, and at once when it can again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::{Answer, Backend, Load, TestApp, client, many_users, read_head, until};
use crate::lifecycle::Process;
use crate::shim::Shim;

async fn get(client: &reqwest::Client, url: String) -> (u16, Duration) {
    let begun = Instant::now();
    let answer = Answer::of(client.get(url).send().await.unwrap()).await;
    if answer.status >= 500 {
        let said = answer.headers["proxy-status"].to_str().unwrap();
        assert!(said.starts_with("switchback; error=connection_refused"), "{said}");
    }
    (answer.status, begun.elapsed())
}

fn service(name: &str, endpoints: &str, more: &str) -> String {
    format!(
        "[services.{name}]\nmatch = [{{ path = \"/{name}\" }}]\nsticky = [{{ header = \"x-user-id\" }}]\nbaseline = \"1\"\n\
         [services.{name}.versions.1]\nendpoints = [{endpoints}]\n{more}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_name_server_dies_the_addresses_from_before_serve_on() {
    let shim = Shim::new();
    shim.name("api", "127.0.0.1");
    let backend = Backend::start("1").await;
    let port = backend.address.port();
    let text =
        service("api", &format!("\"api.test:{port}\""), "") + &service("late", &format!("\"late.test:{port}\""), "");
    let wrapper = shim.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let folder = TempDir::new().unwrap();
    let process = Process::start_under(&folder, &text, &wrapper);
    process.ready().await;
    let client = client();
    let at = async |path: &str| get(&client, format!("{}{path}", process.proxy)).await;
    assert_eq!(at("/api").await.0, 200);
    let (status, took) = at("/late").await;
    assert!(status == 502 && took < Duration::from_secs(1), "nobody waits for a name: {status} {took:?}");
    // No answer, then silence.
    for gone in ["", "hang"] {
        if gone.is_empty() {
            shim.forget("api")
        } else {
            shim.name("api", gone)
        }
        let asked = shim.asked();
        until("two look-ups more than those of the other name", Duration::from_secs(40), async || {
            let (status, took) = at("/api").await;
            assert!(status == 200 && took < Duration::from_secs(1), "{gone:?}: {status} {took:?}");
            shim.asked() >= asked + 14
        })
        .await;
    }
    shim.name("late", "127.0.0.1");
    until("the other name to be found", Duration::from_secs(3), async || at("/late").await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_tenants_that_hang_hold_up_nobody_else() {
    let shim = Shim::new();
    let backend = Backend::start("1").await;
    let tenants = ["t1", "t2", "t3", "t4"];
    tenants.iter().for_each(|tenant| shim.name(&format!("{tenant}.own"), "127.0.0.1"));
    let text = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n".to_owned()
        + &service("api", &format!("\"{{tenant}}.own.test:{}\"", backend.address.port()), "");
    let wrapper = shim.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let folder = TempDir::new().unwrap();
    let process = Process::start_under(&folder, &text, &wrapper);
    process.ready().await;
    let client = client();
    let as_tenant = async |tenant: &str| {
        let request = client.get(format!("{}/api", process.proxy)).header("x-tenant-id", tenant);
        request.send().await.unwrap().status().as_u16()
    };
    for tenant in tenants {
        assert_eq!(as_tenant(tenant).await, 200);
        shim.name(&format!("{tenant}.own"), "hang");
    }
    let asked = shim.asked();
    until("their names to be looked up again", Duration::from_secs(15), async || shim.asked() > asked).await;
    let fresh = Backend::start("2").await;
    let file = folder.path().join("switchback.toml");
    let more = format!(
        "[services.api.versions.2]\nendpoints = [\"{}\"]\nhealth = {{ path = \"/healthz\", interval = \"100ms\" }}\n",
        fresh.address
    );
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + &more).unwrap();
    process.signal("HUP");
    until("the new version to be looked at", Duration::from_secs(3), async || fresh.script.requests() > 0).await;
    for tenant in tenants {
        assert_eq!(as_tenant(tenant).await, 200, "from before");
    }
}

/// A server on this address that is there for a while and gone for a while. When it goes it answers what it has, and closes.
struct Flapping {
    task: JoinHandle<()>,
    answered: Arc<AtomicU64>,
}

impl Flapping {
    fn start(address: SocketAddr, pause: Duration) -> Self {
        let answered = Arc::new(AtomicU64::new(0));
        let count = answered.clone();
        let task = tokio::spawn(async move {
            loop {
                let listener = TcpListener::bind(address).await.unwrap();
                let (stop, stopped) = tokio::sync::watch::channel(false);
                let mut connections = JoinSet::new();
                let until = tokio::time::Instant::now() + pause;
                while let Ok(accepted) = tokio::time::timeout_at(until, listener.accept()).await {
                    connections.spawn(serve(accepted.unwrap().0, stopped.clone(), count.clone()));
                }
                drop(listener);
                stop.send(true).unwrap_or_default();
                while connections.join_next().await.is_some() {}
                tokio::time::sleep(pause).await;
            }
        });
        Self { task, answered }
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, mut stop: tokio::sync::watch::Receiver<bool>, answered: Arc<AtomicU64>) {
    loop {
        tokio::select! {
            readable = stream.readable() => readable.unwrap(),
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if read_head(&mut stream).await.is_empty() {
            return;
        }
        answered.fetch_add(1, SeqCst);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_flaps_costs_no_request_and_its_gauge_follows() {
    let steady = Backend::start("1").await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoints = format!("\"{}\", \"{other}\"", steady.address);
    let health = "health = { path = \"/healthz\", interval = \"100ms\", healthy_after = 1, unhealthy_after = 1 }";
    // All paths, since the load asks for "/".
    let text = service("api", &endpoints, health).replace("path = \"/api\"", "path = \"/\"");
    let app = TestApp::start(&text).await;
    let gauge = format!("switchback_endpoint_up{{service=\"api\",version=\"1\",endpoint=\"{other}\"}}");
    let load = Load::start(&app, 300, many_users(1_000));
    let flapping = Flapping::start(other, Duration::from_millis(250));
    let mut seen = [0, 0];
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        seen[app.metric(&gauge).await as usize] += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answered = flapping.answered.load(SeqCst);
    drop(flapping);
    until("the gauge to say that it is gone", Duration::from_secs(2), async || app.metric(&gauge).await == 0.0).await;
    let flapping = Flapping::start(other, Duration::from_secs(60));
    until("and that it is back", Duration::from_secs(8), async || app.metric(&gauge).await == 1.0).await;
    until("requests to go there", Duration::from_secs(8), async || flapping.answered.load(SeqCst) > 100).await;
    let result = load.stop().await;
    println!("{} requests, {answered} there, gauge 0 and 1: {seen:?}", result.requests);
    assert_eq!(result.failures, 0, "of {}", result.requests);
    assert!(answered > 20 && seen.iter().all(|n| *n > 3), "{answered} {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nothing_is_left_refusals_are_quick_and_the_first_that_is_back_serves() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (first, second) = (free(), free());
    let health = "health = { path = \"/healthz\", interval = \"100ms\", unhealthy_after = 2 }";
    let text = service("bare", &format!("\"{first}\", \"{second}\""), "")
        + &service("checked", &format!("\"{first}\", \"{second}\""), health);
    let app = TestApp::start(&text).await;
    let at = async |path: &str| get(&app.client, format!("{}{path}", app.proxy)).await;
    for _ in 0..20 {
        for path in ["/bare", "/checked"] {
            let (status, took) = at(path).await;
            assert!(status == 502 && took < Duration::from_secs(1), "{path}: {status} {took:?}");
        }
    }
    let down = async || {
        let text = app.metrics().await;
        text.lines()
            .filter(|l| l.starts_with("switchback_endpoint_up{service=\"checked\"") && l.ends_with(" 0"))
            .count()
            == 2
    };
    until("both to be known as gone", Duration::from_secs(5), down).await;
    let back = Backend::start_on("1", second).await;
    for path in ["/bare", "/checked"] {
        for n in 0..20 {
            let (status, took) = at(path).await;
            assert!(status == 200 && took < Duration::from_secs(1), "{path}, request {n} after it is back: {status}");
        }
    }
    assert!(back.script.requests() >= 40);
    let (_, stats) = app.api("GET", "/v1/services/bare/stats", None).await;
    assert!(stats["versions"][0]["failures_total"].as_u64().is_some_and(|n| n == 20), "{stats}");
    assert_eq!(app.api("GET", "/v1/status", None).await.1["read_only"], Value::Bool(false));
}
