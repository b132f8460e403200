//! From evidence to what should be done: the rules, in the order in which they are asked.

use serde::{Deserialize, Serialize};

use super::ceiling::Ceiling;
use super::detector::Detector;
use super::parameters::Parameters;
use super::signal::Signal;

/// The baseline counts as keeping the SLO while the evidence (a capital) that it breaks it is below this.
const BASELINE_KEEPS_CEILING_BELOW: f64 = 10.0;

/// From this share on there is hardly any baseline traffic left to compare with.
const PROBE_FROM_SHARE: f64 = 0.95;

/// What should be done now. Repeated at every assessment for as long as it holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Action {
    /// Nothing.
    None,
    /// All of the scope's traffic back to the baseline.
    Rollback {
        /// The signal with the largest part of the evidence.
        signal: Signal,
        /// The canary breaks the SLO and the baseline does not, so that less comparative evidence was enough (R2).
        short_cut: bool,
    },
    /// The canary breaks the SLO but there is no baseline traffic to compare with: split evenly and call
    /// [`Comparison::step`](super::Comparison::step), then the evidence decides within some 10 to 20 requests.
    Probe,
    /// Limit the harm while the evidence gathers; ends by itself, and the share before it should then come back.
    Brake {
        /// The canary's share while braked, 0 to 1. Equal to the share before where braking would not help.
        share: f64,
    },
    /// The canary breaks the SLO, but it is not shown to be the canary's fault (a shared outage): take no steps,
    /// tell somebody, do not roll back.
    HoldSlo,
}

/// What the evidence says about the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Shown to be within the promotion margin on every signal, with nothing speaking against it.
    Healthy,
    /// Shown to be worse than the baseline, or above the SLO.
    Breach,
    /// Neither. Silence is this, too.
    NotEnoughEvidence,
}

/// One signal's part of an assessment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SignalEvidence {
    /// Which signal.
    pub signal: Signal,
    /// Its part of the evidence against the canary, natural logarithm.
    pub log_evidence: f64,
    /// The evidence for the canary since the last step, natural logarithm.
    pub log_promotion: f64,
    /// Whether this signal's promotion evidence is enough.
    pub promotion_ready: bool,
    /// Whether there was any traffic to judge since the last step.
    pub has_data: bool,
}

/// All that is known about a canary in a scope at one time. Evidence is in natural logarithms: 0 is none, and
/// `ln 10,000 ≈ 9.2` rolls back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// What should be done.
    pub action: Action,
    /// What is shown.
    pub verdict: Verdict,
    /// Evidence that the canary is worse than the baseline.
    pub log_evidence: f64,
    /// The same by signal, with the promotion evidence; tested signals only.
    pub signals: Vec<SignalEvidence>,
    /// The signal with the largest part of the evidence.
    pub leading: Signal,
    /// Evidence that the baseline breaks the SLO.
    pub log_ceiling_baseline: f64,
    /// Evidence that the canary breaks the SLO.
    pub log_ceiling_canary: f64,
    /// Evidence that the canary is many times worse; the brake is pulled at `ln 20`.
    pub log_brake: f64,
    /// Whether every signal with data is shown to be within the promotion margin, the error signal always. On its own
    /// it is not enough to go on: that is what [`Verdict::Healthy`] is for.
    pub promotion_ready: bool,
    /// The traffic is not split as configured; to be reported.
    pub split_off: bool,
}

/// The rules of the analysis specification, section 2.3.
///
/// `share` is the canary's share now. `braked_share` is `Some` when the brake holds, with the share it asks for.
#[must_use]
pub fn decide(
    detector: &Detector,
    ceiling_canary: &Ceiling,
    ceiling_baseline: &Ceiling,
    parameters: &Parameters,
    share: f64,
    braked_share: Option<f64>,
) -> Action {
    if detector.rollback() {
        return Action::Rollback { signal: detector.leading_signal(), short_cut: false };
    }
    let canary_breaks = breaks(ceiling_canary, parameters);
    // Without the look at the baseline, a tenant whose normal failure rate is above the SLO would be rolled back.
    let baseline_keeps = ceiling_baseline.log_evidence() < BASELINE_KEEPS_CEILING_BELOW.ln();
    let suspected = detector.log_evidence_of(Signal::Error) >= parameters.ceiling_needs.ln();
    if canary_breaks && baseline_keeps && suspected {
        return Action::Rollback { signal: Signal::Error, short_cut: true };
    }
    if canary_breaks && share >= PROBE_FROM_SHARE {
        return Action::Probe;
    }
    match braked_share {
        Some(share) => Action::Brake { share },
        None if canary_breaks => Action::HoldSlo,
        None => Action::None,
    }
}

/// Whether a version is shown to break the SLO.
pub(super) fn breaks(ceiling: &Ceiling, parameters: &Parameters) -> bool {
    ceiling.log_evidence() >= parameters.log_rollback_at()
}
