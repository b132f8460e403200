//! Snapshots: taken, listed, looked at, compared with what is now, restored and deleted.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers::{AuthorSchema, HoldAnswer, time};
use super::asked::ReceiptAnswer;
use super::asked_global::{AskedGlobal, answer};
use super::auth::Caller;
use super::body::{Body, MaybeBody};
use super::context::Cx;
use super::parameters::{Names, read_name};
use super::problem::Problem;
use crate::config::Role;
use crate::control::SnapshotError;
use crate::model::{
    Author, EventKind, GlobalChange, GroupName, ServiceName, ServiceSnapshot, SnapshotName, SnapshotSummary, Snapshots,
    TenantName, VersionName, Weights,
};

/// Tenants of each service that an answer lists.
const MAX_LISTED: usize = 100;

/// What to take a snapshot of.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotBody {
    /// 1 to 63 letters, digits, `.`, `_`, `-`, `+`; the time of now unless given.
    #[schema(example = "before-the-sale")]
    pub name: Option<String>,
    /// Why; shown in the list and in the history.
    pub reason: Option<String>,
    /// Only these services.
    #[schema(value_type = Option<Vec<String>>)]
    pub services: Option<Vec<ServiceName>>,
}

/// How to restore a snapshot.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreBody {
    /// Why; shown in the history.
    #[schema(example = "the sale is over")]
    pub reason: String,
    /// Only these services.
    #[schema(value_type = Option<Vec<String>>)]
    pub services: Option<Vec<ServiceName>>,
    /// Whether versions that were rolled back since get their traffic again.
    #[serde(default)]
    #[schema(required = false)]
    pub force: bool,
}

/// All snapshots.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SnapshotList)]
pub(super) struct ListAnswer {
    /// The newest first.
    snapshots: Vec<SummaryAnswer>,
    /// How many are kept at most.
    most: usize,
}

/// What the list tells of a snapshot.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SnapshotSummary)]
pub(super) struct SummaryAnswer {
    #[schema(value_type = String)]
    name: SnapshotName,
    at: String,
    #[schema(value_type = AuthorSchema)]
    author: Author,
    reason: String,
    /// Revision of the state that it shows.
    revision: u64,
    /// What it has of each service.
    #[schema(value_type = BTreeMap<String, SnapshotCountsAnswer>)]
    services: BTreeMap<ServiceName, SnapshotCountsAnswer>,
}

/// How much a snapshot has of one service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SnapshotCounts)]
pub(super) struct SnapshotCountsAnswer {
    /// Groups with a split of their own.
    groups: usize,
    /// Tenants with a split of their own.
    tenants: usize,
    pins: usize,
    /// Whether automation was held.
    held: bool,
}

/// A whole snapshot.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Snapshot)]
pub(super) struct SnapshotAnswer {
    #[schema(value_type = String)]
    name: SnapshotName,
    at: String,
    #[schema(value_type = AuthorSchema)]
    author: Author,
    reason: String,
    /// Revision of the state that it shows.
    revision: u64,
    #[schema(value_type = BTreeMap<String, ServiceSnapshotAnswer>)]
    services: BTreeMap<ServiceName, ServiceSnapshotAnswer>,
}

/// What one service was like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceSnapshot)]
pub(super) struct ServiceSnapshotAnswer {
    #[schema(value_type = String)]
    baseline: VersionName,
    /// Percent by version, as asked for; brakes are not part of a snapshot.
    #[schema(value_type = BTreeMap<String, f64>)]
    weights: Weights,
    /// Groups with a split of their own.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, f64>>)]
    groups: BTreeMap<GroupName, Weights>,
    #[schema(required)]
    hold: Option<HoldAnswer>,
    pins_total: usize,
    tenants_total: usize,
    /// Tenants with a split of their own, by name; the first 100.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, f64>>)]
    tenants: BTreeMap<TenantName, Weights>,
}

/// Take a snapshot
///
/// It has the splits, pins, holds and baselines of one moment. Brakes, versions, maintenance and what is disabled are not
/// part of it. Refused when there is one of that name, or when there are 100.
#[utoipa::path(
    post, path = "/v1/snapshots", tag = "snapshots",
    request_body(content = Option<SnapshotBody>),
    responses((status = 200, description = "Durable; `after` has its name", body = ReceiptAnswer)),
)]
pub(super) async fn take_snapshot(
    asked: AskedGlobal,
    MaybeBody(body): MaybeBody<SnapshotBody>,
) -> Result<Response, Problem> {
    let name = match body.name.as_deref() {
        None => default_name(),
        Some(text) => text.parse().map_err(|e| Problem::invalid("name", format!("{text:?} {e}")))?,
    };
    if let Some(services) = &body.services {
        let view = asked.view();
        let known: Vec<_> = view.settings.structure.services.keys().map(ServiceName::as_str).collect();
        if let Some(unknown) = services.iter().find(|s| !known.contains(&s.as_str())) {
            return Err(Problem::invalid(
                "services",
                format!("there is no {unknown:?}; there are: {}", known.join(", ")),
            ));
        }
        if services.is_empty() {
            return Err(Problem::invalid("services", "is empty; leave it out for all services"));
        }
    }
    let reason = asked.reason(body.reason)?;
    let taken = asked.control().take_snapshot(name, body.services, asked.author(), reason, asked.dry_run).await?;
    Ok(answer(EventKind::SnapshotTaken, taken))
}

/// Every snapshot
#[utoipa::path(
    get, path = "/v1/snapshots", tag = "snapshots",
    responses((status = 200, description = "The newest first", body = ListAnswer)),
)]
pub(super) async fn list_snapshots(State(cx): State<Cx>) -> Json<ListAnswer> {
    let view = cx.control.view();
    let mut all: Vec<_> = view.state.snapshots.all.iter().collect();
    all.sort_by_key(|(_, summary)| std::cmp::Reverse(summary.at_ms));
    let snapshots = all.into_iter().map(|(name, summary)| SummaryAnswer::new(name, summary)).collect();
    Json(ListAnswer { snapshots, most: Snapshots::MAX })
}

