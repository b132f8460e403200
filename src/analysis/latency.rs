//! Latencies in the log-spaced buckets of the tallies: what counts as slow.
//!
//! "Slow" means beyond the baseline's own running percentile, so nobody has to configure a limit, and the cut may be
//! as wrong as it likes: it is the same for both versions and fixed before the request is routed, so the coin does
//! not care. Buckets grow by 5 %, hence a quantile is never off by more than that.

use serde::{Deserialize, Serialize};

use crate::telemetry::latency::{BUCKETS, bucket_of_seconds as bucket_of, upper_edge};

/// A cut with fewer samples above it than this is too uncertain to be worth anything.
const MIN_SAMPLES_ABOVE: f64 = 20.0;

/// A histogram that forgets: it is halved every half-life, so that a cut follows the time of day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogHistogram {
    counts: Vec<f64>,
    half_life_s: f64,
}

impl LogHistogram {
    /// The half-life of the specification, rule R5, seconds.
    pub const HALF_LIFE_S: f64 = 600.0;

    /// An empty histogram that is halved every `half_life_s` seconds (above 0).
    #[must_use]
    pub fn new(half_life_s: f64) -> Self {
        Self { counts: vec![0.0; BUCKETS], half_life_s }
    }

    /// Adds one latency in seconds.
    pub fn add(&mut self, seconds: f64) {
        self.counts[bucket_of(seconds)] += 1.0;
    }

    /// Adds counts per bucket: the difference of two readings of a tally, or another proxy's histogram.
    pub fn add_counts(&mut self, counts: &[u64]) {
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum += *count as f64;
        }
    }

    /// Lets `elapsed_s` seconds pass.
    pub fn decay(&mut self, elapsed_s: f64) {
        let kept = 0.5f64.powf(elapsed_s / self.half_life_s);
        self.counts.iter_mut().for_each(|count| *count *= kept);
    }

    /// How many samples are remembered, after decay.
    #[must_use]
    pub fn total(&self) -> f64 {
        exact_sum(&self.counts)
    }

    /// The bucket that holds quantile `q`; `None` while fewer than 20 samples lie above it, and the signal is inert.
    ///
    /// A baseline request is slow in a bucket above this one, and a canary request above the next one: with the
    /// default tolerance of 1.05 that is exactly one bucket.
    #[must_use]
    pub fn cut_bucket(&self, q: f64) -> Option<usize> {
        let total = self.total();
        if total * (1.0 - q) < MIN_SAMPLES_ABOVE {
            return None;
        }
        let mut below = 0.0;
        let holds = |count: &f64| {
            below += count;
            below >= q * total
        };
        Some(self.counts.iter().position(holds).unwrap_or(BUCKETS - 1))
    }

    /// The cut in seconds: the upper edge of [`cut_bucket`](Self::cut_bucket).
    #[must_use]
    pub fn cut(&self, q: f64) -> Option<f64> {
        self.cut_bucket(q).map(upper_edge)
    }
}

impl Default for LogHistogram {
    fn default() -> Self {
        Self::new(Self::HALF_LIFE_S)
    }
}

/// Neumaier's compensated sum. A plain one is off by an ulp or two, and a quantile that falls just between two buckets
/// (as p99 of 3,000 samples may) would then be the wrong one of them.
fn exact_sum(values: &[f64]) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    sum + lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_needs_twenty_samples_above_it_and_forgets() {
        let mut histogram = LogHistogram::default();
        (0..205).for_each(|_| histogram.add(0.01));
        assert_eq!(histogram.cut_bucket(0.9), Some(bucket_of(0.01)));
        assert_eq!(histogram.cut(0.99), None);
        histogram.decay(600.0);
        assert!((histogram.total() - 102.5).abs() < 1e-9);
        assert_eq!(histogram.cut(0.9), None);
        histogram.add_counts(&[0, 0, 1000]);
        assert_eq!(histogram.cut_bucket(0.9), Some(2));
    }
}
