//! Services for people to look at: a line for each, or everything about one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answers::{DisabledAnswer, EventAnswer, HoldAnswer, RolledBackAnswer, SplitAnswer};
use super::context::{Cx, Found, Shared};
use super::describe::{GuardAnswer, rule, sticky};
use super::maintenance::MaintenanceAnswer;
use super::parameters::Names;
use super::precondition::tagged;
use super::problem::Problem;
use crate::analysis::Verdict;
use crate::config::version_to_json;
use crate::control::View;
use crate::model::{
    BasisPoints, EventKind, EventQuery, GroupName, Pin, Rollout, Scope, ServiceName, ServiceState, TimeWindow,
    VersionName, Weights,
};
use crate::routing::{ServiceRoute, VersionRoute};
use crate::telemetry::VersionStats;

/// The time that rates in summaries look back on.
const SUMMARY_MS: u64 = 60_000;

/// A service in a line.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceSummary)]
pub(super) struct ServiceSummary {
    #[schema(value_type = String)]
    pub name: ServiceName,
    #[schema(value_type = String)]
    pub baseline: VersionName,
    /// Percent by version, in effect.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub weights: Weights,
    /// What was asked for, while a brake holds some of it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, f64>>)]
    pub intended: Option<Weights>,
    #[schema(required)]
    pub hold: Option<HoldAnswer>,
    #[schema(required)]
    pub rolled_back: Option<RolledBackAnswer>,
    /// What its clients are told while it is in maintenance.
    #[schema(required)]
    pub maintenance: Option<MaintenanceAnswer>,
    /// Tenants that are in maintenance by themselves.
    pub tenants_in_maintenance: usize,
    /// Versions that get no traffic because somebody disabled them.
    #[schema(value_type = Vec<String>)]
    pub disabled_versions: Vec<VersionName>,
    /// Versions whose endpoints' certificates are not verified.
    #[schema(value_type = Vec<String>)]
    unverified_versions: Vec<VersionName>,
    /// Tenants with a split of their own.
    pub own_splits: usize,
    /// The rollout that is not over, if there is one: `id`, `to`, `phase`, `step`, and whether it is `paused`.
    #[schema(required)]
    pub rollout: Option<Value>,
    /// Over the last minute.
    pub requests_per_second: f64,
    /// Over the last minute, 0 to 1; none without requests.
    #[schema(required)]
    pub error_rate: Option<f64>,
    /// The worst verdict over all tenants; none while nothing is compared.
    #[schema(required, value_type = Option<String>)]
    pub verdict: Option<Verdict>,
    /// Endpoints that are up, and all, by version.
    #[schema(value_type = BTreeMap<String, Vec<usize>>)]
    pub healthy_endpoints: BTreeMap<VersionName, (usize, usize)>,
}

/// Every service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceList)]
pub(super) struct ServiceList {
    services: Vec<ServiceSummary>,
}

/// Everything about a service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Service)]
pub(super) struct ServiceAnswer {
    #[schema(value_type = String)]
    name: ServiceName,
    /// Revision of the document, for `If-Match`.
    revision: u64,
    #[schema(value_type = String)]
    baseline: VersionName,
    split: SplitAnswer,
    /// Splits of groups.
    #[schema(value_type = BTreeMap<String, SplitAnswer>)]
    groups: BTreeMap<GroupName, SplitAnswer>,
    pins: Vec<PinAnswer>,
    versions: Vec<VersionAnswer>,
    #[schema(required)]
    hold: Option<HoldAnswer>,
    /// What its clients are told while it is in maintenance.
    #[schema(required)]
    maintenance: Option<MaintenanceAnswer>,
    /// Tenants that are in maintenance by themselves.
    tenants_in_maintenance: usize,
    /// Which requests belong to it.
    r#match: Vec<String>,
    /// Where keys come from.
    sticky: Vec<String>,
    /// The rollout that is not over, if there is one: `id`, `to`, `phase`, `step`, and whether it is `paused`.
    #[schema(required)]
    rollout: Option<Value>,
    guard: GuardAnswer,
    /// When rollouts may begin and take steps: `days`, `from`, `to`, `timezone`; empty: at any time.
    #[schema(value_type = Vec<Object>)]
    windows: Vec<TimeWindow>,
    tenants_with_own_split: usize,
    #[schema(required)]
    last_rollback: Option<EventAnswer>,
}

