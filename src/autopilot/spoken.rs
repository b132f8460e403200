//! Each user speaks once, however many proxies the requests come to: keys that spoke against a version are told with the
//! counts, and of those that several proxies tell the judge takes the first.
//!
//! Without that a user whose requests fail wherever they go would be counted once at each proxy, as several users with the
//! same coin; the analysis room's specification (rule R4) has what becomes of the error probability then.

use std::collections::{HashMap, VecDeque};

use super::evidence::EpochNews;
use crate::model::VersionName;
use crate::telemetry::{BadKey, EpochTally, KeySet, TallySignal};

/// How long a key is told, in milliseconds: longer than a note may be late among proxies that hear each other.
const TOLD_MS: u64 = 15_000;
/// Keys of one scope that are told at a time; the newest, whatever they spoke against.
const TOLD: usize = 512;

/// Keys that spoke in an attempt of a split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub attempt: u64,
    pub keys: Vec<BadKey>,
}

/// The keys of one scope at this proxy.
#[derive(Default)]
pub(super) struct Heard {
    attempt: u64,
    /// Where to read on.
    from: u64,
    last: VecDeque<(u64, BadKey)>,
}

impl Heard {
    /// Reads what is new in the newest attempt of a scope.
    pub fn read(&mut self, epochs: &[std::sync::Arc<EpochTally>], now_ms: u64) -> Keys {
        let Some(newest) = epochs.last() else { return Keys::default() };
        if newest.attempt != self.attempt {
            *self = Self { attempt: newest.attempt, ..Self::default() };
        }
        let (keys, from) = newest.bad_keys(self.from);
        self.from = from;
        self.last.extend(keys.iter().map(|key| (now_ms, key.clone())));
        let extra = self.last.len().saturating_sub(TOLD);
        self.last.drain(..extra);
        while self.last.front().is_some_and(|(at, _)| now_ms.saturating_sub(*at) > TOLD_MS) {
            self.last.pop_front();
        }
        Keys { attempt: self.attempt, keys }
    }

    /// What is told to others: the newest, whatever they spoke against.
    pub fn told(&self, most: usize) -> Keys {
        let newest = self.last.iter().skip(self.last.len().saturating_sub(most));
        Keys { attempt: self.attempt, keys: newest.map(|(_, key)| key.clone()).collect() }
    }
}

/// Who has spoken in a scope, at whichever proxy.
#[derive(Default)]
pub(super) struct Spoken {
    attempt: u64,
    sets: [KeySet; TallySignal::COUNT],
}

/// How many keys spoke for the first time, by version and signal.
pub(super) type New = HashMap<(VersionName, u8), u64>;

impl Spoken {
    /// Which of these keys speak for the first time.
    pub fn first(&mut self, attempt: u64, told: &[Keys]) -> New {
        if self.attempt != attempt {
            *self = Self { attempt, ..Self::default() };
        }
        let mut new = New::new();
        for key in told.iter().filter(|keys| keys.attempt == attempt).flat_map(|keys| &keys.keys) {
            let Some(set) = self.sets.get(usize::from(key.signal)) else { continue };
            if set.is_full() {
                set.clear();
            }
            if set.insert(key.key) {
                *new.entry((key.version.clone(), key.signal)).or_default() += 1;
            }
        }
        new
    }
}

/// Takes from the counts what was said before. All proxies together met at least as many users as their counts come to,
/// divided by how many proxies there are.
pub(super) fn speak_once(epochs: &mut [EpochNews], mut new: New, proxies: usize) {
    for epoch in epochs.iter_mut().rev() {
        epoch.speak_once(&mut new, proxies.max(1) as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{BasisPoints, Split, Weights};
    use crate::telemetry::{ArmReading, SignalReading};

    fn version(name: &str) -> VersionName {
        VersionName::new(name).unwrap()
    }

    fn keys(attempt: u64, keys: &[u64]) -> Keys {
        let key = |key: &u64| BadKey { version: version("2"), signal: 0, key: *key };
        Keys { attempt, keys: keys.iter().map(key).collect() }
    }

    proptest! {
        #[test]
        fn a_key_speaks_once_whoever_tells_it_and_however_often(told in proptest::collection::vec(proptest::collection::vec(1..16u64, 0..8), 0..12)) {
            let mut spoken = Spoken::default();
            let sum: u64 = told.iter().map(|told| spoken.first(3, &[keys(3, told)]).values().sum::<u64>()).sum();
            let distinct: std::collections::BTreeSet<_> = told.iter().flatten().collect();
            prop_assert_eq!(sum, distinct.len() as u64);
        }
    }

    #[test]
    fn another_attempt_is_another_coin_and_what_is_told_of_the_one_before_is_over() {
        let mut spoken = Spoken::default();
        assert_eq!(spoken.first(3, &[keys(3, &[7, 8])]).values().sum::<u64>(), 2);
        assert!(spoken.first(4, &[keys(3, &[9])]).is_empty());
        assert_eq!(spoken.first(4, &[keys(4, &[7])]).values().sum::<u64>(), 1);
    }

    #[test]
    fn three_proxies_that_meet_the_same_failing_user_count_one() {
        let arm = |name: &str, n: u64, bad: u64| ArmReading {
            version: version(name),
            routed: n,
            requests: n,
            failures: bad,
            signals: std::array::from_fn(|i| if i == 0 { SignalReading { n, bad } } else { SignalReading::default() }),
        };
        let half = BasisPoints::new(5_000).unwrap();
        let weights = Weights::new([(version("1"), half), (version("2"), half)]).unwrap();
        let attempt = Split::new(&weights, &version("1"), 1, 5).attempt;
        let reading = super::super::evidence::EpochReading {
            epoch: 5,
            weights,
            arms: vec![arm("1", 30, 0), arm("2", 30, 1)],
            bad_since_ms: vec![None, None],
        };
        let mut epochs: Vec<_> = (0..3).filter_map(|_| reading.since(None, vec![None, None])).collect();
        let mut spoken = Spoken::default();
        let told = [keys(attempt, &[42]), keys(attempt, &[42]), keys(attempt, &[42])];
        let new = spoken.first(attempt, &told);
        speak_once(&mut epochs, new, 3);
        let (batches, (_, failed)) = super::super::evidence::since(&epochs, &version("1"), &version("2"), 0, false);
        let bad = |signals: &crate::analysis::Signals| signals.as_slice()[0].1.canary;
        assert_eq!(batches.iter().map(|batch| bad(&batch.signals).bad).sum::<u64>(), 1);
        assert_eq!(batches.iter().map(|batch| bad(&batch.signals).n).sum::<u64>(), 30);
        assert_eq!(failed, 3, "each of the requests failed all the same");
    }
}
