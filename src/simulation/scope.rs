//! One scope under the guard: its requests, its comparison, and what the guard asks for.

use super::dice::Dice;
use super::traffic::{Drawn, Odds};
use crate::analysis::{
    Action, Assessment, BRAKE_CALM_MS, Comparison, Parameters, Recent, Signals, Verdict, check_limits,
};
use crate::model::{BasisPoints, Change, GuardSpec, Scope, ServiceState, Split, VersionName, Weights};
use crate::planning::ScopeEvidence;

/// The guard looks so often, milliseconds.
pub(super) const LOOK_MS: u64 = 100;

/// What a scope's split comes to while nothing is changed.
pub(super) struct Standing {
    /// The new version's share of the two.
    pub share: f64,
    /// A brake of the scope's own holds.
    braked: bool,
    /// Some brake holds, of its own or above.
    held_back: bool,
    /// The new version has or would have a share.
    intended: bool,
    attempt: u64,
    weights: Weights,
}

/// Evidence about the new version in one scope.
struct Entry {
    comparison: Comparison,
    assessment: Assessment,
    attempt: u64,
    recent: Recent,
    counted: (u64, u64),
    calm_since_ms: Option<u64>,
}

/// One scope.
pub(super) struct Guarded {
    pub scope: Scope,
    /// Its part of all requests, 0 to 1.
    pub part: f64,
    pub standing: Standing,
    entry: Option<Entry>,
}

/// The service as the guard sees it.
pub(super) struct Rules<'a> {
    pub guard: &'a GuardSpec,
    pub parameters: &'a Parameters,
    pub from: &'a VersionName,
    pub to: &'a VersionName,
}

/// What one look came to.
pub(super) struct Look {
    /// Requests and failures of the new version.
    pub canary: (u64, u64),
    /// What the fleet is told.
    pub signals: Signals,
    /// What the guard asks for.
    pub wants: Option<Change>,
}

impl Standing {
    pub(super) fn new(live: &ServiceState, split: &Split, own: bool, from: &VersionName, to: &VersionName) -> Self {
        let weights = live.weights_in_effect(split);
        let whole = weights == split.weights();
        let intended = if whole { split.intended() } else { weights.clone() };
        Self {
            // Once the service trusts the new version there is nothing to compare.
            intended: intended.share(to.as_str()) > BasisPoints::ZERO && live.baseline == *from,
            share: weights.share_between(from, to),
            braked: split.brake.is_some() && own,
            held_back: split.brake.is_some(),
            attempt: split.attempt,
            weights,
        }
    }
}

impl Guarded {
    pub(super) fn new(scope: Scope, part: f64, standing: Standing) -> Self {
        Self { scope, part, standing, entry: None }
    }

    /// The split was changed, or another one is followed.
    pub(super) fn stands(&mut self, standing: Standing, parameters: &Parameters, now_ms: u64) {
        self.standing = standing;
        if !self.standing.intended {
            self.entry = None;
        }
        let Some(entry) = self.entry.as_mut().filter(|e| e.attempt != self.standing.attempt) else { return };
        entry.attempt = self.standing.attempt;
        entry.recent = Recent::default();
        entry.counted = (0, 0);
        entry.calm_since_ms = None;
        entry.comparison.step(now_ms);
        entry.assessment = entry.comparison.assess(now_ms, self.standing.share, 0.0);
        debug_assert_eq!(entry.comparison.parameters(), parameters);
    }

    /// Whether the new version has any of its traffic, now or once a brake is released.
    pub(super) fn is_moving(&self) -> bool {
        self.standing.intended
    }

    /// Whether some brake holds.
    pub(super) fn is_held_back(&self) -> bool {
        self.standing.held_back
    }

    /// Whether it takes ten looks to see what happens from now until `end_ms`, when this was drawn. One look sees the same as
    /// long as nothing could trip even if all that is bad came first, since the order of counts in a slot does not matter.
    pub(super) fn needs_care(&self, rules: &Rules<'_>, drawn: &Drawn, now_ms: u64, end_ms: u64) -> bool {
        let (parameters, share) = (rules.parameters, self.standing.share);
        if self.standing.held_back || rules.guard.limits.max_error_rate.is_some() {
            return true;
        }
        let counts = drawn.batch(share, parameters.channels.len() > 1).signals;
        let worst = |comparison: &Comparison| comparison.worst(now_ms, share, &counts);
        let (calm, log_ceiling, (log_evidence, log_brake)) = match &self.entry {
            Some(Entry { assessment: seen, comparison, .. }) => {
                (seen.action == Action::None && !seen.split_off, seen.log_ceiling_canary, worst(comparison))
            }
            None => (true, 0.0, worst(&Comparison::new(parameters, now_ms))),
        };
        // The ceiling's evidence grows by the cap at most within a slot; refilled, it is 0.
        let log_ceiling = log_ceiling.max(0.0) + parameters.cap.ln();
        let trips_at = parameters.log_rollback_at();
        !calm
            || now_ms / parameters.slot_ms != (end_ms - 1) / parameters.slot_ms
            || log_evidence.max(log_ceiling) >= trips_at
            || log_brake >= parameters.brake_at.ln()
    }

