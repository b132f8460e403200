//! Spans for a collector of OpenTelemetry: which requests are recorded, and the queue in which their spans wait.
//!
//! The request path decides, and at the end of a request that is recorded puts its spans into a bounded queue. It never
//! waits: when the queue is full, spans are dropped and counted. A thread of its own sends them ([`super::span_export`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use http::{HeaderName, HeaderValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::span_export::Exporter;
use super::trace_context::TraceParent;
use crate::model::BasisPoints;

/// The bits of a trace's id that are random in every version of the standard.
const RANDOM_BITS: u32 = 56;

/// What a tracer goes by.
#[derive(Debug, Clone)]
pub struct TracerSettings {
    /// Where spans are sent: the whole address.
    pub url: String,
    /// Headers that are sent with them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The resource's `service.name`.
    pub service_name: String,
    /// The resource's `service.instance.id`.
    pub instance: String,
    /// Share of the requests without a parent that are recorded.
    pub sample: BasisPoints,
    /// Requests whose spans may wait, at least 1.
    pub queue: usize,
    /// Most requests whose spans are sent together, at least 1.
    pub batch: usize,
    /// How long spans wait for others.
    pub delay: Duration,
    /// How long the collector may take.
    pub timeout: Duration,
}

/// Why spans cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// Nothing can be sent.
    #[error("spans cannot be sent")]
    Client(#[source] reqwest::Error),
    /// The thread that sends cannot be started.
    #[error("the thread that sends spans cannot be started")]
    Thread(#[source] std::io::Error),
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    pub(super) exported: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl SpanCounts {
    /// Counts by the label `result`.
    pub(super) fn read(&self) -> [(&'static str, u64); 3] {
        [("exported", &self.exported), ("dropped", &self.dropped), ("failed", &self.failed)]
            .map(|(result, count)| (result, count.load(Relaxed)))
    }
}

/// Decides which requests are recorded, and takes their spans.
pub struct Tracer {
    queue: Arc<ArrayQueue<Vec<Span>>>,
    counts: Arc<SpanCounts>,
    /// Ids below this are recorded.
    below: u64,
    stop: watch::Sender<bool>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Tracer {
    /// Starts the thread that sends.
    ///
    /// # Errors
    /// [`TracerError`] when nothing can be sent or the thread not be started.
    pub fn start(settings: TracerSettings, counts: Arc<SpanCounts>) -> Result<Self, TracerError> {
        let queue = Arc::new(ArrayQueue::new(settings.queue.max(1)));
        let (stop, stopped) = watch::channel(false);
        let below = (u128::from(settings.sample.points()) << RANDOM_BITS) / u128::from(BasisPoints::ALL.points());
        let exporter = Exporter::new(settings, queue.clone(), counts.clone(), stopped)?;
        let worker = std::thread::Builder::new().name("spans".to_owned()).spawn(move || exporter.run());
        let worker = Mutex::new(Some(worker.map_err(TracerError::Thread)?));
        Ok(Self { queue, counts, below: below as u64, stop, worker })
    }

    /// Whether a request is recorded: as its caller says, else by its own trace's id.
    pub fn records(&self, parent: Option<&TraceParent>, trace_id: [u64; 2]) -> bool {
        match parent {
            Some(parent) => parent.sampled,
            None => trace_id[1] & ((1 << RANDOM_BITS) - 1) < self.below,
        }
    }

    /// Takes the spans of one request. Never waits: when there is no room they are dropped and counted.
    pub fn submit(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.queue.push(spans).is_err() {
            self.counts.dropped.fetch_add(count, Relaxed);
        }
    }

    /// Sends what waits, within four seconds, and ends the thread. Blocks.
    pub fn close(&self) {
        let _ended = self.stop.send(true);
        if let Some(Err(_)) = self.worker.lock().take().map(JoinHandle::join) {
            ::tracing::error!("the thread that sends spans had panicked");
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Nobody waits for it here: a request's thread may be the last to let go.
        let _ended = self.stop.send(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(points: u16) -> Tracer {
        let settings = TracerSettings {
            url: "http://127.0.0.1:1/v1/traces".to_owned(),
            headers: Vec::new(),
            service_name: "switchback".to_owned(),
            instance: "here".to_owned(),
            sample: BasisPoints::new(points).unwrap(),
            queue: 2,
            batch: 1,
            delay: Duration::from_secs(3_600),
            timeout: Duration::from_millis(100),
        };
        Tracer::start(settings, Arc::default()).unwrap()
    }

    #[test]
    fn a_share_of_the_traces_is_recorded() {
        let recorded = |points| {
            let tracer = tracer(points);
            // As random as those of requests: a multiplier that spreads them over the whole range.
            let ids = (0..100_000u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            ids.filter(|id| tracer.records(None, [0, *id])).count()
        };
        assert_eq!((recorded(0), recorded(10_000)), (0, 100_000));
        assert!((900..1_100).contains(&recorded(100)), "{}", recorded(100));
    }

    #[test]
    fn callers_decide_for_what_they_call() {
        let parent = |sampled| TraceParent { trace_id: [1, 1], span_id: 1, sampled };
        assert!(tracer(0).records(Some(&parent(true)), [1, 1]));
        assert!(!tracer(10_000).records(Some(&parent(false)), [1, 1]));
    }
}
