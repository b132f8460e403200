//! What happened lately: a bounded history of the totals, for people and for plain limits.
//!
//! The tick feeds readings; they are cut into buckets of ten seconds and kept for fifteen minutes. Only what changed
//! takes room. Windows know no clock and no lock: whoever owns them brings both.

mod carry;
mod recorded;
mod series;

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

pub use self::carry::CarriedWindows;
pub use self::recorded::{BothTimes, Recorded, RecordedVersion};
pub use self::series::{Point, Series, VersionSeries};
use super::latency::{BUCKETS, SparseCounts, quantile};
use super::outcome::FailureKind;
use super::route_window::{RouteStats, RouteWindows};
use super::scope::ScopeTally;
use super::service::ServiceTally;
use super::totals::TotalsReading;
use crate::model::{ServiceName, TenantName, VersionName};

/// Length of a bucket in milliseconds.
pub(super) const BUCKET_MS: u64 = 10_000;

/// How many buckets are kept: fifteen minutes.
const KEPT: u64 = 90;

/// The histories of one service, by tenant.
type Histories = HashMap<Option<TenantName>, History>;

/// The history of every scope; the service without a tenant stands for all its scopes together.
pub struct Windows {
    histories: HashMap<ServiceName, Histories>,
    /// The last reading of each scope, by its id, to take differences from.
    last: HashMap<u64, (ServiceName, Vec<TotalsReading>)>,
    /// Entries of sparse latency counts that may be kept, 4 bytes each, and how many there are.
    max_entries: usize,
    entries: usize,
    routes: RouteWindows,
}

/// What one version of one scope did between two readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalsDelta {
    /// The version.
    pub version: VersionName,
    /// New requests that the version served or failed.
    pub requests: u64,
    /// Those that it failed, by [`FailureKind::index`].
    pub failures: [u64; FailureKind::COUNT],
    /// New requests whose client left first.
    pub client_aborts: u64,
    /// New requests that came to an end, whatever it was.
    pub ended: u64,
    /// By how much the number of requests on their way changed.
    pub in_flight: i64,
    /// New latencies.
    pub latency: SparseCounts,
}

/// What one version did within a window.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct VersionStats {
    /// The version.
    pub version: VersionName,
    /// Requests that the version served or failed.
    pub requests: u64,
    /// Those that it failed.
    pub failed: u64,
    /// Those that it failed, by [`FailureKind::index`].
    pub failures: [u64; FailureKind::COUNT],
    /// Requests whose client left first.
    pub client_aborts: u64,
    /// `failed / requests`, 0 to 1; 0 without requests.
    pub error_rate: f64,
    /// Percentiles of the time until the response header in seconds; none without latencies.
    pub p50_s: Option<f64>,
    /// See `p50_s`.
    pub p90_s: Option<f64>,
    /// See `p50_s`.
    pub p99_s: Option<f64>,
    /// Requests per second.
    pub rps: f64,
    /// Requests on their way when the scope was last read.
    pub in_flight: i64,
    /// How much time the counts cover, milliseconds: the window rounded up to whole buckets, or less when the version
    /// was not seen for that long.
    pub covered_ms: u64,
}

/// What each version did.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct History {
    versions: Vec<VersionHistory>,
}

/// What one version did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct VersionHistory {
    version: VersionName,
    since_ms: u64,
    in_flight: i64,
    cells: VecDeque<Cell>,
    total: Sum,
}

/// What happened within one bucket of time.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cell {
    bucket: u64,
    requests: u32,
    failures: [u32; FailureKind::COUNT],
    client_aborts: u32,
    latency: SparseCounts,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sum {
    requests: u64,
    failures: [u64; FailureKind::COUNT],
    client_aborts: u64,
    latency: Box<[u64]>,
}

impl Default for Windows {
    /// Latencies of tenants may take 32 MiB, those of routes 16 MiB.
    fn default() -> Self {
        Self::new(8 << 20)
    }
}

impl Windows {
    /// How long each of [`counts`](Self::counts) is, in seconds.
    pub const COUNT_SECONDS: u64 = BUCKET_MS / 1_000;

