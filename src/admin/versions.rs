//! Versions at run time: every deployment brings one, and old ones go when nothing uses them any more.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::asked::{Asked, ReceiptAnswer};
use super::bodies::{DisableBody, VersionBody};
use super::body::{Body, MaybeBody};
use super::problem::Problem;
use super::reach;
use crate::config::version_from_json;
use crate::model::{Change, EndpointSpec, VersionSpec};
use crate::proxy::check_version;

/// Register or change a version
#[utoipa::path(
    put, path = "/v1/services/{service}/versions/{version}", tag = "versions",
    request_body = VersionBody,
    responses(
        (
            status = 200,
            description = "Durable and in effect; the version has no traffic until a split gives it some",
            body = ReceiptAnswer,
        ),
    ),
)]
pub(super) async fn put_version(asked: Asked, Body(body): Body<Value>) -> Result<Response, Problem> {
    let name = asked.names.version()?;
    let spec = version_from_json(&body).map_err(|mistakes| {
        let list: Vec<_> = mistakes.iter().map(|m| format!("{}: {}", m.field, m.message)).collect();
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", list.join("; "));
        mistakes.iter().fold(problem, |problem, m| problem.field(&m.field, &m.message))
    })?;
    if needs_tenants(&spec) && asked.found.view.settings.structure.tenants.identify.is_empty() {
        let message = "have {tenant} in them, but tenants.identify in the configuration names no tenants";
        return Err(Problem::invalid("endpoints", message));
    }
    let settings = asked.found.view.settings.clone();
    reach::check(&settings.admin, &spec).await?;
    let looked_at = tokio::task::spawn_blocking(move || check_version(&settings, &spec).map(|()| spec)).await;
    let spec = match looked_at {
        Ok(Ok(spec)) => spec,
        Ok(Err(error)) => return Err(Problem::invalid("tls", error.to_string())),
        Err(_) => return Err(Problem::invalid("tls", "its files could not be looked at")),
    };
    asked.submit(Change::PutVersion(name, Arc::new(spec)), None).await
}

/// Remove a version that nothing uses
#[utoipa::path(
    delete, path = "/v1/services/{service}/versions/{version}", tag = "versions",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn delete_version(asked: Asked) -> Result<Response, Problem> {
    let name = asked.names.version()?;
    asked.submit(Change::DeleteVersion(name), None).await
}

/// Take a version out of every split, at once
#[utoipa::path(
    put, path = "/v1/services/{service}/versions/{version}/disabled", tag = "versions",
    request_body(content = Option<DisableBody>),
    responses(
        (
            status = 200,
            description = "Durable and in effect; the baseline has its traffic, and no split or pin may name it",
            body = ReceiptAnswer,
        ),
    ),
)]
pub(super) async fn disable_version(
    asked: Asked,
    MaybeBody(body): MaybeBody<DisableBody>,
) -> Result<Response, Problem> {
    let name = asked.names.version()?;
    asked.submit(Change::DisableVersion(name), body.reason).await
}

/// Let splits and pins name a version again; no traffic moves by it
#[utoipa::path(
    delete, path = "/v1/services/{service}/versions/{version}/disabled", tag = "versions",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn enable_version(asked: Asked) -> Result<Response, Problem> {
    let name = asked.names.version()?;
    asked.submit(Change::EnableVersion(name), None).await
}

fn needs_tenants(spec: &VersionSpec) -> bool {
    spec.endpoints.iter().any(|e| matches!(e, EndpointSpec::PerTenant { .. }))
}
