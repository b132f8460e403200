//! The phases of a request as Pingora calls them. Each phase asks the pure functions and does what they say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use pingora::ErrorType;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::{Error, Result};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;

use super::admit::Refuse;
use super::client_side;
use super::clock::Clock;
use super::context::RequestContext;
use super::detour;
use super::endpoints::EndpointKeeper;
use super::errors::{kind_of, side_of};
use super::files::Room;
use super::front::Link;
use super::grpc;
use super::headers;
use super::http1;
use super::hygiene;
use super::in_flight::{self, InFlight};
use super::last_part::LastPart;
use super::outcome::{self, AttemptError, ErrorKind, Facts, Side};
use super::path;
use super::refusal;
use super::rescue::{self, Failed};
use super::route_stats;
use super::shadow::Queue;
use super::spans::Tracing;
use super::streams::StreamKeeper;
use super::upstream;
use super::waits::{self, Asked, Waits};
use crate::config::Settings;
use crate::routing::{self, InUse, Routes};
use crate::telemetry::{AccessLog, Fault, Metrics};

/// The data plane's request handler.
pub(super) struct Gateway {
    pub routes: Arc<ArcSwap<Routes>>,
    pub settings: Arc<dyn Fn() -> Arc<Settings> + Send + Sync>,
    pub keeper: Arc<EndpointKeeper>,
    pub metrics: Arc<Metrics>,
    pub access_log: Option<Arc<AccessLog>>,
    /// Set when spans are made.
    pub tracing: Option<Tracing>,
    pub clock: Clock,
    pub draining: Arc<std::sync::atomic::AtomicBool>,
    pub shadow: Queue,
    pub streams: Arc<StreamKeeper>,
    pub in_flight: InFlight,
    /// What the limit of open files allows: each request has a connection to an endpoint.
    pub room: Room,
}

impl Gateway {
    pub(super) fn facts(&self, ctx: &RequestContext, error: Option<AttemptError>, sent_status: u16) -> Facts {
        let counts = |code| ctx.assigned.as_ref().is_some_and(|a| a.service.spec.grpc_failures.contains(&code));
        Facts {
            refused: ctx.refused.is_some(),
            attempted: ctx.attempts > 0,
            upstream_status: ctx.upstream_status,
            client_closed: ctx.client_closed,
            stream: ctx.assigned.as_ref().is_some_and(|a| a.stream),
            grpc_failed: ctx.grpc_status.is_some_and(counts),
            error,
            sent_status,
        }
    }

    /// Notes that the answer is whole while the request is not.
    fn answered(&self, session: &mut Session, ctx: &mut RequestContext, whole: bool) {
        if whole && ctx.uploading && !ctx.whole {
            ctx.whole = true;
            http1::linger(session);
        }
    }

