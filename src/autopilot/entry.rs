//! One comparison of a canary with the baseline, as the guard keeps it from look to look.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::analysis::{Action, Assessment, Comparison, Parameters, Recent};
use crate::control::{ComparisonReport, ScopeKey};
use crate::model::{ServiceName, Split, VersionName};
use crate::telemetry::{Guarded, ScopeHandle};

/// One comparison and what goes with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub comparison: Comparison,
    pub attempt: u64,
    /// The epoch that the comparison began with.
    pub since_epoch: u64,
    /// When the attempt began, on the clock of the ticks.
    pub attempt_ms: u64,
    pub recent: Recent,
    /// When the canary first failed in this attempt, on the clock of the ticks.
    pub first_bad_ms: Option<u64>,
    /// Requests that the canary answered in this attempt, and those that it failed.
    pub counted: (u64, u64),
    pub scope: u64,
    /// A change was asked for and is not answered yet.
    pub pending: bool,
    /// Since when nothing speaks for the brake; none while something does.
    pub calm_since_ms: Option<u64>,
    /// Told already, so that the history is not filled with repetition.
    pub told_hold: bool,
    pub told_split: bool,
}

impl Entry {
    /// Requests that the canary answered since the last look, and those that it failed.
    pub fn count(&mut self, now_ms: u64, (requests, failed): (u64, u64)) {
        if failed > 0 {
            self.first_bad_ms.get_or_insert(now_ms);
        }
        self.recent.add(now_ms, requests, failed);
        self.counted = (self.counted.0 + requests, self.counted.1 + failed);
    }

    pub fn new(parameters: &Parameters, split: &Split, handle: &ScopeHandle, now_ms: u64) -> Self {
        Self {
            comparison: Comparison::new(parameters, now_ms),
            attempt: split.attempt,
            since_epoch: split.epoch,
            attempt_ms: now_ms,
            recent: Recent::default(),
            first_bad_ms: None,
            counted: (0, 0),
            scope: handle.tally.id(),
            pending: false,
            calm_since_ms: None,
            told_hold: false,
            told_split: false,
        }
    }

    /// A new attempt is a new step: fresh stake, and what was said may be said again.
    pub fn follow(&mut self, split: &Split, parameters: &Parameters, now_ms: u64) {
        if self.comparison.parameters() != parameters {
            self.comparison = Comparison::new(parameters, now_ms);
        }
        if split.attempt == self.attempt {
            return;
        }
        self.attempt = split.attempt;
        self.attempt_ms = now_ms;
        self.told_hold = false;
        self.told_split = false;
        self.recent = Recent::default();
        self.counted = (0, 0);
        self.first_bad_ms = None;
        self.comparison.step(now_ms);
    }
}

/// The comparison as people see it.
pub(super) fn report(
    key: &ScopeKey,
    baseline: &VersionName,
    entry: &Entry,
    assessment: &Assessment,
    share: f64,
    braked: bool,
) -> ComparisonReport {
    let action = match assessment.action {
        Action::None => "none",
        Action::Rollback { .. } => "rollback",
        Action::Probe => "probe",
        Action::Brake { .. } => "brake",
        Action::HoldSlo => "hold_slo",
    };
    ComparisonReport {
        canary: key.canary.clone(),
        baseline: baseline.clone(),
        share,
        verdict: assessment.verdict,
        action,
        evidence: assessment.log_evidence.min(1e12_f64.ln()).exp(),
        log_evidence: assessment.log_evidence,
        threshold: entry.comparison.parameters().log_rollback_at().exp(),
        signals: assessment.signals.iter().map(|s| (s.signal.as_str(), s.log_evidence)).collect(),
        ceiling_canary: assessment.log_ceiling_canary,
        ceiling_baseline: assessment.log_ceiling_baseline,
        braked,
        split_off: assessment.split_off,
        promotion_ready: assessment.promotion_ready,
        attempt: entry.attempt,
        requests: entry.counted.0,
        failures: entry.counted.1,
        promotion: assessment.signals.iter().map(|s| (s.signal.as_str(), s.log_promotion)).collect(),
        window: entry.comparison.window(),
        proxies: 1,
        slow_after_us: (0, 0),
    }
}

/// What is compared now, for the metrics: of each service the scope with most evidence.
pub(super) fn guarded(entries: &HashMap<ScopeKey, Entry>) -> BTreeMap<ServiceName, Guarded> {
    let mut all: BTreeMap<ServiceName, Guarded> = BTreeMap::new();
    for (key, entry) in entries {
        let seen = all.entry(key.service.clone()).or_default();
        seen.threshold = entry.comparison.parameters().log_rollback_at();
        seen.split_off |= entry.told_split;
        for channel in &entry.comparison.parameters().channels {
            let most = seen.evidence.entry(channel.signal.as_str()).or_insert(f64::NEG_INFINITY);
            *most = most.max(entry.comparison.log_evidence_of(channel.signal));
        }
    }
    all
}
