//! Connections of HTTP/2 towards versions last: neither whoever does not read for a while, on a stream of many small frames
//! as gRPC has them, costs others theirs, nor how an answer ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{TestApp, read_head, until};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// The smallest message of gRPC that says something.
const MESSAGE: &[u8] = b"\0\0\0\0\x01x";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `:scheme: http`, `:authority: a`, a method from the static table, and a path of less than 127 bytes.
fn head(stream: u32, end: bool, method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x01, 1, b'a', 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    frame(HEADERS, 4 | u8::from(end), stream, &block)
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// A version that speaks HTTP/2.
struct Version {
    address: SocketAddr,
    /// Messages that it has sent, streams that were reset before their end, and its connections that have begun and ended.
    sent: Arc<AtomicU64>,
    resets: Arc<AtomicU64>,
    begun: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

impl Version {
    /// `window`: how many bytes of each request body it takes. `/small` is answered with messages without end, `/deaf` not
    /// at all, `/late` and `/trailers` with a body whose end comes after it, and everything else with 200.
    async fn start(window: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let [sent, resets, begun, ended] = std::array::from_fn(|_| Arc::<AtomicU64>::default());
        let (of_all, cut, begins, ends) = (sent.clone(), resets.clone(), begun.clone(), ended.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                begins.fetch_add(1, SeqCst);
                let (sent, resets, ended) = (of_all.clone(), cut.clone(), ends.clone());
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    let mut connection = builder.initial_window_size(window).handshake(socket).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        match request.uri().path() {
                            "/late" => tokio::spawn(end_late(respond, false, resets.clone())),
                            "/trailers" => tokio::spawn(end_late(respond, true, resets.clone())),
                            _ => tokio::spawn(answer(request, respond, sent.clone())),
                        };
                    }
                    ended.fetch_add(1, SeqCst);
                });
            }
        });
        Self { address, sent, resets, begun, ended }
    }

    async fn behind(&self) -> TestApp {
        let address = self.address;
        TestApp::start(&format!(
            "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\n\
             [services.shop.versions.1]\nendpoints = [\"{address}\"]\nhttp2 = true\n"
        ))
        .await
    }
}

async fn answer(request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, sent: Arc<AtomicU64>) {
    let path = request.uri().path();
    if path == "/deaf" {
        std::future::pending::<()>().await;
    }
    let mut body = respond.send_response(http::Response::new(()), path != "/small").unwrap();
    if path != "/small" {
        return;
    }
    loop {
        body.reserve_capacity(MESSAGE.len());
        while body.capacity() < MESSAGE.len() {
            let Some(Ok(_)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return };
        }
        if body.send_data(Bytes::from_static(MESSAGE), false).is_err() {
            return;
        }
        sent.fetch_add(1, SeqCst);
    }
}

/// All that the length says at once, and the end after a moment in which the stream should not be reset.
async fn end_late(mut respond: SendResponse<Bytes>, trailers: bool, resets: Arc<AtomicU64>) {
    let header = http::Response::builder().header("content-length", "5").body(()).unwrap();
    let mut body = respond.send_response(header, false).unwrap();
    body.send_data(Bytes::from_static(b"whole"), false).unwrap();
    let reset = std::future::poll_fn(|cx| body.poll_reset(cx));
    if tokio::time::timeout(Duration::from_millis(200), reset).await.is_ok() {
        resets.fetch_add(1, SeqCst);
        return;
    }
    let _gone = match trailers {
        true => body.send_trailers(http::HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())])),
        false => body.send_data(Bytes::new(), true),
    };
}

/// A client that takes nothing of any answer's body.
async fn connect(app: &TestApp) -> TcpStream {
    let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    stream
}

async fn no_failures(app: &TestApp) {
    let metrics = app.metrics().await;
    let failed = metrics.lines().filter(|l| l.starts_with("switchback_request_failures_total{") && !l.ends_with(" 0"));
    assert_eq!(failed.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_small_messages_that_nobody_reads_yet_is_kept() {
    let version = Version::start(0).await;
    let app = version.behind().await;
    let mut stream = connect(&app).await;
    let burst = frame(DATA, 0, 1, MESSAGE).repeat(6_000);
    stream.write_all(&[head(1, false, POST, "/deaf"), burst, frame(PING, 0, 0, &[7; 8])].concat()).await.unwrap();
    let answered = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            assert_ne!(head[3], GOAWAY, "{}", String::from_utf8_lossy(&payload));
            if (head[3], head[4]) == (PING, 1) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered).await.expect("the ping is answered");
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stop_do_no_harm_beside_them() {
    const READERS: u64 = 6;
    let version = Version::start(65_535).await;
    let app = version.behind().await;
    // Whoever comes while there is no connection yet gets one of its own.
    assert_eq!(app.client.get(&app.proxy).send().await.unwrap().status(), 200);
    let mut stream = connect(&app).await;
    for n in 0..READERS as u32 {
        stream.write_all(&head(2 * n + 1, true, GET, "/small")).await.unwrap();
    }
    // All that a stream may send ahead.
    let most = READERS * (256 << 10) / MESSAGE.len() as u64;
    until("the readers to be full", Duration::from_secs(30), || async {
        assert_eq!(version.ended.load(SeqCst), 0, "the connection that they share is closed");
        version.sent.load(SeqCst) >= most - 10
    })
    .await;
    assert_eq!(app.client.get(&app.proxy).send().await.unwrap().status(), 200);
    // Two streams that begin in the same moment may get a connection each, but not six.
    assert!(version.begun.load(SeqCst) <= 3);
    assert_eq!(version.ended.load(SeqCst), 0);
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_not_reset_when_only_its_end_is_missing() {
    let version = Version::start(65_535).await;
    let app = version.behind().await;
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for client in [&app.client, &http2] {
        for path in ["late", "trailers", "late"] {
            let answer = client.get(format!("{}/{path}", app.proxy)).send().await.unwrap();
            assert_eq!(answer.headers()["content-length"], "5");
            assert_eq!(answer.text().await.unwrap(), "whole", "{path}");
        }
    }
    assert_eq!(version.resets.load(SeqCst), 0);
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_to_go_on_before_an_endpoint_of_http2() {
    let version = Version::start(65_535).await;
    let app = version.behind().await;
    let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.write_all(b"hello").await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    no_failures(&app).await;
}
