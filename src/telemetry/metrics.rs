//! Everything under `/metrics`: where other rooms set what only they know, and the text that a scrape gets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus::{Registry, TextEncoder};

use super::cells::VersionMetrics;
use super::collector::StateCollector;
use super::tally::Tallies;
use super::top_tenants::TopTenants;
use super::tracer::SpanCounts;
use super::window::TotalsDelta;
use crate::model::{ServiceName, TenantName, VersionName, Weights};

/// The label values of `rollbacks_total{reason}`. Another cause is counted as `other`.
const CAUSES: [&str; 14] = [
    "errors",
    "slow",
    "very_slow",
    "client_errors",
    "max_error_rate",
    "max_p99",
    "health",
    "fleet",
    "person",
    "tenants",
    "blast_radius",
    "insufficient",
    "undo",
    "other",
];

/// Reasons of `refused_requests_total` that are told apart; more are counted as `other`.
const MAX_REASONS: usize = 32;

/// The metrics of the process.
pub struct Metrics {
    registry: Registry,
    state: Arc<State>,
}

/// What the collector reads besides the tallies. The locks are taken by the tick, the writer and the scrape, never by
/// a request.
pub(super) struct State {
    pub(super) tallies: Arc<Tallies>,
    pub(super) tenants: Mutex<TopTenants>,
    pub(super) splits: Mutex<BTreeMap<ServiceName, Vec<(VersionName, f64)>>>,
    pub(super) baselines: Mutex<BTreeMap<ServiceName, VersionName>>,
    pub(super) rollbacks: Mutex<BTreeMap<(ServiceName, &'static str), f64>>,
    pub(super) guarded: Mutex<BTreeMap<ServiceName, Guarded>>,
    pub(super) endpoints: Mutex<BTreeMap<(ServiceName, VersionName, String), bool>>,
    pub(super) revision: AtomicU64,
    pub(super) refused_states: AtomicU64,
    pub(super) members: AtomicU64,
    pub(super) leads: AtomicBool,
    pub(super) reloads_ok: AtomicU64,
    pub(super) reloads_failed: AtomicU64,
    pub(super) certificates: Mutex<BTreeMap<String, i64>>,
    pub(super) certificates_ok: AtomicU64,
    pub(super) certificates_failed: AtomicU64,
    pub(super) store_up: AtomicBool,
    pub(super) open_connections: Arc<AtomicI64>,
    pub(super) refused: Reasons,
    pub(super) log_dropped: Arc<AtomicU64>,
    pub(super) spans: Arc<SpanCounts>,
    pub(super) notifications: Mutex<BTreeMap<(String, &'static str), u64>>,
}

/// What the guard sees of a service in which versions are compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guarded {
    /// Evidence of each signal against the canary, as a natural logarithm, in the scope that has most.
    pub evidence: BTreeMap<&'static str, f64>,
    /// The evidence at which traffic is taken back, as a natural logarithm.
    pub threshold: f64,
    /// Whether requests are not split as configured.
    pub split_off: bool,
}

/// Counts by reason, without a lock: reasons take places in the order in which they come.
#[derive(Default)]
pub(super) struct Reasons {
    places: [(OnceLock<&'static str>, AtomicU64); MAX_REASONS],
    other: AtomicU64,
}

impl Metrics {
    /// Metrics over these tallies; `shown_tenants`: how many of the busiest and how many of the worst tenants have
    /// series of their own, per service.
    pub fn new(tallies: Arc<Tallies>, shown_tenants: usize) -> Self {
        let state = Arc::new(State {
            tallies,
            tenants: Mutex::new(TopTenants::new(shown_tenants)),
            splits: Mutex::default(),
            baselines: Mutex::default(),
            rollbacks: Mutex::default(),
            guarded: Mutex::default(),
            endpoints: Mutex::default(),
            revision: AtomicU64::default(),
            refused_states: AtomicU64::default(),
            members: AtomicU64::default(),
            leads: AtomicBool::default(),
            reloads_ok: AtomicU64::default(),
            reloads_failed: AtomicU64::default(),
            certificates: Mutex::default(),
            certificates_ok: AtomicU64::default(),
            certificates_failed: AtomicU64::default(),
            store_up: AtomicBool::new(true),
            open_connections: Arc::default(),
            refused: Reasons::default(),
            log_dropped: Arc::default(),
            spans: Arc::default(),
            notifications: Mutex::default(),
        });
        let registry = Registry::new();
        if let Err(error) = registry.register(Box::new(StateCollector::new(state.clone()))) {
            // A fresh registry refuses only families that are not sound; a test renders all of them.
            ::tracing::error!(%error, "the metrics could not be registered");
        }
        Self { registry, state }
    }

    /// Everything in the text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            ::tracing::error!(%error, "the metrics could not be written");
            String::new()
        })
    }

