//! One connection from its first byte to its last: who it comes from, which protocol it speaks, and one request after the
//! other. Pingora sees a request only when its head is complete, well formed and within the limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpPersistentSettings, HttpServerApp as _, ServerApp as _};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::server::ShutdownWatch;
use pingora_core::tls::TlsAcceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Front;
use super::accept::Watches;
use super::h2_frames::PREFACE;
use super::head::{self, BadHead, Head, HeadLimits};
use super::link::{Handshake, Link};
use super::places::Place;
use super::proxy_protocol;
use super::transport::Transport;
use super::wire::{Pace, Wire, WireParts, identity};
use crate::config::Limits;
use crate::proxy::refusal;
use crate::proxy::tls::ListenerTls;

/// Why a connection is closed before a request of it is served.
enum Closed {
    /// Nothing to say: the client is gone, or never said a word.
    Quietly,
    /// The head did not arrive in time.
    TooSlow,
    Bad(BadHead),
}

/// What comes next on a connection.
enum Next {
    Request(Head),
    Http2,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    front: Arc<Front>,
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ListenerTls>>,
    watches: Watches,
    place: Place,
) {
    let limits = (front.settings)().proxy.limits;
    let deadline = Instant::now() + limits.header_timeout;
    let opened = tokio::time::timeout_at(deadline, open(&front, socket, peer, tls.as_deref(), place, &limits)).await;
    let Ok(Some((mut wire, http2))) = opened else { return };
    let first = match http2 {
        true => Ok(Next::Http2),
        false => next(&mut wire, &limits, true, deadline, watches.idle.clone()).await,
    };
    match first {
        Ok(Next::Http2) => {
            wire.begin_frames(limits.h2_control_frames);
            serve_http2(&front, wire, deadline, watches.accept).await;
        }
        Ok(Next::Request(head)) => serve_requests(&front, wire, head, watches.idle).await,
        Err(why) => front.close(wire, why).await,
    }
}

/// Finds out who is there and agrees on a protocol; whether that is HTTP/2.
async fn open(
    front: &Front,
    mut socket: TcpStream,
    peer: SocketAddr,
    tls: Option<&ListenerTls>,
    mut place: Place,
    limits: &Limits,
) -> Option<(Wire, bool)> {
    let _slower_but_works = socket.set_nodelay(true);
    let (fd, digest) = identity(&socket);
    let settings = (front.settings)();
    let contains = |nets: &[ipnet::IpNet], ip| nets.iter().any(|net| net.contains(&ip));
    let said = match contains(&settings.proxy.proxy_protocol, peer.ip().to_canonical()) {
        true => {
            let said = who_is_it(&mut socket).await;
            let Ok(said) = said else {
                (front.refused)("proxy_protocol");
                return None;
            };
            said
        }
        false => None,
    };
    let client = SocketAddr::new(said.unwrap_or(peer).ip().to_canonical(), said.unwrap_or(peer).port());
    let _first = digest.peer_addr.set(Some(PingoraAddr::Inet(client)));
    // Behind a load balancer that does not say whom it speaks for, all clients have one address.
    if !contains(&settings.proxy.trusted, client.ip())
        && let Err(full) = place.of(client.ip(), limits.connections_per_address)
    {
        (front.refused)(full.word());
        if tls.is_none() {
            front.turned_away.answer(socket);
        }
        return None;
    }
    drop(settings);
    let (transport, handshake, http2) = match tls {
        None => (Transport::Plain(socket), None, false),
        Some(tls) => {
            let stream = TlsAcceptor::from(tls.config()).accept(socket).await.ok()?;
            let (_, session) = stream.get_ref();
            let server_name = session.server_name().map(|name| name.to_ascii_lowercase().into_boxed_str());
            let certified = session.peer_certificates().is_some_and(|chain| !chain.is_empty());
            let http2 = session.alpn_protocol() == Some(b"h2");
            (Transport::Secure(Box::new(stream)), Some(Handshake { server_name, certified }), http2)
        }
    };
    let pace = Pace::of(limits);
    let link = Link::new(client.ip(), handshake);
    let parts = WireParts { transport, fd, socket: digest, link, place, clock: front.clock, pace };
    Some((Wire::new(parts).ok()?, http2))
}

/// Reads the PROXY protocol's header from the socket, and not one byte more.
async fn who_is_it(socket: &mut TcpStream) -> Result<Option<SocketAddr>, std::io::Error> {
    let mut seen = Vec::new();
    let mut part = [0; 512];
    loop {
        let here = socket.peek(&mut part).await?;
        if here == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let before = seen.len();
        seen.extend_from_slice(&part[..here]);
        let said = proxy_protocol::read(&seen).map_err(std::io::Error::other)?;
        // What has been looked at belongs to the header as long as that is not complete.
        let belongs = said.map_or(here, |said| said.length - before);
        socket.read_exact(&mut part[..belongs]).await?;
        if let Some(said) = said {
            return Ok(said.source);
        }
    }
}

