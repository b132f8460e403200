//! The running bet on one signal: a capital per alternative, slots, the cap on a slot and the refill of lost stake.
//!
//! Cap and refill are what make the plain product fit for production. A slot (one second) can multiply a component by
//! at most ten, so that a hiccup is not a verdict. Lost stake comes back slowly, so that a good past does not bury a
//! late failure (a rate-limited form of the e-detectors of Shin, Ramdas & Rinaldo, arXiv 2203.03532). Taking the
//! minimum only lowers the capital, and injections are predictable, so the bound is `alpha × all stake ever put in`.

use serde::{Deserialize, Serialize};

use super::bet::{Bet, bet, is_coin, stake};
use super::logs::{log_add, log_sum};
use super::parameters::{ChannelParameters, MAX_COMPONENTS, Parameters};
use super::signal::SignalCounts;

const MS_PER_HOUR: f64 = 3.6e6;

/// Which slot is open. The first event opens one; events older than the open slot go into it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SlotClock {
    slot_ms: u64,
    open: Option<u64>,
}

/// See the file's head.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Channel {
    weight: f64,
    rho: f64,
    delta: f64,
    components: usize,
    multiples: [f64; MAX_COMPONENTS],
    log_cap: f64,
    refill_per_slot: f64,
    /// Log capital at the start of the open slot.
    carried: [f64; MAX_COMPONENTS],
    /// Log factor gathered in the open slot, not yet capped.
    gathered: [f64; MAX_COMPONENTS],
    /// The factors for the share last seen; shares change rarely and logarithms are dear.
    #[serde(skip)]
    bets: Option<(f64, [Bet; MAX_COMPONENTS])>,
}

impl SlotClock {
    pub(super) fn new(slot_ms: u64) -> Self {
        Self { slot_ms: slot_ms.max(1), open: None }
    }

    /// Moves to the slot of `now_ms` and returns how many slots ended with that.
    pub(super) fn advance(&mut self, now_ms: u64) -> u64 {
        let slot = now_ms / self.slot_ms;
        let elapsed = self.open.map_or(0, |open| slot.saturating_sub(open));
        if self.open.is_none() || elapsed > 0 {
            self.open = Some(slot);
        }
        elapsed
    }

    /// Continues the open slot, if there is one, as that of `now_ms` on another axis of time.
    pub(super) fn resume(&mut self, now_ms: u64) {
        self.open = self.open.map(|_| now_ms / self.slot_ms);
    }

    /// The number of the open slot; 0 before the first event.
    pub(super) fn current(&self) -> u64 {
        self.open.unwrap_or(0)
    }
}

impl Channel {
    pub(super) fn new(channel: &ChannelParameters, parameters: &Parameters) -> Self {
        let components = parameters.multiples.len().clamp(1, MAX_COMPONENTS);
        let mut multiples = [1.0; MAX_COMPONENTS];
        for (place, multiple) in multiples.iter_mut().zip(&parameters.multiples) {
            *place = *multiple;
        }
        let slot_hours = parameters.slot_ms as f64 / MS_PER_HOUR;
        Self {
            weight: channel.weight,
            rho: channel.rho,
            delta: channel.delta,
            components,
            multiples,
            log_cap: parameters.cap.ln(),
            refill_per_slot: channel.weight * parameters.refill_per_hour * slot_hours,
            carried: [(channel.weight / components as f64).ln(); MAX_COMPONENTS],
            gathered: [0.0; MAX_COMPONENTS],
            bets: None,
        }
    }

    /// Ends the open slot, `elapsed` slots after it began; an idle channel is caught up in one go.
    pub(super) fn close(&mut self, elapsed: u64) {
        self.settle();
        self.refill(self.refill_per_slot * elapsed as f64);
    }

    /// Ends the open slot and makes the stake whole, for a new step.
    pub(super) fn renew(&mut self) {
        self.settle();
        self.refill(f64::INFINITY);
    }

    /// Books a batch. At a share of 0 or 1 there is no coin, so it says nothing.
    pub(super) fn add(&mut self, share: f64, counts: &SignalCounts) {
        if !is_coin(share) {
            return;
        }
        let bets = *self.bets_at(share);
        for (gathered, bet) in self.gathered.iter_mut().zip(&bets).take(self.components) {
            *gathered += bet.log_factor(counts);
        }
    }

    /// Books log factors that were worked out elsewhere (the fleet clips them per scope first).
    pub(super) fn add_factors(&mut self, factors: &[f64; MAX_COMPONENTS]) {
        for (gathered, factor) in self.gathered.iter_mut().zip(factors).take(self.components) {
            *gathered += factor;
        }
    }

    /// The log factors of a batch, zero for components that are not in use. The share lies between 0 and 1 exclusive.
    pub(super) fn factors(&mut self, share: f64, counts: &SignalCounts) -> [f64; MAX_COMPONENTS] {
        let components = self.components;
        let bets = self.bets_at(share);
        std::array::from_fn(|k| if k < components { bets[k].log_factor(counts) } else { 0.0 })
    }

    /// The log capitals now, with the open slot capped.
    pub(super) fn capped(&self) -> impl Iterator<Item = f64> + Clone {
        self.pairs().map(|(_, carried, gathered)| carried + gathered.min(self.log_cap))
    }

    /// The log capitals now, uncapped, of the alternatives at least `multiple` times worse than the margin.
    pub(super) fn uncapped_from(&self, multiple: f64) -> impl Iterator<Item = f64> + Clone {
        self.pairs().filter(move |(g, _, _)| *g >= multiple).map(|(_, carried, gathered)| carried + gathered)
    }

