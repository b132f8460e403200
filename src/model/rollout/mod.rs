//! A rollout: a planned move from one version to another, as a value. What it is asked to do is a [`RolloutSpec`], where it
//! stands is a [`Phase`] and a [`Stage`], and whose traffic it moves are its [`Units`].
//!
//! Everything a rollout has done is in these documents, and each step writes them together with the splits that it sets. So
//! a process that dies in the middle finds a rollout exactly where it was: a step was taken as a whole, or it was not.

mod phase;
mod spec;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use phase::{Input, Phase};
pub use spec::{BlastRadius, Gate, GateAt, OnInsufficient, Order, RolloutSpec, SpecError, Step, Target, Tolerance};
pub use units::{Counts, PAGE, Unit, UnitStatus, Units};

#[cfg(test)]
pub(crate) use spec::tests::plan;

use super::event::Author;
use super::names::{RolloutId, ServiceName};
use super::unknown::Unknown;

/// One rollout, without its units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Format of the document.
    pub format: u32,
    /// Its name.
    pub id: RolloutId,
    /// The service that it moves.
    pub service: ServiceName,
    /// Revision that last changed this document; its ETag.
    #[serde(skip)]
    pub revision: u64,
    /// What it does.
    pub spec: Arc<RolloutSpec>,
    /// Who started it.
    pub author: Author,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The event that tells of its start.
    pub first_event: u64,
    /// When it was asked for, in milliseconds since the Unix epoch, as all times here.
    pub created_ms: u64,
    /// When it began to move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Where it stands.
    pub phase: Phase,
    /// The batch and step that it is in, or that comes next.
    pub stage: Stage,
    /// Whether that step is in effect for all of the batch.
    pub in_effect: bool,
    /// Revision since which it counts: versions rolled back later were rolled back under it.
    pub since_revision: u64,
    /// Set while it does not go on by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// The step that a person approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Stage>,
    /// A person ended the bake of the step in effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bake_over: bool,
    /// Tenants that had gone back when a person let it go on past its point of no return: the person knows about those, and
    /// that the budget is spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_back: Option<u32>,
    /// What the gates said, by the gate's name and stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gates: BTreeMap<String, GateRecord>,
    /// Where each batch begins in the units; the last entry is where the batches end.
    pub bounds: Vec<u32>,
    /// Units by status.
    pub counts: Counts,
    /// Failed requests of users on the new version, as far as they were written down.
    #[serde(default)]
    pub failed_requests: u64,
    /// Why it goes back or went back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub going_back: Option<GoingBack>,
    /// How often it was begun again.
    #[serde(default)]
    pub retries: u32,
    /// The rollout that this one goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<RolloutId>,
    /// The rollout that goes on from this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed_by: Option<RolloutId>,
    /// Why none goes on from it although its plan names another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_followed: Option<String>,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A batch and a step in it, both counted from 0. As text, for people: `batch.step`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The batch.
    pub batch: u32,
    /// The step.
    pub step: u32,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.batch + 1, self.step + 1)
    }
}

impl FromStr for Stage {
    type Err = String;

    /// Reads `batch.step`, or a step of the first batch.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.parse::<u32>().ok()?.checked_sub(1);
        let stage = match text.split_once('.') {
            Some((batch, step)) => number(batch).zip(number(step)),
            None => number(text).map(|step| (0, step)),
        };
        let (batch, step) = stage.ok_or_else(|| {
            format!("{text:?} is no step; allowed are a step such as \"2\", or batch and step such as \"3.2\"")
        })?;
        Ok(Self { batch, step })
    }
}

/// Why a rollout does not go on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What it waits for.
    pub kind: PauseKind,
    /// Who stopped it.
    pub author: Author,
    /// Why.
    pub reason: String,
    /// When.
    pub since_ms: u64,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What ends a pause is always a person; this says what the person has to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseKind {
    /// A person said so.
    Person,
    /// The canary tenants are through; `resume` lets the others follow.
    Canary,
    /// A gate failed three times.
    Gate,
    /// Nothing was proven within the longest bake time.
    Evidence,
    /// Something asks for going back, and it is past its point of no return.
    NoReturn,
    /// Somebody else set a split that the rollout moves.
    Overridden,
}

