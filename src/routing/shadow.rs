//! The shadow of a service as requests see it: which of them are copied, and where the copies are counted.
//!
//! It lives as long as what is compared with what stays the same: another shadow version, another baseline or other
//! settings begin a new one, with nothing learned.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::routes::VersionRoute;
use crate::model::{BasisPoints, ShadowSpec};
use crate::shadow::Judge;
use crate::telemetry::{ShadowCounts, ShadowResult};

/// 2^64 divided by the golden ratio: its multiples spread evenly and keep step with nothing.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A version that gets copies of what the baseline serves.
#[derive(Debug)]
pub struct ShadowRoute {
    /// Its settings.
    pub spec: Arc<ShadowSpec>,
    /// The version that gets the copies.
    pub version: Arc<VersionRoute>,
    /// The version that its answers are compared with.
    pub baseline: Arc<VersionRoute>,
    metrics: Arc<ShadowCounts>,
    eligible: AtomicU64,
    waiting: AtomicU32,
    dropped: AtomicU64,
    stripped: AtomicU64,
    judge: Mutex<Judge>,
}

/// A copy's place in the queue, given back when dropped.
#[derive(Debug)]
pub struct Waiting(Arc<ShadowRoute>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl ShadowRoute {
    pub(super) fn new(
        spec: &Arc<ShadowSpec>,
        version: &Arc<VersionRoute>,
        baseline: &Arc<VersionRoute>,
        metrics: Arc<ShadowCounts>,
    ) -> Self {
        Self {
            spec: spec.clone(),
            version: version.clone(),
            baseline: baseline.clone(),
            metrics,
            eligible: AtomicU64::default(),
            waiting: AtomicU32::default(),
            dropped: AtomicU64::default(),
            stripped: AtomicU64::default(),
            judge: Mutex::default(),
        }
    }

    /// Whether it still compares the same.
    pub(super) fn is_of(&self, spec: &ShadowSpec, version: &Arc<VersionRoute>, baseline: &Arc<VersionRoute>) -> bool {
        *self.spec == *spec && Arc::ptr_eq(&self.version, version) && Arc::ptr_eq(&self.baseline, baseline)
    }

    /// Whether there is something to compare with.
    pub fn is_active(&self) -> bool {
        !Arc::ptr_eq(&self.version, &self.baseline)
    }

    /// Whether the next eligible request is copied. Of any number of them the share is, give or take four.
    pub fn draw(&self) -> bool {
        drawn(self.eligible.fetch_add(1, Relaxed), self.spec.share)
    }

    /// Whether one in the share of `noise_share` is due, by a number that counts copies.
    pub fn draws_noise(&self, number: u64) -> bool {
        drawn(number, self.spec.noise_share)
    }

    /// A place in the queue; none, and one more dropped copy, when it is full.
    pub fn queue(self: &Arc<Self>) -> Option<Waiting> {
        let place = Waiting(self.clone());
        if self.waiting.fetch_add(1, Relaxed) < self.spec.queue {
            return Some(place);
        }
        self.dropped.fetch_add(1, Relaxed);
        self.metrics.add(ShadowResult::Dropped);
        None
    }

    /// Copies that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Copies that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// A copy goes without the credentials that its request had.
    pub fn count_stripped(&self) {
        self.stripped.fetch_add(1, Relaxed);
    }

    /// Copies that went without the credentials that their requests had.
    pub fn stripped(&self) -> u64 {
        self.stripped.load(Relaxed)
    }

    /// Counts a copy in the metrics.
    pub fn count(&self, result: ShadowResult) {
        self.metrics.add(result);
    }

    /// What the comparisons found. Held for moments by those who count and those who read, never by a request.
    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        // Counts are plain numbers: after a panic elsewhere they are at worst a little off.
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether number `n` of a sequence belongs to a share of it: Weyl's sequence, which no rhythm of requests can evade.
fn drawn(n: u64, share: BasisPoints) -> bool {
    let place = (u128::from(n.wrapping_mul(GOLDEN)) * u128::from(BasisPoints::ALL.points())) >> 64;
    place < u128::from(share.points())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The first so many, and any later stretch, and every second or third request.
        #[test]
        fn the_share_is_kept_in_every_stretch(from in 0u64..1 << 40, len in 1u64..20_000, step in 1u64..4, points in 0u16..=10_000) {
            let share = BasisPoints::new(points).unwrap();
            let drawn = (0..len).filter(|i| drawn(from + i * step, share)).count() as f64;
            let wanted = len as f64 * share.ratio();
            prop_assert!((drawn - wanted).abs() <= 8.0, "{} instead of {}", drawn, wanted);
            prop_assert!(points > 0 || drawn == 0.0);
        }
    }

    #[test]
    fn from_the_beginning_four_too_many_or_too_few_at_most() {
        for points in [1, 10, 100, 1_000, 2_500, 5_000, 9_999, 10_000] {
            let share = BasisPoints::new(points).unwrap();
            let mut count = 0.0;
            for n in 0..100_000_u64 {
                count += f64::from(u8::from(drawn(n, share)));
                let wanted = (n + 1) as f64 * share.ratio();
                assert!((count - wanted).abs() <= 4.0, "{count} of {n} at {points}");
            }
        }
    }
}
