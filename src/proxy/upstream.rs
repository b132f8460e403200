//! The connection that an attempt uses: where to, how long to wait, and with whom it may be shared.

use std::time::Duration;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;

use super::tls::Identity;
use crate::model::{Timeouts, UpstreamTls};
use crate::routing::{Endpoint, VersionRoute};

/// Requests that share one HTTP/2 connection.
const H2_STREAMS: usize = 100;
/// Flow-control window of one stream. Small beside the connection's, so that one reader that stops cannot starve the
/// others on its connection.
const H2_STREAM_WINDOW: u32 = 256 << 10;
/// Flow-control window of one connection: beyond what its streams together can use. The library takes half of it for what
/// it may cost to keep small frames that are not read, some 250 bytes each, and ends the connection when there are more.
/// So a hundred readers that stop, on streams of messages of 50 bytes, do no harm to the requests beside them.
const H2_CONNECTION_WINDOW: u32 = 256 << 20;

/// The peer of one attempt. `identity`: what the version's TLS files say; `sends_for`: how long the endpoint may take
/// nothing of what follows the head, if something does.
pub(super) fn peer(
    version: &VersionRoute,
    endpoint: &Endpoint,
    identity: Option<&Identity>,
    sends_for: Option<Duration>,
) -> HttpPeer {
    let spec = &version.spec;
    let server_name = match &spec.tls {
        // Certificates name IPv6 addresses without brackets.
        Some(UpstreamTls { server_name: Some(name), .. }) => name.trim_matches(['[', ']']).to_owned(),
        Some(_) => endpoint.host.to_string(),
        None => String::new(),
    };
    // From an address, never from a name: a name would be looked up here and now, blocking the thread.
    let mut peer = HttpPeer::new(endpoint.address, spec.tls.is_some(), server_name);
    peer.group_key = version.group_key;
    if let Some(identity) = identity {
        peer.group_key ^= identity.digest;
        peer.options.ca = identity.ca.clone();
        peer.client_cert_key = identity.client.clone();
    }
    let options = &mut peer.options;
    set_timeouts(options, &spec.timeouts);
    // A head alone fits into the socket's buffer; the deadline for the answer covers it.
    options.write_timeout = sends_for;
    if let Some(tls) = &spec.tls {
        options.verify_cert = tls.verify;
        options.verify_hostname = tls.verify;
    }
    if spec.http2 {
        options.alpn = ALPN::H2;
        options.max_h2_streams = H2_STREAMS;
        options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
        options.h2_ping_interval = Some(Duration::from_secs(20));
    }
    peer
}

/// Lets connecting take no longer than what is left for the request. At least a millisecond, since zero means no limit.
pub(super) fn limit(peer: &mut HttpPeer, left: Duration) {
    let left = left.max(Duration::from_millis(1));
    let options = &mut peer.options;
    for timeout in [&mut options.connection_timeout, &mut options.total_connection_timeout] {
        *timeout = Some(timeout.map_or(left, |t| t.min(left)));
    }
}

fn set_timeouts(options: &mut pingora::upstreams::peer::PeerOptions, timeouts: &Timeouts) {
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.response);
    options.idle_timeout = Some(timeouts.keepalive);
}
