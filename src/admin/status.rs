//! The process itself: what it is, whether it takes traffic, its metrics, and reading the configuration again.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Upgraded;
use super::context::{Cx, Shared};
use super::freeze::{FreezeAnswer, now_ms};
use super::problem::Problem;
use super::services::{ServiceSummary, summaries, unverified};
use crate::config::Settings;
use crate::control::{Fleet, FleetMember, ReloadReport};
use crate::store::Role;

/// How long the store may take to say that it is there.
const PING_TIME: Duration = Duration::from_secs(2);

/// What the process says of itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub(super) struct StatusAnswer {
    /// Name of this process among others.
    pub instance: String,
    pub version: &'static str,
    /// Revision of the state.
    pub revision: u64,
    pub started: String,
    pub uptime_seconds: f64,
    pub ready: bool,
    pub draining: bool,
    /// Whether changes are refused because the process runs on the last good copy of its state.
    pub read_only: bool,
    /// Set while no automation may advance anything.
    #[schema(required)]
    pub freeze: Option<FreezeAnswer>,
    pub store: StoreStatus,
    /// The processes that share the store; none when this one is alone with it.
    #[schema(required)]
    pub fleet: Option<FleetAnswer>,
    pub proxy: ProxyAnswer,
    pub services: Vec<ServiceSummary>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

/// The store.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoreStatus {
    pub kind: &'static str,
    pub path: String,
    /// Whether it takes changes now.
    pub up: bool,
}

/// The processes that share the store, as this one knows them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fleet)]
pub(super) struct FleetAnswer {
    /// What this process does: `leader` judges what all count and advances, `standby` is the next to do so, `follower`
    /// tells what it counts; `alone` is cut off, and takes traffic back by what it counts itself.
    pub role: &'static str,
    /// Name of the leader.
    #[schema(required)]
    pub leader: Option<String>,
    pub members: Vec<MemberAnswer>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetMember)]
pub(super) struct MemberAnswer {
    pub instance: String,
    /// Release of the program.
    pub version: String,
    pub role: &'static str,
    /// Whether it is the process that answers.
    pub here: bool,
    /// Revision of the state that is in effect there.
    pub revision: u64,
    /// How many revisions it is behind the newest that any of them has.
    pub lag: u64,
    /// `ok`; `starting`, `draining`; `refused`: the store's state does not fit it; `unconfirmed`: changes of the guard are in
    /// effect there that the store has not taken; `unknown`: this process is cut off, or the other one has said nothing.
    pub health: &'static str,
    /// Revision of the state that does not fit it, and why.
    #[schema(required)]
    pub refused: Option<RefusedAnswer>,
    /// When it said so.
    #[schema(required)]
    pub seen: Option<String>,
}

/// A state of the store that does not fit a process.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefusedState)]
pub(super) struct RefusedAnswer {
    pub revision: u64,
    pub reason: String,
}

/// The data plane.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProxyStatus)]
pub(super) struct ProxyAnswer {
    #[schema(value_type = Vec<String>)]
    pub listen: Vec<SocketAddr>,
    pub open_connections: i64,
}

/// What a reload came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReloadReport)]
pub(super) struct ReloadAnswer {
    revision: u64,
    /// Parts of the file that are different and in effect now.
    changed: Vec<String>,
    /// Parts of the file that are different and need a restart.
    needs_restart: Vec<String>,
    warnings: Vec<String>,
}

/// One process has taken over from another.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UpgradeReport)]
pub(super) struct UpgradeAnswer {
    /// Number of the process that only finishes its requests now.
    from: u32,
    /// Number of the process that serves.
    to: u32,
}

/// The process, its store and every service
#[utoipa::path(
    get, path = "/v1/status", tag = "process",
    responses((status = 200, description = "The status", body = StatusAnswer)),
)]
pub(super) async fn get_status(State(cx): State<Cx>) -> Json<StatusAnswer> {
    let up = store_is_up(&cx).await;
    Json(status_now(&cx, up))
}

/// Whether the store takes changes.
pub(super) async fn store_is_up(cx: &Shared) -> bool {
    tokio::time::timeout(PING_TIME, cx.control.ping()).await.is_ok_and(|answer| answer.is_ok())
}

/// The status of now. `up`: whether the store takes changes.
pub(super) fn status_now(cx: &Shared, up: bool) -> StatusAnswer {
    let (view, readiness, proxy) = (cx.control.view(), (cx.ready)(), (cx.proxy)());
    let mut warnings = view.settings.warnings.clone();
    if !readiness.ready && !readiness.reason.is_empty() {
        warnings.push(format!("not ready: {}", readiness.reason));
    }
    if view.read_only {
        warnings.push("the store could not be opened; the last good copy is served and changes are refused".to_owned());
    }
    if !view.confirmed {
        warnings.push("the store is away; changes of the guard are in effect here and wait to be written".to_owned());
    }
    let fleet = cx.control.fleet().map(FleetAnswer::new);
    for member in fleet.iter().flat_map(|fleet| &fleet.members) {
        if let Some(RefusedAnswer { revision, reason }) = &member.refused {
            warnings.push(format!("the state of revision {revision} does not fit {}: {reason}", member.instance));
        }
    }
    for route in &view.routes.services {
        let service = &route.spec.name;
        warnings.extend(unverified(route).map(|version| {
            format!("{service}: certificates of version {version} are not verified, so anyone may answer in its place")
        }));
    }
    let uptime = jiff::Timestamp::now().duration_since(cx.started).as_secs_f64();
    StatusAnswer {
        instance: cx.instance.clone(),
        version: env!("CARGO_PKG_VERSION"),
        revision: view.state.revision,
        started: cx.started.to_string(),
        uptime_seconds: uptime.max(0.0),
        ready: readiness.ready,
        draining: readiness.draining,
        read_only: view.read_only,
        freeze: view.state.freeze_at(now_ms()).map(FreezeAnswer::new),
        store: store_status(&view.settings, up && !view.read_only),
        fleet,
        proxy: ProxyAnswer { listen: proxy.listen, open_connections: proxy.open_connections },
        services: summaries(cx, &view),
        warnings,
    }
}

