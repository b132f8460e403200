//! Where an asset is looked for that the version of a request does not have.
//!
//! A page of one release asks for its hashed assets, and the request for them may go to another release: because the
//! split changed in between, or because assets are asked for without the key. Whichever release made the page has them.

use std::sync::Arc;

use super::matching::has_prefix;
use super::routes::{ServiceRoute, VersionRoute};
use crate::model::{Split, VersionName};

impl ServiceRoute {
    /// Whether a path is below one of the prefixes whose 404 is looked for elsewhere.
    pub fn is_skewed(&self, path: &str) -> bool {
        self.spec.skew.iter().any(|prefix| has_prefix(path, prefix))
    }

    /// The version most likely to have what `lacks` has not: one with a share of the split, the larger the likelier;
    /// else the baseline; else one that was rolled back, whose pages are still open, the latest first; else the last by
    /// name. Never one that is disabled.
    pub fn likely_holder(&self, split: &Split, lacks: &VersionName) -> Option<&Arc<VersionRoute>> {
        let weights = self.state.weights_in_effect(split);
        let likely = |v: &VersionRoute| {
            let barred = self.state.bars.get(&v.name).map_or(0, |bar| bar.revision);
            (weights.share(v.name.as_str()), v.name == self.baseline().name, barred)
        };
        let others = self.versions.iter().filter(|v| v.name != *lacks && !self.state.is_disabled(&v.name));
        others.max_by_key(|v| likely(v))
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Change, Scope};
    use crate::routing::fixture::{House, rollback, set, version};
    use crate::routing::split_for;

    fn holder(house: &House, lacks: &str) -> String {
        let service = house.routes.service("web").unwrap();
        let (split, _) = split_for(&house.routes, service, None);
        service.likely_holder(split, &version(lacks)).unwrap().name.to_string()
    }

    #[test]
    fn whoever_has_traffic_and_then_whoever_had_it() {
        let mut house = House::new();
        assert_eq!((holder(&house, "b"), holder(&house, "s")), ("t".to_owned(), "b".to_owned()));
        house.does("web", set(Scope::Service, "s", 1_000));
        assert_eq!(
            (holder(&house, "b"), holder(&house, "s"), holder(&house, "t")),
            ("s".into(), "b".into(), "b".into())
        );
        house.does("web", rollback(Scope::Service, "s"));
        assert_eq!(holder(&house, "b"), "s", "its pages are still open");
        house.does("web", Change::DisableVersion(version("s")));
        assert_eq!(holder(&house, "b"), "t", "nobody is sent to a disabled version");
        let service = house.routes.service("api").unwrap();
        let (split, _) = split_for(&house.routes, service, None);
        let lonely = house.routes.service("coin").unwrap().likely_holder(split, &version("b"));
        assert_eq!(lonely.unwrap().name.as_str(), "s");
    }
}
