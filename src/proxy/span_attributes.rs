//! Makes the spans of a request that is over, with attributes named by the conventions of OpenTelemetry for HTTP.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Version;
use http::header::USER_AGENT;
use http::uri::Authority;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::context::RequestContext;
use super::detour::Why;
use super::front::Link;
use super::gateway::{Gateway, client_ip};
use super::headers;
use super::spans::{Attempt, Spans};
use crate::telemetry::{Fault, Outcome};

/// Longer texts of clients are cut.
const TEXT_MAX: usize = 1_024;
/// Flags of a span: it is sampled, and it is known whether its parent is elsewhere.
const SAMPLED: u32 = 0x101;
/// Its parent is elsewhere.
const REMOTE: u32 = 0x200;

/// What of a request both kinds of spans tell.
struct Request<'a> {
    method: &'a str,
    /// The method as it came, when it is none that has a name.
    odd: Option<&'a str>,
    path: &'a str,
    protocol: &'static str,
}

impl<'a> Request<'a> {
    fn of(header: &'a RequestHeader) -> Self {
        let given = header.method.as_str();
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"].contains(&given);
        let protocol = match header.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        let method = if known { given } else { "_OTHER" };
        Self { method, odd: (!known).then_some(given), path: cut(header.uri.path(), TEXT_MAX), protocol }
    }

    /// The first word of the spans' names.
    fn word(&self) -> &str {
        if self.odd.is_some() { "HTTP" } else { self.method }
    }
}

/// Attributes of a span, empty ones left out.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.add(key, Value::StringValue(value.to_owned()));
        }
    }

    fn number(&mut self, key: &str, value: impl Into<i64>) {
        self.add(key, Value::IntValue(value.into()));
    }

    fn add(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }
}

impl Gateway {
    /// The request is over: its spans go to the queue.
    pub(super) fn finish_spans(&self, session: &Session, ctx: &mut RequestContext, outcome: Outcome, now_us: u64) {
        let (Some(tracing), Some(mut spans)) = (&self.tracing, ctx.spans.take()) else { return };
        spans.end_attempt(now_us);
        let wall = Wall::now(now_us);
        let request = Request::of(session.req_header());
        let mut all = vec![server_span(&spans, &request, session, ctx, outcome, &wall, now_us)];
        let numbered = spans.attempts.iter().enumerate();
        all.extend(numbered.map(|(n, attempt)| client_span(&spans, attempt, n as u32, &request, &wall)));
        tracing.tracer.submit(all);
    }
}

fn server_span(
    spans: &Spans,
    request: &Request<'_>,
    session: &Session,
    ctx: &RequestContext,
    outcome: Outcome,
    wall: &Wall,
    now_us: u64,
) -> Span {
    let header = session.req_header();
    let link = Link::of(session);
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", request.method);
    attributes.text("http.request.method_original", cut(request.odd.unwrap_or_default(), TEXT_MAX));
    attributes.text("url.scheme", if link.is_some_and(|link| link.tls.is_some()) { "https" } else { "http" });
    // Without the query, since queries carry secrets.
    attributes.text("url.path", request.path);
    attributes.text("network.protocol.version", request.protocol);
    attributes.text("client.address", &client_ip(session).to_string());
    let host = headers::host_value(header);
    if let Some(authority) = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok()) {
        attributes.text("server.address", authority.host());
        authority.port_u16().into_iter().for_each(|port| attributes.number("server.port", port));
    }
    let agent = header.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    attributes.text("user_agent.original", cut(agent, TEXT_MAX));
    if outcome.status > 0 {
        attributes.number("http.response.status_code", outcome.status);
    }
    let mut name = request.word().to_owned();
    if let Some(assigned) = &ctx.assigned {
        let tenant = assigned.tenant.as_ref().map_or("", |(tenant, _)| tenant.as_str());
        attributes.text("switchback.service", assigned.service.spec.name.as_str());
        attributes.text("switchback.version", assigned.version.name.as_str());
        attributes.text("switchback.tenant", tenant);
        attributes.text("switchback.decision", spans.decision.0);
        if let Some(patterns) = &assigned.service.route_patterns {
            let mut room = None;
            let path = header.uri.path().get(assigned.strip..).unwrap_or_default();
            let (route, _) = patterns.name(&header.method, path, Some(tenant), &mut room);
            let route = route.split_once(' ').map_or(route, |(_, route)| route);
            attributes.text("http.route", route);
            name = format!("{name} {route}");
        }
    } else if let Some(closed) = &ctx.closed {
        attributes.text("switchback.service", closed.service.spec.name.as_str());
        attributes.text("switchback.tenant", closed.tenant.as_deref().unwrap_or_default());
    }
    attributes.text("switchback.rescue", rescue_word(spans, ctx, outcome.fault).unwrap_or_default());
    attributes.text("switchback.answered_by", ctx.detour.as_ref().map_or("", |detour| detour.version.name.as_str()));
    attributes.text("switchback.fault", outcome.fault.as_str());
    attributes.text("switchback.refused", ctx.why_ended().unwrap_or_default());
    let id = ctx.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    attributes.text("switchback.request_id", id);
    let error = server_error(outcome);
    attributes.text("error.type", error.as_deref().unwrap_or_default());
    Span {
        name,
        attributes: attributes.0,
        status: error.map(failed),
        ..span(spans, spans.span_id, SpanKind::Server, (ctx.started_us, now_us), wall)
    }
}

