//! The evidence that a canary is worse than its baseline: one channel per signal, the rollback and the brake.

use serde::{Deserialize, Serialize};

use super::channel::{Channel, SlotClock};
use super::logs::log_sum;
use super::parameters::Parameters;
use super::signal::{Signal, SignalCounts};

/// The rollback evidence of one scope and one canary. Only counts go in; their order inside a slot does not matter.
///
/// A healthy canary reaches the rollback threshold with probability at most
/// `alpha × (1 + steps + refill_per_hour × hours)`: Ville's inequality on a supermartingale with predictable
/// injections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Detector {
    /// By [`Signal::index`]; `None` for signals that are not tested.
    channels: [Option<Channel>; Signal::COUNT],
    clock: SlotClock,
    last_canary_bad_ms: Option<u64>,
    log_rollback_at: f64,
    log_brake_at: f64,
    brake_multiple: f64,
    brake_quiet_ms: u64,
}

/// How long nothing may speak for the brake before it is released, in milliseconds. Evidence near the threshold goes up and
/// down with every request, and each turn would move users.
pub const BRAKE_CALM_MS: u64 = 5_000;

/// The share while braked: a tenth, but not below 2 %, and never above `share`.
///
/// Nothing changes where the canary gets fewer than `brake_min_canary_rps` requests per second: there is little harm
/// to limit, and the evidence would take ten times as long. `share` is the one before braking.
#[must_use]
pub fn brake_share(share: f64, canary_rps: f64, parameters: &Parameters) -> f64 {
    if canary_rps < parameters.brake_min_canary_rps {
        return share;
    }
    share.min((share / parameters.brake_divisor).max(parameters.brake_floor))
}

impl Detector {
    /// A detector with its whole stake and nothing seen.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        let channel = |signal| parameters.channel(signal).map(|channel| Channel::new(channel, parameters));
        Self {
            channels: Signal::ALL.map(channel),
            clock: SlotClock::new(parameters.slot_ms),
            last_canary_bad_ms: None,
            log_rollback_at: parameters.log_rollback_at(),
            log_brake_at: parameters.brake_at.ln(),
            brake_multiple: parameters.brake_multiple,
            brake_quiet_ms: parameters.brake_quiet_ms,
        }
    }

    /// The share moved to a new step (not for a brake): every channel gets back what it lost.
    ///
    /// Costs one more `alpha` of false-rollback probability, so it is not for configuration reloads or restarts.
    pub fn step(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.channels.iter_mut().flatten().for_each(Channel::renew);
    }

    /// Books a batch that was completed by `now_ms`.
    ///
    /// `share` is the canary's probability when the requests were routed or the probability now, whichever is
    /// larger: any share that is not below the true one keeps the bound (rule R3). At 0 and 1 nothing is learnt.
    /// Signals that are not tested are ignored.
    pub fn add(&mut self, now_ms: u64, share: f64, counts: &[(Signal, SignalCounts)]) {
        self.advance(now_ms);
        for (signal, counts) in counts {
            if let Some(channel) = &mut self.channels[signal.index()] {
                channel.add(share, counts);
                if counts.canary.bad > 0 {
                    self.last_canary_bad_ms = Some(now_ms);
                }
            }
        }
    }

    /// Ends slots that are over. [`add`](Self::add) does it too, so an idle scope need not be visited.
    pub fn advance(&mut self, now_ms: u64) {
        let elapsed = self.clock.advance(now_ms);
        if elapsed > 0 {
            self.channels.iter_mut().flatten().for_each(|channel| channel.close(elapsed));
        }
    }

    /// Continues on another axis of time, on which what was `from_ms` is `now_ms`; see
    /// [`Comparison::resume`](super::Comparison::resume).
    pub fn resume(&mut self, from_ms: u64, now_ms: u64) {
        self.clock.resume(now_ms);
        self.last_canary_bad_ms = self.last_canary_bad_ms.map(|at| shifted(at, from_ms, now_ms));
    }

    /// The evidence `ln M` against the canary, all signals together. 0 at the start; a rollback at `ln 1/alpha`.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        log_sum(self.channels.iter().flatten().flat_map(Channel::capped))
    }

    /// One signal's part of the evidence, as a logarithm; negative infinity for a signal that is not tested.
    #[must_use]
    pub fn log_evidence_of(&self, signal: Signal) -> f64 {
        self.channel(signal).map_or(f64::NEG_INFINITY, Channel::log_evidence)
    }

    /// The evidence `ln B` that the canary is at least `brake_multiple` times worse, without the cap on the open slot.
    #[must_use]
    pub fn log_brake(&self) -> f64 {
        log_sum(self.channels.iter().flatten().flat_map(|channel| channel.uncapped_from(self.brake_multiple)))
    }

    /// Whether the evidence is enough to take the traffic back (rule R1).
    #[must_use]
    pub fn rollback(&self) -> bool {
        self.log_evidence() >= self.log_rollback_at
    }

    /// Whether the canary should get less traffic until more is known. Releases itself after a quiet minute.
    #[must_use]
    pub fn brake(&self, now_ms: u64) -> bool {
        let recent = |at: u64| now_ms.saturating_sub(at) < self.brake_quiet_ms;
        self.last_canary_bad_ms.is_some_and(recent) && self.log_brake() >= self.log_brake_at
    }

    /// The signals that are tested, in the order of [`Signal::ALL`].
    pub fn signals(&self) -> impl Iterator<Item = Signal> {
        Signal::ALL.into_iter().filter(|signal| self.channel(*signal).is_some())
    }

    /// The signal with the largest part of the evidence: what to name as the reason.
    #[must_use]
    pub fn leading_signal(&self) -> Signal {
        let larger = |best: Signal, next: Signal| {
            if self.log_evidence_of(next) > self.log_evidence_of(best) { next } else { best }
        };
        self.signals().reduce(larger).unwrap_or(Signal::Error)
    }

    /// Whether a signal's evidence stands above what was staked on it.
    pub(super) fn is_above_stake(&self, signal: Signal) -> bool {
        // The slack absorbs the rounding of sums of logarithms: an untouched channel is not above its stake.
        self.channel(signal).is_some_and(|channel| channel.log_evidence() > channel.log_stake() + 1e-9)
    }

    fn channel(&self, signal: Signal) -> Option<&Channel> {
        self.channels[signal.index()].as_ref()
    }
}

