//! Whose fault it was: pure functions of plain facts.
//!
//! What a client does wrong must never count against a version, or anyone could roll back a release with malformed
//! requests. What a version does wrong must count, however it fails.

use crate::telemetry::{FailureKind, Fault, Outcome};

/// Which side an error came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Version,
    Proxy,
}

/// What kind of error it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorKind {
    Connect,
    ConnectTimeout,
    Tls,
    Timeout,
    /// The other side took nothing more of what was sent.
    Stalled,
    Closed,
    Protocol,
    /// The proxy answered by itself with this status.
    Status(u16),
    Other,
}

/// One attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttemptError {
    pub side: Side,
    pub kind: ErrorKind,
    /// Whether the connection had been used for an earlier request.
    pub reused: bool,
    /// Whether the request's body was complete.
    pub body_done: bool,
}

/// Everything that decides whose fault a request's end was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Set when the proxy refused the request.
    pub refused: bool,
    /// Whether a version was assigned and asked.
    pub attempted: bool,
    /// Status of the version's answer.
    pub upstream_status: Option<u16>,
    /// Whether the client had closed its side while it waited: it may be gone, or wait all the same.
    pub client_closed: bool,
    /// Whether long pauses are normal.
    pub stream: bool,
    /// Whether the answer's gRPC status is one that counts as a failure.
    pub grpc_failed: bool,
    /// How it failed, if it failed.
    pub error: Option<AttemptError>,
    /// Status that was sent to the client; 0 when none was.
    pub sent_status: u16,
}

/// Whose fault it was.
pub(super) fn classify(facts: &Facts) -> Outcome {
    let outcome = |fault| Outcome { fault, status: facts.sent_status };
    if facts.refused {
        return outcome(Fault::Refused);
    }
    if !facts.attempted {
        return outcome(match facts.error {
            Some(AttemptError { side: Side::Client, .. }) => Fault::ClientLeft,
            _ => Fault::Proxy,
        });
    }
    // A tunnel that ends, however it ends, was served.
    if facts.upstream_status == Some(101) {
        return outcome(Fault::Served);
    }
    match facts.error {
        // Nobody can tell whether it would have waited that long.
        Some(AttemptError { side: Side::Version, kind: ErrorKind::Timeout, .. })
            if facts.client_closed && facts.upstream_status.is_none() =>
        {
            outcome(Fault::ClientLeft)
        }
        // So is a stream that nobody has anything to say on.
        Some(AttemptError { side: Side::Version, kind: ErrorKind::Timeout, .. })
            if facts.stream && facts.upstream_status.is_some() =>
        {
            outcome(Fault::Served)
        }
        Some(error) => outcome(fault_of(error, facts.upstream_status)),
        None => outcome(fault_of_answer(facts)),
    }
}

fn fault_of_answer(facts: &Facts) -> Fault {
    match (facts.upstream_status, facts.grpc_failed) {
        (Some(500..=599), _) => Fault::Backend(FailureKind::Status),
        (_, true) => Fault::Backend(FailureKind::Grpc),
        (Some(_), _) => Fault::Served,
        (None, _) => Fault::Proxy,
    }
}

fn fault_of(error: AttemptError, upstream_status: Option<u16>) -> Fault {
    match (error.side, error.kind) {
        (Side::Client, _) => Fault::ClientLeft,
        (Side::Proxy, _) => Fault::Proxy,
        (Side::Version, ErrorKind::Connect | ErrorKind::ConnectTimeout | ErrorKind::Tls) => {
            Fault::Backend(FailureKind::Connect)
        }
        // The version may just be waiting for a client that does not send on.
        (Side::Version, ErrorKind::Timeout) if is_slow_upload(error, upstream_status) => Fault::ClientLeft,
        (Side::Version, ErrorKind::Timeout | ErrorKind::Stalled) => Fault::Backend(FailureKind::Timeout),
        // A connection kept for reuse was closed by the other side at the same moment: nobody's failure, and more
        // frequent on the version with less traffic, so it must not be evidence.
        (Side::Version, ErrorKind::Closed) if is_stale(error, upstream_status) => Fault::Proxy,
        (Side::Version, ErrorKind::Status(_)) => Fault::Backend(FailureKind::Status),
        (Side::Version, ErrorKind::Closed | ErrorKind::Protocol | ErrorKind::Other) => {
            Fault::Backend(FailureKind::Reset)
        }
    }
}

/// The version's deadline ran out while the client was still sending.
pub(super) fn is_slow_upload(error: AttemptError, upstream_status: Option<u16>) -> bool {
    error.side == Side::Version && error.kind == ErrorKind::Timeout && upstream_status.is_none() && !error.body_done
}

/// A reused connection turned out to be closed before any answer.
pub(super) fn is_stale(error: AttemptError, upstream_status: Option<u16>) -> bool {
    error.side == Side::Version && error.kind == ErrorKind::Closed && error.reused && upstream_status.is_none()
}

