//! Requests that another version answers than the one they were routed to: rescued by the baseline, or looking for an
//! asset that only the other version has.
//!
//! Pingora asks for a peer again when an attempt ends in an error that allows it. So a detour is: remember the other
//! version, settle what the first one did, and let the attempt end in such an error.

use std::sync::Arc;
use std::time::Duration;

use pingora::ErrorType;
use pingora::prelude::Error;
use pingora::proxy::Session;

use super::context::{Assigned, RequestContext};
use super::endpoints::is_label;
use super::gateway::Gateway;
use super::outcome::{self, AttemptError, ErrorKind, Facts, Side};
use super::rescue::{self, Failed, RequestFacts};
use crate::model::RescueSpec;
use crate::routing::{self, VersionRoute};
use crate::telemetry::{DetourCounts, Fault, Outcome, Rescue};

/// The header by which a client says that twice is once.
const IDEMPOTENCY_KEY: http::HeaderName = http::HeaderName::from_static("idempotency-key");

/// Where a request goes after all.
pub(super) struct Detour {
    pub version: Arc<VersionRoute>,
    pub why: Why,
    counts: Arc<DetourCounts>,
    /// The error that leads there is still on its way through Pingora.
    pending: bool,
}

/// Why another version answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The version failed the request.
    Rescue,
    /// The version does not have the asset.
    Skew,
}

impl Gateway {
    /// Sends a request that the canary failed to the baseline, if that may be. Asked once for each request.
    pub(super) fn rescue(&self, session: &Session, ctx: &mut RequestContext, failed: Failed) -> bool {
        let Some(assigned) = &ctx.assigned else { return false };
        let Some(spec) = &assigned.service.spec.rescue else { return false };
        let baseline = assigned.service.baseline();
        if ctx.detour.is_some() || ctx.rescue_asked || assigned.wanted || !can_serve(baseline, assigned) {
            return false;
        }
        ctx.rescue_asked = true;
        let counts = assigned.service.tally.detour(&assigned.version.name, &baseline.name);
        let baseline = baseline.clone();
        if let Err(why_not) = self.may_rescue(spec, assigned, session, ctx, failed) {
            counts.rescue(why_not);
            if let Some(spans) = &mut ctx.spans {
                spans.rescue = Some(why_not.as_str());
            }
            return false;
        }
        let facts = Facts { sent_status: status_without(ctx), ..self.facts(ctx, ctx.error, 0) };
        let outcome = outcome::classify(&facts);
        if let Some(ticket) = &mut ctx.ticket {
            ticket.finish(outcome, self.clock.now_us());
        }
        ctx.take(Detour { version: baseline, why: Why::Rescue, counts, pending: true });
        true
    }

    /// No connection to an endpoint: another one of the same version takes the request, else the baseline.
    pub(super) fn not_connected(
        &self,
        session: &Session,
        ctx: &mut RequestContext,
        kind: ErrorKind,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let failed = AttemptError { side: Side::Version, kind, reused: false, body_done: true };
        ctx.error = Some(failed);
        if let Some(spans) = &mut ctx.spans {
            spans.failed(failed, self.clock.now_us());
        }
        let Some(assigned) = &ctx.assigned else { return error };
        // Nothing was sent yet, so another endpoint may have the request whatever its method.
        let others = assigned.serving(&ctx.detour).endpoints.all().iter().any(|e| !ctx.has_tried(e.address));
        let again = others && ctx.tries <= assigned.service.spec.retries && !self.time_left(assigned, ctx).is_zero();
        error.set_retry(again || self.rescue(session, ctx, Failed::Unsent) && ctx.detour_begins());
        error
    }

    fn may_rescue(
        &self,
        spec: &RescueSpec,
        assigned: &Assigned,
        session: &Session,
        ctx: &RequestContext,
        failed: Failed,
    ) -> Result<(), Rescue> {
        let header = session.req_header();
        let request = RequestFacts {
            method: &header.method,
            idempotency_key: header.headers.contains_key(IDEMPOTENCY_KEY),
            truncated: session.as_ref().retry_buffer_truncated(),
            answer_begun: has_begun(session),
        };
        rescue::may_repeat(spec, failed, request)?;
        if self.time_left(assigned, ctx).is_zero() {
            return Err(Rescue::Failed);
        }
        let load = assigned.service.tally.metrics(&assigned.service.baseline().name);
        let requests = load.requests().saturating_add(load.in_flight().unsigned_abs());
        let within = assigned.service.budget.spend(spec, self.clock.now_ms(), requests);
        if within { Ok(()) } else { Err(Rescue::OverBudget) }
    }

