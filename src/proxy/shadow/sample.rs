//! What is remembered of a request that will be copied, from its head to the end of its answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};

use super::super::headers::host_value;
use crate::routing::{Decision, ShadowRoute, VersionRoute};
use crate::shadow::Side;

/// Marks copies. What clients send under this name is removed.
pub(in super::super) const X_SHADOW: HeaderName = HeaderName::from_static("x-switchback-shadow");

/// Requests that ask for an answer only if something has changed. Versions tag their answers in their own ways, so that
/// their answers to these cannot be compared.
const CONDITIONS: [HeaderName; 5] = [
    http::header::IF_NONE_MATCH,
    http::header::IF_MODIFIED_SINCE,
    http::header::IF_MATCH,
    http::header::IF_UNMODIFIED_SINCE,
    http::header::IF_RANGE,
];

/// A request that will be copied.
pub(in super::super) struct Sample {
    pub route: Arc<ShadowRoute>,
    pub tenant: Option<String>,
    /// Length of the path prefix to remove.
    pub strip: usize,
    /// The host as the client wrote it.
    pub host: Option<HeaderValue>,
    /// The head for any version, without what is each version's own.
    pub head: Option<RequestHeader>,
    sent_us: u64,
    /// What the client got.
    pub answer: Option<Answer>,
}

/// An answer as it comes in.
pub(in super::super) struct Answer {
    pub side: Side,
    content_type: Option<HeaderValue>,
    encoding: Option<HeaderValue>,
    parts: Vec<Bytes>,
    /// Bytes so far.
    length: u64,
}

impl Answer {
    /// An answer whose head took so long.
    pub fn new(status: u16, headers: &HeaderMap, latency_us: u64) -> Self {
        let header = |name| headers.get(name).cloned();
        Self {
            side: Side { status, latency_us },
            content_type: header(CONTENT_TYPE),
            encoding: header(CONTENT_ENCODING),
            parts: Vec::new(),
            length: 0,
        }
    }

    /// Takes a part of the body; beyond the limit only its length. False when it is beyond the limit.
    pub fn take(&mut self, part: Bytes, limit: u64) -> bool {
        self.length += part.len() as u64;
        let fits = self.length <= limit;
        if fits {
            self.parts.push(part);
        } else {
            self.parts = Vec::new();
        }
        fits
    }

    /// The body, read.
    pub fn body(&self, limit: u64) -> crate::shadow::Body {
        if self.length > limit {
            return crate::shadow::Body::Unreadable;
        }
        let text = |value: &Option<HeaderValue>| value.as_ref().map(|v| v.to_str().unwrap_or("other").to_owned());
        let (kind, encoding) = (text(&self.content_type), text(&self.encoding));
        crate::shadow::Body::read(kind.as_deref(), encoding.as_deref(), &self.parts.concat(), limit)
    }
}

impl Sample {
    /// Remembers the request if it is one to copy: served by the baseline, of an eligible method, without a body, no
    /// stream, unconditional; and drawn. `without_body`: nothing follows its head.
    pub fn begin(
        decision: &Decision<'_, '_>,
        header: &RequestHeader,
        stream: bool,
        without_body: bool,
    ) -> Option<Box<Self>> {
        let route = decision.service.shadow.as_ref()?;
        let eligible = Arc::ptr_eq(decision.version, &route.baseline)
            && route.is_active()
            && !decision.service.state.is_disabled(&route.version.name)
            && !stream
            && without_body
            && route.spec.methods.contains(&header.method)
            && !CONDITIONS.iter().any(|name| header.headers.contains_key(name));
        (eligible && route.draw()).then(|| {
            Box::new(Self {
                route: route.clone(),
                tenant: decision.tenant.as_deref().map(str::to_owned),
                strip: decision.strip,
                host: host_value(header),
                head: None,
                sent_us: 0,
                answer: None,
            })
        })
    }

    /// The request is sent to a version; again, when an attempt before has failed.
    pub fn sent(&mut self, head: &RequestHeader, version: &Arc<VersionRoute>, now_us: u64) {
        self.answer = None;
        self.sent_us = now_us;
        // Only what the baseline says is worth comparing with.
        self.head = Arc::ptr_eq(version, &self.route.baseline).then(|| head.clone());
    }

    /// The head of the answer is there.
    pub fn answered(&mut self, response: &ResponseHeader, now_us: u64) {
        let latency_us = now_us.saturating_sub(self.sent_us);
        self.answer = Some(Answer::new(response.status.as_u16(), &response.headers, latency_us));
    }

    /// A part of the answer's body is there.
    pub fn body(&mut self, part: &Bytes) {
        if let Some(answer) = &mut self.answer {
            answer.take(part.clone(), self.route.spec.body);
        }
    }
}
