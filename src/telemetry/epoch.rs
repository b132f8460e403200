//! The evidence of one split epoch: what each version did with the requests that were routed under its shares.
//!
//! Requests are booked on the epoch they were routed under, however late they end (rule R3 of the analysis room's
//! specification): a version that fails at once would otherwise look worse than one that fails by a slow timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::keys::{KeySet, mix};
use super::spoken::{Spoken, Word};
use crate::model::{Split, VersionName, Weights};

/// What can be bad about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TallySignal {
    /// The backend failed.
    Error,
    /// Slower than the baseline's 90th percentile.
    Slow,
    /// Slower than the baseline's 99th percentile.
    VerySlow,
    /// Answered with 4xx.
    ClientError,
}

impl TallySignal {
    /// How many signals there are.
    pub const COUNT: usize = 4;

    /// Every signal, in the order of its index.
    pub const ALL: [Self; Self::COUNT] = [Self::Error, Self::Slow, Self::VerySlow, Self::ClientError];

    /// The name, the same as in the analysis room.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Slow => "slow",
            Self::VerySlow => "very_slow",
            Self::ClientError => "client_error",
        }
    }

    /// Its place in [`TallySignal::ALL`] and in [`ArmReading::signals`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What one scope saw under one epoch of a split.
pub struct EpochTally {
    /// The split's epoch.
    pub epoch: u64,
    /// The split's attempt: keys are counted once per attempt.
    pub attempt: u64,
    /// The shares under which the requests were routed.
    pub weights: Weights,
    arms: Box<[ArmTally]>,
    keys: Arc<AttemptKeys>,
    /// Microseconds, about a second behind: when a request was last routed under this epoch.
    last_begun_us: AtomicU64,
}

/// What one version did under one epoch.
pub(super) struct ArmTally {
    version: VersionName,
    pub(super) is_baseline: AtomicBool,
    /// Coins that fell on this version: requests, or keys when keys are sticky. Counted when they fall, because a
    /// version that is slow to answer would otherwise seem to get less than its share.
    routed: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    signals: [SignalTally; TallySignal::COUNT],
    /// None while one version has everything: nothing is compared, so nothing needs to be remembered.
    keys: Option<Arc<ArmKeys>>,
}

struct SignalTally {
    n: AtomicU64,
    bad: AtomicU64,
    /// `u64::MAX`: none.
    first_bad_us: AtomicU64,
}

/// The keys of one attempt, shared by its epochs: a brake does not let a key speak twice.
pub(super) struct AttemptKeys {
    attempt: u64,
    arms: Box<[(VersionName, Arc<ArmKeys>)]>,
    spoken: Arc<Spoken>,
}

/// Which keys one version has met: routed, timed, and for each signal those that were bad.
#[derive(Default)]
pub(super) struct ArmKeys {
    routed: KeySet,
    timed: KeySet,
    bad: [KeySet; TallySignal::COUNT],
    /// Its place among the versions of the attempt.
    place: u8,
    spoken: Arc<Spoken>,
}

/// A key that spoke against a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadKey {
    /// The version.
    pub version: VersionName,
    /// By [`TallySignal::index`].
    pub signal: u8,
    /// 40 bits that are the same at every proxy.
    pub key: u64,
}

impl EpochTally {
    /// A tally for this split; `same_attempt` is that of another epoch of the same attempt, if there is one.
    pub(super) fn new(split: &Split, same_attempt: Option<&Self>, baseline: Option<&VersionName>, now_us: u64) -> Self {
        let weights = split.weights();
        let keys = same_attempt
            .filter(|other| other.attempt == split.attempt && weights.iter().all(|(v, _)| other.keys.of(v).is_some()))
            .map_or_else(|| Arc::new(AttemptKeys::new(split, &weights)), |other| other.keys.clone());
        let compares = weights.sole().is_none();
        let arms = weights
            .iter()
            .map(|(v, _)| ArmTally::new(v, baseline == Some(v), keys.of(v).filter(|_| compares)))
            .collect();
        Self { epoch: split.epoch, attempt: split.attempt, weights, arms, keys, last_begun_us: AtomicU64::new(now_us) }
    }

    /// Whether more than one version has a share.
    pub fn compares(&self) -> bool {
        self.arms.len() > 1
    }

    /// The cumulative numbers now, one entry per version of the split, by name.
    pub fn read(&self) -> Vec<ArmReading> {
        self.arms.iter().map(ArmTally::read).collect()
    }

    /// When this signal was first bad on this version since the last call, in microseconds of the caller's clock.
    pub fn take_first_bad_us(&self, version: &str, signal: TallySignal) -> Option<u64> {
        let arm = self.arms.iter().find(|a| a.version.as_str() == version)?;
        Some(arm.signals[signal.index()].first_bad_us.swap(u64::MAX, Relaxed)).filter(|us| *us != u64::MAX)
    }

