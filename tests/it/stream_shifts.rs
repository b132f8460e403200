//! Streams on a version that their next request would not get: closed so that clients come again, or left alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::harness::{TestApp, until};

type Socket = WebSocketStream<TcpStream>;

/// A version that speaks HTTP/1.1 and serves WebSockets and events.
struct Streams {
    address: SocketAddr,
    script: Arc<Script>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Script {
    name: String,
    /// Lets what was begun be finished.
    go_on: Notify,
    /// Close frames that came from clients, by code.
    closed_1012: AtomicU64,
    /// Tunnels that are over.
    over: AtomicU64,
}

impl Streams {
    async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script { name: name.to_owned(), ..Script::default() });
        let shared = script.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = shared.clone();
                tokio::spawn(async move { serve(stream, &script).await });
            }
        });
        Self { address, script, task }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The head of a request: its path, and a header.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
}

async fn serve(mut stream: TcpStream, script: &Script) -> Option<()> {
    loop {
        let head = read_head(&mut stream).await?;
        let path = head.split(' ').nth(1)?;
        if let Some(key) = header(&head, "sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.ok()?;
            tunnel(stream, path, script).await;
            script.over.fetch_add(1, SeqCst);
            return None;
        }
        match path {
            "/events" | "/half" | "/short" => events(&mut stream, path, script).await?,
            _ => {
                let text = &script.name;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
        }
    }
}

async fn tunnel(mut stream: TcpStream, path: &str, script: &Script) -> Option<()> {
    if path == "/part" {
        // A frame of 600 bytes whose second half comes later.
        stream.write_all(&[0x82, 126, 2, 88]).await.ok()?;
        stream.write_all(&[7; 300]).await.ok()?;
        script.go_on.notified().await;
        stream.write_all(&[7; 300]).await.ok()?;
    }
    if path == "/deaf" {
        script.go_on.notified().await;
        return None;
    }
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    if path == "/flood" {
        while socket.send(Message::Binary(Bytes::from(vec![7; 60_000]))).await.is_ok() {}
        return None;
    }
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) => socket.send(Message::Text(format!("{} {text}", script.name).into())).await.ok()?,
            Message::Close(Some(frame)) if u16::from(frame.code) == 1012 => {
                script.closed_1012.fetch_add(1, SeqCst);
            }
            _ => {}
        }
    }
    None
}

async fn events(stream: &mut TcpStream, path: &str, script: &Script) -> Option<()> {
    let part = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let first = part(&format!("data: {}\n\n", script.name));
    stream.write_all(format!("{head}{first}").as_bytes()).await.ok()?;
    match path {
        "/short" => return stream.write_all(b"0\r\n\r\n").await.ok(),
        "/half" => {
            stream.write_all(part("data: an event that").as_bytes()).await.ok()?;
            script.go_on.notified().await;
            stream
                .write_all(part(" has come to its end\n\ndata: and one that is too late\n\n").as_bytes())
                .await
                .ok()?;
        }
        _ => {}
    }
    // Until the proxy hangs up.
    let _nothing = stream.read_u8().await;
    script.over.fetch_add(1, SeqCst);
    None
}

/// Two versions; all traffic goes to the new one, and its streams are closed like this.
async fn shop(streams: &str) -> (TestApp, Streams, Streams) {
    let (old, new) = (Streams::start("1.0.0").await, Streams::start("2.0.0").await);
    let text = format!(
        r#"
[tenants]
identify = [{{ header = "x-tenant-id" }}]
[services.shop]
match = [{{ path = "/" }}]
sticky = [{{ header = "x-user-id" }}]
baseline = "1.0.0"
split = {{ "2.0.0" = 100 }}
{streams}
[services.shop.versions]
"1.0.0" = {{ endpoints = ["{}"] }}
"2.0.0" = {{ endpoints = ["{}"] }}
"#,
        old.address, new.address
    );
    (TestApp::start(&text).await, old, new)
}

const CLOSE: &str = "streams = { on_shift = \"close\", pace = 1000, deadline = \"10s\" }";

