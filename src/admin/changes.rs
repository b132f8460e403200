//! Pins, holds, the baseline and the way back: each handler reads one change and hands it over.

use axum::response::Response;

use super::asked::{Asked, ReceiptAnswer};
use super::bodies::{BaselineBody, HoldBody, PinBody, RollbackBody};
use super::body::{Body, MaybeBody};
use super::parameters::Names;
use super::problem::{Problem, did_you_mean, echo};
use crate::model::{Change, Pin, PinTarget, Scope};

/// What the history calls a rollback that somebody asked for.
const PERSON: &str = "person";

/// Pin or exclude a tenant, user or group
#[utoipa::path(
    put, path = "/v1/services/{service}/pins/{kind}/{name}", tag = "pins",
    request_body = PinBody,
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_pin(asked: Asked, Body(body): Body<PinBody>) -> Result<Response, Problem> {
    let target = target(&asked.names)?;
    let pin = match (body.version, body.exclude) {
        (Some(version), None) => Pin::Version(version),
        (None, Some(version)) => Pin::Exclude(version),
        _ => return Err(Problem::invalid("version", "allowed is exactly one of version and exclude")),
    };
    asked.submit(Change::SetPin(target, pin), body.reason).await
}

/// Remove a pin
#[utoipa::path(
    delete, path = "/v1/services/{service}/pins/{kind}/{name}", tag = "pins",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn delete_pin(asked: Asked) -> Result<Response, Problem> {
    let target = target(&asked.names)?;
    asked.submit(Change::ClearPin(target), None).await
}

/// Forbid automation to advance
#[utoipa::path(
    put, path = "/v1/services/{service}/hold", tag = "services",
    request_body(content = Option<HoldBody>),
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_hold(asked: Asked, MaybeBody(body): MaybeBody<HoldBody>) -> Result<Response, Problem> {
    asked.submit(Change::SetHold, body.reason).await
}

/// Allow automation to advance again
#[utoipa::path(
    delete, path = "/v1/services/{service}/hold", tag = "services",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn delete_hold(asked: Asked) -> Result<Response, Problem> {
    asked.submit(Change::ClearHold, None).await
}

/// Trust another version
#[utoipa::path(
    put, path = "/v1/services/{service}/baseline", tag = "versions",
    request_body = BaselineBody,
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_baseline(asked: Asked, Body(body): Body<BaselineBody>) -> Result<Response, Problem> {
    asked.submit(Change::SetBaseline(body.version), body.reason).await
}

/// All of a service's traffic back to the baseline, at once
#[utoipa::path(
    post, path = "/v1/services/{service}/rollback", tag = "rollback",
    request_body = RollbackBody,
    responses((status = 200, description = "Traffic is back", body = ReceiptAnswer)),
)]
pub(super) async fn rollback_service(asked: Asked, Body(body): Body<RollbackBody>) -> Result<Response, Problem> {
    roll_back(asked, Scope::Service, body).await
}

/// All of a tenant's traffic back to the baseline, at once
#[utoipa::path(
    post, path = "/v1/services/{service}/tenants/{tenant}/rollback", tag = "rollback",
    request_body = RollbackBody,
    responses((status = 200, description = "Traffic is back", body = ReceiptAnswer)),
)]
pub(super) async fn rollback_tenant(asked: Asked, Body(body): Body<RollbackBody>) -> Result<Response, Problem> {
    let scope = Scope::Tenant(asked.names.tenant()?);
    roll_back(asked, scope, body).await
}

async fn roll_back(asked: Asked, scope: Scope, body: RollbackBody) -> Result<Response, Problem> {
    if body.reason.trim().is_empty() {
        return Err(Problem::invalid("reason", "is empty; say in a sentence why traffic goes back"));
    }
    let change = Change::Rollback { scope, canary: body.version, cause: PERSON.to_owned(), first_bad_ms: None };
    asked.submit(change, Some(body.reason)).await
}

fn target(names: &Names) -> Result<PinTarget, Problem> {
    const KINDS: [&str; 3] = ["tenant", "user", "group"];
    match names.text("kind") {
        "tenant" => names.named_tenant().map(PinTarget::Tenant),
        "user" => names.named_user().map(PinTarget::User),
        "group" => names.named_group().map(PinTarget::Group),
        other => {
            let guess = did_you_mean(other, KINDS);
            let message = format!("{:?} is no kind of pin; allowed are {}{guess}", echo(other), KINDS.join(", "));
            Err(Problem::bad("kind", message))
        }
    }
}
