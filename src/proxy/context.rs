//! What is remembered about one request while it passes through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::client_side::Behind;
use super::closed::Closed;
use super::detour::Detour;
use super::front::Pace;
use super::grpc::Call;
use super::headers::{Origin, Sent};
use super::in_flight::Working;
use super::last_part::LastPart;
use super::outcome::AttemptError;
use super::shadow::Sample;
use super::spans::Spans;
use super::streams::Stream;
use super::waits::Waits;
use crate::routing::{InUse, Permit, ServiceRoute, VersionRoute};
use crate::telemetry::Ticket;

/// How many endpoints are remembered as tried.
const TRIED: usize = 4;

/// One request.
#[derive(Default)]
pub(super) struct RequestContext {
    /// Microseconds at which its head was there.
    pub started_us: u64,
    /// Random numbers of this request.
    pub random: [u64; 2],
    /// Whom it comes from.
    pub origin: Option<Origin>,
    /// Which headers that are looked for later it came with.
    pub sent: Sent,
    /// Fields that name tenants and are not believed from whom it comes.
    pub distrusted: Option<Arc<[HeaderName]>>,
    /// How long the client may take nothing of the answer.
    pub write_timeout: Duration,
    /// How long it may send nothing of its body.
    pub body_timeout: Duration,
    /// How slowly its body may come, where the front does not see to it.
    pub pace: Option<Pace>,
    /// Where it goes, once decided.
    pub assigned: Option<Assigned>,
    /// Its entry in the tallies. Counts down the gauges when dropped.
    pub ticket: Option<Ticket>,
    /// The endpoint that is working on it.
    pub in_use: Option<InUse>,
    /// Endpoints that could not be reached.
    tried: Vec<SocketAddr>,
    /// How often it was sent on.
    pub attempts: u32,
    /// How often it was sent to the version that has it now.
    pub tries: u32,
    /// The version that has it instead of the assigned one.
    pub detour: Option<Detour>,
    /// Whether it was asked for a rescue.
    pub rescue_asked: bool,
    /// Microseconds from which on the service's deadline counts.
    pub waiting_since_us: u64,
    /// Status of the version's answer, once it came.
    pub upstream_status: Option<u16>,
    /// Set when it is a gRPC call.
    pub call: Option<Call>,
    /// gRPC status of the answer, from its header or trailer.
    pub grpc_status: Option<u16>,
    /// Why the last attempt failed, if it did.
    pub error: Option<AttemptError>,
    /// Bytes of the request body so far.
    pub body_bytes: u64,
    /// The largest allowed request body.
    pub body_limit: Option<u64>,
    /// Whether its connection was to stay open when it came.
    pub kept: bool,
    /// Whether the client had closed its side when an attempt failed.
    pub client_closed: bool,
    /// Whether the answer was whole while the request was not.
    pub whole: bool,
    /// Set while the last part of the answer has to wait for its end.
    pub last_part: Option<LastPart>,
    /// Whether the request's body had not ended when it was sent on.
    pub uploading: bool,
    /// Remembered for the shadow, when the request is one to copy.
    pub shadow: Option<Box<Sample>>,
    /// Whether its client speaks HTTP/2.
    pub client_http2: bool,
    /// How long the attempt at hand may wait.
    pub waits: Waits,
    /// The client's own side, while another stands before it.
    pub behind: Option<Behind>,
    /// Set once its answer turns out to be a stream.
    pub stream: Option<Box<Stream>>,
    /// Set when the proxy refused the request: one word.
    pub refused: Option<&'static str>,
    /// Its place among the requests of the process. Gives it back when dropped.
    pub working: Option<Working>,
    /// Its place within the limits of its tenant, when there are any. Gives it back when dropped.
    pub permit: Option<Permit>,
    /// Set when it met a closed door: maintenance, or the limits of its tenant.
    pub closed: Option<Box<Closed>>,
    /// Its spans, when it is recorded.
    pub spans: Option<Box<Spans>>,
    /// The request's id, made here or taken over.
    pub request_id: Option<HeaderValue>,
}

/// Where a request goes.
pub(super) struct Assigned {
    pub service: Arc<ServiceRoute>,
    pub version: Arc<VersionRoute>,
    /// The tenant, and as a header value.
    pub tenant: Option<(String, HeaderValue)>,
    /// Length of the path prefix to remove.
    pub strip: usize,
    /// Whether it is a stream, for which long pauses are normal.
    pub stream: bool,
    /// A key to give to the client: the whole `set-cookie` value.
    pub cookie: Option<HeaderValue>,
    /// The same for the session.
    pub session: Option<HeaderValue>,
    /// Whether the client asked for this version: no other may answer in its place.
    pub wanted: bool,
    /// Whether some version must never serve this request.
    pub restricted: bool,
}

impl Assigned {
    /// The version that has the request now.
    pub fn serving<'a>(&'a self, detour: &'a Option<Detour>) -> &'a Arc<VersionRoute> {
        detour.as_ref().map_or(&self.version, |detour| &detour.version)
    }
}

impl RequestContext {
    /// Remembers an endpoint that could not be reached.
    pub fn remember_tried(&mut self, address: SocketAddr) {
        if self.tried.len() < TRIED {
            self.tried.push(address);
        }
    }

    /// Whether the proxy has closed its stream.
    pub fn is_closed_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_closed())
    }

    /// Why the proxy ended it, in one word.
    pub fn why_ended(&self) -> Option<&'static str> {
        self.refused.or_else(|| self.is_closed_stream().then_some("stream_shifted"))
    }

    /// Whether an endpoint could not be reached before.
    pub fn has_tried(&self, address: SocketAddr) -> bool {
        self.tried.contains(&address)
    }
}

/// The `set-cookie` value that gives a key to a client.
pub(super) fn set_cookie(name: &str, value: &str, max_age_s: u64, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::try_from(format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}")).ok()
}
