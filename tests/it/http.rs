//! The rest of HTTP, byte by byte: what clients and servers may do by the standard and what then must arrive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Response;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use xxhash_rust::xxh3::Xxh3;

use crate::harness::{TestApp, read_head, scripted, until};

fn config(address: SocketAddr, version: &str) -> String {
    format!(
        "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\n\
         [services.shop.versions.1]\nendpoints = [\"{address}\"]\n{version}\n"
    )
}

async fn start(address: SocketAddr) -> TestApp {
    TestApp::start(&config(address, "")).await
}

/// A connection to the proxy on which this was sent.
async fn send(app: &TestApp, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// Everything until the proxy closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut whole = Vec::new();
    let _reset = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut whole)).await.expect("no end");
    String::from_utf8_lossy(&whole).into_owned()
}

async fn exactly(stream: &mut TcpStream, length: usize) -> String {
    let mut part = vec![0; length];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut part)).await;
    read.expect("no body").unwrap();
    String::from_utf8_lossy(&part).into_owned()
}

async fn no_failures(app: &TestApp) {
    for kind in ["status", "grpc", "connect", "timeout", "reset"] {
        let series = format!("switchback_request_failures_total{{service=\"shop\",version=\"1\",kind=\"{kind}\"}}");
        assert_eq!(app.metric(&series).await, 0.0, "{kind}");
    }
}

