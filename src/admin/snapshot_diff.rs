//! What going back to a snapshot would change, in counts and the first entries of each kind.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::HoldAnswer;
use super::context::Cx;
use super::parameters::{Names, Parameters, read_name};
use super::problem::Problem;
use crate::model::{
    Hold, Pin, PinTarget, Scope, ServiceName, ServiceRestore, SnapshotName, SplitStep, VersionName, Weights, Withheld,
};

/// Entries of each kind that are listed unless the query says.
const LISTED: u64 = 20;
/// The most that are.
const MAX_LISTED: u64 = 1_000;

/// What a restore would change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SnapshotDiff)]
pub(super) struct DiffAnswer {
    #[schema(value_type = String)]
    snapshot: SnapshotName,
    /// Revision of the state that it was compared with.
    revision: u64,
    /// Whether a restore would change nothing.
    same: bool,
    #[schema(value_type = BTreeMap<String, ServiceDiff>)]
    services: BTreeMap<ServiceName, ServiceDiff>,
}

/// What it would change in one service.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServiceDiff {
    /// Whether the service is as it was.
    same: bool,
    /// Set when the baseline differs.
    #[schema(required)]
    baseline: Option<BaselineDiff>,
    /// Set when the hold differs.
    #[schema(required)]
    hold: Option<HoldDiff>,
    /// Whether the service's own split changes.
    split: bool,
    /// How many groups' splits change.
    groups: usize,
    /// How many tenants' splits change.
    tenants: usize,
    /// The first splits that change: the service's, then groups', then tenants'.
    splits: Vec<SplitDiff>,
    /// How many pins change.
    pins_total: usize,
    /// The first of them.
    pins: Vec<PinDiff>,
    /// How much of the snapshot does not come back.
    withheld_total: usize,
    /// The first of it.
    withheld: Vec<WithheldAnswer>,
}

/// Another baseline.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BaselineDiff {
    #[schema(value_type = String)]
    before: VersionName,
    #[schema(value_type = String)]
    after: VersionName,
}

/// Another hold.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HoldDiff {
    #[schema(required)]
    before: Option<HoldAnswer>,
    #[schema(required)]
    after: Option<HoldAnswer>,
}

/// Another split.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SplitDiff {
    /// `service`, `group NAME` or `tenant NAME`.
    scope: String,
    /// Percent by version; null while it follows the less specific split.
    #[schema(required, value_type = Option<BTreeMap<String, f64>>)]
    before: Option<Weights>,
    /// Null when it follows the less specific split again.
    #[schema(required, value_type = Option<BTreeMap<String, f64>>)]
    after: Option<Weights>,
    /// Percent of the keys that go to another version, when there is a split before and after.
    #[schema(required)]
    moved_percent: Option<f64>,
}

/// Another pin.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PinDiff {
    /// `tenant NAME`, `user NAME` or `group NAME`.
    target: String,
    /// `version`, `exclude` or `suspended`, with the version; null: there is none.
    #[schema(required, value_type = Option<Object>)]
    before: Option<Pin>,
    #[schema(required, value_type = Option<Object>)]
    after: Option<Pin>,
}

/// Traffic or a pin that does not come back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Withheld)]
pub(super) struct WithheldAnswer {
    /// A scope, or `the pin of …`.
    whose: String,
    #[schema(value_type = String)]
    version: VersionName,
    /// `disabled` or `rolled_back`.
    why: &'static str,
}

/// What going back to a snapshot would change
#[utoipa::path(
    get, path = "/v1/snapshots/{snapshot}/diff", tag = "snapshots",
    params(
        ("service" = Option<Vec<String>>, Query, description = "Only these services; may be repeated"),
        ("force" = Option<bool>, Query, description = "As if restored with `force`"),
        ("limit" = Option<u64>, Query, description = "Entries of each kind to list, 1 to 1000; 20 unless given"),
    ),
    responses((status = 200, description = "Compared with the state of now", body = DiffAnswer)),
)]
pub(super) async fn diff_snapshot(
    State(cx): State<Cx>,
    names: Names,
    parameters: Parameters,
) -> Result<Json<DiffAnswer>, Problem> {
    let parameters = parameters.only(&["force", "limit"], &["service"])?;
    let name: SnapshotName = read_name("snapshot", names.text("snapshot"))?;
    let limit = parameters.number("limit", 1..=MAX_LISTED)?.unwrap_or(LISTED) as usize;
    let force = parameters.flag("force")?;
    let services = parameters.all("service").map(|text| read_name("service", text)).collect::<Result<Vec<_>, _>>()?;
    let services = (!services.is_empty()).then_some(services);
    let (_, snapshot) = cx.control.snapshot(&name, None).await?;
    let view = cx.control.view();
    // A million tenants take a while, and this thread has others to serve.
    let compared = tokio::task::spawn_blocking(move || {
        let plan = view.state.plan_restore(&view.settings.structure, &snapshot, services.as_deref(), force)?;
        let same = plan.is_empty();
        let services = plan.services.into_iter().map(|(name, restore)| (name, ServiceDiff::new(&restore, limit)));
        Ok(DiffAnswer { snapshot: name, revision: view.state.revision, same, services: services.collect() })
    });
    let ended = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "", "the comparison ended before it was done");
    compared.await.map_err(ended)?.map(Json)
}

impl ServiceDiff {
    fn new(restore: &ServiceRestore, limit: usize) -> Self {
        let (groups, tenants) = restore.groups_and_tenants();
        let hold = |hold: &Option<Hold>| hold.as_ref().map(HoldAnswer::new);
        let baseline = |(before, after): &(VersionName, VersionName)| {
            let (before, after) = (before.clone(), after.clone());
            BaselineDiff { before, after }
        };
        Self {
            same: restore.is_empty(),
            baseline: restore.baseline.as_ref().map(baseline),
            hold: restore.hold.as_ref().map(|(before, after)| HoldDiff { before: hold(before), after: hold(after) }),
            split: restore.splits.iter().any(|step| step.scope == Scope::Service),
            groups,
            tenants,
            splits: restore.splits.iter().take(limit).map(SplitDiff::new).collect(),
            pins_total: restore.pins.len(),
            pins: restore.pins.iter().take(limit).map(PinDiff::new).collect(),
            withheld_total: restore.withheld.len(),
            withheld: restore.withheld.iter().take(limit).map(WithheldAnswer::new).collect(),
        }
    }
}

impl SplitDiff {
    fn new(step: &SplitStep) -> Self {
        let both = step.before.as_ref().zip(step.after.as_ref());
        Self {
            scope: step.scope.to_string(),
            before: step.before.as_ref().map(|before| before.weights()),
            after: step.after.as_ref().map(|after| after.weights()),
            moved_percent: both.map(|(before, after)| before.moved_percent(after)),
        }
    }
}

impl PinDiff {
    fn new((target, before, after): &(PinTarget, Option<Pin>, Option<Pin>)) -> Self {
        Self { target: target.to_string(), before: before.clone(), after: after.clone() }
    }
}

impl WithheldAnswer {
    fn new(withheld: &Withheld) -> Self {
        let Withheld { whose, version, why } = withheld.clone();
        Self { whose, version, why }
    }
}
