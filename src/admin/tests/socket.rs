//! The same over a real socket: who the peer is, deadlines, and the end.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;

async fn open(api: &Api) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = serve(listener, api.router.clone(), async move {
        drop(stopped.await);
        Duration::ZERO
    });
    (address, stop, tokio::spawn(served))
}

async fn ask(stream: &mut TcpStream, path: &str, accept: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost:9900\r\naccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 64 << 10];
    let n = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

#[tokio::test]
async fn it_serves_and_ends() {
    let api = Api::new().await;
    let (address, stop, server) = open(&api).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut stream, "/livez", "*/*").await.starts_with("HTTP/1.1 200"));
    assert!(ask(&mut stream, "/v1/services", "*/*").await.contains("accounting"), "on the same connection");
    let mut events = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut events, "/v1/events", "text/event-stream").await.starts_with("HTTP/1.1 200"));
    let mut page = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut page, "/ui/events?page=overview", "text/event-stream").await.starts_with("HTTP/1.1 200"));
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), server).await;
    ended.expect("open streams do not hold the end up").unwrap();
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn who_never_sends_a_head_is_let_go() {
    let api = Api::new().await;
    let (address, _stop, _server) = open(&api).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /livez HT").await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection was closed");
    let mut large = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    // The server may close before it has read everything.
    let _written = large.write_all(head.as_bytes()).await;
    let mut answer = vec![0; 1024];
    let n = large.read(&mut answer).await.unwrap_or(0);
    assert!(n == 0 || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer[..n]));
}
