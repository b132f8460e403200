//! The way from one version to another, where not every version may follow every other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crate::model::VersionName;

/// There is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NoPath {
    /// From where.
    pub from: VersionName,
    /// To where.
    pub to: VersionName,
    /// What may be followed by what: each version that does not follow any other, with those that it may follow.
    pub allowed: BTreeMap<VersionName, Vec<VersionName>>,
}

impl fmt::Display for NoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no way from {} to {}: ", self.from, self.to)?;
        for (i, (version, before)) in self.allowed.iter().enumerate() {
            let before: Vec<_> = before.iter().map(VersionName::as_str).collect();
            write!(f, "{}{version} may follow {} only", if i > 0 { ", " } else { "" }, before.join(", "))?;
        }
        Ok(())
    }
}

/// The shortest way, both ends included; of several the first by the names of its versions. `versions` are those that
/// there are, each with the versions that it may follow; none: it may follow any.
///
/// # Errors
/// [`NoPath`] names what each version allows.
pub fn path(
    from: &VersionName,
    to: &VersionName,
    versions: &BTreeMap<VersionName, Vec<VersionName>>,
) -> Result<Vec<VersionName>, NoPath> {
    // Versions are met level by level and by name within, so the first way to each is the one that is wanted.
    let mut came_from: BTreeMap<&VersionName, &VersionName> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(here) = queue.pop_front() {
        if here == to {
            return Ok(walked(from, to, &came_from));
        }
        for (next, before) in versions {
            let allowed = before.is_empty() || before.contains(here);
            if allowed && next != from && !came_from.contains_key(next) {
                came_from.insert(next, here);
                queue.push_back(next);
            }
        }
    }
    let allowed = versions.iter().filter(|(_, before)| !before.is_empty());
    let allowed = allowed.map(|(version, before)| (version.clone(), before.clone())).collect();
    Err(NoPath { from: from.clone(), to: to.clone(), allowed })
}

fn walked(from: &VersionName, to: &VersionName, came_from: &BTreeMap<&VersionName, &VersionName>) -> Vec<VersionName> {
    let back = std::iter::successors(Some(to), |here| if *here == from { None } else { came_from.get(here).copied() });
    let mut way: Vec<_> = back.cloned().collect();
    way.reverse();
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VersionName {
        VersionName::new(text).unwrap()
    }

    /// Versions as `2.0<1.5,1.6`: what each may follow; without `<` any.
    fn catalogue(text: &str) -> BTreeMap<VersionName, Vec<VersionName>> {
        let one = |part: &str| match part.split_once('<') {
            Some((version, before)) => (name(version), before.split(',').map(name).collect()),
            None => (name(part), Vec::new()),
        };
        text.split(' ').map(one).collect()
    }

    fn way(from: &str, to: &str, text: &str) -> Result<String, String> {
        let found = path(&name(from), &name(to), &catalogue(text)).map_err(|e| e.to_string())?;
        Ok(found.iter().map(VersionName::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_shortest_way_is_taken_and_of_several_the_first_by_name() {
        let way = |from, to, text| way(from, to, text).unwrap();
        assert_eq!(way("1.0", "2.0", "1.0 1.5 2.0"), "1.0 2.0");
        assert_eq!(way("1.0", "2.0", "1.0 1.5 2.0<1.5"), "1.0 1.5 2.0");
        assert_eq!(way("1.0", "2.0", "1.0 1.4<1.0 1.5<1.4 1.9<1.5 2.0<1.5,1.9"), "1.0 1.4 1.5 2.0");
        assert_eq!(way("1.0", "2.0", "1.0 1.6<1.0 1.5<1.0 2.0<1.6,1.5"), "1.0 1.5 2.0");
        assert_eq!(way("1", "4", "1 2b<1 2a<1 3a<2b 3b<2a 4<3a,3b"), "1 2a 3b 4", "not the first by its last name");
        assert_eq!(way("2.0", "1.0", "1.0 1.5 2.0<1.5"), "2.0 1.0", "going back is not restricted by what is newer");
        assert_eq!(way("1.0", "1.0", "1.0<0.9 2.0"), "1.0");
    }

    #[test]
    fn where_there_is_no_way_it_is_said_what_each_version_allows() {
        let told = way("1.0", "2.0", "1.0 1.5<1.4 2.0<1.5").unwrap_err();
        assert_eq!(told, "there is no way from 1.0 to 2.0: 1.5 may follow 1.4 only, 2.0 may follow 1.5 only");
        assert!(way("1.0", "2.0", "1.0 2.0<3.0 3.0<2.0").is_err(), "a circle is no way");
    }

    proptest::proptest! {
        /// Every leg is allowed, and no version is met twice.
        #[test]
        fn every_leg_of_a_way_is_allowed(edges in proptest::collection::vec((0_u8..8, 0_u8..8), 0..20)) {
            let mut versions: BTreeMap<_, Vec<_>> = (0..8).map(|i| (name(&i.to_string()), vec![name("never")])).collect();
            for (before, after) in edges {
                versions.get_mut(after.to_string().as_str()).unwrap().push(name(&before.to_string()));
            }
            if let Ok(way) = path(&name("0"), &name("7"), &versions) {
                for leg in way.windows(2) {
                    proptest::prop_assert!(versions[&leg[1]].contains(&leg[0]), "{way:?}");
                }
                let distinct: std::collections::BTreeSet<_> = way.iter().collect();
                proptest::prop_assert_eq!(distinct.len(), way.len());
            }
        }
    }
}
