//! The admin API without a socket: a real control room over a store in memory, and every answer held against the
//! description that the API gives of itself.

mod access;
mod changes;
mod description;
mod freeze;
mod hostile;
mod keys;
mod notify;
mod operations;
mod pages;
mod pages_live;
mod pages_rollouts;
mod reach;
mod reading;
mod schema;
mod simulate;
mod snapshots;
mod socket;
mod streams;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::config::{self, Settings};
use crate::control::{Parts, start};
use crate::store::MemoryStore;

/// A service with two versions of the file, two groups and a tenant header.
const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:0"]
[tenants]
identify = [{ header = "x-tenant-id" }]
groups = { beta = ["acme", "globex"], gold = ["initech"] }
[services.accounting]
match = [{ path = "/accounting" }]
sticky = [{ header = "x-user-id" }]
baseline = "1.0.0"
split = { "1.0.0" = 90, "2.0.0" = 10 }
shadow = { version = "2.0.0", ignore = ["$.at"] }
[services.accounting.versions."1.0.0"]
endpoints = ["127.0.0.1:7001", "127.0.0.1:7002"]
[services.accounting.versions."2.0.0"]
endpoints = ["127.0.0.1:7101"]
[services.billing]
match = [{ host = "*.example.com", path = "/billing", method = "POST" }]
baseline = "1"
[services.billing.versions."1"]
endpoints = ["127.0.0.1:7201"]
"#;

/// Tokens `viewer-token`, `operator-token` and `admin-token`.
fn with_tokens() -> String {
    let token = |role: &str| {
        let hash = ring::digest::digest(&ring::digest::SHA256, format!("{role}-token").as_bytes());
        let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        format!("{{ name = \"{role}-ci\", role = \"{role}\", sha256 = \"{hex}\" }}")
    };
    let tokens = ["viewer", "operator", "admin"].map(token).join(", ");
    format!("[admin]\ntokens = [{tokens}]\nallowed_hosts = [\"admin.example.com\"]\nbody_size = \"2KiB\"\n{FILE}")
}

fn settings(text: &str) -> Settings {
    config::parse(text, Path::new("/etc/switchback.toml"), &|_| None).unwrap()
}

/// The API under test.
struct Api {
    router: Router,
    control: Control,
    store: Arc<MemoryStore>,
    windows: Arc<Mutex<Windows>>,
    tallies: Arc<Tallies>,
    now: Arc<AtomicU64>,
    readiness: Arc<Mutex<Readiness>>,
    /// What the next reload reads.
    file: Arc<Mutex<String>>,
    document: Arc<Value>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
    text: String,
}

impl Answer {
    fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }

    fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }
}

impl Api {
    async fn new() -> Self {
        Self::with(FILE, "127.0.0.1:9900").await
    }

    async fn with(file: &str, listen: &str) -> Self {
        Self::over(file, listen, Arc::new(MemoryStore::new())).await
    }

    /// Over a store that may hold something already.
    async fn over(file: &str, listen: &str, store: Arc<MemoryStore>) -> Self {
        let tallies = Arc::new(Tallies::new(1_000));
        let metrics = Arc::new(Metrics::new(tallies.clone(), 5));
        let parts = Parts {
            settings: settings(file),
            store: store.clone(),
            last_good: None,
            salvaged: None,
            returns: false,
            tallies: tallies.clone(),
            metrics: metrics.clone(),
            fresh_secret: "s".repeat(32),
        };
        let control = start(parts).await.unwrap().control;
        let windows = Arc::new(Mutex::new(Windows::default()));
        let now = Arc::new(AtomicU64::new(100_000));
        let readiness = Arc::new(Mutex::new(Readiness { ready: true, ..Readiness::default() }));
        let next_file = Arc::new(Mutex::new(file.to_owned()));
        let (clock, ready, file, door) = (now.clone(), readiness.clone(), next_file.clone(), control.clone());
        let reload: Reload = Arc::new(move || {
            let (text, control) = (file.lock().unwrap().clone(), door.clone());
            Box::pin(async move {
                let settings = config::parse(&text, Path::new("/etc/switchback.toml"), &|_| None)?;
                Ok(control.reload(settings).await?)
            })
        });
        let upgrade: Upgrade = Arc::new(|| Box::pin(async { Ok(Upgraded { from: 1, to: 2 }) }));
        let parts = AdminParts {
            control: control.clone(),
            metrics,
            windows: windows.clone(),
            tallies: tallies.clone(),
            now_ms: Arc::new(move || clock.load(Relaxed)),
            ready: Arc::new(move || ready.lock().unwrap().clone()),
            proxy: Arc::new(|| ProxyStatus { listen: vec!["127.0.0.1:8080".parse().unwrap()], open_connections: 3 }),
            reload,
            upgrade,
            notify: notify::door(),
            listen: listen.parse().unwrap(),
            instance: "test-1".to_owned(),
            started: jiff::Timestamp::now(),
        };
        let document = Arc::new(openapi::document(&routes::api()));
        Self { router: router(parts), control, store, windows, tallies, now, readiness, file: next_file, document }
    }

