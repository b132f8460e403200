//! How WebSockets begin: none is lost between its answer and its first message.

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Backend, TestApp};

/// A version that sends back what it gets, on a port of its own.
async fn echo() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    (address, task)
}

/// A version that answers at once must not find its tunnel closed before it has begun.
#[tokio::test(flavor = "multi_thread")]
async fn every_socket_opens() {
    let (version, task) = echo().await;
    let app = TestApp::start(&format!(
        r#"
[services.shop]
match = [{{ path = "/" }}]
baseline = "1.0.0"
versions = {{ "1.0.0" = {{ endpoints = ["{version}"] }} }}
"#
    ))
    .await;
    let address = app.proxy.strip_prefix("http://").unwrap();
    let mut open = Vec::new();
    for i in 0..500 {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await.unwrap();
        socket.send(Message::Text("hello".into())).await.unwrap();
        let answer = socket.next().await.unwrap_or_else(|| panic!("socket {i}"));
        assert_eq!(answer.unwrap_or_else(|e| panic!("socket {i}: {e}")), Message::Text("hello".into()));
        open.push(socket);
    }
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_may_answer_without_a_websocket() {
    let version = Backend::start("1.0.0").await;
    let app = TestApp::start(&format!(
        r#"
[services.shop]
match = [{{ path = "/" }}]
baseline = "1.0.0"
versions = {{ "1.0.0" = {{ endpoints = ["{}"] }} }}
"#,
        version.address
    ))
    .await;
    let mut stream = TcpStream::connect(app.proxy.strip_prefix("http://").unwrap()).await.unwrap();
    for i in 0..20 {
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
        let request = format!("GET /{i} HTTP/1.1\r\nhost: shop\r\n{upgrade}sec-websocket-key: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer on the same connection"));
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && body.contains(&format!("\"path\":\"/{i}\"")), "{head}{body}");
    }
}

/// What goes through a tunnel is no request body: its limit would cut off every socket that lives long enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_request_bodies_does_not_end_a_tunnel() {
    let (version, task) = echo().await;
    let app = TestApp::start(&format!(
        r#"
[services.shop]
match = [{{ path = "/" }}]
baseline = "1.0.0"
body_limit = "1KiB"
versions = {{ "1.0.0" = {{ endpoints = ["{version}"] }} }}
"#
    ))
    .await;
    let address = app.proxy.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await.unwrap();
    for i in 0..20 {
        let text = Message::Text("x".repeat(200).into());
        socket.send(text.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap_or_else(|e| panic!("message {i}: {e}")), text);
    }
    let large = app.client.post(&app.proxy).body("x".repeat(2_000)).send().await.unwrap();
    assert_eq!(large.status().as_u16(), 413);
    task.abort();
}