/// Opens a WebSocket, and says which version it is on.
async fn connect(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> (Socket, String) {
    let address = app.proxy.strip_prefix("http://").unwrap();
    let mut request = http::Request::get(format!("ws://{address}{path}"))
        .header("host", address)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let (socket, answer) = tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await.unwrap();
    let version = answer.headers()["x-switchback-version"].to_str().unwrap().to_owned();
    (socket, version)
}

async fn of_tenant(app: &TestApp, tenant: &str) -> (Socket, String) {
    connect(app, "/ws", &[("x-tenant-id", tenant), ("x-user-id", "u")]).await
}

async fn echo(socket: &mut Socket) -> String {
    socket.send(Message::Text("hello".into())).await.unwrap();
    match tokio::time::timeout(Duration::from_secs(5), socket.next()).await.expect("an echo") {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The code that the socket is closed with; what else comes is read over.
async fn close_code(socket: &mut Socket) -> Option<u16> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => break frame.map(|f| u16::from(f.code)),
            Some(Ok(_)) => {}
            None | Some(Err(WsError::ConnectionClosed)) => break None,
            Some(Err(error)) => panic!("{error}"),
        }
    }
}

async fn closed_within(socket: &mut Socket, within: Duration) -> u16 {
    let code = tokio::time::timeout(within, close_code(socket)).await.expect("the socket is closed in time");
    let code = code.expect("a close frame with a code");
    // The client has answered; the connection ends in good order.
    let rest = tokio::time::timeout(within, socket.next()).await.expect("the connection ends");
    assert!(rest.is_none(), "{rest:?}");
    code
}

fn open(version: &str) -> String {
    format!("switchback_streams_open{{service=\"shop\",version=\"{version}\"}}")
}

