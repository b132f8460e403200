//! A split: slices of the bucket range, and how they change when the weights change.
//!
//! A key falls into one of 10 000 buckets and each version owns slices of that range. When weights change, versions
//! that shrink release buckets and versions that grow take them, so exactly half the sum of the absolute differences
//! moves, for any number of versions. For two versions this is `bucket < weight of the canary`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::names::VersionName;
use super::recall::Recalls;
use super::share::{BUCKETS, BasisPoints, Weights};
use super::unknown::Unknown;

/// One of the 10 000 places a key can fall into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Bucket(u16);

impl Bucket {
    /// Where the key falls under this salt: `floor(xxh3_64(key, seed = salt) · 10 000 / 2^64)`, the same in every process.
    pub fn of(key: &[u8], salt: u64) -> Self {
        Self::of_hash(xxh3_64_with_seed(key, salt))
    }

    /// Where an already uniform 64-bit number falls; for requests without a key.
    pub fn of_hash(hash: u64) -> Self {
        Self(((u128::from(hash) * u128::from(BUCKETS)) >> 64) as u16)
    }

    /// 0 to 9 999.
    pub fn index(self) -> u16 {
        self.0
    }
}

/// Consecutive buckets that belong to one version. A slice begins where the one before it ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// First bucket after this slice, 1 to 10 000.
    pub end: u16,
    /// Who owns the buckets.
    pub version: VersionName,
}

/// The slices of a split. Nearly every split has two, which are kept in the split itself, one look-up in memory less.
pub type Slices = SmallVec<[Slice; 2]>;

