//! Copies of requests that a version got without users seeing its answers, by what came of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What came of a copy. The names are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowResult {
    /// Answered as by the baseline, but for what was known as noise then.
    Same,
    /// Answered otherwise.
    Different,
    /// Not answered, or not to the end.
    Failed,
    /// Not answered in time.
    Timeout,
    /// Not sent, because too many copies waited.
    Dropped,
    /// Answered, but the bodies cannot be compared: too large, or in an unknown coding.
    Unjudged,
}

impl ShadowResult {
    /// How many results there are.
    pub const COUNT: usize = 6;

    /// Every result, in the order of its index.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Same, Self::Different, Self::Failed, Self::Timeout, Self::Dropped, Self::Unjudged];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Dropped => "dropped",
            Self::Unjudged => "unjudged",
        }
    }
}

/// Copies of one version by result. They are no requests of users, so they count nowhere else.
#[derive(Debug, Default)]
pub struct ShadowCounts([AtomicU64; ShadowResult::COUNT]);

impl ShadowCounts {
    /// Counts a copy.
    pub fn add(&self, result: ShadowResult) {
        self.0[result as usize].fetch_add(1, Relaxed);
    }

    /// How many copies came to this.
    pub fn get(&self, result: ShadowResult) -> u64 {
        self.0[result as usize].load(Relaxed)
    }
}
