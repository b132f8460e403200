//! Hostile clients of HTTP/2, frame by frame: floods, bombs, and those that do not read.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Answer, Backend, TestApp, two_versions, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header as HPACK has it: a literal that is not remembered, or one that is.
fn field(remember: bool, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![if remember { 0x40 } else { 0x00 }];
    for text in [name, value] {
        // The length in seven bits, or what is above 126 in more bytes; no Huffman code.
        match text.len() {
            n @ 0..=126 => bytes.push(n as u8),
            n => {
                bytes.push(127);
                let mut rest = n - 127;
                while rest >= 128 {
                    bytes.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                bytes.push(rest as u8);
            }
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// `:method: GET`, `:scheme: http`, `:path: /`, and the host.
fn request() -> Vec<u8> {
    [vec![0x82, 0x86, 0x84], field(false, ":authority", "a")].concat()
}

async fn start(limits: &str) -> (Backend, TestApp, SocketAddr) {
    let old = Backend::start("1.0.0").await;
    let services = two_versions(&old, &old, "");
    let services = services.replacen("\"1.0.0\"]\n", "\"1.0.0\"]\ntimeouts = { response = \"3s\" }\n", 1);
    let text = format!("[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\n[proxy.limits]\n{limits}\n{services}");
    let app = TestApp::start(&text).await;
    let address = app.app.as_ref().unwrap().listen[0];
    (old, app, address)
}

async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Sends the same again and again, reading what comes; how many times, until the proxy has had enough.
async fn flood(address: SocketAddr, begin: &[u8], piece: impl Fn(u32) -> Vec<u8>) -> u32 {
    let (mut reader, mut writer) = connect(address).await.into_split();
    writer.write_all(begin).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut scrap = vec![0; 64 << 10];
        while reader.read(&mut scrap).await.is_ok_and(|n| n > 0) {}
    });
    let flooding = async {
        let mut sent = 0;
        while !reading.is_finished() && writer.write_all(&piece(sent)).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let sent = tokio::time::timeout(Duration::from_secs(30), flooding).await.expect("the connection is closed");
    reading.abort();
    sent
}

/// Versions are blamed for nothing, and others are served.
async fn is_well(app: &TestApp, client: &reqwest::Client) {
    let response = client.get(format!("{}/", app.proxy)).send().await.unwrap();
    assert_eq!(Answer::of(response).await.status, 200);
    let metrics = app.metrics().await;
    let failed = metrics.lines().filter(|l| l.starts_with("switchback_request_failures_total{") && !l.ends_with(" 0"));
    assert_eq!(failed.collect::<Vec<_>>(), Vec::<&str>::new());
}

fn http2_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_without_content_end_the_connection() {
    let (old, app, address) = start("h2_control_frames = 100").await;
    let open = frame(HEADERS, END_HEADERS, 1, &request());
    let floods: [(&str, &[u8], Vec<u8>); 7] = [
        ("PING", b"", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", b"", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", b"", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("unknown", b"", frame(77, 0, 0, b"hello")),
        ("empty DATA", &open, frame(DATA, 0, 1, b"")),
        ("tiny DATA", &open, frame(DATA, 0, 1, b"x")),
        ("tiny WINDOW_UPDATE", b"", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ];
    for (what, begin, piece) in floods {
        let sent = flood(address, begin, |_| piece.clone()).await;
        assert!(sent < 20_000, "{what}: {sent} were taken");
    }
    is_well(&app, &http2_client()).await;
    until("no connection of theirs is left", Duration::from_secs(5), || async {
        app.metric("switchback_open_connections").await <= 1.0
    })
    .await;
    assert!(old.script.requests() <= 3, "{}", old.script.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_at_once_do_not_wear_anybody_out() {
    let (old, app, address) = start("").await;
    let sent = flood(address, b"", |n| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, &request()), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            .concat()
    })
    .await;
    assert!(sent < 20_000, "{sent}");
    assert!(old.script.requests() < 200, "{} of {sent} reached the version", old.script.requests());
    is_well(&app, &http2_client()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_headers_end_the_connection() {
    let (old, app, address) = start("").await;
    let begin = frame(HEADERS, 0, 1, &request());
    let sent = flood(address, &begin, |_| frame(CONTINUATION, 0, 1, &field(false, "x", &"y".repeat(1_000)))).await;
    // Sockets hold some megabytes of what nobody reads any more.
    assert!(sent < 10_000, "{sent} continuations were taken");
    let sent = flood(address, &begin, |_| frame(CONTINUATION, 0, 1, b"")).await;
    assert!(sent < 20_000, "{sent} empty continuations were taken");
    assert_eq!(old.script.requests(), 0);
    is_well(&app, &http2_client()).await;
}

/// Resident memory of this process in bytes: the proxy runs in it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_bomb_holds_little_memory() {
    const CONNECTIONS: u64 = 10;
    let (old, app, address) = start("").await;
    old.script.hang.store(true, std::sync::atomic::Ordering::SeqCst);
    // One large header is remembered, and then named by one byte as often as fits.
    let bomb = |stream: u32| {
        let mut block = request();
        if stream == 1 {
            block.extend(field(true, "x", &"y".repeat(3_900)));
        }
        block.extend(vec![0xbe; 15]);
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    };
    // Empty headers: as many as the limit on the list's size lets through.
    let crumbs = |stream: u32| {
        let mut block = request();
        if stream == 1 {
            block.extend(field(true, "a", ""));
        }
        block.extend(vec![0xbe; 1_900]);
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    };
    let before = resident();
    let mut open = Vec::new();
    for i in 0..CONNECTIONS {
        let mut stream = connect(address).await;
        for id in 0..100 {
            let piece = if i % 2 == 0 { bomb(2 * id + 1) } else { crumbs(2 * id + 1) };
            if stream.write_all(&piece).await.is_err() {
                break;
            }
        }
        open.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = resident().saturating_sub(before) / CONNECTIONS;
    assert!(held < 12 << 20, "{} KiB for each connection", held >> 10);
    println!("{} KiB for each hostile connection", held >> 10);
    drop(open);
    old.script.hang.store(false, std::sync::atomic::Ordering::SeqCst);
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    is_well(&app, &plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_and_blames_nobody() {
    let (old, app, address) = start("write_timeout = \"500ms\"").await;
    *old.script.size.lock().unwrap() = 1 << 20;
    // A window of nothing: the answer cannot be sent.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request())).await.unwrap();
    let in_flight = "switchback_requests_in_flight{service=\"shop\",version=\"1.0.0\"}";
    until("the request to arrive", Duration::from_secs(5), || async { old.script.requests() == 1 }).await;
    until("the request to be given up", Duration::from_secs(10), || async { app.metric(in_flight).await == 0.0 }).await;
    *old.script.size.lock().unwrap() = 0;
    is_well(&app, &http2_client()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_upload_is_given_up_and_blames_nobody() {
    let (old, app, address) = start("body_timeout = \"500ms\"\nmin_body_rate = 1000").await;
    let mut stream = connect(address).await;
    let post =
        [vec![0x83, 0x86, 0x84], field(false, ":authority", "a"), field(false, "content-length", "100000")].concat();
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &post)).await.unwrap();
    stream.write_all(&frame(DATA, 0, 1, &[0; 100])).await.unwrap();
    let in_flight = "switchback_requests_in_flight{service=\"shop\",version=\"1.0.0\"}";
    until("the request to begin", Duration::from_secs(5), || async { app.metric(in_flight).await == 1.0 }).await;
    until("the request to be given up", Duration::from_secs(10), || async { app.metric(in_flight).await == 0.0 }).await;
    // A drip is no better.
    stream.write_all(&frame(HEADERS, END_HEADERS, 3, &post)).await.unwrap();
    until("the drip to begin", Duration::from_secs(5), || async { app.metric(in_flight).await == 1.0 }).await;
    until("the drip to be given up", Duration::from_secs(10), || {
        let cut = stream.try_write(&frame(DATA, 0, 3, &[0; 5])).is_err();
        let app = &app;
        async move { cut || app.metric(in_flight).await == 0.0 }
    })
    .await;
    assert_ne!(old.script.last()["body_len"], 100_000, "no upload was complete");
    is_well(&app, &http2_client()).await;
}

/// The first byte of the header of the answer on stream 1, which is its status for common ones: 0x88 is 200, 0x8c is 400.
async fn answered(stream: &mut TcpStream) -> Option<u8> {
    let reading = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).await.ok()?;
            if (head[3], head[8]) == (HEADERS, 1) {
                return payload.first().copied();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("an answer or the end")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_frame_is_settings() {
    let (old, app, address) = start("").await;
    let firsts = [
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &request()),
        frame(PING, 0, 0, &[0; 8]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]),
        frame(SETTINGS, 1, 0, &[]),
        frame(77, 0, 0, b"hello"),
    ];
    for first in firsts {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&first).await.unwrap();
        let mut all = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await;
        end.expect("the connection ends").unwrap_or_default();
    }
    assert_eq!(old.script.requests(), 0);
    is_well(&app, &http2_client()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_endpoints_might_refuse_or_read_otherwise_is_refused() {
    let (old, app, address) = start("").await;
    let whole = |fields: &[(&str, &str)], body: &'static [u8]| {
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(false, name, value)).collect();
        [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, body)].concat()
    };
    let begin = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let with = |name, value| whole(&[&begin[..], &[(name, value)]].concat(), b"test");
    let schemed = |scheme| whole(&[begin[0], (":scheme", scheme), begin[2], begin[3]], b"test");
    let refused = [
        with("x", " a"),
        with("x", "a "),
        with("x", "\ta"),
        with("x", "a\t"),
        with("x", " "),
        with("cookie", "a=b "),
        with("content-length", "04"),
        with("content-length", "00004"),
        schemed(""),
        schemed("ftp"),
        schemed("javascript"),
    ];
    let count = refused.len();
    for bytes in refused {
        let mut stream = connect(address).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(answered(&mut stream).await, Some(0x8c), "{}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(old.script.requests(), 0);
    assert_eq!(app.metric("switchback_refused_requests_total{reason=\"malformed\"}").await, count as f64);
    for bytes in [with("x", "a \t b"), with("x", ""), with("content-length", "4"), schemed("HTTPS")] {
        let mut stream = connect(address).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(answered(&mut stream).await, Some(0x88), "{}", String::from_utf8_lossy(&bytes));
    }
    is_well(&app, &http2_client()).await;
}

/// How stream 1 ends: `None` in good order, else with this code.
async fn end_of_stream(stream: &mut TcpStream) -> Option<u32> {
    let reading = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            match (head[3], head[8], head[4] & END_STREAM) {
                (RST_STREAM, 1, _) => return Some(u32::from_be_bytes(payload.try_into().unwrap())),
                (HEADERS | DATA, 1, 1) => return None,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the stream ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_proxy_without_a_body_end_their_stream() {
    let (old, app, address) = start("").await;
    let ask = |fields: &[(&str, &str)]| {
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(false, name, value)).collect();
        [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, b"\0\0\0\0\0")].concat()
    };
    let target = [(":scheme", "http"), (":path", "/"), (":authority", "a")];
    let head = ask(&[&[(":method", "HEAD")], &target[..]].concat());
    let call = ask(&[&[(":method", "POST")], &target[..], &[("content-type", "application/grpc")]].concat());
    drop(old);
    until("the version to be gone", Duration::from_secs(5), || async { app.get("/", &[]).await.status == 502 }).await;
    for (what, bytes) in [("HEAD", head), ("a call", call)] {
        let mut stream = connect(address).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(end_of_stream(&mut stream).await, None, "{what}");
    }
}
