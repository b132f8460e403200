//! The head of an answer, the pauses in it and the pauses in a request's body each have their own limit, over HTTP/1 and 2.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{TestApp, read_head, scripted, until};

const SOON: Duration = Duration::from_secs(8);
const HOUR: &str = "stream = \"1h\"";

async fn start(address: SocketAddr, limits: &str, version: &str) -> TestApp {
    TestApp::start(&format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[proxy.limits]\n{limits}\n\
         [services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\nretries = 0\n\
         [services.shop.versions.1]\nendpoints = [\"{address}\"]\n{version}\n"
    ))
    .await
}

/// A client of HTTP/1 and one of HTTP/2.
fn clients() -> [(&'static str, reqwest::Client); 2] {
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    [("HTTP/1", reqwest::Client::new()), ("HTTP/2", http2)]
}

async fn count(app: &TestApp, metric: &str, more: &str) -> f64 {
    app.metric(&format!("switchback_{metric}{{service=\"shop\",version=\"1\"{more}}}")).await
}

/// So many failures of a kind, and none of the others.
async fn failed(app: &TestApp, kind: &str, times: f64) {
    let of =
        |kind: &'static str| async move { count(app, "request_failures_total", &format!(",kind=\"{kind}\"")).await };
    for other in ["status", "grpc", "connect", "timeout", "reset"] {
        let wanted = if other == kind { times } else { 0.0 };
        until(other, SOON, || async { of(other).await == wanted }).await;
    }
}

/// What a client got: the status and the error that the proxy names.
fn said(answer: &reqwest::Response) -> (u16, String) {
    let why = answer.headers().get("proxy-status").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    (answer.status().as_u16(), why)
}

/// A head that never ends: a byte now and then.
async fn drip(stream: &mut TcpStream) {
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await;
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// Answers at once, except that `/drip` never comes to the end of its head. Bodies are read first.
async fn dripping() -> SocketAddr {
    scripted(|mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            if head.starts_with("POST") {
                let length = head.to_ascii_lowercase().split("content-length: ").nth(1).map(|l| l.to_owned());
                let length = length.and_then(|l| l.split("\r\n").next()?.parse().ok()).unwrap();
                stream.read_exact(&mut vec![0; length]).await.unwrap();
            }
            if head.contains(" /drip ") {
                return drip(&mut stream).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_is_cut_at_its_deadline() {
    let app = start(dripping().await, "", "timeouts = { response = \"600ms\" }").await;
    let mut cut = 0.0;
    for (http, client) in clients() {
        // On a connection that has served others before, for longer than an answer may take.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(900) {
            assert_eq!(client.get(&app.proxy).send().await.unwrap().text().await.unwrap(), "ok", "{http}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for upload in [0, 100, 300_000] {
            let url = format!("{}/drip", app.proxy);
            let request = if upload == 0 { client.get(url) } else { client.post(url).body(vec![b'x'; upload]) };
            let begun = Instant::now();
            let (status, why) = said(&request.send().await.unwrap());
            assert_eq!(status, 504, "{http} {upload}");
            assert!(why.contains("http_response_timeout"), "{http} {upload} {why}");
            let took = begun.elapsed();
            assert!(took > Duration::from_millis(550) && took < SOON, "{http} {upload} {took:?}");
            cut += 1.0;
        }
    }
    failed(&app, "timeout", cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_deadline_cuts_such_a_head_too() {
    let address = dripping().await;
    for (http, client) in clients() {
        let text = format!(
            "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\ndeadline = \"400ms\"\n\
             [services.shop.versions.1]\nendpoints = [\"{address}\"]\n"
        );
        let app = TestApp::start(&text).await;
        let begun = Instant::now();
        let answer = client.get(format!("{}/drip", app.proxy)).send().await.unwrap();
        assert_eq!(answer.status(), 504, "{http}");
        assert!(begun.elapsed() < SOON, "{http}");
        failed(&app, "timeout", 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_closed_its_side_is_not_waited_for_without_end() {
    let app = start(dripping().await, "", "timeouts = { response = \"500ms\" }").await;
    let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"GET /drip HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    until("the abort", SOON, || async { count(&app, "client_aborts_total", "").await == 1.0 }).await;
    failed(&app, "none", 0.0).await;
}

/// The head after `head`, then half of the body, then the rest after `pause`.
async fn pausing(head: Duration, pause: Duration) -> SocketAddr {
    scripted(move |mut stream| async move {
        while read_head(&mut stream).await.starts_with("GET") {
            tokio::time::sleep(head).await;
            let begin = [b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n".as_slice(), &[b'x'; 10_000]].concat();
            let _gone = stream.write_all(&begin).await;
            tokio::time::sleep(pause).await;
            let _gone = stream.write_all(&[b'x'; 10_000]).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_in_an_answer_have_their_own_limit() {
    let ms = Duration::from_millis;
    for (http, client) in clients() {
        // An answer may take longer to begin than it may pause.
        let app = start(pausing(ms(900), ms(50)).await, "", "timeouts = { response = \"9s\", read = \"400ms\" }").await;
        let answer = client.get(&app.proxy).send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap().len(), 20_000, "{http}");
        failed(&app, "none", 0.0).await;
        let app =
            start(pausing(ms(0), ms(60_000)).await, "", "timeouts = { response = \"60s\", read = \"400ms\" }").await;
        let answer = client.get(&app.proxy).send().await.unwrap();
        let cut = tokio::time::timeout(SOON, answer.bytes()).await;
        assert!(cut.expect("cut in time").is_err(), "{http}: half an answer must not look whole");
        failed(&app, "timeout", 1.0).await;
        // And the other way round.
        let app = start(pausing(ms(0), ms(900)).await, "", "timeouts = { response = \"300ms\", read = \"9s\" }").await;
        let answer = client.get(&app.proxy).send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap().len(), 20_000, "{http}");
        failed(&app, "none", 0.0).await;
        let app =
            start(pausing(ms(60_000), ms(0)).await, "", "timeouts = { response = \"300ms\", read = \"60s\" }").await;
        let answer = tokio::time::timeout(SOON, client.get(&app.proxy).send()).await.unwrap().unwrap();
        assert_eq!(answer.status(), 504, "{http}");
        failed(&app, "timeout", 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_is_no_pause_of_the_version() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 16777216\r\n\r\n").await;
        let _gone = stream.write_all(&vec![b'x'; 16 << 20]).await;
    })
    .await;
    for (http, client) in clients() {
        let app = start(address, "", "timeouts = { response = \"9s\", read = \"300ms\" }").await;
        let mut answer = client.get(&app.proxy).send().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let mut length = 0;
        while let Some(part) = answer.chunk().await.unwrap_or_else(|e| panic!("{http}: {e}")) {
            length += part.len();
        }
        assert_eq!(length, 16 << 20, "{http}");
        failed(&app, "none", 0.0).await;
    }
}

/// Speaks either protocol, reads whole requests and answers what the path asks for.
async fn server() -> SocketAddr {
    use http_body_util::BodyExt as _;
    scripted(|stream| async move {
        let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
            let path = request.uri().path().to_owned();
            let length = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
            if path == "/hang" {
                std::future::pending::<()>().await;
            }
            Ok::<_, hyper::Error>(hyper::Response::new(format!("{length}")))
        });
        let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
        let _ended = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
    })
    .await
}

/// A body of parts with pauses between them, and whether it then stops without an end.
fn body(parts: usize, pause: Duration, stalls: bool) -> reqwest::Body {
    reqwest::Body::wrap_stream(futures::stream::unfold(0, move |n| async move {
        if n == parts && stalls {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(pause).await;
        (n < parts).then(|| (Ok::<_, std::io::Error>(vec![b'x'; 40_000]), n + 1))
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_is_cut_at_its_own_limit_and_is_the_clients_doing() {
    let address = server().await;
    for http2 in [false, true] {
        for (http, client) in clients() {
            let version = format!("http2 = {http2}\ntimeouts = {{ response = \"300ms\", read = \"300ms\", {HOUR} }}");
            let app = start(address, "body_timeout = \"1200ms\"", &version).await;
            let begun = Instant::now();
            let request = client.post(&app.proxy).body(body(2, Duration::from_millis(700), true));
            let answer = tokio::time::timeout(SOON, request.send()).await.unwrap().unwrap();
            assert_eq!(answer.status(), 408, "{http} to http2 = {http2}");
            assert!(begun.elapsed() > Duration::from_millis(2_400), "{http} to http2 = {http2}: {:?}", begun.elapsed());
            until("the abort", SOON, || async { count(&app, "client_aborts_total", "").await == 1.0 }).await;
            failed(&app, "none", 0.0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_an_upload_must_begin_in_time_after_it() {
    let address = server().await;
    for http2 in [false, true] {
        for (http, client) in clients() {
            let version = format!("http2 = {http2}\ntimeouts = {{ response = \"500ms\", {HOUR} }}");
            let app = start(address, "", &version).await;
            let answer = client.post(&app.proxy).body(body(5, Duration::from_millis(200), false)).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), "200000", "{http} to http2 = {http2}");
            failed(&app, "none", 0.0).await;
            let url = format!("{}/hang", app.proxy);
            let request = client.post(url).body(body(5, Duration::from_millis(200), false));
            let answer = tokio::time::timeout(SOON, request.send()).await.unwrap().unwrap();
            assert_eq!(answer.status(), 504, "{http} to http2 = {http2}");
            failed(&app, "timeout", 1.0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_begin_as_soon_as_other_answers() {
    let silent = scripted(|mut stream| async move {
        let mut scrap = [0; 4096];
        while stream.read(&mut scrap).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let version = format!("timeouts = {{ response = \"400ms\", {HOUR} }}");
    let app = start(silent, "", &version).await;
    let mut late = 0.0;
    for (http, client) in clients() {
        let request = client.get(&app.proxy).header("accept", "text/event-stream");
        let answer = tokio::time::timeout(SOON, request.send()).await.unwrap().unwrap();
        assert_eq!(answer.status(), 504, "{http}");
        late += 1.0;
    }
    let websocket = clients()[0].1.get(&app.proxy).header("connection", "upgrade").header("upgrade", "websocket");
    let websocket =
        websocket.header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
    let answer = tokio::time::timeout(SOON, websocket.send()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 504);
    failed(&app, "timeout", late + 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_must_be_answered_in_time_once_it_is_complete() {
    let version = format!("http2 = true\ntimeouts = {{ response = \"400ms\", {HOUR} }}");
    let app = start(server().await, "body_timeout = \"200ms\"", &version).await;
    let client = &clients()[1].1;
    let call = |path: &str| client.post(format!("{}{path}", app.proxy)).header("content-type", "application/grpc");
    // As long as the client may still say something, silence is normal.
    let answer = call("/a.B/C").body(body(2, Duration::from_millis(900), false)).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "80000");
    let hung = call("/hang").body(vec![0; 5]).send();
    let answer = tokio::time::timeout(SOON, hung).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
    until("the failure", SOON, || async { count(&app, "request_failures_total", ",kind=\"timeout\"").await == 1.0 })
        .await;
}