    /// The keys that spoke against a version in this attempt from this turn on, and the turn to ask for next. Each key
    /// speaks once for each signal.
    pub fn bad_keys(&self, from: u64) -> (Vec<BadKey>, u64) {
        let (words, next) = self.keys.spoken.since(from);
        let key = |word: Word| {
            let (version, _) = self.keys.arms.get(usize::from(word.arm))?;
            Some(BadKey { version: version.clone(), signal: word.signal, key: word.key })
        };
        (words.into_iter().filter_map(key).collect(), next)
    }

    pub(super) fn arm_of(&self, version: &VersionName) -> Option<usize> {
        self.arms.iter().position(|a| a.version == *version)
    }

    pub(super) fn arm(&self, index: usize) -> &ArmTally {
        &self.arms[index]
    }

    pub(super) fn set_baseline(&self, baseline: &VersionName) {
        for arm in &self.arms {
            arm.is_baseline.store(arm.version == *baseline, Relaxed);
        }
    }

    /// Notes that a request was routed under this epoch. Written about once a second, so that the cores need not pass
    /// the cache line around.
    pub(super) fn begun(&self, now_us: u64) {
        if now_us.saturating_sub(self.last_begun_us.load(Relaxed)) > 1_000_000 {
            self.last_begun_us.store(now_us, Relaxed);
        }
    }

    pub(super) fn idle_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.last_begun_us.load(Relaxed))
    }

    /// When a set of keys is full, the sets of that signal begin anew on all versions alike. By then hundreds of
    /// thousands of keys have spoken, and what chance remains in them is far below any margin of the tests.
    pub(super) fn renew_full_keys(&self) {
        self.keys.renew_full();
    }
}

impl ArmTally {
    fn new(version: &VersionName, is_baseline: bool, keys: Option<&Arc<ArmKeys>>) -> Self {
        Self {
            version: version.clone(),
            is_baseline: AtomicBool::new(is_baseline),
            routed: AtomicU64::default(),
            requests: AtomicU64::default(),
            failures: AtomicU64::default(),
            signals: std::array::from_fn(|_| SignalTally::new()),
            keys: keys.cloned(),
        }
    }

    /// Books that a coin fell on this version, and tells whether it did: a key's coin falls once per attempt. Looking the
    /// key up is the dearest part of counting, so whoever asks here remembers the answer for [`ended`](Self::ended).
    pub(super) fn routed(&self, key: Option<u64>) -> bool {
        let Some(keys) = &self.keys else { return true };
        let fell = key.is_none_or(|key| keys.routed.insert(key));
        if fell {
            self.routed.fetch_add(1, Relaxed);
        }
        fell
    }

    /// Books the end of a request that the version served or failed.
    pub(super) fn ended(&self, failed: bool, client_error: bool, key: Option<u64>, coin: bool, now_us: u64) {
        self.requests.fetch_add(1, Relaxed);
        if failed {
            self.failures.fetch_add(1, Relaxed);
        }
        if coin {
            self.signal(TallySignal::Error).n.fetch_add(1, Relaxed);
            self.signal(TallySignal::ClientError).n.fetch_add(1, Relaxed);
        }
        if failed {
            self.bad(TallySignal::Error, key, now_us);
        }
        if client_error {
            self.bad(TallySignal::ClientError, key, now_us);
        }
    }

    /// Books that these signals of a request were decided; a key counts once per attempt. One look-up for both.
    pub(super) fn timed(&self, signals: impl Iterator<Item = TallySignal>, key: Option<u64>) {
        let known = key.zip(self.keys.as_ref()).is_some_and(|(key, keys)| !keys.timed.insert(key));
        if !known {
            signals.for_each(|signal| _ = self.signal(signal).n.fetch_add(1, Relaxed));
        }
    }

    /// Books that a request was slow.
    pub(super) fn slow(&self, signal: TallySignal, key: Option<u64>, now_us: u64) {
        self.bad(signal, key, now_us);
    }

    fn signal(&self, signal: TallySignal) -> &SignalTally {
        &self.signals[signal.index()]
    }

    fn bad(&self, signal: TallySignal, key: Option<u64>, now_us: u64) {
        let new = match (key, &self.keys) {
            (Some(key), Some(keys)) => keys.bad[signal.index()].insert(key),
            _ => true,
        };
        if new {
            if let Some(keys) = &self.keys {
                keys.speak(signal, key, now_us);
            }
            let tally = self.signal(signal);
            tally.bad.fetch_add(1, Relaxed);
            if tally.first_bad_us.load(Relaxed) > now_us {
                tally.first_bad_us.fetch_min(now_us, Relaxed);
            }
        }
    }