impl FleetAnswer {
    fn new(fleet: Fleet) -> Self {
        let newest = fleet.members.iter().flat_map(|m| &m.card).map(|card| card.revision).max().unwrap_or_default();
        let members: Vec<_> = fleet.members.into_iter().map(|m| MemberAnswer::new(m, fleet.role, newest)).collect();
        let leader = members.first().filter(|_| fleet.role != Role::Alone).map(|member| member.instance.clone());
        Self { role: fleet.role.as_str(), leader, members }
    }
}

impl MemberAnswer {
    fn new(member: FleetMember, role: Role, newest: u64) -> Self {
        let FleetMember { card, role: own, here } = member;
        let known = card.is_some();
        let card = card.unwrap_or_default();
        let health = match (&card.refused, card.phase.as_str()) {
            _ if !known || (role == Role::Alone && !here) => "unknown",
            (Some(_), _) => "refused",
            _ if !card.confirmed => "unconfirmed",
            (_, "ready") => "ok",
            (_, "draining") => "draining",
            _ => "starting",
        };
        let seen = i64::try_from(card.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        Self {
            instance: card.instance,
            version: card.release,
            role: if role == Role::Alone && here { role.as_str() } else { own.as_str() },
            here,
            revision: card.revision,
            lag: newest.saturating_sub(card.revision),
            health,
            refused: card.refused.map(|refused| RefusedAnswer { revision: refused.revision, reason: refused.why }),
            seen: seen.filter(|_| known).map(|at| at.to_string()),
        }
    }
}

fn store_status(settings: &Settings, up: bool) -> StoreStatus {
    let store = &settings.store;
    match &store.etcd {
        Some(etcd) => {
            let path = format!("{}{}", etcd.endpoints.join(","), etcd.prefix);
            StoreStatus { kind: "etcd", path, up }
        }
        None => StoreStatus { kind: "embedded", path: store.path.display().to_string(), up },
    }
}

/// Read the configuration file again
#[utoipa::path(
    post, path = "/v1/reload", tag = "process",
    responses((status = 200, description = "In effect, but for what needs a restart", body = ReloadAnswer)),
)]
pub(super) async fn reload(State(cx): State<Cx>) -> Result<Json<ReloadAnswer>, Problem> {
    let ReloadReport { revision, changed, needs_restart, warnings } = (cx.reload)().await?;
    Ok(Json(ReloadAnswer { revision, changed, needs_restart, warnings }))
}

/// Start the program anew and let it take over
///
/// Answered when the new process serves; this one then finishes its requests and ends. The new one is started with the
/// command line of this one, so it is of another release if the program was replaced.
#[utoipa::path(
    post, path = "/v1/upgrade", tag = "process",
    responses((status = 200, description = "The new process serves", body = UpgradeAnswer)),
)]
pub(super) async fn upgrade(State(cx): State<Cx>) -> Result<Json<UpgradeAnswer>, Problem> {
    let Upgraded { from, to } = (cx.upgrade)().await?;
    Ok(Json(UpgradeAnswer { from, to }))
}

/// Whether the process lives
#[utoipa::path(
    get, path = "/livez", tag = "process",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(super) async fn livez() -> &'static str {
    "ok"
}

/// Whether the process takes traffic
#[utoipa::path(
    get, path = "/readyz", tag = "process",
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain"),
        (status = 503, description = "It does not; the body says why", body = String, content_type = "text/plain"),
    ),
)]
pub(super) async fn readyz(State(cx): State<Cx>) -> Response {
    let readiness = (cx.ready)();
    if readiness.ready && !readiness.draining {
        return "ok".into_response();
    }
    let reason = match (readiness.reason.is_empty(), readiness.draining) {
        (false, _) => readiness.reason,
        (true, true) => "draining".to_owned(),
        (true, false) => "not ready".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

/// Metrics in Prometheus' text format
#[utoipa::path(
    get, path = "/metrics", tag = "process",
    responses((status = 200, description = "Every family", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(State(cx): State<Cx>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], cx.metrics.render()).into_response()
}

/// This description
#[utoipa::path(
    get, path = "/openapi.json", tag = "process",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
pub(super) async fn openapi(State(cx): State<Cx>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], cx.description.clone()).into_response()
}
