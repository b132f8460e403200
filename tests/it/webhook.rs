//! Calls to other people's receivers: what they carry, and what happens when the receiver is slow, far too talkative,
//! elsewhere, or not who it should be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use switchback::webhook::{ANSWER_BYTES, Answer, CallError, Caller, SetUpError, Target, signature};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::receiver::Receiver;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn target(url: String) -> Target {
    Target { url, secret: None, timeout: Duration::from_secs(10) }
}

async fn post(target: &Target) -> Result<Answer, CallError> {
    Caller::new().unwrap().post(target, Bytes::from_static(b"{}"), HeaderMap::new()).await
}

#[tokio::test]
async fn a_call_arrives_signed_and_a_repetition_keeps_its_id() {
    let receiver = Receiver::start().await;
    let target = Target { secret: Some(SECRET.parse().unwrap()), ..target(receiver.url("/in?x=1")) };
    let caller = Caller::new().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    let body = Bytes::from_static(b"{\"a\":1}");
    let answer = caller.post(&target, body.clone(), headers.clone()).await.unwrap();
    assert!(answer.is_success());
    assert_eq!((answer.status, answer.retry_after, &answer.body[..]), (200, None, &b"noted"[..]));
    headers.insert("webhook-id", "msg_again".parse().unwrap());
    caller.post(&target, body.clone(), headers.clone()).await.unwrap();
    caller.post(&target, body, headers).await.unwrap();
    let calls = receiver.calls();
    assert_eq!(calls.len(), 3);
    for call in &calls {
        let at: i64 = call.headers["webhook-timestamp"].parse().unwrap();
        let expected = signature(&SECRET.parse().unwrap(), &call.headers["webhook-id"], at, &call.body);
        assert_eq!(call.headers["webhook-signature"], expected);
        assert_eq!((call.path.as_str(), &call.body[..]), ("/in?x=1", &b"{\"a\":1}"[..]));
        assert_eq!(call.headers["content-type"], "application/json");
        assert!(call.headers["user-agent"].starts_with("switchback/"));
    }
    assert!(calls[0].headers["webhook-id"].starts_with("msg_"));
    assert_eq!(calls[1].headers["webhook-id"], "msg_again");
    assert_eq!(calls[2].headers["webhook-id"], "msg_again");
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let receiver = Receiver::start().await;
    post(&target(receiver.url("/"))).await.unwrap();
    let call = &receiver.calls()[0];
    assert!(call.headers.contains_key("webhook-id") && !call.headers.contains_key("webhook-signature"));
}

#[tokio::test]
async fn redirects_are_answers_and_nobody_goes_there() {
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    receiver.reply(307, &[("location", &elsewhere.url("/"))]);
    let answer = post(&target(receiver.url("/"))).await.unwrap();
    assert_eq!(answer.status, 307);
    assert!(!answer.is_success() && !answer.may_pass());
    assert_eq!(elsewhere.calls().len(), 0);
}

#[tokio::test]
async fn who_asks_to_be_left_alone_is_heard() {
    let receiver = Receiver::start().await;
    receiver.reply(429, &[("retry-after", "7")]);
    let answer = post(&target(receiver.url("/"))).await.unwrap();
    assert_eq!((answer.status, answer.retry_after), (429, Some(Duration::from_secs(7))));
    assert!(answer.may_pass());
}

#[tokio::test]
async fn an_endless_answer_is_read_no_further_than_its_beginning() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let endless = || async {
        let parts = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1_000])));
        Body::from_stream(parts)
    };
    let server = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(endless)).await.unwrap() });
    let answer = post(&target(url)).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, ANSWER_BYTES));
    server.abort();
}

/// Silent from the start, or in the middle of the answer: the deadline is for everything.
#[tokio::test]
async fn a_receiver_that_hangs_costs_the_deadline_and_no_more() {
    for says in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nthe beginning"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut head = [0; 1_024];
            let _some = connection.read(&mut head).await.unwrap();
            connection.write_all(says.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let begun = Instant::now();
        let error = post(&Target { timeout: Duration::from_millis(300), ..target(url) }).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout(_)) && error.may_pass(), "{}", error.chain());
        assert_eq!(error.to_string(), "no answer within 300 ms");
        assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5));
        server.abort();
    }
}

#[tokio::test]
async fn errors_say_what_happened_and_never_where() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = post(&target(format!("http://{closed}/hidden"))).await.unwrap_err();
    assert!(matches!(error, CallError::Connect(_)) && error.may_pass());
    assert!(error.chain().starts_with("the receiver cannot be reached: "), "{}", error.chain());
    assert!(!error.chain().contains("hidden") && !format!("{error:?}").contains("hidden"));
    let error = post(&target("not an address/hidden".to_owned())).await.unwrap_err();
    assert!(matches!(error, CallError::Url(_)) && !error.may_pass());
    assert!(!error.chain().contains("hidden"), "{}", error.chain());
}

#[tokio::test]
async fn certificates_are_verified_and_own_authorities_can_be_named() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = Arc::new(tls.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let Ok(mut connection) = tokio_rustls::TlsAcceptor::from(tls.clone()).accept(connection).await else {
                continue;
            };
            let mut head = [0; 1_024];
            let _some = connection.read(&mut head).await.unwrap();
            connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            connection.shutdown().await.unwrap();
        }
    });
    let error = post(&target(url.clone())).await.unwrap_err();
    assert!(error.chain().contains("certificate"), "{}", error.chain());
    let trusting = Caller::with_authorities(cert.as_bytes()).unwrap();
    let answer = trusting.post(&target(url), Bytes::new(), HeaderMap::new()).await.unwrap();
    assert_eq!(answer.status, 204);
    server.abort();
    assert!(matches!(Caller::with_authorities(b"no PEM"), Err(SetUpError::Authorities)));
}

#[tokio::test]
async fn a_restricted_caller_looks_at_addresses_and_again_at_what_names_lead_to() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use switchback::model::Reach;
    let receiver = Receiver::start().await;
    let open = || Reach::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    let post = async |caller: &Caller, url: String| {
        caller.post(&target(url), Bytes::from_static(b"{}"), HeaderMap::new()).await
    };
    let port = reqwest::Url::parse(&receiver.url("/")).unwrap().port().unwrap();
    let shut = Caller::restricted(Arc::new(Reach::default)).unwrap();
    for url in [receiver.url("/in"), format!("http://localhost:{port}/in")] {
        let error = post(&shut, url).await.unwrap_err();
        assert!(matches!(error, CallError::OutOfReach(_)) && error.chain().contains("loopback"), "{}", error.chain());
    }
    // What was allowed when the call began is not when the name is connected to.
    let asked = Arc::new(AtomicUsize::new(0));
    let within = move || if asked.fetch_add(1, Ordering::Relaxed) == 0 { open() } else { Reach::default() };
    let error = post(&Caller::restricted(Arc::new(within)).unwrap(), format!("http://localhost:{port}/in")).await;
    let error = error.unwrap_err();
    assert!(matches!(error, CallError::Connect(_)) && error.chain().contains("loopback"), "{}", error.chain());
    assert_eq!(receiver.calls().len(), 0);
    let caller = Caller::restricted(Arc::new(open)).unwrap();
    assert!(post(&caller, receiver.url("/in")).await.unwrap().is_success());
    assert!(post(&caller, format!("http://localhost:{port}/in")).await.unwrap().is_success());
}
