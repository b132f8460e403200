//! Reads our own counters when somebody scrapes, so that the request path never meets the metrics library.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily};

use super::cells::VersionMetrics;
use super::detours::Rescue;
use super::families::{self as family, Family};
use super::metrics::{State, lock};
use super::outcome::{CODE_CLASSES, FailureKind};
use super::sessions::SessionResult;
use super::shadow::ShadowResult;
use super::streams::StreamClose;
use crate::model::{ServiceName, VersionName};

/// The one collector of the registry.
pub(super) struct StateCollector {
    state: Arc<State>,
    descs: Vec<Desc>,
}

/// The samples of the families that every version has.
#[derive(Default)]
struct VersionSamples {
    requests: Vec<Metric>,
    failures: Vec<Metric>,
    durations: Vec<Metric>,
    in_flight: Vec<Metric>,
    aborts: Vec<Metric>,
    shadow: Vec<Metric>,
    streams_open: Vec<Metric>,
    streams_closed: Vec<Metric>,
    sessions: Vec<Metric>,
}

impl StateCollector {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, descs: family::ALL.iter().filter_map(|f| f.desc()).collect() }
    }
}

impl Collector for StateCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut all = self.versions();
        all.extend(self.detours());
        all.extend(self.tenants());
        all.extend(self.services());
        all.extend(self.guarded());
        all.extend(self.process());
        all.retain(|family| !family.get_metric().is_empty());
        all
    }
}

impl StateCollector {
    fn versions(&self) -> Vec<MetricFamily> {
        let mut samples = VersionSamples::default();
        for service in self.state.tallies.services() {
            let mut versions = Vec::clone(&service.cells().list());
            versions.sort_by(|a, b| a.0.cmp(&b.0));
            versions.iter().for_each(|(version, cells)| samples.add(service.service(), version, cells));
            for (result, n) in service.sessions().read().iter().flat_map(|counts| SessionResult::ALL.iter().zip(counts))
            {
                let labels = [service.service().as_str(), result.as_str()];
                samples.sessions.push(family::SESSIONS.sample(&labels, *n as f64));
            }
        }
        vec![
            family::REQUESTS.with(samples.requests),
            family::FAILURES.with(samples.failures),
            family::DURATION.with(samples.durations),
            family::IN_FLIGHT.with(samples.in_flight),
            family::ABORTS.with(samples.aborts),
            family::SHADOW.with(samples.shadow),
            family::STREAMS_OPEN.with(samples.streams_open),
            family::STREAMS_CLOSED.with(samples.streams_closed),
            family::SESSIONS.with(samples.sessions),
        ]
    }

    fn detours(&self) -> Vec<MetricFamily> {
        let (mut rescues, mut skews) = (Vec::new(), Vec::new());
        for service in self.state.tallies.services() {
            for (from, to, counts) in service.detours().iter() {
                let labels = |result| [service.service().as_str(), from.as_str(), to.as_str(), result];
                for result in Rescue::ALL {
                    rescues.push(family::RESCUES.sample(&labels(result.as_str()), counts.rescues(result) as f64));
                }
                let (found, missing) = counts.skews();
                skews.push(family::SKEWS.sample(&labels("found"), found as f64));
                skews.push(family::SKEWS.sample(&labels("missing"), missing as f64));
            }
        }
        vec![family::RESCUES.with(rescues), family::SKEWS.with(skews)]
    }

    fn tenants(&self) -> Vec<MetricFamily> {
        let top = lock(&self.state.tenants);
        let (mut requests, mut failures) = (Vec::new(), Vec::new());
        let mut services: Vec<_> = top.services().collect();
        services.sort();
        for service in services {
            for series in top.series(service) {
                let labels = [service.as_str(), series.tenant.as_str(), series.version.as_str()];
                requests.push(family::TENANT_REQUESTS.sample(&labels, series.requests as f64));
                failures.push(family::TENANT_FAILURES.sample(&labels, series.failures as f64));
            }
        }
        vec![family::TENANT_REQUESTS.with(requests), family::TENANT_FAILURES.with(failures)]
    }

