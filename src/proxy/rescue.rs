//! Whether a request that failed on the canary may be sent to the baseline: a pure function of plain facts.
//!
//! Sending a request twice is safe when nothing of it was sent the first time, when its method makes twice the same as
//! once, or when the client or the operator says so. Everything else keeps the canary's failure: a user who sees an error
//! is better off than one who is charged twice.

use crate::model::RescueSpec;
use crate::telemetry::Rescue;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// No connection: nothing was sent.
    Unsent,
    /// It was sent, and no answer came.
    Unanswered,
    /// It was answered with this status.
    Status(u16),
    /// It was answered with this gRPC status in the header.
    Grpc(u16),
}

/// What is known about the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestFacts<'a> {
    pub method: &'a http::Method,
    /// Whether it carries a key by which the service recognises a repetition.
    pub idempotency_key: bool,
    /// Whether more of its body was read than is kept.
    pub truncated: bool,
    /// Whether the client has got something of the answer.
    pub answer_begun: bool,
}

/// Whether an answer counts as failed, so that it is worth a rescue.
pub(super) fn is_failure(spec: &RescueSpec, status: u16, grpc: Option<u16>) -> Option<Failed> {
    match grpc {
        Some(code) if spec.grpc.contains(&code) => Some(Failed::Grpc(code)),
        _ => spec.statuses.contains(&status).then_some(Failed::Status(status)),
    }
}

/// Whether the request may be sent again. `Err` says why not.
pub(super) fn may_repeat(spec: &RescueSpec, failed: Failed, request: RequestFacts<'_>) -> Result<(), Rescue> {
    if request.answer_begun {
        return Err(Rescue::NotSafe);
    }
    if failed == Failed::Unsent {
        return Ok(());
    }
    if !is_repeatable(spec, request) {
        return Err(Rescue::NotSafe);
    }
    if request.truncated { Err(Rescue::TooLarge) } else { Ok(()) }
}

fn is_repeatable(spec: &RescueSpec, request: RequestFacts<'_>) -> bool {
    request.idempotency_key || spec.methods.contains(request.method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    const GET: RequestFacts<'_> =
        RequestFacts { method: &Method::GET, idempotency_key: false, truncated: false, answer_begun: false };
    const POST: RequestFacts<'_> = RequestFacts { method: &Method::POST, ..GET };

    #[test]
    fn what_may_be_sent_again() {
        use Failed::{Grpc, Status, Unanswered, Unsent};
        let spec = RescueSpec::default();
        let large = |r| RequestFacts { truncated: true, ..r };
        let keyed = |r| RequestFacts { idempotency_key: true, ..r };
        let begun = |r| RequestFacts { answer_begun: true, ..r };
        let table = [
            (Unsent, GET, Ok(())),
            (Unsent, POST, Ok(())),
            (Unsent, large(POST), Ok(())),
            (Unsent, begun(GET), Err(Rescue::NotSafe)),
            (Unanswered, GET, Ok(())),
            (Unanswered, POST, Err(Rescue::NotSafe)),
            (Unanswered, keyed(POST), Ok(())),
            (Unanswered, large(keyed(POST)), Err(Rescue::TooLarge)),
            (Unanswered, large(POST), Err(Rescue::NotSafe)),
            (Unanswered, begun(GET), Err(Rescue::NotSafe)),
            (Status(503), GET, Ok(())),
            (Status(503), POST, Err(Rescue::NotSafe)),
            (Status(503), large(GET), Err(Rescue::TooLarge)),
            (Grpc(14), POST, Err(Rescue::NotSafe)),
            (Grpc(14), keyed(POST), Ok(())),
        ];
        for (failed, request, wanted) in table {
            assert_eq!(may_repeat(&spec, failed, request), wanted, "{failed:?} {request:?}");
        }
        let spec = RescueSpec { methods: vec![Method::POST], ..spec };
        assert_eq!(may_repeat(&spec, Unanswered, POST), Ok(()));
        assert_eq!(may_repeat(&spec, Unanswered, GET), Err(Rescue::NotSafe));
    }

    #[test]
    fn which_answers_have_failed() {
        let spec = RescueSpec::default();
        assert_eq!(is_failure(&spec, 503, None), Some(Failed::Status(503)));
        assert_eq!(is_failure(&spec, 200, Some(14)), Some(Failed::Grpc(14)));
        assert_eq!(is_failure(&spec, 200, Some(5)), None);
        assert_eq!(is_failure(&spec, 501, None), None);
        assert_eq!(is_failure(&spec, 404, None), None);
    }
}
