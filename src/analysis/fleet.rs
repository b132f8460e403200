//! All scopes together: a version that fails a little for everyone is found before any one tenant could prove it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bet::is_coin;
use super::channel::{Channel, SlotClock};
use super::logs::log_sum;
use super::parameters::{MAX_COMPONENTS, Parameters};
use super::signal::{Signal, SignalCounts};

/// The version-wide evidence: one more detector, into which every scope's log factors are added.
///
/// A scope can give a factor of at most `fleet_scope_cap` in total, so that no single tenant takes a version away
/// from all others. The rollback of a version for all is at `1/alpha`, as for one scope.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fleet {
    /// By [`Signal::index`]; `None` for signals that are not tested.
    channels: [Option<Channel>; Signal::COUNT],
    clock: SlotClock,
    log_rollback_at: f64,
    log_scope_cap: f64,
    given: BTreeMap<u64, [Given; Signal::COUNT]>,
}

/// What one scope has given to one channel, per component.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Given {
    slot: u64,
    /// In slots before `slot`.
    settled: [f64; MAX_COMPONENTS],
    /// In `slot`, before clipping. Kept apart because it is the sum over the slot that is clipped.
    pending: [f64; MAX_COMPONENTS],
}

/// e-Benjamini-Hochberg (Wang & Ramdas, arXiv 2009.02824): which scopes to roll back so that on average at most the
/// fraction `fdr` of them is rolled back wrongly, under any dependence. Returns their positions in ascending order.
///
/// To be applied to the evidence as it stands now: on running maxima the rate is not guaranteed.
#[must_use]
pub fn ebh(log_evidence: &[f64], fdr: f64) -> Vec<usize> {
    let scopes = log_evidence.len() as f64;
    let mut order: Vec<usize> = (0..log_evidence.len()).collect();
    order.sort_by(|a, b| log_evidence[*b].total_cmp(&log_evidence[*a]));
    let reaches = |rank: usize, scope: usize| log_evidence[scope] >= (scopes / (fdr * (rank + 1) as f64)).ln();
    let last = order.iter().enumerate().rposition(|(rank, scope)| reaches(rank, *scope));
    order.truncate(last.map_or(0, |rank| rank + 1));
    order.sort_unstable();
    order
}

impl Fleet {
    /// No scope has given anything.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        let channel = |signal| parameters.channel(signal).map(|channel| Channel::new(channel, parameters));
        Self {
            channels: Signal::ALL.map(channel),
            clock: SlotClock::new(parameters.slot_ms),
            log_rollback_at: parameters.log_rollback_at(),
            log_scope_cap: parameters.fleet_scope_cap.ln(),
            given: BTreeMap::new(),
        }
    }

    /// Books a batch of one scope; any number of times in a slot. The share is chosen as for
    /// [`Detector::add`](super::Detector::add). Scopes that are rolled back should no longer be booked.
    pub fn add(&mut self, now_ms: u64, scope: u64, share: f64, counts: &[(Signal, SignalCounts)]) {
        self.advance(now_ms);
        // Most batches of most scopes are empty or without a coin; they should not cost an entry.
        if !is_coin(share) || counts.iter().all(|(_, counts)| counts.is_empty()) {
            return;
        }
        let slot = self.clock.current();
        let given = self.given.entry(scope).or_default();
        for (signal, counts) in counts {
            if let Some(channel) = &mut self.channels[signal.index()] {
                let factors = channel.factors(share, counts);
                let accepted = given[signal.index()].accept(slot, &factors, self.log_scope_cap);
                channel.add_factors(&accepted);
            }
        }
    }

    /// Ends slots that are over. [`add`](Self::add) does it too.
    pub fn advance(&mut self, now_ms: u64) {
        let elapsed = self.clock.advance(now_ms);
        if elapsed > 0 {
            self.channels.iter_mut().flatten().for_each(|channel| channel.close(elapsed));
        }
    }

    /// The version moved to a new step for all scopes: a fresh stake, as for [`Detector::step`](super::Detector::step).
    pub fn step(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.channels.iter_mut().flatten().for_each(Channel::renew);
    }

    /// Continues on another axis of time; see [`Comparison::resume`](super::Comparison::resume).
    pub fn resume(&mut self, now_ms: u64) {
        let before = self.clock.current();
        self.clock.resume(now_ms);
        let slot = self.clock.current();
        for given in self.given.values_mut().flatten() {
            if given.slot != before {
                given.settle(self.log_scope_cap);
            }
            given.slot = slot;
        }
    }

    /// Forgets a scope that no longer exists. What it gave stays given; were it to come back, it could give anew, so
    /// this is not for scopes that are merely rolled back.
    pub fn forget(&mut self, scope: u64) {
        self.given.remove(&scope);
    }

    /// The scopes have other numbers from now on; those without one are forgotten.
    pub fn renumber(&mut self, number: impl Fn(u64) -> Option<u64>) {
        let given = std::mem::take(&mut self.given);
        self.given = given.into_iter().filter_map(|(scope, given)| Some((number(scope)?, given))).collect();
    }

    /// How many scopes have given something and are not forgotten.
    #[must_use]
    pub fn scopes(&self) -> usize {
        self.given.len()
    }

    /// The evidence against the version, all signals together, as a logarithm; 0 at the start.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        log_sum(self.channels.iter().flatten().flat_map(Channel::capped))
    }

    /// One signal's part of the evidence, as a logarithm; negative infinity for a signal that is not tested.
    #[must_use]
    pub fn log_evidence_of(&self, signal: Signal) -> f64 {
        self.channels[signal.index()].as_ref().map_or(f64::NEG_INFINITY, Channel::log_evidence)
    }

    /// The signal with the largest part of the evidence.
    #[must_use]
    pub fn leading_signal(&self) -> Signal {
        let larger = |best: Signal, next: Signal| {
            if self.log_evidence_of(next) > self.log_evidence_of(best) { next } else { best }
        };
        Signal::ALL.into_iter().reduce(larger).unwrap_or(Signal::Error)
    }

    /// Whether the version should be rolled back for all scopes.
    #[must_use]
    pub fn rollback(&self) -> bool {
        self.log_evidence() >= self.log_rollback_at
    }
}

