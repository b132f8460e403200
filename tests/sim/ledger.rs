//! What the simulation itself remembers of what happened, so that it need not believe the product's documents.

use std::collections::{BTreeMap, BTreeSet};

use switchback::model::{
    Author, Change, ChangeRequest, Commit, EventKind, RolloutCommand, RolloutId, Scope, ServiceName, Stage, State,
    VersionName,
};

use crate::view::View;

/// Who set a split.
#[derive(Clone, Debug, PartialEq)]
pub enum Setter {
    /// A person, on purpose.
    Person,
    /// A rollout, in a try that counts since this revision.
    Rollout { since_revision: u64 },
    /// Anything else that is done to it: by the guard, or because a version went back.
    Other,
}

/// One commit with the states around it.
pub struct Turn<'a> {
    pub service: &'a ServiceName,
    pub scopes: &'a [Scope],
    pub before: &'a State,
    pub after: &'a State,
    /// What the scopes had before, and what they have now.
    pub was: &'a View,
    pub is: &'a View,
    /// None: a change of the whole proxy.
    pub request: Option<&'a ChangeRequest>,
    pub commit: &'a Commit,
    pub wall_ms: u64,
    pub process_ms: u64,
}

#[derive(Default)]
pub struct Ledger {
    /// Setters by the attempt that they made.
    pub setters: BTreeMap<u64, Setter>,
    /// Gates that were open in a try.
    pub opened: BTreeSet<(RolloutId, u32, String)>,
    /// Steps that a person approved in a try, or everything.
    pub approved: BTreeSet<(RolloutId, u32, Stage)>,
    /// Steps that took effect in a try, and when by the process's clock.
    pub entered: BTreeMap<(RolloutId, u32, Stage), u64>,
    /// Rollouts that a person sent to the end at once.
    pub full: BTreeSet<RolloutId>,
    /// Since when a version is taken back from a scope.
    pub gone: BTreeMap<(Scope, VersionName), u64>,
    /// Attempts that a probe by the guard made.
    pub probed: BTreeSet<u64>,
    /// When the process began, on its clock.
    pub restart_ms: u64,
}

impl Turn<'_> {
    /// The share of a version in effect before and after.
    pub fn shares(&self, scope: &Scope, version: &VersionName) -> (u16, u16) {
        (self.was.share(scope, version), self.is.share(scope, version))
    }

    /// The command to a rollout that this is, if it is one.
    pub fn command(&self) -> Option<(&RolloutId, &RolloutCommand)> {
        match &self.request?.change {
            Change::Rollout(id, command) => Some((id, command)),
            _ => None,
        }
    }

    pub fn by_machine(&self) -> bool {
        self.request.is_some_and(|r| r.author == Author::Autopilot)
    }
}

impl Ledger {
    /// Takes a commit in.
    pub fn note(&mut self, turn: &Turn<'_>) {
        let setter = self.setter(turn);
        self.setters.insert(turn.after.revision, setter);
        if matches!(turn.request.map(|r| &r.change), Some(Change::Probe { .. })) {
            self.probed.insert(turn.after.revision);
        }
        if let Some((id, command)) = turn.command() {
            self.note_command(turn, id, command);
        }
        // What is trusted now is where traffic goes back to.
        let baseline = |state: &State| state.service(turn.service.as_str()).map(|live| live.baseline.clone());
        if baseline(turn.before) != baseline(turn.after) {
            self.gone.retain(|(_, version), _| Some(version) != baseline(turn.after).as_ref());
        }
        self.note_gone(turn);
    }

    fn note_command(&mut self, turn: &Turn<'_>, id: &RolloutId, command: &RolloutCommand) {
        let (was, is) = (&turn.before.rollouts[id].rollout, &turn.after.rollouts[id].rollout);
        match command {
            RolloutCommand::Enter { stage, .. } if is.in_effect => {
                self.entered.insert((id.clone(), is.retries, *stage), turn.process_ms);
            }
            RolloutCommand::Promote { full, .. } => {
                self.approved.extend(is.approved.map(|stage| (id.clone(), is.retries, stage)));
                if *full {
                    self.full.insert(id.clone());
                    if !is.in_effect {
                        self.entered.remove(&(id.clone(), is.retries, is.stage));
                    }
                }
            }
            RolloutCommand::Resume => {
                // A person gives the rollout the splits of its wider units again.
                for unit in turn.after.rollouts[id].units.iter().filter(|u| u.status.has_moved()) {
                    self.setters.insert(unit.attempt, Setter::Rollout { since_revision: was.since_revision });
                }
            }
            _ => {}
        }
    }

    fn note_gone(&mut self, turn: &Turn<'_>) {
        let Some(request) = turn.request else { return };
        // Past the point of no return the guard's rollback becomes a pause.
        let held = turn.commit.events.iter().any(|event| event.kind == EventKind::RolloutPaused);
        let gone: Vec<(Scope, VersionName)> = match &request.change {
            // A person may follow a wider split again, whatever happened to the narrower one.
            Change::ClearSplit { .. } | Change::SetSplit { .. } => {
                self.gone.retain(|(scope, _), _| {
                    let (old, new) = (&turn.was.of(scope).owner, &turn.is.of(scope).owner);
                    old == new && turn.was.attempt(scope) == turn.is.attempt(scope)
                });
                return;
            }
            Change::Rollback { scope, canary: Some(canary), .. } if !held => {
                let covered = |s: &&Scope| *scope == Scope::Service || turn.is.of(s).owner == *scope;
                turn.scopes.iter().filter(covered).map(|s| (s.clone(), canary.clone())).collect()
            }
            Change::DisableVersion(version) => turn.scopes.iter().map(|s| (s.clone(), version.clone())).collect(),
            Change::Rollout(id, _) => {
                let (was, is) = (&turn.before.rollouts[id], &turn.after.rollouts[id]);
                if was.rollout.phase.is_final() || !is.rollout.phase.is_final() || was.units == is.units {
                    return;
                }
                let reverted =
                    |s: &&Scope| is.units.get(&turn.is.of(s).owner).is_some_and(|u| u.attempt == turn.after.revision);
                turn.scopes.iter().filter(reverted).map(|s| (s.clone(), is.rollout.spec.to.clone())).collect()
            }
            _ => return,
        };
        self.gone.extend(gone.into_iter().map(|key| (key, turn.after.revision)));
    }

    fn setter(&self, turn: &Turn<'_>) -> Setter {
        let Some(request) = turn.request else { return Setter::Person };
        match &request.change {
            // The way back lowers what the try set, so what is left is still of the try.
            Change::Rollout(id, _) => {
                Setter::Rollout { since_revision: turn.before.rollouts[id].rollout.since_revision }
            }
            Change::StartRollout(_) => Setter::Other,
            // Half of what somebody gave is still what they gave.
            Change::Probe { scope, .. } => self.setters.get(&turn.was.attempt(scope)).cloned().unwrap_or(Setter::Other),
            Change::SetSplit { .. } if request.author != Author::Autopilot => Setter::Person,
            _ => Setter::Other,
        }
    }
}
