//! The routes of a service on two versions side by side, worst first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::context::Shared;
use super::stats::LatencyAnswer;
use crate::analysis::{ArmCounts, excess_failures, excess_slow};
use crate::model::{ServiceName, VersionName};
use crate::telemetry::{FailureKind, RouteStats, VersionStats};

/// Routes in an answer unless asked otherwise.
pub(super) const ROUTES: u64 = 20;
/// Routes in an answer at most.
pub(super) const MAX_ROUTES: u64 = 100;

/// One route on both versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RouteComparison {
    /// Method and path template, or `_other` for all routes without a place of their own.
    #[schema(value_type = String)]
    route: Arc<str>,
    /// Whether the configuration names it; otherwise its name was made from paths.
    configured: bool,
    a: RouteCounts,
    b: RouteCounts,
    /// At least so many requests failed on `b` beyond the rate of `a`: two standard errors are put down to chance.
    excess_failures: f64,
    /// The same of requests that were slower than the 90th percentile of `a` by more than a tenth and a millisecond.
    excess_slow: f64,
}

/// One route on one version.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct RouteCounts {
    requests: u64,
    /// Failures by kind: `status`, `grpc`, `connect`, `timeout`, `reset`.
    #[schema(value_type = BTreeMap<String, u64>)]
    failures: BTreeMap<&'static str, u64>,
    failures_total: u64,
    /// 0 to 1; none without requests.
    #[schema(required)]
    error_rate: Option<f64>,
    client_aborts: u64,
    latency: LatencyAnswer,
}

/// Routes with requests on either version: those with the most excess failures on `b` first, then those with the most
/// excess slow ones, then the busiest.
pub(super) fn worst_routes(
    cx: &Shared,
    service: &ServiceName,
    a: &VersionName,
    b: &VersionName,
    since: Option<Duration>,
    limit: usize,
) -> Vec<RouteComparison> {
    let (now, window_ms) = (cx.now(), since.map(|s| s.as_millis() as u64));
    cx.lock_windows().record_routes(now, &cx.tallies.service(service));
    let ids = cx.lock_windows().routes(service);
    // One lock for each route, so that the guard never waits for the whole list.
    let stats = ids.into_iter().filter_map(|id| cx.lock_windows().route_stats(service, id, window_ms, now));
    let routes = stats.map(|stats| RouteComparison::new(&stats, a, b));
    let mut worst: Vec<_> = routes.filter(|r| r.requests() > 0).collect();
    worst.sort_by(|x, y| {
        let failures = y.excess_failures.total_cmp(&x.excess_failures);
        let slow = y.excess_slow.total_cmp(&x.excess_slow);
        let rest = (Reverse(x.requests()), &x.route).cmp(&(Reverse(y.requests()), &y.route));
        failures.then(slow).then(rest)
    });
    worst.truncate(limit);
    worst
}

impl RouteComparison {
    fn new(stats: &RouteStats, a: &VersionName, b: &VersionName) -> Self {
        let of = |version: &VersionName| stats.versions.iter().find(|(s, _)| s.version == *version);
        let counts = |s: &VersionStats| ArmCounts { n: s.requests, bad: s.failed };
        let (a, b) = (of(a), of(b));
        let (excess_failures, excess_slow) = match (a, b) {
            (Some(a), Some(b)) => (excess_failures(counts(&a.0), counts(&b.0)), excess_slow(&a.1, &b.1)),
            _ => (0.0, 0.0),
        };
        Self {
            route: stats.route.clone(),
            configured: stats.configured,
            a: RouteCounts::new(a.map(|(s, _)| s)),
            b: RouteCounts::new(b.map(|(s, _)| s)),
            excess_failures,
            excess_slow,
        }
    }

    fn requests(&self) -> u64 {
        self.a.requests + self.b.requests + self.a.client_aborts + self.b.client_aborts
    }
}

impl RouteCounts {
    fn new(stats: Option<&VersionStats>) -> Self {
        let failures = |kind: FailureKind| stats.map_or(0, |s| s.failures[kind.index()]);
        Self {
            requests: stats.map_or(0, |s| s.requests),
            failures: FailureKind::ALL.into_iter().map(|kind| (kind.as_str(), failures(kind))).collect(),
            failures_total: stats.map_or(0, |s| s.failed),
            error_rate: stats.filter(|s| s.requests > 0).map(|s| s.error_rate),
            client_aborts: stats.map_or(0, |s| s.client_aborts),
            latency: LatencyAnswer::new(stats),
        }
    }
}
