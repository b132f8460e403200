//! Which tenants get time series of their own: the busiest and the worst, never more than a fixed number.
//!
//! A label per tenant would let customers decide how many series there are. So per service only K busiest and K worst
//! (by failures) are shown, all others together as `_other`. A newcomer must be clearly larger than the one it
//! replaces and nobody leaves within a minute, so that series do not flicker.
//!
//! A series never falls while it is shown, and all series of a version add up to all its requests: what a tenant had
//! when it leaves goes to `_other`, and one that comes back begins at zero, which Prometheus knows as a counter reset.

use std::collections::{BTreeMap, HashMap};

use super::scope::OTHER_TENANT;
use super::sketch::SpaceSaving;
use super::window::TotalsDelta;
use crate::model::{ServiceName, TenantName, VersionName};

/// How much larger a newcomer must be.
const CLEARLY: f64 = 1.5;

/// How long a tenant is shown at least, milliseconds.
const SHOWN_MS: u64 = 60_000;

/// Half of a tenant's weight is forgotten in this time, milliseconds: who was busy last week is not busy now.
const HALF_LIFE_MS: u64 = 600_000;

/// Items of a sketch per tenant that can be shown; its error is then at most 1/8 of an equal share of the K.
const SKETCH_FACTOR: usize = 8;

/// The tenants that are shown, over all services.
pub struct TopTenants {
    k: usize,
    services: HashMap<ServiceName, ServiceTop>,
}

/// One exported series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSeries {
    /// Tenant, or `_other`.
    pub tenant: String,
    /// Version.
    pub version: VersionName,
    /// Requests that came to an end, whatever it was.
    pub requests: u64,
    /// Requests that the backend failed.
    pub failures: u64,
}

struct ServiceTop {
    busiest: Ranking,
    worst: Ranking,
    shown: HashMap<TenantName, BTreeMap<VersionName, Counts>>,
    others: BTreeMap<VersionName, Counts>,
    faded_ms: u64,
}

struct Ranking {
    sketch: SpaceSaving<TenantName>,
    k: usize,
    /// Who is shown and since when, milliseconds.
    places: Vec<(TenantName, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u64,
    failures: u64,
}

impl TopTenants {
    /// `k`: how many of the busiest and how many of the worst tenants are shown per service.
    pub fn new(k: usize) -> Self {
        Self { k, services: HashMap::new() }
    }

    /// Adds what is new in one scope; `tenant` none for requests without one, which are counted with the others.
    pub fn add(&mut self, service: &ServiceName, tenant: Option<&TenantName>, news: &[TotalsDelta]) {
        let k = self.k;
        let top = self.services.entry(service.clone()).or_insert_with(|| ServiceTop::new(k));
        for delta in news {
            let counts = Counts { requests: delta.ended, failures: delta.failed() };
            top.add(tenant.filter(|t| t.as_str() != OTHER_TENANT), &delta.version, counts);
        }
    }

    /// Chooses anew who is shown. For the tick, after everything was added.
    pub fn choose(&mut self, now_ms: u64) {
        self.services.values_mut().for_each(|top| top.choose(now_ms));
    }

    /// The series of a service by tenant and version, `_other` last.
    pub fn series(&self, service: &ServiceName) -> Vec<TenantSeries> {
        let Some(top) = self.services.get(service) else { return Vec::new() };
        let mut shown: Vec<_> = top.shown.iter().collect();
        shown.sort_by_key(|(tenant, _)| *tenant);
        let shown = shown.into_iter().map(|(tenant, counts)| (tenant.as_str(), counts));
        let all = shown.chain([(OTHER_TENANT, &top.others)]);
        all.flat_map(|(tenant, counts)| counts.iter().map(move |(version, c)| c.series(tenant, version))).collect()
    }

    /// The services that have series.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Forgets a version that was removed.
    pub fn forget_version(&mut self, service: &ServiceName, version: &VersionName) {
        if let Some(top) = self.services.get_mut(service) {
            top.others.remove(version);
            top.shown.values_mut().for_each(|counts| _ = counts.remove(version));
        }
    }

