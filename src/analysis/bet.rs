//! One bet on one request: the stake, the three factors, and their plain product. Everything else here builds on it.
//!
//! Against the claim `p_canary ≤ rho·p_baseline + delta`, with share `s` and stake `mu`, a request multiplies the
//! capital by
//!
//! ```text
//! canary bad    1 + mu·(1 − delta)
//! canary good   1 − mu·delta
//! baseline bad  1 − mu·rho·s/(1 − s)
//! baseline good 1
//! ```
//!
//! The mean is `1 + s·mu·(p_canary − delta − rho·p_baseline)`: at most 1 under the claim, for every single request,
//! whatever the past. This is the capital process `1 + mu·Z` of Waudby-Smith & Ramdas, betting, arXiv 2010.09686; the
//! conditioning on the bad event's arm is that of Lindon & Malek, arXiv 2011.03567.

use super::logs::log_sum;
use super::signal::SignalCounts;

/// The natural logarithms of a bet's three factors. A good baseline request always multiplies by 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bet {
    /// Log factor of a bad event on the canary.
    pub canary_bad: f64,
    /// Log factor of a good event on the canary.
    pub canary_good: f64,
    /// Log factor of a bad event on the baseline.
    pub baseline_bad: f64,
}

/// The stake for the alternative "the canary is `multiple` times worse than the margin allows".
///
/// For `delta = 0` it is the stake that grows fastest if the alternative is true (the likelihood ratio of the two
/// binomials). It is limited to `0.5/delta`, so that a good request never costs more than half the capital.
///
/// `multiple` is above 1, `share` between 0 and 1 exclusive.
#[must_use]
pub fn stake(multiple: f64, share: f64, rho: f64, delta: f64) -> f64 {
    let best = (multiple - 1.0) * (1.0 - share) / (1.0 - share + share * rho * multiple);
    if delta > 0.0 { best.min(0.5 / delta) } else { best }
}

/// The three log factors of a stake. A negative stake bets that the canary is better than the margin (promotion).
///
/// `share` lies between 0 and 1 exclusive.
#[must_use]
pub fn bet(stake: f64, share: f64, rho: f64, delta: f64) -> Bet {
    Bet {
        canary_bad: (stake * (1.0 - delta)).ln_1p(),
        canary_good: (-stake * delta).ln_1p(),
        baseline_bad: (-stake * rho * share / (1.0 - share)).ln_1p(),
    }
}

/// The plain e-process of one margin: equal weights over `multiples`, without slots, cap or refill.
///
/// Returns the log evidence after each batch; its exponential is an e-value at every one of them (Ville's
/// inequality). For offline questions and for checking; live traffic is judged by [`Detector`](super::Detector).
#[must_use]
pub fn log_evalue(batches: &[SignalCounts], share: f64, rho: f64, delta: f64, multiples: &[f64]) -> Vec<f64> {
    let bets: Vec<Bet> = multiples.iter().map(|g| bet(stake(*g, share, rho, delta), share, rho, delta)).collect();
    let mut capital = vec![-(multiples.len() as f64).ln(); multiples.len()];
    let mut evidence = Vec::with_capacity(batches.len());
    for counts in batches {
        for (log, bet) in capital.iter_mut().zip(&bets) {
            *log += bet.log_factor(counts);
        }
        evidence.push(log_sum(capital.iter().copied()));
    }
    evidence
}

impl Bet {
    /// The log factor of a whole batch.
    #[must_use]
    pub fn log_factor(&self, counts: &SignalCounts) -> f64 {
        counts.canary.bad as f64 * self.canary_bad
            + counts.canary.good() as f64 * self.canary_good
            + counts.baseline.bad as f64 * self.baseline_bad
    }
}

/// Whether a share leaves both versions a chance. At 0 and at 1 there is no coin and so no evidence.
pub(super) fn is_coin(share: f64) -> bool {
    share > 0.0 && share < 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Mean factor of one request that is really routed with `true_share`, when the bet is placed at `share`.
    fn mean(bet: Bet, true_share: f64, p_baseline: f64, p_canary: f64) -> f64 {
        true_share * (p_canary * bet.canary_bad.exp() + (1.0 - p_canary) * bet.canary_good.exp())
            + (1.0 - true_share) * (p_baseline * bet.baseline_bad.exp() + 1.0 - p_baseline)
    }

    proptest! {
        #[test]
        fn the_mean_factor_is_at_most_one_when_the_canary_is_within_the_margin(
            share in 1e-4..0.999f64, rho in 0.0..3.0f64, delta in prop::sample::select(vec![0.0, 1e-4, 1e-3, 0.05]),
            log_multiple in 0.01..6.0f64, p_baseline in 0.0..=1.0f64, part in 0.0..=1.0f64,
        ) {
            let p_canary = part * (rho * p_baseline + delta).min(1.0);
            let bet = bet(stake(log_multiple.exp(), share, rho, delta), share, rho, delta);
            prop_assert!(bet.canary_bad.is_finite() && bet.canary_good.is_finite() && bet.baseline_bad.is_finite());
            prop_assert!(mean(bet, share, p_baseline, p_canary) <= 1.0 + 1e-12);
        }

        // Rule R3: a batch may be booked at any share that is not below the one it was routed with.
        #[test]
        fn a_larger_share_than_the_true_one_is_safe(
            true_share in 0.0..0.999f64, up in 0.0..1.0f64, rho in 0.0..3.0f64,
            delta in prop::sample::select(vec![0.0, 5e-4, 0.05]), multiple in 1.01..200.0f64,
            p_baseline in 0.0..=1.0f64, part in 0.0..=1.0f64,
        ) {
            let share = (true_share + up * (0.999 - true_share)).max(1e-6);
            let p_canary = part * (rho * p_baseline + delta).min(1.0);
            let bet = bet(stake(multiple, share, rho, delta), share, rho, delta);
            prop_assert!(mean(bet, true_share, p_baseline, p_canary) <= 1.0 + 1e-12);
        }

        // The mirror image for promotion: there it is a smaller share that is safe.
        #[test]
        fn a_promotion_bet_is_safe_at_the_true_share_or_a_smaller_one(
            true_share in 1e-3..0.999f64, down in 0.0..=1.0f64, eta in 0.01..0.99f64, rho in 0.0..2.0f64,
            p_baseline in 0.0..=1.0f64, part in 0.0..=1.0f64,
        ) {
            let delta = 0.005;
            let worst_allowed = rho * p_baseline + delta;
            prop_assume!(worst_allowed <= 1.0);
            let p_canary = worst_allowed + part * (1.0 - worst_allowed);
            let share = (true_share * down).max(1e-6);
            prop_assert!(mean(bet(-eta, share, rho, delta), true_share, p_baseline, p_canary) <= 1.0 + 1e-9);
        }

        #[test]
        fn bad_events_alone_never_count_for_more_at_a_larger_share(
            share in 1e-3..0.9f64, up in 0.0..0.09f64, baseline in 0u64..50, canary in 0u64..50,
        ) {
            let batch = [SignalCounts::new(baseline, baseline, canary, canary)];
            let at = |s| log_evalue(&batch, s, 1.1, 0.0005, &[1.5, 3.0, 10.0, 100.0])[0];
            prop_assert!(at(share + up) <= at(share) + 1e-9);
        }
    }
}
