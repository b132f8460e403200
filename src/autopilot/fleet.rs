//! The evidence of all tenants together: many small tenants, none of which could prove anything alone, can take a version
//! back for all. No tenant can give more than a factor of a hundred, so one tenant's trouble never does.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::carry::Renumbered;
use crate::analysis::{Batch, Fleet, Parameters, Signal};
use crate::model::{ServiceName, VersionName};
use crate::telemetry::ScopeHandle;

/// One version's evidence over all tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    fleet: Fleet,
    attempt: u64,
    /// A rollback was asked for and is not answered yet.
    pending: bool,
}

/// Fleet evidence by service and canary.
#[derive(Default)]
pub(super) struct Fleets {
    entries: HashMap<(ServiceName, VersionName), Entry>,
}

/// The evidence about one version, on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CarriedFleet {
    service: ServiceName,
    canary: VersionName,
    entry: Entry,
}

/// A version that all tenants together speak against.
pub(super) struct FleetBreach {
    pub service: ServiceName,
    pub canary: VersionName,
    pub signal: Signal,
    pub log_evidence: f64,
}

impl Fleets {
    /// Takes in what one scope saw. `attempt` is that of the service's split, `share` the canary's in the scope now.
    #[expect(clippy::too_many_arguments, reason = "one observation, spelt out")]
    pub fn add(
        &mut self,
        parameters: &Parameters,
        scope: &ScopeHandle,
        canary: &VersionName,
        attempt: u64,
        share: f64,
        batches: &[Batch],
        now_ms: u64,
    ) {
        let key = (scope.service.clone(), canary.clone());
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { fleet: Fleet::new(parameters), attempt, pending: false });
        if entry.attempt != attempt {
            entry.attempt = attempt;
            entry.fleet.step(now_ms);
        }
        for batch in batches {
            let share = batch.routed_share.max(share);
            entry.fleet.add(now_ms, scope.tally.id(), share, batch.signals.as_slice());
        }
    }

    /// The versions that go back for all.
    pub fn breaches(&mut self, now_ms: u64) -> Vec<FleetBreach> {
        let mut found = Vec::new();
        for ((service, canary), entry) in &mut self.entries {
            entry.fleet.advance(now_ms);
            if entry.fleet.rollback() && !std::mem::replace(&mut entry.pending, true) {
                found.push(FleetBreach {
                    service: service.clone(),
                    canary: canary.clone(),
                    signal: entry.fleet.leading_signal(),
                    log_evidence: entry.fleet.log_evidence(),
                });
            }
        }
        found
    }

    /// A scope went back or was let go: it says no more.
    pub fn forget_scope(&mut self, scope: u64) {
        for entry in self.entries.values_mut() {
            entry.fleet.forget(scope);
        }
    }

    /// What is known, for another process.
    pub fn carry(&self) -> Vec<CarriedFleet> {
        let carried = self.entries.iter().map(|((service, canary), entry)| CarriedFleet {
            service: service.clone(),
            canary: canary.clone(),
            entry: entry.clone(),
        });
        carried.collect()
    }

    /// Goes on from what another process knew.
    pub fn resume(&mut self, carried: Vec<CarriedFleet>, scopes: &Renumbered) {
        for CarriedFleet { service, canary, mut entry } in carried {
            entry.fleet.renumber(|scope| scopes.get(&scope).copied());
            entry.pending = false;
            self.entries.insert((service, canary), entry);
        }
    }

    /// A rollback for all was answered. If it was made, what follows is another attempt with a fresh stake.
    pub fn settled(&mut self, service: &ServiceName, canary: &VersionName, made: bool) {
        let key = (service.clone(), canary.clone());
        if made {
            self.entries.remove(&key);
        } else if let Some(entry) = self.entries.get_mut(&key) {
            entry.pending = false;
        }
    }
}