    /// The registry, for collectors of other rooms.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The cells of a version, made on first use; from then on its series exist, with zeros.
    pub fn version(&self, service: &ServiceName, version: &VersionName) -> Arc<VersionMetrics> {
        self.state.tallies.service(service).metrics(version)
    }

    /// The shares of the service's own split. Versions that it named before and that are still known show 0.
    pub fn set_split(&self, service: &ServiceName, weights: &Weights) {
        let mut splits = lock(&self.state.splits);
        let shares = splits.entry(service.clone()).or_default();
        shares.iter_mut().for_each(|(_, share)| *share = 0.0);
        for (version, share) in weights.iter() {
            match shares.iter_mut().find(|(v, _)| v == version) {
                Some((_, old)) => *old = share.ratio(),
                None => shares.push((version.clone(), share.ratio())),
            }
        }
    }

    /// The version that the service trusts. From now on every cause of a rollback has a series, so that the first rollback
    /// shows as an increase.
    pub fn set_baseline(&self, service: &ServiceName, baseline: &VersionName) {
        lock(&self.state.baselines).insert(service.clone(), baseline.clone());
        let mut rollbacks = lock(&self.state.rollbacks);
        for cause in CAUSES {
            rollbacks.entry((service.clone(), cause)).or_default();
        }
    }

    /// Traffic was taken back; `cause` as in the event. Unknown causes are counted as `other`.
    pub fn rollback(&self, service: &ServiceName, cause: &str) {
        let reason = CAUSES.into_iter().find(|c| *c == cause).unwrap_or("other");
        *lock(&self.state.rollbacks).entry((service.clone(), reason)).or_default() += 1.0;
    }

    /// What the guard sees of the services in which versions are compared now; the others lose their series.
    pub fn show_guarded(&self, guarded: BTreeMap<ServiceName, Guarded>) {
        *lock(&self.state.guarded) = guarded;
    }

    /// The configuration file was read again.
    pub fn reload(&self, ok: bool) {
        let counter = if ok { &self.state.reloads_ok } else { &self.state.reloads_failed };
        counter.fetch_add(1, Relaxed);
    }

    /// The revision of the state that is in effect.
    pub fn set_revision(&self, revision: u64) {
        self.state.revision.store(revision, Relaxed);
    }

    /// A state of the store did not fit.
    pub fn refused_state(&self) {
        self.state.refused_states.fetch_add(1, Relaxed);
    }

    /// How many processes share the store, and whether this one judges for them.
    pub fn set_fleet(&self, members: usize, leads: bool) {
        self.state.members.store(members as u64, Relaxed);
        self.state.leads.store(leads, Relaxed);
    }

    /// When a certificate ends, seconds since the Unix epoch.
    pub fn set_certificate(&self, file: String, ends_s: i64) {
        lock(&self.state.certificates).insert(file, ends_s);
    }

    /// Certificates were read again because a file had changed.
    pub fn certificate_reload(&self, ok: bool) {
        let counter = if ok { &self.state.certificates_ok } else { &self.state.certificates_failed };
        counter.fetch_add(1, Relaxed);
    }

