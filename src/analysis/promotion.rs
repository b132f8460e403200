//! Evidence that the canary is good enough to get more traffic: the same bet with a negative stake.
//!
//! No evidence against a canary is not evidence for it; with no traffic there is neither. So promotion has its own
//! claim to refute, "the canary is worse than 1.5 × the baseline plus 0.5 percentage points", and a capital that a
//! canary beyond that margin brings to 20 with probability at most 5 % (Ville's inequality).

use serde::{Deserialize, Serialize};

use super::bet::{Bet, bet, is_coin};
use super::logs::log_sum;
use super::parameters::{MAX_COMPONENTS, Parameters};
use super::signal::SignalCounts;

/// The promotion evidence of one signal in one step. No cap and no refill; made anew at each step.
///
/// It may also be fed with all scopes' batches, each at its own share: that multiplies their evidence, which is how
/// tenants too small to prove anything alone are promoted together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Promoter {
    rho: f64,
    delta: f64,
    log_at: f64,
    components: usize,
    bets: [f64; MAX_COMPONENTS],
    capital: [f64; 2 * MAX_COMPONENTS],
    /// Whether the second half of the capital plays; known from the first batch on.
    cautious: Option<bool>,
    #[serde(skip)]
    cached: Option<(f64, [Bet; 2 * MAX_COMPONENTS])>,
}

/// Above this share the stakes are too high for events that are not rare: a bad event on the canary, of which there are
/// many, costs more than one on the baseline, of which there are few, can win back. Half of the capital then plays with
/// stakes that are smaller by the odds of the baseline. At and below it everything is as in section 2.5, whose study ends
/// at this share.
const CAUTIOUS_ABOVE: f64 = 0.5;

impl Promoter {
    /// With the margin, the stakes and the threshold of the parameters.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        let components = parameters.promote_bets.len().clamp(1, MAX_COMPONENTS);
        let mut bets = [0.0; MAX_COMPONENTS];
        for (place, eta) in bets.iter_mut().zip(&parameters.promote_bets) {
            *place = *eta;
        }
        Self {
            rho: parameters.promote_rho,
            delta: parameters.promote_delta,
            log_at: parameters.promote_at.ln(),
            components,
            bets,
            capital: [-(components as f64).ln(); 2 * MAX_COMPONENTS],
            cautious: None,
            cached: None,
        }
    }

    /// Books a batch.
    ///
    /// `share` is the canary's probability when the requests were routed, or a smaller one. Unlike the rollback
    /// evidence, which stays valid at any larger share, this one would be inflated by it: the sign of the stake is
    /// the other one. At 0 and 1 nothing is learnt.
    pub fn add(&mut self, share: f64, counts: &SignalCounts) {
        if !is_coin(share) {
            return;
        }
        if self.cautious.is_none() {
            let cautious = share > CAUTIOUS_ABOVE;
            self.cautious = Some(cautious);
            let parts = if cautious { 2.0 } else { 1.0 } * self.components as f64;
            self.capital = [-parts.ln(); 2 * MAX_COMPONENTS];
        }
        let bets = *self.bets_at(share);
        let playing = self.playing();
        for (capital, bet) in self.capital.iter_mut().zip(&bets).take(playing) {
            *capital += bet.log_factor(counts);
        }
    }

    /// How many components play.
    fn playing(&self) -> usize {
        if self.cautious == Some(true) { 2 * self.components } else { self.components }
    }

    /// The evidence for the canary, as a logarithm; 0 at the start.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        log_sum(self.capital[..self.playing()].iter().copied())
    }

    /// Whether the evidence is enough.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.log_evidence() >= self.log_at
    }

    /// The bets of the stakes as they are, and behind them those of the cautious ones.
    fn bets_at(&mut self, share: f64) -> &[Bet; 2 * MAX_COMPONENTS] {
        if self.cached.is_some_and(|(cached, _)| cached != share) {
            self.cached = None;
        }
        let (etas, components, rho, delta) = (self.bets, self.components, self.rho, self.delta);
        let odds = ((1.0 - share) / share).min(1.0);
        let (_, bets) = self.cached.get_or_insert_with(|| {
            let stake = |i: usize| match i.checked_sub(components) {
                None => etas[i],
                Some(i) => etas.get(i).map_or(0.0, |eta| eta * odds),
            };
            (share, std::array::from_fn(|i| bet(-stake(i), share, rho, delta)))
        });
        bets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_nine_hundred_requests_without_failure_are_proof() {
        let mut promoter = Promoter::new(&Parameters::default());
        let mut needed = 0;
        while !promoter.is_ready() {
            promoter.add(0.1, &SignalCounts::new(9, 0, 1, 0));
            needed += 1;
        }
        assert!((860..880).contains(&needed), "{needed}");
    }

    /// Counts of 10,000 requests of which one in ten is bad on either version.
    fn alike(share: f64) -> SignalCounts {
        let canary = (10_000.0 * share).round() as u64;
        let baseline = 10_000 - canary;
        SignalCounts::new(baseline, baseline / 10, canary, canary / 10)
    }

    #[test]
    fn frequent_events_are_proof_at_large_shares_too() {
        for share in [0.6, 0.9, 0.95] {
            let mut promoter = Promoter::new(&Parameters::default());
            promoter.add(share, &alike(share));
            promoter.add(share, &alike(share));
            assert!(promoter.is_ready(), "{share}: {}", promoter.log_evidence());
        }
    }

    #[test]
    fn at_large_shares_the_capital_is_still_fair_at_the_margin() {
        // The mean factor of one request at the margin, over all components: never above 1.
        let (share, old) = (0.95, 0.1);
        let new = 1.5 * old + 0.005;
        let after = |counts: SignalCounts| {
            let mut promoter = Promoter::new(&Parameters::default());
            promoter.add(share, &counts);
            promoter.log_evidence().exp()
        };
        let (bad, good) = (after(SignalCounts::new(0, 0, 1, 1)), after(SignalCounts::new(0, 0, 1, 0)));
        let (old_bad, old_good) = (after(SignalCounts::new(1, 1, 0, 0)), after(SignalCounts::new(1, 0, 0, 0)));
        let mean = share * (new * bad + (1.0 - new) * good) + (1.0 - share) * (old * old_bad + (1.0 - old) * old_good);
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
    }

    #[test]
    fn silence_is_no_proof() {
        let mut promoter = Promoter::new(&Parameters::default());
        promoter.add(0.1, &SignalCounts::default());
        promoter.add(1.0, &SignalCounts::new(0, 0, 100_000, 0));
        assert!(promoter.log_evidence().abs() < 1e-12);
        assert!(!promoter.is_ready());
    }
}
