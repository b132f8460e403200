//! Which requests count as slow: cut-offs at the baseline's 90th and 99th percentile, by tenant where it has enough
//! requests, otherwise by service. A cut may be wrong without harm, as long as it is the same for both versions and fixed
//! before the request is sent.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::carry::Renumbered;
use super::members::{CutTable, Seen};
use crate::analysis::LogHistogram;
use crate::control::ScopeKey;
use crate::model::{ServiceName, VersionName};
use crate::telemetry::latency::BUCKETS;
use crate::telemetry::{ScopeTally, TotalsDelta};

/// How often cuts are read again once they are there, in milliseconds.
const REREAD_MS: u64 = 10_000;
/// How often a missing cut is looked for, in milliseconds.
const LOOK_MS: u64 = 500;

/// The baseline's latencies of one scope.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Latencies {
    histogram: LogHistogram,
    decayed_ms: u64,
    read_ms: u64,
    cuts: (u32, u32),
}

impl Latencies {
    fn new(now_ms: u64) -> Self {
        Self { histogram: LogHistogram::default(), decayed_ms: now_ms, read_ms: 0, cuts: (0, 0) }
    }

    fn add(&mut self, delta: &TotalsDelta, now_ms: u64) {
        // Decaying is a pass over all buckets; a second's worth changes nothing that anyone could see.
        self.decay(now_ms);
        let mut counts = [0; BUCKETS];
        delta.latency.add_to(&mut counts);
        self.histogram.add_counts(&counts);
    }

    fn add_counts(&mut self, some: impl Iterator<Item = (usize, u64)>, now_ms: u64) {
        self.decay(now_ms);
        let mut counts = [0; BUCKETS];
        for (bucket, count) in some {
            counts.get_mut(bucket).into_iter().for_each(|sum| *sum += count);
        }
        self.histogram.add_counts(&counts);
    }

    fn decay(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.decayed_ms);
        if elapsed_ms >= 1_000 {
            self.histogram.decay(elapsed_ms as f64 / 1_000.0);
            self.decayed_ms = now_ms;
        }
    }

    fn cuts(&mut self, now_ms: u64) -> (u32, u32) {
        let every = if self.cuts.1 == 0 { LOOK_MS } else { REREAD_MS };
        if self.read_ms == 0 || now_ms.saturating_sub(self.read_ms) >= every {
            self.read_ms = now_ms;
            let micros = |q| self.histogram.cut(q).map_or(0, |s| (s * 1e6).min(f64::from(u32::MAX)) as u32);
            self.cuts = (micros(0.9), micros(0.99));
        }
        self.cuts
    }
}

/// Cut-offs of every scope that has requests.
#[derive(Default)]
pub(super) struct Cuts {
    services: HashMap<ServiceName, (VersionName, Latencies)>,
    tenants: HashMap<u64, (VersionName, Latencies)>,
}

/// The latencies, on their way to another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct CarriedCuts {
    services: Vec<(ServiceName, VersionName, Latencies)>,
    tenants: Vec<(u64, VersionName, Latencies)>,
}

impl Cuts {
    /// What is known, for another process.
    pub fn carry(&self) -> CarriedCuts {
        let services =
            self.services.iter().map(|(service, (version, l))| (service.clone(), version.clone(), l.clone()));
        let tenants = self.tenants.iter().map(|(scope, (version, l))| (*scope, version.clone(), l.clone()));
        CarriedCuts { services: services.collect(), tenants: tenants.collect() }
    }

    /// Goes on from what another process knew.
    pub fn resume(&mut self, carried: CarriedCuts, scopes: &Renumbered) {
        self.services.extend(carried.services.into_iter().map(|(service, version, l)| (service, (version, l))));
        let tenants = carried.tenants.into_iter();
        self.tenants.extend(tenants.filter_map(|(scope, version, l)| Some((*scopes.get(&scope)?, (version, l)))));
    }

    /// Takes in what is new in a scope and sets its cut-offs.
    pub fn update(
        &mut self,
        scope: &ScopeTally,
        baseline: &VersionName,
        tolerance: f64,
        news: &[TotalsDelta],
        leaders: Option<(u32, u32)>,
        now_ms: u64,
    ) {
        let delta = news.iter().find(|d| d.version == *baseline);
        let fresh = || (baseline.clone(), Latencies::new(now_ms));
        let service = self.services.entry(scope.service().clone()).or_insert_with(fresh);
        // Another baseline is another measure.
        if service.0 != *baseline {
            *service = fresh();
        }
        let mut cuts = {
            if let Some(delta) = delta {
                service.1.add(delta, now_ms);
            }
            service.1.cuts(now_ms)
        };
        if scope.tenant().is_some() && !scope.is_other() {
            let own = self.tenants.entry(scope.id()).or_insert_with(fresh);
            if own.0 != *baseline {
                *own = fresh();
            }
            if let Some(delta) = delta {
                own.1.add(delta, now_ms);
            }
            let (p90, p99) = own.1.cuts(now_ms);
            cuts = (if p90 > 0 { p90 } else { cuts.0 }, if p99 > 0 { p99 } else { cuts.1 });
        }
        let (p90, p99) = leaders.unwrap_or(cuts);
        scope.set_cuts(p90, p99, tolerance, baseline);
    }

    /// Takes in what other proxies saw of a service's baseline.
    pub fn add_elsewhere(&mut self, (service, baseline, counts): &Seen, now_ms: u64) {
        let fresh = || (baseline.clone(), Latencies::new(now_ms));
        let known = self.services.entry(service.clone()).or_insert_with(fresh);
        if known.0 == *baseline {
            known.1.add_counts(counts.iter().map(|(bucket, count)| (usize::from(*bucket), *count)), now_ms);
        }
    }

    /// The cuts of services, and of these tenants: what all proxies go by when this one leads.
    pub fn table<'a>(&mut self, scopes: impl Iterator<Item = (&'a ScopeKey, u64)>, now_ms: u64) -> CutTable {
        let services = self.services.iter_mut().map(|(service, (baseline, latencies))| {
            let (p90, p99) = latencies.cuts(now_ms);
            (service.clone(), baseline.clone(), p90, p99)
        });
        let mut table = CutTable { services: services.collect(), tenants: Vec::new() };
        table.services.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, scope) in scopes {
            let (Some(tenant), Some((_, latencies))) = (&key.tenant, self.tenants.get_mut(&scope)) else { continue };
            let (p90, p99) = latencies.cuts(now_ms);
            if p90 > 0 || p99 > 0 {
                table.tenants.push((key.service.clone(), tenant.clone(), p90, p99));
            }
        }
        table.tenants.sort();
        table.tenants.dedup();
        table
    }

    /// Forgets a scope that was let go.
    pub fn forget(&mut self, scope: u64) {
        self.tenants.remove(&scope);
    }
}
