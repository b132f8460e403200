//! Splits of services, groups and tenants: reading them, setting them, and letting a scope follow the wider one again.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::SplitAnswer;
use super::asked::{Asked, ReceiptAnswer};
use super::bodies::SplitBody;
use super::body::Body;
use super::context::{Cx, Found};
use super::parameters::{Names, Parameters};
use super::precondition::{Conditions, tagged};
use super::problem::Problem;
use crate::model::{Change, GroupName, Scope, ServiceName, TenantName};

/// How many tenants a page has unless the request says otherwise.
const PAGE: u64 = 100;
/// The most tenants of a page.
const MAX_PAGE: u64 = 1_000;

/// A split with the scope that it was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SplitDocument)]
pub(super) struct SplitDocument {
    /// The service.
    #[schema(value_type = String)]
    service: ServiceName,
    /// The tenant, when the split of one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// The group, when the split of one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    group: Option<GroupName>,
    /// Revision of the document to change, for `If-Match`; 0 when there is none yet.
    revision: u64,
    #[serde(flatten)]
    split: SplitAnswer,
}

/// A page of tenants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantPage)]
pub(super) struct TenantPage {
    /// Tenants by name.
    tenants: Vec<TenantSplit>,
    /// Pass it as `after` for the next page; none after the last one.
    #[schema(required, value_type = Option<String>)]
    next: Option<TenantName>,
}

/// A tenant with a split of its own.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantSplit)]
pub(super) struct TenantSplit {
    #[schema(value_type = String)]
    name: TenantName,
    split: SplitAnswer,
}

/// The split of a service
#[utoipa::path(
    get, path = "/v1/services/{service}/split", tag = "splits",
    responses((status = 200, description = "The split", body = SplitDocument)),
)]
pub(super) async fn get_service_split(
    State(cx): State<Cx>,
    names: Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    show(&cx, &names, Scope::Service, &headers)
}

/// The split that a group follows
#[utoipa::path(
    get, path = "/v1/services/{service}/groups/{group}/split", tag = "splits",
    responses((status = 200, description = "The group's own split, or the service's", body = SplitDocument)),
)]
pub(super) async fn get_group_split(
    State(cx): State<Cx>,
    names: Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    show(&cx, &names, Scope::Group(names.group()?), &headers)
}

/// The split that a tenant follows
#[utoipa::path(
    get, path = "/v1/services/{service}/tenants/{tenant}/split", tag = "splits",
    responses((status = 200, description = "The tenant's own split, or the one it inherits", body = SplitDocument)),
)]
pub(super) async fn get_tenant_split(
    State(cx): State<Cx>,
    names: Names,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    show(&cx, &names, Scope::Tenant(names.tenant()?), &headers)
}

/// Set the split of a service
#[utoipa::path(
    put, path = "/v1/services/{service}/split", tag = "splits",
    request_body = SplitBody,
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_service_split(asked: Asked, Body(body): Body<SplitBody>) -> Result<Response, Problem> {
    set(asked, Scope::Service, body).await
}

/// Give a group a split of its own
#[utoipa::path(
    put, path = "/v1/services/{service}/groups/{group}/split", tag = "splits",
    request_body = SplitBody,
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_group_split(asked: Asked, Body(body): Body<SplitBody>) -> Result<Response, Problem> {
    let scope = Scope::Group(asked.names.group()?);
    set(asked, scope, body).await
}

/// Give a tenant a split of its own
#[utoipa::path(
    put, path = "/v1/services/{service}/tenants/{tenant}/split", tag = "splits",
    request_body = SplitBody,
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn put_tenant_split(asked: Asked, Body(body): Body<SplitBody>) -> Result<Response, Problem> {
    let scope = Scope::Tenant(asked.names.tenant()?);
    set(asked, scope, body).await
}

/// Let a group follow the service again
#[utoipa::path(
    delete, path = "/v1/services/{service}/groups/{group}/split", tag = "splits",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn delete_group_split(asked: Asked) -> Result<Response, Problem> {
    let scope = Scope::Group(asked.names.group()?);
    asked.submit(Change::ClearSplit { scope }, None).await
}

