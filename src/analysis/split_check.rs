//! Is the split what was configured? All other evidence rests on knowing the coin, so the coin is tested too.
//!
//! Sticky keys of very different weight, failover or a stale configuration can give the canary more than its share;
//! it would then be accused of failures that are merely its larger part of the traffic.

use serde::{Deserialize, Serialize};

use super::bet::is_coin;
use super::logs::log_sum;

/// An e-process on the coin flips against "the canary gets `share`": a mixture of likelihood ratios.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitCheck {
    capital: [f64; SplitCheck::RATIOS.len()],
    baseline: u64,
    canary: u64,
    expected_canary: f64,
}

impl SplitCheck {
    /// The alternatives: the canary really gets this many times its share.
    pub const RATIOS: [f64; 4] = [0.8, 0.9, 1.1, 1.25];

    /// The evidence (a capital) at which the split counts as wrong.
    pub const OFF_AT: f64 = 1e6;

    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        let weight = -(Self::RATIOS.len() as f64).ln();
        Self { capital: [weight; Self::RATIOS.len()], baseline: 0, canary: 0, expected_canary: 0.0 }
    }

    /// Books how many independent coin flips, made with probability `share`, chose each version.
    pub fn add(&mut self, share: f64, baseline: u64, canary: u64) {
        if !is_coin(share) {
            return;
        }
        for (capital, ratio) in self.capital.iter_mut().zip(Self::RATIOS) {
            let log_norm = (share * (ratio - 1.0)).ln_1p();
            *capital += canary as f64 * (ratio.ln() - log_norm) - baseline as f64 * log_norm;
        }
        self.baseline += baseline;
        self.canary += canary;
        self.expected_canary += share * (baseline + canary) as f64;
    }

    /// The evidence that the split is wrong, as a logarithm; 0 at the start.
    #[must_use]
    pub fn log_evidence(&self) -> f64 {
        log_sum(self.capital.iter().copied())
    }

    /// Whether the split is not what was configured.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.log_evidence() >= Self::OFF_AT.ln()
    }

    /// What a configured `share` amounts to in reality, judged by all flips so far; 0 to 1.
    ///
    /// At one constant share this is just the canary's part of the flips. Over several shares it is the odds that
    /// are scaled, which keeps the result a probability.
    #[must_use]
    pub fn realised_share(&self, share: f64) -> f64 {
        let expected_baseline = (self.baseline + self.canary) as f64 - self.expected_canary;
        if !is_coin(share) || self.expected_canary <= 0.0 || expected_baseline <= 0.0 {
            return share;
        }
        let canary = share * self.canary as f64 / self.expected_canary;
        let baseline = (1.0 - share) * self.baseline as f64 / expected_baseline;
        canary / (canary + baseline)
    }
}

impl Default for SplitCheck {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_split_stays_unnoticed_and_a_wrong_one_does_not() {
        let (mut right, mut wrong) = (SplitCheck::new(), SplitCheck::new());
        for _ in 0..100 {
            right.add(0.1, 90, 10);
            wrong.add(0.1, 85, 15);
        }
        assert!(!right.is_off());
        assert!(wrong.is_off());
        assert!((wrong.realised_share(0.1) - 0.15).abs() < 1e-12);
        assert!((right.realised_share(0.1) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn the_realised_share_scales_over_steps_and_stays_a_probability() {
        let mut check = SplitCheck::new();
        assert_eq!(check.realised_share(0.3), 0.3);
        check.add(0.1, 800, 200);
        check.add(0.5, 100, 900);
        for share in [0.01, 0.5, 0.99] {
            let realised = check.realised_share(share);
            assert!(realised > share && realised < 1.0, "{share} {realised}");
        }
        check.add(1.0, 0, 5);
        assert_eq!(check.realised_share(1.0), 1.0);
    }
}
