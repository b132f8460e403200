//! What each version did lately, and how the guard sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::context::{Cx, Found, Shared};
use super::detours::{DetourAnswer, detours};
use super::parameters::{Names, Parameters};
use super::problem::{Problem, did_you_mean, echo};
use crate::analysis::{ArmCounts, Verdict};
use crate::control::ComparisonReport;
use crate::model::{BasisPoints, Scope, ServiceName, TenantName, VersionName, Weights};
use crate::telemetry::{FailureKind, VersionStats};

/// The longest time that counts are kept by window.
pub(super) const MAX_WINDOW: Duration = Duration::from_secs(900);

/// What each version of a service did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(super) struct StatsAnswer {
    #[schema(value_type = String)]
    service: ServiceName,
    /// The tenant that was asked for; none: all together.
    #[schema(required, value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// The route that was asked for; none: all together.
    #[schema(required)]
    route: Option<String>,
    /// The time that is looked at; none: since each version was first seen.
    #[schema(required)]
    window_seconds: Option<f64>,
    versions: Vec<VersionStatsAnswer>,
    comparisons: Vec<ComparisonAnswer>,
    /// Requests that another version answered than the one they were routed to; of the service, not of one tenant.
    detours: Vec<DetourAnswer>,
    /// Routes that are counted by themselves, by name; last `_other` for the others together.
    #[schema(value_type = Vec<String>)]
    routes: Vec<Arc<str>>,
}

/// What one version did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionStats)]
pub(super) struct VersionStatsAnswer {
    #[schema(value_type = String)]
    pub version: VersionName,
    /// `baseline`, `canary`, `idle`, or `gone` for a version that was removed.
    pub role: &'static str,
    /// Percent in effect; none for a version that was removed.
    #[schema(required, value_type = Option<f64>)]
    pub share: Option<BasisPoints>,
    pub requests: u64,
    pub requests_per_second: f64,
    /// Failures by kind: `status`, `grpc`, `connect`, `timeout`, `reset`.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub failures: BTreeMap<&'static str, u64>,
    pub failures_total: u64,
    /// 0 to 1; none without requests.
    #[schema(required)]
    pub error_rate: Option<f64>,
    pub client_aborts: u64,
    pub latency: LatencyAnswer,
    /// On their way now; 0 for a single route.
    pub in_flight: i64,
    /// WebSockets, server-sent events and gRPC calls that are open now; of the service, not of one tenant or route.
    pub streams: i64,
}

/// Percentiles of the time until the response header, seconds.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Latency)]
pub(super) struct LatencyAnswer {
    #[schema(required)]
    pub p50: Option<f64>,
    #[schema(required)]
    pub p90: Option<f64>,
    #[schema(required)]
    pub p99: Option<f64>,
}

impl LatencyAnswer {
    pub(super) fn new(stats: Option<&VersionStats>) -> Self {
        Self { p50: stats.and_then(|s| s.p50_s), p90: stats.and_then(|s| s.p90_s), p99: stats.and_then(|s| s.p99_s) }
    }
}

/// How the guard sees a canary.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Comparison)]
pub(super) struct ComparisonAnswer {
    #[schema(value_type = String)]
    canary: VersionName,
    #[schema(value_type = String)]
    baseline: VersionName,
    /// Share of the canary among the two, 0 to 1.
    share: f64,
    /// `healthy`, `breach` or `not_enough_evidence`.
    #[schema(value_type = String)]
    verdict: Verdict,
    /// `none`, `rollback`, `probe`, `brake` or `hold_slo`.
    action: &'static str,
    /// How much the bet against the canary has won, capped at 10^12.
    evidence: f64,
    /// Its natural logarithm, not capped.
    log_evidence: f64,
    /// Evidence at which traffic goes back.
    threshold: f64,
    /// Natural logarithm of each signal's part.
    #[schema(value_type = BTreeMap<String, f64>)]
    signals: BTreeMap<&'static str, f64>,
    ceiling_canary: f64,
    ceiling_baseline: f64,
    braked: bool,
    split_off: bool,
    promotion_ready: bool,
    /// How many proxies' counts these are: in a fleet the leader's are those of all, another proxy's are its own.
    proxies: usize,
    /// From which latency on requests of the baseline count as slow; those of the canary do beyond this times the tolerance.
    slow_after: SlowAfterAnswer,
    window: WindowAnswer,
}

