//! Closes a stream when asked: follows what passes, and ends the answer where something ends, in the way that its protocol
//! has. A WebSocket gets a close frame with 1012 and time to answer, events their regular end, a gRPC call the status
//! UNAVAILABLE. Then the request is over for Pingora, as if the client had left.
//!
//! Pingora drops what it waits for whenever something else happens first. So everything that waits here can be dropped
//! and asked again: the goodbye is written by the parts of Pingora's own sessions that remember how far they came.
//!
//! What Pingora does not ask cannot be closed. While the version of a call takes nothing of what the client sends and sends
//! nothing itself, Pingora waits for the version alone, for at most `timeouts.stream`. A WebSocket's client is therefore
//! read no faster than its version takes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use pingora::ErrorType;
use pingora::prelude::{Error, Result};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use tokio::time::Instant;

use super::follow::{Follow, Frames};
use super::given::Given;
use super::open::Open;

/// A close frame with the code for "service restart" (RFC 6455, 5.5.1; the code is registered at IANA).
const CLOSE_1012: &[u8] = &[0x88, 2, 0x03, 0xf4];
/// How long a WebSocket's client may take to answer the close frame.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// What ends a request whose stream the proxy has closed.
const CLOSED: ErrorType = ErrorType::Custom("stream_shifted");

/// A stream that can be closed.
pub(in crate::proxy) struct Closing {
    open: Arc<Open>,
    /// What the version sends.
    follow: Follow,
    /// What a WebSocket's client sends.
    from_client: Frames,
    /// How much of that is on its way to the version.
    given: Given,
    goodbye: Goodbye,
}

/// How far the goodbye has come.
enum Goodbye {
    /// Nothing was said.
    Unsaid,
    /// It is being written.
    Begun,
    /// It was written. A WebSocket's client may answer until then.
    Said(Instant),
    /// The stream is over.
    Over,
}

impl Closing {
    pub(super) fn new(open: Arc<Open>, follow: Follow) -> Self {
        Self { open, follow, from_client: Frames::default(), given: Given::default(), goodbye: Goodbye::Unsaid }
    }