/// Pingora has the whole connection. The head of the first request must come in time; later, `keepalive_timeout` bounds
/// how long nothing may happen.
async fn serve_http2(front: &Arc<Front>, wire: Wire, deadline: Instant, shutdown: ShutdownWatch) {
    let link = wire.link().clone();
    let served = front.proxy.process_new(Box::new(wire), &shutdown);
    tokio::pin!(served);
    tokio::select! {
        biased;
        _ = &mut served => return,
        () = tokio::time::sleep_until(deadline) => {
            if !link.is_used() {
                return (front.refused)("slow_header");
            }
        }
    }
    served.await;
}

/// One request after the other, until either side has had enough.
async fn serve_requests(front: &Arc<Front>, mut wire: Wire, first: Head, shutdown: ShutdownWatch) {
    let mut head = first;
    let mut persistent: Option<HttpPersistentSettings> = None;
    loop {
        wire.begin_request(head);
        let mut session = ServerSession::new_http1(Box::new(wire));
        match persistent.take() {
            Some(settings) => settings.apply_to_session(&mut session),
            None => session.set_keepalive_reuses_remaining((front.settings)().proxy.limits.keepalive_requests),
        }
        let Some(reused) = front.proxy.process_new_http(session, &shutdown).await else { return };
        let (stream, settings) = reused.consume();
        let Some(same) = same_wire(stream) else { return };
        (wire, persistent) = (same, settings);
        let limits = (front.settings)().proxy.limits;
        let deadline = Instant::now() + limits.keepalive_timeout;
        head = match next(&mut wire, &limits, false, deadline, shutdown.clone()).await {
            Ok(Next::Request(head)) => head,
            Ok(Next::Http2) | Err(Closed::Quietly) => return,
            Err(why) => return front.close(wire, why).await,
        };
    }
}

/// The connection that Pingora gives back, if its last request was read to the end.
fn same_wire(stream: Stream) -> Option<Wire> {
    let wire = stream.into_any().downcast::<Wire>().ok()?;
    wire.is_between_requests().then_some(*wire)
}

/// Waits for the head of a request. Until its first byte `deadline` holds, and from then on that of a head.
async fn next(
    wire: &mut Wire,
    limits: &Limits,
    first: bool,
    deadline: Instant,
    mut shutdown: ShutdownWatch,
) -> Result<Next, Closed> {
    let head_limits = HeadLimits { size: limits.header_size as usize, fields: limits.headers };
    let mut begun = !wire.ahead().is_empty();
    let mut deadline = if begun && !first { Instant::now() + limits.header_timeout } else { deadline };
    let mut seen = 0;
    loop {
        let bytes = wire.ahead();
        if first && bytes.starts_with(PREFACE) {
            return Ok(Next::Http2);
        }
        let maybe_preface = first && PREFACE.starts_with(bytes);
        // A line that is not complete yet need not be read again with every byte of it.
        if !maybe_preface && (seen == 0 || bytes[seen..].contains(&b'\n') || bytes.len() > head_limits.size) {
            match head::scan(bytes, head_limits) {
                Ok(Some(head)) => return Ok(Next::Request(head)),
                Ok(None) => {}
                Err(bad) => return Err(Closed::Bad(bad)),
            }
        }
        seen = bytes.len();
        let read = async {
            tokio::select! {
                biased;
                read = wire.read_ahead() => read.unwrap_or(0),
                // Who has not begun a request yet loses nothing.
                _ = shutdown.wait_for(|ending| *ending), if !begun => 0,
            }
        };
        match tokio::time::timeout_at(deadline, read).await {
            Ok(0) => return Err(Closed::Quietly),
            Ok(_) if !begun && !first => deadline = Instant::now() + limits.header_timeout,
            Ok(_) => {}
            Err(_) => return Err(if begun { Closed::TooSlow } else { Closed::Quietly }),
        }
        begun = true;
    }
}

impl Front {
    /// Ends a connection that no request can be served on, with an answer if there is something to say.
    async fn close(&self, mut wire: Wire, why: Closed) {
        let (status, word) = match why {
            Closed::Quietly => return,
            Closed::TooSlow => (408, "slow_header"),
            Closed::Bad(bad) => (bad.status(), bad.word()),
        };
        (self.refused)(word);
        let answer = refusal::raw(status);
        let sent = async {
            wire.write_all(answer.as_bytes()).await?;
            wire.flush().await
        };
        // Who does not take even this is not waited for.
        let _late = tokio::time::timeout(Duration::from_secs(1), sent).await;
    }
}
