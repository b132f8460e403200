//! A client's side of a request that does more than Pingora's own.
//!
//! Pingora lets the client's side be anything that reads and writes like one. So a request's own side can stand behind
//! this one for a while: to wait no longer than it may, to be closed when a shift asks for it, or to mend how a WebSocket
//! begins.
//!
//! The last: Pingora tells the version's side the end of a request without a body once the exchange begins. When the
//! version has answered 101 by then, which happens with versions that are near, the end is taken for the tunnel's, and
//! the tunnel closes before it was used. Told that a body may follow, it says nothing, and the tunnel stays.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::Result;
use pingora::proxy::Session;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session as CustomSession;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::protocols::l4::socket::SocketAddr;

use super::context::RequestContext;
use super::streams::Closing;
use super::waits::Waiting;

/// Where the client's own side is put when the one before it is dropped.
pub(super) struct Behind(Arc<Mutex<Option<Box<ServerSession>>>>);

impl Behind {
    fn restore(self, side: &mut Box<ServerSession>) {
        drop(std::mem::replace(side, nobody()));
        if let Some(own) = self.0.lock().take() {
            *side = own;
        }
    }
}

/// Before a request that asks for a WebSocket goes out: its own side steps back until the answer is there.
pub(super) fn expect_websocket(session: &mut Session, ctx: &mut RequestContext) {
    if ctx.assigned.as_ref().is_some_and(|a| a.stream) && session.as_downstream().is_upgrade_req() {
        ctx.behind = Some(Side::before(&mut session.downstream_session, Work::Begin(false)));
    }
}

/// The answer is a stream that can be closed.
pub(super) fn make_closable(session: &mut Session, ctx: &mut RequestContext, closing: Closing) {
    ctx.behind = Some(Side::before(&mut session.downstream_session, Work::Close(closing)));
}

/// The client's own side waits too long by itself.
pub(super) fn wait(session: &mut Session, ctx: &mut RequestContext, waiting: Waiting) {
    ctx.behind = Some(Side::before(&mut session.downstream_session, Work::Wait(waiting)));
}

/// The client's own side comes back: for another attempt, or so that its connection can serve another request.
pub(super) fn restore(session: &mut Session, ctx: &mut RequestContext) {
    if let Some(behind) = ctx.behind.take() {
        behind.restore(&mut session.downstream_session);
    }
}

/// The side before the client's own.
struct Side {
    inner: Box<ServerSession>,
    behind: Arc<Mutex<Option<Box<ServerSession>>>>,
    work: Work,
}

/// What it is for.
enum Work {
    /// Mends the beginning of a WebSocket. Whether the request's head has been sent on.
    Begin(bool),
    /// Closes a stream when asked.
    Close(Closing),
    /// Waits no longer than it may.
    Wait(Waiting),
}

/// A side that nobody uses, for the moment of a change.
fn nobody() -> Box<ServerSession> {
    Box::new(ServerSession::new_custom(Box::new(())))
}

impl Side {
    fn before(side: &mut Box<ServerSession>, work: Work) -> Behind {
        let behind = Arc::default();
        let before = Self { inner: std::mem::replace(side, nobody()), behind: Arc::clone(&behind), work };
        **side = ServerSession::new_custom(Box::new(before));
        Behind(behind)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        *self.behind.lock() = Some(std::mem::replace(&mut self.inner, nobody()));
    }
}

#[async_trait]
impl CustomSession for Side {
    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        match &mut self.work {
            Work::Begin(_) => self.inner.read_body_or_idle(no_body_expected).await,
            Work::Close(closing) => closing.read(&mut self.inner, no_body_expected).await,
            Work::Wait(waiting) => waiting.read(&mut self.inner, no_body_expected).await,
        }
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        match &mut self.work {
            Work::Begin(_) | Work::Wait(_) => self.inner.response_duplex_vec(tasks).await,
            Work::Close(closing) => closing.write(&mut self.inner, tasks).await,
        }
    }

    fn is_body_done(&mut self) -> bool {
        matches!(&self.work, Work::Close(closing) if closing.is_over()) || self.inner.is_body_done()
    }

    fn is_body_empty(&mut self) -> bool {
        !matches!(self.work, Work::Begin(true)) && self.inner.is_body_empty()
    }

    /// The last that Pingora asks before the exchange begins, and after the head was sent on.
    fn enable_retry_buffering(&mut self) {
        if let Work::Begin(sent) = &mut self.work {
            *sent = true;
        }
        self.inner.enable_retry_buffering();
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner.finish_body().await
    }

    // What follows only hands over.

    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.inner.read_request_body().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner.drain_request_body().await
    }

    async fn write_response_header(&mut self, header: Box<ResponseHeader>, _: bool) -> Result<()> {
        self.inner.write_response_header(header).await
    }

    async fn write_response_header_ref(&mut self, header: &ResponseHeader, _: bool) -> Result<()> {
        self.inner.write_response_header_ref(header).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.inner.write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_response_trailers(trailers).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.inner.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.inner.shutdown().await;
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.to_h1_raw()
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    fn is_upgrade_req(&self) -> bool {
        self.inner.is_upgrade_req()
    }

    fn was_upgraded(&self) -> bool {
        self.inner.was_upgraded()
    }

    // Messages beside the body exist in protocols that this proxy does not speak.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn futures::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn futures::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
