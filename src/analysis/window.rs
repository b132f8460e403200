//! The counts behind the evidence, for the sentence that explains a rollback.
//!
//! A window begins when a signal's evidence last stood at or below its stake, so that "in the last 41 s" covers just
//! the time in which the evidence arose, and not the good hours before.

use serde::{Deserialize, Serialize};

use super::detector::shifted;
use super::signal::{ArmCounts, Signal, SignalCounts};

/// What was counted while one signal's evidence arose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceWindow {
    /// Which signal the bad ones are of.
    pub signal: Signal,
    /// The baseline's requests, and the bad ones among them. For [`Signal::Error`] these are plain requests; for the
    /// other signals they are what the evidence was computed from, which with sticky keys is keys.
    pub baseline: ArmCounts,
    /// The same of the canary.
    pub canary: ArmCounts,
    /// Distinct bad keys on the baseline; equal to the bad requests when every request has a coin of its own.
    pub baseline_bad_keys: u64,
    /// Distinct bad keys on the canary.
    pub canary_bad_keys: u64,
    /// The share with which the requests were routed, averaged over them; 0 to 1.
    pub share: f64,
    /// How long the window is, seconds.
    pub seconds: f64,
    /// When it began, on the axis of `now_ms`.
    pub started_ms: u64,
    /// When the canary's first bad request in it ended, on the axis of `now_ms`.
    pub first_bad_ms: Option<u64>,
}

/// The window while it grows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WindowState {
    started_ms: u64,
    counts: SignalCounts,
    baseline_bad_keys: u64,
    canary_bad_keys: u64,
    /// `Σ share × requests`, for the mean.
    weighted_share: f64,
    requests: u64,
    first_bad_ms: Option<u64>,
}

impl EvidenceWindow {
    /// Several scopes' windows of one signal as one, for the reason of a fleet's rollback; `None` for none.
    #[must_use]
    pub fn joined(windows: impl IntoIterator<Item = EvidenceWindow>) -> Option<EvidenceWindow> {
        windows.into_iter().reduce(|mut joined, next| {
            let (mine, its) = (joined.requests() as f64, next.requests() as f64);
            if mine + its > 0.0 {
                joined.share = (joined.share * mine + next.share * its) / (mine + its);
            }
            joined.baseline += next.baseline;
            joined.canary += next.canary;
            joined.baseline_bad_keys += next.baseline_bad_keys;
            joined.canary_bad_keys += next.canary_bad_keys;
            joined.seconds = joined.seconds.max(next.seconds);
            joined.started_ms = joined.started_ms.min(next.started_ms);
            joined.first_bad_ms = earlier(joined.first_bad_ms, next.first_bad_ms);
            joined
        })
    }

    fn requests(&self) -> u64 {
        self.baseline.n + self.canary.n
    }
}

impl WindowState {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            started_ms: now_ms,
            counts: SignalCounts::default(),
            baseline_bad_keys: 0,
            canary_bad_keys: 0,
            weighted_share: 0.0,
            requests: 0,
            first_bad_ms: None,
        }
    }

    /// `shown` is what people are told, `keys` what the evidence was computed from.
    pub(super) fn add(
        &mut self,
        routed_share: f64,
        shown: SignalCounts,
        keys: SignalCounts,
        first_bad_ms: Option<u64>,
    ) {
        let requests = shown.baseline.n + shown.canary.n;
        self.counts += shown;
        self.baseline_bad_keys += keys.baseline.bad;
        self.canary_bad_keys += keys.canary.bad;
        self.weighted_share += routed_share * requests as f64;
        self.requests += requests;
        self.first_bad_ms = earlier(self.first_bad_ms, first_bad_ms);
    }

    pub(super) fn resume(&mut self, from_ms: u64, now_ms: u64) {
        self.started_ms = shifted(self.started_ms, from_ms, now_ms);
        self.first_bad_ms = self.first_bad_ms.map(|at| shifted(at, from_ms, now_ms));
    }

    pub(super) fn at(&self, now_ms: u64, signal: Signal) -> EvidenceWindow {
        EvidenceWindow {
            signal,
            baseline: self.counts.baseline,
            canary: self.counts.canary,
            baseline_bad_keys: self.baseline_bad_keys,
            canary_bad_keys: self.canary_bad_keys,
            share: if self.requests == 0 { 0.0 } else { self.weighted_share / self.requests as f64 },
            seconds: now_ms.saturating_sub(self.started_ms) as f64 / 1000.0,
            started_ms: self.started_ms,
            first_bad_ms: self.first_bad_ms,
        }
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_several_scopes_join() {
        let window = |share, n, bad, started_ms, first_bad_ms| {
            let mut state = WindowState::new(started_ms);
            let counts = SignalCounts::new(n, bad, n, bad);
            state.add(share, counts, counts, first_bad_ms);
            state.at(60_000, Signal::Error)
        };
        let joined =
            EvidenceWindow::joined([window(0.1, 30, 2, 20_000, None), window(0.5, 10, 3, 50_000, Some(51_000))]);
        let joined = joined.expect("two windows");
        assert_eq!((joined.baseline, joined.canary), (ArmCounts::new(40, 5), ArmCounts::new(40, 5)));
        assert_eq!((joined.seconds, joined.started_ms, joined.first_bad_ms), (40.0, 20_000, Some(51_000)));
        assert!((joined.share - 0.2).abs() < 1e-12);
        assert_eq!(EvidenceWindow::joined([]), None);
    }
}
