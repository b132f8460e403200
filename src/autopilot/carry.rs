//! What the guard knows, in a form that another process goes on with: an upgrade must not cost a canary its evidence, nor
//! the users of a bad one the time to gather it again.
//!
//! Times are on the clock of the process, which the other one continues.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::cuts::CarriedCuts;
use super::entry::Entry;
use super::fleet::CarriedFleet;
use super::tick::Autopilot;
use crate::analysis::Rate;
use crate::control::ScopeKey;
use crate::model::{ServiceName, TenantName};
use crate::telemetry::Tallies;

/// What the guard knows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CarriedGuard {
    entries: Vec<(ScopeKey, Entry)>,
    fleets: Vec<CarriedFleet>,
    cuts: CarriedCuts,
    rates: Vec<(u64, Rate)>,
    /// Whether other proxies' counts are in it.
    #[serde(default)]
    together: bool,
    /// The numbers that scopes have in all of the above.
    scopes: Vec<(u64, ServiceName, Option<TenantName>)>,
}

/// From the numbers that scopes had to those that they have.
pub(super) type Renumbered = HashMap<u64, u64>;

impl CarriedGuard {
    /// How many comparisons there are.
    pub fn comparisons(&self) -> usize {
        self.entries.len()
    }
}

impl Autopilot {
    /// What the guard knows.
    pub(super) fn carry(&self) -> CarriedGuard {
        let mut scopes = Vec::new();
        for service in self.tallies.services() {
            let of = |s: &crate::telemetry::ScopeTally| (s.id(), s.service().clone(), s.tenant().cloned());
            scopes.extend(service.scopes().iter().filter(|s| !s.is_other()).map(|s| of(s)));
        }
        CarriedGuard {
            entries: self.entries.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect(),
            fleets: self.fleets.carry(),
            cuts: self.cuts.carry(),
            together: self.proxies() > 1,
            rates: self.rates.iter().map(|(scope, rate)| (*scope, rate.clone())).collect(),
            scopes,
        }
    }

    /// Goes on from what another process knew.
    pub(super) fn resume(&mut self, carried: CarriedGuard, now_us: u64) {
        if let Some(members) = self.members.as_mut().filter(|_| carried.together) {
            members.resume();
        }
        let scopes = renumber(&self.tallies, carried.scopes, now_us);
        for (key, mut entry) in carried.entries {
            let Some(scope) = scopes.get(&entry.scope) else { continue };
            entry.scope = *scope;
            // Nobody answers here what was asked there.
            entry.pending = false;
            self.entries.insert(key, entry);
        }
        self.fleets.resume(carried.fleets, &scopes);
        self.cuts.resume(carried.cuts, &scopes);
        let rates = carried.rates.into_iter();
        self.rates.extend(rates.filter_map(|(scope, rate)| Some((*scopes.get(&scope)?, rate))));
    }
}

/// Scopes are made here as if each had just had a request, so that the guard looks at them and does not let them go.
fn renumber(tallies: &Tallies, carried: Vec<(u64, ServiceName, Option<TenantName>)>, now_us: u64) -> Renumbered {
    let made = carried.into_iter().filter_map(|(scope, service, tenant)| {
        let tally = tallies.service(&service).touched(tenant.as_ref(), now_us)?;
        Some((scope, tally.id()))
    });
    made.collect()
}