    /// `max_entries`: how many sparse latency counts of 4 bytes are kept for single tenants. Beyond it, new buckets of
    /// tenants have counts but no percentiles; those of the services always have both.
    pub fn new(max_entries: usize) -> Self {
        let routes = RouteWindows::default();
        Self { histories: HashMap::new(), last: HashMap::new(), max_entries, entries: 0, routes }
    }

    /// Takes a scope's totals in and returns what is new in them, versions without news left out.
    pub fn record(&mut self, now_ms: u64, scope: &ScopeTally) -> Vec<TotalsDelta> {
        self.record_reading(now_ms, scope.id(), scope.service(), scope.tenant(), scope.totals())
    }

    /// The same from a reading; `id` tells scopes apart.
    pub fn record_reading(
        &mut self,
        now_ms: u64,
        id: u64,
        service: &ServiceName,
        tenant: Option<&TenantName>,
        readings: Vec<TotalsReading>,
    ) -> Vec<TotalsDelta> {
        let before = self.last.get(&id).map_or(&[][..], |(_, l)| l);
        let since = |now: &TotalsReading| before.iter().find(|b| b.version == now.version);
        let news: Vec<_> =
            readings.iter().map(|r| TotalsDelta::between(since(r), r)).filter(|d| !d.is_empty()).collect();
        self.last.insert(id, (service.clone(), readings));
        for delta in &news {
            self.add(now_ms, service, None, delta);
            if tenant.is_some() {
                self.add(now_ms, service, tenant, delta);
            }
        }
        news
    }

    /// What each version did within the last `window_ms` (at most fifteen minutes; rounded up to whole buckets of ten
    /// seconds), or since it was first seen when no window is given. Without a tenant: the service over all tenants.
    pub fn stats(
        &self,
        service: &ServiceName,
        tenant: Option<&TenantName>,
        window_ms: Option<u64>,
        now_ms: u64,
    ) -> Vec<VersionStats> {
        let history = self.histories.get(service).and_then(|h| h.get(&tenant.cloned()));
        history.map_or_else(Vec::new, |h| h.stats(window_ms, now_ms))
    }

    /// Requests and failures of all versions of a service, over all tenants, by bucket of ten seconds: at which second it
    /// begins, on the axis of `now_ms`. The oldest first, without gaps, and without the bucket of now, which is not full.
    pub fn counts(&self, service: &ServiceName, now_ms: u64) -> Vec<(u64, u64, u64)> {
        let Some(history) = self.histories.get(service).and_then(|h| h.get(&None)) else { return Vec::new() };
        let now = now_ms / BUCKET_MS;
        let cells = || {
            history
                .versions
                .iter()
                .flat_map(|v| &v.cells)
                .filter(|c| (now.saturating_sub(KEPT)..now).contains(&c.bucket))
        };
        let Some(first) = cells().map(|c| c.bucket).min() else { return Vec::new() };
        let mut counts: Vec<_> = (first..now).map(|bucket| (bucket * BUCKET_MS / 1_000, 0, 0)).collect();
        for cell in cells() {
            let count = &mut counts[(cell.bucket - first) as usize];
            count.1 += u64::from(cell.requests);
            count.2 += cell.failures.iter().map(|n| u64::from(*n)).sum::<u64>();
        }
        counts
    }

    /// Takes in what is new in a service's routes. Once a second is enough; whoever asks for them may do it before.
    pub fn record_routes(&mut self, now_ms: u64, service: &ServiceTally) {
        self.routes.record(now_ms, service.service(), service.routes());
    }

    /// The routes of a service, as ids for [`route_stats`](Self::route_stats).
    pub fn routes(&self, service: &ServiceName) -> Vec<u64> {
        self.routes.ids(service)
    }

    /// The id of a route by its name.
    pub fn route_id(&self, service: &ServiceName, name: &str) -> Option<u64> {
        self.routes.id_of(service, name)
    }

    /// What each version did for one route, as [`stats`](Self::stats) tells it of tenants; none when it lost its place.
    pub fn route_stats(
        &self,
        service: &ServiceName,
        route: u64,
        window_ms: Option<u64>,
        now_ms: u64,
    ) -> Option<RouteStats> {
        self.routes.stats(service, route, window_ms, now_ms)
    }