    /// Forgets a service that was removed.
    pub fn forget_service(&mut self, service: &ServiceName) {
        self.services.remove(service);
    }
}

impl ServiceTop {
    fn new(k: usize) -> Self {
        Self {
            busiest: Ranking::new(k),
            worst: Ranking::new(k),
            shown: HashMap::new(),
            others: BTreeMap::new(),
            faded_ms: 0,
        }
    }

    fn add(&mut self, tenant: Option<&TenantName>, version: &VersionName, counts: Counts) {
        if let Some(tenant) = tenant {
            self.busiest.sketch.add(tenant, counts.requests as f64);
            self.worst.sketch.add(tenant, counts.failures as f64);
        }
        let series = tenant.and_then(|t| self.shown.get_mut(t)).unwrap_or(&mut self.others);
        series.entry(version.clone()).or_default().add(counts);
    }

    fn choose(&mut self, now_ms: u64) {
        let elapsed = now_ms.saturating_sub(self.faded_ms);
        // Fading costs a pass over the sketch; every few seconds is fine enough.
        if elapsed >= HALF_LIFE_MS / 64 {
            let factor = 0.5f64.powf(elapsed as f64 / HALF_LIFE_MS as f64);
            self.busiest.sketch.fade(factor);
            self.worst.sketch.fade(factor);
            self.faded_ms = now_ms;
        }
        self.busiest.choose(now_ms);
        self.worst.choose(now_ms);
        let places = self.busiest.places.iter().chain(&self.worst.places);
        for (tenant, _) in places.clone() {
            if !self.shown.contains_key(tenant) {
                self.shown.insert(tenant.clone(), BTreeMap::new());
            }
        }
        let keep: std::collections::HashSet<_> = places.map(|(tenant, _)| tenant).collect();
        let others = &mut self.others;
        self.shown.retain(|tenant, counts| {
            let stays = keep.contains(tenant);
            if !stays {
                counts.iter().for_each(|(version, c)| others.entry(version.clone()).or_default().add(*c));
            }
            stays
        });
    }
}

impl Ranking {
    fn new(k: usize) -> Self {
        Self { sketch: SpaceSaving::new(k * SKETCH_FACTOR), k, places: Vec::with_capacity(k) }
    }

    fn choose(&mut self, now_ms: u64) {
        // At most the first 2k can matter: k that are shown and k that might replace them.
        let candidates: Vec<_> = self.sketch.heaviest().take(2 * self.k).map(|(t, w)| (t.clone(), w)).collect();
        for (tenant, weight) in candidates {
            if self.places.iter().any(|(t, _)| *t == tenant) {
                continue;
            }
            if self.places.len() < self.k {
                self.places.push((tenant, now_ms));
            } else if let Some(place) = self.weakest(now_ms)
                && weight.certain() >= CLEARLY * self.weight(&self.places[place].0)
            {
                self.places[place] = (tenant, now_ms);
            }
        }
    }

    /// The lightest of those that were shown for long enough.
    fn weakest(&self, now_ms: u64) -> Option<usize> {
        let may_leave = |i: &usize| now_ms.saturating_sub(self.places[*i].1) >= SHOWN_MS;
        let by_weight =
            |a: &usize, b: &usize| self.weight(&self.places[*a].0).total_cmp(&self.weight(&self.places[*b].0));
        (0..self.places.len()).filter(may_leave).min_by(by_weight)
    }

    fn weight(&self, tenant: &TenantName) -> f64 {
        self.sketch.get(tenant).map_or(0.0, |w| w.estimate)
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
    }