    fn request(method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder().method(method).uri(path).header("host", "localhost:9900")
    }

    /// Sends a request as it is; the answer is held against the description.
    async fn call(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 10 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let kind = headers.get("content-type").map_or("", |v| v.to_str().unwrap());
        let body = if kind.contains("json") { serde_json::from_str(&text).unwrap() } else { Value::Null };
        assert_eq!(headers["x-content-type-options"], "nosniff");
        if path.starts_with("/v1") {
            assert_eq!(headers["cache-control"], "no-store");
        }
        if !status.is_success() && status != StatusCode::NOT_MODIFIED && path != "/readyz" {
            assert_eq!(kind, "application/problem+json", "{method} {path}: {text}");
            assert_eq!(body["status"], status.as_u16());
            schema::check(&self.document, &json!({ "$ref": "#/components/schemas/Problem" }), &body, "problem");
        } else if kind == "application/json" {
            schema::check_answer(&self.document, &method, &path, status.as_u16(), &body);
        }
        Answer { status: status.as_u16(), headers, body, text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Self::request("GET", path).body(Body::empty()).unwrap()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call(Self::request("DELETE", path).body(Body::empty()).unwrap()).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, &[], body).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[], body).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut request = Self::request(method, path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.call(request.body(Body::from(body.to_string())).unwrap()).await
    }
}

/// A body that each route takes.
fn body_for(path: &str) -> Value {
    match path {
        "/v1/rollouts" => json!({ "service": "accounting", "to": "2.0.0", "force": true }),
        "/v1/simulate" => json!({
            "plan": { "service": "accounting", "to": "3.0.0", "steps": [100], "bake": "1s", "max_bake": "2s" },
            "traffic": { "rate": 20 }, "runs": 1, "healthy_runs": 1,
        }),
        p if p.ends_with("/abort") || p.ends_with("/undo") => json!({ "reason": "a test" }),
        p if p.ends_with("/split") => json!({ "weights": { "1.0.0": 50, "2.0.0": 50 } }),
        p if p.contains("/pins/") => json!({ "version": "2.0.0" }),
        p if p.ends_with("/rollback") || p.ends_with("/hold") || p.ends_with("/restore") || p.ends_with("/freeze") => {
            json!({ "reason": "a test" })
        }
        p if p.ends_with("/baseline") => json!({ "version": "2.0.0" }),
        p if p.ends_with("/maintenance") => json!({ "message": "moving", "retry_after": "5m" }),
        p if p.ends_with("/disabled") => json!({ "reason": "a test" }),
        p if p.contains("/versions/") => json!({ "endpoints": ["10.0.0.1:7301"] }),
        _ => json!({}),
    }
}

/// A path with names that exist.
fn filled(path: &str) -> String {
    let path = path.replace("{service}", "accounting").replace("{tenant}", "acme").replace("{group}", "beta");
    path.replace("{version}", "3.0.0")
        .replace("{kind}", "tenant")
        .replace("{name}", "acme")
        .replace("{snapshot}", "monday")
}
