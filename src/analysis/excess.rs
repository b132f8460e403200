//! How much worse one version does the same work than another: what orders a list so that the worst is on top.
//!
//! Counts of failures alone would put the busiest on top, rates alone the luckless with three requests. So what is told
//! is how many requests went wrong beyond what the other version's rate explains, less what chance makes likely.

use super::signal::ArmCounts;
use crate::telemetry::latency::{bucket_of_seconds, quantile};

/// Standard errors that are put down to chance.
const CHANCE: f64 = 2.0;
/// A request is slow from this much above the other version's 90th percentile on: steps of a histogram are 5 %, …
const FACTOR: f64 = 1.1;
/// … and nobody waits for a millisecond, in seconds.
const LEAST_S: f64 = 1e-3;

/// At least so many of `b`'s requests failed beyond `a`'s rate: the difference of the rates less two standard errors,
/// times the requests of `b`. 0 when there is no such difference, or no request on one side.
pub fn excess_failures(a: ArmCounts, b: ArmCounts) -> f64 {
    if a.n == 0 || b.n == 0 {
        return 0.0;
    }
    let (n_a, n_b) = (a.n as f64, b.n as f64);
    let pooled = (a.bad + b.bad) as f64 / (n_a + n_b);
    let error = (pooled * (1.0 - pooled) * (1.0 / n_a + 1.0 / n_b)).max(0.0).sqrt();
    (n_b * (b.bad as f64 / n_b - a.bad as f64 / n_a - CHANCE * error)).max(0.0)
}

/// The same of slow requests: slower than `a`'s 90th percentile by more than a tenth and a millisecond. Both are counts
/// per bucket of [`crate::telemetry::latency`].
pub fn excess_slow(a: &[u64], b: &[u64]) -> f64 {
    let Some(p90) = quantile(a, 0.9) else { return 0.0 };
    let cut = bucket_of_seconds((p90 * FACTOR).max(p90 + LEAST_S));
    let counts = |counts: &[u64]| ArmCounts { n: counts.iter().sum(), bad: counts.iter().skip(cut + 1).sum() };
    excess_failures(counts(a), counts(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::latency::BUCKETS;
    use proptest::prelude::*;

    fn counts(n: u64, bad: u64) -> ArmCounts {
        ArmCounts { n, bad }
    }

    #[test]
    fn what_chance_explains_is_no_excess() {
        assert_eq!(excess_failures(counts(1_000_000, 10_000), counts(1_000_000, 10_150)), 0.0);
        assert_eq!(excess_failures(counts(100, 0), counts(3, 0)), 0.0);
        assert_eq!(excess_failures(counts(0, 0), counts(50, 50)), 0.0);
        assert_eq!(excess_failures(counts(100, 50), counts(100, 1)), 0.0, "better is not worse");
        let broken = excess_failures(counts(50, 0), counts(50, 50));
        assert!((35.0..50.0).contains(&broken), "{broken}");
        assert!(excess_failures(counts(10_000, 100), counts(1_000, 60)) > 20.0);
    }

    /// Latencies in milliseconds, each with its number.
    fn latencies(all: &[(f64, u64)]) -> Vec<u64> {
        let mut counts = vec![0; BUCKETS];
        all.iter().for_each(|(ms, n)| counts[bucket_of_seconds(ms / 1e3)] += n);
        counts
    }

    #[test]
    fn slow_is_what_users_notice() {
        let old = latencies(&[(10.0, 90), (50.0, 10)]);
        let excess = |all: &[(f64, u64)]| excess_slow(&old, &latencies(all));
        assert_eq!(excess(&[(10.0, 90), (50.0, 10)]), 0.0);
        assert_eq!(excess(&[(10.4, 100)]), 0.0, "within the steps of the histogram");
        assert!((60.0..=90.0).contains(&excess(&[(20.0, 100)])), "{}", excess(&[(20.0, 100)]));
        assert_eq!(excess(&[(10.0, 2), (500.0, 1)]), 0.0, "chance");
        assert_eq!(excess(&[(1.0, 100)]), 0.0);
        assert_eq!(excess_slow(&latencies(&[(0.3, 100)]), &latencies(&[(0.9, 100)])), 0.0, "nobody waits for that");
        assert_eq!((excess(&[]), excess_slow(&[], &old)), (0.0, 0.0));
    }

    proptest! {
        #[test]
        fn an_excess_is_part_of_the_failures(n_a in 0u64..5_000, n_b in 0u64..5_000, p in 0.0..=1.0f64, q in 0.0..=1.0f64) {
            let (a, b) = (counts(n_a, (n_a as f64 * p) as u64), counts(n_b, (n_b as f64 * q) as u64));
            let excess = excess_failures(a, b);
            prop_assert!((0.0..=b.bad as f64).contains(&excess), "{}", excess);
            prop_assert!(excess == 0.0 || excess_failures(b, a) == 0.0);
        }
    }
}