/// Let a tenant follow its group or the service again
#[utoipa::path(
    delete, path = "/v1/services/{service}/tenants/{tenant}/split", tag = "splits",
    responses((status = 200, description = "Durable and in effect", body = ReceiptAnswer)),
)]
pub(super) async fn delete_tenant_split(asked: Asked) -> Result<Response, Problem> {
    let scope = Scope::Tenant(asked.names.tenant()?);
    asked.submit(Change::ClearSplit { scope }, None).await
}

/// Tenants with a split of their own
#[utoipa::path(
    get, path = "/v1/services/{service}/tenants", tag = "splits",
    params(
        ("after" = Option<String>, Query, description = "Only tenants whose name comes after this one"),
        ("limit" = Option<u64>, Query, description = "At most this many, 1 to 1000; 100 unless given"),
        ("search" = Option<String>, Query, description = "Only tenants whose name contains this, whatever its case"),
    ),
    responses((status = 200, description = "A page of tenants by name", body = TenantPage)),
)]
pub(super) async fn list_tenants(
    State(cx): State<Cx>,
    names: Names,
    parameters: Parameters,
) -> Result<Json<TenantPage>, Problem> {
    let parameters = parameters.only(&["after", "limit", "search"], &[])?;
    let limit = parameters.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE) as usize;
    let after = parameters.text("after").unwrap_or_default();
    let search = parameters.text("search").unwrap_or_default().to_ascii_lowercase();
    let found = Found::service(&cx, &names.service()?)?;
    let wanted = |name: &TenantName| {
        name.as_str() > after && (search.is_empty() || name.as_str().to_ascii_lowercase().contains(&search))
    };
    // A service may have a million tenants and a page a hundred: only a page's worth is ever kept and sorted.
    let mut page = std::collections::BinaryHeap::with_capacity(limit + 2);
    for name in found.route.tenants.keys().filter(|name| wanted(name)) {
        page.push(name);
        if page.len() > limit + 1 {
            page.pop();
        }
    }
    let page = page.into_sorted_vec();
    let next = (page.len() > limit).then(|| page[limit - 1].clone());
    let tenants = page.into_iter().take(limit).map(|name| {
        let scope = Scope::Tenant(name.clone());
        split_of(&found, &scope).map(|split| TenantSplit { name: name.clone(), split })
    });
    Ok(Json(TenantPage { tenants: tenants.collect::<Result<_, _>>()?, next }))
}

async fn set(asked: Asked, scope: Scope, body: SplitBody) -> Result<Response, Problem> {
    asked.submit(Change::SetSplit { scope, weights: body.weights }, body.reason).await
}

/// The split that a scope follows.
fn split_of(found: &Found, scope: &Scope) -> Result<SplitAnswer, Problem> {
    let structure = &found.view.settings.structure;
    if let Scope::Group(group) = scope
        && !structure.tenants.groups.contains_key(group)
    {
        let known = structure.tenants.groups.keys().map(GroupName::as_str);
        return Err(Problem::unknown("group", group.as_str(), known));
    }
    let split = found.view.state.split_of(structure, found.name(), scope);
    let (split, owner) = split.ok_or_else(|| Problem::unknown("service", found.name().as_str(), []))?;
    Ok(SplitAnswer::new(found.live(), &split, &owner))
}

fn show(cx: &Cx, names: &Names, scope: Scope, headers: &HeaderMap) -> Result<Response, Problem> {
    let found = Found::service(cx, &names.service()?)?;
    let split = split_of(&found, &scope)?;
    let service_revision = found.live().revision;
    let (tenant, group, revision, is_stable) = match scope {
        Scope::Service => (None, None, service_revision, true),
        Scope::Group(group) => (None, Some(group), service_revision, true),
        Scope::Tenant(tenant) => {
            let revision = found.route.tenants.get(&tenant).map_or(0, |own| own.revision);
            // What a tenant inherits, and what a bar takes from it, changes with the service's document only.
            (Some(tenant), None, revision, revision > service_revision)
        }
    };
    if is_stable && Conditions::read(headers)?.is_known(revision) {
        return Ok(tagged(revision, StatusCode::NOT_MODIFIED));
    }
    let document = SplitDocument { service: found.name().clone(), tenant, group, revision, split };
    Ok(tagged(revision, Json(document)).into_response())
}