    fn series(self, tenant: &str, version: &VersionName) -> TenantSeries {
        let (requests, failures) = (self.requests, self.failures);
        TenantSeries { tenant: tenant.to_owned(), version: version.clone(), requests, failures }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::latency::SparseCounts;
    use proptest::prelude::*;

    fn service() -> ServiceName {
        ServiceName::new("accounting").unwrap()
    }

    fn tenant(i: usize) -> TenantName {
        TenantName::new(&format!("tenant-{i:03}")).unwrap()
    }

    fn news(version: usize, requests: u64, failed: u64) -> TotalsDelta {
        TotalsDelta {
            version: VersionName::new(&version.to_string()).unwrap(),
            requests,
            failures: [0, 0, 0, failed, 0],
            client_aborts: 0,
            ended: requests,
            in_flight: 0,
            latency: SparseCounts::default(),
        }
    }

    fn shown(top: &TopTenants) -> Vec<String> {
        let mut tenants: Vec<_> = top.series(&service()).into_iter().map(|s| s.tenant).collect();
        tenants.dedup();
        tenants
    }

    #[test]
    fn the_busiest_and_the_worst_are_shown() {
        let mut top = TopTenants::new(1);
        for round in 0..3 {
            for i in 0..20 {
                let failed = if i == 7 { 5 } else { 0 };
                top.add(&service(), Some(&tenant(i)), &[news(1, 10 + i as u64, failed)]);
            }
            top.add(&service(), None, &[news(1, 1_000, 0)]);
            top.choose(round * 1_000);
        }
        assert_eq!(shown(&top), ["tenant-007", "tenant-019", "_other"]);
    }

    #[test]
    fn a_newcomer_must_be_clearly_larger_and_wait() {
        let mut top = TopTenants::new(1);
        top.add(&service(), Some(&tenant(0)), &[news(1, 100, 0)]);
        top.choose(0);
        top.add(&service(), Some(&tenant(0)), &[news(1, 1, 0)]);
        top.add(&service(), Some(&tenant(1)), &[news(1, 120, 0)]);
        top.choose(61_000);
        assert_eq!(shown(&top), ["tenant-000", "_other"], "not clearly larger");
        top.add(&service(), Some(&tenant(1)), &[news(1, 1_000, 0)]);
        top.choose(62_000);
        assert_eq!(shown(&top), ["_other"], "it begins at zero");
        top.add(&service(), Some(&tenant(1)), &[news(1, 5, 0)]);
        top.add(&service(), Some(&tenant(0)), &[news(1, 9_000, 0)]);
        top.choose(63_000);
        assert_eq!(shown(&top), ["tenant-001", "_other"], "nobody leaves within a minute");
    }

    proptest! {
        #[test]
        fn series_are_bounded_monotone_and_complete(
            rounds in proptest::collection::vec(
                proptest::collection::vec((0usize..30, 0usize..2, 1u64..1_000, 0u64..50), 0..30), 1..25),
            k in 1usize..4,
        ) {
            let mut top = TopTenants::new(k);
            let mut truth = BTreeMap::<String, (u64, u64)>::new();
            let mut before = HashMap::<(String, String), u64>::new();
            for (round, adds) in rounds.into_iter().enumerate() {
                for (who, version, requests, failed) in adds {
                    let who = tenant(who);
                    top.add(&service(), Some(&who).filter(|t| t.as_str() != "tenant-029"), &[news(version, requests, failed)]);
                    let sum = truth.entry(version.to_string()).or_default();
                    *sum = (sum.0 + requests, sum.1 + failed);
                }
                top.choose(round as u64 * 20_000);
                let series = top.series(&service());
                let mut now = HashMap::new();
                for (version, (requests, failures)) in &truth {
                    let of: Vec<_> = series.iter().filter(|s| s.version.as_str() == version).collect();
                    prop_assert!(of.len() <= 2 * k + 1);
                    prop_assert_eq!(of.iter().map(|s| s.requests).sum::<u64>(), *requests);
                    prop_assert_eq!(of.iter().map(|s| s.failures).sum::<u64>(), *failures);
                    for s in of {
                        let key = (s.tenant.clone(), version.clone());
                        prop_assert!(before.get(&key).is_none_or(|b| *b <= s.requests));
                        now.insert(key, s.requests);
                    }
                }
                before = now;
            }
        }
    }
}
