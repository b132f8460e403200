//! What is remembered of a request that is recorded, for its spans: one for itself and one for each attempt. Nothing here
//! runs for a request that is not recorded.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pingora::http::RequestHeader;
use pingora::prelude::Result;
use pingora::proxy::Session;

use super::gateway::client_ip;
use super::outcome::{self, AttemptError, Side};
use crate::config::FollowParent;
use crate::routing::{Endpoint, Trace, VersionRoute};
use crate::telemetry::{TraceParent, Tracer};

/// The longest state of a trace that is kept; what every program must pass on (W3C Trace Context, section 3.3.1.5).
const STATE_MAX: usize = 512;
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// What makes spans, and whose parents it follows.
pub(super) struct Tracing {
    pub tracer: Arc<Tracer>,
    pub follow: FollowParent,
}

/// A request that is recorded.
pub(super) struct Spans {
    pub trace_id: [u64; 2],
    /// Of the span for the request itself.
    pub span_id: u64,
    pub parent: Option<TraceParent>,
    /// What the callers say of the trace among themselves.
    pub state: String,
    /// What decided which version serves.
    pub decision: Decision,
    pub attempts: Vec<Attempt>,
    /// What became of a rescue that was asked for and not begun.
    pub rescue: Option<&'static str>,
}

/// One word for what decided.
#[derive(Default)]
pub(super) struct Decision(pub &'static str);

/// A request as it was sent to one endpoint.
pub(super) struct Attempt {
    pub span_id: u64,
    pub begun_us: u64,
    pub ended_us: Option<u64>,
    pub version: Arc<VersionRoute>,
    /// Its address, and as it is configured.
    pub endpoint: Option<(SocketAddr, Arc<str>)>,
    pub status: Option<u16>,
    /// One word for how it failed, where its status does not say it.
    pub error: Option<&'static str>,
}

impl Trace for Decision {
    fn step(&mut self, step: &'static str, _: impl FnOnce() -> String) {
        self.0 = match step {
            "pin" | "choice" | "path" | "disabled" | "exclude" => step,
            "bucket" => "split",
            // Told at the end, also of a session that begins: that one follows what was decided before.
            "session" if self.0.is_empty() => step,
            _ => return,
        };
    }
}

impl Tracing {
    /// Begins to record a request, if it is one to record.
    pub fn begin(&self, session: &Session, trusted: impl Fn(IpAddr) -> bool) -> Option<Box<Spans>> {
        let headers = &session.req_header().headers;
        let mut values = headers.get_all(TRACEPARENT).iter();
        let parent = match (values.next(), values.next()) {
            (Some(value), None) => TraceParent::parse(value.as_bytes()),
            _ => None,
        };
        let follow = match self.follow {
            FollowParent::All => true,
            FollowParent::Trusted => trusted(client_ip(session)),
            FollowParent::None => false,
        };
        let trace_id = parent.map_or_else(fresh_trace, |parent| parent.trace_id);
        if !self.tracer.records(parent.as_ref().filter(|_| follow), trace_id) {
            return None;
        }
        let state = if parent.is_some() { trace_state(headers) } else { String::new() };
        let decision = Decision::default();
        Some(Box::new(Spans {
            trace_id,
            span_id: fresh(),
            parent,
            state,
            decision,
            attempts: Vec::new(),
            rescue: None,
        }))
    }
}

impl Spans {
    /// The request is sent to a version.
    pub fn attempt(&mut self, version: Arc<VersionRoute>, now_us: u64) {
        self.end_attempt(now_us);
        let (begun_us, span_id) = (now_us, fresh());
        self.attempts.push(Attempt {
            span_id,
            begun_us,
            ended_us: None,
            version,
            endpoint: None,
            status: None,
            error: None,
        });
    }

    /// To this endpoint.
    pub fn endpoint(&mut self, endpoint: &Endpoint) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.endpoint = Some((endpoint.address, endpoint.name.clone()));
        }
    }

    /// It answered.
    pub fn answered(&mut self, status: u16) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.status = Some(status);
        }
    }

    /// It did not answer, or not to the end.
    pub fn failed(&mut self, error: AttemptError, now_us: u64) {
        if let Some(attempt) = self.attempts.last_mut()
            && error.side != Side::Client
        {
            attempt.error.get_or_insert(outcome::answer_for(error, None).1);
        }
        self.end_attempt(now_us);
    }

    /// Nothing more comes of the attempt at hand.
    pub fn end_attempt(&mut self, now_us: u64) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended_us.get_or_insert(now_us);
        }
    }

    /// Tells the endpoint whose part of the trace it is.
    pub fn inject(&self, request: &mut RequestHeader) -> Result<()> {
        let span_id = self.attempts.last().map_or(self.span_id, |attempt| attempt.span_id);
        let parent = TraceParent { trace_id: self.trace_id, span_id, sampled: true };
        if self.parent.is_none() {
            // It belonged to a trace that nobody can read.
            request.remove_header(TRACESTATE);
        }
        request.insert_header(TRACEPARENT, parent.to_value())
    }
}

/// The callers' list, unless it is longer than it has to be passed on.
fn trace_state(headers: &http::HeaderMap) -> String {
    let values = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok());
    let state = values.collect::<Vec<_>>().join(",");
    if state.len() > STATE_MAX { String::new() } else { state }
}

fn fresh_trace() -> [u64; 2] {
    [rand::random(), fresh()]
}

/// An id, never zero.
fn fresh() -> u64 {
    rand::random::<u64>().max(1)
}