    /// What it means that a client left: it may have all that it needs, or have waited in vain.
    fn after_client(&self, ctx: &RequestContext, error: AttemptError) -> Option<AttemptError> {
        if error.side != Side::Client {
            return Some(error);
        }
        let waited_us = self.clock.now_us().saturating_sub(ctx.waiting_since_us);
        let in_vain = ctx.call.is_some_and(|call| call.waited_in_vain(waited_us));
        match (ctx.grpc_status, ctx.upstream_status) {
            _ if ctx.whole => None,
            (Some(_), _) if ctx.call.is_some() => None,
            (None, None) if in_vain && !ctx.uploading => {
                Some(AttemptError { side: Side::Version, kind: ErrorKind::Timeout, reused: false, body_done: true })
            }
            _ => Some(error),
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::default()
    }

    /// Pingora's default adds a compression module that is never used.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        if let Some(link) = Link::of(session) {
            link.use_for_request();
        }
        ctx.started_us = self.clock.now_us();
        ctx.waiting_since_us = ctx.started_us;
        http1::to_origin_form(session.req_header_mut())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        if let Some(tracing) = &self.tracing {
            let trusted = |client| (self.settings)().proxy.trusted.iter().any(|net| net.contains(&client));
            ctx.spans = tracing.begin(session, trusted);
        }
        let Err(Refuse { status, word }) = self.admit(session, ctx) else {
            return Ok(false);
        };
        ctx.refused = Some(word);
        self.metrics.refused(word);
        if let Some(closed) = &ctx.closed {
            closed.answer(session).await?;
            return Ok(true);
        }
        if word == in_flight::WORD {
            refusal::overloaded(session).await?;
            return Ok(true);
        }
        let error = if status == 404 { "destination_not_found" } else { "http_request_denied" };
        refusal::answer(session, status, error, refusal::sentence(status)).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
        client_side::restore(session, ctx);
        let Some(assigned) = &ctx.assigned else {
            return Error::e_explain(ErrorType::InternalError, "no version was decided");
        };
        let version = assigned.serving(&ctx.detour);
        if let Some(spans) = &mut ctx.spans {
            spans.attempt(version.clone(), self.clock.now_us());
        }
        let now_ms = ctx.started_us / 1_000;
        // Another endpoint for another attempt, and none of the bits that the decision has used.
        let random = ctx.random[1].rotate_left(17 * ctx.attempts);
        let tried = |e: &routing::Endpoint| ctx.has_tried(e.address);
        let endpoint = match (&assigned.tenant, version.per_tenant) {
            (Some((tenant, _)), true) => self.keeper.of_tenant(version, tenant).await.pick(random, now_ms, tried),
            _ => version.endpoints.pick(random, now_ms, tried),
        };
        ctx.attempts += 1;
        ctx.tries += 1;
        ctx.upstream_status = None;
        let Some(endpoint) = endpoint else {
            // A version whose name does not resolve cannot be reached: its failure, like a refused connection.
            let error = Error::explain(ErrorType::ConnectNoRoute, "the version has no endpoint").into_up();
            return Err(self.not_connected(session, ctx, ErrorKind::Connect, error));
        };
        let identity = match self.keeper.identity(version).await {
            Ok(identity) => identity,
            Err(error) => return Err(self.not_connected(session, ctx, ErrorKind::Tls, error)),
        };
        ctx.uploading = !session.as_mut().is_body_done();
        ctx.client_http2 = session.is_http2();
        // The first attempt has it all: no need to look at the clock. What counts for an upload begins at its end.
        let all = ctx.attempts == 1 || ctx.uploading;
        let left = if all { assigned.service.spec.deadline } else { self.time_left(assigned, ctx) };
        let (client_http2, version_http2, stream) = (ctx.client_http2, version.spec.http2, assigned.stream);
        let asked = Asked { client_http2, version_http2, stream, uploading: ctx.uploading };
        ctx.waits = Waits::of(asked, &version.spec.timeouts, left, ctx.body_timeout);
        let mut peer = upstream::peer(version, &endpoint, identity.as_deref(), ctx.waits.write);
        peer.options.read_timeout = ctx.waits.read;
        if !stream {
            upstream::limit(&mut peer, left);
        }
        if let Some(spans) = &mut ctx.spans {
            spans.endpoint(&endpoint);
        }
        ctx.in_use = Some(InUse::new(endpoint));
        if ctx.uploading
            && let Some(ticket) = &mut ctx.ticket
        {
            ticket.uploading();
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        client_side::expect_websocket(session, ctx);
        let Some(assigned) = &ctx.assigned else { return Ok(()) };
        if assigned.serving(&ctx.detour).spec.http2 {
            http1::go_on(session, request).await?;
        }
        let Some(origin) = ctx.origin else { return Ok(()) };
        let host = headers::host_value(session.req_header());
        let distrusted = ctx.distrusted.as_deref().unwrap_or_default();
        let believed = |name: &str| self.routes.load().believes(&assigned.service, name);
        for name in hygiene::unwanted_of_request(&request.headers, origin.trusted, distrusted, believed) {
            request.remove_header(&name);
        }
        headers::forward(request, origin, ctx.sent, host.as_ref(), assigned.service.spec.headers.forwarded)?;
        match &ctx.spans {
            None => headers::trace(request, ctx.sent, ctx.random)?,
            Some(spans) => spans.inject(request)?,
        }
        if let Some(id) = &ctx.request_id {
            request.insert_header(headers::X_REQUEST_ID, id.clone())?;
        }
        if let Some((_, value)) = &assigned.tenant {
            request.insert_header(headers::X_TENANT, value.clone())?;
        }
        if let Some(in_use) = &ctx.in_use {
            http1::name_host(request, &in_use.endpoint().name)?;
        }
        let version = assigned.serving(&ctx.detour);
        if let Some(sample) = &mut ctx.shadow {
            sample.sent(request, version, self.clock.now_us());
        }
        path::address(request, version, assigned.strip)?;
        self.await_answer(session, ctx);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        // What goes through a tunnel is no body.
        let tunnel = ctx.upstream_status == Some(101);
        if let Some(bytes) = body
            && !tunnel
        {
            self.take_body(ctx, bytes.len())?;
            // An empty last frame of HTTP/2 would end a chunked body towards HTTP/1 twice and spoil the connection.
            if end && bytes.is_empty() {
                *body = None;
            }
        }
        if end && ctx.uploading {
            ctx.uploading = false;
            ctx.waiting_since_us = self.clock.now_us();
            self.await_head(session, ctx);
            if let Some(ticket) = &mut ctx.ticket {
                ticket.restart(ctx.waiting_since_us);
            }
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        // What can be read in two ways reaches nobody, and counts against the version.
        let asked = session.as_downstream().is_upgrade_req();
        hygiene::switches_if_asked(response, asked)
            .and_then(|()| hygiene::clean_answer(response))
            .map_err(|why| Error::explain(ErrorType::InvalidHTTPHeader, why).into_up())?;
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if let Some(link) = Link::of(session) {
            link.head_came();
        }
        ctx.upstream_status = Some(response.status.as_u16());
        ctx.grpc_status = grpc::status(&response.headers);
        if let Some(spans) = &mut ctx.spans {
            spans.answered(response.status.as_u16());
        }
        if let Some(ticket) = &mut ctx.ticket {
            ticket.answered(self.clock.now_us());
        }
        if let Some(in_use) = &ctx.in_use {
            in_use.endpoint().answered();
        }
        if let Some(sample) = &mut ctx.shadow {
            sample.answered(response, self.clock.now_us());
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(link) = Link::of(session)
        {
            link.open_tunnel();
        }
        let status = response.status.as_u16();
        let Some(assigned) = &ctx.assigned else { return Ok(()) };
        let spec = assigned.service.spec.rescue.as_ref();
        let failed = spec.and_then(|spec| rescue::is_failure(spec, status, ctx.grpc_status));
        // Nothing of this answer has reached the client yet.
        let elsewhere = failed.is_some_and(|failed| self.rescue(session, ctx, failed))
            || status == 404 && self.look_elsewhere(session, ctx);
        if elsewhere { Err(detour::again(status)) } else { Ok(()) }
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        if let (Some(sample), Some(part)) = (&mut ctx.shadow, body) {
            sample.body(part);
        }
        Ok(None)
    }

    fn upstream_response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut http::HeaderMap,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.grpc_status = grpc::status(trailers).or(ctx.grpc_status);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // In a tunnel it is normal that the client is quiet; the endpoint's silence ends it (timeouts.stream).
            session.set_read_timeout(None);
        } else {
            http1::without_chunks(session.req_header(), response);
            let whole = ctx.uploading && http1::has_no_body(session.req_header(), response);
            self.answered(session, ctx, whole);
        }
        let Some(assigned) = &ctx.assigned else { return Ok(()) };
        let http2 = assigned.serving(&ctx.detour).spec.http2;
        ctx.last_part = if http2 { LastPart::of(session.req_header(), response) } else { None };
        // An answer that fits into the socket's buffer cannot wait for the client, so it needs no timer.
        if !http1::fits_buffer(response) {
            session.set_write_timeout(Some(ctx.write_timeout));
        }
        let show = assigned.service.spec.headers;
        if show.version {
            response.insert_header(headers::X_VERSION, assigned.serving(&ctx.detour).header.clone())?;
        }
        if ctx.is_skewed() && response.status == StatusCode::NOT_FOUND {
            // The next release may have it: nobody must remember that it was not there.
            response.insert_header(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
        }
        if show.server_timing {
            let ms = self.clock.now_us().saturating_sub(ctx.started_us) as f64 / 1000.0;
            response.append_header("server-timing", format!("switchback;dur={ms:.1}"))?;
        }
        if let Some(told) = &assigned.serving(&ctx.detour).deprecation {
            headers::tell_deprecation(response, told)?;
        }
        for cookie in assigned.cookie.iter().chain(&assigned.session) {
            response.append_header(http::header::SET_COOKIE, cookie.clone())?;
        }
        if !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS {
            client_side::restore(session, ctx);
            self.watch_stream(session, response, ctx);
            if ctx.uploading || !http1::has_no_body(session.req_header(), response) {
                self.await_rest(session, ctx);
            }
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        self.answered(session, ctx, end);
        if let Some(last) = &mut ctx.last_part {
            last.pass(body, end);
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut http::HeaderMap,
        ctx: &mut RequestContext,
    ) -> Result<Option<Bytes>> {
        Ok(ctx.last_part.as_mut().and_then(LastPart::rest))
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut RequestContext,
        error: Box<Error>,
    ) -> Box<Error> {
        let kind = match kind_of(&error) {
            kind @ (ErrorKind::ConnectTimeout | ErrorKind::Tls) => kind,
            _ => ErrorKind::Connect,
        };
        if let Some(in_use) = ctx.in_use.take() {
            let endpoint = in_use.endpoint();
            ctx.remember_tried(endpoint.address);
            if endpoint.connect_failed(self.clock.now_ms()) {
                tracing::warn!(endpoint = %endpoint.name, %error, "the endpoint is left out for a while: connections fail");
            }
        }
        self.not_connected(session, ctx, kind, error)
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        let mut error = waits::blame_version(error, session).more_context(format!("to {peer}"));
        error.retry.decide_reuse(reused);
        if let Some(spans) = &mut ctx.spans {
            spans.end_attempt(self.clock.now_us());
        }
        if ctx.is_closed_stream() {
            error.set_retry(false);
            return error;
        }
        if ctx.detour_begins() {
            // A client that left in the same moment needs no other version.
            error.set_retry(side_of(&error) != Side::Client);
            return error;
        }
        let body_done = session.as_mut().is_body_done();
        let attempt = AttemptError { side: side_of(&error), kind: kind_of(&error), reused, body_done };
        ctx.error = Some(attempt);
        if let Some(spans) = &mut ctx.spans {
            spans.failed(attempt, self.clock.now_us());
        }
        ctx.client_closed = http1::has_closed(session, ctx.kept);
        let again = outcome::is_stale(attempt, ctx.upstream_status)
            && session.req_header().method.is_idempotent()
            && !detour::has_begun(session)
            && !session.as_ref().retry_buffer_truncated();
        let outcome = outcome::classify(&self.facts(ctx, Some(attempt), 0));
        let failed = !again && matches!(outcome.fault, Fault::Backend(_));
        let rescued = failed && self.rescue(session, ctx, Failed::Unanswered) && ctx.detour_begins();
        error.set_retry(again || rescued);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
        client_side::restore(session, ctx);
        let body_done = session.as_mut().is_body_done();
        let now = AttemptError { side: side_of(error), kind: kind_of(error), reused: false, body_done };
        let attempt = match ctx.error {
            // What the phases have seen says more than what is left of it here.
            Some(seen) if seen.side == now.side || ctx.attempts > 0 && now.side == Side::Proxy => seen,
            _ => now,
        };
        ctx.error = Some(attempt);
        let (status, proxy_error) = match outcome::answer_for(attempt, ctx.upstream_status) {
            // The version that the request was routed to has answered: it does not have the asset.
            (500.., _) if ctx.is_skewed() => (404, "destination_not_found"),
            answer => answer,
        };
        let (status, proxy_error) = match Link::of(session).and_then(Link::fault) {
            None => (status, proxy_error),
            Some(fault) => {
                self.metrics.refused(fault.word());
                (fault.status(), "http_request_error")
            }
        };
        // Pingora closes the connection after this, and the answer has to say so: who trusts it would lose a request.
        session.set_keepalive(None);
        if status > 0 && session.response_written().is_none() {
            let _gone = refusal::answer(session, status, proxy_error, refusal::sentence(status)).await;
        } else if ctx.call.is_some_and(|call| !call.web) && attempt.side == Side::Version {
            // Else the stream would be reset, which clients take for having been cancelled.
            let _gone = session.as_mut().write_response_trailers(grpc::broken_off()).await;
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut RequestContext) {
        client_side::restore(session, ctx);
        let sent = session.response_written().map_or(0, |r| r.status.as_u16());
        // That the proxy closed a stream is nobody's failure.
        let failed = error.filter(|_| !ctx.is_closed_stream()).and_then(|e| {
            let now = AttemptError { side: side_of(e), kind: kind_of(e), reused: false, body_done: true };
            self.after_client(ctx, ctx.error.unwrap_or(now))
        });
        if let (Some(call), None, false) = (ctx.call, failed, ctx.is_closed_stream()) {
            ctx.grpc_status = call.status_at_end(ctx.upstream_status, ctx.grpc_status);
        }
        let outcome = outcome::classify(&self.facts(ctx, failed, sent));
        let now_us = self.clock.now_us();
        let settled = ctx.settle(outcome);
        if let Some(ticket) = &mut ctx.ticket {
            ticket.finish(settled, now_us);
        }
        self.finish_spans(session, ctx, outcome, now_us);
        let header = session.req_header();
        route_stats::count(ctx, &header.method, header.uri.path(), now_us);
        ctx.in_use = None;
        ctx.permit = None;
        ctx.working = None;
        if let (Some(sample), Some(assigned)) = (ctx.shadow.take(), &ctx.assigned)
            && outcome.fault == Fault::Served
        {
            let choose = assigned.service.spec.choose.as_ref().and_then(|c| c.header.as_ref());
            self.shadow.submit(*sample, choose);
        }
        self.write_line(session, error, ctx, outcome.fault, now_us);
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        // Every request is counted by outcome and may be in the access log; a line each would drown a bad minute.
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &RequestContext, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

/// Every connection that is served has a link, so the unspecified address is nobody's.
pub(super) fn client_ip(session: &Session) -> IpAddr {
    Link::of(session).map_or(IpAddr::from([0, 0, 0, 0]), |link| link.client)
}
