//! Latencies in log-spaced buckets: what counts as slow, and percentiles for the display.
//!
//! "Slow" means beyond the baseline's own running percentile, so nobody has to configure a limit, and the cut may be
//! as wrong as it likes: it is the same for both versions and fixed before the request is routed, so the coin does
//! not care. Buckets grow by 5 %, hence a quantile is never off by more than that.

use serde::{Deserialize, Serialize};

/// How many buckets there are; they reach from 0.1 ms to 227 s.
pub const BUCKETS: usize = 300;

/// Ratio of a bucket's upper edge to the one before.
const GROWTH: f64 = 1.05;

/// Upper end of what the first bucket is for, seconds.
const FIRST_EDGE_S: f64 = 1e-4;

/// A cut with fewer samples above it than this is too uncertain to be worth anything.
const MIN_SAMPLES_ABOVE: f64 = 20.0;

/// A histogram that forgets: it is halved every half-life, so that a cut follows the time of day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogHistogram {
    counts: Vec<f64>,
    half_life_s: f64,
}

/// The bucket of a latency in seconds. Latencies beyond the last bucket are put into it.
#[must_use]
pub fn bucket_of(seconds: f64) -> usize {
    if seconds <= FIRST_EDGE_S {
        return 0;
    }
    // Casting saturates: not-a-number becomes 0 and infinity the largest integer.
    (((seconds / FIRST_EDGE_S).ln() / GROWTH.ln()) as usize).min(BUCKETS - 1)
}

/// The upper edge of a bucket, in seconds.
#[must_use]
pub fn upper_edge(bucket: usize) -> f64 {
    FIRST_EDGE_S * GROWTH.powf((bucket + 1) as f64)
}

/// The quantile `q` (0 to 1) of plain counts per bucket, as the upper edge in seconds; `None` when they are empty.
#[must_use]
pub fn quantile(counts: &[u64], q: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    // The sample that is looked for, counted from 1: the smallest for q = 0, the largest for q = 1.
    let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
    let mut below = 0;
    let bucket = counts.iter().position(|count| {
        below += count;
        below >= rank
    });
    bucket.map(upper_edge)
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
    use proptest::prelude::*;

    #[test]
    fn odd_latencies_have_a_bucket() {
        assert_eq!(bucket_of(-1.0), 0);
        assert_eq!(bucket_of(0.0), 0);
        assert_eq!(bucket_of(f64::NAN), 0);
        assert_eq!(bucket_of(f64::INFINITY), BUCKETS - 1);
        assert!(upper_edge(BUCKETS - 1) > 200.0);
    }

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

    #[test]
    fn plain_quantiles_are_the_ranks() {
        let mut counts = vec![0; BUCKETS];
        assert_eq!(quantile(&counts, 0.5), None);
        counts[10] = 50;
        counts[20] = 50;
        assert_eq!(quantile(&counts, 0.0), Some(upper_edge(10)));
        assert_eq!(quantile(&counts, 0.5), Some(upper_edge(10)));
        assert_eq!(quantile(&counts, 0.51), Some(upper_edge(20)));
        assert_eq!(quantile(&counts, 1.0), Some(upper_edge(20)));
    }

    proptest! {
        #[test]
        fn a_latency_lies_inside_its_bucket(seconds in 1.001e-4..200.0f64) {
            let bucket = bucket_of(seconds);
            prop_assert!(seconds <= upper_edge(bucket) * (1.0 + 1e-9));
            prop_assert!(seconds * GROWTH >= upper_edge(bucket) * (1.0 - 1e-9));
        }
    }
}