/// A pin.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pin)]
pub(super) struct PinAnswer {
    /// `tenant`, `user` or `group`.
    kind: &'static str,
    name: String,
    /// `{"version": V}` or `{"exclude": V}`; `{"suspended": V}` leads to the baseline since V was disabled.
    #[schema(value_type = BTreeMap<String, String>)]
    pin: Pin,
}

/// A version of a service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionState)]
pub(super) struct VersionAnswer {
    #[schema(value_type = String)]
    name: VersionName,
    /// `file` or `api`.
    source: &'static str,
    /// `baseline`, `canary` (it receives traffic), `disabled` or `idle`.
    role: &'static str,
    /// Percent of the service's own split.
    #[schema(value_type = f64)]
    share: BasisPoints,
    /// Set while somebody keeps it from all traffic.
    #[schema(required)]
    disabled: Option<DisabledAnswer>,
    endpoints: Vec<EndpointAnswer>,
    /// The fields of the file.
    spec: Value,
}

/// An endpoint of a version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub(super) struct EndpointAnswer {
    address: String,
    /// What the active checks say.
    healthy: bool,
    in_flight: u32,
    /// Whether it is out for a while because requests could not connect.
    ejected: bool,
}

/// Every service, a line for each
#[utoipa::path(
    get, path = "/v1/services", tag = "services",
    responses((status = 200, description = "Services by name", body = ServiceList)),
)]
pub(super) async fn list_services(State(cx): State<Cx>) -> Json<ServiceList> {
    Json(ServiceList { services: summaries(&cx, &cx.control.view()) })
}

/// Everything about a service
///
/// The entity tag is the revision to change the service against. Health and load change without it, so the answer is
/// never `304 Not Modified`.
#[utoipa::path(
    get, path = "/v1/services/{service}", tag = "services",
    responses((status = 200, description = "The service", body = ServiceAnswer)),
)]
pub(super) async fn get_service(State(cx): State<Cx>, names: Names) -> Result<Response, Problem> {
    let found = Found::service(&cx, &names.service()?)?;
    let live = found.live();
    let split = |split, scope| SplitAnswer::new(live, split, &scope);
    let groups = live.groups.iter().map(|(g, s)| (g.clone(), split(s, Scope::Group(g.clone())))).collect();
    let recent = cx.lock_windows().stats(found.name(), None, Some(SUMMARY_MS), cx.now());
    let answer = ServiceAnswer {
        name: found.name().clone(),
        revision: live.revision,
        baseline: live.baseline.clone(),
        split: split(&live.split, Scope::Service),
        groups,
        pins: pins(live),
        versions: found.route.versions.iter().map(|v| version(&found.route, v, &recent, cx.now())).collect(),
        hold: live.hold.as_ref().map(HoldAnswer::new),
        maintenance: live.maintenance.service.as_ref().map(MaintenanceAnswer::new),
        tenants_in_maintenance: live.maintenance.tenants.len(),
        r#match: found.route.spec.rules.iter().map(rule).collect(),
        sticky: found.route.spec.sticky.iter().map(sticky).collect(),
        guard: GuardAnswer::new(&found.route.spec.guard),
        windows: found.route.spec.windows.windows.clone(),
        tenants_with_own_split: found.route.tenants.len(),
        rollout: found.view.state.running_rollout(found.name()).map(|running| in_short(&running.rollout)),
        last_rollback: last_rollback(&cx, found.name()).await,
    };
    Ok(tagged(live.revision, Json(answer)))
}

/// A rollout in a line.
fn in_short(rollout: &Rollout) -> Value {
    json!({
        "id": rollout.id, "to": rollout.spec.to, "phase": rollout.phase, "step": rollout.stage.to_string(),
        "paused": rollout.paused.is_some(),
    })
}

/// A line for each service.
pub(super) fn summaries(cx: &Shared, view: &View) -> Vec<ServiceSummary> {
    view.routes.services.iter().map(|route| summary(cx, view, route)).collect()
}

