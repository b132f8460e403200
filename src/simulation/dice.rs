//! Chance by a seed: the n-th draw is a hash of n, so the same seed gives the same traffic on every machine.
//!
//! Counts are drawn exactly and not by a normal curve: false alarms live in the tails. Small means by inversion, large ones
//! by transformed rejection (Hörmann 1993, "The generation of binomial random variates"; "The transformed rejection method
//! for generating Poisson random variables").

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// From this mean on, rejection is faster than inversion, and valid.
const LARGE: f64 = 10.0;

/// A generator.
pub(super) struct Dice {
    seed: u64,
    count: u64,
}

impl Dice {
    /// The dice of one run of one kind.
    pub(super) fn new(seed: u64, kind: u64, run: u64) -> Self {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&kind.to_le_bytes());
        place[8..].copy_from_slice(&run.to_le_bytes());
        Self { seed: xxh3_64_with_seed(&place, seed), count: 0 }
    }

    /// Other dice for what is in the last draw, which take nothing from these.
    pub(super) fn aside(&self) -> Self {
        Self { seed: xxh3_64_with_seed(b"aside", self.seed ^ self.count), count: 0 }
    }

    /// Evenly from 0 to below 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.count += 1;
        (xxh3_64_with_seed(&self.count.to_le_bytes(), self.seed) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// How many happen when `mean` do on average and each comes by itself; 0 for means that are not above 0.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        if mean >= LARGE {
            return self.large_poisson(mean);
        }
        if mean <= 0.0 {
            return 0;
        }
        let (mut left, mut term, mut count) = (self.unit(), (-mean).exp(), 0);
        // The tail is less than a float can tell from 0 long before 100.
        while left >= term && count < 100 {
            left -= term;
            count += 1;
            term *= mean / count as f64;
        }
        count
    }

    /// How many of `n` happen when each does with this probability.
    pub(super) fn binomial(&mut self, n: u64, probability: f64) -> u64 {
        if n == 0 || probability <= 0.0 {
            return 0;
        }
        if probability >= 1.0 {
            return n;
        }
        if probability > 0.5 {
            return n - self.binomial(n, 1.0 - probability);
        }
        if n as f64 * probability >= LARGE {
            return self.large_binomial(n, probability);
        }
        let odds = probability / (1.0 - probability);
        let (mut left, mut term, mut count) = (self.unit(), (n as f64 * (-probability).ln_1p()).exp(), 0);
        while left >= term && count < n.min(200) {
            left -= term;
            term *= odds * (n - count) as f64 / (count + 1) as f64;
            count += 1;
        }
        count
    }

    fn large_poisson(&mut self, mean: f64) -> u64 {
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let sure = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= sure {
                return k as u64;
            }
            if k < 0.0 || us < 0.013 && v > us {
                continue;
            }
            let drawn = v.ln() + inverse_alpha.ln() - (a / (us * us) + b).ln();
            if drawn <= k * mean.ln() - mean - log_factorial(k) {
                return k as u64;
            }
        }
    }

    fn large_binomial(&mut self, n: u64, p: f64) -> u64 {
        let n = n as f64;
        let odds = p / (1.0 - p);
        let spread = (n * p * (1.0 - p)).sqrt();
        let b = 1.15 + 2.53 * spread;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let centre = n * p + 0.5;
        let sure = 0.92 - 4.2 / b;
        let alpha = (2.83 + 5.1 / b) * spread;
        let mode = ((n + 1.0) * p).floor();
        let of_mode = log_factorial(mode) + log_factorial(n - mode);
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + centre).floor();
            if us >= 0.07 && v <= sure {
                return k as u64;
            }
            if k < 0.0 || k > n {
                continue;
            }
            let drawn = (v * alpha / (a / (us * us) + b)).ln();
            if drawn <= of_mode - log_factorial(k) - log_factorial(n - k) + (k - mode) * odds.ln() {
                return k as u64;
            }
        }
    }
}

/// `ln k!`: by multiplication while that is exact enough, then by Stirling's series.
fn log_factorial(k: f64) -> f64 {
    if k < 10.0 {
        return (2..=k as u64).map(|i| i as f64).product::<f64>().ln();
    }
    let (x, half_log_tau) = (k + 1.0, 0.918_938_533_204_672_8);
    let series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1_260.0 * x * x)) / (x * x)) / x;
    (x - 0.5) * x.ln() - x + half_log_tau + series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of many draws.
    fn moments(mut draw: impl FnMut() -> u64) -> (f64, f64) {
        const DRAWS: usize = 40_000;
        let all: Vec<f64> = (0..DRAWS).map(|_| draw() as f64).collect();
        let mean = all.iter().sum::<f64>() / DRAWS as f64;
        (mean, all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DRAWS as f64)
    }

    #[test]
    fn counts_have_the_mean_and_the_spread_that_they_should() {
        let mut dice = Dice::new(7, 0, 0);
        for mean in [0.02, 0.7, 9.9, 10.1, 80.0, 5_000.0] {
            let (seen, variance) = moments(|| dice.poisson(mean));
            assert!((seen - mean).abs() < 4.5 * (mean / 40_000.0).sqrt(), "{seen} for {mean}");
            assert!((variance / mean - 1.0).abs() < 0.1, "{variance} for {mean}");
        }
        for (n, p) in [(5, 0.3), (200, 0.005), (200, 0.04), (200, 0.06), (900, 0.5), (40, 0.97), (100_000, 0.1)] {
            let (mean, spread) = (n as f64 * p, n as f64 * p * (1.0 - p));
            let (seen, variance) = moments(|| dice.binomial(n, p));
            assert!((seen - mean).abs() < 4.5 * (spread / 40_000.0).sqrt(), "{seen} for {n} × {p}");
            assert!((variance / spread - 1.0).abs() < 0.05, "{variance} for {n} × {p}");
        }
    }

    /// Both methods meet at a mean of ten; each value must come as often as it should on either side.
    #[test]
    fn every_count_comes_as_often_as_it_should() {
        for (n, p) in [(100_u64, 0.09), (100, 0.11), (60, 0.4)] {
            let (mut dice, mut seen) = (Dice::new(3, 1, 2), [0_u32; 101]);
            (0..50_000).for_each(|_| seen[dice.binomial(n, p) as usize] += 1);
            for (k, count) in seen.iter().enumerate().take(n as usize + 1) {
                let ways = log_factorial(n as f64) - log_factorial(k as f64) - log_factorial((n - k as u64) as f64);
                let expected = 50_000.0 * (ways + k as f64 * p.ln() + (n - k as u64) as f64 * (1.0 - p).ln()).exp();
                let far = (f64::from(*count) - expected).abs();
                assert!(far < 5.0 * expected.sqrt() + 3.0, "{count} times {k} of {n} × {p}, not {expected:.1}");
            }
        }
    }

    #[test]
    fn the_edges_are_certain() {
        let mut dice = Dice::new(1, 1, 1);
        assert_eq!(
            (dice.binomial(9, 0.0), dice.binomial(9, 1.0), dice.binomial(0, 0.5), dice.poisson(0.0)),
            (0, 9, 0, 0)
        );
    }

    #[test]
    fn runs_differ_and_the_same_run_is_the_same() {
        let first = |kind, run| Dice::new(5, kind, run).unit();
        assert_eq!(first(1, 2), first(1, 2));
        assert!(first(1, 2) != first(2, 1) && first(1, 2) != first(1, 3));
    }
}
