//! Latencies in log-spaced buckets of atomics: one relaxed increment per request, percentiles within 5 %.
//!
//! The buckets are those of the analysis room's specification (γ = 1.05 from 0.1 ms, 300 of them), because cuts are
//! computed from these counts and must mean the same there. Latencies are whole microseconds, so the logarithm can be
//! replaced by a table that gives exactly the same bucket.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many buckets there are; they reach from 0.1 ms to 227 s.
pub const BUCKETS: usize = 300;

const GROWTH: f64 = 1.05;
const FIRST_EDGE_S: f64 = 1e-4;

/// Each octave of microseconds is cut into this many cells. A cell spans at most 1/32 = 3.1 %, less than a bucket's
/// 5 %, so at most one border lies inside a cell and one comparison finds the bucket.
const CELLS_LOG2: u32 = 5;
/// 2^28 µs = 268 s lies beyond the last border, so everything from there on is in the last bucket.
const OCTAVES: usize = 28;

struct Table {
    /// The bucket of the first microsecond of each cell.
    first: [u16; OCTAVES << CELLS_LOG2],
    /// The smallest latency in microseconds of each bucket; the entry after the last is never reached.
    begins: [u32; BUCKETS + 1],
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

impl Table {
    fn new() -> Self {
        let mut begins = [u32::MAX; BUCKETS + 1];
        for (bucket, begin) in begins.iter_mut().enumerate().take(BUCKETS) {
            *begin = smallest_us_of(bucket);
        }
        let first = std::array::from_fn(|cell| bucket_by_formula(cell_begin_us(cell)) as u16);
        Self { first, begins }
    }
}

/// Binary search over the formula, which never falls.
fn smallest_us_of(bucket: usize) -> u32 {
    let (mut low, mut high) = (0u32, 1 << OCTAVES);
    while low < high {
        let middle = low + (high - low) / 2;
        if bucket_by_formula(u64::from(middle)) >= bucket { high = middle } else { low = middle + 1 }
    }
    low
}

fn cell_begin_us(cell: usize) -> u64 {
    let (octave, part) = (cell >> CELLS_LOG2, (cell & ((1 << CELLS_LOG2) - 1)) as u64);
    // Octaves too short for that many cells all lie below 0.1 ms, in the first bucket.
    if octave < CELLS_LOG2 as usize { 0 } else { (1 << octave) | (part << (octave - CELLS_LOG2 as usize)) }
}

fn bucket_by_formula(us: u64) -> usize {
    bucket_of_seconds(us as f64 / 1e6)
}

/// The bucket of a latency in seconds by the specification's formula: `floor(ln(x / 1e-4) / ln 1.05)` within 0 to 299.
pub fn bucket_of_seconds(seconds: f64) -> usize {
    if seconds <= FIRST_EDGE_S {
        return 0;
    }
    (((seconds / FIRST_EDGE_S).ln() / GROWTH.ln()) as usize).min(BUCKETS - 1)
}

/// The bucket of a latency in microseconds; the same as [`bucket_of_seconds`], about ten times as fast.
pub fn bucket_of(us: u64) -> usize {
    if us < 100 {
        return 0;
    }
    if us >> OCTAVES != 0 {
        return BUCKETS - 1;
    }
    let octave = us.ilog2();
    let part = (us >> (octave - CELLS_LOG2)) as usize & ((1 << CELLS_LOG2) - 1);
    let table = &*TABLE;
    let bucket = usize::from(table.first[((octave as usize) << CELLS_LOG2) | part]);
    bucket + usize::from(us >= u64::from(table.begins[bucket + 1]))
}

/// The upper edge of a bucket in seconds.
pub fn upper_edge(bucket: usize) -> f64 {
    FIRST_EDGE_S * GROWTH.powf((bucket + 1) as f64)
}

/// The quantile `q` (0 to 1) of counts per bucket, as the bucket's upper edge in seconds; `None` when all are zero.
pub fn quantile(counts: &[u64], q: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
    let mut below = 0;
    let holds = |count: &u64| {
        below += count;
        below >= rank
    };
    counts.iter().position(holds).map(upper_edge)
}

/// Cumulative counts per bucket. They wrap at 2^32, so readers take wrapping differences.
pub struct LatencyHistogram {
    counts: [AtomicU32; BUCKETS],
}

impl LatencyHistogram {
    /// Adds one latency in microseconds.
    pub fn record(&self, us: u64) {
        self.counts[bucket_of(us)].fetch_add(1, Relaxed);
    }