    /// Bad before n, and n at least bad: the tests take logarithms of what is left and must never see more bad than all.
    fn read(&self) -> ArmReading {
        let failures = self.failures.load(Relaxed);
        let signals = std::array::from_fn(|i| {
            let bad = self.signals[i].bad.load(Relaxed);
            SignalReading { bad, n: self.signals[i].n.load(Relaxed).max(bad) }
        });
        let requests = self.requests.load(Relaxed).max(failures);
        let routed = self.routed.load(Relaxed);
        ArmReading { version: self.version.clone(), routed, requests, failures, signals }
    }
}

impl SignalTally {
    fn new() -> Self {
        Self { n: AtomicU64::new(0), bad: AtomicU64::new(0), first_bad_us: AtomicU64::new(u64::MAX) }
    }
}

impl ArmKeys {
    fn speak(&self, signal: TallySignal, key: Option<u64>, now_us: u64) {
        // Who has no key is nobody that anyone else has met.
        let nobody = || std::ptr::from_ref(self) as u64 ^ (now_us << 20) ^ self.spoken.turns();
        self.spoken.add(self.place, signal, mix(key.unwrap_or_else(nobody)));
    }
}

impl AttemptKeys {
    /// Sets for every version that the attempt may send keys to: those in effect and those a brake holds back.
    fn new(split: &Split, weights: &Weights) -> Self {
        let mut arms: Vec<(VersionName, Arc<ArmKeys>)> = Vec::new();
        let spoken = Arc::<Spoken>::default();
        let intended = split.intended();
        for (version, _) in weights.iter().chain(intended.iter()) {
            if !arms.iter().any(|(v, _)| v == version) {
                let (place, spoken) = (arms.len() as u8, spoken.clone());
                arms.push((version.clone(), Arc::new(ArmKeys { place, spoken, ..ArmKeys::default() })));
            }
        }
        Self { attempt: split.attempt, arms: arms.into_boxed_slice(), spoken }
    }

    fn of(&self, version: &VersionName) -> Option<&Arc<ArmKeys>> {
        self.arms.iter().find(|(v, _)| v == version).map(|(_, keys)| keys)
    }

    fn renew_full(&self) {
        let of: [fn(&ArmKeys) -> &KeySet; 2] = [|keys| &keys.routed, |keys| &keys.timed];
        for set in of {
            if self.arms.iter().any(|(_, keys)| set(keys).is_full()) {
                self.arms.iter().for_each(|(_, keys)| set(keys).clear());
            }
        }
        for signal in 0..TallySignal::COUNT {
            let bad = |keys: &ArmKeys| keys.bad[signal].is_full();
            if self.arms.iter().any(|(_, keys)| bad(keys)) {
                ::tracing::debug!(attempt = self.attempt, signal, "the keys of a signal begin anew");
                self.arms.iter().for_each(|(_, keys)| keys.bad[signal].clear());
            }
        }
    }
}

/// Cumulative numbers of one version under one epoch at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmReading {
    /// The version.
    pub version: VersionName,
    /// Coins that fell on it: requests, or distinct keys when keys are sticky; 0 while one version has everything.
    pub routed: u64,
    /// Requests that the version served or failed, each one.
    pub requests: u64,
    /// Those that it failed, each one.
    pub failures: u64,
    /// By [`TallySignal::index`]; each key counts once where keys stay on their version.
    pub signals: [SignalReading; TallySignal::COUNT],
}

impl ArmReading {
    /// The numbers of one signal.
    pub fn signal(&self, signal: TallySignal) -> SignalReading {
        self.signals[signal.index()]
    }
}

/// How many of how many were bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalReading {
    /// All that were judged.
    pub n: u64,
    /// The bad ones; at most `n`.
    pub bad: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BasisPoints;

    #[test]
    fn full_key_sets_begin_anew_on_all_versions_alike() {
        let half = BasisPoints::new(5_000).unwrap();
        let [one, two] = ["1", "2"].map(|v| VersionName::new(v).unwrap());
        let weights = Weights::new([(one.clone(), half), (two.clone(), half)]).unwrap();
        let epoch = EpochTally::new(&Split::new(&weights, &one, 7, 1), None, Some(&one), 0);
        let fail = |arm: usize, key: u64| epoch.arm(arm).ended(true, false, Some(key), true, 1);
        let bad = |arm: usize| epoch.read()[arm].signal(TallySignal::Error).bad;
        fail(1, 0);
        (0..300_000).for_each(|key| fail(0, key));
        epoch.renew_full_keys();
        fail(1, 0);
        assert_eq!(bad(1), 1, "there is still room");
        (300_000..360_000).for_each(|key| fail(0, key));
        epoch.renew_full_keys();
        let before = bad(0);
        assert!((353_000..=360_000).contains(&before), "{before}");
        fail(0, 0);
        fail(1, 0);
        assert_eq!((bad(0), bad(1)), (before + 1, 2));
    }
}
