//! Every route in one table: what it takes to use it, and who answers. Router, roles and tests read the same table.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::context::{Cx, Shared};
use super::problem::Problem;
use super::{
    AdminParts, auth, changes, compare, events, explain, freeze, guard, keys, maintenance, notify, openapi, pages,
    rollouts, services, shadow, simulate, snapshot_diff, snapshots, splits, stats, status, version_tenants, versions,
};
use crate::config::Role;

const MAINTENANCE: &str = "/v1/services/{service}/maintenance";
const TENANT_MAINTENANCE: &str = "/v1/services/{service}/tenants/{tenant}/maintenance";
const FREEZE: &str = "/v1/freeze";
const SNAPSHOTS: &str = "/v1/snapshots";
const SNAPSHOT: &str = "/v1/snapshots/{snapshot}";
const DISABLED: &str = "/v1/services/{service}/versions/{version}/disabled";

/// One route.
pub(super) struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with names in braces.
    pub path: &'static str,
    /// The role that it takes; none: open to everyone who reaches the listener.
    pub role: Option<Role>,
    /// Whether it is a page for people rather than a part of the API: who asks is known by a session instead of a token,
    /// refusals are pages, and the API's description leaves it out.
    pub page: bool,
    /// Who answers.
    pub handler: MethodRouter<Cx>,
}

/// The whole API as a service, without a socket.
pub fn router(parts: AdminParts) -> Router {
    let description = openapi::document(&api());
    let description = serde_json::to_vec(&description).unwrap_or_default();
    let cx: Cx = Arc::new(Shared::new(parts, description.into()));
    let mut router = Router::new();
    for Route { path, role, page, handler, .. } in table() {
        let handler = match role {
            _ if page => handler.route_layer(from_fn_with_state(pages::Gate { cx: cx.clone(), role }, pages::require)),
            Some(role) => handler.route_layer(from_fn_with_state((cx.clone(), role), auth::require)),
            None => handler,
        };
        router = router.route(path, handler);
    }
    router
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "", "there is nothing at this path; see /openapi.json"))
        .method_not_allowed_fallback(async || {
            let detail = "the path does not take this method; the allow header tells which it takes";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "", detail)
        })
        .layer(from_fn_with_state(cx.clone(), guard::check))
        .with_state(cx)
}

/// Every route.
pub(super) fn table() -> Vec<Route> {
    let mut all = api();
    all.extend(pages::routes());
    all
}

/// Every route of the API.
pub(super) fn api() -> Vec<Route> {
    let open = |path, handler| Route { method: Method::GET, path, role: None, page: false, handler };
    let mut all = vec![
        open("/livez", get(status::livez)),
        open("/readyz", get(status::readyz)),
        open("/metrics", get(status::metrics)),
        open("/openapi.json", get(status::openapi)),
    ];
    all.extend(reading());
    all.extend(changing());
    all.extend(leading());
    all
}

fn reading() -> Vec<Route> {
    let read = |path, handler| Route { method: Method::GET, path, role: Some(Role::Viewer), page: false, handler };
    vec![
        read("/v1/status", get(status::get_status)),
        read("/v1/services", get(services::list_services)),
        read("/v1/services/{service}", get(services::get_service)),
        read("/v1/services/{service}/split", get(splits::get_service_split)),
        read("/v1/services/{service}/groups/{group}/split", get(splits::get_group_split)),
        read("/v1/services/{service}/tenants", get(splits::list_tenants)),
        read("/v1/services/{service}/tenants/{tenant}/split", get(splits::get_tenant_split)),
        read(MAINTENANCE, get(maintenance::get_service_maintenance)),
        read(TENANT_MAINTENANCE, get(maintenance::get_tenant_maintenance)),
        read("/v1/services/{service}/versions/{version}/tenants", get(version_tenants::version_tenants)),
        read("/v1/services/{service}/stats", get(stats::get_stats)),
        read("/v1/services/{service}/compare", get(compare::compare)),
        read("/v1/services/{service}/shadow", get(shadow::get_shadow)),
        read("/v1/services/{service}/explain", get(explain::explain_request)),
        read("/v1/rollouts", get(rollouts::list_rollouts)),
        read("/v1/rollouts/statistics", get(rollouts::statistics::rollout_statistics)),
        read("/v1/rollouts/{id}", get(rollouts::get_rollout)),
        read("/v1/rollouts/{id}/logs", get(rollouts::logs::rollout_logs)),
        read("/v1/events", get(events::list_events)),
        read(FREEZE, get(freeze::get_freeze)),
        read(SNAPSHOTS, get(snapshots::list_snapshots)),
        read(SNAPSHOT, get(snapshots::get_snapshot)),
        read("/v1/snapshots/{snapshot}/diff", get(snapshot_diff::diff_snapshot)),
        read("/v1/notify", get(notify::get_notify)),
        // Asked with a body, but nothing is changed.
        Route {
            method: Method::POST,
            path: "/v1/simulate",
            role: Some(Role::Viewer),
            page: false,
            handler: post(simulate::simulate_rollout),
        },
    ]
}