    fn services(&self) -> Vec<MetricFamily> {
        let splits = lock(&self.state.splits);
        let weights = splits.iter().flat_map(|(s, w)| w.iter().map(move |(v, share)| (s, v, *share)));
        let split = weights.map(|(s, v, share)| family::SPLIT.sample(&[s.as_str(), v.as_str()], share)).collect();
        let rollbacks = |((service, reason), n): (&(ServiceName, &'static str), &f64)| {
            family::ROLLBACKS.sample(&[service.as_str(), reason], *n)
        };
        let up = |((s, v, e), up): (&(ServiceName, VersionName, String), &bool)| {
            family::ENDPOINT_UP.sample(&[s.as_str(), v.as_str(), e], f64::from(u8::from(*up)))
        };
        let baseline = |(service, version): (&ServiceName, &VersionName)| {
            family::BASELINE.sample(&[service.as_str(), version.as_str()], 1.0)
        };
        vec![
            family::SPLIT.with(split),
            family::BASELINE.with(lock(&self.state.baselines).iter().map(baseline).collect()),
            family::ROLLBACKS.with(lock(&self.state.rollbacks).iter().map(rollbacks).collect()),
            family::ENDPOINT_UP.with(lock(&self.state.endpoints).iter().map(up).collect()),
        ]
    }

    fn guarded(&self) -> Vec<MetricFamily> {
        let guarded = lock(&self.state.guarded);
        let (mut evidence, mut thresholds, mut split_off) = (Vec::new(), Vec::new(), Vec::new());
        for (service, seen) in guarded.iter() {
            let service = service.as_str();
            evidence
                .extend(seen.evidence.iter().map(|(signal, log)| family::EVIDENCE.sample(&[service, signal], *log)));
            thresholds.push(family::EVIDENCE_THRESHOLD.sample(&[service], seen.threshold));
            split_off.push(family::SPLIT_OFF.sample(&[service], f64::from(u8::from(seen.split_off))));
        }
        vec![
            family::EVIDENCE.with(evidence),
            family::EVIDENCE_THRESHOLD.with(thresholds),
            family::SPLIT_OFF.with(split_off),
        ]
    }

    fn process(&self) -> Vec<MetricFamily> {
        let state = &self.state;
        let single = |family: &Family, value: f64| family.with(vec![family.sample(&[], value)]);
        let reload =
            |result, n: &std::sync::atomic::AtomicU64| family::RELOADS.sample(&[result], n.load(Relaxed) as f64);
        let refused = state.refused.list();
        let refused = refused.iter().map(|(reason, n)| family::REFUSED.sample(&[reason], *n as f64)).collect();
        let told = lock(&state.notifications);
        let told = told.iter().map(|((target, result), n)| family::NOTIFICATIONS.sample(&[target, result], *n as f64));
        let certificates = lock(&state.certificates);
        let ends = certificates.iter().map(|(file, ends_s)| family::CERTIFICATE_EXPIRY.sample(&[file], *ends_s as f64));
        let read = |result, n: &std::sync::atomic::AtomicU64| {
            family::CERTIFICATE_RELOADS.sample(&[result], n.load(Relaxed) as f64)
        };
        vec![
            family::CERTIFICATE_EXPIRY.with(ends.collect()),
            family::CERTIFICATE_RELOADS
                .with(vec![read("success", &state.certificates_ok), read("failure", &state.certificates_failed)]),
            family::RELOADS.with(vec![reload("success", &state.reloads_ok), reload("failure", &state.reloads_failed)]),
            single(&family::REVISION, state.revision.load(Relaxed) as f64),
            single(&family::REFUSED_STATES, state.refused_states.load(Relaxed) as f64),
            single(&family::MEMBERS, state.members.load(Relaxed) as f64),
            single(&family::LEADER, f64::from(u8::from(state.leads.load(Relaxed)))),
            single(&family::STORE_UP, f64::from(u8::from(state.store_up.load(Relaxed)))),
            single(&family::CONNECTIONS, state.open_connections.load(Relaxed).max(0) as f64),
            family::REFUSED.with(refused),
            family::NOTIFICATIONS.with(told.collect()),
            single(&family::LOG_DROPPED, state.log_dropped.load(Relaxed) as f64),
            family::SPANS.with(state.spans.read().iter().map(|(r, n)| family::SPANS.sample(&[r], *n as f64)).collect()),
            family::BUILD_INFO.with(vec![family::BUILD_INFO.sample(&[env!("CARGO_PKG_VERSION")], 1.0)]),
        ]
    }
}

impl VersionSamples {
    fn add(&mut self, service: &ServiceName, version: &VersionName, cells: &VersionMetrics) {
        let (service, version) = (service.as_str(), version.as_str());
        let sums = cells.sums();
        for (class, n) in CODE_CLASSES.iter().zip(sums.requests) {
            // Classes that never came need no series; 2xx and 5xx always exist, so that rates begin at zero.
            if n > 0 || ["2xx", "5xx"].contains(class) {
                self.requests.push(family::REQUESTS.sample(&[service, version, class], n as f64));
            }
        }
        for (kind, n) in FailureKind::ALL.iter().zip(sums.failures) {
            self.failures.push(family::FAILURES.sample(&[service, version, kind.as_str()], n as f64));
        }
        let sum_s = sums.duration_sum_us as f64 / 1e6;
        self.durations.push(family::DURATION.histogram(&[service, version], &sums.durations, sum_s));
        self.in_flight.push(family::IN_FLIGHT.sample(&[service, version], sums.in_flight as f64));
        self.aborts.push(family::ABORTS.sample(&[service, version], sums.client_aborts as f64));
        if let Some(streams) = cells.known_streams() {
            self.streams_open.push(family::STREAMS_OPEN.sample(&[service, version], streams.open().max(0) as f64));
            for why in StreamClose::ALL {
                let labels = [service, version, why.as_str()];
                self.streams_closed.push(family::STREAMS_CLOSED.sample(&labels, streams.closed(why) as f64));
            }
        }
        let Some(shadow) = cells.known_shadow() else { return };
        for result in ShadowResult::ALL {
            let n = shadow.get(result) as f64;
            self.shadow.push(family::SHADOW.sample(&[service, version, result.as_str()], n));
        }
    }
}
