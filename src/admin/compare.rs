//! Two versions side by side, over all and for the tenants that suffer most.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::compare_routes::{MAX_ROUTES, ROUTES, RouteComparison, worst_routes};
use super::context::{Cx, Found, Shared};
use super::parameters::{Names, Parameters};
use super::problem::Problem;
use super::shadow::{self, ShadowSummary};
use super::stats::{ComparisonAnswer, MAX_WINDOW, VersionStatsAnswer, comparisons, versions};
use crate::model::{ServiceName, TenantName, VersionName};
use crate::telemetry::VersionStats;

/// Tenants in an answer.
const WORST: usize = 20;
/// Tenants whose window is looked at: those with the most failures since they were first seen.
const CANDIDATES: usize = 1_000;

/// Two versions side by side.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompareAnswer)]
pub(super) struct CompareAnswer {
    #[schema(value_type = String)]
    service: ServiceName,
    #[schema(required, value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// The time that is looked at; none: since each version was first seen.
    #[schema(required)]
    since_seconds: Option<f64>,
    a: VersionStatsAnswer,
    b: VersionStatsAnswer,
    difference: Difference,
    /// The tenants with the most failures on `b`.
    tenants: Vec<TenantComparison>,
    /// The routes by how much worse they are on `b`: by excess failures, then by excess slow requests, then the busiest. Empty
    /// when a tenant is asked for: routes are counted over all tenants.
    routes: Vec<RouteComparison>,
    /// How the guard sees the two, if it compares them.
    #[schema(required)]
    comparison: Option<ComparisonAnswer>,
    /// What copies have shown, if one of the two is the other's shadow.
    #[schema(required)]
    shadow: Option<ShadowSummary>,
}

/// `b` minus `a`; none where one of them has no value.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Difference {
    #[schema(required)]
    error_rate: Option<f64>,
    #[schema(required)]
    p50: Option<f64>,
    #[schema(required)]
    p90: Option<f64>,
    #[schema(required)]
    p99: Option<f64>,
}

/// One tenant on both versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantComparison {
    #[schema(value_type = String)]
    pub tenant: TenantName,
    pub a: TenantCounts,
    pub b: TenantCounts,
}

/// One tenant on one version.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct TenantCounts {
    pub requests: u64,
    pub failures: u64,
    /// 0 to 1; none without requests.
    #[schema(required)]
    pub error_rate: Option<f64>,
}

/// Two versions side by side
#[utoipa::path(
    get, path = "/v1/services/{service}/compare", tag = "evidence",
    params(
        ("a" = String, Query, description = "One version"),
        ("b" = String, Query, description = "The other version"),
        ("tenant" = Option<String>, Query, description = "Only this tenant"),
        ("since" = Option<String>, Query, description = "1s to 15m back; without it, since a version was first seen"),
        ("routes" = Option<u64>, Query, description = "Routes in the answer, 1 to 100; 20 without it"),
    ),
    responses((status = 200, description = "Both versions and what is between them", body = CompareAnswer)),
)]
pub(super) async fn compare(
    State(cx): State<Cx>,
    names: Names,
    parameters: Parameters,
) -> Result<Json<CompareAnswer>, Problem> {
    let parameters = parameters.only(&["a", "b", "tenant", "since", "routes"], &[])?;
    let found = Found::service(&cx, &names.service()?)?;
    let named = |field| {
        let name =
            parameters.text(field).ok_or_else(|| Problem::bad(field, "is missing; name the two versions a and b"))?;
        found.version(field, name)
    };
    let (a, b) = (named("a")?, named("b")?);
    let tenant: Option<TenantName> = parameters.name("tenant")?;
    let since = parameters.duration("since", MAX_WINDOW)?;
    let limit = parameters.number("routes", 1..=MAX_ROUTES)?.unwrap_or(ROUTES) as usize;
    let all = || versions(&cx, &found, tenant.as_ref(), since).into_iter();
    // Both exist, so both are in the list.
    let pick = |name: &VersionName| all().find(|v| v.version == *name).ok_or_else(|| Problem::bad("a", "is gone"));
    let (stats_a, stats_b) = (pick(&a)?, pick(&b)?);
    let comparison = comparisons(&cx, &found, tenant.as_ref()).into_iter().find(|c| c.is_between(&a, &b));
    // Copies are not told apart by tenant.
    let shadow = if tenant.is_none() { shadow::summary(&found, &a, &b) } else { None };
    let (tenants, routes) = match tenant {
        Some(_) => Default::default(),
        None => {
            let (cx, name) = (cx.clone(), found.name().clone());
            // Reads up to fifty thousand tenants: milliseconds that other requests of this thread should not wait.
            let worst = tokio::task::spawn_blocking(move || {
                (worst_tenants(&cx, &name, &a, &b, since), worst_routes(&cx, &name, &a, &b, since, limit))
            });
            worst.await.unwrap_or_default()
        }
    };
    Ok(Json(CompareAnswer {
        service: found.name().clone(),
        tenant,
        since_seconds: since.map(|s| s.as_secs_f64()),
        difference: Difference::new(&stats_a, &stats_b),
        a: stats_a,
        b: stats_b,
        tenants,
        routes,
        comparison,
        shadow,
    }))
}

impl Difference {
    fn new(a: &VersionStatsAnswer, b: &VersionStatsAnswer) -> Self {
        let minus = |a: Option<f64>, b: Option<f64>| Some(b? - a?);
        Self {
            error_rate: minus(a.error_rate, b.error_rate),
            p50: minus(a.latency.p50, b.latency.p50),
            p90: minus(a.latency.p90, b.latency.p90),
            p99: minus(a.latency.p99, b.latency.p99),
        }
    }
}

impl TenantCounts {
    fn new(stats: &[VersionStats], version: &VersionName) -> Self {
        let Some(s) = stats.iter().find(|s| s.version == *version) else { return Self::default() };
        let error_rate = (s.requests > 0).then_some(s.error_rate);
        Self { requests: s.requests, failures: s.failed, error_rate }
    }
}

/// The tenants with the most failures on `b`. Reads up to fifty thousand tenants: milliseconds that other requests of a
/// thread should not wait.
pub(super) fn worst_tenants(
    cx: &Shared,
    service: &ServiceName,
    a: &VersionName,
    b: &VersionName,
    since: Option<Duration>,
) -> Vec<TenantComparison> {
    let scopes = cx.tallies.service(service).scopes();
    let mut candidates: Vec<_> = scopes
        .iter()
        .filter(|scope| !scope.is_other())
        .filter_map(|scope| {
            let failed = scope.totals().iter().find(|t| t.version == *b)?.failed();
            Some((failed, scope.tenant()?.clone()))
        })
        .collect();
    candidates.sort_by(|x, y| y.0.cmp(&x.0).then_with(|| x.1.cmp(&y.1)));
    candidates.truncate(CANDIDATES);
    let window_ms = since.map(|s| s.as_millis() as u64);
    let mut worst: Vec<_> = candidates
        .into_iter()
        .map(|(_, tenant)| {
            // One lock for each tenant, so that the guard never waits for the whole list.
            let stats = cx.lock_windows().stats(service, Some(&tenant), window_ms, cx.now());
            TenantComparison { a: TenantCounts::new(&stats, a), b: TenantCounts::new(&stats, b), tenant }
        })
        .filter(|t| t.a.requests + t.b.requests > 0)
        .collect();
    worst.sort_by(|x, y| y.b.failures.cmp(&x.b.failures).then_with(|| x.tenant.cmp(&y.tenant)));
    worst.truncate(WORST);
    worst
}