/// What the server got wrong: that a client left, or asked for something that is not there, is no error of the server.
fn server_error(outcome: Outcome) -> Option<String> {
    match outcome.fault {
        _ if outcome.status >= 500 => Some(outcome.status.to_string()),
        Fault::Backend(kind) => Some(kind.as_str().to_owned()),
        Fault::Proxy => Some(outcome.fault.as_str().to_owned()),
        Fault::Served | Fault::ClientLeft | Fault::Refused => None,
    }
}

fn rescue_word(spans: &Spans, ctx: &RequestContext, fault: Fault) -> Option<&'static str> {
    match &ctx.detour {
        Some(detour) if detour.why == Why::Rescue => match fault {
            Fault::Backend(_) | Fault::Proxy => Some("failed"),
            Fault::ClientLeft => Some("client_left"),
            Fault::Served | Fault::Refused => Some("saved"),
        },
        _ => spans.rescue,
    }
}

fn client_span(spans: &Spans, attempt: &Attempt, number: u32, request: &Request<'_>, wall: &Wall) -> Span {
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", request.method);
    attributes.text("http.request.method_original", cut(request.odd.unwrap_or_default(), TEXT_MAX));
    if let Some((address, name)) = &attempt.endpoint {
        let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
        let scheme = if attempt.version.spec.tls.is_some() { "https" } else { "http" };
        attributes.text("server.address", host.trim_matches(['[', ']']));
        attributes.number("server.port", port.parse().unwrap_or(address.port()));
        attributes.text("url.full", &format!("{scheme}://{name}{}", request.path));
        attributes.text("network.peer.address", &address.ip().to_string());
        attributes.number("network.peer.port", address.port());
    }
    attributes.text("network.protocol.version", if attempt.version.spec.http2 { "2" } else { "1.1" });
    if number > 0 {
        attributes.number("http.request.resend_count", number);
    }
    attributes.text("switchback.version", attempt.version.name.as_str());
    if let Some(status) = attempt.status {
        attributes.number("http.response.status_code", status);
    }
    let of_status = || attempt.status.filter(|status| *status >= 400).map(|status| status.to_string());
    let error = attempt.error.map(str::to_owned).or_else(of_status);
    attributes.text("error.type", error.as_deref().unwrap_or_default());
    let at = (attempt.begun_us, attempt.ended_us.unwrap_or(attempt.begun_us));
    Span {
        name: request.word().to_owned(),
        attributes: attributes.0,
        status: error.map(failed),
        ..span(spans, attempt.span_id, SpanKind::Client, at, wall)
    }
}

/// What all spans have.
fn span(of: &Spans, span_id: u64, kind: SpanKind, at: (u64, u64), wall: &Wall) -> Span {
    let parent = match kind {
        SpanKind::Server => of.parent.map(|parent| parent.span_id),
        _ => Some(of.span_id),
    };
    let remote = if kind == SpanKind::Server && parent.is_some() { REMOTE } else { 0 };
    Span {
        trace_id: of.trace_id.iter().flat_map(|half| half.to_be_bytes()).collect(),
        span_id: span_id.to_be_bytes().to_vec(),
        trace_state: of.state.clone(),
        parent_span_id: parent.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec()),
        flags: SAMPLED | remote,
        kind: kind as i32,
        start_time_unix_nano: wall.of(at.0),
        end_time_unix_nano: wall.of(at.1),
        ..Span::default()
    }
}

fn failed(message: String) -> Status {
    Status { code: StatusCode::Error as i32, message }
}

/// Where the process's clock stands among the clocks of people.
struct Wall {
    now_us: u64,
    unix_ns: u64,
}

impl Wall {
    fn now(now_us: u64) -> Self {
        Self { now_us, unix_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64) }
    }

    /// Nanoseconds since the Unix epoch.
    fn of(&self, us: u64) -> u64 {
        self.unix_ns.saturating_sub(self.now_us.saturating_sub(us).saturating_mul(1_000))
    }
}

/// The text's beginning, at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_end_between_characters() {
        assert_eq!(
            (cut("short", 9), cut("exactly", 7), cut("longer", 4), cut("aéé", 4)),
            ("short", "exactly", "long", "aé")
        );
    }
}
