//! How long an attempt waits for what, and who sees to it.
//!
//! Pingora has one limit for all that it reads of an answer, head and body alike, set before the request goes out and
//! begun anew with every byte. So it gets the longest of those that apply, and what is shorter is seen to where a request
//! waits anyway: by the client's connection ([`Link`]) for the head, which costs a request next to nothing, and by a side
//! before the client's own ([`super::client_side`]) for the rest.

use std::time::Duration;

use bytes::Bytes;
use pingora::ErrorType;
use pingora::prelude::{Error, Result, timeout};
use pingora::proxy::Session;
use pingora_core::protocols::http::ServerSession;
use tokio::time::Instant;

use super::client_side;
use super::context::RequestContext;
use super::front::Link;
use super::gateway::Gateway;
use crate::model::Timeouts;

/// What ends an attempt whose answer does not begin in time, or stops.
const LATE: ErrorType = ErrorType::Custom("late_answer");

/// What a request is like, as far as waiting for it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// Whether its client speaks HTTP/2.
    pub client_http2: bool,
    /// Whether the version does.
    pub version_http2: bool,
    /// Whether long pauses are normal.
    pub stream: bool,
    /// Whether a body follows the head.
    pub uploading: bool,
}

/// The limits of one attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// Pingora's own: for each part of the answer.
    pub read: Option<Duration>,
    /// Pingora's own: for each part that the endpoint takes of what follows the request's head. None: nothing does, and a
    /// head alone fits into the socket's buffer.
    pub write: Option<Duration>,
    /// From the end of the request until the answer's head is there; none when Pingora's covers it.
    pub head: Option<Duration>,
    /// Between two parts of the answer's body; none when Pingora's covers it.
    pub pause: Option<Duration>,
    /// Between two parts of the request's body; none when the client's own side sees to it.
    pub stall: Option<Duration>,
}

impl Waits {
    /// What applies to a request. `left`: until its answer must have begun,
    /// whatever the version's own time; streams have no such limit.
    pub fn of(asked: Asked, timeouts: &Timeouts, left: Duration, body_timeout: Duration) -> Self {
        let Asked { client_http2, version_http2, stream, uploading } = asked;
        // Zero would be no time at all, even for an answer that is there.
        let head = timeouts.response.min(left).max(Duration::from_millis(1));
        if stream {
            let all = Some(timeouts.stream);
            return Self { read: all, write: all, head: Some(timeouts.response), pause: None, stall: None };
        }
        let usual = timeouts.response.max(timeouts.read);
        let read = match (uploading, version_http2) {
            (false, _) => usual,
            // It begins anew with each part of the body that is sent on. The client may pause for its own time.
            (true, false) => usual.max(body_timeout),
            // It runs from the request's head to the answer's, however the body moves. It cannot be left out: when the
            // endpoint has taken nothing for too long, Pingora waits for nothing else any more.
            (true, true) => usual.max(timeouts.stream),
        };
        let in_time = version_http2 && !uploading && read == head;
        Self {
            read: Some(read),
            write: uploading.then_some(timeouts.idle),
            head: (!in_time).then_some(head),
            pause: (read != timeouts.read).then_some(timeouts.read),
            stall: (uploading && client_http2).then_some(body_timeout),
        }
    }
}

/// Waits for the client, but no longer than a request may.
pub(super) struct Waiting {
    waits: Waits,
    /// Whether the answer has begun.
    begun: bool,
    /// When the answer must have begun; none while the request is not complete.
    head_by: Option<Instant>,
}

impl Waiting {
    fn new(waits: Waits, begun: bool) -> Self {
        Self { waits, begun, head_by: None }
    }

    /// Reads what the client sends, or waits until it leaves.
    ///
    /// Pingora asks whenever it waits for both sides, and not while it writes: what a slow client costs is not counted.
    pub(super) async fn read(&mut self, side: &mut ServerSession, no_body_expected: bool) -> Result<Option<Bytes>> {
        let stalls = !no_body_expected && !side.is_body_done();
        let limit = match (stalls, self.begun) {
            (true, _) => self.waits.stall,
            (false, true) => self.waits.pause,
            (false, false) => self.until_head(),
        };
        let read = side.read_body_or_idle(no_body_expected);
        let Some(limit) = limit else { return read.await };
        match timeout(limit, read).await {
            Ok(read) => read,
            Err(_) if stalls => Error::e_explain(ErrorType::ReadTimedout, "the client sends nothing of the body"),
            Err(_) => Error::e_explain(LATE, "the version sends nothing"),
        }
    }

    fn until_head(&mut self) -> Option<Duration> {
        let all = self.waits.head?;
        let by = *self.head_by.get_or_insert_with(|| Instant::now() + all);
        Some(by.saturating_duration_since(Instant::now()))
    }
}