/// A share held back for a moment while evidence against the canary is being confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// The slices to return to when the brake is released.
    pub slices: Slices,
    /// Set when the scope has no split of its own: the attempt of the split it follows. A newer attempt there ends this brake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<u64>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What a rollback left behind, so that people see why a split stands as it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The version that lost its traffic.
    pub version: VersionName,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The event that tells the reason and the evidence.
    pub event: u64,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Which share of the keys each version gets, for one scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Revision at which the shares in effect were set, brakes included. Counts are kept per epoch.
    pub epoch: u64,
    /// Revision at which a person, a rollout or a rollback set the split. Evidence gathered under one attempt never touches another.
    pub attempt: u64,
    /// Seed of the key hash. Renewed only when one version has everything, so that nobody moves by it.
    pub salt: u64,
    /// Who owns which buckets.
    pub slices: Slices,
    /// Present while the canary's share is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake: Option<Box<Brake>>,
    /// Present after a rollback until the split is set again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// Rollbacks of this scope, for sessions that began before them.
    #[serde(default, skip_serializing_if = "Recalls::is_empty")]
    pub recalls: Recalls,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Split {
    /// A split that begins here: canaries by name from bucket 0, the baseline last.
    pub fn new(weights: &Weights, baseline: &VersionName, salt: u64, revision: u64) -> Self {
        let mut slices = Slices::new();
        let mut end = 0;
        let canaries = weights.iter().filter(|(v, _)| *v != baseline);
        let last = weights.iter().filter(|(v, _)| *v == baseline);
        for (version, share) in canaries.chain(last) {
            end += share.points();
            slices.push(Slice { end, version: version.clone() });
        }
        Self {
            epoch: revision,
            attempt: revision,
            salt,
            slices,
            brake: None,
            rolled_back: None,
            recalls: Recalls::default(),
            unknown: Default::default(),
        }
    }

    /// The owner of a bucket.
    pub fn version_at(&self, bucket: Bucket) -> &VersionName {
        let at = self.slices.partition_point(|s| s.end <= bucket.index());
        &self.slices[at.min(self.slices.len() - 1)].version
    }

    /// The shares in effect.
    pub fn weights(&self) -> Weights {
        weights_of(&self.slices)
    }

    /// The shares that were asked for: those in effect, or those held back by a brake.
    pub fn intended(&self) -> Weights {
        weights_of(self.brake.as_ref().map_or(&self.slices, |b| &b.slices))
    }

    /// The share of one version in effect.
    pub fn share(&self, version: &str) -> BasisPoints {
        share_in(&self.slices, version)
    }

    /// The split with other weights, moving as few keys as possible. Ends a brake. The salt is renewed when everything
    /// was on one version, so that not the same users go first each time.
    pub fn reweighted(&self, weights: &Weights, baseline: &VersionName, fresh_salt: u64, revision: u64) -> Self {
        if self.weights().sole().is_some() && self.brake.is_none() {
            let recalls = self.recalls.clone();
            return Self { recalls, ..Self::new(weights, baseline, fresh_salt, revision) };
        }
        Self {
            epoch: revision,
            attempt: revision,
            salt: self.salt,
            slices: move_buckets(&self.slices, weights),
            brake: None,
            rolled_back: None,
            recalls: self.recalls.clone(),
            unknown: Default::default(),
        }
    }

    /// The split with the canary's share held back to `share`; the baseline takes the rest. `None` when that would not
    /// lower the share.
    pub fn braked(
        &self,
        canary: &VersionName,
        baseline: &VersionName,
        share: BasisPoints,
        revision: u64,
    ) -> Option<Self> {
        let now = self.share(canary.as_str());
        if self.brake.is_some() || canary == baseline || share >= now {
            return None;
        }
        let given = now.points() - share.points();
        let mut wanted: Vec<_> =
            self.weights().iter().map(|(v, s)| (v.clone(), s)).filter(|(v, _)| v != canary && v != baseline).collect();
        wanted.push((canary.clone(), share));
        wanted.push((baseline.clone(), BasisPoints::new(self.share(baseline.as_str()).points() + given)?));
        let weights = Weights::new(wanted).ok()?;
        Some(Self {
            epoch: revision,
            slices: move_buckets(&self.slices, &weights),
            brake: Some(Box::new(Brake { slices: self.slices.clone(), follows: None, unknown: Default::default() })),
            ..self.clone()
        })
    }

    /// The split as it was before the brake; `None` when there is no brake.
    pub fn released(&self, revision: u64) -> Option<Self> {
        let brake = self.brake.as_ref()?;
        Some(Self { epoch: revision, slices: brake.slices.clone(), brake: None, ..self.clone() })
    }

    /// Whether a brake takes some of the version's share away now.
    pub fn holds_back(&self, version: &str) -> bool {
        self.brake.as_ref().is_some_and(|b| share_in(&self.slices, version) < share_in(&b.slices, version))
    }

    /// The attempt that the split follows while it is only a brake on what its scope inherits.
    pub fn follows(&self) -> Option<u64> {
        self.brake.as_ref().and_then(|b| b.follows)
    }

    /// Whether the split counts below this parent: always, unless it is only a brake on a split that was set again since.
    pub fn lasts_under(&self, parent: &Self) -> bool {
        self.follows().is_none_or(|attempt| attempt == parent.attempt)
    }

    /// Replaces each version's name by the copy of it in `names`, so that a million splits share a few names.
    pub(super) fn share_names(&mut self, names: &mut BTreeSet<VersionName>) {
        let held = self.brake.iter_mut().flat_map(|b| b.slices.iter_mut());
        for slice in self.slices.iter_mut().chain(held) {
            match names.get(slice.version.as_str()) {
                Some(shared) => slice.version = shared.clone(),
                None => drop(names.insert(slice.version.clone())),
            }
        }
    }

    /// How many buckets have another owner in the other split.
    pub fn moved_buckets(&self, other: &Self) -> usize {
        let (mut from, mut moved) = (0, 0);
        let (mut own, mut theirs) = (self.slices.iter().peekable(), other.slices.iter().peekable());
        while let (Some(a), Some(b)) = (own.peek(), theirs.peek()) {
            let (ends, end) = ((a.end, b.end), a.end.min(b.end));
            if a.version != b.version {
                moved += usize::from(end - from);
            }
            from = end;
            own.next_if(|_| ends.0 == end);
            theirs.next_if(|_| ends.1 == end);
        }
        moved
    }

    /// Whether the slices are as this module makes them: ascending, complete, none empty, of no more versions than
    /// weights can name. For data that was stored.
    pub fn is_sound(&self) -> bool {
        let sound = |slices: &[Slice]| {
            let mut from = 0;
            let ascending = slices.iter().all(|s| std::mem::replace(&mut from, s.end) < s.end);
            let versions: BTreeSet<_> = slices.iter().map(|s| &s.version).collect();
            ascending && from == BUCKETS && versions.len() <= Weights::MAX_VERSIONS
        };
        sound(&self.slices) && self.brake.as_ref().is_none_or(|b| sound(&b.slices))
    }
}

/// The salt of a new epoch: derived, so that every process and every replay of the history comes to the same one.
pub fn derive_salt(family: &str, revision: u64) -> u64 {
    xxh3_64(format!("{family}\u{0}{revision}").as_bytes())
}

fn share_in(slices: &[Slice], version: &str) -> BasisPoints {
    let mut from = 0;
    let mut points = 0;
    for slice in slices {
        if slice.version.as_str() == version {
            points += slice.end - from;
        }
        from = slice.end;
    }
    BasisPoints::new(points).unwrap_or(BasisPoints::ALL)
}

