//! Everything about one scope and one canary: batches of counts go in, an assessment comes out.

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::ceiling::Ceiling;
use super::decision::{Action, Assessment, SignalEvidence, Verdict, breaks, decide};
use super::detector::{Detector, brake_share};
use super::parameters::Parameters;
use super::promotion::Promoter;
use super::signal::{Signal, SignalCounts, Signals};
use super::split_check::SplitCheck;
use super::window::{EvidenceWindow, WindowState};

/// The evidence about one canary in one scope. Serialise it to hand it over, and [`resume`](Self::resume) it where time
/// is counted from elsewhere; losing it costs one more `alpha`.
///
/// The parameters are those it was made with: evidence gathered at one margin says nothing about another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    parameters: Parameters,
    detector: Detector,
    ceiling_baseline: Ceiling,
    ceiling_canary: Ceiling,
    split_check: SplitCheck,
    /// Stays set: once the split was wrong, the configured share is not trusted again.
    split_off: bool,
    tracks: Vec<Track>,
    /// The share that the brake asked for when it was pulled, while it holds and makes a difference.
    braked_share: Option<f64>,
    last_ms: u64,
}

/// What is kept per signal beside the detector's channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Track {
    signal: Signal,
    promoter: Promoter,
    /// Traffic was seen since the last step.
    has_data: bool,
    window: WindowState,
}

impl Comparison {
    /// Nothing seen; the canary begins to receive traffic at `now_ms`.
    #[must_use]
    pub fn new(parameters: &Parameters, now_ms: u64) -> Self {
        let detector = Detector::new(parameters);
        let track = |signal| Track {
            signal,
            promoter: Promoter::new(parameters),
            has_data: false,
            window: WindowState::new(now_ms),
        };
        Self {
            tracks: detector.signals().map(track).collect(),
            detector,
            ceiling_baseline: Ceiling::new(parameters),
            ceiling_canary: Ceiling::new(parameters),
            split_check: SplitCheck::new(),
            split_off: false,
            braked_share: None,
            last_ms: now_ms,
            parameters: parameters.clone(),
        }
    }

    /// Books what was completed by `now_ms`. `current_share` is the canary's real probability now, braked or not.
    ///
    /// To be called at least once per slot while there is traffic. A quiet scope may be left alone.
    pub fn observe(&mut self, now_ms: u64, current_share: f64, batches: &[Batch]) {
        self.begin_windows();
        self.detector.advance(now_ms);
        for batch in batches {
            self.check_split(batch);
            self.book(now_ms, current_share, batch);
        }
        self.last_ms = self.last_ms.max(now_ms);
    }

    /// A person or a rollout moved the share: the rollback stake is made whole, and promotion has to be earned anew.
    /// Not to be called for a brake, its release, a configuration reload or a change of leader.
    pub fn step(&mut self, now_ms: u64) {
        // What was gathered above the stake stays, and so does its window: steps must not hide a slow rise.
        self.begin_windows();
        self.detector.step(now_ms);
        for track in &mut self.tracks {
            track.promoter = Promoter::new(&self.parameters);
            track.has_data = false;
        }
        if !self.split_off {
            // A long time of right splits would otherwise bury a wrong one that begins with this step.
            self.split_check = SplitCheck::new();
        }
        self.braked_share = None;
        self.last_ms = self.last_ms.max(now_ms);
    }

    /// Continues on another axis of time, as if the last observation had been at `now_ms`.
    ///
    /// For a comparison that was handed over: processes do not agree on the time, and one whose slots lie in the
    /// future would be deaf until they are reached. The time in between counts for nothing.
    pub fn resume(&mut self, now_ms: u64) {
        let last_ms = self.last_ms;
        self.detector.resume(last_ms, now_ms);
        self.ceiling_baseline.resume(now_ms);
        self.ceiling_canary.resume(now_ms);
        for track in &mut self.tracks {
            track.window.resume(last_ms, now_ms);
        }
        self.last_ms = now_ms;
    }

    /// What should be done, and what is shown.
    ///
    /// `current_share` is the canary's probability now and `canary_rps` its requests per second now. When the brake
    /// is pulled its target is remembered, so that a braked share is not braked again.
    pub fn assess(&mut self, now_ms: u64, current_share: f64, canary_rps: f64) -> Assessment {
        let braked_share = self.brake_target(now_ms, current_share, canary_rps);
        let action = decide(
            &self.detector,
            &self.ceiling_canary,
            &self.ceiling_baseline,
            &self.parameters,
            current_share,
            braked_share,
        );
        let log_evidence = self.detector.log_evidence();
        let promotion_ready = self.promotion_ready();
        Assessment {
            action,
            verdict: self.verdict(action, log_evidence, promotion_ready),
            log_evidence,
            signals: self.tracks.iter().map(|track| self.signal_evidence(track)).collect(),
            leading: self.detector.leading_signal(),
            log_ceiling_baseline: self.ceiling_baseline.log_evidence(),
            log_ceiling_canary: self.ceiling_canary.log_evidence(),
            log_brake: self.detector.log_brake(),
            promotion_ready,
            split_off: self.split_off,
        }
    }

