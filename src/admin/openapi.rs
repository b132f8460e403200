//! The API's description as OpenAPI 3.1: paths and schemas come from the handlers and types, what all routes have in
//! common (names in paths, conditions, refusals, roles) is added here once.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::answers::AuthorSchema;
use super::auth::role_name;
use super::problem::ProblemBody;
use super::routes::Route;
use super::{
    changes, compare, events, explain, freeze, keys, maintenance, notify, rollouts, services, shadow, simulate,
    snapshot_diff, snapshots, splits, stats, status, version_tenants, versions,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Switchback admin API",
        description = "Looks at the proxy and changes it. Shares are percent, times RFC 3339, latencies seconds. \
                       Changes answer after they are durable and in effect on this node.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        status::livez,
        status::readyz,
        status::metrics,
        status::openapi,
        status::get_status,
        status::reload,
        status::upgrade,
        keys::rotate_keys,
        services::list_services,
        services::get_service,
        splits::get_service_split,
        splits::put_service_split,
        splits::get_group_split,
        splits::put_group_split,
        splits::delete_group_split,
        splits::list_tenants,
        splits::get_tenant_split,
        splits::put_tenant_split,
        splits::delete_tenant_split,
        changes::put_pin,
        changes::delete_pin,
        changes::put_hold,
        changes::delete_hold,
        changes::put_baseline,
        changes::rollback_service,
        changes::rollback_tenant,
        maintenance::get_service_maintenance,
        maintenance::put_service_maintenance,
        maintenance::delete_service_maintenance,
        maintenance::get_tenant_maintenance,
        maintenance::put_tenant_maintenance,
        maintenance::delete_tenant_maintenance,
        versions::disable_version,
        versions::enable_version,
        version_tenants::version_tenants,
        versions::put_version,
        versions::delete_version,
        stats::get_stats,
        compare::compare,
        shadow::get_shadow,
        explain::explain_request,
        rollouts::start_rollout,
        rollouts::list_rollouts,
        rollouts::statistics::rollout_statistics,
        rollouts::get_rollout,
        rollouts::logs::rollout_logs,
        rollouts::verbs::pause_rollout,
        rollouts::verbs::resume_rollout,
        rollouts::verbs::promote_rollout,
        rollouts::verbs::abort_rollout,
        rollouts::verbs::retry_rollout,
        rollouts::verbs::undo_rollout,
        rollouts::verbs::rollback_rollout_tenant,
        simulate::simulate_rollout,
        events::list_events,
        freeze::get_freeze,
        freeze::put_freeze,
        freeze::delete_freeze,
        snapshots::list_snapshots,
        snapshots::get_snapshot,
        snapshot_diff::diff_snapshot,
        snapshots::take_snapshot,
        snapshots::restore_snapshot,
        snapshots::delete_snapshot,
        notify::get_notify,
        notify::test_notify,
    ),
    components(schemas(ProblemBody, AuthorSchema))
)]
struct Description;

/// What can go wrong before a handler is asked, and what every handler may answer.
const REFUSALS: [(&str, &str); 6] = [
    ("400", "A name, parameter or header cannot be read"),
    ("401", "No token, or one that is not known"),
    ("403", "The token's role is too low, or the request comes from another origin"),
    (
        "404",
        "There is no such service, tenant, group, version, pin, hold, shadow, maintenance, freeze, snapshot, rollout or target",
    ),
    ("421", "The host is not one of the admin API's"),
    ("429", "Too many wrong tokens from this address"),
];

/// The same of changes.
const CHANGE_REFUSALS: [(&str, &str); 6] = [
    ("409", "Still in use, disabled, another rollout is running, not possible now, or nothing to change"),
    ("412", "The document changed in between; `current_revision` tells its revision now"),
    ("413", "The body is too large"),
    ("415", "The body is not declared as JSON"),
    ("422", "The body or the change makes no sense; `errors` tells the fields"),
    ("503", "The store is away or the process is on its way out; nothing has changed"),
];

/// The description of the routes.
pub(super) fn document(routes: &[Route]) -> Value {
    // The description is made of maps and text; a test reads all of it.
    let mut document = serde_json::to_value(Description::openapi()).unwrap_or_default();
    for route in routes {
        let method = route.method.as_str().to_ascii_lowercase();
        if let Some(operation) = document["paths"][route.path].get_mut(&method).and_then(Value::as_object_mut) {
            complete(operation, route);
        }
    }
    document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
    document
}

fn complete(operation: &mut Map<String, Value>, route: &Route) {
    let is_change = !route.method.is_safe();
    let mut parameters: Vec<Value> = names_in(route.path).map(path_parameter).collect();
    // Snapshots are never changed, so nobody can have seen an older one.
    let (has_tag, is_snapshot) = (is_tagged(route.path), route.path.starts_with("/v1/snapshots"));
    if is_change && (has_tag || is_snapshot) {
        parameters.extend(change_parameters().into_iter().take(if has_tag { 3 } else { 2 }));
    }
    if route.path.ends_with("/split") && !is_change {
        parameters.push(header("If-None-Match", "The entity tag that the client has; 304 when it is still right"));
    }
    parameters.extend(operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default());
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), Value::Array(parameters));
    }
    let Some(role) = route.role else { return };
    operation.insert("security".to_owned(), json!([{ "token": [] }]));
    operation.insert("x-role".to_owned(), json!(role_name(role)));
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    let changes = CHANGE_REFUSALS.iter().filter(|_| is_change);
    for (status, description) in REFUSALS.iter().chain(changes) {
        let content = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
        responses.insert((*status).to_owned(), json!({ "description": description, "content": content }));
    }
    if is_change && has_tag {
        let tag = json!({ "schema": { "type": "string" }, "description": "Revision of the document, in quotes" });
        responses["200"]["headers"] = json!({ "ETag": tag });
    }
}

/// Whether what a change of this path changes is a document with a revision of its own.
fn is_tagged(path: &str) -> bool {
    path.contains("{service}") || path == "/v1/freeze"
}

fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &str) -> Value {
    let description = match name {
        "service" => "Name of the service",
        "tenant" => "Name of the tenant",
        "group" => "Name of the group",
        "version" => "Name of the version",
        "snapshot" => "Name of the snapshot",
        "id" => "Name of the rollout",
        "kind" => "`tenant`, `user` or `group`",
        _ => "Name of the tenant, user or group",
    };
    let mut schema = json!({ "type": "string" });
    if name == "kind" {
        schema["enum"] = json!(["tenant", "user", "group"]);
    }
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn change_parameters() -> [Value; 3] {
    [
        optional("dry_run", "query", "boolean", "Only tell what the change would do"),
        optional("reason", "query", "string", "Why; shown in the history. A reason in the body comes first"),
        header("If-Match", "Entity tags that the document must have one of; `*`: whatever it has"),
    ]
}

fn header(name: &str, description: &str) -> Value {
    optional(name, "header", "string", description)
}

fn optional(name: &str, place: &str, kind: &str, description: &str) -> Value {
    let schema = json!({ "type": kind });
    json!({ "name": name, "in": place, "required": false, "description": description, "schema": schema })
}