/// A server that answers every request on a connection with what is made of its head.
async fn answering(with: impl Fn(&str) -> String + Send + Sync + Copy + 'static) -> SocketAddr {
    scripted(move |mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() || stream.write_all(with(&head).as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let address = scripted(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.to_ascii_lowercase().contains("expect: 100-continue"), "{head}");
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await.unwrap();
        stream.write_all(&body).await.unwrap();
    })
    .await;
    let app = start(address).await;
    let mut stream =
        send(&app, "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.write_all(b"hello").await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(exactly(&mut stream, 5).await, "hello");
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_may_be_refused() {
    let address = answering(|_| "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 4\r\n\r\nnope".to_owned()).await;
    let app = start(address).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let mut stream = send(&app, head).await;
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 417 ") && head.to_ascii_lowercase().contains("connection: close"), "{head}");
    assert_eq!(exactly(&mut stream, 4).await, "nope");
    assert_eq!(rest(&mut stream).await, "", "the body was never sent, so nothing may follow");
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_leave_the_connection_as_it_was() {
    let address = answering(|head| {
        let answer = match head.split(' ').next() {
            Some("HEAD") => "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n",
            Some("DELETE") => "HTTP/1.1 204 No Content\r\n\r\n",
            Some("PUT") => "HTTP/1.1 304 Not Modified\r\ncontent-length: 777\r\netag: \"a\"\r\n\r\n",
            Some("OPTIONS") => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nend",
        };
        answer.to_owned()
    })
    .await;
    let app = start(address).await;
    let mut stream = send(&app, "").await;
    for (method, status, header) in [
        ("HEAD", "200", "content-length: 12345"),
        ("DELETE", "204", ""),
        ("PUT", "304", "etag: \"a\""),
        ("OPTIONS", "200", "content-length: 0"),
    ] {
        stream
            .write_all(format!("{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")) && head.contains(header), "{method}: {head}");
        assert!(!head.contains("transfer-encoding") && !head.contains("connection: close"), "{method}: {head}");
    }
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(exactly(&mut stream, 3).await, "end");
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_chunks_pass_both_ways() {
    let address = scripted(|mut stream| async move {
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        // The next request on this connection must begin where the body ended.
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("GET /next HTTP/1.1\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext").await.unwrap();
    })
    .await;
    let app = start(address).await;
    let mut stream = send(&app, "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    // Also cut where nothing of the body itself arrives.
    for part in ["5\r\nhello\r\n", "1;extension=x\r\n", ",", "\r\n6", "\r\n wor", "ld\r\n", "0\r\n\r\n"] {
        stream.write_all(part.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let head = read_head(&mut stream).await.to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let mut body = String::new();
    while !body.ends_with("0\r\n\r\n") {
        body.push_str(&exactly(&mut stream, 1).await);
    }
    let text: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(text, "hello, world");
    stream.write_all(b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_head(&mut stream).await;
    assert_eq!(exactly(&mut stream, 4).await, "next");
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_http2_ends_once_towards_http1() {
    // Whether each head that came was one, whatever connection it came on.
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let address = scripted(move |mut stream| {
        let heads = heads.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                heads.send(head.clone()).unwrap();
                if head.starts_with("POST") {
                    let mut body = Vec::new();
                    while !body.ends_with(b"0\r\n\r\n") {
                        body.push(stream.read_u8().await.unwrap());
                    }
                }
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let app = start(address).await;
    let client = client(true);
    for _ in 0..10 {
        // The end of such a body is an empty frame of its own.
        let body = reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>("hello")]));
        assert_eq!(client.post(&app.proxy).body(body).send().await.unwrap().text().await.unwrap(), "ok");
        assert_eq!(client.get(&app.proxy).send().await.unwrap().text().await.unwrap(), "ok");
    }
    while let Ok(head) = seen.try_recv() {
        assert!(head.starts_with("POST / HTTP/1.1\r\n") || head.starts_with("GET / HTTP/1.1\r\n"), "{head:?}");
    }
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_come_before_the_answer() {
    let address = answering(|_| {
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
            .to_owned()
    })
    .await;
    let app = start(address).await;
    let mut stream = send(&app, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let hints = read_head(&mut stream).await;
    assert!(hints.starts_with("HTTP/1.1 103 ") && hints.to_ascii_lowercase().contains("link: </a.css>"), "{hints}");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(exactly(&mut stream, 2).await, "ok");
    // Over HTTP/2 Pingora drops them; the answer itself arrives.
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    assert_eq!(client.get(&app.proxy).send().await.unwrap().text().await.unwrap(), "ok");
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_while_the_upload_runs() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        // It goes on to take what it does not want, as polite servers do.
        let mut part = vec![0; 1 << 20];
        while let Ok(1..) = stream.read(&mut part).await {}
    })
    .await;
    let app = start(address).await;
    let mut stream = send(&app, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\nfirst").await;
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(exactly(&mut stream, 2).await, "no");
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_in_absolute_form_are_those_of_their_host() {
    let address = answering(|head| {
        let seen = head.replace("\r\n", "|");
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{seen}", seen.len())
    })
    .await;
    let text = config(address, "").replace("path = \"/\"", "host = \"shop.test\"");
    let app = TestApp::start(&text).await;
    let mut stream =
        send(&app, "GET http://shop.test/a?b=c HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n").await;
    let whole = rest(&mut stream).await;
    assert!(whole.starts_with("HTTP/1.1 200 "), "{whole}");
    let seen = whole.split("\r\n\r\n").nth(1).unwrap().to_ascii_lowercase();
    assert!(seen.starts_with("get /a?b=c http/1.1|") && seen.contains("|host: shop.test|"), "{seen}");
    // What names two hosts is for nobody.
    let mut stream =
        send(&app, "GET http://shop.test/ HTTP/1.1\r\nhost: other.test\r\nconnection: close\r\n\r\n").await;
    let whole = rest(&mut stream).await;
    assert!(whole.starts_with("HTTP/1.1 400 "), "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_close_its_side_after_the_request() {
    let address = scripted(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("POST") {
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await;
    })
    .await;
    let app = start(address).await;
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        let mut stream = send(&app, request).await;
        stream.shutdown().await.unwrap();
        let whole = rest(&mut stream).await;
        assert!(whole.contains(" 200 OK\r\n") && whole.ends_with("late"), "{request}: {whole}");
    }
    no_failures(&app).await;
    // But half a request is none.
    let mut stream = send(&app, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\nhello").await;
    stream.shutdown().await.unwrap();
    assert!(!rest(&mut stream).await.contains(" 200 "));
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_when_the_client_says_so() {
    let address = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()).await;
    let app = start(address).await;
    let mut stream = send(&app, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let whole = rest(&mut stream).await;
    assert!(whole.to_ascii_lowercase().contains("connection: close") && whole.ends_with("ok"), "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_get_answers_that_they_can_read() {
    let address = answering(|head| {
        assert!(!head.to_ascii_lowercase().contains("connection: keep-alive"), "{head}");
        match head.contains("/chunks") {
            true => {
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nlong\r\n3\r\ner.\r\n0\r\n\r\n".to_owned()
            }
            false => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshort".to_owned(),
        }
    })
    .await;
    let app = start(address).await;
    let mut stream = send(&app, "GET / HTTP/1.0\r\n\r\n").await;
    let whole = rest(&mut stream).await;
    assert!(whole.ends_with("\r\n\r\nshort"), "{whole}");
    let mut stream = send(&app, "GET /chunks HTTP/1.0\r\n\r\n").await;
    let whole = rest(&mut stream).await;
    assert!(whole.ends_with("\r\n\r\nlonger."), "chunks mean nothing to it: {whole}");
    no_failures(&app).await;
}

/// A server that ends its answer by closing the connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_end_with_its_connection() {
    let address = scripted(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nto the end").await.unwrap();
    })
    .await;
    let app = start(address).await;
    assert_eq!(app.client.get(&app.proxy).send().await.unwrap().text().await.unwrap(), "to the end");
    no_failures(&app).await;
}

/// The size of large bodies. A GiB is run by hand.
const LARGE: u64 = 256 << 20;
const PART: usize = 64 << 10;

/// A part of a large body, different for each place in it.
fn part(number: u64) -> Vec<u8> {
    let mut part = vec![(number % 251) as u8; PART];
    part[..8].copy_from_slice(&number.to_be_bytes());
    part
}

fn large_body() -> impl futures::Stream<Item = Result<Vec<u8>, std::io::Error>> {
    futures::stream::iter((0..LARGE / PART as u64).map(|number| Ok(part(number))))
}

/// What the whole of it hashes to.
fn large_hash() -> u64 {
    let mut hash = Xxh3::new();
    (0..LARGE / PART as u64).for_each(|number| hash.update(&part(number)));
    hash.digest()
}

/// Answers a POST with the length and hash of its body, and a GET with a large body. `/deaf`: takes nothing of a body.
async fn large(request: hyper::Request<Incoming>, sent: Arc<AtomicU64>) -> Result<Response<Body>, hyper::Error> {
    if request.uri().path() == "/deaf" {
        std::future::pending::<()>().await;
    }
    if request.method() == http::Method::GET {
        let parts = large_body().map_ok(move |part| {
            sent.fetch_add(part.len() as u64, SeqCst);
            Frame::data(Bytes::from(part))
        });
        return Ok(Response::new(StreamBody::new(Box::pin(parts) as Parts)));
    }
    let (mut hash, mut length, mut body) = (Xxh3::new(), 0, request.into_body());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len() as u64;
            hash.update(&data);
        }
    }
    let answer = format!("{length} {:016x}", hash.digest());
    let parts = futures::stream::once(async { Ok(Frame::data(Bytes::from(answer))) });
    Ok(Response::new(StreamBody::new(Box::pin(parts) as Parts)))
}

type Parts = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send>>;
type Body = StreamBody<Parts>;

async fn large_server() -> (SocketAddr, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let shared = sent.clone();
    let address = scripted(move |stream| {
        let sent = shared.clone();
        async move {
            let service = service_fn(move |request| large(request, sent.clone()));
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    (address, sent)
}

fn client(http2: bool) -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    if http2 { builder.http2_prior_knowledge().build().unwrap() } else { builder.http1_only().build().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_arrive_whole_both_ways() {
    let (address, _) = large_server().await;
    let hash = large_hash();
    for http2 in [false, true] {
        let app = TestApp::start(&config(address, &format!("http2 = {http2}"))).await;
        let client = client(http2);
        let body = reqwest::Body::wrap_stream(large_body());
        let told = client.post(&app.proxy).body(body).send().await.unwrap().text().await.unwrap();
        assert_eq!(told, format!("{LARGE} {hash:016x}"), "up, http2: {http2}");
        let mut answer = client.get(&app.proxy).send().await.unwrap();
        let (mut seen, mut length) = (Xxh3::new(), 0);
        while let Some(part) = answer.chunk().await.unwrap() {
            length += part.len() as u64;
            seen.update(&part);
        }
        assert_eq!((length, seen.digest()), (LARGE, hash), "down, http2: {http2}");
        no_failures(&app).await;
    }
}

/// What both sides' sockets and the proxy may hold of one body.
const HELD: u64 = 48 << 20;

/// Waits until a count stands still, and gives it.
async fn settled(count: &AtomicU64) -> u64 {
    let mut before = u64::MAX;
    let now = || count.load(SeqCst);
    until("the body to be held up", Duration::from_secs(20), || {
        let same = now() > 0 && now() == before;
        before = now();
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            same
        }
    })
    .await;
    now()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_holds_the_other_up_instead_of_filling_memory() {
    for http2 in [false, true] {
        let (address, sent) = large_server().await;
        let app = TestApp::start(&config(address, &format!("http2 = {http2}"))).await;
        let answer = client(http2).get(&app.proxy).send().await.unwrap();
        let down = settled(&sent).await;
        assert!(down < HELD, "http2: {http2}: the proxy took {down} bytes that nobody reads");
        drop(answer);
        let pushed = Arc::new(AtomicU64::new(0));
        let counted = pushed.clone();
        let body = large_body().inspect_ok(move |part| {
            counted.fetch_add(part.len() as u64, SeqCst);
        });
        let url = format!("{}/deaf", app.proxy);
        let upload = client(http2).post(url).body(reqwest::Body::wrap_stream(body)).send();
        let upload = tokio::spawn(upload);
        let up = settled(&pushed).await;
        assert!(up < HELD, "http2: {http2}: the proxy took {up} bytes that nobody reads");
        upload.abort();
    }
}
