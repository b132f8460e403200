//! Each kind of waiting has its own limit, and whoever kept the other waiting is to blame.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{TestApp, read_head, scripted, until};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";

fn config(address: SocketAddr, version: &str, service: &str) -> String {
    format!(
        "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\nretries = 0\n{service}\n\
         [services.shop.versions.1]\nendpoints = [\"{address}\"]\n{version}\n"
    )
}

async fn failures(app: &TestApp, kind: &str) -> f64 {
    app.metric(&format!("switchback_request_failures_total{{service=\"shop\",version=\"1\",kind=\"{kind}\"}}")).await
}

/// Waits until one failure of this kind is counted, and sees that there is no other.
async fn only(app: &TestApp, kind: &str) {
    until(kind, Duration::from_secs(5), || async { failures(app, kind).await == 1.0 }).await;
    for other in ["status", "grpc", "connect", "timeout", "reset"].into_iter().filter(|k| *k != kind) {
        assert_eq!(failures(app, other).await, 0.0, "{other} besides {kind}");
    }
}

async fn no_failure(app: &TestApp) {
    for kind in ["status", "grpc", "connect", "timeout", "reset"] {
        assert_eq!(failures(app, kind).await, 0.0, "{kind}");
    }
}

/// The status of the answer, and how long it took.
async fn get(app: &TestApp) -> (u16, String, Duration) {
    let begun = Instant::now();
    let answer = app.get("/", &[]).await;
    let why = answer.headers.get("proxy-status").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    (answer.status, why, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_come_to_stand() {
    // A queue for connections that is full: further ones get no answer at all.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        held.push(stream.unwrap());
        assert!(held.len() < 100, "the queue never fills");
    }
    let app = TestApp::start(&config(address, "timeouts = { connect = \"300ms\" }", "")).await;
    let (status, why, took) = get(&app).await;
    assert_eq!(status, 504);
    assert!(why.contains("connection_timeout"), "{why}");
    assert!(took > Duration::from_millis(250) && took < Duration::from_secs(5), "{took:?}");
    only(&app, "connect").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_begin() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending().await
    })
    .await;
    let app = TestApp::start(&config(address, "timeouts = { response = \"300ms\" }", "")).await;
    let (status, why, took) = get(&app).await;
    assert_eq!(status, 504);
    assert!(why.contains("http_response_timeout") && took < Duration::from_secs(5), "{why} {took:?}");
    only(&app, "timeout").await;
    // The same, when the whole may take less than the version's own time.
    let app = TestApp::start(&config(address, "", "deadline = \"300ms\"")).await;
    assert_eq!(get(&app).await.0, 504);
    only(&app, "timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_in_the_middle() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(HEAD).await.unwrap();
        stream.write_all(&[b'x'; 500]).await.unwrap();
        std::future::pending().await
    })
    .await;
    let app = TestApp::start(&config(address, "timeouts = { read = \"300ms\" }", "")).await;
    let answer = app.client.get(&app.proxy).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let broken = tokio::time::timeout(Duration::from_secs(5), answer.bytes()).await.unwrap();
    assert!(broken.is_err(), "half an answer must not look whole");
    only(&app, "timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_moves_slowly_may_take_its_time() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(HEAD).await.unwrap();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(80)).await;
            stream.write_all(&[b'x'; 50]).await.unwrap();
        }
    })
    .await;
    let version = "timeouts = { response = \"600ms\", idle = \"600ms\" }";
    let app = TestApp::start(&config(address, version, "deadline = \"600ms\"")).await;
    let answer = app.client.get(&app.proxy).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len(), 1_000);
    no_failure(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_the_clients_doing() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        let _cut = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let limits = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[proxy.limits]\nwrite_timeout = \"300ms\"\n";
    let version = "timeouts = { response = \"1s\", idle = \"1s\" }";
    let app = TestApp::start(&format!("{limits}{}", config(address, version, ""))).await;
    let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let aborts = "switchback_client_aborts_total{service=\"shop\",version=\"1\"}";
    until("the abort to be counted", Duration::from_secs(10), || async { app.metric(aborts).await == 1.0 }).await;
    no_failure(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_takes_nothing_of_an_upload_is_to_blame() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending().await
    })
    .await;
    // Pingora waits a little longer, for an answer that may come all the same.
    let limits = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[proxy.limits]\nbody_timeout = \"500ms\"\n";
    let version = "timeouts = { response = \"500ms\", read = \"500ms\", idle = \"300ms\" }";
    let app = TestApp::start(&format!("{limits}{}", config(address, version, ""))).await;
    let answer = app.client.post(&app.proxy).body(vec![0; 64 << 20]).send().await.unwrap();
    assert_eq!(answer.status(), 504);
    let why = answer.headers()["proxy-status"].to_str().unwrap();
    assert!(why.contains("connection_write_timeout"), "{why}");
    only(&app, "timeout").await;
}

/// An upload in parts with pauses; together they take longer than an answer may.
async fn slow_upload(app: &TestApp) -> reqwest::Response {
    let parts = futures::stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        (n < 12).then(|| (Ok::<_, std::io::Error>(vec![b'x'; 10_000]), n + 1))
    });
    let body = reqwest::Body::wrap_stream(parts);
    app.client.post(format!("{}/", app.proxy)).body(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_moves_may_take_its_time_over_both_protocols() {
    use http_body_util::BodyExt as _;
    let address = scripted(|stream| async move {
        let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
            let length = request.into_body().collect().await?.to_bytes().len();
            Ok::<_, hyper::Error>(hyper::Response::new(format!("{length}")))
        });
        let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
        let _ended = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
    })
    .await;
    for http2 in [false, true] {
        let version = format!("http2 = {http2}\ntimeouts = {{ response = \"600ms\" }}");
        let app = TestApp::start(&config(address, &version, "deadline = \"600ms\"")).await;
        let answer = slow_upload(&app).await;
        assert_eq!(answer.status(), 200, "http2: {http2}");
        assert_eq!(answer.text().await.unwrap(), "120000");
        no_failure(&app).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_which_nothing_is_said_ends_and_nobody_failed() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut nothing = [0];
        let _closed = stream.read(&mut nothing).await;
    })
    .await;
    let app = TestApp::start(&config(address, "timeouts = { response = \"100ms\", stream = \"1s\" }", "")).await;
    let begun = Instant::now();
    let answer = app.client.get(&app.proxy).header("accept", "text/event-stream").send().await.unwrap();
    let _cut = answer.bytes().await;
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
    let served = "switchback_requests_total{service=\"shop\",version=\"1\",code=\"2xx\"}";
    until("the stream to be counted", Duration::from_secs(5), || async { app.metric(served).await == 1.0 }).await;
    no_failure(&app).await;
}
