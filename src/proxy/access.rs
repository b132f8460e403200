//! The access log's line of one request.

use pingora::prelude::Error;
use pingora::proxy::Session;

use super::clock::unix_ms;
use super::context::RequestContext;
use super::gateway::{Gateway, client_ip};
use crate::telemetry::{AccessLine, Fault};

impl Gateway {
    /// Writes the line, if there is a log.
    pub(super) fn write_line(
        &self,
        session: &Session,
        error: Option<&Error>,
        ctx: &RequestContext,
        fault: Fault,
        now_us: u64,
    ) {
        let Some(log) = &self.access_log else { return };
        let header = session.req_header();
        let client = client_ip(session).to_string();
        let assigned = ctx.assigned.as_ref();
        let closed = ctx.closed.as_ref();
        let tenant =
            assigned.and_then(|a| a.tenant.as_ref()).map(|(t, _)| t).or(closed.and_then(|c| c.tenant.as_ref()));
        let service = assigned.map(|a| &a.service).or(closed.map(|c| &c.service));
        log.write(&AccessLine {
            at_ms: unix_ms(),
            service: service.map_or("", |s| s.spec.name.as_str()),
            tenant: tenant.map_or("", String::as_str),
            version: assigned.map_or("", |a| a.version.name.as_str()),
            answered_by: ctx.detour.as_ref().map_or("", |d| d.version.name.as_str()),
            method: header.method.as_str(),
            path: header.uri.path(),
            status: session.response_written().map_or(0, |r| r.status.as_u16()),
            duration_us: now_us.saturating_sub(ctx.started_us),
            bytes: session.body_bytes_sent() as u64,
            client: &client,
            request_id: ctx.request_id.as_ref().and_then(|v| v.to_str().ok()).unwrap_or_default(),
            fault: fault.as_str(),
            why: ctx.why_ended().or_else(|| error.map(|e| e.etype().as_str())).unwrap_or_default(),
        });
    }
}
