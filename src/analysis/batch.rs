//! What goes into a comparison: the counts of a moment, with the share they were routed at.

use super::signal::{SignalCounts, Signals};

/// Plain request counts of both versions: all requests, and those that failed.
pub type RawCounts = SignalCounts;

/// What was counted since the last batch, of requests that were all routed with the same share.
///
/// Only requests whose version was chosen by the split belong here, and only their first attempt; pinned, mirrored
/// and health-check requests have no coin. A canary failure that was rescued is a canary failure.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Batch {
    /// The canary's probability when these requests were routed, 0 to 1. Requests that were routed before the
    /// rollout have 0 here; they must not be left out (rule R3).
    pub routed_share: f64,
    /// Requests and failed requests: for the SLO and for the display.
    pub requests: RawCounts,
    /// What the evidence is computed from. With sticky keys, each key counts once per step and signal as bad, and `n`
    /// is distinct keys; with a coin per request it is the requests. A signal that is absent is inert.
    pub signals: Signals,
    /// Independent coin flips by version, for the split check: distinct keys when keys are sticky, otherwise requests.
    /// Requests of sticky keys would make a right split look wrong. `(0, 0)` leaves the check out.
    pub coins: (u64, u64),
    /// When the canary's first failure in this batch ended, on the axis of `now_ms`. For the display.
    pub first_canary_failure_ms: Option<u64>,
}