    /// Forgets a scope that was let go.
    pub fn forget(&mut self, scope: &ScopeTally) {
        self.last.remove(&scope.id());
        let key = scope.tenant().cloned();
        if let (Some(_), Some(histories)) = (&key, self.histories.get_mut(scope.service())) {
            histories.remove(&key);
            self.count_entries();
        }
    }

    /// Forgets a version that was removed.
    pub fn forget_version(&mut self, service: &ServiceName, version: &VersionName) {
        for history in self.histories.get_mut(service).into_iter().flat_map(HashMap::values_mut) {
            history.versions.retain(|v| v.version != *version);
        }
        for (_, readings) in self.last.values_mut().filter(|(s, _)| s == service) {
            readings.retain(|r| r.version != *version);
        }
        self.count_entries();
    }

    /// Forgets a service that was removed.
    pub fn forget_service(&mut self, service: &ServiceName) {
        self.histories.remove(service);
        self.last.retain(|_, (s, _)| s != service);
        self.routes.forget_service(service);
        self.count_entries();
    }

    /// Frees what is older than fifteen minutes in scopes that nobody touches any more. Once a minute is enough.
    pub fn sweep(&mut self, now_ms: u64) {
        for version in self.histories.values_mut().flat_map(HashMap::values_mut).flat_map(|h| &mut h.versions) {
            version.drop_old(now_ms / BUCKET_MS);
        }
        self.routes.sweep(now_ms);
        self.count_entries();
    }

    fn add(&mut self, now_ms: u64, service: &ServiceName, tenant: Option<&TenantName>, delta: &TotalsDelta) {
        let detailed = tenant.is_none() || self.entries < self.max_entries;
        let histories = self.histories.entry(service.clone()).or_default();
        let history = histories.entry(tenant.cloned()).or_default();
        let version = history.version(&delta.version, now_ms);
        let before = version.entries();
        version.add(now_ms / BUCKET_MS, delta, detailed);
        self.entries = (self.entries + version.entries()).saturating_sub(before);
    }

    fn count_entries(&mut self) {
        let versions = self.histories.values().flat_map(HashMap::values).flat_map(|h| &h.versions);
        self.entries = versions.map(VersionHistory::entries).sum();
    }
}

impl TotalsDelta {
    pub(super) fn between(before: Option<&TotalsReading>, now: &TotalsReading) -> Self {
        // A version that was forgotten and came back begins at zero again.
        let before = before.filter(|b| b.ended() <= now.ended());
        let since = |pick: &dyn Fn(&TotalsReading) -> u64| pick(now).saturating_sub(before.map_or(0, pick));
        Self {
            version: now.version.clone(),
            requests: since(&|r| r.requests),
            failures: std::array::from_fn(|i| since(&|r| r.failures[i])),
            client_aborts: since(&|r| r.client_aborts),
            ended: since(&TotalsReading::ended),
            in_flight: now.in_flight - before.map_or(0, |b| b.in_flight),
            latency: SparseCounts::between(before.map_or(&[], |b| &b.latency), &now.latency),
        }
    }

    /// Failures of every kind.
    pub fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    fn is_empty(&self) -> bool {
        self.ended == 0 && self.in_flight == 0 && self.latency.size() == 0
    }
}

impl History {
    /// By version, with the counts of latencies by bucket.
    pub(super) fn detailed(&self, window_ms: Option<u64>, now_ms: u64) -> Vec<(VersionStats, Box<[u64]>)> {
        self.versions.iter().map(|v| v.detailed(window_ms, now_ms)).collect()
    }

    /// By version, in order.
    pub(super) fn stats(&self, window_ms: Option<u64>, now_ms: u64) -> Vec<VersionStats> {
        let mut all: Vec<_> = self.versions.iter().map(|v| v.stats(window_ms, now_ms)).collect();
        all.sort_by(|a, b| a.version.cmp(&b.version));
        all
    }

    /// Forgets the versions for which `stays` does not hold.
    pub(super) fn retain(&mut self, stays: impl Fn(&VersionName) -> bool) {
        self.versions.retain(|v| stays(&v.version));
    }

    /// Frees what is older than fifteen minutes.
    pub(super) fn drop_old(&mut self, now_ms: u64) {
        self.versions.iter_mut().for_each(|v| v.drop_old(now_ms / BUCKET_MS));
    }