    /// The channel's log evidence.
    pub(super) fn log_evidence(&self) -> f64 {
        log_sum(self.capped())
    }

    /// The log of the initial stake: evidence at or below it is no evidence.
    pub(super) fn log_stake(&self) -> f64 {
        self.weight.ln()
    }

    fn pairs(&self) -> impl Iterator<Item = (f64, f64, f64)> + Clone {
        (0..self.components).map(|k| (self.multiples[k], self.carried[k], self.gathered[k]))
    }

    fn settle(&mut self) {
        for (carried, gathered) in self.carried.iter_mut().zip(&mut self.gathered) {
            *carried += gathered.min(self.log_cap);
            *gathered = 0.0;
        }
    }

    /// Never above the initial stake: an idle scope would otherwise grow evidence out of nothing.
    fn refill(&mut self, at_most: f64) {
        let capital = log_sum(self.carried[..self.components].iter().copied()).min(700.0).exp();
        let injection = (self.weight - capital).min(at_most);
        if injection > 0.0 {
            let log_part = (injection / self.components as f64).ln();
            for carried in &mut self.carried[..self.components] {
                *carried = log_add(*carried, log_part);
            }
        }
    }

    fn bets_at(&mut self, share: f64) -> &[Bet; MAX_COMPONENTS] {
        if self.bets.is_some_and(|(cached, _)| cached != share) {
            self.bets = None;
        }
        let (multiples, rho, delta) = (self.multiples, self.rho, self.delta);
        let (_, bets) = self.bets.get_or_insert_with(|| {
            (share, multiples.map(|multiple| bet(stake(multiple, share, rho, delta), share, rho, delta)))
        });
        bets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::signal::Signal;
    use proptest::prelude::*;

    fn channel() -> Channel {
        let parameters = Parameters::default();
        Channel::new(parameters.channel(Signal::Error).unwrap(), &parameters)
    }

    fn batches() -> impl Strategy<Value = Vec<(f64, SignalCounts)>> {
        let counts = (0u64..200, 0u64..20, 0u64..50, 0u64..10);
        let batch = (0.01..0.9f64, counts).prop_map(|(s, (n, b, m, c))| (s, SignalCounts::new(n + b, b, m + c, c)));
        prop::collection::vec(batch, 1..12)
    }

    proptest! {
        #[test]
        fn order_inside_a_slot_is_irrelevant(batches in batches()) {
            let (mut forward, mut backward) = (channel(), channel());
            batches.iter().for_each(|(share, counts)| forward.add(*share, counts));
            batches.iter().rev().for_each(|(share, counts)| backward.add(*share, counts));
            prop_assert!((forward.log_evidence() - backward.log_evidence()).abs() < 1e-9);
            forward.close(1);
            backward.close(1);
            prop_assert!((forward.log_evidence() - backward.log_evidence()).abs() < 1e-9);
        }

        #[test]
        fn merging_or_splitting_a_batch_changes_nothing(batches in batches(), share in 0.01..0.9f64) {
            let (mut split, mut merged, mut sum) = (channel(), channel(), SignalCounts::default());
            for (_, counts) in &batches {
                split.add(share, counts);
                sum += *counts;
            }
            merged.add(share, &sum);
            prop_assert!((split.log_evidence() - merged.log_evidence()).abs() < 1e-9);
        }

        #[test]
        fn refill_never_exceeds_the_stake(batches in batches(), idle in 1u64..100_000) {
            let mut channel = channel();
            for (share, counts) in &batches {
                channel.add(*share, counts);
                channel.close(1);
            }
            let before = channel.log_evidence();
            channel.close(idle);
            prop_assert!(channel.log_evidence() <= before.max(channel.log_stake()) + 1e-12);
            channel.close(4_000);
            prop_assert!(channel.log_evidence() >= channel.log_stake() - 1e-9);
        }

        #[test]
        fn a_slot_multiplies_by_at_most_the_cap(batches in batches()) {
            let mut channel = channel();
            for (slots, (share, counts)) in batches.iter().enumerate() {
                channel.add(*share, counts);
                // One slot more than were closed, and the refill adds no more than a sliver of a stake to each.
                let bound = (slots + 1) as f64 * 10f64.ln() + channel.log_stake() + 0.01;
                prop_assert!(channel.log_evidence() <= bound);
                channel.close(1);
            }
        }

        #[test]
        fn without_a_coin_there_is_no_evidence(share in prop::sample::select(vec![-0.1, 0.0, 1.0, 1.5, f64::NAN])) {
            let mut channel = channel();
            let before = channel.log_evidence();
            channel.add(share, &SignalCounts::new(100, 50, 100, 100));
            prop_assert_eq!(channel.log_evidence(), before);
        }
    }

    #[test]
    fn an_hour_of_slots_at_once_is_an_hour_of_slots_one_by_one() {
        let good = SignalCounts::new(90_000, 900, 10_000, 100);
        let (mut lazy, mut eager) = (channel(), channel());
        lazy.add(0.1, &good);
        eager.add(0.1, &good);
        lazy.close(1800);
        (0..1800).for_each(|_| eager.close(1));
        assert!((lazy.log_evidence() - eager.log_evidence()).abs() < 1e-9);
    }

    #[test]
    fn the_first_event_opens_its_slot_and_late_events_stay_in_the_open_one() {
        let mut clock = SlotClock::new(1000);
        assert_eq!(clock.advance(5_500), 0);
        assert_eq!(clock.advance(5_999), 0);
        assert_eq!(clock.advance(8_000), 3);
        assert_eq!(clock.advance(2_000), 0);
        assert_eq!(clock.current(), 8);
    }
}