fn weights_of(slices: &[Slice]) -> Weights {
    let shares = slices.iter().map(|s| (s.version.clone(), share_in(slices, s.version.as_str())));
    Weights::new(shares).expect("slices cover the bucket range")
}

/// Versions that shrink release buckets, versions that grow take them. Neighbours trade across their border first, which
/// keeps two versions at two slices for ever; only what is left over is taken from the end of the range.
fn move_buckets(slices: &[Slice], weights: &Weights) -> Slices {
    let mut runs: Vec<(VersionName, u16)> = Vec::with_capacity(slices.len() + 2);
    let mut from = 0;
    for slice in slices {
        runs.push((slice.version.clone(), slice.end - from));
        from = slice.end;
    }
    let excess = |runs: &[(VersionName, u16)], v: &VersionName| -> i32 {
        let has: i32 = runs.iter().filter(|(o, _)| o == v).map(|(_, n)| i32::from(*n)).sum();
        has - i32::from(weights.share(v.as_str()).points())
    };
    while let Some((left, right, n)) = next_trade(&runs, &excess) {
        let (give, take) = if n > 0 { (left, right) } else { (right, left) };
        let n = n.unsigned_abs() as u16;
        runs[give].1 -= n;
        runs[take].1 += n;
        merge(&mut runs);
    }
    for (version, _) in weights.iter() {
        take_from_the_end(&mut runs, version, &excess);
    }
    let mut end = 0;
    runs.into_iter()
        .map(|(version, n)| {
            end += n;
            Slice { end, version }
        })
        .collect()
}

/// Two neighbours of which one must shrink and the other grow: `(left, right, buckets from left to right or, negative, back)`.
fn next_trade(
    runs: &[(VersionName, u16)],
    excess: &impl Fn(&[(VersionName, u16)], &VersionName) -> i32,
) -> Option<(usize, usize, i32)> {
    (1..runs.len()).find_map(|right| {
        let left = right - 1;
        let (a, b) = (excess(runs, &runs[left].0), excess(runs, &runs[right].0));
        if a > 0 && b < 0 {
            Some((left, right, a.min(-b).min(i32::from(runs[left].1))))
        } else if a < 0 && b > 0 {
            Some((left, right, -b.min(-a).min(i32::from(runs[right].1))))
        } else {
            None
        }
    })
}

fn take_from_the_end(
    runs: &mut Vec<(VersionName, u16)>,
    grows: &VersionName,
    excess: &impl Fn(&[(VersionName, u16)], &VersionName) -> i32,
) {
    loop {
        let need = -excess(runs, grows);
        if need <= 0 {
            return;
        }
        let Some(at) = (0..runs.len()).rev().find(|&i| excess(runs, &runs[i].0) > 0) else { return };
        let n = need.min(excess(runs, &runs[at].0)).min(i32::from(runs[at].1)) as u16;
        runs[at].1 -= n;
        runs.insert(at + 1, (grows.clone(), n));
        merge(runs);
    }
}

