//! From cumulative counts to batches: what happened between the last look and this one, by epoch and canary.

use std::collections::HashMap;

use super::spoken::{Heard, Keys, New};
use crate::analysis::{ArmCounts, Batch, RawCounts, Signal, SignalCounts, Signals};
use crate::model::{VersionName, Weights};
use crate::telemetry::{ArmReading, EpochTally, ScopeTally, SignalReading, TallySignal};

/// The last reading of each epoch of each scope.
#[derive(Default)]
pub(super) struct Readings {
    last: HashMap<u64, Vec<EpochReading>>,
    spoken: HashMap<u64, Heard>,
}

/// Failures with pauses shorter than this are one run, in milliseconds.
const RUN_MS: u64 = 2_000;

/// What one epoch of a scope has counted since its process began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EpochReading {
    pub epoch: u64,
    pub weights: Weights,
    pub arms: Vec<ArmReading>,
    /// When the last run of failures of each version began: on the clock of the ticks, and by the wall clock on the way to
    /// another process.
    pub bad_since_ms: Vec<Option<u64>>,
}

/// What one epoch of a scope added since the last look.
pub(super) struct EpochNews {
    pub epoch: u64,
    pub weights: Weights,
    /// Whether it may be long ago, since a proxy tells it that was not heard of for a while. Then it says nothing about a
    /// later attempt.
    pub late: bool,
    arms: Vec<ArmReading>,
    /// When each version's first failure was, on the clock of the ticks.
    first_bad_ms: Vec<Option<u64>>,
}

impl Readings {
    /// Reads which keys spoke in a scope since the last look. Before [`Self::news`], which counts at least those.
    pub fn keys(&mut self, scope: &ScopeTally, now_ms: u64) -> Keys {
        self.spoken.entry(scope.id()).or_default().read(&scope.epochs(), now_ms)
    }

    /// The keys of a scope that are told to others, at most so many.
    pub fn told_keys(&self, scope: u64, most: usize) -> Keys {
        self.spoken.get(&scope).map(|heard| heard.told(most)).unwrap_or_default()
    }

    /// Reads a scope and keeps the reading for the next time.
    pub fn news(&mut self, scope: &ScopeTally) -> Vec<EpochNews> {
        let before = self.last.remove(&scope.id()).unwrap_or_default();
        let mut kept = Vec::with_capacity(before.len());
        let mut news = Vec::with_capacity(before.len());
        for epoch in &scope.epochs() {
            let old = before.iter().find(|e| e.epoch == epoch.epoch);
            let arms = epoch.read();
            let first_bad_ms: Vec<_> = arms.iter().map(|arm| first_bad_ms(epoch, &arm.version)).collect();
            let run = |(arm, new): (&ArmReading, &Option<u64>)| {
                let known = old.and_then(|old| old.bad_since_ms(&arm.version));
                // A run that goes on keeps its beginning.
                known.filter(|known| new.is_none_or(|new| new.saturating_sub(*known) < RUN_MS)).or(*new)
            };
            let bad_since_ms = arms.iter().zip(&first_bad_ms).map(run).collect();
            let now = EpochReading { epoch: epoch.epoch, weights: epoch.weights.clone(), arms, bad_since_ms };
            news.extend(now.since(old, first_bad_ms));
            kept.push(now);
        }
        self.last.insert(scope.id(), kept);
        news
    }

    /// What a scope has counted, as far as it was read.
    pub fn of(&self, scope: u64) -> &[EpochReading] {
        self.last.get(&scope).map_or(&[], Vec::as_slice)
    }

    /// Forgets a scope that was let go.
    pub fn forget(&mut self, scope: u64) {
        self.last.remove(&scope);
        self.spoken.remove(&scope);
    }
}

impl EpochReading {
    /// What was added since an earlier reading of the epoch; none if nothing was.
    pub fn since(&self, before: Option<&Self>, first_bad_ms: Vec<Option<u64>>) -> Option<EpochNews> {
        let old = before.map_or(&[][..], |before| &before.arms);
        let arms: Vec<_> = self.arms.iter().map(|arm| difference(arm, old)).collect();
        let something = arms.iter().any(|arm| !is_empty(arm));
        let (epoch, weights, late) = (self.epoch, self.weights.clone(), false);
        something.then_some(EpochNews { epoch, weights, late, arms, first_bad_ms })
    }

    fn bad_since_ms(&self, version: &VersionName) -> Option<u64> {
        let place = self.arms.iter().position(|arm| arm.version == *version)?;
        self.bad_since_ms[place]
    }
}

impl EpochNews {
    /// Whether a version other than this one failed.
    pub fn fails_beside(&self, baseline: &VersionName) -> bool {
        self.arms.iter().any(|arm| arm.failures > 0 && arm.version != *baseline)
    }