async fn closed_by(app: &TestApp, version: &str, reason: &str) -> f64 {
    let text = app.metrics().await;
    let has = |l: &&str| {
        let label = |name: &str, value: &str| l.contains(&format!("{name}=\"{value}\""));
        l.starts_with("switchback_streams_closed_total{") && label("version", version) && label("reason", reason)
    };
    text.lines().find(has).map_or(0.0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
}

/// No version is blamed for a stream that the proxy has closed.
async fn nobody_is_blamed(app: &TestApp) {
    let text = app.metrics().await;
    for family in ["switchback_request_failures_total{", "switchback_client_aborts_total{"] {
        for line in text.lines().filter(|l| l.starts_with(family)) {
            assert!(line.ends_with(" 0"), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_of_a_tenant_closes_its_sockets_and_no_others() {
    let (app, old, new) = shop(CLOSE).await;
    let [mut acme, mut also, mut other] =
        [of_tenant(&app, "acme").await, of_tenant(&app, "acme").await, of_tenant(&app, "globex").await].map(
            |(socket, version)| {
                assert_eq!(version, "2.0.0");
                socket
            },
        );
    for socket in [&mut acme, &mut also, &mut other] {
        assert_eq!(echo(socket).await, "2.0.0 hello");
    }
    until("three open streams", Duration::from_secs(2), || async { app.metric(&open("2.0.0")).await == 3.0 }).await;
    let (_, stats) = app.api("GET", "/v1/services/shop/stats", None).await;
    assert_eq!((&stats["versions"][1]["version"], &stats["versions"][1]["streams"]), (&json!("2.0.0"), &json!(3)));
    app.change("POST", "/v1/services/shop/tenants/acme/rollback", json!({ "reason": "bad for acme" })).await;
    let rolled_back = Instant::now();
    for socket in [&mut acme, &mut also] {
        assert_eq!(closed_within(socket, Duration::from_secs(4)).await, 1012);
    }
    assert!(rolled_back.elapsed() < Duration::from_secs(3), "{:?}", rolled_back.elapsed());
    until("the version to hear of it", Duration::from_secs(3), || async {
        (new.script.closed_1012.load(SeqCst), new.script.over.load(SeqCst)) == (2, 2)
    })
    .await;
    until("one stream to be left", Duration::from_secs(2), || async { app.metric(&open("2.0.0")).await == 1.0 }).await;
    assert_eq!(echo(&mut other).await, "2.0.0 hello");
    assert_eq!((closed_by(&app, "2.0.0", "shift").await, closed_by(&app, "2.0.0", "cut").await), (2.0, 0.0));
    nobody_is_blamed(&app).await;
    let (mut again, version) = of_tenant(&app, "acme").await;
    assert_eq!((version.as_str(), echo(&mut again).await.as_str()), ("1.0.0", "1.0.0 hello"));
    drop(old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_on_its_way_is_not_cut_in_two() {
    let (app, _old, new) = shop(CLOSE).await;
    let (mut socket, _) = connect(&app, "/part", &[("x-user-id", "u")]).await;
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
    // Longer than a look and the age from which a stream is closed.
    let early = tokio::time::timeout(Duration::from_millis(1_500), socket.next()).await;
    assert!(early.is_err(), "{early:?}");
    new.script.go_on.notify_one();
    let frame = tokio::time::timeout(Duration::from_secs(2), socket.next()).await.unwrap();
    assert_eq!(frame.unwrap().unwrap().into_data().len(), 600);
    assert_eq!(closed_within(&mut socket, Duration::from_secs(2)).await, 1012);
}

/// Versions that send without a pause are stopped between two frames, and the client hears why.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_socket_is_closed_between_two_frames() {
    let (app, _old, new) = shop(CLOSE).await;
    let mut open = Vec::new();
    for i in 0..4 {
        let mut socket = connect(&app, "/flood", &[("x-user-id", &format!("u{i}"))]).await.0;
        open.push(tokio::spawn(async move { (closed_within(&mut socket, Duration::from_secs(8)).await, socket) }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
    for one in open {
        assert_eq!(one.await.unwrap().0, 1012);
    }
    until("the version to be rid of them", Duration::from_secs(3), || async { new.script.over.load(SeqCst) == 4 })
        .await;
    assert_eq!((closed_by(&app, "2.0.0", "shift").await, closed_by(&app, "2.0.0", "cut").await), (4.0, 0.0));
}

/// When each of so many sockets was closed, from the rollback on.
async fn closing_times(streams: &str, sockets: usize) -> Vec<Duration> {
    let (app, _old, _new) = shop(streams).await;
    let mut open = Vec::new();
    for i in 0..sockets {
        open.push(connect(&app, "/ws", &[("x-user-id", &format!("u{i}"))]).await.0);
    }
    // All of them are old enough by then.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let begun = Instant::now();
    let waiting = open.into_iter().map(|mut socket| {
        tokio::spawn(async move {
            assert_eq!(closed_within(&mut socket, Duration::from_secs(30)).await, 1012);
            begun.elapsed()
        })
    });
    let waiting: Vec<_> = waiting.collect();
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
    let mut times = Vec::new();
    for one in waiting {
        times.push(one.await.unwrap());
    }
    nobody_is_blamed(&app).await;
    times.sort();
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pace_holds() {
    let times = closing_times("streams = { on_shift = \"close\", pace = 20, deadline = \"1m\" }", 50).await;
    assert!(times[0] < Duration::from_millis(1_000), "{:?}", times[0]);
    let all = times[49] - times[0];
    assert!((2_200..4_000).contains(&all.as_millis()), "50 at 20 per second: {all:?}");
    for second in times.windows(30) {
        assert!(second[29] - second[0] > Duration::from_millis(1_000), "30 within {:?}", second[29] - second[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_holds_when_the_pace_is_too_slow() {
    let times = closing_times("streams = { on_shift = \"close\", pace = 1, deadline = \"4s\" }", 50).await;
    assert!(times[49] < Duration::from_millis(4_300), "{:?}", times[49]);
    assert!(times[40] > Duration::from_millis(1_000), "they do not go all at once: {:?}", times[40]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_cut_off_at_the_deadline() {
    let (app, _old, new) = shop("streams = { on_shift = \"close\", deadline = \"2s\" }").await;
    let (_silent, _) = connect(&app, "/flood", &[("x-user-id", "u")]).await;
    until("an open stream", Duration::from_secs(2), || async { app.metric(&open("2.0.0")).await == 1.0 }).await;
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
    until("the stream to be gone", Duration::from_secs(4), || async { app.metric(&open("2.0.0")).await == 0.0 }).await;
    assert_eq!((closed_by(&app, "2.0.0", "shift").await, closed_by(&app, "2.0.0", "cut").await), (0.0, 1.0));
    until("the version to be rid of it", Duration::from_secs(3), || async { new.script.over.load(SeqCst) == 1 }).await;
    nobody_is_blamed(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_neither_reads_nor_sends_is_left_at_the_deadline() {
    let (app, _old, _new) = shop("streams = { on_shift = \"close\", deadline = \"2s\" }").await;
    let (socket, _) = connect(&app, "/deaf", &[("x-user-id", "u")]).await;
    let (mut to, mut from) = socket.split();
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let flood = tokio::spawn(async move {
        while to.send(Message::Binary(Bytes::from(vec![7; 60_000]))).await.is_ok() {
            counted.fetch_add(1, SeqCst);
        }
    });
    // The version takes no more, and so nothing more is taken of the client.
    let mut before = 0;
    until("all buffers to be full", Duration::from_secs(10), || {
        let now = sent.load(SeqCst);
        let full = now > 0 && now == std::mem::replace(&mut before, now);
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            full
        }
    })
    .await;
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
    let code = tokio::time::timeout(Duration::from_secs(4), async {
        loop {
            match from.next().await {
                Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(code.await.expect("a goodbye"), 1012);
    until("the stream to be gone", Duration::from_secs(4), || async { app.metric(&open("2.0.0")).await == 0.0 }).await;
    flood.abort();
    nobody_is_blamed(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn left_alone_is_left_alone() {
    let (app, _old, _new) = shop("").await;
    let (mut socket, _) = of_tenant(&app, "acme").await;
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
    let close = tokio::time::timeout(Duration::from_secs(2), close_code(&mut socket)).await;
    assert!(close.is_err(), "{close:?}");
    assert_eq!(echo(&mut socket).await, "2.0.0 hello");
    assert_eq!((app.metric(&open("2.0.0")).await, closed_by(&app, "2.0.0", "shift").await), (1.0, 0.0));
    let (mut again, version) = of_tenant(&app, "acme").await;
    assert_eq!((version.as_str(), echo(&mut again).await.as_str()), ("1.0.0", "1.0.0 hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_and_a_disabled_version_close_streams_too() {
    let (app, _old, _new) = shop(CLOSE).await;
    let (mut acme, mut other) = (of_tenant(&app, "acme").await.0, of_tenant(&app, "globex").await.0);
    app.change("PUT", "/v1/services/shop/tenants/acme/maintenance", json!({})).await;
    assert_eq!(closed_within(&mut acme, Duration::from_secs(4)).await, 1012);
    assert_eq!(app.get("/", &[("x-tenant-id", "acme")]).await.status, 503);
    assert_eq!(echo(&mut other).await, "2.0.0 hello");
    assert_eq!(closed_by(&app, "2.0.0", "maintenance").await, 1.0);
    app.change("PUT", "/v1/services/shop/versions/2.0.0/disabled", json!({ "reason": "bad" })).await;
    assert_eq!(closed_within(&mut other, Duration::from_secs(4)).await, 1012);
    assert_eq!(closed_by(&app, "2.0.0", "shift").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_close_no_socket_whose_key_stays() {
    let (app, _old, _new) = shop(CLOSE).await;
    app.split("shop", 40.0).await;
    let mut open = Vec::new();
    for i in 0..40 {
        let user = format!("u{i}");
        let (socket, version) = connect(&app, "/ws", &[("x-user-id", &user)]).await;
        open.push((user, socket, version));
    }
    app.split("shop", 60.0).await;
    let mut moved = std::collections::BTreeSet::new();
    for (user, _, version) in &open {
        if app.version_of(user).await != *version {
            moved.insert(user.clone());
        }
    }
    assert!((1..20).contains(&moved.len()), "{moved:?}");
    for i in 0..1_000u32 {
        if i % 2 == 0 {
            app.split("shop", if i % 4 == 0 { 40.0 } else { 60.0 }).await;
        } else {
            let weights = json!({ "weights": { "2.0.0": i % 101, "1.0.0": 100 - i % 101 } });
            app.change("PUT", "/v1/services/shop/tenants/acme/split", weights).await;
        }
    }
    // The last split of the service is the second one.
    app.split("shop", 60.0).await;
    for (user, socket, version) in &mut open {
        if moved.contains(user) {
            assert_eq!(closed_within(socket, Duration::from_secs(4)).await, 1012, "{user}");
        } else {
            assert_eq!(echo(socket).await, format!("{version} hello"), "{user}");
        }
    }
    let closed = closed_by(&app, "2.0.0", "shift").await + closed_by(&app, "1.0.0", "shift").await;
    assert_eq!(closed, moved.len() as f64);
    nobody_is_blamed(&app).await;
}

/// Everything of an answer until it ends; an error when it does not end in good order.
async fn body(mut response: reqwest::Response) -> (String, Result<(), reqwest::Error>) {
    let mut text = String::new();
    loop {
        match response.chunk().await {
            Ok(Some(part)) => text.push_str(std::str::from_utf8(&part).unwrap()),
            Ok(None) => return (text, Ok(())),
            Err(error) => return (text, Err(error)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_end_cleanly_over_http_1_and_2() {
    let (app, _old, new) = shop(CLOSE).await;
    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for (round, client) in [app.client.clone(), h2].into_iter().enumerate() {
        app.split("shop", 100.0).await;
        let url = format!("{}/events", app.proxy);
        let response = client.get(&url).header("x-user-id", "u").send().await.unwrap();
        assert_eq!(response.headers()["x-switchback-version"], "2.0.0");
        let whole = tokio::spawn(body(response));
        app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
        let (text, end) = tokio::time::timeout(Duration::from_secs(4), whole).await.expect("it ends").unwrap();
        assert_eq!((text.as_str(), end.is_ok()), ("data: 2.0.0\n\n", true), "{end:?}");
        let again = client.get(&url).header("x-user-id", "u").send().await.unwrap();
        assert_eq!(again.headers()["x-switchback-version"], "1.0.0");
        let over = || async { new.script.over.load(SeqCst) == round as u64 + 1 };
        until("the version to be rid of it", Duration::from_secs(3), over).await;
        assert_eq!(closed_by(&app, "2.0.0", "shift").await, round as f64 + 1.0);
    }
    let failures = app.metrics().await;
    let failures = failures.lines().filter(|l| l.starts_with("switchback_request_failures_total{"));
    assert!(failures.clone().count() > 0);
    assert!(failures.clone().all(|l| l.ends_with(" 0")), "{:?}", failures.collect::<Vec<_>>());
    assert_eq!(app.metric("switchback_client_aborts_total{service=\"shop\",version=\"2.0.0\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_on_its_way_is_sent_to_its_end() {
    let (app, _old, new) = shop(CLOSE).await;
    let response = app.client.get(format!("{}/half", app.proxy)).send().await.unwrap();
    let mut whole = tokio::spawn(body(response));
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
    let early = tokio::time::timeout(Duration::from_millis(1_500), &mut whole).await;
    assert!(early.is_err(), "it ended within an event: {early:?}");
    new.script.go_on.notify_one();
    let (text, end) = tokio::time::timeout(Duration::from_secs(2), whole).await.expect("it ends").unwrap();
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(text, "data: 2.0.0\n\ndata: an event that has come to its end\n\n");
}

/// An event that never ends is cut off in a way that nobody takes for the end of the answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_end_is_cut_off_at_the_deadline() {
    let (app, _old, _new) = shop("streams = { on_shift = \"close\", deadline = \"2s\" }").await;
    let response = app.client.get(format!("{}/half", app.proxy)).send().await.unwrap();
    let whole = tokio::spawn(body(response));
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "bad" })).await;
    let (text, end) = tokio::time::timeout(Duration::from_secs(4), whole).await.expect("it ends").unwrap();
    assert!(end.is_err(), "{text}");
    until("the cut to be counted", Duration::from_secs(1), || async { closed_by(&app, "2.0.0", "cut").await == 1.0 })
        .await;
    nobody_is_blamed(&app).await;
}

/// Sends a request and reads its answer to the end of this text; none when the connection is closed.
async fn plain(stream: &mut TcpStream, path: &str, end: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = read_head(stream).await?;
    while !answer.ends_with(end) {
        answer.push(char::from(stream.read_u8().await.ok()?));
    }
    Some(answer.to_lowercase())
}

/// When the proxy may end them, the client must know that the connection ends with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_after_events_unless_the_proxy_may_end_them() {
    for (streams, reused) in [("", true), (CLOSE, false)] {
        let (app, _old, _new) = shop(streams).await;
        let mut stream = TcpStream::connect(app.proxy.strip_prefix("http://").unwrap()).await.unwrap();
        let events = plain(&mut stream, "/short", "0\r\n\r\n").await.unwrap();
        assert!(events.starts_with("http/1.1 200"), "{events}");
        assert_eq!(events.contains("\r\nconnection: close\r\n"), !reused, "{events}");
        assert_eq!(plain(&mut stream, "/", "2.0.0").await.is_some(), reused);
        let gone = || async { app.metric(&open("2.0.0")).await == 0.0 };
        until("no open stream", Duration::from_secs(1), gone).await;
        assert_eq!(closed_by(&app, "2.0.0", "shift").await, 0.0);
    }
}

/// A version that speaks gRPC over h2c: answers each message with its own name until the client ends the call.
async fn grpc(name: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let head = http::Response::builder().header("content-type", "application/grpc");
                        let mut answer = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        let mut body = request.into_body();
                        while let Some(Ok(part)) = body.data().await {
                            if part.is_empty() {
                                continue;
                            }
                            body.flow_control().release_capacity(part.len()).unwrap();
                            answer.send_data(message(name), false).unwrap();
                        }
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        let _client_gone = answer.send_trailers(trailers);
                    });
                }
            });
        }
    });
    (address, task)
}

fn message(text: &str) -> Bytes {
    let length = (text.len() as u32).to_be_bytes();
    Bytes::from([&[0][..], &length, text.as_bytes()].concat())
}

/// An open call: what it sends with, and what it gets.
struct Call {
    send: h2::SendStream<Bytes>,
    answer: h2::RecvStream,
}

impl Call {
    async fn open(client: &h2::client::SendRequest<Bytes>, address: &str, tenant: &str) -> Self {
        let request = http::Request::post(format!("http://{address}/shop.Orders/Watch"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-tenant-id", tenant);
        let mut client = client.clone().ready().await.unwrap();
        let (answer, send) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["x-switchback-version"], "2.0.0");
        Self { send, answer: answer.into_body() }
    }

    async fn ask(&mut self) -> Bytes {
        self.send.send_data(message("x"), false).unwrap();
        tokio::time::timeout(Duration::from_secs(3), self.answer.data()).await.expect("an answer").unwrap().unwrap()
    }

    /// How the call ends: its status, after whole messages only.
    async fn status(mut self) -> String {
        let rest = self.answer.data().await;
        assert!(rest.is_none(), "{rest:?}");
        let trailers = self.answer.trailers().await.unwrap().expect("trailers");
        trailers["grpc-status"].to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_ends_with_unavailable_and_its_connection_stays() {
    let ((old, old_task), (new, new_task)) = (grpc("1.0.0").await, grpc("2.0.0").await);
    let app = TestApp::start(&format!(
        r#"
[tenants]
identify = [{{ header = "x-tenant-id" }}]
[services.shop]
match = [{{ path = "/" }}]
baseline = "1.0.0"
split = {{ "2.0.0" = 100 }}
{CLOSE}
[services.shop.versions]
"1.0.0" = {{ endpoints = ["{old}"], http2 = true }}
"2.0.0" = {{ endpoints = ["{new}"], http2 = true }}
"#
    ))
    .await;
    let address = app.proxy.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let (mut acme, mut other) =
        (Call::open(&client, address, "acme").await, Call::open(&client, address, "globex").await);
    for call in [&mut acme, &mut other] {
        assert_eq!(call.ask().await, message("2.0.0"));
    }
    app.change("POST", "/v1/services/shop/tenants/acme/rollback", json!({ "reason": "bad" })).await;
    let status = tokio::time::timeout(Duration::from_secs(4), acme.status()).await.expect("the call ends");
    assert_eq!(status, "14");
    assert_eq!(other.ask().await, message("2.0.0"), "the other call on the same connection goes on");
    other.send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(other.status().await, "0");
    assert_eq!((closed_by(&app, "2.0.0", "shift").await, closed_by(&app, "2.0.0", "cut").await), (1.0, 0.0));
    nobody_is_blamed(&app).await;
    [connection.abort_handle(), old_task.abort_handle(), new_task.abort_handle()].iter().for_each(|t| t.abort());
}