/// Seconds until the response header, at the baseline's 90th and 99th percentile; none while latency is not judged.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SlowAfter)]
pub(super) struct SlowAfterAnswer {
    #[schema(required)]
    p90: Option<f64>,
    #[schema(required)]
    p99: Option<f64>,
}

/// The counts behind the evidence.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EvidenceWindow)]
pub(super) struct WindowAnswer {
    seconds: f64,
    baseline: CountsAnswer,
    canary: CountsAnswer,
}

/// Requests, and the failed ones among them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Counts)]
pub(super) struct CountsAnswer {
    requests: u64,
    failures: u64,
}

/// What each version did, and how the guard sees it
#[utoipa::path(
    get, path = "/v1/services/{service}/stats", tag = "evidence",
    params(
        ("tenant" = Option<String>, Query, description = "Only this tenant"),
        ("route" = Option<String>, Query, description = "Only this route, one of `routes`; not beside tenant"),
        ("window" = Option<String>, Query, description = "1s to 15m back; without it, since a version was first seen"),
    ),
    responses((status = 200, description = "Counts by version", body = StatsAnswer)),
)]
pub(super) async fn get_stats(
    State(cx): State<Cx>,
    names: Names,
    parameters: Parameters,
) -> Result<Json<StatsAnswer>, Problem> {
    let parameters = parameters.only(&["tenant", "route", "window"], &[])?;
    let tenant: Option<TenantName> = parameters.name("tenant")?;
    let window = parameters.duration("window", MAX_WINDOW)?;
    let found = Found::service(&cx, &names.service()?)?;
    let comparisons = comparisons(&cx, &found, tenant.as_ref());
    let route = parameters.text("route").map(str::to_owned);
    let versions = match &route {
        Some(_) if tenant.is_some() => {
            return Err(Problem::bad("route", "stands beside tenant; routes are counted over all tenants"));
        }
        Some(route) => versions_of(&found, None, &route_stats(&cx, &found, route, window)?),
        None => versions(&cx, &found, tenant.as_ref(), window),
    };
    Ok(Json(StatsAnswer {
        service: found.name().clone(),
        window_seconds: window.map(|w| w.as_secs_f64()),
        versions,
        comparisons,
        detours: detours(&found.route.tally),
        routes: found.route.tally.routes().names(),
        route,
        tenant,
    }))
}

/// What every version did for one route.
fn route_stats(
    cx: &Shared,
    found: &Found,
    route: &str,
    window: Option<Duration>,
) -> Result<Vec<VersionStats>, Problem> {
    let mut windows = cx.lock_windows();
    windows.record_routes(cx.now(), &found.route.tally);
    let id = windows.route_id(found.name(), route);
    let window_ms = window.map(|w| w.as_millis() as u64);
    let stats = id.and_then(|id| windows.route_stats(found.name(), id, window_ms, cx.now()));
    let names = found.route.tally.routes().names();
    stats.map(|s| s.versions.into_iter().map(|(s, _)| s).collect()).ok_or_else(|| {
        let guess = did_you_mean(route, names.iter().map(|n| &**n));
        let text = format!("there is no route {:?}; without this parameter the answer lists them{guess}", echo(route));
        Problem::new(StatusCode::NOT_FOUND, "not_found", text)
    })
}

/// What every version did: those that exist, with or without requests, and those that had some and are gone.
pub(super) fn versions(
    cx: &Shared,
    found: &Found,
    tenant: Option<&TenantName>,
    window: Option<Duration>,
) -> Vec<VersionStatsAnswer> {
    let window_ms = window.map(|w| w.as_millis() as u64);
    let stats = cx.lock_windows().stats(found.name(), tenant, window_ms, cx.now());
    versions_of(found, tenant, &stats)
}

