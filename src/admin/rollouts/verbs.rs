//! What people do to a rollout on its way.

use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::bodies::HoldBody;
use super::super::body::{Body, MaybeBody};
use super::super::problem::Problem;
use super::{Asked, ReceiptAnswer};
use crate::model::{Change, RolloutCommand, Scope, Stage};

/// What to approve.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct PromoteBody {
    /// The step to enter next, as `batch.step` or, with one batch, `step`. Needed where a step asks for approval; another
    /// one than the next is refused.
    #[schema(example = "1.2")]
    step: Option<String>,
    /// Everyone who is left, wholly, as one last step.
    #[serde(default)]
    #[schema(required = false)]
    full: bool,
    /// Why; shown in the history.
    reason: Option<String>,
}

/// Taking everything back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct EndBody {
    /// Why; shown in the history, must not be empty.
    reason: String,
    /// Even past the point of no return.
    #[serde(default)]
    #[schema(required = false)]
    force: bool,
}

async fn submit(asked: Asked, command: RolloutCommand, reason: Option<String>) -> Result<Response, Problem> {
    let id = asked.names.rollout()?;
    asked.submit(Change::Rollout(id, command), reason).await
}

fn needed(reason: String) -> Result<Option<String>, Problem> {
    if reason.trim().is_empty() {
        return Err(Problem::invalid("reason", "is empty; say in a sentence why"));
    }
    Ok(Some(reason))
}

/// Stop the clock of a rollout
///
/// Nothing advances until it is resumed. The guard goes on and still takes traffic back.
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/pause", tag = "rollouts", request_body(content = Option<HoldBody>),
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(in crate::admin) async fn pause_rollout(
    asked: Asked,
    MaybeBody(body): MaybeBody<HoldBody>,
) -> Result<Response, Problem> {
    submit(asked, RolloutCommand::Pause, body.reason).await
}

/// Let a rollout go on
///
/// After a pause, after the canary tenants, after a gate that failed, and after a step without proof, which it then leaves.
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/resume", tag = "rollouts", request_body(content = Option<HoldBody>),
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(in crate::admin) async fn resume_rollout(
    asked: Asked,
    MaybeBody(body): MaybeBody<HoldBody>,
) -> Result<Response, Problem> {
    submit(asked, RolloutCommand::Resume, body.reason).await
}

/// Approve the next step, end the bake of this one, or move everyone at once
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/promote", tag = "rollouts", request_body(content = Option<PromoteBody>),
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(in crate::admin) async fn promote_rollout(
    asked: Asked,
    MaybeBody(body): MaybeBody<PromoteBody>,
) -> Result<Response, Problem> {
    if body.full && body.step.is_some() {
        return Err(Problem::invalid("step", "allowed is only one of step and full"));
    }
    let stage = body.step.as_deref().map(str::parse::<Stage>).transpose();
    let stage = stage.map_err(|why| Problem::invalid("step", why))?;
    submit(asked, RolloutCommand::Promote { stage, full: body.full }, body.reason).await
}

/// End a rollout and take its traffic back
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/abort", tag = "rollouts", request_body = EndBody,
    responses((status = 200, description = "Traffic goes back", body = ReceiptAnswer)),
)]
pub(in crate::admin) async fn abort_rollout(asked: Asked, Body(body): Body<EndBody>) -> Result<Response, Problem> {
    let reason = needed(body.reason)?;
    submit(asked, RolloutCommand::Abort { force: body.force }, reason).await
}

/// Begin a rollout that went back again, with everyone who went back
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/retry", tag = "rollouts", request_body(content = Option<HoldBody>),
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(in crate::admin) async fn retry_rollout(
    asked: Asked,
    MaybeBody(body): MaybeBody<HoldBody>,
) -> Result<Response, Problem> {
    submit(asked, RolloutCommand::Retry, body.reason).await
}

/// Take a completed rollout back
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/undo", tag = "rollouts", request_body = EndBody,
    responses((status = 200, description = "Traffic goes back", body = ReceiptAnswer)),
)]
pub(in crate::admin) async fn undo_rollout(asked: Asked, Body(body): Body<EndBody>) -> Result<Response, Problem> {
    let reason = needed(body.reason)?;
    submit(asked, RolloutCommand::Undo { force: body.force }, reason).await
}

/// Take one tenant of a rollout back
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/tenants/{tenant}/rollback", tag = "rollouts", request_body = EndBody,
    responses((status = 200, description = "Traffic is back", body = ReceiptAnswer)),
)]
pub(in crate::admin) async fn rollback_rollout_tenant(
    asked: Asked,
    Body(body): Body<EndBody>,
) -> Result<Response, Problem> {
    let reason = needed(body.reason)?;
    let scope = Scope::Tenant(asked.names.tenant()?);
    let id = asked.names.rollout()?;
    let canary = asked.found.view.state.rollouts.get(&id).map(|live| live.rollout.spec.to.clone());
    let change = Change::Rollback { scope, canary, cause: "person".to_owned(), first_bad_ms: None };
    asked.submit(change, reason).await
}
