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

/// The two ends of serving, as connections see them.
#[derive(Clone)]
pub(in crate::proxy) struct Watches {
    /// Nothing is accepted any more, and HTTP/2 clients are told to go elsewhere: the protocol loses no request by that.
    pub accept: ShutdownWatch,
    /// Connections without a request are closed: in HTTP/1 one may be on its way.
    pub idle: ShutdownWatch,
}

/// Serves what comes until the process ends; then the socket is closed.
pub(in crate::proxy) async fn accept(front: Arc<Front>, socket: Listening, watches: Watches) {
    let mut ends = watches.accept.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = ends.wait_for(|ending| *ending) => return,
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
        match front.places.take((front.settings)().proxy.limits.connections.min(front.room.connections)) {
            Ok(place) => {
                let (front, tls, watches) = (front.clone(), socket.tls.clone(), watches.clone());
                tokio::spawn(connection::serve(front, stream, peer, tls, watches, place));
            }
            Err(full) => {
                (front.refused)(full.word());
                // A handshake for the answer's sake would cost more than a request.
                if socket.tls.is_none() {
                    front.turned_away.answer(stream);
                }
            }
        }
    }
}
