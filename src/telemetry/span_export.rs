//! Sends spans to the collector: one thread, one call at a time, OTLP as protobuf over HTTP.
//!
//! Nothing is sent twice: spans are a sample of what happened, and a collector that is away must cost neither memory nor
//! time. What it does not take is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::sync::watch;

use super::tracer::{SpanCounts, TracerError, TracerSettings};

/// How often the queue is looked at. The request path does not wake the thread, which would be a system call.
const REST: Duration = Duration::from_millis(20);
/// How long the collector may take in all once the process ends.
const LAST: Duration = Duration::from_secs(2);
/// The longest answer of a collector that is read.
const ANSWER_MAX: usize = 64 << 10;

pub(super) struct Exporter {
    settings: TracerSettings,
    queue: Arc<ArrayQueue<Vec<Span>>>,
    counts: Arc<SpanCounts>,
    stopped: watch::Receiver<bool>,
    client: reqwest::Client,
    resource: Resource,
    /// Whether the last call failed; only a change is worth a line in the log.
    failing: bool,
}

impl Exporter {
    pub(super) fn new(
        settings: TracerSettings,
        queue: Arc<ArrayQueue<Vec<Span>>>,
        counts: Arc<SpanCounts>,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self, TracerError> {
        let client = reqwest::Client::builder()
            .timeout(settings.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(settings.headers.iter().cloned().collect())
            .build()
            .map_err(TracerError::Client)?;
        let attributes = vec![
            text("service.name", &settings.service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", &settings.instance),
        ];
        let resource = Resource { attributes, ..Resource::default() };
        Ok(Self { settings, queue, counts, stopped, client, resource, failing: false })
    }

    pub(super) fn run(mut self) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.send_all()),
            Err(error) => ::tracing::error!(%error, "no spans are sent: their runtime cannot be made"),
        }
    }

    async fn send_all(&mut self) {
        let mut since: Option<Instant> = None;
        let mut until: Option<Instant> = None;
        loop {
            // Read first: what was put in before the stop is then still found.
            if *self.stopped.borrow() {
                let end = *until.get_or_insert_with(|| Instant::now() + LAST);
                if self.queue.is_empty() || Instant::now() >= end {
                    return self.give_up();
                }
            }
            let waiting = self.queue.len();
            let due = waiting > 0 && since.get_or_insert_with(Instant::now).elapsed() >= self.settings.delay;
            if due || waiting >= self.settings.batch.min(self.queue.capacity()) || waiting > 0 && until.is_some() {
                since = None;
                self.send_batch().await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(REST.min(self.settings.delay)) => {}
                _stopped = self.stopped.changed() => {}
            }
        }
    }

    /// What is left when the time is over is lost.
    fn give_up(&self) {
        let left: usize = std::iter::from_fn(|| self.queue.pop()).map(|spans| spans.len()).sum();
        self.counts.failed.fetch_add(left as u64, Relaxed);
    }

    async fn send_batch(&mut self) {
        let spans: Vec<Span> = std::iter::from_fn(|| self.queue.pop()).take(self.settings.batch).flatten().collect();
        let sent = spans.len() as u64;
        let body = self.request(spans).encode_to_vec();
        let mut stopped = self.stopped.clone();
        let over = async move {
            // Whoever dropped the sender has stopped, too.
            let _stopped = stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(LAST).await;
        };
        let answer = tokio::select! {
            answer = self.call(body) => answer,
            () = over => Err("the process ends".to_owned()),
        };
        let lost = match &answer {
            Ok(rejected) => (*rejected).min(sent),
            Err(_) => sent,
        };
        self.counts.failed.fetch_add(lost, Relaxed);
        self.counts.exported.fetch_add(sent - lost, Relaxed);
        self.tell(answer.err());
    }

    /// Answers how many spans the collector did not want.
    async fn call(&self, body: Vec<u8>) -> Result<u64, String> {
        let request = self.client.post(&self.settings.url).header("content-type", "application/x-protobuf").body(body);
        let answer = request.send().await.map_err(|error| chain(&error))?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status()));
        }
        if answer.content_length().is_none_or(|length| length > ANSWER_MAX as u64) {
            return Ok(0);
        }
        let body = answer.bytes().await.map_err(|error| chain(&error))?;
        // An answer that is none says that the spans were taken: its status did.
        let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
        Ok(partial.map_or(0, |partial| partial.rejected_spans.max(0) as u64))
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "switchback".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, schema_url: String::new() }];
        ExportTraceServiceRequest { resource_spans }
    }

    fn tell(&mut self, error: Option<String>) {
        let url = &self.settings.url;
        match (&error, self.failing) {
            (Some(error), false) => ::tracing::warn!(error, url, "spans are lost: the collector does not take them"),
            (None, true) => ::tracing::info!(url, "the collector takes spans again"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// An error and what is behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