    /// The evidence and the brake's, as logarithms, if of these counts only the canary's bad ones had come by `now_ms`. As
    /// long as the slot lasts, no order in which the counts may come leads to more in between.
    #[must_use]
    pub fn worst(&self, now_ms: u64, share: f64, counts: &Signals) -> (f64, f64) {
        let mut detector = self.detector.clone();
        detector.advance(now_ms);
        for (signal, SignalCounts { canary, .. }) in counts.as_slice() {
            detector.add(now_ms, share, &[(*signal, SignalCounts::new(0, 0, canary.bad, canary.bad))]);
        }
        (detector.log_evidence(), detector.log_brake())
    }

    /// The counts behind the evidence of the leading signal.
    #[must_use]
    pub fn window(&self) -> EvidenceWindow {
        self.window_of(self.detector.leading_signal())
    }

    /// The counts behind the evidence of one signal; empty for a signal that is not tested.
    #[must_use]
    pub fn window_of(&self, signal: Signal) -> EvidenceWindow {
        match self.tracks.iter().find(|track| track.signal == signal) {
            Some(track) => track.window.at(self.last_ms, signal),
            None => WindowState::new(self.last_ms).at(self.last_ms, signal),
        }
    }

    /// One signal's part of the evidence, as a logarithm; negative infinity for a signal that is not tested.
    #[must_use]
    pub fn log_evidence_of(&self, signal: Signal) -> f64 {
        self.detector.log_evidence_of(signal)
    }

    /// The settings this evidence is gathered with.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// When something was last observed, on the axis of `now_ms`.
    #[must_use]
    pub fn last_observed_ms(&self) -> u64 {
        self.last_ms
    }

    /// A window lasts from the last time without evidence; so before booking, those without evidence begin anew.
    fn begin_windows(&mut self) {
        for track in &mut self.tracks {
            if !self.detector.is_above_stake(track.signal) {
                track.window = WindowState::new(self.last_ms);
            }
        }
    }

    fn check_split(&mut self, batch: &Batch) {
        let (baseline, canary) = batch.coins;
        self.split_check.add(batch.routed_share, baseline, canary);
        self.split_off = self.split_off || self.split_check.is_off();
    }

    fn book(&mut self, now_ms: u64, current_share: f64, batch: &Batch) {
        let (share, promotion_share) = self.shares(current_share, batch.routed_share);
        self.detector.add(now_ms, share, batch.signals.as_slice());
        self.ceiling_baseline.add(now_ms, batch.requests.baseline);
        self.ceiling_canary.add(now_ms, batch.requests.canary);
        for track in &mut self.tracks {
            let keys = batch.signals.get(track.signal).unwrap_or_default();
            track.promoter.add(promotion_share, &keys);
            track.has_data = track.has_data || !keys.is_empty();
            track.book_window(now_ms, batch, keys);
        }
    }

    /// The shares for rollback and for promotion: each errs on its own safe side.
    ///
    /// Rollback evidence stays valid at any share above the true one (rule R3), promotion evidence at any below it.
    fn shares(&self, current_share: f64, routed_share: f64) -> (f64, f64) {
        let share = routed_share.max(current_share);
        if !self.split_off {
            return (share, routed_share);
        }
        let realised = |share| self.split_check.realised_share(share);
        (share.max(realised(share)), routed_share.min(realised(routed_share)))
    }

    fn brake_target(&mut self, now_ms: u64, current_share: f64, canary_rps: f64) -> Option<f64> {
        if !self.detector.brake(now_ms) {
            self.braked_share = None;
            return None;
        }
        // While braked, the rate is low because of the brake; that must neither release it nor pull it again.
        if let Some(target) = self.braked_share {
            return Some(target.min(current_share));
        }
        let target = brake_share(current_share, canary_rps, &self.parameters);
        // A brake that changes nothing is not remembered, so that it can still be pulled when traffic picks up.
        self.braked_share = (target < current_share).then_some(target);
        Some(target)
    }

    fn promotion_ready(&self) -> bool {
        self.tracks.iter().all(|track| {
            let must_be_shown = track.has_data || track.signal == Signal::Error;
            !must_be_shown || track.promoter.is_ready()
        })
    }

    fn verdict(&self, action: Action, log_evidence: f64, promotion_ready: bool) -> Verdict {
        if matches!(action, Action::Rollback { .. }) || breaks(&self.ceiling_canary, &self.parameters) {
            return Verdict::Breach;
        }
        let braked = matches!(action, Action::Brake { .. });
        let nothing_against = !braked && log_evidence < self.parameters.promote_below.ln();
        if promotion_ready && nothing_against { Verdict::Healthy } else { Verdict::NotEnoughEvidence }
    }

    fn signal_evidence(&self, track: &Track) -> SignalEvidence {
        SignalEvidence {
            signal: track.signal,
            log_evidence: self.detector.log_evidence_of(track.signal),
            log_promotion: track.promoter.log_evidence(),
            promotion_ready: track.promoter.is_ready(),
            has_data: track.has_data,
        }
    }
}

impl Track {
    fn book_window(&mut self, now_ms: u64, batch: &Batch, keys: SignalCounts) {
        if self.signal == Signal::Error {
            let seen = (batch.requests.canary.bad > 0).then_some(now_ms);
            let first_bad_ms = batch.first_canary_failure_ms.or(seen);
            self.window.add(batch.routed_share, batch.requests, keys, first_bad_ms);
        } else {
            let seen = (keys.canary.bad > 0).then_some(now_ms);
            self.window.add(batch.routed_share, keys, keys, seen);
        }
    }
}

#[cfg(test)]
#[path = "comparison_tests.rs"]
mod tests;
