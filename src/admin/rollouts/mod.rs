//! Rollouts: started, looked at, and led by the verbs of the field's best-known tool.

mod answers;
pub(super) mod body;
mod candidates;
mod facts;
pub(super) mod logs;
pub(super) mod statistics;
pub(super) mod verbs;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use self::answers::RolloutAnswer;
use self::body::RolloutBody;

use super::asked::{Asked, ReceiptAnswer};
use super::auth::Caller;
use super::body::Body;
use super::context::{Cx, Found, Shared};
use super::parameters::{Names, Parameters, read_name};
use super::precondition::{Conditions, tagged};
use super::problem::{Problem, did_you_mean, echo};
use super::reach;
use crate::model::{Change, LiveRollout, NewRollout, Phase, RolloutId, ServiceName};
use crate::planning::{Report, validate};

/// Rollouts of a page unless the request says otherwise.
const PAGE: u64 = 100;
/// The most rollouts of a page.
const MAX_PAGE: u64 = 1_000;

/// Rollouts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RolloutList)]
pub(super) struct RolloutList {
    /// The newest first.
    rollouts: Vec<RolloutAnswer>,
}

/// What a rollout would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RolloutPlan)]
pub(super) struct PlanAnswer {
    /// Always true: nothing was started.
    dry_run: bool,
    /// Checks, risks, steps in time, and how long it takes.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    report: Report,
}

/// Start a rollout
///
/// Checked first: when something speaks against it (see `checks` of a dry run) it is refused with 409, unless `force` is
/// set. A dry run tells what it would do: the checks, the risks, the steps in time, whom they touch, how long it takes.
#[utoipa::path(
    post, path = "/v1/rollouts", tag = "rollouts",
    request_body = RolloutBody,
    params(("dry_run" = Option<bool>, Query, description = "Only tell what the rollout would do")),
    responses(
        (status = 200, description = "What it would do", body = PlanAnswer),
        (status = 201, description = "It waits for its time; nothing has moved", body = RolloutAnswer),
    ),
)]
pub(super) async fn start_rollout(
    State(cx): State<Cx>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    parameters: Parameters,
    Body(body): Body<RolloutBody>,
) -> Result<Response, Problem> {
    let asked = Asked::new(&cx, caller, &headers, parameters, &body.service)?;
    let (new, report) = prepared(&cx, &asked.found, &body)?;
    let reason = body.reason.clone();
    if asked.is_dry_run() {
        // Whatever the writer would refuse is refused here too.
        asked.submit(Change::StartRollout(Box::new(new)), reason).await?;
        return Ok(Json(PlanAnswer { dry_run: true, report }).into_response());
    }
    speak_for(&report, body.force)?;
    let service = body.service.clone();
    asked.submit(Change::StartRollout(Box::new(new)), reason).await?;
    let live = cx.control.view().state.running_rollout(&service).cloned();
    let live = live.ok_or_else(|| Problem::new(StatusCode::CONFLICT, "over", "the rollout is over already"))?;
    let mut response = tagged(live.rollout.revision, (StatusCode::CREATED, Json(shown(&cx, &live))));
    if let Ok(place) = HeaderValue::try_from(format!("/v1/rollouts/{}", live.rollout.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// The checked plan with everyone it moves, and what was found about it. Nothing is started.
pub(super) fn prepared(cx: &Shared, found: &Found, body: &RolloutBody) -> Result<(NewRollout, Report), Problem> {
    let new = candidates::new_rollout(cx, found, body)?;
    reach::check_gates(&found.view.settings.admin, &new.spec.gates)?;
    let report = validate(&new, &facts::gathered(cx, found, &new));
    Ok((new, report))
}

/// Refuses what the checks speak against, unless it is forced.
pub(super) fn speak_for(report: &Report, force: bool) -> Result<(), Problem> {
    if report.ok || force {
        return Ok(());
    }
    let wrong: Vec<_> = report.checks.iter().filter(|check| !check.ok).map(|check| check.message.as_str()).collect();
    let detail = format!("the checks speak against it: {}; set force to start all the same", wrong.join("; "));
    Err(Problem::new(StatusCode::CONFLICT, "checks", detail))
}

/// Rollouts, running and over
#[utoipa::path(
    get, path = "/v1/rollouts", tag = "rollouts",
    params(
        ("service" = Option<String>, Query, description = "Only rollouts of this service"),
        ("phase" = Option<String>, Query, description = "Only rollouts in this phase"),
        ("limit" = Option<u64>, Query, description = "At most this many, 1 to 1000; 100 unless given"),
    ),
    responses((status = 200, description = "Rollouts, the newest first", body = RolloutList)),
)]
pub(super) async fn list_rollouts(State(cx): State<Cx>, parameters: Parameters) -> Result<Json<RolloutList>, Problem> {
    let parameters = parameters.only(&["service", "phase", "limit"], &[])?;
    let service: Option<ServiceName> = parameters.text("service").map(|t| read_name("service", t)).transpose()?;
    let phase = parameters.text("phase").map(phase).transpose()?;
    let limit = parameters.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE) as usize;
    let found = wanted(&cx, service.as_ref(), phase);
    let rollouts = found.iter().take(limit).map(|live| shown(&cx, live)).collect();
    Ok(Json(RolloutList { rollouts }))
}

