//! The socket: connections with a deadline for the request head, a limit on their number, and a graceful end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

/// How long a client may take to send the head of a request, the pause between two requests included.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Largest head of a request in bytes.
const HEAD_SIZE: usize = 32 << 10;
/// Connections that may be open at a time; streams of events take one each.
const MAX_CONNECTIONS: usize = 1_024;
/// How long open requests may take once the end has begun.
const GRACE: Duration = Duration::from_secs(5);
/// The pause after the system refused a connection, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Tells long answers that the end has begun.
#[derive(Debug, Clone)]
pub(super) struct Ending(watch::Receiver<Option<Duration>>);

impl Ending {
    /// Returns when the end has begun.
    pub(super) async fn wait(&mut self) {
        let _how_long = self.begun().await;
    }

    /// How long connections without a request are left open, once the end has begun.
    async fn begun(&mut self) -> Duration {
        // The sender is gone only when the server is.
        self.0.wait_for(Option::is_some).await.map_or(Duration::ZERO, |linger| linger.unwrap_or_default())
    }

    fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }
}

/// Serves until `shutdown` is done; then finishes open requests, at most for five seconds. `shutdown` tells how long
/// connections without a request are left open: one may be on its way, and is answered with `Connection: close`.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = Duration> + Send) {
    let (end, ending) = watch::channel(None);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    let linger = loop {
        tokio::select! {
            // Whoever comes after the end has begun is for the process that has taken over.
            biased;
            linger = &mut shutdown => break linger,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match permits.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let served = connection(stream, peer, router.clone(), Ending(ending.clone()));
                        connections.spawn(async move {
                            served.await;
                            drop(permit);
                        });
                    }
                    // Closing at once beats a queue in which people wait without knowing why.
                    Err(_) => tracing::warn!(%peer, MAX_CONNECTIONS, "the admin API has too many connections"),
                },
                Err(error) => {
                    tracing::warn!(%error, "the admin API could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    };
    drop(listener);
    let _nobody_waits = end.send(Some(linger));
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finished).await.is_err() {
        tracing::warn!("requests to the admin API were cut off at the end");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, mut ending: Ending) {
    let for_requests = ending.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (router, ending) = (router.clone(), for_requests.clone());
        async move {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(ending.clone());
            let mut response = router.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
            if ending.has_begun() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = async { tokio::time::sleep(ending.begun().await).await } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Clients that break off are no news.
        tracing::debug!(%peer, %error, "a connection to the admin API broke off");
    }
}
