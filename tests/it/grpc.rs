//! gRPC with a real client: calls of every kind, over h2c and over TLS, and what their ends count as.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures::StreamExt as _;
use http::HeaderMap;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Buf as _, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::harness::{TestApp, until};

/// Messages are bytes.
#[derive(Default, Clone)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let all = from.remaining();
        Ok(Some(from.copy_to_bytes(all).to_vec()))
    }
}

type Frames = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

/// A server that does what the path says: `/t/echo`, `/t/count`, `/t/hang`, `/t/break`, `/t/silent`, and
/// `/t/header-CODE` or `/t/trailer-CODE`.
struct Server {
    address: SocketAddr,
    calls: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicU64::new(0));
        let shared = calls.clone();
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let calls = shared.clone();
                let service = service_fn(move |request| {
                    calls.fetch_add(1, SeqCst);
                    answer(request)
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                connections.spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, calls, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answer = hyper::Response<StreamBody<ReceiverStream<Result<Frame<Bytes>, std::io::Error>>>>;

async fn answer(request: hyper::Request<Incoming>) -> Result<Answer, std::io::Error> {
    let what = request.uri().path().trim_start_matches("/t/").to_owned();
    if what == "hang" {
        let _whole = request.into_body().collect().await;
        std::future::pending::<()>().await;
        unreachable!()
    }
    let mut builder = hyper::Response::builder().header("content-type", "application/grpc");
    if let Some(seen) = request.headers().get("x-ask") {
        builder = builder.header("x-told", seen).header("x-te", request.headers()["te"].clone());
    }
    if let Some(code) = what.strip_prefix("header-") {
        builder = builder.header("grpc-status", code).header("grpc-message", "as asked");
    }
    let (frames, receiver) = mpsc::channel(1);
    tokio::spawn(send_frames(what, request.into_body(), frames));
    Ok(builder.body(StreamBody::new(ReceiverStream::new(receiver))).unwrap())
}

async fn send_frames(what: String, mut body: Incoming, frames: Frames) {
    let trailers = |code: &str| {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", code.parse().unwrap());
        map.insert("x-end", "yes".parse().unwrap());
        Ok(Frame::trailers(map))
    };
    let message = |body: &[u8]| {
        let mut frame = vec![0];
        frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
        frame.extend_from_slice(body);
        Ok(Frame::data(Bytes::from(frame)))
    };
    if what == "echo" {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            if frames.send(Ok(Frame::data(data))).await.is_err() {
                return;
            }
        }
        let _gone = frames.send(trailers("0")).await;
        return;
    }
    if what == "break" {
        // Half an answer to the first message, and the break once the caller has it and says no more.
        let _gone = frames.send(message(b"half")).await;
        let _whole = body.collect().await;
        let _gone = frames.send(Err(std::io::Error::other("broken on purpose"))).await;
        return;
    }
    let whole = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let _gone = match what.as_str() {
        "count" => {
            let _gone = frames.send(message(&whole.len().to_be_bytes())).await;
            frames.send(trailers("0")).await
        }
        other => match other.strip_prefix("trailer-") {
            Some(code) => frames.send(trailers(code)).await,
            None => return,
        },
    };
}

fn config(address: SocketAddr, more: &str) -> String {
    format!(
        "[services.shop]\nmatch = [{{ path = \"/t\" }}]\nbaseline = \"1\"\n{more}\n\
         [services.shop.versions.1]\nendpoints = [\"{address}\"]\nhttp2 = true\n"
    )
}

async fn start(more: &str) -> (Server, TestApp, Grpc<Channel>) {
    let server = Server::start().await;
    let app = TestApp::start(&config(server.address, more)).await;
    let channel = Endpoint::from_shared(app.proxy.clone()).unwrap().connect().await.unwrap();
    (server, app, Grpc::new(channel))
}

fn path(what: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/t/{what}")).unwrap()
}

async fn unary(grpc: &mut Grpc<Channel>, what: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    grpc.ready().await.unwrap();
    grpc.unary(Request::new(message), path(what), Raw).await.map(tonic::Response::into_inner)
}

async fn failures(app: &TestApp, kind: &str) -> f64 {
    app.metric(&format!("switchback_request_failures_total{{service=\"shop\",version=\"1\",kind=\"{kind}\"}}")).await
}

/// Unary, client, server and bidirectional streaming, the latter in lock step: nobody may hold a message back.
async fn every_kind(grpc: &mut Grpc<Channel>) {
    grpc.ready().await.unwrap();
    let mut ask = Request::new(vec![7; 100_000]);
    ask.metadata_mut().insert("x-ask", "what".parse().unwrap());
    let answer = grpc.unary(ask, path("echo"), Raw).await.unwrap();
    assert_eq!(answer.metadata().get("x-told").unwrap(), "what");
    assert_eq!(answer.metadata().get("x-te").unwrap(), "trailers");
    assert_eq!(answer.metadata().get("x-end").unwrap(), "yes", "the trailer");
    assert_eq!(answer.into_inner(), vec![7; 100_000]);

    grpc.ready().await.unwrap();
    let many = tokio_stream::iter((0..100).map(|n| vec![n; 1_000]));
    let counted = grpc.client_streaming(Request::new(many), path("count"), Raw).await.unwrap().into_inner();
    assert_eq!(counted, (100 * 1_005_usize).to_be_bytes());

    grpc.ready().await.unwrap();
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(1);
    let call = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path("echo"), Raw);
    sender.send(vec![0]).await.unwrap();
    let mut answers = tokio::time::timeout(Duration::from_secs(5), call).await.unwrap().unwrap().into_inner();
    for n in 0..50u8 {
        let told = tokio::time::timeout(Duration::from_secs(5), answers.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(told, vec![n]);
        sender.send(vec![n + 1]).await.unwrap();
    }
    drop(sender);
    assert_eq!(answers.next().await.unwrap().unwrap(), vec![50]);
    assert!(answers.next().await.is_none());
    assert_eq!(answers.trailers().await.unwrap().unwrap().get("x-end").unwrap(), "yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_pass_over_h2c() {
    let (server, app, mut grpc) = start("").await;
    every_kind(&mut grpc).await;
    assert_eq!(server.calls.load(SeqCst), 3);
    let served = "switchback_requests_total{service=\"shop\",version=\"1\",code=\"2xx\"}";
    until("all to be counted", Duration::from_secs(5), || async { app.metric(served).await == 3.0 }).await;
    for kind in ["status", "grpc", "connect", "timeout", "reset"] {
        assert_eq!(failures(&app, kind).await, 0.0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_pass_over_tls() {
    let folder = Arc::new(TempDir::new().unwrap());
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    std::fs::write(folder.path().join("site.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("site.crt"), made.cert.pem()).unwrap();
    let server = Server::start().await;
    let listener =
        "[[proxy.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{ cert = \"site.crt\", key = \"site.key\" }]\n";
    let app = TestApp::start_in(folder, &format!("{listener}{}", config(server.address, ""))).await;
    let address = app.app.as_ref().unwrap().listen_tls[0];
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(made.cert.pem())).domain_name("a.test");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    let endpoint = endpoint.origin(format!("https://a.test:{}", address.port()).parse().unwrap());
    every_kind(&mut Grpc::new(endpoint.connect().await.unwrap())).await;
    assert_eq!(server.calls.load(SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_count_by_their_code_wherever_they_stand() {
    let (_server, app, mut grpc) = start("").await;
    let mut failed = 0.0;
    for code in 1..=16u16 {
        for place in ["header", "trailer"] {
            let status = unary(&mut grpc, &format!("{place}-{code}"), vec![1]).await.unwrap_err();
            assert_eq!(status.code(), Code::from(i32::from(code)), "{place}");
            failed += if [2, 4, 12, 13, 14, 15].contains(&code) { 1.0 } else { 0.0 };
        }
        until(&format!("{code} to be counted, {failed} in all"), Duration::from_secs(5), || async {
            failures(&app, "grpc").await == failed
        })
        .await;
    }
    // Whoever says nothing has failed as well.
    assert!(unary(&mut grpc, "silent", vec![1]).await.is_err());
    until("the call to be counted", Duration::from_secs(5), || async { failures(&app, "grpc").await == failed + 1.0 })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_which_codes_count() {
    let (_server, app, mut grpc) = start("grpc_failures = [5]").await;
    unary(&mut grpc, "trailer-14", vec![1]).await.unwrap_err();
    unary(&mut grpc, "trailer-5", vec![1]).await.unwrap_err();
    until("the call to be counted", Duration::from_secs(5), || async { failures(&app, "grpc").await == 1.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_proxy_answers_is_a_status_too() {
    let (server, app, mut grpc) = start("body_limit = \"1KiB\"\nretries = 0").await;
    assert_eq!(unary(&mut grpc, "echo", vec![1; 2_000]).await.unwrap_err().code(), Code::ResourceExhausted);
    grpc.ready().await.unwrap();
    let elsewhere = grpc.unary(Request::new(vec![1]), PathAndQuery::from_static("/other"), Raw).await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::Unimplemented);
    let maintenance = "/v1/services/shop/maintenance";
    app.change("PUT", maintenance, serde_json::json!({"message": "back at 9", "retry_after": "10m"})).await;
    let closed = unary(&mut grpc, "echo", vec![1]).await.unwrap_err();
    assert_eq!((closed.code(), closed.message()), (Code::Unavailable, "back at 9"));
    assert_eq!(closed.metadata().get("retry-after").unwrap(), "600");
    app.change("DELETE", maintenance, serde_json::json!({})).await;
    assert_eq!(server.calls.load(SeqCst), 1, "the large one, begun before anyone knew");
    drop(server);
    until("the port to be closed", Duration::from_secs(5), || async {
        failures(&app, "connect").await >= 1.0 || {
            let status = unary(&mut grpc.clone(), "echo", vec![1]).await.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::Unavailable, "the service could not be reached or broke off")
            );
            assert!(status.metadata().get("proxy-status").is_some());
            false
        }
    })
    .await;
    // Others than callers get what they always got.
    let answer = app.client.post(format!("{}/t/echo", app.proxy)).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
        (502, "application/problem+json")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_breaks_off_ends_as_unavailable() {
    let (_server, app, mut grpc) = start("").await;
    grpc.ready().await.unwrap();
    let (more, asked) = mpsc::channel(1);
    more.send(vec![1]).await.unwrap();
    let ask = Request::new(ReceiverStream::new(asked));
    let mut answers = grpc.streaming(ask, path("break"), Raw).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap(), b"half");
    drop(more);
    assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    until("the call to be counted", Duration::from_secs(5), || async { failures(&app, "reset").await == 1.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_the_versions_and_leaving_early_is_not() {
    let (server, app, mut grpc) = start("").await;
    grpc.ready().await.unwrap();
    let mut patient = Request::new(vec![1]);
    patient.set_timeout(Duration::from_secs(60));
    let call = grpc.clone();
    let left = tokio::time::timeout(Duration::from_millis(300), async move {
        let mut call = call;
        call.ready().await.unwrap();
        call.unary(patient, path("hang"), Raw).await
    });
    assert!(left.await.is_err(), "nobody answers");
    assert_eq!(server.calls.load(SeqCst), 1);
    let aborts = "switchback_client_aborts_total{service=\"shop\",version=\"1\"}";
    until("the abort to be counted", Duration::from_secs(5), || async { app.metric(aborts).await == 1.0 }).await;
    assert_eq!(failures(&app, "timeout").await, 0.0);
    let mut hurried = Request::new(vec![1]);
    hurried.set_timeout(Duration::from_millis(300));
    grpc.ready().await.unwrap();
    grpc.unary(hurried, path("hang"), Raw).await.unwrap_err();
    until("the call to be counted", Duration::from_secs(5), || async { failures(&app, "timeout").await == 1.0 }).await;
    assert_eq!(app.metric(aborts).await, 1.0);
}