/// Rollouts of a service and in a phase, where that is asked; the newest first.
pub(super) fn wanted(cx: &Shared, service: Option<&ServiceName>, phase: Option<Phase>) -> Vec<Arc<LiveRollout>> {
    let view = cx.control.view();
    let is_wanted = |live: &&Arc<LiveRollout>| {
        service.is_none_or(|s| live.rollout.service == *s) && phase.is_none_or(|p| live.rollout.phase == p)
    };
    let mut found: Vec<_> = view.state.rollouts.values().filter(is_wanted).cloned().collect();
    found.sort_by_key(|live| std::cmp::Reverse((live.rollout.created_ms, live.rollout.since_revision)));
    found
}

/// A phase by its name.
pub(super) fn phase(text: &str) -> Result<Phase, Problem> {
    Phase::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| {
        let known = || Phase::ALL.into_iter().map(Phase::as_str);
        let (list, guess) = (known().collect::<Vec<_>>().join(", "), did_you_mean(text, known()));
        Problem::bad("phase", format!("{:?} is no phase; there are: {list}{guess}", echo(text)))
    })
}

/// One rollout
#[utoipa::path(
    get, path = "/v1/rollouts/{id}", tag = "rollouts",
    responses((status = 200, description = "The rollout", body = RolloutAnswer)),
)]
pub(super) async fn get_rollout(State(cx): State<Cx>, names: Names, headers: HeaderMap) -> Result<Response, Problem> {
    let live = find(&cx, &names.rollout()?)?;
    let revision = live.rollout.revision;
    // What it waits for changes without a revision, so only what is over stays as it is.
    if live.rollout.phase.is_final() && Conditions::read(&headers)?.is_known(revision) {
        return Ok(tagged(revision, StatusCode::NOT_MODIFIED));
    }
    Ok(tagged(revision, Json(shown(&cx, &live))))
}

/// A rollout by its name.
pub(super) fn find(cx: &Shared, id: &RolloutId) -> Result<Arc<LiveRollout>, Problem> {
    let view = cx.control.view();
    let known = || view.state.rollouts.keys().rev().take(20).map(RolloutId::as_str);
    view.state.rollouts.get(id).cloned().ok_or_else(|| Problem::unknown("rollout", id.as_str(), known()))
}

fn shown(cx: &Shared, live: &LiveRollout) -> RolloutAnswer {
    RolloutAnswer::new(&live.rollout, cx.control.board().waiting(&live.rollout.id).as_ref())
}