fn merge(runs: &mut Vec<(VersionName, u16)>) {
    runs.retain(|(_, n)| *n > 0);
    runs.dedup_by(|next, before| {
        let same = next.0 == before.0;
        if same {
            before.1 += next.1;
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(name: &str) -> VersionName {
        VersionName::new(name).unwrap()
    }

    fn weights(points: &[(&str, u16)]) -> Weights {
        Weights::new(points.iter().map(|(v, p)| (version(v), BasisPoints::new(*p).unwrap()))).unwrap()
    }

    /// Weights over up to five versions that add up to 10 000.
    fn any_weights() -> impl Strategy<Value = Weights> {
        proptest::collection::vec(0u16..=BUCKETS, 4).prop_map(|mut cuts| {
            cuts.sort_unstable();
            cuts.push(BUCKETS);
            let mut from = 0;
            let shares: Vec<_> = cuts
                .iter()
                .zip(["a", "b", "c", "d", "e"])
                .map(|(cut, v)| (v, std::mem::replace(&mut from, *cut).abs_diff(*cut)))
                .filter(|(_, p)| *p > 0)
                .collect();
            weights(&shares)
        })
    }

    fn half_of_differences(a: &Weights, b: &Weights) -> usize {
        let names = ["a", "b", "c", "d", "e"];
        names.iter().map(|v| usize::from(a.share(v).points().abs_diff(b.share(v).points()))).sum::<usize>() / 2
    }

    #[test]
    fn two_versions_are_bucket_below_weight() {
        let base = version("1");
        let mut split = Split::new(&weights(&[("1", 9_000), ("2", 1_000)]), &base, 7, 1);
        for points in [1_000, 1, 9_999, 5_000, 2_500, 0, 10_000, 100] {
            split = split.reweighted(
                &Weights::new([
                    (base.clone(), BasisPoints::new(BUCKETS - points).unwrap()),
                    (version("2"), BasisPoints::new(points).unwrap()),
                ])
                .unwrap(),
                &base,
                8,
                2,
            );
            assert!(split.slices.len() <= 2 && split.is_sound());
            for index in [0, points.saturating_sub(1), points.min(9_999), 9_999] {
                let wanted = if index < points { "2" } else { "1" };
                assert_eq!(split.version_at(Bucket(index)).as_str(), wanted, "{points} {index}");
            }
        }
    }

    #[test]
    fn buckets_are_the_same_in_every_process() {
        assert_eq!(Bucket::of(b"user-1", 0), Bucket::of_hash(xxh3_64(b"user-1")));
        assert_eq!(Bucket::of(b"alice", 42).index(), 4_989);
        assert_eq!(Bucket::of(b"", u64::MAX).index(), Bucket::of(b"", u64::MAX).index());
        assert_eq!(Bucket::of_hash(u64::MAX).index(), BUCKETS - 1);
        assert_eq!(Bucket::of_hash(0).index(), 0);
    }

    #[test]
    fn a_fresh_salt_only_when_nobody_moves() {
        let base = version("1");
        let whole = Split::new(&Weights::all_on(base.clone()), &base, 7, 1);
        let begun = whole.reweighted(&weights(&[("1", 9_000), ("2", 1_000)]), &base, 8, 2);
        assert_eq!(begun.salt, 8);
        let grown = begun.reweighted(&weights(&[("1", 5_000), ("2", 5_000)]), &base, 9, 3);
        assert_eq!(grown.salt, 8);
    }

    #[test]
    fn a_brake_holds_back_and_gives_back() {
        let base = version("1");
        let split = Split::new(&weights(&[("1", 5_000), ("2", 5_000)]), &base, 7, 1);
        let braked = split.braked(&version("2"), &base, BasisPoints::new(500).unwrap(), 2).unwrap();
        assert_eq!(braked.weights().share("2").points(), 500);
        assert_eq!(braked.intended(), split.weights());
        assert_eq!((braked.epoch, braked.attempt), (2, 1));
        assert!(braked.braked(&version("2"), &base, BasisPoints::ZERO, 3).is_none(), "a brake is not braked again");
        let released = braked.released(3).unwrap();
        assert_eq!((released.slices.clone(), released.epoch, released.attempt), (split.slices.clone(), 3, 1));
        assert!(split.braked(&base, &base, BasisPoints::ZERO, 2).is_none());
    }

    proptest! {
        /// Exactly half the sum of the absolute differences moves, and only towards versions that grow.
        #[test]
        fn as_few_keys_as_possible_move(steps in proptest::collection::vec(any_weights(), 2..8)) {
            let base = version("a");
            let mut split = Split::new(&steps[0], &base, 3, 1);
            for (i, next) in steps.iter().enumerate().skip(1) {
                let before = split.weights();
                prop_assume!(before.sole().is_none());
                let after = split.reweighted(next, &base, 4, i as u64 + 1);
                prop_assert!(after.is_sound());
                prop_assert_eq!(&after.weights(), next);
                prop_assert_eq!(split.moved_buckets(&after), half_of_differences(&before, next));
                for bucket in (0..BUCKETS).map(Bucket) {
                    let (from, to) = (split.version_at(bucket), after.version_at(bucket));
                    if from != to {
                        prop_assert!(next.share(to.as_str()) > before.share(to.as_str()), "moved to a version that does not grow");
                        prop_assert!(next.share(from.as_str()) < before.share(from.as_str()));
                    }
                }
                split = after;
            }
        }

        /// The share of keys equals the weight within the binomial error (five standard deviations).
        #[test]
        fn the_share_of_keys_is_the_weight(points in prop_oneof![Just(0u16), Just(1), Just(100), Just(9_999), Just(10_000), 0u16..=10_000], salt: u64) {
            let keys = 20_000u32;
            let n = (0..keys).filter(|k| Bucket::of(format!("user-{k}").as_bytes(), salt).index() < points).count() as f64;
            let p = f64::from(points) / f64::from(BUCKETS);
            let error = (f64::from(keys) * p * (1.0 - p)).sqrt();
            prop_assert!((n - f64::from(keys) * p).abs() <= 5.0 * error + 1e-9, "{n} of {keys} at {p}");
        }
    }
}
