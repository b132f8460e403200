//! A split as a bar with its legend, and which colour stands for which version.

use maud::{Markup, html};

use super::words::share;
use crate::model::{BUCKETS, ServiceState, VersionName, Weights};
use crate::routing::ServiceRoute;

/// The classes of canaries, by name; further ones share the last.
const CANARIES: [&str; 3] = ["c1", "c2", "c3"];

/// Which colour stands for which version of a service, the same on every page.
pub(super) struct Tints {
    baseline: VersionName,
    canaries: Vec<VersionName>,
}

impl Tints {
    /// The baseline has a colour of its own; the others have theirs by name, with or without traffic.
    pub(super) fn of(route: &ServiceRoute) -> Self {
        let baseline = route.state.baseline.clone();
        let canaries: Vec<_> = route.versions.iter().map(|v| v.name.clone()).filter(|v| *v != baseline).collect();
        Self { baseline, canaries }
    }

    /// The class of a version.
    pub(super) fn class(&self, version: &VersionName) -> &'static str {
        if *version == self.baseline {
            return "base";
        }
        let place = self.canaries.iter().position(|v| v == version);
        place.map_or("idle", |i| CANARIES[i.min(CANARIES.len() - 1)])
    }
}

/// A dot in the colour of a version, and its name.
pub(super) fn dotted(tints: &Tints, version: &VersionName) -> Markup {
    html! { span class={ "dot " (tints.class(version)) } aria-hidden="true" {} " " bdi { (version) } }
}

/// The shares as a bar, the baseline first, with a legend.
pub(super) fn bar(tints: &Tints, live: &ServiceState, weights: &Weights) -> Markup {
    let shares = ordered(live, weights);
    let begins = shares.iter().scan(0, |end, (_, points)| {
        *end += points.points();
        Some(*end - points.points())
    });
    html! {
        svg.bar viewBox={ "0 0 " (BUCKETS) " 100" } preserveAspectRatio="none" role="img" aria-label=(in_words(live, weights)) {
            @for ((version, points), x) in shares.iter().zip(begins) {
                rect data-key=(version) class=(tints.class(version)) x=(x) y="0" width=(points.points()) height="100" {}
            }
        }
        ul.legend {
            @for (version, points) in &shares {
                li data-key=(version) { span { (dotted(tints, version)) } strong { (share(*points)) } }
            }
        }
    }
}

/// `1.0.0 90 %, 2.0.0 10 %`, the baseline first.
pub(super) fn in_words(live: &ServiceState, weights: &Weights) -> String {
    let shares = ordered(live, weights);
    shares.iter().map(|(v, s)| format!("{v} {}", share(*s))).collect::<Vec<_>>().join(", ")
}

fn ordered<'w>(live: &ServiceState, weights: &'w Weights) -> Vec<(&'w VersionName, crate::model::BasisPoints)> {
    let mut shares: Vec<_> = weights.iter().collect();
    shares.sort_by_key(|(version, _)| **version != live.baseline);
    shares
}
