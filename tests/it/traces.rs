//! Traces: what a collector of OpenTelemetry gets, and that one that is away costs nothing but spans.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message as _;
use serde_json::json;

use crate::harness::{Backend, TestApp, two_versions, until};
use crate::receiver::Receiver;

const LONG: Duration = Duration::from_secs(20);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Two versions, every request recorded unless `more` says otherwise.
struct Scene {
    old: Backend,
    new: Backend,
    collector: Receiver,
    app: TestApp,
}

impl Scene {
    async fn start(tracing: &str, service: &str) -> Self {
        let collector = Receiver::start().await;
        let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
        let services = two_versions(&old, &new, service);
        let app = TestApp::start(&configuration(&collector.url(""), tracing, &services)).await;
        Self { old, new, collector, app }
    }

    /// Everything that has arrived, once there are so many spans.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let arrived = || async { self.arrived().len() >= count };
        until(&format!("{count} spans arrive"), LONG, arrived).await;
        self.arrived()
    }

    fn arrived(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let calls = self.collector.calls().into_iter();
        calls.map(|call| ExportTraceServiceRequest::decode(call.body.as_slice()).unwrap()).collect()
    }

    async fn counted(&self, result: &str) -> f64 {
        self.app.metric(&format!("switchback_trace_spans_total{{result=\"{result}\"}}")).await
    }
}

fn configuration(endpoint: &str, tracing: &str, services: &str) -> String {
    let sample = if tracing.contains("sample") { "" } else { "sample = 100\n" };
    format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\n[proxy.tracing]\nendpoint = \"{endpoint}\"\ndelay = \"20ms\"\n\
         {sample}{tracing}\n[tenants]\nidentify = [{{ header = \"x-tenant-id\" }}]\n{services}"
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
        Any::StringValue(text) => text.clone(),
        Any::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    list.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn of_kind(spans: &[Span], kind: SpanKind) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind() == kind).collect()
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