/// The status for the client and the `proxy-status` error (RFC 9209) when an attempt failed before its answer.
/// 0 when there is nobody left to answer.
pub(super) fn answer_for(error: AttemptError, upstream_status: Option<u16>) -> (u16, &'static str) {
    if is_slow_upload(error, upstream_status) {
        return (408, "http_request_error");
    }
    match (error.side, error.kind) {
        (_, ErrorKind::Status(status)) => (status, "http_request_denied"),
        (Side::Client, ErrorKind::Timeout) => (408, "http_request_error"),
        (Side::Client, ErrorKind::Protocol) => (400, "http_request_error"),
        (Side::Client, _) => (0, "http_request_error"),
        (Side::Proxy, _) => (500, "proxy_internal_error"),
        (Side::Version, ErrorKind::Connect) => (502, "connection_refused"),
        (Side::Version, ErrorKind::ConnectTimeout) => (504, "connection_timeout"),
        (Side::Version, ErrorKind::Tls) => (502, "tls_protocol_error"),
        (Side::Version, ErrorKind::Timeout) => (504, "http_response_timeout"),
        (Side::Version, ErrorKind::Stalled) => (504, "connection_write_timeout"),
        (Side::Version, ErrorKind::Closed) => (502, "connection_terminated"),
        (Side::Version, ErrorKind::Protocol | ErrorKind::Other) => (502, "http_protocol_error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(upstream_status: Option<u16>, error: Option<AttemptError>) -> Facts {
        let sent_status = upstream_status.unwrap_or(0);
        Facts {
            refused: false,
            attempted: true,
            upstream_status,
            client_closed: false,
            stream: false,
            grpc_failed: false,
            error,
            sent_status,
        }
    }

    fn error(side: Side, kind: ErrorKind) -> AttemptError {
        AttemptError { side, kind, reused: false, body_done: true }
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        let fault = |status| classify(&facts(Some(status), None)).fault;
        assert_eq!(fault(200), Fault::Served);
        assert_eq!(fault(404), Fault::Served);
        assert_eq!(fault(429), Fault::Served);
        assert_eq!(fault(500), Fault::Backend(FailureKind::Status));
        assert_eq!(fault(599), Fault::Backend(FailureKind::Status));
        let grpc = |status| classify(&Facts { grpc_failed: true, ..facts(Some(status), None) }).fault;
        assert_eq!(grpc(200), Fault::Backend(FailureKind::Grpc));
        assert_eq!(grpc(503), Fault::Backend(FailureKind::Status));
    }

    #[test]
    fn what_the_version_does_wrong_counts() {
        let fault = |kind| classify(&facts(None, Some(error(Side::Version, kind)))).fault;
        assert_eq!(fault(ErrorKind::Connect), Fault::Backend(FailureKind::Connect));
        assert_eq!(fault(ErrorKind::ConnectTimeout), Fault::Backend(FailureKind::Connect));
        assert_eq!(fault(ErrorKind::Tls), Fault::Backend(FailureKind::Connect));
        assert_eq!(fault(ErrorKind::Timeout), Fault::Backend(FailureKind::Timeout));
        assert_eq!(fault(ErrorKind::Stalled), Fault::Backend(FailureKind::Timeout));
        let stalled = AttemptError { body_done: false, ..error(Side::Version, ErrorKind::Stalled) };
        assert_eq!(classify(&facts(None, Some(stalled))).fault, Fault::Backend(FailureKind::Timeout));
        assert_eq!(fault(ErrorKind::Closed), Fault::Backend(FailureKind::Reset));
        assert_eq!(fault(ErrorKind::Protocol), Fault::Backend(FailureKind::Reset));
        let truncated = facts(Some(200), Some(error(Side::Version, ErrorKind::Closed)));
        assert_eq!(classify(&truncated).fault, Fault::Backend(FailureKind::Reset));
    }

    #[test]
    fn what_the_client_does_wrong_never_counts() {
        for kind in [ErrorKind::Closed, ErrorKind::Timeout, ErrorKind::Protocol, ErrorKind::Other] {
            for status in [None, Some(200), Some(500)] {
                let outcome = classify(&facts(status, Some(error(Side::Client, kind))));
                assert_eq!(outcome.fault, Fault::ClientLeft, "{kind:?} {status:?}");
            }
        }
        let slow_upload = AttemptError { body_done: false, ..error(Side::Version, ErrorKind::Timeout) };
        assert_eq!(classify(&facts(None, Some(slow_upload))).fault, Fault::ClientLeft);
        assert_eq!(answer_for(slow_upload, None).0, 408);
        let refused = Facts { refused: true, attempted: false, ..facts(None, None) };
        assert_eq!(classify(&refused).fault, Fault::Refused);
    }

    #[test]
    fn races_and_tunnels_are_nobodys_failure() {
        let stale = AttemptError { reused: true, ..error(Side::Version, ErrorKind::Closed) };
        assert_eq!(classify(&facts(None, Some(stale))).fault, Fault::Proxy);
        assert_eq!(classify(&facts(Some(200), Some(stale))).fault, Fault::Backend(FailureKind::Reset));
        let tunnel = facts(Some(101), Some(error(Side::Version, ErrorKind::Closed)));
        assert_eq!(classify(&tunnel).fault, Fault::Served);
        let closed = Facts { client_closed: true, ..facts(None, Some(error(Side::Version, ErrorKind::Timeout))) };
        assert_eq!(classify(&closed).fault, Fault::ClientLeft);
        let closed = Facts { error: Some(error(Side::Version, ErrorKind::Closed)), ..closed };
        assert_eq!(classify(&closed).fault, Fault::Backend(FailureKind::Reset));
        let silent = |stream, status| Facts { stream, ..facts(status, Some(error(Side::Version, ErrorKind::Timeout))) };
        assert_eq!(classify(&silent(true, Some(200))).fault, Fault::Served);
        assert_eq!(classify(&silent(true, None)).fault, Fault::Backend(FailureKind::Timeout));
        assert_eq!(classify(&silent(false, Some(200))).fault, Fault::Backend(FailureKind::Timeout));
    }
}