fn versions_of(found: &Found, tenant: Option<&TenantName>, stats: &[VersionStats]) -> Vec<VersionStatsAnswer> {
    let weights = shares(found, tenant);
    let known = found.route.versions.iter().map(|v| &v.name);
    let gone = stats.iter().map(|s| &s.version).filter(|v| found.route.version(v.as_str()).is_none());
    known
        .chain(gone)
        .map(|name| {
            let exists = found.route.version(name.as_str()).is_some();
            let share = exists.then(|| weights.share(name.as_str()));
            let role = match share {
                None => "gone",
                Some(_) if *name == found.live().baseline => "baseline",
                Some(share) if share > BasisPoints::ZERO => "canary",
                Some(_) => "idle",
            };
            let streams = found.route.tally.open_streams(name);
            version(name, role, share, stats.iter().find(|s| s.version == *name), streams)
        })
        .collect()
}

/// The comparisons of a scope.
pub(super) fn comparisons(cx: &Shared, found: &Found, tenant: Option<&TenantName>) -> Vec<ComparisonAnswer> {
    cx.control.board().of(found.name(), tenant).into_iter().map(ComparisonAnswer::from).collect()
}

fn shares(found: &Found, tenant: Option<&TenantName>) -> Weights {
    let scope = tenant.map_or(Scope::Service, |t| Scope::Tenant(t.clone()));
    let split = found.view.state.split_of(&found.view.settings.structure, found.name(), &scope);
    found.live().weights_in_effect(split.as_ref().map_or(&found.live().split, |(split, _)| split))
}

fn version(
    name: &VersionName,
    role: &'static str,
    share: Option<BasisPoints>,
    stats: Option<&VersionStats>,
    streams: i64,
) -> VersionStatsAnswer {
    let requests = stats.map_or(0, |s| s.requests);
    let failures = |kind: FailureKind| stats.map_or(0, |s| s.failures[kind.index()]);
    VersionStatsAnswer {
        version: name.clone(),
        role,
        share,
        requests,
        requests_per_second: stats.map_or(0.0, |s| s.rps),
        failures: FailureKind::ALL.into_iter().map(|kind| (kind.as_str(), failures(kind))).collect(),
        failures_total: stats.map_or(0, |s| s.failed),
        error_rate: stats.filter(|_| requests > 0).map(|s| s.error_rate),
        client_aborts: stats.map_or(0, |s| s.client_aborts),
        latency: LatencyAnswer::new(stats),
        in_flight: stats.map_or(0, |s| s.in_flight),
        streams,
    }
}

impl ComparisonAnswer {
    /// Whether it is between these two versions.
    pub(super) fn is_between(&self, a: &VersionName, b: &VersionName) -> bool {
        (&self.canary, &self.baseline) == (a, b) || (&self.canary, &self.baseline) == (b, a)
    }
}

impl From<ComparisonReport> for ComparisonAnswer {
    fn from(report: ComparisonReport) -> Self {
        let window = WindowAnswer {
            seconds: report.window.seconds,
            baseline: report.window.baseline.into(),
            canary: report.window.canary.into(),
        };
        Self {
            canary: report.canary,
            baseline: report.baseline,
            share: report.share,
            verdict: report.verdict,
            action: report.action,
            evidence: report.evidence,
            log_evidence: report.log_evidence,
            threshold: report.threshold,
            signals: report.signals,
            ceiling_canary: report.ceiling_canary,
            ceiling_baseline: report.ceiling_baseline,
            braked: report.braked,
            split_off: report.split_off,
            promotion_ready: report.promotion_ready,
            proxies: report.proxies,
            slow_after: report.slow_after_us.into(),
            window,
        }
    }
}

impl From<(u32, u32)> for SlowAfterAnswer {
    fn from((p90_us, p99_us): (u32, u32)) -> Self {
        let seconds = |us: u32| (us > 0).then(|| f64::from(us) / 1e6);
        Self { p90: seconds(p90_us), p99: seconds(p99_us) }
    }
}

impl From<ArmCounts> for CountsAnswer {
    fn from(counts: ArmCounts) -> Self {
        Self { requests: counts.n, failures: counts.bad }
    }
}