    /// Lets only so many keys speak; what is used is taken away. Of `proxies` each may have met the same keys.
    pub fn speak_once(&mut self, new: &mut New, proxies: u64) {
        for arm in &mut self.arms {
            for (signal, counts) in (0u8..).zip(&mut arm.signals) {
                let left = new.entry((arm.version.clone(), signal)).or_default();
                let bad = counts.bad.min(*left);
                *left -= bad;
                *counts = SignalReading { n: counts.n.div_ceil(proxies).max(bad), bad };
            }
        }
    }

    /// Requests of all versions.
    pub fn requests(&self) -> u64 {
        self.arms.iter().map(|arm| arm.requests).sum()
    }
}

fn first_bad_ms(epoch: &EpochTally, version: &VersionName) -> Option<u64> {
    epoch.take_first_bad_us(version.as_str(), TallySignal::Error).map(|us| us / 1_000)
}

fn difference(now: &ArmReading, before: &[ArmReading]) -> ArmReading {
    let Some(old) = before.iter().find(|b| b.version == now.version) else { return now.clone() };
    let mut new = now.clone();
    new.requests = now.requests.saturating_sub(old.requests);
    new.failures = now.failures.saturating_sub(old.failures);
    new.routed = now.routed.saturating_sub(old.routed);
    for (n, o) in new.signals.iter_mut().zip(&old.signals) {
        n.n = n.n.saturating_sub(o.n);
        n.bad = n.bad.saturating_sub(o.bad);
    }
    new
}

fn is_empty(arm: &ArmReading) -> bool {
    arm.requests == 0 && arm.routed == 0 && arm.signals.iter().all(|s| s.n == 0 && s.bad == 0)
}

/// What the epochs add to the comparison of a canary with the baseline: batches, and the canary's requests and failures.
pub(super) fn since(
    epochs: &[EpochNews],
    baseline: &VersionName,
    canary: &VersionName,
    since: u64,
    client_errors: bool,
) -> (Vec<Batch>, (u64, u64)) {
    let counts = epochs.iter().map(|e| e.of(canary, since));
    let counted = counts.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    (epochs.iter().map(|e| e.batch(baseline, canary, since, client_errors)).collect(), counted)
}

impl EpochNews {
    /// What a comparison of two versions that began with the epoch `since` takes from this one. From earlier epochs only
    /// the baseline's part: requests that were on their way when the canary began belong to the comparison (rule R3), but
    /// what the canary did in an earlier attempt does not.
    pub fn batch(&self, baseline: &VersionName, canary: &VersionName, since: u64, client_errors: bool) -> Batch {
        let find = |version: &VersionName| self.arms.iter().find(|a| a.version == *version);
        let before = self.epoch < since;
        let (b, c) = (find(baseline), find(canary).filter(|_| !before));
        let raw =
            |arm: Option<&ArmReading>| arm.map_or_else(ArmCounts::default, |a| ArmCounts::new(a.requests, a.failures));
        let both = |signal: TallySignal| {
            let of = |arm: Option<&ArmReading>| {
                arm.map_or_else(ArmCounts::default, |a| ArmCounts::new(a.signal(signal).n, a.signal(signal).bad))
            };
            SignalCounts { baseline: of(b), canary: of(c) }
        };
        let signals = [
            (Signal::Error, TallySignal::Error),
            (Signal::Slow, TallySignal::Slow),
            (Signal::VerySlow, TallySignal::VerySlow),
            (Signal::ClientError, TallySignal::ClientError),
        ];
        let wanted = |s: &(Signal, TallySignal)| client_errors || s.0 != Signal::ClientError;
        let signals: Signals = signals.into_iter().filter(wanted).map(|(s, t)| (s, both(t))).collect();
        let at = self.arms.iter().position(|a| a.version == *canary);
        let routed = |arm: Option<&ArmReading>| arm.map_or(0, |a| a.routed);
        Batch {
            routed_share: if before { 0.0 } else { self.weights.share_between(baseline, canary) },
            requests: RawCounts { baseline: raw(b), canary: raw(c) },
            signals,
            coins: if before { (0, 0) } else { (routed(b), routed(c)) },
            first_canary_failure_ms: at.filter(|_| !before).and_then(|i| self.first_bad_ms[i]),
        }
    }

    /// Requests and failures of one version, unless the epoch is earlier than `since`.
    pub fn of(&self, version: &VersionName, since: u64) -> (u64, u64) {
        if self.epoch < since {
            return (0, 0);
        }
        let arm = self.arms.iter().find(|a| a.version == *version);
        arm.map_or((0, 0), |a| (a.requests, a.failures))
    }
}
