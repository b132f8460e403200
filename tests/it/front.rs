//! What the front takes and what it refuses, byte by byte: heads, bodies, connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Backend, TestApp, two_versions, until};

/// One service behind the proxy, with these lines in `[proxy]` and `[proxy.limits]`.
async fn start(proxy: &str, limits: &str) -> (Backend, TestApp, SocketAddr) {
    let old = Backend::start("1.0.0").await;
    let text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\n{proxy}\n[proxy.limits]\n{limits}\n{}",
        two_versions(&old, &old, "")
    );
    let app = TestApp::start(&text).await;
    let address = app.app.as_ref().unwrap().listen[0];
    (old, app, address)
}

/// Everything that comes back until the connection ends, or for this long.
async fn read_for(stream: &mut TcpStream, within: Duration) -> String {
    let mut got = Vec::new();
    let _late = tokio::time::timeout(within, stream.read_to_end(&mut got)).await;
    String::from_utf8_lossy(&got).into_owned()
}

async fn send(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_for(&mut stream, Duration::from_secs(20)).await
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0)
}

fn count(haystack: &str, needle: &str) -> usize {
    haystack.matches(needle).count()
}

/// What clients do wrong counts against no version.
async fn nobody_failed(app: &TestApp) {
    let metrics = app.metrics().await;
    let failed = metrics.lines().filter(|l| l.starts_with("switchback_request_failures_total{") && !l.ends_with(" 0"));
    assert_eq!(failed.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_answered_with_400_and_reaches_nobody() {
    let (old, app, address) = start("", "").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let heads: &[(&str, u16)] = &[
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", 417),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 01\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ];
    for (head, wanted) in heads {
        let answer = send(address, format!("{head}{smuggled}").as_bytes()).await;
        assert_eq!((status(&answer), count(&answer, "HTTP/1.1 ")), (*wanted, 1), "{head:?}: {answer}");
        assert!(answer.contains("connection: close\r\n") && answer.contains("proxy-status: switchback;"), "{answer}");
    }
    assert_eq!(old.script.requests(), 0);
    assert_eq!(app.metric("switchback_requests_total{service=\"shop\",version=\"1.0.0\",code=\"4xx\"}").await, 0.0);
    assert_eq!(app.metric("switchback_refused_requests_total{reason=\"malformed\"}").await, heads.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_framed_as_it_should_be_ends_the_connection_and_blames_nobody() {
    let (old, app, address) = start("", "").await;
    let bodies = [
        "\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "zz\r\n",
    ];
    for body in bodies {
        let request = format!(
            "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = send(address, request.as_bytes()).await;
        assert_eq!((status(&answer), count(&answer, "HTTP/1.1 ")), (400, 1), "{body:?}: {answer}");
        assert!(!old.script.last()["path"].to_string().contains("smuggled"), "{body:?}");
    }
    nobody_failed(&app).await;
    // The versions are well and so are their connections.
    for _ in 0..5 {
        assert_eq!(app.get("/", &[]).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_and_pipelined_requests_arrive_as_they_were_meant() {
    let (old, _app, address) = start("", "").await;
    let mut requests = String::new();
    for i in 0..3 {
        requests.push_str(&format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
        requests.push_str("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n7 ;y\r\n, world\r\n0\r\nX-Sum: 1\r\n\r\n");
        requests.push_str("\r\nPUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    }
    requests.push_str("GET /last HTTP/1.0\r\n\r\n");
    for cut in [1, 7, 1_000_000] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        for piece in requests.as_bytes().chunks(cut) {
            stream.write_all(piece).await.unwrap();
        }
        let answer = read_for(&mut stream, Duration::from_secs(20)).await;
        assert_eq!(count(&answer, " 200 OK\r\n"), 10, "{answer}");
        assert_eq!(count(&answer, "\"body_len\":12"), 3);
        assert_eq!(count(&answer, "\"body_len\":3"), 3);
        let order: Vec<_> = ["\"/0\"", "\"/1\"", "\"/2\"", "\"/last\""].map(|p| answer.find(p).unwrap()).to_vec();
        assert!(order.is_sorted(), "answers come in the order of the requests");
    }
    assert_eq!(old.script.requests(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pipelined_requests_are_all_answered() {
    let (old, _app, address) = start("", "").await;
    let mut requests = "GET /x HTTP/1.1\r\nHost: a\r\nX-User-Id: u\r\n\r\n".repeat(500);
    requests.push_str("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = send(address, requests.as_bytes()).await;
    assert_eq!(count(&answer, "HTTP/1.1 200 OK\r\n"), 501);
    assert_eq!(old.script.requests(), 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shortest_request_is_answered_at_once() {
    let (_old, _app, address) = start("", "").await;
    let begun = Instant::now();
    let answer = send(address, b"GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_even_while_the_client_is_still_sending() {
    let (_old, _app, address) = start("", "body_size = \"1KiB\"").await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n").await.unwrap();
    // More than any socket buffer: without patience on the other side this ends in a reset that eats the answer.
    let _may_be_cut = stream.write_all(&vec![b'x'; 3_000_000]).await;
    let answer = read_for(&mut stream, Duration::from_secs(20)).await;
    assert_eq!(status(&answer), 413, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_slow_bodies_and_idle_connections_are_cut() {
    let limits =
        "header_timeout = \"400ms\"\nbody_timeout = \"400ms\"\nmin_body_rate = 1000\nkeepalive_timeout = \"400ms\"";
    let (old, app, address) = start("", limits).await;
    let drip = async |first: &str, piece: &'static [u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let begun = Instant::now();
        let dripping = tokio::spawn(async move {
            while writer.write_all(piece).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut got = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), reader.read_to_end(&mut got)).await;
        dripping.abort();
        assert!(ended.is_ok(), "{first:?} was open for {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10), "{first:?}");
        status(&String::from_utf8_lossy(&got))
    };
    assert_eq!(drip("GET / HTTP/1.1\r\nHost: a\r\n", b"x").await, 408);
    assert_eq!(drip("GET /", b"x").await, 408);
    assert_eq!(drip("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"x").await, 408);
    assert_eq!(drip("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n").await, 408);
    assert_eq!(drip("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"").await, 408, "a stalled body");
    assert_eq!(drip("", b"").await, 0, "silence is not answered");
    assert_eq!(drip("GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"").await, 200, "then idle");
    assert_eq!(drip("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"").await, 0);
    nobody_failed(&app).await;
    assert_eq!(old.script.last()["method"], "GET", "no upload was complete");
    until("no connection is left", Duration::from_secs(5), || async {
        app.metric("switchback_open_connections").await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_in_all_and_for_each_address() {
    let (_old, app, address) = start("", "connections = 40\nconnections_per_address = 10").await;
    let refused = "switchback_refused_requests_total{reason=\"too_many_connections_of_address\"}";
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut part = [0; 12];
        stream.read_exact(&mut part).await.unwrap();
        assert_eq!(&part, b"HTTP/1.1 200");
        open.push(stream);
    }
    let eleventh = send(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(eleventh.starts_with("HTTP/1.1 503 ") && eleventh.contains("\r\nretry-after: 1\r\n"), "{eleventh:?}");
    assert_eq!(app.metric(refused).await, 1.0);
    open.pop();
    until("a place to be free again", Duration::from_secs(5), || async {
        status(&send(address, b"GET / HTTP/1.0\r\n\r\n").await) == 200
    })
    .await;
    drop(open);
    let (_old, app, address) =
        start("trusted = [\"127.0.0.0/8\"]", "connections = 5\nconnections_per_address = 1").await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    until("three of eight to be refused", Duration::from_secs(5), || async {
        app.metric("switchback_refused_requests_total{reason=\"too_many_connections\"}").await == 3.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_is_believed_from_whom_it_is_expected() {
    let (old, app, address) = start("proxy_protocol = [\"127.0.0.0/8\"]", "").await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let client = || old.script.last()["headers"]["x-forwarded-for"].as_str().unwrap_or_default().to_owned();
    let line = format!("PROXY TCP4 203.0.113.9 10.0.0.1 56324 80\r\n{request}");
    assert_eq!(status(&send(address, line.as_bytes()).await), 200);
    assert_eq!(client(), "203.0.113.9");
    // Byte by byte, and both messages in one piece of the network or not.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in line.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&read_for(&mut stream, Duration::from_secs(20)).await), 200);
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28".to_vec();
    binary.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    binary.extend([0; 20]);
    binary.extend(*b"\x04\0\x01x");
    binary.extend(request.as_bytes());
    assert_eq!(status(&send(address, &binary).await), 200);
    assert_eq!(client(), "2001:db8::7");
    let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], request.as_bytes()].concat();
    assert_eq!(status(&send(address, &local).await), 200);
    assert_eq!(client(), "127.0.0.1", "the load balancer's own health check");
    let before = old.script.requests();
    for bad in [request, "PROXY TCP4 nonsense\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "\r\n\r\n\0\r\nQUIT\nxxxx"]
    {
        assert_eq!(send(address, bad.as_bytes()).await, "", "{bad:?}");
    }
    assert_eq!(old.script.requests(), before);
    assert_eq!(app.metric("switchback_refused_requests_total{reason=\"proxy_protocol\"}").await, 4.0);
    let (_old, _app, address) = start("proxy_protocol = [\"192.0.2.0/24\"]", "").await;
    assert_eq!(status(&send(address, line.as_bytes()).await), 400, "from a stranger it is not even HTTP");
}