/// A service in a line.
pub(super) fn summary(cx: &Shared, view: &View, route: &ServiceRoute) -> ServiceSummary {
    let (live, now) = (&route.state, cx.now());
    let name = &route.spec.name;
    let split = SplitAnswer::new(live, &live.split, &Scope::Service);
    let stats = cx.lock_windows().stats(name, None, Some(SUMMARY_MS), now);
    let (requests, failed) = stats.iter().fold((0, 0), |(r, f), s| (r + s.requests, f + s.failed));
    ServiceSummary {
        name: name.clone(),
        baseline: live.baseline.clone(),
        weights: split.weights,
        intended: split.intended,
        hold: live.hold.as_ref().map(HoldAnswer::new),
        rolled_back: split.rolled_back,
        maintenance: live.maintenance.service.as_ref().map(MaintenanceAnswer::new),
        tenants_in_maintenance: live.maintenance.tenants.len(),
        disabled_versions: live.disabled.keys().cloned().collect(),
        unverified_versions: unverified(route).cloned().collect(),
        own_splits: route.tenants.len(),
        rollout: view.state.running_rollout(name).map(|running| in_short(&running.rollout)),
        // The sum of nothing is minus zero.
        requests_per_second: stats.iter().map(|s| s.rps).sum::<f64>() + 0.0,
        error_rate: (requests > 0).then(|| failed as f64 / requests as f64),
        verdict: cx.control.board().verdict(name),
        healthy_endpoints: route.versions.iter().map(|v| (v.name.clone(), v.endpoints.available(now))).collect(),
    }
}

/// Versions whose endpoints' certificates are not verified.
pub(super) fn unverified(route: &ServiceRoute) -> impl Iterator<Item = &VersionName> {
    route.versions.iter().filter(|v| v.spec.is_unverified()).map(|v| &v.name)
}

fn pins(live: &ServiceState) -> Vec<PinAnswer> {
    let pin = |kind, name: &str, pin: &Pin| PinAnswer { kind, name: name.to_owned(), pin: pin.clone() };
    let tenants = live.pins.tenants.iter().map(|(n, p)| pin("tenant", n.as_str(), p));
    let users = live.pins.users.iter().map(|(n, p)| pin("user", n.as_str(), p));
    let groups = live.pins.groups.iter().map(|(n, p)| pin("group", n.as_str(), p));
    tenants.chain(users).chain(groups).collect()
}

fn version(route: &ServiceRoute, version: &VersionRoute, recent: &[VersionStats], now: u64) -> VersionAnswer {
    let (live, name) = (&route.state, &version.name);
    let share = live.weights_in_effect(&live.split).share(name.as_str());
    let endpoints = version.endpoints.all();
    let endpoints = endpoints.iter().map(|e| EndpointAnswer {
        address: e.address.to_string(),
        healthy: e.is_healthy(),
        in_flight: e.in_flight(),
        ejected: e.is_ejected(now),
    });
    VersionAnswer {
        name: name.clone(),
        source: if route.spec.versions.contains_key(name) { "file" } else { "api" },
        role: if *name == live.baseline {
            "baseline"
        } else if live.is_disabled(name) {
            "disabled"
        } else if share > BasisPoints::ZERO || receives(live, name, recent) {
            "canary"
        } else {
            "idle"
        },
        share,
        disabled: live.disabled.get(name).map(DisabledAnswer::new),
        endpoints: endpoints.collect(),
        spec: version_to_json(&version.spec),
    }
}

/// Whether a version has traffic besides the service's own split. Tenants may be a million, so theirs is seen by the
/// requests that it leads to.
fn receives(live: &ServiceState, name: &VersionName, recent: &[VersionStats]) -> bool {
    let group = live.groups.values().any(|s| live.weights_in_effect(s).share(name.as_str()) > BasisPoints::ZERO);
    let pinned = live.pins.iter().any(|p| matches!(p, Pin::Version(v) if v == name));
    group || pinned || recent.iter().any(|s| s.version == *name && (s.requests > 0 || s.in_flight > 0))
}

/// The history may be away while the rest is there; the answer is then given without it.
async fn last_rollback(cx: &Shared, service: &ServiceName) -> Option<EventAnswer> {
    let query = EventQuery {
        service: Some(service.clone()),
        kind: Some(EventKind::Rollback),
        limit: 1,
        newest_first: true,
        ..EventQuery::default()
    };
    let events = cx.control.events(query).await.ok()?;
    events.first().map(EventAnswer::new)
}
