//! What the last commits changed, as the manifest tells it: enough for a process that is a few commits behind.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::layout::Manifest;

/// Of how many commits the manifest tells what they changed, and with how many bytes: every write writes it again.
const RECENT: usize = 32;
const RECENT_BYTES: usize = 6 << 10;

/// Which documents the last commits wrote or removed, those of the archive left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// Revision of the state before the first of the commits.
    pub after: u64,
    /// Revisions and keys, the latest commit at the end.
    pub commits: VecDeque<(u64, Vec<String>)>,
}

impl Recent {
    /// Revision of the state that it leads to.
    fn until(&self) -> u64 {
        self.commits.back().map_or(self.after, |(revision, _)| *revision)
    }

    /// Adds a commit, and forgets the first ones when they are too many.
    fn add(&mut self, revision: u64, keys: Vec<String>) {
        self.commits.push_back((revision, keys));
        while self.commits.len() > RECENT || self.size() > RECENT_BYTES {
            let Some((revision, _)) = self.commits.pop_front() else { return };
            self.after = revision;
        }
    }

    fn size(&self) -> usize {
        self.commits.iter().flat_map(|(_, keys)| keys).map(|key| key.len() + 3).sum()
    }
}

impl Manifest {
    /// Notes a commit that changed these documents; none: too many to name.
    pub fn committed(&mut self, revision: u64, keys: Option<Vec<String>>) {
        // Another release may have committed and left the list as it was.
        let known = self.recent.take().filter(|recent| recent.until() == self.revision);
        let mut recent = known.unwrap_or(Recent { after: self.revision, commits: VecDeque::new() });
        match keys {
            Some(keys) => recent.add(revision, keys),
            None => recent = Recent { after: revision, commits: VecDeque::new() },
        }
        self.recent = Some(recent);
        self.revision = revision;
    }

    /// The documents that were written or removed after a revision, when the manifest knows all of them.
    pub fn changed_since(&self, revision: u64) -> Option<BTreeSet<&String>> {
        if revision == self.revision {
            return Some(BTreeSet::new());
        }
        let recent = self.recent.as_ref().filter(|recent| recent.until() == self.revision)?;
        let later = recent.commits.iter().filter(|(at, _)| *at > revision);
        (recent.after..self.revision).contains(&revision).then(|| later.flat_map(|(_, keys)| keys).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_knows_what_the_last_commits_changed() {
        let mut manifest = Manifest::default();
        let changed = |manifest: &Manifest, revision| {
            manifest.changed_since(revision).map(|keys| keys.into_iter().cloned().collect::<Vec<_>>())
        };
        manifest.committed(2, Some(vec!["b".to_owned()]));
        manifest.committed(5, Some(vec!["a".to_owned(), "b".to_owned()]));
        let [a, b] = ["a", "b"].map(str::to_owned);
        assert_eq!(changed(&manifest, 5), Some(vec![]));
        assert_eq!(changed(&manifest, 4), Some(vec![a.clone(), b.clone()]));
        assert_eq!(changed(&manifest, 0), Some(vec![a, b]));
        assert_eq!(changed(&manifest, 6), None, "not yet");
        manifest.committed(6, None);
        assert_eq!((changed(&manifest, 5), changed(&manifest, 6)), (None, Some(vec![])), "too many to name");
        // Somebody else commits and does not say what.
        manifest.revision = 7;
        assert_eq!(changed(&manifest, 6), None);
        manifest.committed(8, Some(vec!["c".to_owned()]));
        assert_eq!(changed(&manifest, 6), None);
        assert_eq!(changed(&manifest, 7), Some(vec!["c".to_owned()]));
        for revision in 9..100 {
            manifest.committed(revision, Some(vec!["d".to_owned()]));
        }
        assert_eq!(changed(&manifest, 66), None, "forgotten");
        assert_eq!(changed(&manifest, 67), Some(vec!["d".to_owned()]));
        manifest.committed(100, Some(vec!["e".repeat(4_000)]));
        manifest.committed(101, Some(vec!["f".repeat(4_000)]));
        assert_eq!(changed(&manifest, 99), None);
        assert_eq!(changed(&manifest, 100).unwrap().len(), 1);
        manifest.committed(102, Some(vec!["g".repeat(7_000)]));
        assert_eq!(changed(&manifest, 101), None);
        assert_eq!(changed(&manifest, 102), Some(vec![]));
    }

    #[test]
    fn manifests_of_other_releases_are_read_and_keep_what_they_say() {
        let old = r#"{"layout":1,"revision":3,"next_event":1,"first_event":1,"widest_page":1,"writes":9,"writers":[]}"#;
        let mut manifest: Manifest = serde_json::from_str(old).unwrap();
        assert_eq!(manifest.changed_since(2), None);
        manifest.committed(4, Some(vec!["a".to_owned()]));
        assert_eq!(manifest.changed_since(3).unwrap().len(), 1);
        let newer = old.replace("{", r#"{"colour":{"hue":7},"#);
        let manifest: Manifest = serde_json::from_str(&newer).unwrap();
        let written = serde_json::to_value(manifest.written_by("w")).unwrap();
        assert_eq!(written["colour"], serde_json::json!({ "hue": 7 }));
    }
}
