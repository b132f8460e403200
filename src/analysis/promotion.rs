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
    capital: [f64; MAX_COMPONENTS],
    #[serde(skip)]
    cached: Option<(f64, [Bet; MAX_COMPONENTS])>,
}

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
            capital: [-(components as f64).ln(); MAX_COMPONENTS],
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
        let bets = *self.bets_at(share);
        for (capital, bet) in self.capital.iter_mut().zip(&bets).take(self.components) {
            *capital += bet.log_factor(counts);
        }
    }

    /// The evidence for the canary, as a logarithm; 0 at the start.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        log_sum(self.capital[..self.components].iter().copied())
    }

    /// Whether the evidence is enough.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.log_evidence() >= self.log_at
    }

    fn bets_at(&mut self, share: f64) -> &[Bet; MAX_COMPONENTS] {
        if self.cached.is_some_and(|(cached, _)| cached != share) {
            self.cached = None;
        }
        let (etas, rho, delta) = (self.bets, self.rho, self.delta);
        let (_, bets) = self.cached.get_or_insert_with(|| (share, etas.map(|eta| bet(-eta, share, rho, delta))));
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

    #[test]
    fn silence_is_no_proof() {
        let mut promoter = Promoter::new(&Parameters::default());
        promoter.add(0.1, &SignalCounts::default());
        promoter.add(1.0, &SignalCounts::new(0, 0, 100_000, 0));
        assert!(promoter.log_evidence().abs() < 1e-12);
        assert!(!promoter.is_ready());
    }
}
