//! Starts the real thing: the app from a configuration text, and backends that do what a test tells them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use serde_json::{Value, json};
use switchback::app::App;
use switchback::config;
use tempfile::TempDir;

/// A version that does what it is told.
pub struct Backend {
    pub address: SocketAddr,
    pub script: Arc<Script>,
    task: tokio::task::JoinHandle<()>,
}

/// What a backend does with each request.
pub struct Script {
    name: String,
    /// Status of its answers.
    pub status: AtomicU16,
    /// How long it takes, in microseconds; longer where a request's header `x-take-ms` says so.
    pub delay_us: AtomicU64,
    /// Every request whose number modulo 10 000 is below this fails with 500.
    pub fail_per_10k: AtomicU32,
    /// It takes requests and never answers.
    pub hang: AtomicBool,
    /// Only requests of this tenant fail.
    pub fail_tenant: Mutex<Option<String>>,
    /// Requests of these tenants fail.
    pub fail_tenants: Mutex<Vec<String>>,
    /// Paths that begin like this are answered with 404.
    pub missing: Mutex<Vec<String>>,
    /// Bytes by which its answers are larger.
    pub size: Mutex<usize>,
    /// Requests so far.
    pub requests: AtomicU64,
    /// The last request, as JSON.
    pub last: Mutex<Value>,
}

impl Script {
    pub fn fail(&self, percent: f64) {
        self.fail_per_10k.store((percent * 100.0).round() as u32, SeqCst);
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    pub fn last(&self) -> Value {
        self.last.lock().unwrap().clone()
    }
}

impl Backend {
    pub async fn start(name: &str) -> Self {
        Self::start_on(name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_on(name: &str, address: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script {
            name: name.to_owned(),
            status: AtomicU16::new(200),
            delay_us: AtomicU64::new(0),
            fail_per_10k: AtomicU32::new(0),
            hang: AtomicBool::new(false),
            fail_tenant: Mutex::new(None),
            fail_tenants: Mutex::default(),
            missing: Mutex::default(),
            size: Mutex::default(),
            requests: AtomicU64::new(0),
            last: Mutex::new(Value::Null),
        });
        let shared = script.clone();
        let router = Router::new().fallback(move |request| answer(shared.clone(), request));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, script, task }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(script: Arc<Script>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let number = script.requests.fetch_add(1, SeqCst);
    if head.uri.path() == "/healthz" {
        let status = script.status.load(SeqCst);
        return Response::builder().status(status).body(Body::empty()).unwrap();
    }
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let headers: BTreeMap<String, String> =
        head.headers.iter().map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
    let tenant = headers.get("x-switchback-tenant").cloned();
    let seen = json!({ "version": script.name, "method": head.method.as_str(), "path": head.uri.to_string(), "headers": headers, "body_len": body.len(), "body_hash": format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&body)) });
    *script.last.lock().unwrap() = seen.clone();
    if script.hang.load(SeqCst) {
        std::future::pending::<()>().await;
    }
    let asked = head.headers.get("x-take-ms").and_then(|ms| ms.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    let delay = script.delay_us.load(SeqCst) + 1_000 * asked;
    if delay > 0 {
        tokio::time::sleep(Duration::from_micros(delay)).await;
    }
    // A multiplier that is prime to 10 000 spreads the failures evenly over the requests.
    let unlucky = (number * 7_919) % 10_000 < u64::from(script.fail_per_10k.load(SeqCst));
    let listed = |tenant: &String| script.fail_tenants.lock().unwrap().contains(tenant);
    let cursed =
        tenant.is_some() && *script.fail_tenant.lock().unwrap() == tenant || tenant.as_ref().is_some_and(listed);
    let missing = script.missing.lock().unwrap().iter().any(|path| head.uri.path().starts_with(path.as_str()));
    let status = match (unlucky || cursed, missing) {
        (true, _) => 500,
        (false, true) => 404,
        (false, false) => script.status.load(SeqCst),
    };
    let more = " ".repeat(*script.size.lock().unwrap());
    let body = Body::from(seen.to_string() + &more);
    Response::builder().status(status).header("x-backend", &script.name).body(body).unwrap()
}

/// The app under test.
pub struct TestApp {
    pub app: Option<App>,
    pub proxy: String,
    pub admin: String,
    pub folder: Arc<TempDir>,
    pub client: reqwest::Client,
}

impl TestApp {
    /// Starts with this configuration; `[proxy]`, `[admin]` and `[store]` are added when they are not there.
    pub async fn start(text: &str) -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), text).await
    }

    /// Starts in a folder that may hold the state of an earlier run.
    pub async fn start_in(folder: Arc<TempDir>, text: &str) -> Self {
        let file = folder.path().join("switchback.toml");
        std::fs::write(&file, complete(text)).unwrap();
        let settings = config::load(&file).unwrap_or_else(|e| panic!("{e}"));
        let app = App::start(settings).await.unwrap();
        Self {
            proxy: format!("http://{}", app.listen[0]),
            admin: format!("http://{}", app.admin.unwrap()),
            app: Some(app),
            folder,
            client: client(),
        }
    }

    /// Ends in good order and gives the folder back.
    pub async fn stop(mut self) -> Arc<TempDir> {
        self.app.take().unwrap().stop().await;
        self.folder.clone()
    }

    pub fn write_config(&self, text: &str) {
        std::fs::write(self.folder.path().join("switchback.toml"), complete(text)).unwrap();
    }

    /// One request through the proxy.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.get(format!("{}{path}", self.proxy));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// The version that answers a key.
    pub async fn version_of(&self, key: &str) -> String {
        self.get("/", &[("x-user-id", key)]).await.version
    }

    pub async fn api(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.admin));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// A change that must be taken.
    pub async fn change(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.api(method, path, Some(body)).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    pub async fn split(&self, service: &str, new_percent: f64) {
        let body = json!({ "weights": { "2.0.0": new_percent, "1.0.0": 100.0 - new_percent } });
        self.change("PUT", &format!("/v1/services/{service}/split"), body).await;
    }

    pub async fn events(&self, query: &str) -> Vec<Value> {
        let (status, answer) = self.api("GET", &format!("/v1/events?{query}"), None).await;
        assert_eq!(status, 200, "{answer}");
        answer["events"].as_array().unwrap().clone()
    }

    pub async fn metrics(&self) -> String {
        self.client.get(format!("{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap()
    }

    /// The value of one series; 0 when it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find(|l| l.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.map_or(0.0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

/// What a client got.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub version: String,
    pub headers: reqwest::header::HeaderMap,
    /// What the backend saw.
    pub seen: Value,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let version = headers.get("x-switchback-version").map_or(String::new(), |v| v.to_str().unwrap().to_owned());
        let text = response.text().await.unwrap_or_default();
        let seen = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, version, headers, seen }
    }
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap()
}

