//! How long to wait before the next attempt: twice as long each time, and not everyone at the same moment.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first attempt, jitter aside.
    pub first: Duration,
    /// The longest wait, jitter included.
    pub most: Duration,
}

impl Backoff {
    /// The wait after an attempt, counted from 0: between half and all of `first` doubled for every attempt before, at most
    /// `most`. Where in between follows from the seed, so that those who failed together do not come again together.
    pub fn delay(&self, attempt: u32, seed: u64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
        let whole = doubled.min(self.most);
        let drawn = xxh3_64_with_seed(&attempt.to_le_bytes(), seed);
        // The upper 32 bits as a share from 0 to 1.
        let share = (drawn >> 32) as f64 / f64::from(u32::MAX);
        whole.mul_f64(0.5 + share / 2.0).min(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };

    #[test]
    fn waits_double_up_to_the_most() {
        for seed in 0..1_000 {
            for (attempt, whole_ms) in [(0, 100), (1, 200), (2, 400), (5, 3_200), (6, 5_000), (31, 5_000), (90, 5_000)]
            {
                let delay = BACKOFF.delay(attempt, seed);
                let whole = Duration::from_millis(whole_ms);
                assert!((whole / 2..=whole).contains(&delay), "{attempt} {seed}: {delay:?}");
            }
        }
    }

    #[test]
    fn those_who_failed_together_spread_and_the_same_seed_waits_the_same() {
        let delays: std::collections::BTreeSet<_> = (0..1_000).map(|seed| BACKOFF.delay(6, seed)).collect();
        assert!(delays.len() > 990);
        assert!(delays.first().unwrap() < &Duration::from_millis(2_600));
        assert!(delays.last().unwrap() > &Duration::from_millis(4_900));
        assert_eq!(BACKOFF.delay(3, 7), BACKOFF.delay(3, 7));
    }
}