    /// The counts now.
    pub fn read(&self) -> Box<[u32]> {
        self.counts.iter().map(|c| c.load(Relaxed)).collect()
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

/// Counts per bucket with the empty buckets left out: what a few seconds of one version look like, in a few bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SparseCounts {
    /// Bucket (9 bits) and count (23 bits) in one number; a larger count takes several entries.
    entries: Vec<u32>,
}

impl SparseCounts {
    const COUNT_BITS: u32 = 23;
    const MAX_COUNT: u32 = (1 << Self::COUNT_BITS) - 1;

    /// What was added between two readings of one histogram.
    pub fn between(before: &[u32], after: &[u32]) -> Self {
        let mut sparse = Self::default();
        for (bucket, now) in after.iter().enumerate().take(BUCKETS) {
            sparse.push(bucket, now.wrapping_sub(before.get(bucket).copied().unwrap_or(0)));
        }
        sparse
    }

    /// Buckets with their counts; a bucket may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        self.entries.iter().map(|e| ((e >> Self::COUNT_BITS) as usize, u64::from(e & Self::MAX_COUNT)))
    }

    /// Adds the counts to those of [`BUCKETS`] buckets.
    pub fn add_to(&self, counts: &mut [u64]) {
        for (bucket, count) in self.iter() {
            if let Some(sum) = counts.get_mut(bucket) {
                *sum += count;
            }
        }
    }

    /// Adds the counts of the other.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.iter() {
            let slot = self.entries.iter_mut().find(|e| (**e >> Self::COUNT_BITS) as usize == bucket);
            match slot {
                Some(entry) if u64::from(*entry & Self::MAX_COUNT) + count <= u64::from(Self::MAX_COUNT) => {
                    *entry += count as u32;
                }
                _ => self.push(bucket, count as u32),
            }
        }
    }

    /// How many entries it takes, four bytes each.
    pub fn size(&self) -> usize {
        self.entries.len()
    }

    fn push(&mut self, bucket: usize, mut count: u32) {
        while count > 0 {
            let part = count.min(Self::MAX_COUNT);
            self.entries.push(((bucket as u32) << Self::COUNT_BITS) | part);
            count -= part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_latencies_have_a_bucket() {
        assert_eq!(bucket_of_seconds(-1.0), 0);
        assert_eq!(bucket_of_seconds(0.0), 0);
        assert_eq!(bucket_of_seconds(f64::NAN), 0);
        assert_eq!(bucket_of_seconds(f64::INFINITY), BUCKETS - 1);
        assert!(upper_edge(BUCKETS - 1) > 200.0);
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

    #[test]
    fn the_table_is_the_formula() {
        for us in 0..=2_000_000 {
            assert_eq!(bucket_of(us), bucket_by_formula(us), "{us} µs");
        }
        for bucket in 0..BUCKETS {
            let begin = u64::from(smallest_us_of(bucket));
            for us in begin.saturating_sub(300)..begin + 300 {
                assert_eq!(bucket_of(us), bucket_by_formula(us), "{us} µs");
            }
        }
        for us in [u64::MAX, 1 << 28, (1 << 28) - 1, 1 << 40] {
            assert_eq!(bucket_of(us), BUCKETS - 1);
        }
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut counts = vec![0; BUCKETS];
        assert_eq!(quantile(&counts, 0.5), None);
        counts[10] = 50;
        counts[20] = 50;
        assert_eq!(quantile(&counts, 0.5), Some(upper_edge(10)));
        assert_eq!(quantile(&counts, 0.51), Some(upper_edge(20)));
        assert_eq!(quantile(&counts, 1.0), Some(upper_edge(20)));
    }

    #[test]
    fn sparse_counts_survive_wrapping_and_large_counts() {
        let mut before = vec![0u32; BUCKETS];
        let mut after = vec![0u32; BUCKETS];
        before[299] = u32::MAX - 1;
        after[299] = 3;
        after[7] = 20_000_000;
        let mut sparse = SparseCounts::between(&before, &after);
        sparse.merge(&sparse.clone());
        let mut counts = vec![0; BUCKETS];
        sparse.add_to(&mut counts);
        assert_eq!((counts[7], counts[299]), (40_000_000, 10));
        assert_eq!(counts.iter().sum::<u64>(), 40_000_010);
    }

    proptest! {
        #[test]
        fn the_table_is_the_formula_everywhere(us in prop_oneof![0u64..1 << 20, 0u64..1 << 29, any::<u64>()]) {
            prop_assert_eq!(bucket_of(us), bucket_by_formula(us));
        }

        #[test]
        fn sparse_counts_hold_every_count(counts in proptest::collection::vec(0u32..50_000_000, BUCKETS)) {
            let mut sum = vec![0u64; BUCKETS];
            SparseCounts::between(&[], &counts).add_to(&mut sum);
            prop_assert!(sum.iter().zip(&counts).all(|(a, b)| *a == u64::from(*b)));
        }
    }
}
