//! The counters behind the metrics of one version: what a scrape reads and every request adds to.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::outcome::{CODE_CLASSES, FailureKind, Fault, Outcome, code_index};
use super::shadow::ShadowCounts;
use super::streams::StreamCounts;
use crate::model::{ServiceName, VersionName};

/// Upper bounds of the exported duration buckets, microseconds: 1 ms to 60 s.
pub(super) const DURATION_BOUNDS_US: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Every core adds to the counts of a version, so they are split into stripes that threads share out among themselves;
/// one stripe would travel between the caches with every request.
const STRIPES: usize = 8;

/// Cumulative counts of one version of a service over all its tenants.
#[derive(Default)]
pub struct VersionMetrics {
    stripes: [Stripe; STRIPES],
    shadow: OnceLock<Arc<ShadowCounts>>,
    streams: OnceLock<Arc<StreamCounts>>,
}

/// On cache lines of its own. A request may begin on one thread and end on another, so that single stripes mean
/// nothing and `in_flight` may be negative; only sums count.
#[repr(align(128))]
#[derive(Default)]
struct Stripe {
    requests: [AtomicU64; CODE_CLASSES.len()],
    failures: [AtomicU64; FailureKind::COUNT],
    client_aborts: AtomicU64,
    in_flight: AtomicI64,
    durations: [AtomicU64; DURATION_BOUNDS_US.len() + 1],
    duration_sum_us: AtomicU64,
}

/// The sums over all stripes at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VersionSums {
    pub(super) requests: [u64; CODE_CLASSES.len()],
    pub(super) failures: [u64; FailureKind::COUNT],
    pub(super) client_aborts: u64,
    pub(super) in_flight: i64,
    /// One count per bound and one for everything slower; not cumulated over the bounds.
    pub(super) durations: [u64; DURATION_BOUNDS_US.len() + 1],
    pub(super) duration_sum_us: u64,
}

thread_local! {
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Relaxed) % STRIPES;
}

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

impl VersionMetrics {
    /// Requests on their way now.
    pub fn in_flight(&self) -> i64 {
        self.sums().in_flight
    }

    /// Requests that came to an end, whatever it was.
    pub fn requests(&self) -> u64 {
        self.sums().requests.iter().sum()
    }

    /// Requests in which the backend failed.
    pub fn failures(&self) -> u64 {
        self.sums().failures.iter().sum()
    }

    /// Where copies that it gets as a shadow are counted; from the first call on their series exist, with zeros.
    pub fn shadow(&self) -> &Arc<ShadowCounts> {
        self.shadow.get_or_init(Arc::default)
    }

    /// The same, if it was ever a shadow.
    pub(super) fn known_shadow(&self) -> Option<&ShadowCounts> {
        self.shadow.get().map(|counts| &**counts)
    }

    /// Where its streams are counted; from the first call on their series exist, with zeros.
    pub fn streams(&self) -> &Arc<StreamCounts> {
        self.streams.get_or_init(Arc::default)
    }

    /// The same, if it ever had a stream.
    pub(super) fn known_streams(&self) -> Option<&StreamCounts> {
        self.streams.get().map(|counts| &**counts)
    }

    pub(super) fn sums(&self) -> VersionSums {
        let mut sums = VersionSums::default();
        let add = |sums: &mut [u64], counts: &[AtomicU64]| {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
        };
        for stripe in &self.stripes {
            add(&mut sums.requests, &stripe.requests);
            add(&mut sums.failures, &stripe.failures);
            add(&mut sums.durations, &stripe.durations);
            sums.client_aborts += stripe.client_aborts.load(Relaxed);
            sums.in_flight += stripe.in_flight.load(Relaxed);
            sums.duration_sum_us += stripe.duration_sum_us.load(Relaxed);
        }
        // Stripes are read one after another, so a request that changes threads in between may be missed.
        sums.in_flight = sums.in_flight.max(0);
        sums
    }

    pub(super) fn began(&self) {
        self.stripe().in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn answered(&self, latency_us: u64) {
        let stripe = self.stripe();
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < latency_us);
        stripe.durations[bucket].fetch_add(1, Relaxed);
        stripe.duration_sum_us.fetch_add(latency_us, Relaxed);
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        let stripe = self.stripe();
        stripe.in_flight.fetch_sub(1, Relaxed);
        stripe.requests[code_index(outcome.status)].fetch_add(1, Relaxed);
        match outcome.fault {
            Fault::Backend(kind) => _ = stripe.failures[kind.index()].fetch_add(1, Relaxed),
            Fault::ClientLeft => _ = stripe.client_aborts.fetch_add(1, Relaxed),
            Fault::Served | Fault::Refused | Fault::Proxy => {}
        }
    }

    pub(super) fn abandoned(&self) {
        let stripe = self.stripe();
        stripe.in_flight.fetch_sub(1, Relaxed);
        stripe.requests[code_index(0)].fetch_add(1, Relaxed);
    }

    fn stripe(&self) -> &Stripe {
        // While a thread ends its number is gone; any stripe will do then.
        &self.stripes[STRIPE.try_with(|n| *n).unwrap_or(0)]
    }
}

/// The cells of one service by version: a short list that is replaced as a whole when a version comes or goes.
pub(super) struct ServiceCells {
    pub(super) service: ServiceName,
    versions: ArcSwap<Vec<(VersionName, Arc<VersionMetrics>)>>,
}

impl ServiceCells {
    pub(super) fn new(service: ServiceName) -> Self {
        Self { service, versions: ArcSwap::default() }
    }

    /// The cells of a version, made on first use.
    pub(super) fn version(&self, version: &VersionName) -> Arc<VersionMetrics> {
        let find = |list: &[(VersionName, Arc<VersionMetrics>)]| {
            list.iter().find(|(v, _)| v == version).map(|(_, cells)| cells.clone())
        };
        if let Some(cells) = find(&self.versions.load()) {
            return cells;
        }
        let fresh = Arc::new(VersionMetrics::default());
        let before = self.versions.rcu(|list| {
            let mut list = Vec::clone(list);
            if find(&list).is_none() {
                list.push((version.clone(), fresh.clone()));
            }
            list
        });
        find(&before).unwrap_or(fresh)
    }

    pub(super) fn forget(&self, version: &VersionName) {
        self.versions.rcu(|list| list.iter().filter(|(v, _)| v != version).cloned().collect::<Vec<_>>());
    }

    pub(super) fn list(&self) -> Arc<Vec<(VersionName, Arc<VersionMetrics>)>> {
        self.versions.load_full()
    }
}
