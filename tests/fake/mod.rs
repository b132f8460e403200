//! A scripted admin API, and the real binary run against it.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }
}

type Script = dyn Fn(&Seen, usize) -> Response + Send + Sync;

/// An admin API that answers by a script and remembers what it was asked.
pub struct Fake {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Script>,
}

async fn answer(State(shared): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    let seen = Seen { line: format!("{method} {uri}"), headers, body };
    let before = {
        let mut all = shared.seen.lock().unwrap();
        all.push(seen.clone());
        all.len() - 1
    };
    (shared.script)(&seen, before)
}

impl Fake {
    pub fn new(script: impl Fn(&Seen, usize) -> Response + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Shared { seen: Arc::default(), script: Arc::new(script) };
        let seen = shared.seen.clone();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer).with_state(shared);
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, seen, _runtime: runtime }
    }

    /// Answers these lines with these documents, everything else with 404.
    pub fn with(documents: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let documents: Vec<_> = documents.into_iter().collect();
        Self::new(move |seen, _| match documents.iter().find(|(line, _)| *line == seen.line) {
            Some((_, document)) => json_answer(200, "application/json", document),
            None => problem(404, json!({"title": "Not found", "detail": format!("the script lacks {}", seen.line)})),
        })
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = cli(args);
        command.env("SWITCHBACK_ADMIN", format!("http://{}", self.address));
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|s| s.line).collect()
    }
}

pub fn json_answer(status: u16, kind: &str, document: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(header::CONTENT_TYPE, kind), (header::ETAG, "\"17\"")], document.to_string()).into_response()
}

pub fn problem(status: u16, document: Value) -> Response {
    json_answer(status, "application/problem+json", &document)
}

/// What the program did.
#[derive(Debug, Clone)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self.out
    }

    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        self.err
    }
}

/// The program without anything of the environment that it would heed.
pub fn cli(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.args(args).env("TZ", "UTC").stdin(Stdio::null());
    for name in [
        "SWITCHBACK_ADMIN",
        "SWITCHBACK_TOKEN",
        "SWITCHBACK_CONFIG",
        "NO_COLOR",
        "CLICOLOR",
        "CLICOLOR_FORCE",
        "http_proxy",
        "HTTP_PROXY",
    ] {
        command.env_remove(name);
    }
    command
}