impl Given {
    /// Takes factors in and returns by how much the slot's clipped sum grew.
    fn accept(&mut self, slot: u64, factors: &[f64; MAX_COMPONENTS], log_cap: f64) -> [f64; MAX_COMPONENTS] {
        if self.slot != slot {
            self.settle(log_cap);
            self.slot = slot;
        }
        std::array::from_fn(|k| {
            let room = log_cap - self.settled[k];
            let before = self.pending[k].min(room);
            self.pending[k] += factors[k];
            self.pending[k].min(room) - before
        })
    }

    fn settle(&mut self, log_cap: f64) {
        for (settled, pending) in self.settled.iter_mut().zip(&mut self.pending) {
            *settled += pending.min(log_cap - *settled);
            *pending = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn errors(baseline: u64, bad: u64, canary: u64, canary_bad: u64) -> [(Signal, SignalCounts); 1] {
        [(Signal::Error, SignalCounts::new(baseline, bad, canary, canary_bad))]
    }

    #[test]
    fn one_scope_alone_cannot_reach_the_threshold_and_three_can() {
        let parameters = Parameters::default();
        let (mut one, mut three) = (Fleet::new(&parameters), Fleet::new(&parameters));
        for second in 0..30 {
            one.add(second * 1000, 1, 0.1, &errors(9, 0, 1, 1));
            three.add(second * 1000, second % 3, 0.1, &errors(9, 0, 1, 1));
        }
        assert!(!one.rollback() && one.log_evidence() < 100f64.ln() + 0.1);
        assert!(three.rollback());
        assert_eq!(three.leading_signal(), Signal::Error);
        assert_eq!(three.scopes(), 3);
        three.forget(2);
        assert_eq!(three.scopes(), 2);
        assert!(three.rollback(), "what was given stays given");
    }

    #[test]
    fn a_slot_that_is_handed_over_is_still_one_slot() {
        let mut stayed = Fleet::new(&Parameters::default());
        stayed.add(5_100, 1, 0.1, &errors(0, 0, 5, 5));
        let mut moved = stayed.clone();
        moved.resume(1_300);
        stayed.add(5_200, 1, 0.1, &errors(9, 9, 0, 0));
        moved.add(1_400, 1, 0.1, &errors(9, 9, 0, 0));
        assert!((stayed.log_evidence() - moved.log_evidence()).abs() < 1e-12);
        moved.add(2_000, 1, 0.1, &errors(0, 0, 1, 1));
        assert!(moved.log_evidence() > stayed.log_evidence(), "the next slot comes a second later, not in an hour");
    }

    #[test]
    fn idle_scopes_cost_nothing() {
        let mut fleet = Fleet::new(&Parameters::default());
        fleet.add(0, 1, 0.1, &errors(0, 0, 0, 0));
        fleet.add(0, 2, 0.0, &errors(5, 0, 5, 0));
        assert_eq!(fleet.scopes(), 0);
    }

    #[test]
    fn no_scope_is_chosen_without_evidence() {
        assert!(ebh(&[], 0.05).is_empty());
        assert!(ebh(&[0.0, 1.0, -3.0], 0.05).is_empty());
        assert_eq!(ebh(&[0.0, 9.0, 4.0], 0.05), vec![1, 2], "the second needs only ln(3 / 0.1)");
    }

    proptest! {
        #[test]
        fn many_small_batches_in_a_slot_are_one_large_batch(
            parts in prop::collection::vec((0u64..30, 0u64..5, 0u64..10, 0u64..10), 1..10), earlier in 0u64..10,
        ) {
            let parameters = Parameters::default();
            let (mut split, mut whole) = (Fleet::new(&parameters), Fleet::new(&parameters));
            let mut sum = SignalCounts::default();
            for fleet in [&mut split, &mut whole] {
                fleet.add(0, 7, 0.1, &errors(9, 0, earlier, earlier));
            }
            for (n, b, m, c) in &parts {
                let counts = SignalCounts::new(n + b, *b, m + c, *c);
                split.add(1000, 7, 0.1, &[(Signal::Error, counts)]);
                sum += counts;
            }
            whole.add(1000, 7, 0.1, &[(Signal::Error, sum)]);
            prop_assert!((split.log_evidence() - whole.log_evidence()).abs() < 1e-9);
            split.resume(500);
            whole.resume(700);
            for fleet in [&mut split, &mut whole] {
                fleet.add(2000, 7, 0.1, &errors(0, 0, 3, 3));
            }
            prop_assert!((split.log_evidence() - whole.log_evidence()).abs() < 1e-9);
        }
    }
}