fn changing() -> Vec<Route> {
    let route = |role, method, path, handler| Route { method, path, role: Some(role), page: false, handler };
    let operate = |method, path, handler| route(Role::Operator, method, path, handler);
    let administer = |method, path, handler| route(Role::Admin, method, path, handler);
    let (put_, delete_, post_) = (Method::PUT, Method::DELETE, Method::POST);
    vec![
        operate(put_.clone(), "/v1/services/{service}/split", put(splits::put_service_split)),
        operate(put_.clone(), "/v1/services/{service}/groups/{group}/split", put(splits::put_group_split)),
        operate(delete_.clone(), "/v1/services/{service}/groups/{group}/split", delete(splits::delete_group_split)),
        operate(put_.clone(), "/v1/services/{service}/tenants/{tenant}/split", put(splits::put_tenant_split)),
        operate(delete_.clone(), "/v1/services/{service}/tenants/{tenant}/split", delete(splits::delete_tenant_split)),
        operate(put_.clone(), "/v1/services/{service}/pins/{kind}/{name}", put(changes::put_pin)),
        operate(delete_.clone(), "/v1/services/{service}/pins/{kind}/{name}", delete(changes::delete_pin)),
        operate(put_.clone(), "/v1/services/{service}/hold", put(changes::put_hold)),
        operate(delete_.clone(), "/v1/services/{service}/hold", delete(changes::delete_hold)),
        operate(post_.clone(), "/v1/services/{service}/rollback", post(changes::rollback_service)),
        operate(post_.clone(), "/v1/services/{service}/tenants/{tenant}/rollback", post(changes::rollback_tenant)),
        operate(put_.clone(), MAINTENANCE, put(maintenance::put_service_maintenance)),
        operate(delete_.clone(), MAINTENANCE, delete(maintenance::delete_service_maintenance)),
        operate(put_.clone(), TENANT_MAINTENANCE, put(maintenance::put_tenant_maintenance)),
        operate(delete_.clone(), TENANT_MAINTENANCE, delete(maintenance::delete_tenant_maintenance)),
        operate(put_.clone(), DISABLED, put(versions::disable_version)),
        operate(delete_.clone(), DISABLED, delete(versions::enable_version)),
        operate(put_.clone(), FREEZE, put(freeze::put_freeze)),
        operate(delete_.clone(), FREEZE, delete(freeze::delete_freeze)),
        operate(post_.clone(), SNAPSHOTS, post(snapshots::take_snapshot)),
        operate(post_.clone(), "/v1/snapshots/{snapshot}/restore", post(snapshots::restore_snapshot)),
        operate(delete_.clone(), SNAPSHOT, delete(snapshots::delete_snapshot)),
        administer(put_.clone(), "/v1/services/{service}/baseline", put(changes::put_baseline)),
        administer(put_, "/v1/services/{service}/versions/{version}", put(versions::put_version)),
        administer(delete_, "/v1/services/{service}/versions/{version}", delete(versions::delete_version)),
        administer(post_.clone(), "/v1/keys/rotate", post(keys::rotate_keys)),
        administer(post_.clone(), "/v1/notify/test", post(notify::test_notify)),
        administer(post_.clone(), "/v1/reload", post(status::reload)),
        administer(post_, "/v1/upgrade", post(status::upgrade)),
    ]
}

/// What people do with rollouts.
fn leading() -> Vec<Route> {
    let lead = |path, handler| Route { method: Method::POST, path, role: Some(Role::Operator), page: false, handler };
    vec![
        lead("/v1/rollouts", post(rollouts::start_rollout)),
        lead("/v1/rollouts/{id}/pause", post(rollouts::verbs::pause_rollout)),
        lead("/v1/rollouts/{id}/resume", post(rollouts::verbs::resume_rollout)),
        lead("/v1/rollouts/{id}/promote", post(rollouts::verbs::promote_rollout)),
        lead("/v1/rollouts/{id}/abort", post(rollouts::verbs::abort_rollout)),
        lead("/v1/rollouts/{id}/retry", post(rollouts::verbs::retry_rollout)),
        lead("/v1/rollouts/{id}/undo", post(rollouts::verbs::undo_rollout)),
        lead("/v1/rollouts/{id}/tenants/{tenant}/rollback", post(rollouts::verbs::rollback_rollout_tenant)),
    ]
}