fn complete(text: &str) -> String {
    let mut text = text.to_owned();
    if !text.contains("[proxy]") {
        text.push_str("\n[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\n");
    }
    if !text.contains("[admin]") {
        // Backends of tests are on this machine, which versions that are registered may not use otherwise.
        text.push_str("\n[admin]\nlisten = \"127.0.0.1:0\"\nendpoint_networks = [\"127.0.0.0/8\"]\n");
    }
    if !text.contains("[store]") {
        text.push_str("\n[store]\npath = \"switchback.db\"\n");
    }
    text
}

/// Two versions of one service, keyed by `x-user-id`.
pub fn two_versions(old: &Backend, new: &Backend, more: &str) -> String {
    format!(
        r#"
[services.shop]
match = [{{ path = "/" }}]
sticky = [{{ header = "x-user-id" }}]
baseline = "1.0.0"
{more}
[services.shop.versions."1.0.0"]
endpoints = ["{}"]
[services.shop.versions."2.0.0"]
endpoints = ["{}"]
"#,
        old.address, new.address
    )
}

/// Waits until a condition holds; panics with `what` when it does not within the time.
pub async fn until<F, Fut>(what: &str, within: Duration, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + within;
    while !condition().await {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a load saw.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub requests: u64,
    /// Answers of 5xx and requests without an answer.
    pub failures: u64,
    pub first_failure: Option<Instant>,
    pub last_failure: Option<Instant>,
    pub by_version: BTreeMap<String, u64>,
}

/// A steady load that runs until it is stopped.
pub struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What request number `n` of a load looks like: path and headers.
pub type Shape = Arc<dyn Fn(u64) -> (String, Vec<(String, String)>) + Send + Sync>;

/// Each request from another of `users`.
pub fn many_users(users: u64) -> Shape {
    Arc::new(move |n| {
        let user = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % users;
        ("/".to_owned(), vec![("x-user-id".to_owned(), format!("user-{user}"))])
    })
}

impl Load {
    /// `rate` requests per second, at most 64 waiting at a time for each of eight senders.
    pub fn start(app: &TestApp, rate: u64, shape: Shape) -> Self {
        const SENDERS: u64 = 8;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..SENDERS).map(|i| {
            let (seen, stop, shape) = (seen.clone(), stop.clone(), shape.clone());
            let (client, proxy) = (app.client.clone(), app.proxy.clone());
            tokio::spawn(async move {
                let mut every = tokio::time::interval(Duration::from_secs_f64(SENDERS as f64 / rate as f64));
                let waiting = Arc::new(tokio::sync::Semaphore::new(64));
                let mut n = i;
                while !stop.load(SeqCst) {
                    every.tick().await;
                    let permit = waiting.clone().acquire_owned().await.unwrap();
                    let (path, headers) = shape(n);
                    n += SENDERS;
                    let (seen, client, url) = (seen.clone(), client.clone(), format!("{proxy}{path}"));
                    tokio::spawn(async move {
                        send(&client, &url, &headers, &seen).await;
                        drop(permit);
                    });
                }
                // Those on their way still count.
                let _all = waiting.acquire_many(64).await;
            })
        });
        Self { tasks: tasks.collect(), seen, stop }
    }

    pub async fn stop(self) -> Seen {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let seen = self.seen.lock().unwrap();
        seen.clone()
    }
}

async fn send(client: &reqwest::Client, url: &str, headers: &[(String, String)], seen: &Mutex<Seen>) {
    let mut request = client.get(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = match request.send().await {
        Ok(response) => Some(Answer::of(response).await),
        Err(_) => None,
    };
    let mut seen = seen.lock().unwrap();
    seen.requests += 1;
    if let Some(answer) = &answer {
        *seen.by_version.entry(answer.version.clone()).or_default() += 1;
    }
    if answer.is_none_or(|a| a.status >= 500) {
        seen.failures += 1;
        seen.last_failure = Some(Instant::now());
        seen.first_failure.get_or_insert_with(Instant::now);
    }
}

/// A server that does with each connection what the test says. It ends with the test.
pub async fn scripted<F, Fut>(with: F) -> SocketAddr
where
    F: Fn(tokio::net::TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(with(stream));
        }
    });
    address
}

/// Reads up to the end of a head and gives it; what follows stays unread.
pub async fn read_head(stream: &mut tokio::net::TcpStream) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
