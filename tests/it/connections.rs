//! What belongs to one connection, seen from both of its ends: which protocol it speaks, in which version, how long it
//! lasts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{TestApp, read_head, scripted};

/// The proxy before an endpoint that gives this answer to every request, and the heads that the endpoint has got.
async fn start(answer: &'static str) -> (TestApp, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let address = scripted(move |mut stream| {
        let seen = seen.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                seen.lock().unwrap().push(head.to_ascii_lowercase());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let text = format!(
        "[services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\n\
         [services.shop.versions.1]\nendpoints = [\"{address}\"]\n"
    );
    (TestApp::start(&text).await, heads)
}

/// Everything that comes back for these bytes until the proxy closes the connection.
async fn ask(app: &TestApp, bytes: &str) -> String {
    let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut whole = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut whole)).await;
    end.expect("the connection ends").unwrap();
    String::from_utf8_lossy(&whole).into_owned()
}

const LAST: &str = "GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_switches_protocols_unasked_reaches_nobody() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw";
    let (app, heads) = start(SWITCH).await;
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let whole = ask(&app, &format!("{request}{LAST}")).await;
        assert!(whole.starts_with("HTTP/1.1 502 ") && !whole.contains("raw"), "{request}: {whole}");
    }
    // Each request that the endpoint got was one of the proxy's.
    for head in heads.lock().unwrap().iter() {
        assert!(head.contains("x-request-id: ") && !head.contains("upgrade"), "{head}");
    }
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    assert_eq!(http2.get(&app.proxy).send().await.unwrap().status(), 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_the_connection_does_not_name_was_meant_for_somebody_else() {
    let (app, heads) = start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let upgrades = |heads: &Mutex<Vec<String>>| heads.lock().unwrap().pop().unwrap().contains("upgrade: websocket");
    let begin = "GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n";
    ask(&app, &format!("{begin}connection: close\r\n\r\n")).await;
    assert!(!upgrades(&heads));
    ask(&app, &format!("{begin}connection: keep-alive\r\nconnection: close\r\n\r\n")).await;
    assert!(!upgrades(&heads));
    ask(&app, &format!("{begin}connection: close, Upgrade\r\n\r\n")).await;
    assert!(upgrades(&heads));
    ask(&app, &format!("{begin}connection: close\r\nconnection: upgrade\r\n\r\n")).await;
    assert!(upgrades(&heads));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_connection_fields_counts() {
    let (app, heads) = start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\nconnection: x-hop, CLOSE\r\nx-hop: 1\r\n\r\n";
    let whole = ask(&app, request).await;
    assert!(whole.to_ascii_lowercase().contains("connection: close\r\n") && whole.ends_with("\r\n\r\nok"), "{whole}");
    assert!(!heads.lock().unwrap()[0].contains("x-hop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_answered_in_the_proxys_own_version() {
    for answer in [
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 204 No Content\r\n\r\n",
    ] {
        let (app, _heads) = start(answer).await;
        let whole = ask(&app, LAST).await;
        assert!(whole.starts_with("HTTP/1.1 20"), "{answer}: {whole}");
    }
}
