//! Which fields reach the other side, seen on the wire: raw clients on one side, raw endpoints on the other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{TestApp, until};

/// An endpoint that answers every request with the bytes it was given last.
struct Raw {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (shared, seen) = (answer.clone(), heads.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (shared, seen) = (shared.clone(), seen.clone());
                tokio::spawn(async move {
                    while let Some(head) = read_head(&mut stream).await {
                        seen.lock().unwrap().push(head);
                        let answer = shared.lock().unwrap().clone();
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                        // What is read until the connection ends must find its end.
                        if !answer.contains("content-length: 2\r\n") {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, answer, heads }
    }

    fn says(&self, answer: &str) {
        *self.answer.lock().unwrap() = answer.to_owned();
    }

    fn last(&self) -> String {
        self.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// A head in lower case; none when the connection ends.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).to_ascii_lowercase())
}

async fn start(endpoint: &Raw, more: &str) -> TestApp {
    TestApp::start(&format!(
        "[tenants]\nidentify = [{{ header = \"x-tenant-id\", trusted = true }}]\n\
         [services.shop]\nmatch = [{{ path = \"/\" }}]\nsticky = [{{ header = \"x-user-id\" }}]\nbaseline = \"1\"\n\
         [services.shop.versions.1]\nendpoints = [\"{}\"]\n{more}",
        endpoint.address
    ))
    .await
}

/// Everything that comes back on a fresh connection until it is closed.
async fn exchange(app: &TestApp, fields: &str) -> String {
    let mut stream = TcpStream::connect(app.proxy.strip_prefix("http://").unwrap()).await.unwrap();
    let connection = if fields.contains("connection:") { "" } else { "connection: close\r\n" };
    let request = format!("GET /a HTTP/1.1\r\nhost: shop.example\r\n{connection}{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("the connection is closed").unwrap();
    String::from_utf8_lossy(&answer).to_ascii_lowercase()
}

fn names(head: &str) -> Vec<&str> {
    head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect()
}

const CLAIMS: &str = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\n\
    x-forwarded-port: 1\r\nx-forwarded-prefix: /evil\r\nforwarded: for=6.6.6.6\r\nx-real-ip: 6.6.6.6\r\n\
    x-client-ip: 6.6.6.6\r\ntrue-client-ip: 6.6.6.6\r\ncf-connecting-ip: 6.6.6.6\r\nx-original-url: /evil\r\n\
    x-rewrite-url: /evil\r\nx-switchback-tenant: evil\r\nx-switchback-version: evil\r\nx-switchback-shadow: 1\r\n\
    x-switchback-bypass: evil\r\nx-switchback-other: evil\r\nx-tenant-id: evil\r\nx-forwarded_for: 6.6.6.6\r\n\
    x_forwarded_for: 6.6.6.6\r\nx_switchback_tenant: evil\r\nx_real_ip: 6.6.6.6\r\nx_tenant_id: evil\r\n\
    x_user_id: evil\r\ncontent_length: 5\r\ntransfer_encoding: chunked\r\nx_request_id: evil\r\nauthorization_: kept\r\n\
    my_app: kept\r\nproxy: http://evil\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_stranger_claims_reaches_an_endpoint() {
    let endpoint = Raw::start().await;
    let app = start(&endpoint, "").await;
    assert!(exchange(&app, CLAIMS).await.starts_with("http/1.1 200"));
    let head = endpoint.last();
    assert!(!head.contains("evil") && !head.contains("6.6.6.6"), "{head}");
    for line in ["x-forwarded-for: 127.0.0.1\r\n", "x-forwarded-proto: http\r\n", "x-forwarded-host: shop.example\r\n"]
    {
        assert_eq!(head.matches(line).count(), 1, "{head}");
    }
    assert!(head.contains("x-switchback-version: 1\r\n") && !head.contains("x-switchback-tenant"), "{head}");
    assert!(!head.contains("content_length") && !head.contains("transfer_encoding"), "{head}");
    assert!(
        head.contains("my_app: kept") && head.contains("authorization_: kept"),
        "the rest is the application's: {head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxys_claims_are_passed_on() {
    let endpoint = Raw::start().await;
    let app = start(&endpoint, "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\ntrusted = [\"127.0.0.1\"]\n").await;
    let claims = "x-forwarded-for: 9.9.9.9\r\nx-forwarded-port: 444\r\nx-real-ip: 9.9.9.9\r\nx-tenant-id: acme\r\n\
                  x-switchback-tenant: evil\r\nx_real_ip: 6.6.6.6\r\n";
    assert!(exchange(&app, claims).await.starts_with("http/1.1 200"));
    let head = endpoint.last();
    for line in [
        "x-forwarded-for: 9.9.9.9, 127.0.0.1",
        "x-forwarded-port: 444",
        "x-real-ip: 9.9.9.9",
        "x-tenant-id: acme",
        "x-switchback-tenant: acme",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line}: {head}");
    }
    assert!(!head.contains("evil") && !head.contains("6.6.6.6"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_connection_stays_on_it() {
    let endpoint = Raw::start().await;
    let app = start(&endpoint, "").await;
    let hops = "connection: close, x-hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\n\
                proxy-authorization: basic x\r\nte: trailers, gzip\r\ntrailer: x\r\nupgrade: h2c\r\nhttp2-settings: x\r\n";
    endpoint.says(
        "HTTP/1.1 200 OK\r\nconnection: x-inner, keep-alive\r\nx-inner: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: close\r\ntrailer: x\r\nupgrade: h2c\r\nx-switchback-tenant: acme\r\nx-outer: 1\r\n\
         content-length: 2\r\n\r\nok",
    );
    let answer = exchange(&app, hops).await;
    let head = endpoint.last();
    for name in
        ["x-hop", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "upgrade", "http2-settings"]
    {
        assert!(!names(&head).contains(&name), "{name}: {head}");
    }
    let got = names(&answer);
    for name in ["x-inner", "keep-alive", "proxy-connection", "trailer", "upgrade", "x-switchback-tenant"] {
        assert!(!got.contains(&name), "{name}: {answer}");
    }
    assert!(got.contains(&"x-outer") && answer.ends_with("\r\n\r\nok"), "{answer}");
    // The version is told by the proxy alone, and an endpoint cannot close the client's connection.
    endpoint.says("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.get(&app.proxy).send().await.unwrap();
    assert_ne!(response.headers().get("connection").map(|v| v.as_bytes()), Some(b"close".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_identify_cannot_be_taken_away_through_connection() {
    let endpoint = Raw::start().await;
    let app = start(&endpoint, "").await;
    for name in ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", ":authority"] {
        let answer = exchange(&app, &format!("connection: close, {name}\r\n")).await;
        assert!(answer.starts_with("http/1.1 400"), "{name}: {answer}");
    }
    let answer = exchange(&app, "connection: close, x-switchback-version, x-request-id\r\n").await;
    let head = endpoint.last();
    assert!(answer.starts_with("http/1.1 200") && head.contains("x-switchback-version: 1\r\n"), "{head}");
    assert!(names(&head).contains(&"x-request-id"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_reach_clients_in_one_form_or_not_at_all() {
    let endpoint = Raw::start().await;
    let app = start(&endpoint, "").await;
    let ask = async |fields: &str, body: &str| {
        endpoint.says(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"));
        exchange(&app, "").await
    };
    for fields in ["content-length: 2\r\ncontent-length: 2\r\n", "content-length: 02\r\n"] {
        let answer = ask(fields, "ok").await;
        assert!(answer.starts_with("http/1.1 200"), "{fields}: {answer}");
        assert_eq!(answer.matches("content-length: 2\r\n").count(), 1, "{answer}");
        assert_eq!(names(&answer).iter().filter(|n| **n == "content-length").count(), 1, "{answer}");
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
    let chunked = ask("transfer-encoding: Chunked\r\n", "2\r\nok\r\n0\r\n\r\n").await;
    assert_eq!(chunked.matches("transfer-encoding: chunked\r\n").count(), 1, "{chunked}");
    let to_the_end = ask("", "ok").await;
    assert!(to_the_end.contains("transfer-encoding: chunked") && to_the_end.contains("\r\nok\r\n"), "{to_the_end}");
    let odd = [
        ("content-length: 2\r\ncontent-length: 3\r\n", "ok"),
        ("content-length: 2, 3\r\n", "ok"),
        ("content-length: +2\r\n", "ok"),
        ("content-length: two\r\n", "ok"),
        ("transfer-encoding: gzip\r\n", "ok"),
        ("transfer-encoding: gzip, chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked, chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
        ("transfer-encoding: xchunked\r\n", "ok"),
    ];
    for (fields, body) in odd {
        let answer = ask(fields, body).await;
        assert!(answer.starts_with("http/1.1 502"), "{fields}: {answer}");
        assert!(answer.contains("proxy-status: switchback; error=http_protocol_error\r\n"), "{answer}");
    }
    let failed = "switchback_request_failures_total{service=\"shop\",version=\"1\",kind=\"reset\"}";
    until("they count against the version", Duration::from_secs(5), async || {
        app.metric(failed).await == odd.len() as f64
    })
    .await;
}
