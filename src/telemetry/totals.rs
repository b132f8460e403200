//! Everything that came to one version within one scope, however it was chosen: for display, cuts and plain limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::cells::VersionMetrics;
use super::latency::LatencyHistogram;
use super::outcome::{FailureKind, Fault, Outcome};
use crate::model::VersionName;

/// Cumulative counts of one version in one scope. Adding here also adds to the version's metrics.
pub struct VersionTotals {
    version: VersionName,
    metrics: Arc<VersionMetrics>,
    in_flight: AtomicI64,
    requests: AtomicU64,
    failures: [AtomicU64; FailureKind::COUNT],
    client_aborts: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
    latency: LatencyHistogram,
}

impl VersionTotals {
    pub(super) fn new(version: VersionName, metrics: Arc<VersionMetrics>) -> Self {
        Self {
            version,
            metrics,
            in_flight: AtomicI64::default(),
            requests: AtomicU64::default(),
            failures: Default::default(),
            client_aborts: AtomicU64::default(),
            refused: AtomicU64::default(),
            abandoned: AtomicU64::default(),
            latency: LatencyHistogram::default(),
        }
    }

    /// The version.
    pub fn version(&self) -> &VersionName {
        &self.version
    }

    pub(super) fn began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.metrics.began();
    }

    pub(super) fn answered(&self, latency_us: u64) {
        self.latency.record(latency_us);
        self.metrics.answered(latency_us);
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        self.in_flight.fetch_sub(1, Relaxed);
        match outcome.fault {
            Fault::Served => _ = self.requests.fetch_add(1, Relaxed),
            Fault::Backend(kind) => {
                self.requests.fetch_add(1, Relaxed);
                self.failures[kind.index()].fetch_add(1, Relaxed);
            }
            Fault::ClientLeft => _ = self.client_aborts.fetch_add(1, Relaxed),
            Fault::Refused | Fault::Proxy => _ = self.refused.fetch_add(1, Relaxed),
        }
        self.metrics.ended(outcome);
    }

    pub(super) fn abandoned(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.abandoned.fetch_add(1, Relaxed);
        self.metrics.abandoned();
    }

    /// The numbers now. They are read one after another while requests go on, so failures are read before requests:
    /// a failure is never seen without its request.
    pub fn read(&self) -> TotalsReading {
        let failures = std::array::from_fn(|i| self.failures[i].load(Relaxed));
        TotalsReading {
            version: self.version.clone(),
            failures,
            requests: self.requests.load(Relaxed).max(failures.iter().sum()),
            client_aborts: self.client_aborts.load(Relaxed),
            refused: self.refused.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            latency: self.latency.read(),
        }
    }
}

/// Cumulative numbers of one version in one scope at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalsReading {
    /// The version.
    pub version: VersionName,
    /// Requests in which the version had its say: served or failed by the backend.
    pub requests: u64,
    /// Those that the backend failed, by [`FailureKind::index`].
    pub failures: [u64; FailureKind::COUNT],
    /// Requests whose client left first. Not in `requests`.
    pub client_aborts: u64,
    /// Requests that the proxy refused or failed itself after a version was chosen. Not in `requests`.
    pub refused: u64,
    /// Requests that were dropped without an end, such as by a panic. Not in `requests`.
    pub abandoned: u64,
    /// Requests on their way now.
    pub in_flight: i64,
    /// Latencies until the response header, counts per bucket of [`super::latency`]. They wrap at 2^32.
    pub latency: Box<[u32]>,
}

impl TotalsReading {
    /// Failures of every kind.
    pub fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Requests that came to an end, whatever it was.
    pub fn ended(&self) -> u64 {
        self.requests + self.client_aborts + self.refused + self.abandoned
    }
}
