//! Streams: WebSockets, server-sent events and gRPC calls. On a shift they can be closed, so that clients come again and
//! to the version of now; see the service's `streams` settings.
//!
//! An answer of another kind is never closed: its end would look like the end of what was asked for.

mod closing;
mod follow;
mod given;
mod keeper;
mod open;
mod pace;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

pub(super) use closing::Closing;
pub use keeper::StreamKeeper;

use super::client_side;
use super::clock::unix_s;
use super::context::RequestContext;
use super::gateway::Gateway;
use super::headers;
use crate::model::OnShift;
use crate::routing::{Head, StreamHead, StreamPlace};
use crate::telemetry::OpenStream;
use follow::{Events, Follow, Frames, Messages};
use keeper::Kept;
use open::Open;

/// A request whose answer is a stream, until it is dropped.
pub(super) struct Stream {
    _open: OpenStream,
    kept: Option<Kept>,
}

impl Stream {
    /// Whether the proxy has ended it, whatever the rest looks like.
    pub(super) fn is_closed(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.open.is_closed())
    }
}

impl Gateway {
    /// Takes note of an answer that is a stream, now that its head is there, and makes it one that can be closed.
    pub(super) fn watch_stream(&self, session: &mut Session, response: &ResponseHeader, ctx: &mut RequestContext) {
        let Some(follow) = carries(session, response) else { return };
        let (Some(assigned), Some(origin)) = (&ctx.assigned, ctx.origin) else { return };
        let serving = &assigned.serving(&ctx.detour).name;
        let metrics = assigned.service.tally.metrics(serving);
        let open = OpenStream::new(metrics.streams().clone());
        if assigned.service.spec.streams.on_shift == OnShift::Leave {
            ctx.stream = Some(Box::new(Stream { _open: open, kept: None }));
            return;
        }
        let header = session.req_header();
        let waited_s = self.clock.now_us().saturating_sub(ctx.started_us) / 1_000_000;
        let head = Head {
            method: &header.method,
            host: headers::host(header),
            path: header.uri.path(),
            headers: &header.headers,
            address: origin.client,
            trusted: origin.trusted,
            random: ctx.random,
            // The time of the decision: a token that was good then is no reason to leave.
            now_s: unix_s().saturating_sub(waited_s),
        };
        let head = StreamHead::new(&head, assigned.cookie.iter().chain(&assigned.session));
        let place = StreamPlace {
            service: assigned.service.spec.name.clone(),
            assigned: assigned.version.name.clone(),
            serving: serving.clone(),
        };
        let stream = Open::new(head, place, assigned.service.clone(), metrics.streams().clone(), self.clock);
        let kept = self.streams.keep(stream);
        if let Some(kept) = &kept {
            // Over HTTP/1.1 the connection ends with the goodbye. A client that would use it again must know beforehand.
            session.set_keepalive(None);
            let closing = Closing::new(kept.open.clone(), follow);
            client_side::make_closable(session, ctx, closing);
        }
        ctx.stream = Some(Box::new(Stream { _open: open, kept }));
    }
}

/// What the answer carries, if it is a stream.
fn carries(session: &Session, response: &ResponseHeader) -> Option<Follow> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return Some(Follow::Frames(Frames::default()));
    }
    if !response.status.is_success() || session.req_header().method == Method::HEAD {
        return None;
    }
    kind_of(&response.headers, session.as_downstream().is_http2())
}

fn kind_of(headers: &HeaderMap, http2: bool) -> Option<Follow> {
    let media = headers.get(CONTENT_TYPE)?.as_bytes();
    let is = |name: &str| {
        let (start, rest) = media.split_at_checked(name.len())?;
        (start.eq_ignore_ascii_case(name.as_bytes())).then_some(rest.first().copied())
    };
    if let Some(None | Some(b';' | b' ')) = is("text/event-stream") {
        return Some(match headers.contains_key(CONTENT_ENCODING) {
            true => Follow::Opaque,
            false => Follow::Events(Events::default()),
        });
    }
    // Without HTTP/2 there are no trailers, and so no way to say how a call ended.
    match is("application/grpc") {
        Some(None | Some(b'+' | b';' | b' ')) if http2 => Some(Follow::Messages(Messages::default())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_known_by_what_they_carry() {
        let kind = |media: &str, coding: Option<&str>, http2| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, media.parse().unwrap());
            coding.map(|coding| headers.insert(CONTENT_ENCODING, coding.parse().unwrap()));
            kind_of(&headers, http2)
        };
        assert!(matches!(kind("text/event-stream", None, false), Some(Follow::Events(_))));
        assert!(matches!(kind("Text/Event-Stream; charset=utf-8", None, true), Some(Follow::Events(_))));
        assert!(matches!(kind("text/event-stream", Some("gzip"), false), Some(Follow::Opaque)));
        assert!(matches!(kind("application/grpc+proto", None, true), Some(Follow::Messages(_))));
        assert!(matches!(kind("application/grpc", None, true), Some(Follow::Messages(_))));
        for other in ["application/grpc-web", "application/json", "text/event-streams", "text", "application/x-ndjson"]
        {
            assert!(kind(other, None, true).is_none(), "{other}");
        }
        assert!(kind("application/grpc", None, false).is_none());
    }
}
