//! Everything about one scope and one canary: batches of counts go in, an assessment comes out.

use serde::{Deserialize, Serialize};

use super::ceiling::Ceiling;
use super::decision::{Action, Assessment, SignalEvidence, Verdict, breaks, decide};
use super::detector::{Detector, brake_share};
use super::parameters::Parameters;
use super::promotion::Promoter;
use super::signal::{Signal, SignalCounts, Signals};
use super::split_check::SplitCheck;
use super::window::{EvidenceWindow, WindowState};

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

/// The evidence about one canary in one scope. Serialise it to hand it over; losing it costs one more `alpha`.
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
            !must_be_shown || (track.has_data && track.promoter.is_ready())
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
mod tests {
    use super::*;
    use crate::analysis::signal::ArmCounts;
    use proptest::prelude::*;

    fn batch(share: f64, errors: SignalCounts) -> Batch {
        Batch {
            routed_share: share,
            requests: errors,
            signals: [(Signal::Error, errors)].into_iter().collect(),
            coins: (errors.baseline.n, errors.canary.n),
            first_canary_failure_ms: None,
        }
    }

    fn good(share: f64, n: u64) -> Batch {
        let canary = (share * n as f64) as u64;
        batch(share, SignalCounts::new(n - canary, 0, canary, 0))
    }

    fn with_slow(mut batch: Batch, slow: SignalCounts) -> Batch {
        batch.signals.add(Signal::Slow, slow);
        batch
    }

    #[test]
    fn silence_is_not_health() {
        let mut comparison = Comparison::new(&Parameters::default(), 0);
        comparison.observe(3_600_000, 0.1, &[]);
        let assessment = comparison.assess(3_600_000, 0.1, 0.0);
        assert_eq!(assessment.action, Action::None);
        assert_eq!(assessment.verdict, Verdict::NotEnoughEvidence);
        assert!(!assessment.promotion_ready);
    }

    #[test]
    fn every_signal_with_data_must_be_proven() {
        let mut comparison = Comparison::new(&Parameters::default(), 0);
        comparison.observe(1000, 0.1, &[good(0.1, 20_000)]);
        assert_eq!(comparison.assess(1000, 0.1, 200.0).verdict, Verdict::Healthy);
        comparison.observe(2000, 0.1, &[with_slow(good(0.1, 100), SignalCounts::new(90, 9, 10, 1))]);
        let assessment = comparison.assess(2000, 0.1, 200.0);
        assert_eq!(assessment.verdict, Verdict::NotEnoughEvidence);
        assert!(assessment.signals.iter().any(|s| s.signal == Signal::Slow && s.has_data && !s.promotion_ready));
        comparison.observe(3000, 0.1, &[with_slow(good(0.1, 100), SignalCounts::new(18_000, 1800, 2000, 200))]);
        assert_eq!(comparison.assess(3000, 0.1, 200.0).verdict, Verdict::Healthy);
        comparison.step(4000);
        assert_eq!(comparison.assess(4000, 0.2, 200.0).verdict, Verdict::NotEnoughEvidence);
    }

    #[test]
    fn traffic_of_the_baseline_alone_is_no_proof() {
        let mut comparison = Comparison::new(&Parameters::default(), 0);
        comparison.observe(1000, 0.1, &[batch(0.1, SignalCounts::new(1_000_000, 0, 0, 0))]);
        assert_eq!(comparison.assess(1000, 0.1, 0.0).verdict, Verdict::NotEnoughEvidence);
    }

    #[test]
    fn the_window_covers_the_time_of_the_evidence_only() {
        let mut comparison = Comparison::new(&Parameters::default(), 0);
        for second in 1..=100 {
            comparison.observe(second * 1000, 0.1, &[good(0.1, 100)]);
        }
        for second in 101..=106 {
            let mut failing = batch(0.1, SignalCounts::new(90, 0, 10, 10));
            failing.first_canary_failure_ms = Some(second * 1000 - 700);
            comparison.observe(second * 1000, 0.1, &[failing]);
        }
        let window = comparison.window();
        assert_eq!((window.signal, window.started_ms, window.seconds), (Signal::Error, 100_000, 6.0));
        assert_eq!((window.baseline, window.canary), (ArmCounts::new(540, 0), ArmCounts::new(60, 60)));
        assert_eq!((window.first_bad_ms, window.canary_bad_keys), (Some(100_300), 60));
        assert!((window.share - 0.1).abs() < 1e-12);
        comparison.step(106_500);
        assert_eq!(comparison.window().started_ms, 100_000, "a step keeps evidence and window");
    }

