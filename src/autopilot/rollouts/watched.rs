//! What this process remembers of a rollout: since when it watches it where it stands, and what its gates are at.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{GateAt, Rollout};
use crate::planning::Place;

/// How often a gate that may hold at any time is asked, in milliseconds.
const POLL_MS: u64 = 10_000;

/// One rollout on its way.
pub(super) struct Watched {
    place: Place,
    /// Since when it stands there, on the process's clock.
    pub since_ms: u64,
    /// A change was asked for and is not answered yet.
    pub pending: bool,
    /// Nothing is tried before this time, on the process's clock.
    pub not_before_ms: u64,
    /// Gates that were asked and have not answered.
    pub asked: BTreeSet<String>,
    /// Failures of the new version when the watch began, and what the rollout had cost by then.
    failed_then: u64,
    cost_then: u64,
    holds: BTreeMap<String, HoldGate>,
}

/// What another process remembers of a rollout.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CarriedWatch {
    place: Place,
    since_ms: u64,
    cost: u64,
}

/// A gate that may hold at any time.
struct HoldGate {
    /// Why it is closed; none: it is open.
    closed: Option<String>,
    next_ms: u64,
}

impl Watched {
    pub(super) fn new(rollout: &Rollout, now_ms: u64, failed: u64) -> Self {
        Self {
            place: Place::of(rollout),
            since_ms: now_ms,
            pending: false,
            not_before_ms: 0,
            asked: BTreeSet::new(),
            failed_then: failed,
            cost_then: rollout.failed_requests,
            holds: BTreeMap::new(),
        }
    }

    /// What is remembered, for another process.
    pub(super) fn carry(&self, failed: u64) -> CarriedWatch {
        CarriedWatch { place: self.place.clone(), since_ms: self.since_ms, cost: self.failed_requests(failed) }
    }

    /// Goes on from what another process remembered, unless the rollout has moved on since.
    pub(super) fn resume(&mut self, carried: &CarriedWatch) {
        if carried.place == self.place {
            (self.since_ms, self.cost_then) = (carried.since_ms, carried.cost.max(self.cost_then));
        }
    }

    /// The rollout may have moved on.
    pub(super) fn follow(&mut self, rollout: &Rollout, now_ms: u64, failed: u64) {
        let place = Place::of(rollout);
        if place == self.place {
            return;
        }
        if place.retries() != self.place.retries() {
            (self.failed_then, self.cost_then) = (failed, rollout.failed_requests);
        }
        self.place = place;
        self.since_ms = now_ms;
    }

    /// Requests of users that failed since the rollout began.
    pub(super) fn failed_requests(&self, failed: u64) -> u64 {
        // The count of the process falls when a request that failed is rescued after all.
        self.cost_then + failed.saturating_sub(self.failed_then)
    }

    /// The gates that may hold at any time and are to be asked now.
    pub(super) fn due_holds(&mut self, rollout: &Rollout, now_ms: u64) -> Vec<String> {
        let mut due = Vec::new();
        for gate in rollout.spec.gates.iter().filter(|g| g.at == GateAt::Hold) {
            let waits = || Some(format!("gate {} has not answered yet", gate.name));
            let hold = self.holds.entry(gate.name.clone()).or_insert_with(|| HoldGate { closed: waits(), next_ms: 0 });
            if now_ms >= hold.next_ms && !self.asked.contains(&gate.name) {
                hold.next_ms = now_ms + POLL_MS;
                due.push(gate.name.clone());
            }
        }
        self.asked.extend(due.iter().cloned());
        due
    }

    pub(super) fn hold_answered(&mut self, gate: &str, closed: Option<String>) {
        self.asked.remove(gate);
        if let Some(hold) = self.holds.get_mut(gate) {
            hold.closed = closed;
        }
    }

    /// Why a gate that may hold at any time does.
    pub(super) fn held_by_gate(&self, rollout: &Rollout) -> Option<String> {
        let named = |name: &str| rollout.spec.gates.iter().any(|g| g.name == name && g.at == GateAt::Hold);
        self.holds.iter().filter(|(name, _)| named(name)).find_map(|(_, hold)| hold.closed.clone())
    }
}
