//! Who still uses a version: what one asks before a deprecated version is switched off.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answers::time;
use super::context::{Cx, Found, Shared};
use super::parameters::{Names, Parameters};
use super::problem::Problem;
use super::stats::MAX_WINDOW;
use crate::config::deprecation_to_json;
use crate::model::{BasisPoints, Pin, ServiceState, Split, TenantName, VersionName};
use crate::routing::{Routes, ServiceRoute, SplitOwner, split_for};
use crate::telemetry::ScopeTally;

/// Tenants of an answer unless the request says otherwise.
const LISTED: u64 = 100;
/// The most tenants of an answer.
const MAX_LISTED: u64 = 1_000;
/// Tenants whose window is looked at: those with the most requests since they were first seen.
const CANDIDATES: usize = 10_000;

/// Who still uses a version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionTenants)]
pub(super) struct VersionTenantsAnswer {
    service: String,
    version: String,
    /// `since`, and `sunset` and `link` where they are known; none while the version is not deprecated.
    #[schema(required)]
    deprecated: Option<Value>,
    /// The time that is looked at; none: since each tenant was first seen by this process.
    #[schema(required)]
    window_seconds: Option<f64>,
    /// Tenants with requests to the version, most requests first. `_other`: those that are not counted one by one.
    tenants: Vec<TenantUse>,
    /// Whether there are more of them than are listed.
    more: bool,
    /// Requests without a tenant, since the process began.
    requests_without_tenant: u64,
    /// Tenants whose own split gives the version a share, with or without requests.
    own_splits: usize,
    /// Tenants that are pinned to the version, with or without requests.
    pinned_tenants: usize,
}

/// How a tenant uses a version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantUse)]
pub(super) struct TenantUse {
    #[schema(value_type = String)]
    tenant: TenantName,
    requests: u64,
    failures: u64,
    /// The tenant's last request to any version.
    last_seen: String,
    /// Why it comes there: `pin`, `tenant`, `group` or `service` for whose split, `other` for a choice, a path, or what no
    /// longer holds.
    by: &'static str,
}

/// Tenants that still use a version
#[utoipa::path(
    get, path = "/v1/services/{service}/versions/{version}/tenants", tag = "versions",
    params(
        (
            "window" = Option<String>,
            Query,
            description = "1s to 15m back; without it, since each tenant was first seen by this process",
        ),
        ("limit" = Option<u64>, Query, description = "At most this many, 1 to 1000; 100 unless given"),
    ),
    responses((status = 200, description = "Tenants by requests", body = VersionTenantsAnswer)),
)]
pub(super) async fn version_tenants(
    State(cx): State<Cx>,
    names: Names,
    parameters: Parameters,
) -> Result<Json<VersionTenantsAnswer>, Problem> {
    let parameters = parameters.only(&["window", "limit"], &[])?;
    let window = parameters.duration("window", MAX_WINDOW)?;
    let limit = parameters.number("limit", 1..=MAX_LISTED)?.unwrap_or(LISTED) as usize;
    let found = Found::service(&cx, &names.service()?)?;
    let name = names.version()?;
    let known = || found.route.versions.iter().map(|v| v.name.as_str());
    if found.route.version(name.as_str()).is_none() {
        return Err(Problem::unknown("version", name.as_str(), known()));
    }
    // Reads up to fifty thousand tallies and a million splits: other requests of this thread should not wait for it.
    let report = tokio::task::spawn_blocking(move || report(&cx, &found, &name, window, limit)).await;
    report
        .map(Json)
        .map_err(|_| Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "", "the report could not be made"))
}