    /// Whether nothing more of the client is expected.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        matches!(self.goodbye, Goodbye::Over)
    }

    /// Reads what the client sends, or waits until it leaves; says goodbye when asked.
    pub(in crate::proxy) async fn read(
        &mut self,
        side: &mut ServerSession,
        no_body_expected: bool,
    ) -> Result<Option<Bytes>> {
        loop {
            let open = self.open.clone();
            match self.goodbye {
                Goodbye::Unsaid if self.may_say() => self.begin(side),
                Goodbye::Unsaid => tokio::select! {
                    biased;
                    () = open.asked(), if !open.is_asked() => {}
                    () = open.late() => return Err(self.cut()),
                    body = self.pass_client(side, no_body_expected) => return body,
                },
                Goodbye::Begun => tokio::select! {
                    biased;
                    written = self.write_goodbye(side) => {
                        written?;
                        self.said();
                    }
                    () = open.late() => return Err(self.cut()),
                },
                Goodbye::Said(until) => return self.after_goodbye(side, until, no_body_expected).await,
                Goodbye::Over => return self.end(),
            }
        }
    }

    /// Writes what the version sends, up to the goodbye; true when the answer has come to its end.
    pub(in crate::proxy) async fn write(&mut self, side: &mut ServerSession, tasks: Vec<HttpTask>) -> Result<bool> {
        if !matches!(self.goodbye, Goodbye::Unsaid) {
            return self.write_after_goodbye(side, &tasks).await;
        }
        let (tasks, says) = self.pass(tasks);
        let open = self.open.clone();
        let ended = tokio::select! {
            biased;
            ended = side.response_duplex_vec(tasks) => ended?,
            // The client takes nothing.
            () = open.late() => return Err(self.cut()),
        };
        if says {
            self.said();
        }
        // After a goodbye the request ends where the client is read, which also ends the version's side.
        Ok(ended && !says)
    }

    fn is_websocket(&self) -> bool {
        matches!(self.follow, Follow::Frames(_))
    }

    /// Whether the goodbye can be said here and now. A version that closes by itself needs none.
    fn may_say(&self) -> bool {
        self.open.is_asked() && self.follow.at_boundary() && !self.follow.is_closing()
    }

    /// The end of the answer, as its protocol has it.
    fn goodbye(&self) -> HttpTask {
        match self.follow {
            Follow::Frames(_) => HttpTask::UpgradedBody(Some(Bytes::from_static(CLOSE_1012)), false),
            Follow::Messages(_) => HttpTask::Trailer(Some(Box::new(unavailable()))),
            Follow::Events(_) | Follow::Opaque => HttpTask::Done,
        }
    }

    fn begin(&mut self, side: &mut ServerSession) {
        // Others take it whole, without waiting.
        if let ServerSession::H1(side) = side {
            side.send_proxy_task(self.goodbye());
        }
        self.goodbye = Goodbye::Begun;
    }

    async fn write_goodbye(&mut self, side: &mut ServerSession) -> Result<()> {
        match side {
            ServerSession::H1(side) => side.write_proxy_tasks().await.map(drop),
            other => other.response_duplex_vec(vec![self.goodbye()]).await.map(drop),
        }
    }

    fn said(&mut self) {
        self.open.close(true);
        self.goodbye = Goodbye::Said(Instant::now() + ANSWER_WITHIN);
    }

    /// There was no good place to end before the deadline.
    fn cut(&mut self) -> Box<Error> {
        self.open.close(false);
        self.goodbye = Goodbye::Over;
        closed()
    }

    /// What of these parts of the answer is sent on, and whether the goodbye is among it.
    fn pass(&mut self, tasks: Vec<HttpTask>) -> (Vec<HttpTask>, bool) {
        let mut passed = Vec::with_capacity(tasks.len() + 1);
        // An answer that ends by itself needs no goodbye, except that a WebSocket's client then hears why.
        let ends = tasks.iter().any(HttpTask::is_end) && !self.is_websocket();
        for task in tasks {
            let (HttpTask::Body(Some(data), _) | HttpTask::UpgradedBody(Some(data), _)) = &task else {
                passed.push(task);
                continue;
            };
            if !self.open.is_asked() || ends || self.follow.is_closing() {
                self.follow.pass(data);
                passed.push(task);
                continue;
            }
            let Some(n) = self.follow.pass_until_boundary(data) else {
                passed.push(task);
                continue;
            };
            let part = Some(data.slice(..n));
            let websocket = self.is_websocket();
            passed.push(if websocket { HttpTask::UpgradedBody(part, false) } else { HttpTask::Body(part, false) });
            passed.push(self.goodbye());
            return (passed, true);
        }
        (passed, false)
    }

    /// Nothing comes after a goodbye, but the version may end a WebSocket's tunnel.
    async fn write_after_goodbye(&mut self, side: &mut ServerSession, tasks: &[HttpTask]) -> Result<bool> {
        if !self.is_websocket() || !tasks.iter().any(HttpTask::is_end) {
            return Ok(false);
        }
        if matches!(self.goodbye, Goodbye::Begun) {
            self.write_goodbye(side).await?;
            self.said();
        }
        side.response_duplex_vec(vec![HttpTask::UpgradedBody(None, true)]).await
    }

    async fn pass_client(&mut self, side: &mut ServerSession, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !self.is_websocket() {
            return side.read_body_or_idle(no_body_expected).await;
        }
        self.given.room().await;
        let data = side.read_body_or_idle(no_body_expected).await?;
        Ok(data.map(|data| {
            self.from_client.pass(&data);
            self.given.give(data)
        }))
    }

    /// Ends the request. A WebSocket ends as if its client had, unless its version does not even take that.
    fn end(&mut self) -> Result<Option<Bytes>> {
        self.goodbye = Goodbye::Over;
        if self.is_websocket() && self.given.is_taken() { Ok(None) } else { Err(closed()) }
    }

    /// The answer is over: the request ends, or a WebSocket's client gets its time.
    async fn after_goodbye(
        &mut self,
        side: &mut ServerSession,
        until: Instant,
        no_body_expected: bool,
    ) -> Result<Option<Bytes>> {
        if !self.is_websocket() {
            if let ServerSession::H1(side) = side {
                side.shutdown().await;
            }
            return self.end();
        }
        if self.from_client.is_closed() {
            let _late = tokio::time::timeout_at(until, self.given.taken()).await;
            return self.end();
        }
        tokio::select! {
            biased;
            body = self.pass_client(side, no_body_expected) => body,
            () = tokio::time::sleep_until(until) => self.end(),
        }
    }
}

fn closed() -> Box<Error> {
    Error::explain(CLOSED, "the stream was closed, since its next request would go elsewhere").into_down()
}

/// The trailers of a gRPC call that should be made again: UNAVAILABLE.
fn unavailable() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("14"));
    trailers.insert("grpc-message", HeaderValue::from_static("the version of this call has changed"));
    trailers
}
