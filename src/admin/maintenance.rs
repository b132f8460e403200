//! Maintenance of a service or a tenant: begun, changed, ended, and looked at.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers::time;
use super::asked::{Asked, ReceiptAnswer};
use super::body::MaybeBody;
use super::context::{Cx, Found};
use super::describe::duration;
use super::parameters::Names;
use super::precondition::tagged;
use super::problem::{Problem, echo};
use crate::config::read_duration;
use crate::model::{Author, Change, Maintenance, ServiceName, TenantName};

/// When clients should try again unless the request says.
const RETRY_AFTER_S: u64 = 600;
/// Tenants that an answer lists.
const MAX_LISTED: usize = 1_000;

/// What clients read, and when they should try again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MaintenanceBody {
    /// What clients read, up to 1,000 characters of plain text.
    #[schema(example = "We are moving to new machines.")]
    pub message: Option<String>,
    /// When clients should try again, `1s` to `30d`; `10m` unless given.
    #[schema(example = "10m")]
    pub retry_after: Option<String>,
    /// Why; shown in the history.
    pub reason: Option<String>,
}

/// Maintenance that is on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Maintenance)]
pub(super) struct MaintenanceAnswer {
    message: String,
    retry_after: String,
    #[schema(value_type = super::answers::AuthorSchema)]
    author: Author,
    since: String,
}

/// How a service or tenant stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MaintenanceDocument)]
pub(super) struct MaintenanceDocument {
    #[schema(value_type = String)]
    service: ServiceName,
    /// The tenant, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// Revision of the service's document, for `If-Match`.
    revision: u64,
    /// What was asked for is in maintenance.
    #[schema(required)]
    maintenance: Option<MaintenanceAnswer>,
    /// The whole service is in maintenance, when a tenant was asked for that is not by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    inherited: Option<MaintenanceAnswer>,
    /// Tenants in maintenance by themselves, by name, when a service was asked for; the first 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenants: Option<Vec<TenantInMaintenance>>,
    /// How many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenants_total: Option<usize>,
}

/// A tenant in maintenance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantInMaintenance {
    #[schema(value_type = String)]
    tenant: TenantName,
    #[serde(flatten)]
    maintenance: MaintenanceAnswer,
}

impl MaintenanceAnswer {
    pub(super) fn new(maintenance: &Maintenance) -> Self {
        Self {
            message: maintenance.message.clone(),
            retry_after: duration(std::time::Duration::from_secs(maintenance.retry_after_s)),
            author: maintenance.author.clone(),
            since: time(maintenance.since_ms),
        }
    }
}

/// Whether a service is in maintenance
#[utoipa::path(
    get, path = "/v1/services/{service}/maintenance", tag = "maintenance",
    responses((status = 200, description = "The service and its tenants", body = MaintenanceDocument)),
)]
pub(super) async fn get_service_maintenance(State(cx): State<Cx>, names: Names) -> Result<Response, Problem> {
    let found = Found::service(&cx, &names.service()?)?;
    let all = &found.live().maintenance;
    let listed = all.tenants.iter().take(MAX_LISTED).map(|(tenant, maintenance)| TenantInMaintenance {
        tenant: tenant.clone(),
        maintenance: MaintenanceAnswer::new(maintenance),
    });
    let revision = found.live().revision;
    let document = MaintenanceDocument {
        service: found.name().clone(),
        tenant: None,
        revision,
        maintenance: all.service.as_ref().map(MaintenanceAnswer::new),
        inherited: None,
        tenants: Some(listed.collect()),
        tenants_total: Some(all.tenants.len()),
    };
    Ok(tagged(revision, Json(document)))
}

/// Whether a tenant is in maintenance
#[utoipa::path(
    get, path = "/v1/services/{service}/tenants/{tenant}/maintenance", tag = "maintenance",
    responses((status = 200, description = "The tenant", body = MaintenanceDocument)),
)]
pub(super) async fn get_tenant_maintenance(State(cx): State<Cx>, names: Names) -> Result<Response, Problem> {
    let found = Found::service(&cx, &names.service()?)?;
    let tenant = names.tenant()?;
    let all = &found.live().maintenance;
    let own = all.tenants.get(&tenant);
    let revision = found.live().revision;
    let document = MaintenanceDocument {
        service: found.name().clone(),
        revision,
        maintenance: own.map(MaintenanceAnswer::new),
        inherited: all.service.as_ref().filter(|_| own.is_none()).map(MaintenanceAnswer::new),
        tenants: None,
        tenants_total: None,
        tenant: Some(tenant),
    };
    Ok(tagged(revision, Json(document)))
}

/// Put a service in maintenance, or change what its clients are told
#[utoipa::path(
    put, path = "/v1/services/{service}/maintenance", tag = "maintenance",
    request_body(content = Option<MaintenanceBody>),
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_service_maintenance(
    asked: Asked,
    MaybeBody(body): MaybeBody<MaintenanceBody>,
) -> Result<Response, Problem> {
    begin(asked, None, body).await
}

/// Put a tenant in maintenance, or change what its clients are told
#[utoipa::path(
    put, path = "/v1/services/{service}/tenants/{tenant}/maintenance", tag = "maintenance",
    request_body(content = Option<MaintenanceBody>),
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_tenant_maintenance(
    asked: Asked,
    MaybeBody(body): MaybeBody<MaintenanceBody>,
) -> Result<Response, Problem> {
    let tenant = asked.names.tenant()?;
    begin(asked, Some(tenant), body).await
}

/// Serve a service again
#[utoipa::path(
    delete, path = "/v1/services/{service}/maintenance", tag = "maintenance",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn delete_service_maintenance(asked: Asked) -> Result<Response, Problem> {
    asked.submit(Change::ClearMaintenance { tenant: None }, None).await
}

/// Serve a tenant again
#[utoipa::path(
    delete, path = "/v1/services/{service}/tenants/{tenant}/maintenance", tag = "maintenance",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn delete_tenant_maintenance(asked: Asked) -> Result<Response, Problem> {
    let tenant = Some(asked.names.tenant()?);
    asked.submit(Change::ClearMaintenance { tenant }, None).await
}

async fn begin(asked: Asked, tenant: Option<TenantName>, body: MaintenanceBody) -> Result<Response, Problem> {
    let retry_after_s = body.retry_after.as_deref().map_or(Ok(RETRY_AFTER_S), retry_after)?;
    let message = plain(body.message.unwrap_or_default())?;
    asked.submit(Change::SetMaintenance { tenant, message, retry_after_s }, body.reason).await
}

fn retry_after(text: &str) -> Result<u64, Problem> {
    let seconds = read_duration(text).ok().map(|d| d.as_millis().div_ceil(1_000) as u64);
    seconds.filter(|s| (1..=Maintenance::MAX_RETRY_AFTER_S).contains(s)).ok_or_else(|| {
        let text = echo(text);
        Problem::invalid("retry_after", format!("{text:?} is not allowed; allowed is a duration from 1s to 30d"))
    })
}

/// A message ends up in pages, logs and terminals: plain text without control characters but line breaks.
fn plain(message: String) -> Result<String, Problem> {
    let count = message.chars().count();
    if count > Maintenance::MAX_MESSAGE {
        let most = Maintenance::MAX_MESSAGE;
        return Err(Problem::invalid("message", format!("has {count} characters; allowed are up to {most}")));
    }
    let clean = message.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect::<String>();
    Ok(clean.trim().to_owned())
}