impl Gateway {
    /// The request's head goes out.
    pub(super) fn await_answer(&self, session: &mut Session, ctx: &mut RequestContext) {
        if !ctx.uploading {
            self.await_head(session, ctx);
        }
        if ctx.client_http2 && (ctx.waits.head.is_some() || ctx.waits.stall.is_some()) {
            client_side::wait(session, ctx, Waiting::new(ctx.waits, false));
        }
    }

    /// The request is complete: from here on its answer is waited for.
    pub(super) fn await_head(&self, session: &Session, ctx: &RequestContext) {
        let by_us = |head: Duration| self.clock.now_us() + head.as_micros() as u64;
        // The streams of an HTTP/2 connection each wait for themselves.
        if let (Some(head), false, Some(link)) = (ctx.waits.head, ctx.client_http2, Link::of(session)) {
            link.await_head(by_us(head));
        }
    }

    /// The answer has begun. If it is no stream that can be closed, the rest of it must come without long pauses.
    pub(super) fn await_rest(&self, session: &mut Session, ctx: &mut RequestContext) {
        let stall = ctx.waits.stall.filter(|_| ctx.uploading);
        if ctx.behind.is_none() && (ctx.waits.pause.is_some() || stall.is_some()) {
            client_side::wait(session, ctx, Waiting::new(ctx.waits, true));
        }
    }
}

/// A wait that has taken too long ends like a read from the client that failed. It was the version's.
pub(super) fn blame_version(error: Box<Error>, session: &Session) -> Box<Error> {
    let late = Link::of(session).is_some_and(Link::was_late);
    if !late && *error.etype() != LATE {
        return error;
    }
    Error::explain(ErrorType::ReadTimedout, "the answer did not come in time").into_up()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const GET: Asked = Asked { client_http2: false, version_http2: false, stream: false, uploading: false };
    const POST: Asked = Asked { uploading: true, ..GET };

    fn waits(asked: Asked, response: u64, read: u64, left: u64) -> Waits {
        let timeouts = Timeouts { response: MS(response), read: MS(read), ..Timeouts::default() };
        Waits::of(asked, &timeouts, MS(left), MS(30_000))
    }

    #[test]
    fn with_equal_limits_pingora_sees_to_all_but_heads_that_drip() {
        let usual = waits(GET, 30_000, 30_000, 60_000);
        assert_eq!((usual.read, usual.head, usual.pause), (Some(MS(30_000)), Some(MS(30_000)), None));
        assert_eq!((usual.write, usual.stall), (None, None));
        let usual = waits(POST, 30_000, 30_000, 60_000);
        assert_eq!((usual.read, usual.pause, usual.stall), (Some(MS(30_000)), None, None));
        assert_eq!(usual.write, Some(Timeouts::default().idle));
        let to_http2 = waits(Asked { version_http2: true, ..GET }, 30_000, 30_000, 60_000);
        assert_eq!((to_http2.read, to_http2.head, to_http2.pause), (Some(MS(30_000)), None, None));
    }

    #[test]
    fn the_longest_limit_is_pingoras_and_shorter_ones_are_kept_besides() {
        for version_http2 in [false, true] {
            let get = Asked { version_http2, ..GET };
            let patient = waits(get, 50, 10, 1_000);
            assert_eq!((patient.read, patient.pause), (Some(MS(50)), Some(MS(10))));
            let quick = waits(get, 10, 50, 1_000);
            assert_eq!((quick.read, quick.head, quick.pause), (Some(MS(50)), Some(MS(10)), None));
            assert_eq!(waits(get, 50, 50, 20).head, Some(MS(20)), "the service's deadline");
            assert_eq!(waits(get, 50, 50, 0).head, Some(MS(1)));
        }
    }

    #[test]
    fn uploads_may_pause_for_as_long_as_clients_may() {
        let to_http1 = waits(POST, 50, 10, 1_000);
        assert_eq!((to_http1.read, to_http1.head, to_http1.pause), (Some(MS(30_000)), Some(MS(50)), Some(MS(10))));
        let to_http2 = waits(Asked { version_http2: true, ..POST }, 50, 10, 1_000);
        assert_eq!((to_http2.read, to_http2.head), (Some(Timeouts::default().stream), Some(MS(50))));
        assert_eq!(to_http2.stall, None, "the session of HTTP/1 has its own");
        assert_eq!(waits(Asked { client_http2: true, ..POST }, 50, 10, 1_000).stall, Some(MS(30_000)));
    }

    #[test]
    fn streams_are_long_but_begin_soon() {
        for asked in [GET, POST, Asked { client_http2: true, version_http2: true, ..POST }] {
            let stream = waits(Asked { stream: true, ..asked }, 50, 10, 20);
            let all = Some(Timeouts::default().stream);
            assert_eq!((stream.read, stream.write, stream.head), (all, all, Some(MS(50))));
            assert_eq!((stream.pause, stream.stall), (None, None));
        }
    }
}
