//! One request to one endpoint, and its answer.

use std::time::{Duration, Instant};

use pingora::http::RequestHeader;
use pingora::prelude::{Error, Result};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora_core::connectors::http::Connector;

use super::copy::into_http2;
use super::sample::Answer;

/// How often a request goes out again because a kept connection turned out to be closed.
const STALE_MAX: u32 = 2;

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Between two parts of the answer.
    pub read: Duration,
    /// Largest body that is kept.
    pub body: u64,
    /// How long an unused connection is kept.
    pub keepalive: Duration,
}

/// Sends the request and reads the answer; what is beyond the largest body is not read.
///
/// # Errors
/// No connection, or the answer breaks off.
pub(super) async fn ask(
    connector: &Connector,
    peer: &HttpPeer,
    head: &RequestHeader,
    limits: Limits,
) -> Result<Answer> {
    let mut stale = 0;
    loop {
        let (mut session, reused) = connector.get_http_session(peer).await?;
        session.set_read_timeout(Some(limits.read));
        session.set_write_timeout(Some(limits.read));
        let mut answer = match head_of_answer(&mut session, peer, head).await {
            Ok(answer) => answer,
            // Nobody's fault, and safe to repeat since only safe methods are copied.
            Err(_) if reused && stale < STALE_MAX => {
                stale += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        while let Some(part) = session.read_response_body().await? {
            if !answer.take(part, limits.body) {
                session.shutdown().await;
                return Ok(answer);
            }
        }
        connector.release_http_session(session, peer, Some(limits.keepalive)).await;
        return Ok(answer);
    }
}

async fn head_of_answer(session: &mut HttpSession, peer: &HttpPeer, head: &RequestHeader) -> Result<Answer> {
    let mut head = Box::new(head.clone());
    if session.as_http2().is_some() {
        into_http2(&mut head, peer.is_tls())?;
    }
    let sent = Instant::now();
    session.write_request_header(head).await?;
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let Some(response) = session.response_header() else {
            return Error::e_explain(pingora::ErrorType::InternalError, "an answer without a head");
        };
        if !response.status.is_informational() {
            let latency_us = sent.elapsed().as_micros() as u64;
            return Ok(Answer::new(response.status.as_u16(), &response.headers, latency_us));
        }
    }
}