    /// Takes in what was drawn.
    pub(super) fn look(&mut self, rules: &Rules<'_>, drawn: &Drawn, rate: f64, now_ms: u64) -> Look {
        let (parameters, share) = (rules.parameters, self.standing.share);
        let batch = drawn.batch(share, parameters.channels.len() > 1);
        let entry = self.entry.get_or_insert_with(|| Entry::new(parameters, self.standing.attempt, now_ms));
        let canary = drawn.canary();
        entry.recent.add(now_ms, canary.0, canary.1);
        entry.counted = (entry.counted.0 + canary.0, entry.counted.1 + canary.1);
        entry.comparison.observe(now_ms, share, &[batch]);
        entry.assessment = entry.comparison.assess(now_ms, share, share * rate);
        let wants = if rules.guard.enabled { self.wants(rules, now_ms) } else { None };
        Look { canary, signals: batch.signals, wants }
    }

    /// What follows from the evidence, as the guard's own rules have it.
    fn wants(&mut self, rules: &Rules<'_>, now_ms: u64) -> Option<Change> {
        let (scope, canary, standing) = (self.scope.clone(), rules.to.clone(), &self.standing);
        let entry = self.entry.as_mut()?;
        let action = entry.assessment.action;
        let back = |cause: &str| {
            let (scope, canary) = (scope.clone(), Some(canary.clone()));
            Change::Rollback { scope, canary, cause: cause.to_owned(), first_bad_ms: None }
        };
        if !matches!(action, Action::None | Action::HoldSlo) {
            entry.calm_since_ms = None;
        }
        if let Action::Rollback { signal, .. } = action {
            return Some(back(signal.cause()));
        }
        let limits = &rules.guard.limits;
        // How slow the slowest are is not drawn, so of the plain limits only that on failures trips.
        let tripped = limits.any().then(|| check_limits(limits, &canary, &entry.recent, now_ms, || None)).flatten();
        if let Some(tripped) = tripped {
            return Some(back(tripped.cause));
        }
        match action {
            Action::Probe => Some(Change::Probe { scope, canary }),
            Action::Brake { share } if rules.guard.brake && !standing.held_back => {
                let share = standing.weights.points_between(rules.from, rules.to, share)?;
                Some(Change::Brake { scope, canary, share })
            }
            Action::Brake { .. } | Action::Rollback { .. } => None,
            Action::None | Action::HoldSlo => {
                let since = *entry.calm_since_ms.get_or_insert(now_ms);
                let calm = standing.braked && now_ms.saturating_sub(since) >= BRAKE_CALM_MS;
                calm.then_some(Change::ReleaseBrake { scope })
            }
        }
    }

    /// Evidence that led to a rollback has done its work.
    pub(super) fn forget(&mut self) {
        self.entry = None;
    }

    /// What the scope says about a step, if it is of one of these attempts.
    pub(super) fn for_planning(&self, attempts: &[u64]) -> Option<ScopeEvidence> {
        let entry = self.entry.as_ref().filter(|e| attempts.binary_search(&e.attempt).is_ok())?;
        let seen = &entry.assessment;
        Some(ScopeEvidence {
            requests: entry.counted.0,
            failures: entry.counted.1,
            promotion: seen.signals.iter().map(|s| (s.signal.as_str(), s.log_promotion)).collect(),
            against: seen.log_evidence,
            breach: seen.verdict == Verdict::Breach,
            braked: self.standing.braked || matches!(seen.action, Action::Brake { .. }),
            hold_slo: seen.action == Action::HoldSlo,
        })
    }

    /// Draws the requests of a time.
    pub(super) fn draw(&self, dice: &mut Dice, odds: &Odds, rate: f64, span_ms: u64) -> Drawn {
        odds.draw(dice, rate * self.part * span_ms as f64 / 1_000.0, self.standing.share)
    }
}

impl Entry {
    fn new(parameters: &Parameters, attempt: u64, now_ms: u64) -> Self {
        let mut comparison = Comparison::new(parameters, now_ms);
        let assessment = comparison.assess(now_ms, 0.0, 0.0);
        Self { comparison, assessment, attempt, recent: Recent::default(), counted: (0, 0), calm_since_ms: None }
    }
}
