//! The guard's look together with the other members of its fleet: what they counted is looked at as if it had been counted
//! here, and what is counted here is told to them.

use std::collections::{BTreeSet, HashMap};

use super::evidence::EpochNews;
use super::members::{May, Members};
use super::spoken::Keys;
use super::tick::Autopilot;
use crate::control::View;
use crate::model::VersionName;
use crate::store::Role;
use crate::telemetry::{Rescue, ServiceTally};

/// What other proxies counted in a scope since the last look.
#[derive(Default)]
pub(super) struct Elsewhere {
    pub epochs: Vec<EpochNews>,
    pub keys: Vec<Keys>,
}

impl Autopilot {
    /// What the guard may do now, and what other members counted by scope. Scopes are made here as if each had just had a
    /// request, so that the guard looks at them.
    pub(super) fn meet(&mut self, view: &View, now_us: u64) -> (May, HashMap<u64, Elsewhere>) {
        let now_ms = now_us / 1_000;
        let Some(members) = &mut self.members else { return (May::Advance, HashMap::new()) };
        if members.look(now_ms) {
            tracing::info!(role = ?members.role(), members = members.count(), "the place in the fleet is another one");
        }
        for seen in members.take_latencies() {
            self.cuts.add_elsewhere(&seen, now_ms);
        }
        for ((service, version), count) in members.take_failed() {
            self.control.board().add_failed_elsewhere(&service, &version, count);
        }
        let mut elsewhere = HashMap::new();
        let mut keys = members.take_keys();
        for (whose, epochs) in members.take_news() {
            let told = keys.remove(&whose).unwrap_or_default();
            let (service, tenant) = whose;
            if view.routes.service(service.as_str()).is_none() {
                continue;
            }
            let touched = self.tallies.service(&service).touched(tenant.as_ref(), now_us);
            if let Some(scope) = touched {
                elsewhere.insert(scope.id(), Elsewhere { epochs, keys: told });
            }
        }
        (members.may(), elsewhere)
    }

    /// Tells the other members what is due.
    pub(super) fn tell_members(&mut self, now_ms: u64) {
        let Some(members) = &mut self.members else { return };
        let (tallies, board, entries) = (&self.tallies, self.control.board(), &self.entries);
        let failed = || {
            let compared: BTreeSet<_> = entries.keys().map(|key| (&key.service, &key.canary)).collect();
            let of = |(service, canary): (&_, &_)| {
                let failed = board.failed(service, canary);
                let rescued = rescued(&tallies.service(service), canary);
                (failed > 0).then(|| (Clone::clone(service), Clone::clone(canary), failed, rescued))
            };
            compared.into_iter().filter_map(of).collect()
        };
        let cuts = &mut self.cuts;
        let table = || cuts.table(entries.iter().map(|(key, entry)| (key, entry.scope)), now_ms);
        members.tell(now_ms, &self.readings, failed, table);
    }

    /// Once a second: lets go of what is over.
    pub(super) fn tidy_members(&mut self, now_ms: u64) {
        let Some(members) = &mut self.members else { return };
        let scopes: BTreeSet<_> = self.entries.values().map(|entry| entry.scope).collect();
        members.retain(|scope| scopes.contains(&scope));
        members.sweep(now_ms);
        self.metrics.set_fleet(members.count(), members.role() == Role::Leader);
    }

    /// How many proxies' counts are judged here together.
    pub(super) fn proxies(&self) -> usize {
        self.members.as_ref().map_or(1, Members::judged)
    }
}

/// Requests that failed on a version and were answered by another one.
pub(super) fn rescued(tally: &ServiceTally, version: &VersionName) -> u64 {
    let detours = tally.detours();
    detours.iter().filter(|(from, ..)| from == version).map(|(.., counts)| counts.rescues(Rescue::Saved)).sum()
}
