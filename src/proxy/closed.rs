//! Requests that are turned away because of what they ask for, and not because of how: the service or its tenant is in
//! maintenance, or the tenant uses more than its share.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use pingora::http::ResponseHeader;
use pingora::prelude::Result;
use pingora::proxy::Session;
use serde_json::json;

use super::admit::Refuse;
use super::{maintenance, refusal};
use crate::model::Maintenance;
use crate::routing::{OverLimit, ServiceRoute};

/// A request that met a closed door.
pub(super) struct Closed {
    pub service: Arc<ServiceRoute>,
    pub tenant: Option<String>,
    pub why: Why,
}

/// Why the door is closed.
pub(super) enum Why {
    Maintenance(Maintenance),
    OverLimit(OverLimit),
}

impl Closed {
    /// What is counted.
    pub fn refuse(&self) -> Refuse {
        match &self.why {
            Why::Maintenance(_) => Refuse { status: 503, word: maintenance::WORD },
            Why::OverLimit(over) => Refuse { status: 429, word: over.as_str() },
        }
    }

    /// Answers the request.
    pub async fn answer(&self, session: &mut Session) -> Result<()> {
        match &self.why {
            Why::Maintenance(found) => maintenance::answer(session, &self.service.spec.maintenance, found).await,
            Why::OverLimit(over) => too_many(session, *over).await,
        }
    }
}

async fn too_many(session: &mut Session, over: OverLimit) -> Result<()> {
    let seconds = over.retry_after_s();
    let title = match over {
        OverLimit::Rate { .. } => "Too many requests",
        OverLimit::Concurrency => "Too many requests at a time",
    };
    let kind = format!("urn:switchback:{}", over.as_str());
    let document = json!({ "type": kind, "title": title, "status": 429, "retry_after": seconds });
    let mut header = ResponseHeader::build(429, Some(6))?;
    header.insert_header(CONTENT_TYPE, "application/problem+json")?;
    header.insert_header(RETRY_AFTER, seconds.to_string())?;
    refusal::send(session, header, "http_request_denied", title, Bytes::from(format!("{document}\n"))).await
}
