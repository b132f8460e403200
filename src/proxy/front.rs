//! In front of Pingora's HTTP server: a deadline for the first request head, a cap on open connections, and the gauge
//! by which a drain knows that it is done. Pingora has none of the three.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::proxy::{HttpProxy, ProxyHttp, Session};
use pingora::server::ShutdownWatch;

use crate::config::Settings;

/// Counts a connection as long as it lives.
struct Open(Arc<AtomicI64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Wraps the HTTP server.
pub(super) struct Front<P> {
    pub inner: Arc<HttpProxy<P>>,
    pub open: Arc<AtomicI64>,
    pub settings: Arc<dyn Fn() -> Arc<Settings> + Send + Sync>,
    pub refused: Arc<dyn Fn() + Send + Sync>,
}

#[async_trait]
impl<P> ServerApp for Front<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let settings = (self.settings)();
        let open = self.open.fetch_add(1, Relaxed) + 1;
        let _open = Open(self.open.clone());
        if open > settings.proxy.limits.connections as i64 {
            (self.refused)();
            return None;
        }
        let deadline: Duration = settings.proxy.limits.header_timeout;
        drop(settings);
        let digest = stream.get_socket_digest();
        let served = self.inner.process_new(stream, shutdown);
        tokio::pin!(served);
        tokio::select! {
            biased;
            done = &mut served => return done,
            () = tokio::time::sleep(deadline) => {
                if digest.is_none_or(|d| d.original_dst.get().is_none()) {
                    return None;
                }
            }
        }
        served.await
    }

    async fn cleanup(&self) {
        ServerApp::cleanup(&*self.inner).await;
    }
}

/// Notes on the connection that a request head has arrived. The digest is shared by the connection and all requests on
/// it; its place for the original destination is used for nothing else here, and setting it takes no lock.
pub(super) fn mark_head_arrived(session: &Session) {
    if let Some(digest) = session.digest().and_then(|d| d.socket_digest.as_ref())
        && digest.original_dst.get().is_none()
    {
        let _already = digest.original_dst.set(None);
    }
}