fn header(seen: &serde_json::Value, name: &str) -> String {
    seen["headers"][name].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_a_span_and_its_attempt_another_that_the_endpoint_knows() {
    let more = "service_name = \"edge\"\nheaders = { authorization = \"Bearer secret\" }";
    let scene = Scene::start(more, "").await;
    let headers = [("x-user-id", "u1"), ("x-tenant-id", "acme"), ("user-agent", "test/1")];
    let answer = scene.app.get("/v1/orders/4711?token=secret", &headers).await;
    let spans = scene.spans(2).await;
    let (server, client) = (of_kind(&spans, SpanKind::Server)[0], of_kind(&spans, SpanKind::Client)[0]);
    assert_eq!((server.trace_id.len(), server.span_id.len(), server.parent_span_id.len()), (16, 8, 0));
    assert_eq!((&client.trace_id, &client.parent_span_id), (&server.trace_id, &server.span_id));
    let passed_on = format!("00-{}-{}-01", hex(&client.trace_id), hex(&client.span_id));
    assert_eq!(header(&answer.seen, "traceparent"), passed_on);
    assert!(
        server.start_time_unix_nano <= client.start_time_unix_nano
            && client.end_time_unix_nano <= server.end_time_unix_nano
    );
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
        - server.start_time_unix_nano;
    assert!(age < 30_000_000_000, "{age} ns ago");

    assert_eq!(server.name, "GET /v1/orders/{id}");
    let host = scene.app.proxy.trim_start_matches("http://").to_owned();
    let found = attributes(&server.attributes);
    let expected = [
        ("http.request.method", "GET"),
        ("http.route", "/v1/orders/{id}"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("url.path", "/v1/orders/4711"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("server.address", "127.0.0.1"),
        ("server.port", host.rsplit_once(':').unwrap().1),
        ("user_agent.original", "test/1"),
        ("switchback.service", "shop"),
        ("switchback.version", "1.0.0"),
        ("switchback.tenant", "acme"),
        ("switchback.decision", "split"),
        ("switchback.fault", "served"),
        ("switchback.request_id", &header(&answer.seen, "x-request-id")),
    ];
    assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let found = attributes(&client.attributes);
    let endpoint = scene.old.address.to_string();
    let expected = [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("network.peer.address", "127.0.0.1"),
        ("network.peer.port", endpoint.rsplit_once(':').unwrap().1),
        ("network.protocol.version", "1.1"),
        ("server.address", "127.0.0.1"),
        ("server.port", endpoint.rsplit_once(':').unwrap().1),
        ("switchback.version", "1.0.0"),
        ("url.full", &format!("http://{endpoint}/v1/orders/4711")),
    ];
    assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(!is_error(server) && !is_error(client));

    let call = &scene.collector.calls()[0];
    assert_eq!((call.path.as_str(), call.headers["content-type"].as_str()), ("/v1/traces", "application/x-protobuf"));
    assert_eq!(call.headers["authorization"], "Bearer secret");
    let resource = &scene.requests()[0].resource_spans[0];
    let about = attributes(&resource.resource.as_ref().unwrap().attributes);
    assert_eq!(
        (about["service.name"].as_str(), about["service.version"].as_str()),
        ("edge", env!("CARGO_PKG_VERSION"))
    );
    assert!(about["service.instance.id"].contains('-'), "{about:?}");
    until("the spans to be counted", LONG, || async { scene.counted("exported").await == 2.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_has_two_attempts_and_tells_who_answered() {
    let scene = Scene::start("", "rescue = true\nsplit = { \"2.0.0\" = 100 }").await;
    scene.new.script.fail(100.0);
    let answer = scene.app.get("/", &[("x-user-id", "u1")]).await;
    assert_eq!((answer.status, answer.version.as_str()), (200, "1.0.0"));
    let spans = scene.spans(3).await;
    let server = of_kind(&spans, SpanKind::Server)[0];
    let about = attributes(&server.attributes);
    assert_eq!((about["switchback.version"].as_str(), about["switchback.answered_by"].as_str()), ("2.0.0", "1.0.0"));
    assert_eq!((about["switchback.rescue"].as_str(), about["http.response.status_code"].as_str()), ("saved", "200"));
    assert!(!is_error(server), "its client got an answer");
    let attempts = of_kind(&spans, SpanKind::Client);
    assert_eq!(attempts.len(), 2);
    let [first, second] = [0, 1].map(|n| attributes(&attempts[n].attributes));
    assert_eq!((first["switchback.version"].as_str(), first["error.type"].as_str()), ("2.0.0", "500"));
    assert_eq!((second["switchback.version"].as_str(), second["http.response.status_code"].as_str()), ("1.0.0", "200"));
    assert_eq!((first.get("http.request.resend_count"), second["http.request.resend_count"].as_str()), (None, "1"));
    assert!(is_error(attempts[0]) && !is_error(attempts[1]));
    assert!(attempts.iter().all(|attempt| attempt.parent_span_id == server.span_id));
    assert!(attempts[0].end_time_unix_nano <= attempts[1].start_time_unix_nano);
    let of_backend = |backend: &Backend| header(&backend.script.last(), "traceparent");
    assert!(
        of_backend(&scene.new).contains(&hex(&attempts[0].span_id)),
        "each endpoint has the span of its own attempt"
    );
    assert!(of_backend(&scene.old).contains(&hex(&attempts[1].span_id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_an_attempt_of_its_own() {
    let scene = Scene::start("", "").await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let body = json!({ "endpoints": [gone.to_string(), scene.old.address.to_string()] });
    scene.app.change("PUT", "/v1/services/shop/versions/3.0.0", body).await;
    scene.app.change("PUT", "/v1/services/shop/pins/user/u1", json!({ "version": "3.0.0" })).await;
    let again = |spans: &[Span]| of_kind(spans, SpanKind::Client).len() > of_kind(spans, SpanKind::Server).len();
    until("one to be tried twice", LONG, || async {
        assert_eq!(scene.app.get("/", &[("x-user-id", "u1")]).await.status, 200);
        again(&scene.arrived())
    })
    .await;
    let spans = scene.arrived();
    let failed = of_kind(&spans, SpanKind::Client).into_iter().find(|span| is_error(span)).unwrap();
    assert_eq!(attributes(&failed.attributes)["error.type"], "connection_refused");
    let of_it: Vec<_> = spans.iter().filter(|span| span.parent_span_id == failed.parent_span_id).collect();
    let [_, second] = of_it[..] else { panic!("{of_it:?}") };
    assert_eq!(attributes(&second.attributes)["http.response.status_code"], "200");
    assert!(!is_error(second), "what came of the first attempt is not told of the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_refusals_say_what_went_wrong() {
    let scene = Scene::start("", "").await;
    scene.old.script.status.store(503, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(scene.app.get("/", &[]).await.status, 503);
    let spans = scene.spans(2).await;
    let (server, client) = (of_kind(&spans, SpanKind::Server)[0], of_kind(&spans, SpanKind::Client)[0]);
    assert!(is_error(server) && is_error(client));
    let about = attributes(&server.attributes);
    assert_eq!((about["error.type"].as_str(), about["switchback.fault"].as_str()), ("503", "backend"));

    // Nobody is there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let body = json!({ "endpoints": [gone.to_string()] });
    scene.app.change("PUT", "/v1/services/shop/versions/3.0.0", body).await;
    scene.app.change("PUT", "/v1/services/shop/pins/user/u1", json!({ "version": "3.0.0" })).await;
    assert_eq!(scene.app.get("/", &[("x-user-id", "u1")]).await.status, 502);
    let spans = scene.spans(4).await;
    let client = attributes(&of_kind(&spans, SpanKind::Client).last().unwrap().attributes);
    assert_eq!((client["error.type"].as_str(), client.get("http.response.status_code")), ("connection_refused", None));
    let server = attributes(&of_kind(&spans, SpanKind::Server).last().unwrap().attributes);
    assert_eq!((server["error.type"].as_str(), server["switchback.decision"].as_str()), ("502", "pin"));

    // In maintenance nothing is sent on, and it is no error of the proxy's.
    scene.app.change("PUT", "/v1/services/shop/maintenance", json!({ "message": "later" })).await;
    assert_eq!(scene.app.get("/", &[("x-tenant-id", "acme")]).await.status, 503);
    let spans = scene.spans(5).await;
    let server = attributes(&of_kind(&spans, SpanKind::Server).last().unwrap().attributes);
    let refused = (server["switchback.refused"].as_str(), server["switchback.fault"].as_str());
    assert_eq!((refused, server["switchback.tenant"].as_str()), (("maintenance", "refused"), "acme"));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_say_whether_a_request_is_recorded_and_traces_go_on() {
    let scene = Scene::start("sample = 0", "").await;
    let state = "vendor=1,other=2";
    let call = async |flags: &str| {
        let parent = format!("00-{TRACE}-{CALLER}-{flags}");
        scene.app.get("/", &[("traceparent", &parent), ("tracestate", state)]).await
    };
    let recorded = call("01").await;
    let spans = scene.spans(2).await;
    let (server, client) = (of_kind(&spans, SpanKind::Server)[0], of_kind(&spans, SpanKind::Client)[0]);
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!((server.trace_state.as_str(), server.flags & 0x301, client.flags & 0x301), (state, 0x301, 0x101));
    let passed_on = format!("00-{TRACE}-{}-01", hex(&client.span_id));
    assert_eq!(
        (header(&recorded.seen, "traceparent"), header(&recorded.seen, "tracestate")),
        (passed_on, state.to_owned())
    );

    // Not recorded: passed on as it came, or begun without a wish.
    let unwanted = call("00").await;
    assert_eq!(header(&unwanted.seen, "traceparent"), format!("00-{TRACE}-{CALLER}-00"));
    let without = scene.app.get("/", &[]).await;
    assert!(header(&without.seen, "traceparent").ends_with("-00"), "{}", without.seen);
    assert_eq!(call("01").await.status, 200);
    assert_eq!(scene.spans(4).await.len(), 4, "of four requests two were recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_parent_begins_a_trace_and_strangers_may_be_ignored() {
    let scene = Scene::start("", "").await;
    let nonsense = [("traceparent", "00-nonsense"), ("tracestate", "vendor=1")];
    let answer = scene.app.get("/", &nonsense).await;
    let spans = scene.spans(2).await;
    assert!(of_kind(&spans, SpanKind::Server)[0].parent_span_id.is_empty());
    assert_eq!(header(&answer.seen, "tracestate"), "", "it belongs to no trace that is known");
    assert!(header(&answer.seen, "traceparent").starts_with(&format!("00-{}", hex(&spans[0].trace_id))));

    for (tracing, recorded) in
        [("parent = \"trusted\"", false), ("parent = \"none\"", false), ("parent = \"all\"", true)]
    {
        let scene = Scene::start(&format!("sample = 0\n{tracing}"), "").await;
        scene.app.get("/", &[("traceparent", &format!("00-{TRACE}-{CALLER}-01"))]).await;
        // What ends leaves nothing behind that was not sent.
        let (collector, folder) = (scene.collector, scene.app.stop().await);
        assert_eq!(!collector.calls().is_empty(), recorded, "{tracing}");
        drop(folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn about_as_many_are_recorded_as_are_wanted_and_none_when_it_is_off() {
    let scene = Scene::start("sample = 25", "").await;
    for _ in 0..400 {
        scene.app.get("/", &[]).await;
    }
    let Scene { app, collector, .. } = scene;
    let _folder = app.stop().await;
    let requests =
        collector.calls().into_iter().map(|call| ExportTraceServiceRequest::decode(call.body.as_slice()).unwrap());
    let spans: Vec<_> =
        requests.flat_map(|r| r.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect();
    let recorded = of_kind(&spans, SpanKind::Server).len();
    assert!((60..140).contains(&recorded), "{recorded} of 400");

    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&two_versions(&old, &new, "")).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let answer = app.get("/", &[("traceparent", &parent)]).await;
    assert_eq!(header(&answer.seen, "traceparent"), parent, "passed on as it came");
    assert_eq!(app.metric("switchback_trace_spans_total{result=\"exported\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_silent_costs_spans_and_nothing_else() {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let services = two_versions(&old, &new, "");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = TestApp::start(&configuration(&format!("http://{gone}"), "", &services)).await;
    for _ in 0..10 {
        assert_eq!(app.get("/", &[]).await.status, 200);
    }
    let failed = || async { app.metric("switchback_trace_spans_total{result=\"failed\"}").await == 20.0 };
    until("the spans to be given up", LONG, failed).await;
    drop(app);

    let scene = Scene::start("queue = 4\nbatch = 1\ntimeout = \"1h\"", "").await;
    scene.collector.hang.store(true, std::sync::atomic::Ordering::SeqCst);
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(scene.app.get("/", &[]).await.status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?} for 50 requests", begun.elapsed());
    // One is on its way for ever, four wait, all others were dropped.
    until("spans to be dropped", LONG, || async { scene.counted("dropped").await >= 2.0 * 45.0 }).await;
    let begun = Instant::now();
    let _folder = scene.app.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "the end waits for the collector: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_believed_and_asked_again_with_what_comes_later() {
    let scene = Scene::start("", "").await;
    scene.collector.reply(503, &[]);
    scene.app.get("/", &[]).await;
    until("the refusal to be counted", LONG, || async { scene.counted("failed").await == 2.0 }).await;
    scene.app.get("/", &[]).await;
    until("the next ones to arrive", LONG, || async { scene.counted("exported").await == 2.0 }).await;
    assert_eq!(scene.collector.calls().len(), 2, "nothing is sent twice");
}