fn report(
    cx: &Shared,
    found: &Found,
    version: &VersionName,
    window: Option<Duration>,
    limit: usize,
) -> VersionTenantsAnswer {
    let (route, live) = (&found.route, found.live());
    let scopes = cx.tallies.service(found.name()).scopes();
    let without = scopes.iter().filter(|s| s.tenant().is_none()).map(|s| totals(s, version).0).sum();
    let now_ms = cx.now();
    let window_ms = window.map(|w| w.as_millis() as u64);
    let recent = |s: &ScopeTally| window_ms.is_none_or(|w| s.last_touched_us() / 1_000 + w + 1_000 >= now_ms);
    let mut uses: Vec<(TenantName, u64, u64, u64)> = scopes
        .iter()
        .filter(|scope| recent(scope))
        .filter_map(|scope| {
            let (requests, failures) = totals(scope, version);
            (requests > 0).then_some(())?;
            Some((scope.tenant()?.clone(), requests, failures, scope.last_touched_us() / 1_000))
        })
        .collect();
    sort(&mut uses);
    let mut more = uses.len() > CANDIDATES && window_ms.is_some();
    if let Some(window_ms) = window_ms {
        uses.truncate(CANDIDATES);
        for (tenant, requests, failures, _) in &mut uses {
            // One lock for each tenant, so that the guard never waits for the whole list.
            let stats = cx.lock_windows().stats(found.name(), Some(tenant), Some(window_ms), now_ms);
            let of = stats.iter().find(|s| s.version == *version);
            (*requests, *failures) = of.map_or((0, 0), |s| (s.requests, s.failed));
        }
        uses.retain(|(_, requests, ..)| *requests > 0);
        sort(&mut uses);
    }
    more |= uses.len() > limit;
    uses.truncate(limit);
    let wall_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let seen = |at_ms: u64| time(wall_ms.saturating_sub(now_ms.saturating_sub(at_ms)));
    let tenants = uses.into_iter().map(|(tenant, requests, failures, at_ms)| TenantUse {
        by: way(&found.view.routes, route, &tenant, version),
        last_seen: seen(at_ms),
        tenant,
        requests,
        failures,
    });
    let gets = |split: &Split| live.weights_in_effect(split).share(version.as_str()) > BasisPoints::ZERO;
    let deprecated = route.version(version.as_str()).and_then(|v| v.spec.deprecated.as_ref());
    VersionTenantsAnswer {
        service: found.name().to_string(),
        version: version.to_string(),
        deprecated: deprecated.map(deprecation_to_json),
        window_seconds: window.map(|w| w.as_secs_f64()),
        tenants: tenants.collect(),
        more,
        requests_without_tenant: without,
        own_splits: route.tenants.values().filter(|own| gets(&own.split)).count(),
        pinned_tenants: live.pins.tenants.values().filter(|p| leads_to(p, version)).count(),
    }
}

fn sort(uses: &mut [(TenantName, u64, u64, u64)]) {
    uses.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
}

/// Requests and failures of one version since the scope was first seen.
fn totals(scope: &ScopeTally, version: &VersionName) -> (u64, u64) {
    let totals = scope.totals();
    totals.iter().find(|t| t.version == *version).map_or((0, 0), |t| (t.requests, t.failed()))
}

/// What leads a tenant to a version now.
fn way(routes: &Routes, route: &ServiceRoute, tenant: &TenantName, version: &VersionName) -> &'static str {
    let live: &ServiceState = &route.state;
    let groups = routes.groups.get(tenant).map_or(&[][..], |g| g);
    let pin = live.pins.tenants.get(tenant).or_else(|| groups.iter().find_map(|g| live.pins.groups.get(g)));
    if pin.is_some_and(|p| leads_to(p, version)) {
        return "pin";
    }
    let (split, owner) = split_for(routes, route, Some(tenant.as_str()));
    if live.weights_in_effect(split).share(version.as_str()) == BasisPoints::ZERO {
        return "other";
    }
    match owner {
        SplitOwner::Service => "service",
        SplitOwner::Group => "group",
        SplitOwner::Tenant => "tenant",
    }
}

fn leads_to(pin: &Pin, version: &VersionName) -> bool {
    matches!(pin, Pin::Version(v) if v == version)
}