    /// How many entries its latencies take.
    pub(super) fn entries(&self) -> usize {
        self.versions.iter().map(VersionHistory::entries).sum()
    }

    pub(super) fn version(&mut self, version: &VersionName, now_ms: u64) -> &mut VersionHistory {
        let place = self.versions.iter().position(|v| v.version == *version).unwrap_or_else(|| {
            self.versions.push(VersionHistory::new(version.clone(), now_ms));
            self.versions.len() - 1
        });
        &mut self.versions[place]
    }
}

impl VersionHistory {
    fn new(version: VersionName, now_ms: u64) -> Self {
        Self { version, since_ms: now_ms, in_flight: 0, cells: VecDeque::new(), total: Sum::new() }
    }

    pub(super) fn add(&mut self, bucket: u64, delta: &TotalsDelta, detailed: bool) {
        self.drop_old(bucket);
        self.in_flight += delta.in_flight;
        self.total.add_delta(delta);
        // Time may stand still but not run backwards; what comes late goes into the newest bucket.
        if self.cells.back().is_none_or(|c| c.bucket < bucket) {
            self.cells.push_back(Cell::new(bucket));
        }
        if let Some(cell) = self.cells.back_mut() {
            cell.add(delta, detailed);
        }
    }

    fn drop_old(&mut self, bucket: u64) {
        while self.cells.front().is_some_and(|c| c.bucket + KEPT <= bucket) {
            self.cells.pop_front();
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.cells.iter().map(|c| c.latency.size()).sum()
    }

    fn stats(&self, window_ms: Option<u64>, now_ms: u64) -> VersionStats {
        self.detailed(window_ms, now_ms).0
    }

    /// With the counts of latencies by bucket.
    fn detailed(&self, window_ms: Option<u64>, now_ms: u64) -> (VersionStats, Box<[u64]>) {
        let Some(window_ms) = window_ms else {
            return (self.describe(&self.total, self.since_ms, now_ms), self.total.latency.clone());
        };
        let first = (now_ms.saturating_sub(window_ms) / BUCKET_MS).max((now_ms / BUCKET_MS).saturating_sub(KEPT - 1));
        let mut sum = Sum::new();
        self.cells.iter().filter(|c| c.bucket >= first).for_each(|c| sum.add_cell(c));
        (self.describe(&sum, (first * BUCKET_MS).max(self.since_ms), now_ms), sum.latency)
    }

    fn describe(&self, sum: &Sum, from_ms: u64, now_ms: u64) -> VersionStats {
        let failed: u64 = sum.failures.iter().sum();
        let covered_ms = now_ms.saturating_sub(from_ms);
        // In the first moments a rate per second would be a wild guess; a second is the least to divide by.
        let seconds = covered_ms.max(1_000) as f64 / 1e3;
        VersionStats {
            version: self.version.clone(),
            requests: sum.requests,
            failed,
            failures: sum.failures,
            client_aborts: sum.client_aborts,
            error_rate: if sum.requests == 0 { 0.0 } else { failed as f64 / sum.requests as f64 },
            p50_s: quantile(&sum.latency, 0.5),
            p90_s: quantile(&sum.latency, 0.9),
            p99_s: quantile(&sum.latency, 0.99),
            rps: sum.requests as f64 / seconds,
            in_flight: self.in_flight.max(0),
            covered_ms,
        }
    }
}

impl Cell {
    fn new(bucket: u64) -> Self {
        Self { bucket, requests: 0, failures: [0; 5], client_aborts: 0, latency: SparseCounts::default() }
    }

    fn add(&mut self, delta: &TotalsDelta, detailed: bool) {
        let add = |sum: &mut u32, n: u64| *sum = sum.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        add(&mut self.requests, delta.requests);
        add(&mut self.client_aborts, delta.client_aborts);
        self.failures.iter_mut().zip(delta.failures).for_each(|(sum, n)| add(sum, n));
        if detailed {
            self.latency.merge(&delta.latency);
        }
    }
}

impl Sum {
    fn new() -> Self {
        Self { requests: 0, failures: [0; 5], client_aborts: 0, latency: vec![0; BUCKETS].into() }
    }

