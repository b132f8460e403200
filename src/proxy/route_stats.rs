//! Counts a request under its route, once it has come to its end.

use http::Method;

use super::context::RequestContext;
use crate::telemetry::RouteRequest;

/// Counts a request for the version that it was routed to, with what its ticket says: a failure that another version made
/// good is a failure here too. `path` is the client's, without query. Nothing happens when it was routed nowhere.
pub(super) fn count(ctx: &RequestContext, method: &Method, path: &str, now_us: u64) {
    let (Some(assigned), Some(ticket)) = (&ctx.assigned, &ctx.ticket) else { return };
    let (Some(patterns), Some(outcome)) = (&assigned.service.route_patterns, ticket.outcome()) else { return };
    let tenant = assigned.tenant.as_ref().map(|(name, _)| name.as_str());
    let path = path.get(assigned.strip..).unwrap_or_default();
    let mut room = None;
    let (route, configured) = patterns.name(method, path, tenant, &mut room);
    assigned.service.tally.routes().count(&RouteRequest {
        route,
        configured,
        version: &assigned.version.name,
        outcome,
        answered: ctx.upstream_status,
        latency_us: ticket.latency_us(),
        now_us,
    });
}
