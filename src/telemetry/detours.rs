//! Requests that another version answered than the one they were routed to: rescues, and assets looked for elsewhere.
//!
//! They are counted apart from the requests of either version: for the version they were routed to, the request counts as
//! what it came to there; for the one that answered it counts only here, since nobody drew it by chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::model::VersionName;

/// What a request that failed on the canary came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescue {
    /// The baseline answered it.
    Saved,
    /// The baseline failed it too, or no time was left.
    Failed,
    /// The baseline had taken over as many as it may.
    OverBudget,
    /// It may have had an effect already, so it was not sent again.
    NotSafe,
    /// Its body was too large to be kept.
    TooLarge,
}

impl Rescue {
    /// Every result, in the order of its index.
    pub const ALL: [Self; 5] = [Self::Saved, Self::Failed, Self::OverBudget, Self::NotSafe, Self::TooLarge];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Saved => "saved",
            Self::Failed => "failed",
            Self::OverBudget => "over_budget",
            Self::NotSafe => "not_safe",
            Self::TooLarge => "too_large",
        }
    }
}

/// Cumulative counts from one version to another.
#[derive(Debug, Default)]
pub struct DetourCounts {
    rescues: [AtomicU64; Rescue::ALL.len()],
    skew_found: AtomicU64,
    skew_missing: AtomicU64,
}

impl DetourCounts {
    /// A request that failed came to this.
    pub fn rescue(&self, result: Rescue) {
        self.rescues[result as usize].fetch_add(1, Relaxed);
    }

    /// An asset that one version did not have was looked for at the other.
    pub fn skew(&self, found: bool) {
        let count = if found { &self.skew_found } else { &self.skew_missing };
        count.fetch_add(1, Relaxed);
    }

    /// How many requests came to this.
    pub fn rescues(&self, result: Rescue) -> u64 {
        self.rescues[result as usize].load(Relaxed)
    }

    /// How many assets were found at the other version, and how many there neither.
    pub fn skews(&self) -> (u64, u64) {
        (self.skew_found.load(Relaxed), self.skew_missing.load(Relaxed))
    }
}

/// From which version, to which, and how often.
pub type Detour = (VersionName, VersionName, Arc<DetourCounts>);

/// The counts of one service: a short list that is replaced as a whole when a pair of versions comes or goes.
#[derive(Default)]
pub(super) struct Detours {
    list: ArcSwap<Vec<Detour>>,
}

impl Detours {
    /// The counts of a pair of versions, made on first use.
    pub(super) fn between(&self, from: &VersionName, to: &VersionName) -> Arc<DetourCounts> {
        let find = |list: &[Detour]| list.iter().find(|(f, t, _)| f == from && t == to).map(|(.., c)| c.clone());
        if let Some(counts) = find(&self.list.load()) {
            return counts;
        }
        let fresh = Arc::new(DetourCounts::default());
        let before = self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            if find(&list).is_none() {
                list.push((from.clone(), to.clone(), fresh.clone()));
            }
            list
        });
        find(&before).unwrap_or(fresh)
    }

    pub(super) fn forget(&self, version: &VersionName) {
        let stays = |(from, to, _): &&Detour| from != version && to != version;
        self.list.rcu(|list| list.iter().filter(stays).cloned().collect::<Vec<_>>());
    }

    pub(super) fn list(&self) -> Arc<Vec<Detour>> {
        self.list.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_know_their_place() {
        for (i, result) in Rescue::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, i);
        }
    }

    #[test]
    fn pairs_are_kept_apart_and_forgotten() {
        let [one, two, three] = ["1", "2", "3"].map(|v| VersionName::new(v).unwrap());
        let detours = Detours::default();
        detours.between(&two, &one).rescue(Rescue::Saved);
        detours.between(&two, &one).rescue(Rescue::Saved);
        detours.between(&three, &one).skew(true);
        assert_eq!(detours.between(&two, &one).rescues(Rescue::Saved), 2);
        assert_eq!(detours.between(&one, &two).rescues(Rescue::Saved), 0);
        assert_eq!(detours.between(&three, &one).skews(), (1, 0));
        detours.forget(&two);
        assert_eq!(detours.list().len(), 1);
    }
}