    /// Looks for an asset at another version. Once for each request, and never past an exclusion.
    pub(super) fn look_elsewhere(&self, session: &Session, ctx: &mut RequestContext) -> bool {
        let Some(assigned) = &ctx.assigned else { return false };
        if assigned.service.spec.skew.is_empty() || ctx.detour.is_some() || assigned.wanted || assigned.restricted {
            return false;
        }
        let header = session.req_header();
        let read = matches!(header.method, http::Method::GET | http::Method::HEAD);
        let path = header.uri.path().get(assigned.strip..).unwrap_or_default();
        if !read || !assigned.service.is_skewed(path) || self.time_left(assigned, ctx).is_zero() {
            return false;
        }
        let routes = self.routes.load();
        let tenant = assigned.tenant.as_ref().map(|(t, _)| t.as_str());
        let (split, _) = routing::split_for(&routes, &assigned.service, tenant);
        let holder = assigned.service.likely_holder(split, &assigned.version.name);
        let Some(version) = holder.filter(|v| can_serve(v, assigned)).cloned() else { return false };
        let counts = assigned.service.tally.detour(&assigned.version.name, &version.name);
        ctx.take(Detour { version, why: Why::Skew, counts, pending: true });
        true
    }

    /// What is left until the answer must have begun. Streams have no such limit.
    pub(super) fn time_left(&self, assigned: &Assigned, ctx: &RequestContext) -> Duration {
        if assigned.stream {
            return Duration::MAX;
        }
        let waited = Duration::from_micros(self.clock.now_us().saturating_sub(ctx.waiting_since_us));
        assigned.service.spec.deadline.saturating_sub(waited)
    }
}

impl RequestContext {
    /// Whether the error at hand only leads to another version. True once.
    pub(super) fn detour_begins(&mut self) -> bool {
        self.detour.as_mut().is_some_and(|detour| std::mem::take(&mut detour.pending))
    }

    /// Whether it looks for an asset at another version.
    pub(super) fn is_skewed(&self) -> bool {
        self.detour.as_ref().is_some_and(|detour| detour.why == Why::Skew)
    }

    /// Counts what the detour came to, and says what the request came to for the version that it was routed to.
    pub(super) fn settle(&self, outcome: Outcome) -> Outcome {
        let Some(detour) = &self.detour else { return outcome };
        match detour.why {
            // Nobody was there to be saved or to miss anything.
            _ if outcome.fault == Fault::ClientLeft => outcome,
            Why::Rescue => {
                let failed = matches!(outcome.fault, Fault::Backend(_) | Fault::Proxy);
                detour.counts.rescue(if failed { Rescue::Failed } else { Rescue::Saved });
                outcome
            }
            Why::Skew => {
                detour.counts.skew(outcome.fault == Fault::Served && self.upstream_status != Some(404));
                // What the other version made of it says nothing about this one.
                Outcome::served(outcome.status)
            }
        }
    }

    fn take(&mut self, detour: Detour) {
        self.detour = Some(detour);
        self.tries = 0;
        self.in_use = None;
        self.error = None;
        self.upstream_status = None;
        self.grpc_status = None;
        self.body_bytes = 0;
    }
}

/// The error that makes Pingora ask for a peer again.
pub(super) fn again(status: u16) -> Box<Error> {
    let mut error = Error::new_up(ErrorType::HTTPStatus(status));
    error.set_retry(true);
    error
}

/// Whether the client has got something of the answer.
pub(super) fn has_begun(session: &Session) -> bool {
    session.response_written().is_some_and(|r| !r.status.is_informational())
}

/// Whether a version other than the assigned one can take the request.
fn can_serve(version: &VersionRoute, assigned: &Assigned) -> bool {
    let tenant = assigned.tenant.as_ref().map(|(t, _)| t.as_str());
    version.name != assigned.version.name && (!version.needs_tenant || tenant.is_some_and(is_label))
}

/// The status that the client would have been sent.
fn status_without(ctx: &RequestContext) -> u16 {
    let of_error = || ctx.error.map_or(502, |error| outcome::answer_for(error, None).0);
    ctx.upstream_status.unwrap_or_else(of_error)
}
