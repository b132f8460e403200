//! Whose fault it was, on real connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::harness::{Backend, TestApp, two_versions, until};

async fn start(more: &str) -> (Backend, Backend, TestApp) {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, more)).await;
    (old, new, app)
}

async fn failures(app: &TestApp, kind: &str) -> f64 {
    app.metric(&format!("switchback_request_failures_total{{service=\"shop\",version=\"1.0.0\",kind=\"{kind}\"}}"))
        .await
}

async fn all_failures(app: &TestApp) -> f64 {
    let mut sum = 0.0;
    for kind in ["status", "grpc", "connect", "timeout", "reset"] {
        sum += failures(app, kind).await;
    }
    sum
}

fn raw(app: &TestApp, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.proxy.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_is_not_the_backends_failure() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    // A client that closes may still be waiting, so it takes the time of an answer until it is given up.
    let text = two_versions(&old, &new, "").replacen(
        "[services.shop.versions.\"2.0.0\"]",
        "timeouts = { response = \"500ms\" }\n[services.shop.versions.\"2.0.0\"]",
        1,
    );
    let app = TestApp::start(&text).await;
    old.script.hang.store(true, SeqCst);
    for _ in 0..5 {
        let stream = raw(&app, "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        let before = old.script.requests();
        until("the request to arrive", Duration::from_secs(5), || async {
            old.script.requests() > 0 && old.script.requests() >= before
        })
        .await;
        drop(stream);
    }
    let aborts = "switchback_client_aborts_total{service=\"shop\",version=\"1.0.0\"}";
    until("the aborts to be counted", Duration::from_secs(5), || async { app.metric(aborts).await == 5.0 }).await;
    assert_eq!(all_failures(&app).await, 0.0);
    let in_flight = "switchback_requests_in_flight{service=\"shop\",version=\"1.0.0\"}";
    until("the gauge to go down", Duration::from_secs(5), || async { app.metric(in_flight).await == 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_timeouts_and_errors_are_the_backends() {
    let (old, _new, app) = start("").await;
    old.script.status.store(503, SeqCst);
    let answer = app.get("/", &[]).await;
    assert_eq!((answer.status, answer.version.as_str()), (503, "1.0.0"));
    let counted = async || failures(&app, "status").await == 1.0;
    until("the failure to be counted", Duration::from_secs(2), counted).await;
    old.script.status.store(404, SeqCst);
    assert_eq!(app.get("/", &[]).await.status, 404);
    assert_eq!(all_failures(&app).await, 1.0, "a 4xx is no failure");
    drop(old);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = app.get("/", &[]).await;
    assert_eq!(answer.status, 502);
    assert!(answer.headers["proxy-status"].to_str().unwrap().contains("switchback; error="), "{answer:?}");
    until("the failure to be counted", Duration::from_secs(2), || async { all_failures(&app).await == 2.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_too_slow_gets_504_and_the_blame() {
    let old = Backend::start("1.0.0").await;
    let new = Backend::start("2.0.0").await;
    let text = two_versions(&old, &new, "").replacen(
        "[services.shop.versions.\"2.0.0\"]",
        "timeouts = { response = \"300ms\" }\n[services.shop.versions.\"2.0.0\"]",
        1,
    );
    let app = TestApp::start(&text).await;
    old.script.hang.store(true, SeqCst);
    let answer = app.get("/", &[]).await;
    assert_eq!(answer.status, 504);
    assert!(answer.headers["proxy-status"].to_str().unwrap().contains("http_response_timeout"));
    let counted = async || failures(&app, "timeout").await == 1.0;
    until("the failure to be counted", Duration::from_secs(2), counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_is_the_clients_fault() {
    let old = Backend::start("1.0.0").await;
    let new = Backend::start("2.0.0").await;
    let limits = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[proxy.limits]\nbody_timeout = \"300ms\"\n";
    let app = TestApp::start(&format!("{limits}{}", two_versions(&old, &new, ""))).await;
    let mut stream = raw(&app, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc");
    let mut answer = String::new();
    let _reset_is_fine = tokio::task::block_in_place(|| stream.read_to_string(&mut answer));
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(all_failures(&app).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_oversized_requests_are_refused_and_blame_nobody() {
    let limits = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[proxy.limits]\nheader_size = \"4KiB\"\nheaders = 20\nbody_size = \"1KiB\"\n";
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&format!("{limits}{}", two_versions(&old, &new, ""))).await;
    let status = |request: String| {
        let mut stream = raw(&app, &request);
        tokio::task::block_in_place(|| {
            let mut first = [0; 12];
            stream
                .read_exact(&mut first)
                .map(|()| String::from_utf8_lossy(&first[9..]).into_owned())
                .unwrap_or_default()
        })
    };
    assert_eq!(status("GET / HTTP/1.1\r\nx: nobody\r\n\r\n".into()), "400", "no host");
    assert_eq!(status("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".into()), "400");
    assert_eq!(status("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx".into()), "400");
    assert_eq!(status(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(5_000))), "431");
    assert_eq!(status(format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: 1\r\n".repeat(30))), "431");
    assert_eq!(
        status(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n{}", "y".repeat(2_000))),
        "413"
    );
    let chunk = format!("{:x}\r\n{}\r\n", 2_000, "y".repeat(2_000));
    assert_eq!(
        status(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")),
        "413"
    );
    assert_eq!(status("GET / HTTP/1.1\r\nhost: a\r\n\r\n".into()), "200");
    assert_eq!(all_failures(&app).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_cut_at_the_deadline() {
    let limits = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[proxy.limits]\nheader_timeout = \"500ms\"\nconnections = 3\n";
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&format!("{limits}{}", two_versions(&old, &new, ""))).await;
    for begin in ["", "GET / HTTP/1.1\r\nhost: x\r\nx:", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = raw(&app, begin);
        let begun = std::time::Instant::now();
        let mut rest = Vec::new();
        let _closed = tokio::task::block_in_place(|| stream.read_to_end(&mut rest));
        assert!(begun.elapsed() < Duration::from_secs(3), "{begin:?} was open for {:?}", begun.elapsed());
    }
    let held: Vec<_> = (0..3).map(|_| raw(&app, "")).collect();
    until("three connections", Duration::from_secs(2), || async {
        app.metric("switchback_open_connections").await == 3.0
    })
    .await;
    let mut fourth = raw(&app, "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut nothing = Vec::new();
    let _reset_or_end = tokio::task::block_in_place(|| fourth.read_to_end(&mut nothing));
    let answer = String::from_utf8_lossy(&nothing);
    assert!(answer.starts_with("HTTP/1.1 503 "), "a connection beyond the cap is told so: {answer:?}");
    drop(held);
}