    /// Whether the store takes commits.
    pub fn set_store_up(&self, up: bool) {
        self.state.store_up.store(up, Relaxed);
    }

    /// The gauge of open connections, for the listeners to count up and down.
    pub fn open_connections(&self) -> Arc<AtomicI64> {
        self.state.open_connections.clone()
    }

    /// The counter of lines that the access log dropped, for [`AccessLog::start`](super::AccessLog::start).
    pub fn access_log_dropped(&self) -> Arc<AtomicU64> {
        self.state.log_dropped.clone()
    }

    /// What became of spans, for [`Tracer::start`](super::Tracer::start) to count.
    pub fn spans(&self) -> Arc<SpanCounts> {
        self.state.spans.clone()
    }

    /// So many messages to a target came to this; 0 makes the series exist.
    pub fn notifications(&self, target: &str, result: &'static str, n: u64) {
        *lock(&self.state.notifications).entry((target.to_owned(), result)).or_default() += n;
    }

    /// A target of notifications is gone, with its series.
    pub fn forget_notifications(&self, target: &str) {
        lock(&self.state.notifications).retain(|(name, _), _| name != target);
    }

    /// The proxy refused a request. Takes no lock; `reason` is a word from the code, never from a request.
    pub fn refused(&self, reason: &'static str) {
        self.state.refused.add(reason);
    }

    /// Whether an endpoint is healthy.
    pub fn set_endpoint(&self, service: &ServiceName, version: &VersionName, endpoint: &str, up: bool) {
        let key = (service.clone(), version.clone(), endpoint.to_owned());
        lock(&self.state.endpoints).insert(key, up);
    }

    /// An endpoint was removed.
    pub fn forget_endpoint(&self, service: &ServiceName, version: &VersionName, endpoint: &str) {
        lock(&self.state.endpoints).remove(&(service.clone(), version.clone(), endpoint.to_owned()));
    }

    /// Adds what is new in one scope to the tenants' series, as [`Windows::record`](super::Windows::record) gave it.
    pub fn add_tenant(&self, service: &ServiceName, tenant: Option<&TenantName>, news: &[TotalsDelta]) {
        lock(&self.state.tenants).add(service, tenant, news);
    }

    /// Chooses anew which tenants are shown. For the tick, after everything was added.
    pub fn choose_tenants(&self, now_ms: u64) {
        lock(&self.state.tenants).choose(now_ms);
    }

    /// Forgets a version that was removed, with its tallies.
    pub fn forget_version(&self, service: &ServiceName, version: &VersionName) {
        self.state.tallies.forget_version(service, version);
        lock(&self.state.tenants).forget_version(service, version);
        lock(&self.state.endpoints).retain(|(s, v, _), _| (s, v) != (service, version));
        lock(&self.state.baselines).retain(|s, v| (s, &*v) != (service, version));
        if let Some(shares) = lock(&self.state.splits).get_mut(service) {
            shares.retain(|(v, _)| v != version);
        }
    }

    /// Forgets a service that was removed, with its tallies.
    pub fn forget_service(&self, service: &ServiceName) {
        self.state.tallies.forget_service(service);
        lock(&self.state.tenants).forget_service(service);
        lock(&self.state.splits).remove(service);
        lock(&self.state.baselines).remove(service);
        lock(&self.state.rollbacks).retain(|(s, _), _| s != service);
        lock(&self.state.guarded).remove(service);
        lock(&self.state.endpoints).retain(|(s, _, _), _| s != service);
    }
}

impl Reasons {
    fn add(&self, reason: &'static str) {
        for (name, count) in &self.places {
            if *name.get_or_init(|| reason) == reason {
                count.fetch_add(1, Relaxed);
                return;
            }
        }
        self.other.fetch_add(1, Relaxed);
    }