/// One snapshot
#[utoipa::path(
    get, path = "/v1/snapshots/{snapshot}", tag = "snapshots",
    responses((status = 200, description = "What it has", body = SnapshotAnswer)),
)]
pub(super) async fn get_snapshot(State(cx): State<Cx>, names: Names) -> Result<Json<SnapshotAnswer>, Problem> {
    let name: SnapshotName = read_name("snapshot", names.text("snapshot"))?;
    let (summary, snapshot) = cx.control.snapshot(&name, None).await?;
    let SnapshotSummary { author, reason, at_ms, revision, .. } = summary;
    let services = snapshot.services.iter().map(|(name, of)| (name.clone(), ServiceSnapshotAnswer::new(of))).collect();
    Ok(Json(SnapshotAnswer { name, at: time(at_ms), author, reason, revision, services }))
}

/// Go back to a snapshot
///
/// What is as it was stays untouched; what differs becomes a fresh attempt in which the same keys are on the same versions
/// again. Disabled versions get no traffic, and versions that were rolled back since stay away from where they have none
/// now, unless `force` is true; `withheld` counts both. Refused when something that the snapshot names exists no more.
/// Takes the role admin where a baseline changes.
#[utoipa::path(
    post, path = "/v1/snapshots/{snapshot}/restore", tag = "snapshots",
    request_body = RestoreBody,
    responses((status = 200, description = "Durable and in effect, in one step", body = ReceiptAnswer)),
)]
pub(super) async fn restore_snapshot(
    asked: AskedGlobal,
    Extension(caller): Extension<Caller>,
    Body(body): Body<RestoreBody>,
) -> Result<Response, Problem> {
    if body.reason.trim().is_empty() {
        return Err(Problem::invalid("reason", "is empty; say in a sentence why traffic goes back"));
    }
    if body.services.as_ref().is_some_and(Vec::is_empty) {
        return Err(Problem::invalid("services", "is empty; leave it out for all services"));
    }
    let name = asked.snapshot()?;
    let (_, snapshot) = asked.control().snapshot(&name, None).await?;
    let snapshot = std::sync::Arc::new(snapshot);
    if let Err(forbidden) = caller.may(Role::Admin) {
        let (view, was, services, force) = (asked.view(), snapshot.clone(), body.services.clone(), body.force);
        // A million tenants take a while, and this thread has others to serve.
        let planned = tokio::task::spawn_blocking(move || {
            view.state.plan_restore(&view.settings.structure, &was, services.as_deref(), force)
        });
        let ended = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "", "the comparison ended before it was done");
        if planned.await.map_err(ended)??.services.values().any(|service| service.baseline.is_some()) {
            return Err(forbidden);
        }
    }
    let change = GlobalChange::RestoreSnapshot { name, snapshot, services: body.services, force: body.force };
    asked.submit(change, Some(body.reason), 0).await
}

/// Delete a snapshot
#[utoipa::path(
    delete, path = "/v1/snapshots/{snapshot}", tag = "snapshots",
    responses((status = 200, description = "It is gone", body = ReceiptAnswer)),
)]
pub(super) async fn delete_snapshot(asked: AskedGlobal) -> Result<Response, Problem> {
    let name = asked.snapshot()?;
    let view = asked.view();
    let all = &view.state.snapshots.all;
    if !all.contains_key(&name) {
        return Err(Problem::unknown("snapshot", name.as_str(), all.keys().map(SnapshotName::as_str)));
    }
    asked.submit(GlobalChange::DeleteSnapshot(name), None, 0).await
}

impl SummaryAnswer {
    fn new(name: &SnapshotName, summary: &SnapshotSummary) -> Self {
        let services = summary.services.iter().map(|(service, counts)| {
            let counts = SnapshotCountsAnswer {
                groups: counts.groups,
                tenants: counts.tenants,
                pins: counts.pins,
                held: counts.held,
            };
            (service.clone(), counts)
        });
        Self {
            name: name.clone(),
            at: time(summary.at_ms),
            author: summary.author.clone(),
            reason: summary.reason.clone(),
            revision: summary.revision,
            services: services.collect(),
        }
    }
}

impl ServiceSnapshotAnswer {
    fn new(of: &ServiceSnapshot) -> Self {
        let tenants = of.tenants.iter().take(MAX_LISTED);
        Self {
            baseline: of.baseline.clone(),
            weights: of.split.weights(),
            groups: of.groups.iter().map(|(name, split)| (name.clone(), split.weights())).collect(),
            hold: of.hold.as_ref().map(HoldAnswer::new),
            pins_total: of.pins.len(),
            tenants_total: of.tenants.len(),
            tenants: tenants.map(|(name, split)| (name.clone(), split.weights())).collect(),
        }
    }
}

impl From<SnapshotError> for Problem {
    fn from(error: SnapshotError) -> Self {
        let text = error.to_string();
        match error {
            SnapshotError::Unknown { name, known } => Self::unknown("snapshot", name.as_str(), known.split(", ")),
            SnapshotError::ReadOnly => Self::new(StatusCode::SERVICE_UNAVAILABLE, "read_only", text).retry_after(60),
            SnapshotError::Store(error) => error.into(),
            SnapshotError::Damaged { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged", text),
        }
    }
}

/// The time of now, in characters that a name may have.
fn default_name() -> SnapshotName {
    let text = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%3fZ").to_string();
    SnapshotName::new(&text).expect("a time has digits, dashes and dots")
}