/// What one gate said at one stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRecord {
    /// Whether it is open.
    pub open: bool,
    /// How often it failed since it was last allowed to try.
    pub failures: u32,
    /// What it said last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// When it said so.
    pub at_ms: u64,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl GateRecord {
    /// A gate that failed so often holds the rollout.
    pub const TRIES: u32 = 3;
}

/// Why and how far traffic goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoingBack {
    /// One word: `errors`, `fleet`, `tenants`, `blast_radius`, `insufficient`, `person`, `undo` and the like.
    pub cause: String,
    /// Who asked for it.
    pub author: Author,
    /// Why, in sentences.
    pub reason: String,
    /// When it began.
    pub since_ms: u64,
    /// How many of the steps back were taken.
    pub step: u32,
    /// Fields that this release does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Rollout {
    /// Where a batch's units begin and end.
    pub fn batch_range(&self, batch: u32) -> std::ops::Range<u32> {
        let bound = |i: u32| self.bounds.get(i as usize).or(self.bounds.last()).copied().unwrap_or_default();
        bound(batch)..bound(batch + 1)
    }

    /// How many batches there are.
    pub fn batches(&self) -> u32 {
        self.bounds.len().saturating_sub(1) as u32
    }

    /// The stage after this one; none after the last.
    pub fn next_stage(&self) -> Option<Stage> {
        let Stage { batch, step } = self.stage;
        if !self.spec.is_last(step) {
            return Some(Stage { batch, step: step + 1 });
        }
        (batch + 1 < self.batches()).then_some(Stage { batch: batch + 1, step: 0 })
    }

    /// Whether it is past a step after which going back is for people to decide.
    pub fn is_beyond_return(&self) -> bool {
        let steps = &self.spec.steps;
        let entered = |i: usize| {
            let step = i as u32;
            self.stage.batch > 0 || step < self.stage.step || step == self.stage.step && self.in_effect
        };
        self.phase != Phase::Pending && steps.iter().enumerate().any(|(i, s)| s.no_return && entered(i))
    }

    /// Until when the old version must stay usable, in milliseconds since the Unix epoch; none unless it is complete.
    pub fn warm_until_ms(&self) -> Option<u64> {
        let ended_ms = self.ended_ms.filter(|_| self.phase == Phase::Completed)?;
        (self.spec.keep_warm_ms > 0).then(|| ended_ms.saturating_add(self.spec.keep_warm_ms))
    }

    /// The gates of a moment, with the names under which their answers are kept.
    pub fn gates_at(&self, at: GateAt) -> impl Iterator<Item = (String, &Gate)> {
        let step = self.stage.step + 1;
        let here = move |g: &&Gate| g.at == at && g.step.is_none_or(|s| s == step);
        self.spec.gates.iter().filter(here).map(move |gate| (self.gate_key(gate), gate))
    }

    /// The gates of a moment that are not open yet.
    pub fn closed_gates(&self, at: GateAt) -> impl Iterator<Item = (String, &Gate)> {
        self.gates_at(at).filter(|(key, _)| !self.gates.get(key).is_some_and(|record| record.open))
    }

    fn gate_key(&self, gate: &Gate) -> String {
        match gate.at {
            GateAt::BeforeStep | GateAt::AfterStep => format!("{}@{}", gate.name, self.stage),
            _ => gate.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_counted_from_one_for_people() {
        let stage = Stage { batch: 2, step: 1 };
        assert_eq!(stage.to_string(), "3.2");
        assert_eq!("3.2".parse(), Ok(stage));
        assert_eq!("2".parse(), Ok(Stage { batch: 0, step: 1 }));
        for wrong in ["", "0", "1.0", "x", "1.2.3", "-1"] {
            assert!(wrong.parse::<Stage>().is_err(), "{wrong}");
        }
    }
}
