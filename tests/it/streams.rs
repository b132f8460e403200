//! Server-sent events: each reaches the client before the next is sent, pauses are normal, and leaving is no failure.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::{TestApp, until};

/// A source of events for one client: sends what it is told, as chunks over HTTP/1.1.
struct Source {
    address: SocketAddr,
    events: mpsc::Sender<String>,
    /// Whether its client is gone.
    gone: mpsc::Receiver<()>,
}

impl Source {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (events, mut told) = mpsc::channel::<String>(1);
        let (tell_gone, gone) = mpsc::channel(1);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut nothing = [0];
            loop {
                tokio::select! {
                    event = told.recv() => match event {
                        Some(event) => {
                            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                            stream.write_all(chunk.as_bytes()).await.unwrap();
                        }
                        None => {
                            stream.write_all(b"0\r\n\r\n").await.unwrap();
                            break;
                        }
                    },
                    _closed = stream.read(&mut nothing) => break,
                }
            }
            let _nobody_waits = tell_gone.send(()).await;
        });
        Self { address, events, gone }
    }
}

fn config(address: SocketAddr, timeouts: &str) -> String {
    format!(
        "[services.news]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\n\
         [services.news.versions.1]\nendpoints = [\"{address}\"]\n{timeouts}\n"
    )
}

async fn subscribe(app: &TestApp, http2: bool) -> reqwest::Response {
    let builder = reqwest::Client::builder().no_proxy();
    let builder = if http2 { builder.http2_prior_knowledge() } else { builder.http1_only() };
    let request = builder.build().unwrap().get(format!("{}/events", app.proxy)).header("accept", "text/event-stream");
    request.send().await.unwrap()
}

async fn no_failures(app: &TestApp) {
    for kind in ["status", "grpc", "connect", "timeout", "reset"] {
        let series = format!("switchback_request_failures_total{{service=\"news\",version=\"1\",kind=\"{kind}\"}}");
        assert_eq!(app.metric(&series).await, 0.0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_next_is_sent() {
    for http2 in [false, true] {
        let source = Source::start().await;
        let app = TestApp::start(&config(source.address, "")).await;
        let answer = subscribe(&app, http2).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut parts = answer.bytes_stream();
        for n in 0..100 {
            let event = format!("id: {n}\ndata: {}\n\n", "x".repeat(n * 10));
            source.events.send(event.clone()).await.unwrap();
            let mut got = Vec::new();
            while got.len() < event.len() {
                let part = tokio::time::timeout(Duration::from_secs(5), parts.next()).await.unwrap().unwrap().unwrap();
                got.extend_from_slice(&part);
            }
            assert_eq!(String::from_utf8(got).unwrap(), event);
        }
        drop(source.events);
        while let Some(rest) = parts.next().await {
            assert_eq!(rest.unwrap(), "", "nothing but the end");
        }
        let served = "switchback_requests_total{service=\"news\",version=\"1\",code=\"2xx\"}";
        until("the stream to be counted", Duration::from_secs(5), || async { app.metric(served).await == 1.0 }).await;
        no_failures(&app).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_may_be_longer_than_an_answer_may_take() {
    let source = Source::start().await;
    let timeouts = "timeouts = { response = \"100ms\", idle = \"100ms\" }";
    let app = TestApp::start(&config(source.address, timeouts)).await;
    let mut parts = subscribe(&app, false).await.bytes_stream();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        source.events.send("data: x\n\n".to_owned()).await.unwrap();
        assert_eq!(parts.next().await.unwrap().unwrap(), "data: x\n\n");
    }
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_stream_and_blames_nobody() {
    for http2 in [false, true] {
        let mut source = Source::start().await;
        let app = TestApp::start(&config(source.address, "")).await;
        let mut parts = Box::pin(subscribe(&app, http2).await.bytes_stream());
        source.events.send("data: x\n\n".to_owned()).await.unwrap();
        parts.next().await.unwrap().unwrap();
        drop(parts);
        let told = tokio::time::timeout(Duration::from_secs(5), source.gone.recv()).await;
        assert_eq!(told.unwrap(), Some(()), "the source hears of it");
        let aborts = "switchback_client_aborts_total{service=\"news\",version=\"1\"}";
        until("the abort to be counted", Duration::from_secs(5), || async { app.metric(aborts).await == 1.0 }).await;
        no_failures(&app).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_off_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = TestApp::start(&config(listener.local_addr().unwrap(), "")).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4_096];
        let _head = stream.read(&mut head).await.unwrap();
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n").await.unwrap();
    let mut whole = String::new();
    let _closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut whole)).await.unwrap();
    assert!(
        whole.contains("abc") && !whole.ends_with("0\r\n\r\n"),
        "the client must see that it is not whole: {whole}"
    );
    let series = "switchback_request_failures_total{service=\"news\",version=\"1\",kind=\"reset\"}";
    until("the failure to be counted", Duration::from_secs(5), || async { app.metric(series).await == 1.0 }).await;
}