/// A time not after `from_ms`, on the axis on which `from_ms` is `now_ms`.
pub(super) fn shifted(at_ms: u64, from_ms: u64, now_ms: u64) -> u64 {
    now_ms.saturating_sub(from_ms.saturating_sub(at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(baseline_n: u64, baseline_bad: u64, canary_n: u64, canary_bad: u64) -> [(Signal, SignalCounts); 1] {
        [(Signal::Error, SignalCounts::new(baseline_n, baseline_bad, canary_n, canary_bad))]
    }

    #[test]
    fn starts_at_one_and_rolls_back_after_some_seconds_of_failures() {
        let mut detector = Detector::new(&Parameters::default());
        assert!(detector.log_evidence().abs() < 1e-12);
        for second in 0..3 {
            detector.add(second * 1000, 0.1, &errors(90, 0, 10, 10));
            assert!(!detector.rollback(), "the cap allows a factor of ten per second");
        }
        detector.add(3_000, 0.1, &errors(90, 0, 10, 10));
        detector.add(4_000, 0.1, &errors(90, 0, 10, 10));
        assert!(detector.rollback());
        assert_eq!(detector.leading_signal(), Signal::Error);
    }

    #[test]
    fn a_signal_that_is_not_tested_is_ignored() {
        let mut detector = Detector::new(&Parameters::default());
        detector.add(0, 0.1, &[(Signal::ClientError, SignalCounts::new(0, 0, 99, 99))]);
        assert!(detector.log_evidence().abs() < 1e-12);
        assert!(!detector.brake(0));
        assert_eq!(detector.log_evidence_of(Signal::ClientError), f64::NEG_INFINITY);
        let mut detector = Detector::new(&Parameters::default().with_client_errors());
        detector.add(0, 0.1, &[(Signal::ClientError, SignalCounts::new(0, 0, 99, 99))]);
        assert_eq!(detector.leading_signal(), Signal::ClientError);
        assert_eq!(detector.signals().count(), 4);
    }

    #[test]
    fn braking_keeps_a_floor_and_spares_small_traffic() {
        let parameters = Parameters::default();
        assert_eq!(brake_share(0.5, 100.0, &parameters), 0.05);
        assert_eq!(brake_share(0.1, 100.0, &parameters), 0.02);
        assert_eq!(brake_share(0.01, 100.0, &parameters), 0.01);
        assert_eq!(brake_share(0.5, 4.9, &parameters), 0.5);
    }
}
