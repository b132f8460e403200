//! WebSockets with a real client and a real server: what passes, what ends them, and what their ends count as.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, handshake::server::Request, handshake::server::Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use crate::harness::{TestApp, until};

/// Messages of any size.
fn large() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(None).max_frame_size(None)
}

/// Echoes every message. On "close N" it closes with that code; it remembers why clients closed.
struct Echo {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    handshakes: AtomicU64,
    pings: AtomicU64,
    closes: Mutex<Vec<Option<(u16, String)>>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream, shared.clone()));
            }
        });
        Self { address, seen, task }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(stream: TcpStream, seen: Arc<Seen>) {
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let callback = |request: &Request, mut response: Response| {
        assert_eq!(request.headers()["connection"].to_str().unwrap().to_ascii_lowercase(), "upgrade");
        assert!(request.headers().contains_key("x-switchback-version"));
        let protocol = request.headers().get("sec-websocket-protocol").cloned();
        response.headers_mut().extend(protocol.map(|p| (http::header::SEC_WEBSOCKET_PROTOCOL, p)));
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async_with_config(stream, callback, Some(large())).await else { return };
    seen.handshakes.fetch_add(1, SeqCst);
    while let Some(Ok(message)) = socket.next().await {
        let sent = match message {
            Message::Text(text) if text.starts_with("close ") => {
                let code: u16 = text["close ".len()..].parse().unwrap();
                socket.close(Some(CloseFrame { code: CloseCode::from(code), reason: "as asked".into() })).await
            }
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            Message::Ping(_) => {
                seen.pings.fetch_add(1, SeqCst);
                socket.flush().await
            }
            Message::Close(why) => {
                let why = why.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                seen.closes.lock().unwrap().push(why);
                continue;
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn config(address: SocketAddr, timeouts: &str) -> String {
    format!(
        "[services.chat]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\n\
         [services.chat.versions.1]\nendpoints = [\"{address}\"]\n{timeouts}\n"
    )
}

type Client = WebSocketStream<TcpStream>;

async fn connect(app: &TestApp) -> Result<(Client, http::Response<Option<Vec<u8>>>), Error> {
    let stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    let mut request = format!("{}/room", app.proxy.replace("http", "ws")).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
    client_async_with_config(request, stream, Some(large())).await
}

async fn next(client: &mut Client) -> Message {
    tokio::time::timeout(Duration::from_secs(20), client.next()).await.unwrap().unwrap().unwrap()
}

async fn no_failures(app: &TestApp) {
    for kind in ["status", "grpc", "connect", "timeout", "reset"] {
        let series = format!("switchback_request_failures_total{{service=\"chat\",version=\"1\",kind=\"{kind}\"}}");
        assert_eq!(app.metric(&series).await, 0.0, "{kind}");
    }
    assert_eq!(app.metric("switchback_client_aborts_total{service=\"chat\",version=\"1\"}").await, 0.0);
}

async fn ended(app: &TestApp, streams: f64) {
    let tunnels = "switchback_requests_total{service=\"chat\",version=\"1\",code=\"1xx\"}";
    until("the stream to be counted", Duration::from_secs(5), || async { app.metric(tunnels).await == streams }).await;
    assert_eq!(app.metric("switchback_requests_in_flight{service=\"chat\",version=\"1\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_message_passes() {
    let server = Echo::start().await;
    let app = TestApp::start(&config(server.address, "")).await;
    let (mut client, answer) = connect(&app).await.unwrap();
    assert_eq!(answer.headers()["x-switchback-version"], "1");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    let in_flight = "switchback_requests_in_flight{service=\"chat\",version=\"1\"}";
    assert_eq!(app.metric(in_flight).await, 1.0);
    for message in [
        Message::text(""),
        Message::text("grüße"),
        Message::binary(vec![0; 65_536]),
        Message::binary((0..16 << 20).map(|n: u32| (n % 251) as u8).collect::<Vec<_>>()),
    ] {
        client.send(message.clone()).await.unwrap();
        assert!(next(&mut client).await == message, "a message came back different");
    }
    for (n, data) in
        [OpCode::Data(Data::Text), OpCode::Data(Data::Continue), OpCode::Data(Data::Continue)].into_iter().enumerate()
    {
        client.send(Message::Frame(Frame::message(format!("part {n} "), data, n == 2))).await.unwrap();
    }
    assert_eq!(next(&mut client).await, Message::text("part 0 part 1 part 2 "));
    client.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    assert_eq!(next(&mut client).await, Message::Pong(Bytes::from_static(b"there?")));
    assert_eq!(server.seen.pings.load(SeqCst), 1);
    client.close(None).await.unwrap();
    while client.next().await.is_some() {}
    ended(&app, 1.0).await;
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn close_codes_pass_both_ways() {
    let server = Echo::start().await;
    let app = TestApp::start(&config(server.address, "")).await;
    for (n, code) in [1000u16, 1001, 1008, 1011, 1012, 3000, 4999].into_iter().enumerate() {
        let (mut client, _) = connect(&app).await.unwrap();
        client.send(Message::text(format!("close {code}"))).await.unwrap();
        let Message::Close(Some(why)) = next(&mut client).await else { panic!("{code} did not arrive") };
        assert_eq!((u16::from(why.code), why.reason.as_str()), (code, "as asked"));
        while client.next().await.is_some_and(|message| message.is_ok()) {}
        let (mut client, _) = connect(&app).await.unwrap();
        client.close(Some(CloseFrame { code: CloseCode::from(code), reason: "bye".into() })).await.unwrap();
        while client.next().await.is_some_and(|message| message.is_ok()) {}
        let seen = &server.seen.closes;
        let wanted = Some((code, "bye".to_owned()));
        until("the close", Duration::from_secs(5), || async { seen.lock().unwrap().contains(&wanted) }).await;
        ended(&app, 2.0 * (n + 1) as f64).await;
    }
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_normal_until_the_streams_own_timeout() {
    let server = Echo::start().await;
    let limits = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[proxy.limits]\nbody_timeout = \"200ms\"\nheader_timeout = \"300ms\"\nkeepalive_timeout = \"1s\"\n";
    let timeouts = "timeouts = { response = \"200ms\", idle = \"200ms\", stream = \"2s\" }";
    let app = TestApp::start(&format!("{limits}{}", config(server.address, timeouts))).await;
    let (mut client, _) = connect(&app).await.unwrap();
    for pause in [700, 1_200] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        client.send(Message::text("still there")).await.unwrap();
        assert_eq!(next(&mut client).await, Message::text("still there"));
    }
    let begun = Instant::now();
    while client.next().await.is_some_and(|message| message.is_ok()) {}
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(1_500) && waited < Duration::from_secs(10), "{waited:?}");
    ended(&app, 1.0).await;
    no_failures(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_vanish_and_nobody_failed() {
    let server = Echo::start().await;
    let app = TestApp::start(&config(server.address, "")).await;
    let (client, _) = connect(&app).await.unwrap();
    drop(client);
    ended(&app, 1.0).await;
    // A server that breaks off after the handshake.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    app.write_config(&config(listener.local_addr().unwrap(), ""));
    app.app.as_ref().unwrap().reload().await.unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        drop(socket);
    });
    let stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    let request = format!("{}/room", app.proxy.replace("http", "ws")).into_client_request().unwrap();
    let (mut client, _) = client_async_with_config(request, stream, None).await.unwrap();
    assert!(client.next().await.is_none_or(|message| message.is_err()));
    ended(&app, 2.0).await;
    no_failures(&app).await;
}

/// A server that answers every request with these bytes and remembers what it was sent.
async fn refusing(answer: &'static str) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = shared.clone();
            tokio::spawn(async move {
                let mut part = [0; 4_096];
                let mut answered = 0;
                while let Ok(n @ 1..) = stream.read(&mut part).await {
                    seen.lock().unwrap().extend_from_slice(&part[..n]);
                    let asked = seen.lock().unwrap().windows(4).filter(|w| *w == b"\r\n\r\n").count();
                    for _ in answered..asked {
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    answered = asked;
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upgrade_passes_its_answer() {
    let (address, _) = refusing("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nx-why: no\r\n\r\nno").await;
    let app = TestApp::start(&config(address, "")).await;
    let Err(Error::Http(answer)) = connect(&app).await else { panic!("it was let in") };
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-why"]), (403, &"no".parse().unwrap()));
    until("the answer to be counted", Duration::from_secs(5), || async {
        app.metric("switchback_requests_total{service=\"chat\",version=\"1\",code=\"4xx\"}").await == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_tunnelled_after_a_refused_upgrade() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for answer in
        ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno", "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n"]
    {
        for early in [true, false] {
            let (address, seen) = refusing(answer).await;
            let app = TestApp::start(&config(address, "")).await;
            let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
            let first = if early { format!("{UPGRADE}{SMUGGLED}") } else { UPGRADE.to_owned() };
            stream.write_all(first.as_bytes()).await.unwrap();
            let mut part = [0; 4_096];
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0 || early, "an answer");
            let _closed = stream.write_all(b"raw bytes of a tunnel\r\n\r\n").await;
            let mut rest = Vec::new();
            let _closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap();
            let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
            // A second request may be one of its own, as on any connection, but never bytes of a tunnel.
            assert!(!seen.contains("raw bytes"), "{answer}: {seen}");
            let own = seen.matches("x-request-id").count();
            assert_eq!(seen.matches("HTTP/1.1\r\n").count(), own, "each request was the proxy's: {seen}");
        }
    }
}
