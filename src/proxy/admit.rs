//! The first look at a request: whether it is well formed and allowed, and where it goes. No I/O towards services.

use http::HeaderValue;
use pingora::proxy::Session;

use super::clock::unix_s;
use super::closed::{Closed, Why};
use super::context::{Assigned, RequestContext, set_cookie};
use super::endpoints::is_label;
use super::front::{Handshake, Link, Pace};
use super::gateway::{Gateway, client_ip};
use super::grpc::Call;
use super::headers::{self, BadHead, HeadLimits, Origin};
use super::http1;
use super::in_flight::{self, Working};
use super::shadow::Sample;
use super::spans::Spans;
use crate::config::Limits;
use crate::routing::{self, Decision, Drawn, Head, Routes, Silent};
use crate::telemetry::{Draw, Start};

/// Why a request is not sent on.
pub(super) struct Refuse {
    /// The status of the answer.
    pub status: u16,
    /// One word for metrics and the access log.
    pub word: &'static str,
}

impl Gateway {
    /// Everything that can be said before any I/O towards the service.
    pub(super) fn admit(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<(), Refuse> {
        let settings = (self.settings)();
        let limits = &settings.proxy.limits;
        let head_limits = HeadLimits { size: limits.header_size, headers: limits.headers };
        let facts = headers::check(session.req_header(), head_limits).map_err(|bad| match bad {
            BadHead::Malformed => Refuse { status: 400, word: "malformed" },
            BadHead::TooLarge => Refuse { status: 431, word: "header_too_large" },
        })?;
        let draining = self.draining.load(std::sync::atomic::Ordering::Relaxed);
        ctx.kept = http1::set_up(session, if draining { None } else { Some(limits.keepalive_timeout) }, facts);
        ctx.working = Some(self.place(limits)?);
        let without_body = session.as_mut().is_body_done();
        if !without_body {
            session.set_read_timeout(Some(limits.body_timeout));
            // Pingora has no deadline for bodies of HTTP/2, and the front sees the streams of a connection as one.
            ctx.pace = session.is_http2().then(|| Pace::of(limits));
        }
        ctx.write_timeout = limits.write_timeout;
        ctx.body_timeout = limits.body_timeout;
        let handshake = Link::of(session).and_then(|link| link.tls.as_ref());
        if handshake.is_some_and(|handshake| is_misdirected(handshake, headers::host(session.req_header()))) {
            return Err(Refuse { status: 421, word: "misdirected" });
        }
        let client = client_ip(session);
        let trusted = settings.proxy.trusted.iter().any(|net| net.contains(&client));
        let random = rand::random();
        let routes = self.routes.load();
        let header = session.req_header();
        let head = Head {
            method: &header.method,
            host: headers::host(header),
            path: header.uri.path(),
            headers: &header.headers,
            address: client,
            trusted,
            random,
            now_s: if routes.needs_time() { unix_s() } else { 0 },
        };
        let decision = decide(&routes, &head, ctx.spans.as_deref_mut())?;
        let tenant = decision.tenant.as_deref();
        if let Some(maintenance) = routing::closed(decision.service, tenant, &header.headers, client) {
            return Err(turned_away(&decision, Why::Maintenance(maintenance.clone()), ctx));
        }
        // Who has no instance cannot be served, and a name made up by a stranger must not count against the version.
        if decision.version.needs_tenant && !decision.tenant.as_deref().is_some_and(is_label) {
            return Err(Refuse { status: 404, word: "unknown_tenant" });
        }
        if decision.service.spec.client_certificate && !handshake.is_some_and(|handshake| handshake.certified) {
            return Err(Refuse { status: 403, word: "no_certificate" });
        }
        ctx.body_limit = decision.service.spec.body_limit.or(limits.body_size);
        if ctx.body_limit.is_some_and(|limit| facts.length.is_some_and(|length| length > limit)) {
            return Err(Refuse { status: 413, word: "body_too_large" });
        }
        // Last, so that what is refused anyway uses up nothing.
        ctx.permit = routing::permit(&routes, decision.service, tenant, client, ctx.started_us * 1_000)
            .map_err(|over| turned_away(&decision, Why::OverLimit(over), ctx))?;
        let given = if facts.sent.request_id { headers::given_request_id(&header.headers) } else { None };
        ctx.request_id = given.or_else(|| Some(headers::fresh_request_id(random)));
        ctx.sent = facts.sent;
        ctx.random = random;
        ctx.call = if facts.stream { Call::of(header) } else { None };
        ctx.origin = Some(Origin { client, trusted, tls: handshake.is_some() });
        ctx.distrusted = if trusted { None } else { routes.identifier.trusted_headers() };
        ctx.shadow = Sample::begin(&decision, header, facts.stream, without_body);
        self.begin(&decision, facts.stream, ctx);
        http1::end_when_closed(session, ctx.permit.is_some());
        Ok(())
    }

    /// A place among the requests of the process.
    fn place(&self, limits: &Limits) -> Result<Working, Refuse> {
        let most = limits.requests.unwrap_or(usize::MAX).min(self.room.connections);
        self.in_flight.take(most).ok_or(Refuse { status: 503, word: in_flight::WORD })
    }

    /// Opens the request's entry in the tallies and remembers where it goes.
    fn begin(&self, decision: &Decision<'_, '_>, stream: bool, ctx: &mut RequestContext) {
        let secure = ctx.origin.is_some_and(|o| o.tls);
        let draw = match (decision.drawn, decision.by_tenant, decision.tenant.as_deref()) {
            (Drawn::Key(_), true, Some(tenant)) => Draw::Key(routing::tenant_hash(tenant)),
            (Drawn::Coin, ..) => Draw::Coin,
            (Drawn::Key(hash), ..) => Draw::Key(hash),
            (Drawn::Chosen, ..) => Draw::Chosen,
        };
        let start = Start {
            tenant: decision.tenant.as_deref(),
            version: &decision.version.name,
            now_us: ctx.started_us,
            draw,
            split: decision.split,
            pooled: decision.by_tenant,
        };
        ctx.ticket = Some(decision.service.tally.begin(&start));
        let cookie = decision.issue.as_ref().and_then(|(name, value, age)| set_cookie(name, value, *age, secure));
        let session = decision.session.as_ref().and_then(|session| {
            decision.service.tally.session(session.result);
            let (name, value, age) = session.cookie.as_ref()?;
            set_cookie(name, value, *age, secure)
        });
        let tenant = decision.tenant.as_deref().and_then(|t| Some((t.to_owned(), HeaderValue::from_str(t).ok()?)));
        ctx.assigned = Some(Assigned {
            service: decision.service.clone(),
            version: decision.version.clone(),
            tenant,
            strip: decision.strip,
            stream,
            cookie,
            wanted: decision.wanted,
            restricted: decision.restricted,
            session,
        });
    }
}

/// Decides; for a request that is recorded, its spans learn why.
fn decide<'r, 'h>(routes: &'r Routes, head: &Head<'h>, spans: Option<&mut Spans>) -> Result<Decision<'r, 'h>, Refuse> {
    let decided = match spans {
        None => routing::decide(routes, head, &mut Silent),
        Some(spans) => routing::decide(routes, head, &mut spans.decision),
    };
    decided.map_err(|refusal| Refuse { status: refusal.status(), word: refusal.as_str() })
}

/// Remembers whose request met a closed door, so that the answer and the access log can say it.
fn turned_away(decision: &Decision<'_, '_>, why: Why, ctx: &mut RequestContext) -> Refuse {
    let tenant = decision.tenant.as_deref().map(str::to_owned);
    let closed = Closed { service: decision.service.clone(), tenant, why };
    let refuse = closed.refuse();
    ctx.closed = Some(Box::new(closed));
    refuse
}

/// A client may use one connection for several names; what was checked in its handshake holds for one.
fn is_misdirected(handshake: &Handshake, host: &str) -> bool {
    handshake.server_name.as_ref().is_some_and(|name| !host.eq_ignore_ascii_case(name))
}
