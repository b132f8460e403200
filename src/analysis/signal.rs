//! What is counted: the kinds of bad events, and how many of them each version had.

use serde::{Deserialize, Serialize};

/// A kind of bad event. Each signal is a test of its own with its own margin and its own part of the stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The backend failed: 5xx, timeout, connect failure or reset.
    Error,
    /// Slower than the baseline's running 90th percentile.
    Slow,
    /// Slower than the baseline's running 99th percentile.
    VerySlow,
    /// A 4xx answer; off by default, see [`Parameters::with_client_errors`](super::Parameters::with_client_errors).
    ClientError,
}

/// How many of how many went wrong on one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// All requests (or keys), good and bad.
    pub n: u64,
    /// The bad ones among them; at most `n`.
    pub bad: u64,
}

/// Both versions' counts over the same time. They must travel together: one without the other biases the coin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalCounts {
    /// The version that is trusted now.
    pub baseline: ArmCounts,
    /// The version under test.
    pub canary: ArmCounts,
}

/// The counts of a batch for up to four signals, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals {
    items: [(Signal, SignalCounts); Signal::COUNT],
    len: usize,
}

impl Signal {
    /// How many signals there are.
    pub const COUNT: usize = 4;

    /// All signals, in the order in which they are reported.
    pub const ALL: [Signal; Signal::COUNT] = [Signal::Error, Signal::Slow, Signal::VerySlow, Signal::ClientError];

    /// The name used in the API and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Signal::Error => "error",
            Signal::Slow => "slow",
            Signal::VerySlow => "very_slow",
            Signal::ClientError => "client_error",
        }
    }

    /// The cause of a rollback by this signal, in one word, for metrics and the history.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Error => "errors",
            Self::Slow => "slow",
            Self::VerySlow => "very_slow",
            Self::ClientError => "client_errors",
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ArmCounts {
    /// `bad` of `n`.
    #[must_use]
    pub const fn new(n: u64, bad: u64) -> Self {
        Self { n, bad }
    }

    /// The part that is bad, 0 to 1; 0 when nothing was seen.
    #[must_use]
    pub fn rate(self) -> f64 {
        if self.n == 0 { 0.0 } else { self.bad as f64 / self.n as f64 }
    }

    /// Saturating, because a miscount upstream must not become extra evidence.
    pub(super) const fn good(self) -> u64 {
        self.n.saturating_sub(self.bad)
    }
}

impl std::ops::AddAssign for ArmCounts {
    fn add_assign(&mut self, other: Self) {
        self.n += other.n;
        self.bad += other.bad;
    }
}

impl SignalCounts {
    /// In the order `baseline n, baseline bad, canary n, canary bad`.
    #[must_use]
    pub const fn new(baseline_n: u64, baseline_bad: u64, canary_n: u64, canary_bad: u64) -> Self {
        Self { baseline: ArmCounts::new(baseline_n, baseline_bad), canary: ArmCounts::new(canary_n, canary_bad) }
    }

    pub(super) const fn is_empty(self) -> bool {
        self.baseline.n == 0 && self.baseline.bad == 0 && self.canary.n == 0 && self.canary.bad == 0
    }
}

impl std::ops::AddAssign for SignalCounts {
    fn add_assign(&mut self, other: Self) {
        self.baseline += other.baseline;
        self.canary += other.canary;
    }
}

impl Signals {
    /// No signal has counts.
    #[must_use]
    pub const fn new() -> Self {
        Self { items: [(Signal::Error, SignalCounts::new(0, 0, 0, 0)); Signal::COUNT], len: 0 }
    }

    /// Adds counts to a signal. A signal that is never added is inert: it neither accuses nor acquits the canary.
    pub fn add(&mut self, signal: Signal, counts: SignalCounts) {
        match self.items[..self.len].iter_mut().find(|(present, _)| *present == signal) {
            Some((_, sum)) => *sum += counts,
            None => {
                // There is room: every signal is present at most once and there are as many places as signals.
                self.items[self.len] = (signal, counts);
                self.len += 1;
            }
        }
    }

    /// The signals that have counts.
    #[must_use]
    pub fn as_slice(&self) -> &[(Signal, SignalCounts)] {
        &self.items[..self.len]
    }

    /// The counts of one signal, if it has any.
    #[must_use]
    pub fn get(&self, signal: Signal) -> Option<SignalCounts> {
        self.as_slice().iter().find(|(present, _)| *present == signal).map(|(_, counts)| *counts)
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<(Signal, SignalCounts)> for Signals {
    fn from_iter<I: IntoIterator<Item = (Signal, SignalCounts)>>(items: I) -> Self {
        let mut signals = Self::new();
        for (signal, counts) in items {
            signals.add(signal, counts);
        }
        signals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_held_once() {
        let mut signals: Signals = Signal::ALL.into_iter().map(|s| (s, SignalCounts::new(1, 0, 1, 1))).collect();
        signals.add(Signal::Slow, SignalCounts::new(5, 2, 0, 0));
        assert_eq!(signals.as_slice().len(), 4);
        assert_eq!(signals.get(Signal::Slow), Some(SignalCounts::new(6, 2, 1, 1)));
        assert_eq!(Signals::new().get(Signal::Slow), None);
    }

    #[test]
    fn the_name_is_the_serialised_name() {
        for (position, signal) in Signal::ALL.into_iter().enumerate() {
            assert_eq!(signal.index(), position);
            assert_eq!(serde_json::to_value(signal).unwrap(), signal.as_str());
        }
    }
}
