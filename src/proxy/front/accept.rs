//! Takes connections from a listening socket, as long as there are places.

use std::sync::Arc;
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::net::TcpListener;

use super::Front;
use super::connection;
use crate::proxy::tls::ListenerTls;

/// How long to wait when the system gives no more sockets: others must close first.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

/// A socket that is listened on.
pub(in crate::proxy) struct Listening {
    pub listener: TcpListener,
    pub tls: Option<Arc<ListenerTls>>,
}

/// Serves what comes until the process ends; then the socket is closed.
pub(in crate::proxy) async fn accept(front: Arc<Front>, socket: Listening, mut shutdown: ShutdownWatch) {
    let watch = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = shutdown.wait_for(|ending| *ending) => return,
            accepted = socket.listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // A client that left before it was accepted is one of many; no sockets is a state that lasts.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::error!(%error, "connections cannot be accepted for a moment");
                tokio::time::sleep(OUT_OF_SOCKETS).await;
                continue;
            }
        };
        match front.places.take((front.settings)().proxy.limits.connections) {
            Ok(place) => {
                let (front, tls, shutdown) = (front.clone(), socket.tls.clone(), watch.clone());
                tokio::spawn(connection::serve(front, stream, peer, tls, shutdown, place));
            }
            Err(full) => (front.refused)(full.word()),
        }
    }
}