    #[test]
    fn the_brake_is_pulled_once_and_releases_itself() {
        let mut comparison = Comparison::new(&Parameters::default(), 0);
        comparison.observe(100, 0.5, &[batch(0.5, SignalCounts::new(10, 0, 10, 10))]);
        assert_eq!(comparison.assess(100, 0.5, 100.0).action, Action::Brake { share: 0.05 });
        assert_eq!(comparison.assess(200, 0.05, 1.0).action, Action::Brake { share: 0.05 });
        assert_eq!(comparison.assess(300, 0.05, 1.0).verdict, Verdict::NotEnoughEvidence);
        assert_eq!(comparison.assess(60_100, 0.05, 1.0).action, Action::None);
    }

    #[test]
    fn a_brake_that_changes_nothing_can_be_pulled_later() {
        let mut comparison = Comparison::new(&Parameters::default(), 0);
        comparison.observe(100, 0.5, &[batch(0.5, SignalCounts::new(10, 0, 10, 10))]);
        assert_eq!(comparison.assess(100, 0.5, 1.0).action, Action::Brake { share: 0.5 });
        assert_eq!(comparison.assess(200, 0.5, 100.0).action, Action::Brake { share: 0.05 });
    }

    #[test]
    fn requests_routed_before_the_rollout_are_booked_at_the_share_of_now() {
        let mut with_old = Comparison::new(&Parameters::default(), 0);
        let mut without = with_old.clone();
        let canary = batch(0.1, SignalCounts::new(0, 0, 10, 3));
        let in_flight = batch(0.0, SignalCounts::new(90, 27, 0, 0));
        with_old.observe(1000, 0.1, &[canary, in_flight]);
        without.observe(1000, 0.1, &[canary]);
        let (log_with, log_without) = (with_old.detector.log_evidence(), without.detector.log_evidence());
        assert!(log_with < 0.0 && log_without > 1.0, "{log_with} {log_without}");
    }

    #[test]
    fn a_wrong_split_is_reported_and_no_longer_trusted() {
        let mut comparison = Comparison::new(&Parameters::default(), 0);
        comparison.observe(1000, 0.1, &[batch(0.1, SignalCounts::new(8000, 0, 2000, 0))]);
        assert!(comparison.assess(1000, 0.1, 200.0).split_off);
        let (share, promotion_share) = comparison.shares(0.1, 0.1);
        assert!((share - 0.2).abs() < 1e-9, "the realised share");
        assert_eq!(promotion_share, 0.1);
        comparison.step(2000);
        assert!(comparison.assess(2000, 0.1, 200.0).split_off, "it stays reported");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_restored_comparison_has_the_same_future(
            stream in prop::collection::vec((1u64..3000, 0.01..0.9f64, 0u64..50, 0u64..9, 0u64..20, 0u64..9), 2..40),
            cut in 0usize..40,
        ) {
            let mut original = Comparison::new(&Parameters::default().with_client_errors(), 0);
            let mut restored = None;
            let mut now_ms = 0;
            for (position, (gap, share, n, bad, canary_n, canary_bad)) in stream.iter().enumerate() {
                if position == cut.min(stream.len() - 1) {
                    let stored = serde_json::to_string(&original).unwrap();
                    restored = Some(serde_json::from_str::<Comparison>(&stored).unwrap());
                }
                now_ms += gap;
                let counts = SignalCounts::new(n + bad, *bad, canary_n + canary_bad, *canary_bad);
                let batch = with_slow(batch(*share, counts), counts);
                for comparison in std::iter::once(&mut original).chain(&mut restored) {
                    comparison.observe(now_ms, *share, &[batch]);
                }
            }
            let mut restored = restored.unwrap();
            let (a, b) = (original.assess(now_ms, 0.3, 50.0), restored.assess(now_ms, 0.3, 50.0));
            prop_assert_eq!((a.action, a.verdict, a.leading), (b.action, b.verdict, b.leading));
            prop_assert!((a.log_evidence - b.log_evidence).abs() < 1e-9);
            prop_assert!((a.log_brake - b.log_brake).abs() < 1e-9);
            prop_assert!((a.log_ceiling_canary - b.log_ceiling_canary).abs() < 1e-9);
            for (x, y) in a.signals.iter().zip(&b.signals) {
                prop_assert!((x.log_promotion - y.log_promotion).abs() < 1e-9);
            }
            prop_assert_eq!(original.window().started_ms, restored.window().started_ms);
            prop_assert_eq!(original.window().canary, restored.window().canary);
        }
    }
}