    fn add_delta(&mut self, delta: &TotalsDelta) {
        self.requests += delta.requests;
        self.client_aborts += delta.client_aborts;
        self.failures.iter_mut().zip(delta.failures).for_each(|(sum, n)| *sum += n);
        delta.latency.add_to(&mut self.latency);
    }

    fn add_cell(&mut self, cell: &Cell) {
        self.requests += u64::from(cell.requests);
        self.client_aborts += u64::from(cell.client_aborts);
        self.failures.iter_mut().zip(cell.failures).for_each(|(sum, n)| *sum += u64::from(n));
        cell.latency.add_to(&mut self.latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::latency::{bucket_of, upper_edge};

    pub(super) fn service() -> ServiceName {
        ServiceName::new("accounting").unwrap()
    }

    pub(super) fn reading(requests: u64, failed: u64, latency_us: u64) -> TotalsReading {
        let mut latency = vec![0; BUCKETS];
        latency[bucket_of(latency_us)] = requests as u32;
        TotalsReading {
            version: VersionName::new("1").unwrap(),
            requests,
            failures: [failed, 0, 0, 0, 0],
            client_aborts: 0,
            refused: 0,
            abandoned: 0,
            in_flight: 1,
            latency: latency.into(),
        }
    }

    #[test]
    fn a_window_forgets_and_the_total_does_not() {
        let (mut windows, service) = (Windows::default(), service());
        let tenant = TenantName::new("acme").unwrap();
        for minute in 0..30u64 {
            let now = reading((minute + 1) * 60, minute + 1, 10_000);
            windows.record_reading(minute * 60_000, 7, &service, Some(&tenant), vec![now]);
        }
        let now_ms = 29 * 60_000 + 5_000;
        let stats = |tenant, window| windows.stats(&service, tenant, window, now_ms).remove(0);
        let last = stats(Some(&tenant), Some(50_000));
        assert_eq!((last.requests, last.failed, last.covered_ms), (60, 1, 55_000), "whole buckets");
        assert_eq!(stats(Some(&tenant), Some(60_000)).requests, 120);
        assert_eq!(stats(Some(&tenant), Some(3_600_000)).requests, 15 * 60);
        let total = stats(Some(&tenant), None);
        assert_eq!((total.requests, total.failed, total.in_flight), (1_800, 30, 1));
        assert_eq!(stats(None, None), total, "the service is the sum of its scopes");
        assert_eq!(last.p99_s, Some(upper_edge(bucket_of(10_000))));
        assert!((last.rps - 60.0 / 55.0).abs() < 1e-9, "{}", last.rps);
        assert!((last.error_rate - 1.0 / 60.0).abs() < 1e-12);
    }

    #[test]
    fn idle_scopes_shrink_and_the_budget_holds() {
        let (mut windows, service) = (Windows::new(3), service());
        for id in 0..5u64 {
            let tenant = TenantName::new(&format!("t{id}")).unwrap();
            windows.record_reading(1_000, id, &service, Some(&tenant), vec![reading(5, 0, 1_000 << id)]);
        }
        let of = |windows: &Windows, id| {
            windows.stats(&service, Some(&TenantName::new(id).unwrap()), Some(60_000), 2_000).remove(0)
        };
        assert!(of(&windows, "t0").p50_s.is_some());
        assert_eq!((of(&windows, "t4").requests, of(&windows, "t4").p50_s), (5, None));
        windows.sweep(1_000_000_000);
        assert_eq!(windows.entries, 0);
        assert_eq!(windows.stats(&service, None, Some(900_000), 1_000_000_000).remove(0).requests, 0);
        assert_eq!(windows.stats(&service, None, None, 1_000_000_000).remove(0).requests, 25);
    }

    #[test]
    fn nothing_new_takes_no_room() {
        let (mut windows, service) = (Windows::default(), service());
        assert_eq!(windows.record_reading(0, 1, &service, None, vec![reading(5, 1, 1_000)]).len(), 1);
        assert!(windows.record_reading(20_000, 1, &service, None, vec![reading(5, 1, 1_000)]).is_empty());
        let back = windows.record_reading(30_000, 1, &service, None, vec![reading(2, 0, 1_000)]);
        assert_eq!(back[0].requests, 2, "a version that came back begins at zero");
    }
}
