//! What rollbacks mean to sessions: which versions a scope was taken back from, and when.
//!
//! A split forgets its rollback when it is set again, and rightly so. A session's cookie, though, may have slept through
//! all of that and would lead its user back to the version that was taken away. So the split remembers the revision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::VersionName;

/// Versions that lost a scope's traffic by a rollback, each with the revision of the last one. Costs a pointer while
/// there are none, as nearly everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[expect(clippy::box_collection, reason = "a map takes three words in each of a million splits, a box one")]
pub struct Recalls(Option<Box<BTreeMap<VersionName, u64>>>);

impl Recalls {
    /// How many versions are remembered: more than a scope rolls back within the longest life of a session's cookie.
    const MAX: usize = 16;

    /// Whether nothing was ever rolled back.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The version lost its traffic at this revision. The oldest rollback is forgotten when there are too many.
    pub(super) fn note(&mut self, version: &VersionName, revision: u64) {
        let all = self.0.get_or_insert_default();
        all.insert(version.clone(), revision);
        if all.len() > Self::MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, r)| **r).map(|(v, _)| v.clone())
        {
            all.remove(&oldest);
        }
    }

    /// Whether what began under this attempt on this version was ended by a rollback since.
    pub fn ended(&self, version: &VersionName, attempt: u64) -> bool {
        self.0.as_ref().and_then(|all| all.get(version)).is_some_and(|revision| attempt <= *revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_is_over_and_what_began_later_is_not() {
        let [a, b] = ["a", "b"].map(|v| VersionName::new(v).unwrap());
        let mut recalls = Recalls::default();
        assert!(recalls.is_empty() && !recalls.ended(&a, 0));
        recalls.note(&a, 7);
        assert!(recalls.ended(&a, 3) && recalls.ended(&a, 7) && !recalls.ended(&a, 8) && !recalls.ended(&b, 3));
        recalls.note(&a, 9);
        assert!(recalls.ended(&a, 8));
        assert_eq!(serde_json::to_string(&recalls).unwrap(), r#"{"a":9}"#);
        assert_eq!(serde_json::from_str::<Recalls>(r#"{"a":9}"#).unwrap(), recalls);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut recalls = Recalls::default();
        let name = |n: u64| VersionName::new(&format!("v{n}")).unwrap();
        (1..=20).for_each(|n| recalls.note(&name(n), n));
        assert!(!recalls.ended(&name(4), 1) && recalls.ended(&name(5), 1) && recalls.ended(&name(20), 1));
    }
}