    /// Reasons with their counts, by name.
    pub(super) fn list(&self) -> BTreeMap<&'static str, u64> {
        let known = self.places.iter().filter_map(|(name, count)| Some((*name.get()?, count.load(Relaxed))));
        let mut list: BTreeMap<_, _> = known.collect();
        *list.entry("other").or_default() += self.other.load(Relaxed);
        list
    }
}

/// A panic elsewhere must not take the metrics away.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BasisPoints;
    use crate::telemetry::{Draw, FailureKind, Fault, Outcome, Rescue, Start};

    fn names() -> (ServiceName, VersionName, VersionName) {
        (
            ServiceName::new("accounting").unwrap(),
            VersionName::new("1.0.0").unwrap(),
            VersionName::new("2.0.0").unwrap(),
        )
    }

    fn about_the_process(metrics: &Metrics) {
        metrics.reload(true);
        metrics.refused("maintenance");
        metrics.notifications("team", "sent", 2);
        metrics.notifications("team", "failed", 0);
        metrics.set_certificate("site.crt".to_owned(), 1_800_000_000);
    }

    fn about_the_guard(metrics: &Metrics, service: &ServiceName, baseline: &VersionName) {
        metrics.set_baseline(service, baseline);
        metrics.rollback(service, "errors");
        metrics.rollback(service, "the moon");
        let guarded = Guarded { evidence: BTreeMap::from([("error", -1.5)]), threshold: 9.21, split_off: true };
        metrics.show_guarded(BTreeMap::from([(service.clone(), guarded)]));
    }

    #[test]
    fn targets_that_are_gone_take_their_series_with_them() {
        let metrics = Metrics::new(Arc::new(Tallies::new(10)), 1);
        about_the_process(&metrics);
        let line = r#"switchback_notifications_total{target="team",result="sent"} 2"#;
        assert!(metrics.render().contains(line), "{}", metrics.render());
        metrics.forget_notifications("team");
        assert!(!metrics.render().contains("team"));
    }

    #[test]
    fn every_family_is_rendered() {
        let metrics = Metrics::new(Arc::new(Tallies::new(10)), 5);
        let (service, one, two) = names();
        metrics.version(&service, &one).shadow().add(crate::telemetry::ShadowResult::Dropped);
        let streams = metrics.version(&service, &one).streams().clone();
        streams.close(crate::telemetry::StreamClose::Shift);
        let _stream = crate::telemetry::OpenStream::new(streams);
        let half = BasisPoints::new(5_000).unwrap();
        metrics.set_split(&service, &Weights::new([(one.clone(), half), (two.clone(), half)]).unwrap());
        metrics.set_split(&service, &Weights::all_on(one.clone()));
        about_the_guard(&metrics, &service, &one);
        about_the_process(&metrics);
        metrics.set_endpoint(&service, &one, "127.0.0.1:9001", false);
        metrics.add_tenant(&service, None, &[]);
        let tally = metrics.state.tallies.service(&service);
        tally.detour(&two, &one).rescue(Rescue::OverBudget);
        let start =
            Start { tenant: Some("acme"), version: &one, now_us: 0, draw: Draw::Chosen, split: None, pooled: false };
        tally.begin(&start).finish(Outcome { fault: Fault::Backend(FailureKind::Timeout), status: 504 }, 2_000_000);
        tally.session(crate::telemetry::SessionResult::Forged);
        let mut open = tally.begin(&start);
        open.answered(4_000);
        let news = crate::telemetry::Windows::default().record(0, &tally.scope(Some("acme")).unwrap());
        metrics.add_tenant(&service, Some(&TenantName::new("acme").unwrap()), &news);
        let text = metrics.render();
        for family in crate::telemetry::families::ALL {
            assert!(text.contains(&format!("# HELP {} ", family.name)), "{}\n{text}", family.name);
        }
        let lines = [
            r#"switchback_requests_total{code="5xx",service="accounting",version="1.0.0"} 1"#,
            r#"switchback_request_failures_total{kind="timeout",service="accounting",version="1.0.0"} 1"#,
            r#"switchback_request_failures_total{kind="reset",service="accounting",version="1.0.0"} 0"#,
            r#"switchback_request_duration_seconds_bucket{service="accounting",version="1.0.0",le="2.5"} 2"#,
            r#"switchback_request_duration_seconds_bucket{service="accounting",version="1.0.0",le="0.005"} 1"#,
            r#"switchback_request_duration_seconds_sum{service="accounting",version="1.0.0"} 2.004"#,
            r#"switchback_shadow_requests_total{result="dropped",service="accounting",version="1.0.0"} 1"#,
            r#"switchback_shadow_requests_total{result="same",service="accounting",version="1.0.0"} 0"#,
            r#"switchback_requests_in_flight{service="accounting",version="1.0.0"} 1"#,
            r#"switchback_streams_open{service="accounting",version="1.0.0"} 1"#,
            r#"switchback_streams_closed_total{service="accounting",version="1.0.0",reason="shift"} 1"#,
            r#"switchback_streams_closed_total{service="accounting",version="1.0.0",reason="cut"} 0"#,
            r#"switchback_split_weight_ratio{service="accounting",version="1.0.0"} 1"#,
            r#"switchback_split_weight_ratio{service="accounting",version="2.0.0"} 0"#,
            r#"switchback_tenant_requests_total{service="accounting",tenant="_other",version="1.0.0"} 1"#,
            r#"switchback_session_cookies_total{service="accounting",result="forged"} 1"#,
            r#"switchback_session_cookies_total{service="accounting",result="kept"} 0"#,
            r#"switchback_rollbacks_total{reason="errors",service="accounting"} 1"#,
            r#"switchback_rollbacks_total{reason="other",service="accounting"} 1"#,
            r#"switchback_guard_evidence{service="accounting",signal="error"} -1.5"#,
            r#"switchback_guard_evidence_threshold{service="accounting"} 9.21"#,
            r#"switchback_guard_split_off{service="accounting"} 1"#,
            r#"switchback_baseline_info{service="accounting",version="1.0.0"} 1"#,
            r#"switchback_rollbacks_total{service="accounting",reason="person"} 0"#,
            r#"switchback_refused_requests_total{reason="maintenance"} 1"#,
            r#"switchback_rescues_total{service="accounting",from="2.0.0",to="1.0.0",result="over_budget"} 1"#,
            r#"switchback_rescues_total{service="accounting",from="2.0.0",to="1.0.0",result="saved"} 0"#,
            r#"switchback_config_reloads_total{result="success"} 1"#,
            r#"switchback_endpoint_up{service="accounting",version="1.0.0",endpoint="127.0.0.1:9001"} 0"#,
        ];
        let rendered: Vec<_> = text.lines().map(sorted_labels).collect();
        for line in lines {
            assert!(rendered.contains(&sorted_labels(line)), "{line}\n{text}");
        }
        metrics.forget_version(&service, &one);
        drop(open);
        assert!(!metrics.render().contains(r#"version="1.0.0""#), "{}", metrics.render());
        metrics.forget_service(&service);
        assert!(!metrics.render().contains("accounting"));
    }

    /// The order of labels carries no meaning.
    fn sorted_labels(line: &str) -> String {
        let Some((name, (labels, value))) = line.split_once('{').and_then(|(n, rest)| Some((n, rest.split_once('}')?)))
        else {
            return line.to_owned();
        };
        let mut labels: Vec<_> = labels.split(',').collect();
        labels.sort_unstable();
        format!("{name}{{{}}}{value}", labels.join(","))
    }

    #[test]
    fn reasons_are_bounded() {
        let reasons = Reasons::default();
        for i in 0..100 {
            reasons.add(Box::leak(format!("r{i}").into_boxed_str()));
        }
        reasons.add("r3");
        let list = reasons.list();
        assert_eq!((list.len(), list["r3"], list["other"]), (MAX_REASONS + 1, 2, 68));
    }
}
